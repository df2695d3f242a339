"""The boxes that predictions, self-checks and results come in: plain HTML that reads well in either theme."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

LETTERS = "ABCDEFGH"

COLOURS = {  # Okabe and Ito's palette, safe for colour-blind readers
    "predict": "#0072B2",
    "result": "#D55E00",
    "quiz": "#009E73",
    "note": "#999999",
}


def card(kind: str, title: str, *parts: str) -> str:
    """A box with a coloured edge; `title` is text, `parts` are HTML.

    >>> card("note", "1 < 2", "<p>so it is</p>")[-54:]
    'margin-bottom:4px">1 &lt; 2</div><p>so it is</p></div>'
    """
    return (
        f'<div style="border-left:5px solid {COLOURS[kind]};padding:6px 12px;margin:6px 0;max-width:700px;'
        f'line-height:1.45"><div style="font-weight:600;margin-bottom:4px">{escape(title)}</div>'
        + "".join(parts)
        + "</div>"
    )


def paragraph(text: str) -> str:
    """One paragraph of plain text."""
    return f'<p style="margin:4px 0">{escape(text)}</p>'


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
    return f'<details style="margin:4px 0"><summary>{escape(summary)}</summary>{html}</details>'


def lettered(options: list[str]) -> str:
    """The options as a list A, B, C."""
    rows = "".join(
        f'<div style="margin:2px 0"><b>{letter}</b>&ensp;{escape(text)}</div>'
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
