"""The boxes that predictions, self-checks and results come in: plain HTML that reads well in either theme."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from openweightlab.lens.figures import COLOURS

LETTERS = "ABCDEFGH"

EDGES = {"predict": "blue", "result": "vermilion", "quiz": "green", "note": "grey"}


def safe(text: str) -> str:
    """Text as HTML; a dollar sign gets a tag of its own, so that notebooks do not take prices for formulas.

    >>> safe("1 < 2 costs $3")
    '1 &lt; 2 costs <span>$</span>3'
    """
    return escape(text).replace("$", "<span>$</span>")


def card(kind: str, title: str, *parts: str) -> str:
    """A box with a coloured edge; `title` is text, `parts` are HTML.

    >>> card("note", "1 < 2", "<p>so it is</p>")[-54:]
    'margin-bottom:4px">1 &lt; 2</div><p>so it is</p></div>'
    """
    edge = f"border-left:5px solid {COLOURS[EDGES[kind]]};padding:6px 12px;margin:6px 0"
    head = f'<div style="font-weight:600;margin-bottom:4px">{safe(title)}</div>'
    text = "max-width:700px;line-height:1.45;font-size:14px"
    return f'<div style="{edge};{text}">{head}{"".join(parts)}</div>'


def paragraph(text: str) -> str:
    """One paragraph of plain text."""
    return f'<p style="margin:4px 0">{safe(text)}</p>'


def status(text: str) -> str:
    """A line that screen readers read out when it changes."""
    return f'<div role="status" style="max-width:700px">{paragraph(text)}</div>'


@contextmanager
def said(line: Any) -> Iterator[None]:
    """Say what went wrong with a file in `line` (an HTML widget): a button's errors show nowhere else."""
    try:
        yield
    except OSError as error:
        line.value += status(str(error))


def folded(summary: str, html: str) -> str:
    """A line that opens on a click, or with the keyboard, to show `html`."""
    return f'<details style="margin:4px 0"><summary>{safe(summary)}</summary>{html}</details>'


def lettered(options: list[str]) -> str:
    """The options as a list A, B, C."""
    rows = "".join(
        f'<div style="margin:2px 0"><b>{letter}</b>&ensp;{safe(text)}</div>'
        for letter, text in zip(LETTERS, options, strict=False)
    )
    return f'<div style="margin:4px 0">{rows}</div>'


def buttons(kit: Any, options: list[str], on_pick: Callable[[int], None]) -> Any:
    """A row of buttons A, B, C (kit: the module ipywidgets); each calls on_pick with its option's number."""
    row = []
    for i, (letter, text) in enumerate(zip(LETTERS, options, strict=False)):
        button = kit.Button(description=letter, tooltip=f"{letter}: {text}", layout={"width": "56px"})
        button.on_click(lambda _, i=i: on_pick(i))
        row.append(button)
    return kit.HBox(row, layout={"flex_flow": "row wrap"})
