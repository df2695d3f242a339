"""The claims: what the press says about open models, what settles it, and what was found."""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

Claim = dict[str, Any]

VERDICTS = {
    "supported": "supported",
    "corrected": "supported, with corrections",
    "contradicted": "contradicted",
    "unverified": "no source found",
    "opinion": "opinion",
}
SETTLED_BY = ("measurement", "source", "opinion")
FIELDS: dict[str, tuple[type, ...]] = {  # every claim has these
    "id": (str,),
    "text": (str,),  # as the press puts it
    "about": (str,),  # China | West | both
    "said": (str,),  # by whom and when
    "board": (bool,),  # whether it hangs on lesson 00's board
    "measurable_here": (bool,),  # whether this course has the means to measure it
    "settled_by": (str,),
    "verdict": (str,),
    "because": (str,),  # the verdict in two sentences
    "facts": (list,),
    "say_instead": (str,),
    "sources": (list,),  # {kind: primary|copy|secondary, read: bool, url, note}
}
OPTIONAL: dict[str, tuple[type, ...]] = {
    "module": (str,),  # the module that measures it or takes it up
    "primary_source": (str,),  # address of what settles it
    "unread": (str,),  # what could not be read or verified
    "best_case": (dict,),  # {for, against}, of opinions
    "contradicts": (str,),  # claims with the same word here contradict each other
}


def claims(board: bool = True) -> list[Claim]:
    """The claims of lesson 00's board, or with board=False all of them; each call gives a fresh copy.

    >>> len(claims())
    12
    """
    return [
        {**claim, "facts": list(claim["facts"]), "sources": [dict(source) for source in claim["sources"]]}
        for claim in _load()
        if claim["board"] or not board
    ]


def checked() -> str:
    """The day on which the sources were last read."""
    return str(_file()["checked"])


def problems(claim: Claim) -> list[str]:
    """What is wrong with one claim as the file holds it, in words."""
    known = FIELDS | OPTIONAL
    found = [f"lacks {name}" for name in FIELDS if name not in claim]
    found += [f"has an unknown field {name}" for name in claim if name not in known]
    found += [
        f"{name} has the wrong type"
        for name in claim
        if name in known and type(claim[name]) not in known[name]
    ]
    if found:
        return found
    rules = {
        "about is China, West or both": claim["about"] in ("China", "West", "both"),
        f"verdict is one of {', '.join(VERDICTS)}": claim["verdict"] in VERDICTS,
        f"settled_by is one of {', '.join(SETTLED_BY)}": claim["settled_by"] in SETTLED_BY,
        "what is measurable here is settled by measurement": claim["measurable_here"]
        == (claim["settled_by"] == "measurement"),
        "what is measured names its module": not claim["measurable_here"] or "module" in claim,
        "what a source settles names the primary source": (claim["settled_by"] != "source")
        or claim.get("primary_source", "").startswith("https://"),
        "an opinion has no primary source": claim["settled_by"] != "opinion" or "primary_source" not in claim,
        "an opinion has the best case of both sides": claim["verdict"] != "opinion"
        or sorted(claim.get("best_case", {})) == ["against", "for"],
        "there is a source": bool(claim["sources"]),
        "a source not read is owned up to": all(s.get("read") for s in claim["sources"]) or "unread" in claim,
    }
    return [f"breaks the rule: {rule}" for rule, kept in rules.items() if not kept] + [
        f"source {source} needs kind, read and an https address"
        for source in claim["sources"]
        if source.get("kind") not in ("primary", "copy", "secondary")
        or not isinstance(source.get("read"), bool)
        or not str(source.get("url", "")).startswith("https://")
    ]


@cache
def _file() -> dict[str, Any]:
    return yaml.safe_load(files("openweightlab.data").joinpath("claims.yaml").read_text(encoding="utf-8"))


@cache
def _load() -> tuple[Claim, ...]:
    """Every claim, checked; raises ValueError that names each claim's faults."""
    found: list[Claim] = _file()["claims"]
    ids = [claim.get("id") for claim in found]
    faults = [f"claims.yaml: {claim.get('id')}: {fault}" for claim in found for fault in problems(claim)]
    faults += [f"claims.yaml: the id {id} stands twice" for id in {i for i in ids if ids.count(i) > 1}]
    if faults:
        raise ValueError("\n".join(faults))
    return tuple(found)
