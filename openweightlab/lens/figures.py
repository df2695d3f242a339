"""Figures that everybody can read: colour-blind-safe, 700 px wide, with a text for those who cannot see."""

import base64
import io
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from html import escape
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from openweightlab.lens.frontend import show_html

WIDTH = 700  # pixels
COLOURS = {  # Okabe and Ito's palette
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "sky": "#56B4E9",
    "purple": "#CC79A7",
    "yellow": "#F0E442",
    "black": "#000000",
    "grey": "#777777",  # ours, for what has no verdict
}


def style() -> AbstractContextManager[None]:
    """The kit's figure style, for a `with` block: 700 px wide, large type, no box around it."""
    return plt.rc_context(
        {
            "figure.figsize": (7.0, 3.4),
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "font.family": ["DejaVu Sans"],
            "font.size": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "axes.prop_cycle": plt.cycler(color=list(COLOURS.values())),
        }
    )


def line(
    x: Sequence[float],
    y: Sequence[float],
    *,
    xlabel: str,
    ylabel: str,
    alt: str,
    marker: str = "o",
    mark: tuple[float, float] | None = None,
) -> None:
    """Show a curve of shares in percent; mark: a point to single out. Labels name the unit."""
    with style():
        fig, ax = plt.subplots()
        ax.plot(x, y, marker=marker)
        if mark is not None:
            ax.plot(*mark, marker="D", markersize=9, color=COLOURS["vermilion"])
        ax.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, 105))
        show(fig, alt=alt)


def histogram(
    values: Any, *, xlabel: str, ylabel: str, alt: str, band: tuple[float, float], band_label: str
) -> None:
    """Show how often each size comes up among `values`; band: a stretch of the axis to shade."""
    with style():
        fig, ax = plt.subplots()
        ax.hist(values, bins=80, color=COLOURS["blue"])
        ax.axvspan(*band, color=COLOURS["orange"], alpha=0.25, zorder=0, label=band_label)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        ax.set_ylim(top=ax.get_ylim()[1] * 1.15)  # room for the legend
        ax.legend(frameon=False, loc="upper left")
        show(fig, alt=alt)


def show(fig: Figure, *, alt: str) -> None:
    """Show a figure as a picture with its alternative text, and close it.

    alt: what the picture says, for readers who do not see it. Raises ValueError where it is missing, or where
    the figure holds letters that its font lacks (they would show as empty boxes).
    """
    if not alt.strip():
        raise ValueError("show(fig, alt=…) needs a text that says what the figure shows")
    picture = io.BytesIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fig.savefig(picture, format="png", dpi=200)
    plt.close(fig)
    missing = [str(w.message) for w in caught if "missing from" in str(w.message)]
    if missing:
        raise ValueError(f"the figure would show empty boxes: {missing[0]}. Put such text beside it, as HTML")
    data = base64.b64encode(picture.getvalue()).decode()
    html = f'<img src="data:image/png;base64,{data}" alt="{escape(alt, quote=True)}" '
    show_html(html + f'style="width:{WIDTH}px;max-width:100%;background:white">', f"Figure: {alt}")
