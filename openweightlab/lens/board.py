"""The claims board: what the press says, then what was found about it."""

from html import escape

from openweightlab.data.claims import VERDICTS, Claim, checked, claims
from openweightlab.lens.cards import safe
from openweightlab.lens.figures import COLOURS
from openweightlab.lens.frontend import show_html

MARKS = {  # verdict -> sign and colour: the sign alone says it, too
    "supported": ("✓", "green"),
    "corrected": ("≈", "blue"),
    "contradicted": ("✗", "vermilion"),
    "unverified": ("?", "grey"),
    "opinion": ("❝", "grey"),
}
KINDS = {"primary": "primary", "copy": "copy of the primary", "secondary": "secondary"}


def claims_board(*ids: str, verdicts: bool = False) -> None:
    """Show the board's claims, numbered from 1; with verdicts=True also what was found, with the sources.

    ids: show these claims alone, under the numbers that they have on the board.
    """
    board = [(n, claim) for n, claim in enumerate(claims(), 1) if not ids or claim["id"] in ids]
    html = "".join(_row(number, claim, verdicts) for number, claim in board)
    plain = [f"{number}. {claim['text']}" for number, claim in board]
    foot = "What do you think of each? The verdicts come below."
    if verdicts:
        found = [f"[{VERDICTS[claim['verdict']]}] {claim['because']}" for _, claim in board]
        plain = [f"{text} {verdict}" for text, verdict in zip(plain, found, strict=True)]
        foot = f"Sources last read on {checked()}."
    html += f'<p style="opacity:.75">{escape(foot)}</p>'
    show_html(f'<div style="max-width:700px;line-height:1.45">{html}</div>', "\n".join([*plain, foot]))


def settled(claim: Claim) -> str:
    """How a claim is settled, in the board's words.

    >>> settled({"settled_by": "measurement", "module": "01", "verdict": "contradicted"})
    'measured here (module 01)'
    """
    if claim["settled_by"] == "measurement":
        return f"measured here (module {claim['module']})"
    words = {"unverified": "an opinion until somebody shows a source", "opinion": "no fact decides it"}
    return words.get(claim["verdict"], "a primary source settles it")


def _row(number: int, claim: Claim, verdicts: bool) -> str:
    """One claim: its text, who said it, and on demand what was found."""
    head = (
        f"<div><b>{number}.</b> “{safe(claim['text'])}”</div>"
        f'<div style="opacity:.75;font-size:90%">{safe(claim["said"])}</div>'
    )
    sign, colour = MARKS[claim["verdict"]] if verdicts else ("", "grey")
    found = _found(claim, sign) if verdicts else ""
    edge = f"border-left:5px solid {COLOURS[colour]};padding:4px 12px;margin:10px 0"
    return f'<div style="{edge}">{head}{found}</div>'


def _found(claim: Claim, sign: str) -> str:
    """The verdict, the reason, and folded away the facts and the sources."""
    facts = list(claim["facts"])
    facts += [f"The best case {side}: {text}" for side, text in claim.get("best_case", {}).items()]
    facts += [f"Not read: {claim['unread']}"] if "unread" in claim else []
    facts += [f"Say instead: {claim['say_instead']}"]
    sources = "".join(_source(source) for source in claim["sources"])
    return (
        f'<div style="margin-top:4px"><b>{sign} {escape(VERDICTS[claim["verdict"]])}</b> · '
        f"{escape(settled(claim))}</div><div>{safe(claim['because'])}</div>"
        f"<details><summary>Facts and sources of claim: {escape(claim['id'])}</summary><ul>"
        + "".join(f"<li>{safe(fact)}</li>" for fact in facts)
        + f"</ul><ul>{sources}</ul></details>"
    )


def _source(source: dict[str, object]) -> str:
    kind = KINDS[str(source["kind"])] + ("" if source["read"] else ", not opened")
    note = f" ({escape(str(source['note']))})" if "note" in source else ""
    url = escape(str(source["url"]), quote=True)
    return f'<li>{kind}: <a href="{url}" target="_blank" rel="noopener">{url}</a>{note}</li>'
