"""The atlas: real open-weight models with their sizes, licences and sources, from data/atlas.yaml.

Nothing here downloads anything. A figure that no source was read for is marked wherever it is shown.
"""

import json
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

KINDS = {"f": "full_attention", "s": "sliding_attention", "c": "chunked_attention", "l": "linear_attention"}
CONVENTIONS = ("active_all_in", "active_without_input_table", "active_without_embeddings")
CHOSEN = ("num_experts_per_tok", "moe_topk", "moe_k")  # what configurations call the experts of one token …
EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")  # … and all of a layer
EVIDENT = ("published", "precision", "context", "licence", "released")  # what in a row has sources of its own


@dataclass(frozen=True)
class Evidence:
    """Where a figure comes from; `verified` says whether a source for it was read."""

    verified: bool
    source: tuple[str, ...]
    remark: str = ""


@dataclass(frozen=True)
class Published:
    """Sizes in the maker's words, such as "671B"; `active` is None for a dense model."""

    total: str
    active: str | None = None


@dataclass(frozen=True)
class Counted:
    """Parameters as counted: `by` transformers (built on the meta device) or by formula.

    "Active" is what one token uses. All in: the experts that a token does not choose are left out, nothing
    else. Without the input table: what is multiplied and what is read from memory (a tied table is also the
    head, so it stays). Without embeddings: neither table, nor learned positions.
    """

    by: str
    total: int
    active_all_in: int
    active_without_input_table: int
    active_without_embeddings: int
    parts: dict[str, int]


@dataclass(frozen=True)
class Licence:
    """A licence's terms in short; `duties` by kind: notice, users, revenue, uses, places, name, outputs …"""

    id: str
    title: str
    short: str
    spdx: str | None
    hub_tag: str | None
    osi_approved: bool | None
    commerce: str
    duties: dict[str, str]
    verified: bool
    source: tuple[str, ...]
    law: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Model:
    """One row of the atlas; `evidence` has an entry each for released, published, config, precision, …"""

    id: str
    name: str
    hub_id: str
    family: str
    maker: str
    country: str
    released: str
    published: Published
    config: dict[str, Any] | None  # what transformers needs to build it: model_type and every size
    layers: str  # one letter a layer: KINDS; empty where no configuration is known
    part: str  # "all", or "text" of a model that reads images too
    built_as: str  # said where it is not built as its own class
    uncounted: str  # why there is no count, where there is none
    counted: Counted | None
    remote_code: bool  # its checkpoint runs code from the hub
    context_length: int | None
    native_precision: str
    native_bits: float | dict[str, float] | None  # bits per weight, or by part
    licence: Licence
    effective_licence: str  # where the declared licence is not the whole story
    openness: dict[str, str]
    evidence: dict[str, Evidence]
    notes: tuple[str, ...] = field(default=())

    @property
    def experts(self) -> tuple[int, int] | None:
        """(experts that a token chooses, routed experts in a layer), or None for a dense model."""
        config = self.config or {}
        chosen = next((config[key] for key in CHOSEN if key in config), None)
        total = next((config[key] for key in EXPERTS if key in config), None)
        return (chosen, total) if chosen and total else None

    @property
    def unverified(self) -> tuple[str, ...]:
        """The parts of this row that rest on no source that was read."""
        return tuple(key for key, evidence in self.evidence.items() if not evidence.verified)

    @property
    def sources(self) -> dict[str, tuple[str, ...]]:
        """The addresses for each part of this row."""
        return {key: evidence.source for key, evidence in self.evidence.items()}


@dataclass(frozen=True)
class Card:
    """A graphics card: memory and bandwidth in decimal GB and GB/s, as its data sheet counts."""

    id: str
    name: str
    memory_gb: float
    bandwidth_gb_s: float
    bf16: bool
    verified: bool
    source: tuple[str, ...]
    remark: str = ""


def models() -> dict[str, Model]:
    """Every model of the atlas by its id, such as "qwen3-235b-a22b".

    >>> len(models())
    57
    """
    return dict(_models())


def cards() -> dict[str, Card]:
    """The graphics cards that `plan` knows, by id.

    >>> sorted(cards())
    ['a100', 'h100', 'h200', 'l4', 't4']
    """
    return {key: Card(id=key, **_tuples(card)) for key, card in _file()["cards"].items()}


def checked() -> str:
    """The day on which the sources were last read."""
    return str(_file()["checked"])


def licences() -> dict[str, Licence]:
    """The licences of the atlas's models, by id."""
    return dict(_licences())


