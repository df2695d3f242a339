"""A bar chart drawn by the browser, in the reader's own fonts, so that Chinese shows everywhere."""

from collections.abc import Sequence
from html import escape

from openweightlab.lens.figures import COLOURS, WIDTH

ROW, LEFT, RIGHT, TOP = 24, 190, 70, 8  # pixels: a bar's height, label and number columns, margin


def bar_chart(
    labels: Sequence[str],
    values: Sequence[float],
    *,
    axis: str,
    alt: str,
    faint: Sequence[bool] = (),
    chosen: int | None = None,
) -> str:
    """Horizontal bars of percentages as inline SVG, the first at the top.

    values: from 0 to 1. axis: what they are, with the unit. faint: bars cut off. chosen: one to mark.
    alt: the chart in words. Raises ValueError for more labels than values, or fewer.
    """
    if len(labels) != len(values):
        raise ValueError(f"bar_chart: {len(labels)} labels for {len(values)} values")
    pale = list(faint) + [False] * (len(labels) - len(faint))
    wide = WIDTH - LEFT - RIGHT
    foot = TOP + ROW * len(labels)
    rows = [
        _row(i, label, value, wide, pale[i], i == chosen)
        for i, (label, value) in enumerate(zip(labels, values, strict=True))
    ]
    return (
        f'<svg role="img" aria-label="{escape(alt, quote=True)}" viewBox="0 0 {WIDTH} {foot + 40}" '
        f'style="width:100%;max-width:{WIDTH}px;display:block" font-family="sans-serif" font-size="14" '
        f'fill="currentColor">{_ticks(wide, foot)}{"".join(rows)}'
        f'<text x="{LEFT + wide / 2}" y="{foot + 36}" text-anchor="middle">{escape(axis)}</text></svg>'
    )


def _row(i: int, label: str, value: float, wide: int, pale: bool, chosen: bool) -> str:
    y = TOP + ROW * i
    colour = COLOURS["vermilion"] if chosen else COLOURS["blue"]
    weight = ' font-weight="bold"' if chosen else ""
    said = "cut off" if pale else percent(value)
    return (
        f'<text x="{LEFT - 8}" y="{y + 16}" text-anchor="end"{weight}>{escape(_short(label))}</text>'
        f'<rect x="{LEFT}" y="{y + 3}" width="{max(1.0, wide * value):.1f}" height="{ROW - 7}" '
        f'fill="{colour}" fill-opacity="{0.25 if pale else 1}"/>'
        f'<text x="{LEFT + wide * value + 6:.1f}" y="{y + 16}"{weight}>{said}</text>'
    )


def _ticks(wide: int, foot: int) -> str:
    return "".join(
        f'<line x1="{LEFT + wide * t / 100}" x2="{LEFT + wide * t / 100}" y1="{TOP}" y2="{foot}" '
        f'stroke="currentColor" stroke-opacity="0.2"/>'
        f'<text x="{LEFT + wide * t / 100}" y="{foot + 17}" text-anchor="middle">{t}</text>'
        for t in (0, 25, 50, 75, 100)
    )


def _short(label: str, most: int = 22) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"


def percent(value: float) -> str:
    """A share as text, with the digits that matter.

    >>> percent(0.5), percent(0.99996), percent(0.00021), percent(0.0000003)
    ('50.0 %', '>99.9 %', '0.02 %', '<0.01 %')
    """
    if 0.9995 <= value < 1:
        return ">99.9 %"
    if value < 0.0001:
        return "0 %" if value == 0 else "<0.01 %"
    return f"{100 * value:.1f} %" if value >= 0.01 else f"{100 * value:.2f} %"
