"""The boxes that predictions, self-checks and results come in: plain HTML that reads well in either theme."""

from html import escape

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


def folded(summary: str, html: str) -> str:
    """A line that opens on a click, or with the keyboard, to show `html`."""
    return f'<details style="margin:4px 0"><summary>{escape(summary)}</summary>{html}</details>'


def lettered(options: list[str]) -> str:
    """The options as a list A, B, C."""
    rows = "".join(
        f'<div style="margin:2px 0"><b>{letter}</b>&ensp;{escape(text)}</div>'
        for letter, text in zip(letters(len(options)), options, strict=True)
    )
    return f'<div style="margin:4px 0">{rows}</div>'


def letters(n: int) -> str:
    """The first n capital letters."""
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:n]


def table(head: list[str], rows: list[list[str]], caption: str) -> str:
    """An HTML table of plain texts; the caption says what it shows, to readers and to screen readers."""
    style = "text-align:left;padding:3px 10px 3px 0;vertical-align:top;white-space:normal"
    top = "".join(f'<th scope="col" style="{style}">{escape(cell)}</th>' for cell in head)
    body = "".join(
        "<tr>" + "".join(f'<td style="{style}">{escape(cell)}</td>' for cell in row) + "</tr>" for row in rows
    )
    return (
        '<table style="max-width:700px;border-collapse:collapse;margin:6px 0">'
        f'<caption style="text-align:left;caption-side:top;padding-bottom:4px">{escape(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    )