def find(name: str) -> Model:
    """The model with this id, hub id or name, in any case; ValueError names what is close.

    >>> find("Qwen/Qwen3-0.6B").id
    'qwen3-0.6b'
    """
    known = {
        key.lower(): model for model in models().values() for key in (model.id, model.name, model.hub_id)
    }
    if name.lower() in known:
        return known[name.lower()]
    close = dict.fromkeys(known[key].id for key in get_close_matches(name.lower(), known, n=6, cutoff=0.5))
    raise ValueError(f"the atlas has no {name!r}; {suggestion(list(close)[:4])}`owl atlas` lists them all")


def card(name: str) -> Card:
    """The card with this id or name, in any case; ValueError lists those that there are."""
    found = next((c for c in cards().values() if name.lower() in (c.id, c.name.lower())), None)
    if found is None:
        raise ValueError(f"no card {name!r}: use one of {', '.join(cards())}, or make a Card of your own")
    return found


def suggestion(close: list[str]) -> str:
    """'did you mean a or b? ' for an error message, or nothing."""
    return f"did you mean {' or '.join(close)}? " if close else ""


@cache
def _file() -> dict[str, Any]:
    text = files("openweightlab.data").joinpath("atlas.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def problems(data: dict[str, Any]) -> list[str]:
    """What is wrong with the atlas's data, in words: where, and what the schema or the licence list says."""
    from jsonschema import Draft202012Validator  # comes with nbformat, and takes seconds to import

    schema = json.loads(files("openweightlab.data").joinpath("atlas.schema.json").read_text(encoding="utf-8"))
    errors = sorted(
        Draft202012Validator(schema).iter_errors(data), key=lambda error: list(map(str, error.path))
    )
    found = [f"{'.'.join(map(str, error.path)) or 'the file'}: {error.message}" for error in errors]
    if found:
        return found
    hubs = [row["hub"] for row in data["models"].values()]
    found += [f"the hub id {hub} stands twice" for hub in sorted({h for h in hubs if hubs.count(h) > 1})]
    return found + [
        f"models.{key}.licence: no licence {row['licence']['id']!r}"
        for key, row in data["models"].items()
        if row["licence"]["id"] not in data["licences"]
    ]


def _tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


@cache
def _licences() -> dict[str, Licence]:
    return {key: Licence(id=key, **_tuples(row)) for key, row in _file()["licences"].items()}


@cache
def _models() -> dict[str, Model]:
    try:
        return {key: _model(key, row) for key, row in _file()["models"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        faults = problems(_file()) or [f"{type(error).__name__}: {error}"]
        raise ValueError("\n".join(f"atlas.yaml: {fault}" for fault in faults)) from error


def _model(key: str, row: dict[str, Any]) -> Model:
    shape, published, licence = row.get("shape", {}), row["published"], row["licence"]
    claims = {"config": shape} | {name: row[name] for name in EVIDENT if name in row}
    return Model(
        id=key,
        hub_id=row["hub"],
        released=row["released"]["on"],
        published=Published(published["total"], published.get("active")),
        config=_config(shape) if shape else None,
        layers=_layers(shape) if shape else "",
        part=shape.get("part", "all"),
        built_as=shape.get("built_as", ""),
        uncounted=row.get("uncounted", ""),
        counted=Counted(**row["counted"]) if "counted" in row else None,
        context_length=row.get("context", {}).get("tokens"),
        native_precision=row["precision"]["name"],
        native_bits=row["precision"]["bits"],
        licence=_licences()[licence["id"]],
        effective_licence=licence.get("effective", ""),
        evidence={name: _evidence(claim) for name, claim in claims.items() if claim},
        notes=tuple(row.get("notes", ())),
        **{name: row[name] for name in ("name", "family", "maker", "country", "remote_code", "openness")},
    )


def _evidence(claim: dict[str, Any]) -> Evidence:
    return Evidence(claim["verified"], tuple(claim["source"]), claim.get("remark", ""))


def _config(shape: dict[str, Any]) -> dict[str, Any]:
    """The arguments for AutoConfig.for_model."""
    patterned = {"layer_types": [KINDS[letter] for letter in shape["layers"]]} if "layers" in shape else {}
    return {"model_type": shape["type"], **shape["settings"], **patterned}


def _layers(shape: dict[str, Any]) -> str:
    settings = shape["settings"]
    return shape.get("layers") or "f" * settings.get("num_hidden_layers", settings.get("n_layer"))
