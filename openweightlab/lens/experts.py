"""Figures about experts: parameter budgets, who serves which domain, and the roof under which they run."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from openweightlab.atlas import Model
from openweightlab.lens.figures import COLOURS, show, style

HEAT = LinearSegmentedColormap.from_list("heat", ["#FFFFFF", COLOURS["blue"]])
PARTS = {  # what a budget shows: label, colour, the atlas's parts
    "chosen experts": ("vermilion", ()),
    "shared experts": ("orange", ("shared_experts",)),
    "attention": ("blue", ("attention",)),
    "dense, router, norms": ("green", ("dense_ffn", "router", "norms")),
    "output head": ("purple", ("head",)),
    "input table": ("sky", ("input_table", "positions")),
}


def budget_parts(model: Model) -> dict[str, int]:
    """An atlas model's parameters by part, "idle experts" last: those that a token does not choose.

    >>> from openweightlab.atlas import find
    >>> sum(budget_parts(find("olmoe-1b-7b")).values())
    6919161856
    """
    if model.counted is None:
        raise ValueError(f"{model.name} has no count in the atlas: {model.uncounted}")
    parts = model.counted.parts
    routed = parts.get("routed_experts", 0)
    chosen, experts = model.experts or (1, 1)
    budget = {label: sum(parts.get(part, 0) for part in own) for label, (_, own) in PARTS.items()}
    budget["chosen experts"] = routed * chosen // experts
    return budget | {"idle experts": routed - budget["chosen experts"]}


def budget(models: Sequence[Model]) -> None:
    """Draw where the parameters are: a bar for each model, all of it on the left, the active part right."""
    budgets = [budget_parts(model) for model in models]
    names = [model.name for model in models]
    with style():
        fig, (whole, active) = plt.subplots(1, 2, sharey=True, figsize=(7, 1.9 + 0.5 * len(models)))
        for ax, labels in ((whole, [*PARTS, "idle experts"]), (active, list(PARTS))):
            left = np.zeros(len(models))
            sums = np.array([sum(one[label] for label in labels) for one in budgets])
            for label in labels:
                colour = COLOURS[PARTS[label][0]] if label in PARTS else "#DDDDDD"
                share = 100 * np.array([one[label] for one in budgets]) / sums
                ax.barh(names, share, left=left, color=colour, label=label, height=0.6)
                left += share
            for row, total in enumerate(sums):
                ax.text(50, row - 0.34, f"{total / 1e9:,.1f} billion", ha="center", va="bottom", size=9)
            ax.grid(False)
            ax.set_xlim(0, 100)
        whole.invert_yaxis()
        whole.set_xlabel("share of all parameters (%)")
        active.set_xlabel("share of the active ones, all in (%)")
        handles = whole.get_legend_handles_labels()
        fig.legend(*handles, loc="outside upper center", ncols=4, frameon=False, fontsize=9, columnspacing=1)
        show(fig, alt="Parameter budgets. " + " ".join(map(_budget_words, names, budgets)))


def _budget_words(name: str, parts: dict[str, int]) -> str:
    words = ", ".join(f"{label} {n / 1e9:.2f}" for label, n in parts.items() if n)
    return f"{name}, billions: {words}."


def heat_table(
    rows: Any, *, ylabels: Sequence[str], titles: Sequence[str], xlabel: str, alt: str, top: float
) -> None:
    """Draw tables of shares [D, E] below each other on one scale, from 0 to `top` (a share)."""
    with style():
        fig, axes = plt.subplots(len(rows), 1, figsize=(7, 0.9 + 1.75 * len(rows)), squeeze=False)
        for ax, table, title in zip(axes[:, 0], rows, titles, strict=True):
            image = ax.imshow(100 * np.asarray(table), cmap=HEAT, vmin=0, vmax=100 * top, aspect="auto")
            ax.set_yticks(range(len(ylabels)), ylabels)
            ax.set_xticks(range(np.asarray(table).shape[1]))
            ax.set_title(title, fontsize=11, loc="left")
            ax.grid(False)
        axes[-1, 0].set_xlabel(xlabel)
        fig.colorbar(image, ax=axes[:, 0].tolist(), label="share of choices (%)", aspect=30)
        show(fig, alt=alt)


def roofline(
    bandwidth: float, peak: float, points: Sequence[tuple[int, float, float]], *, alt: str = ""
) -> None:
    """Draw the roof that memory and processor set, and measured points below it.

    bandwidth: GB/s. peak: GFLOP/s. points: (tokens in the batch, operations per byte, GFLOP/s).
    """
    with style():
        fig, ax = plt.subplots()
        x = np.geomspace(min(p[1] for p in points) / 2, 2 * max(p[1] for p in points), 200)
        ax.plot(
            x, np.minimum(bandwidth * x, peak), color=COLOURS["black"], label="roof: the lower of the two"
        )
        ax.axvline(peak / bandwidth, color=COLOURS["grey"], linestyle=":")
        ax.text(peak / bandwidth, peak * 1.25, "ridge", ha="center", size=10)
        _, xs, ys = zip(*points, strict=True)
        ax.plot(xs, ys, "o", color=COLOURS["vermilion"], label="measured")
        for tokens, at, speed in points:
            ax.annotate(f"{tokens}", (at, speed), textcoords="offset points", xytext=(6, -12), fontsize=9)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_ylim(min(p[2] for p in points) / 2.5, 3 * peak)
        ax.set_xlabel("operations per byte read (FLOP/byte); numbers: tokens in the batch")
        ax.set_ylabel("speed (GFLOP/s)")
        ax.legend(frameon=False, loc="lower right")
        said = "; ".join(f"{tokens} tokens {speed:.1f} GFLOP/s" for tokens, _, speed in points)
        show(
            fig,
            alt=alt
            or f"Roofline: memory gives {bandwidth:.1f} GB/s, the processor {peak:.0f} GFLOP/s; the ridge "
            f"lies at {peak / bandwidth:.0f} operations per byte. Measured: {said}.",
        )


def curves(
    x: Sequence[float],
    ys: dict[str, Sequence[float]],
    *,
    xlabel: str,
    ylabel: str,
    alt: str,
    lines: Sequence[str] = (),
    log: bool = True,
    bare: bool = False,
) -> None:
    """Show several series over one axis, each with markers of its own.

    lines: series to draw as a black line without markers. bare: draw all as lines in colour. log: powers of
    two on the axis. Labels name the unit.
    """
    markers, dashes = iter("osD^vPX*"), iter(("-", "--", ":", "-."))
    with style():
        fig, ax = plt.subplots()
        for label, y in ys.items():
            if label in lines:
                ax.plot(x, y, color=COLOURS["black"], label=label)
            elif bare:
                ax.plot(x, y, linestyle=next(dashes), label=label)
            else:
                ax.plot(x, y, marker=next(markers), linestyle="--", linewidth=0.8, label=label)
        if log:
            ax.set_xscale("log", base=2)
            ax.set_xticks(list(x), [f"{value:g}" for value in x])
        elif len(x) <= 10:
            ax.set_xticks(list(x))
        ax.set(xlabel=xlabel, ylabel=ylabel)
        ax.set_ylim(bottom=0)
        ax.legend(frameon=False, fontsize=10)
        show(fig, alt=alt)
