"""The report as one HTML page: it loads nothing, runs nothing, and escapes whatever came from a student."""

import io
import re

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from .findings import Findings, histogram
from .itemanalysis import FEW, WEAK
from .pages import templates
from .results import Answer
from .similarity import ALIKE, BINS, NO_PROOF

# Colours that are put in place of these by the page's style, so that plots follow light and dark.
INK, BAR, MARKED = "#010101", "#010102", "#010103"
VARIABLES = {INK: "var(--ink)", BAR: "var(--bar)", MARKED: "var(--marked)"}
SETTINGS = {
    **{
        "svg.fonttype": "none",
        "svg.hashsalt": "owl",
        "font.family": "sans-serif",
        "font.size": 11,
        "axes.linewidth": 0.8,
    },
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    **{"axes.spines.top": False, "axes.spines.right": False},
}
INCHES = 6.9  # at 96 pixels to the inch, narrow enough for a page of 700 pixels


def page(findings: Findings) -> str:
    """The whole page."""
    filters = {"figure": lambda value: "–" if value is None else f"{value:.2f}", "mark": _mark}
    with matplotlib.rc_context(SETTINGS):  # type: ignore[arg-type]
        return (
            templates(**filters)
            .get_template("report.html.j2")
            .render(
                findings=findings,
                found=findings.found,
                likeness=findings.likeness,
                marks=_summary(findings.marks),
                plot_marks=plot_marks(findings) if len(findings.marks) else "",
                plot_items=plot_items(findings),
                plot_likeness=plot_likeness(findings) if findings.likeness.compared else "",
                **{"no_proof": NO_PROOF, "weak": WEAK, "few": FEW, "alike": ALIKE},
            )
        )


def _mark(answer: Answer | None) -> str:
    if answer is None:
        return ""
    return "…" if answer.pending else f"{answer.points:g}"


def _summary(marks: np.ndarray) -> dict[str, float] | None:
    if not len(marks):
        return None
    low, middle, high = np.percentile(marks, [25, 50, 75])
    spread = {"low": low, "median": middle, "high": high, "least": marks.min(), "best": marks.max()}
    return {"count": len(marks), "mean": marks.mean(), **spread}


def plot_marks(findings: Findings) -> Markup:
    """Histogram of the final marks."""
    marks, most = findings.marks, findings.found.most
    figure = Figure((INCHES, 2.6), layout="constrained")
    axes = figure.subplots()
    counts, edges = histogram(marks, most, 20)
    axes.bar(edges[:-1], counts, np.diff(edges) * 0.94, align="edge", color=BAR)
    axes.set(xlabel=f"mark (points of {most:g})", ylabel="students")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    top = int(np.argmax(counts))
    about = f"Histogram of {len(marks)} marks. Most students, {counts[top]:g}, have "
    return drawn(figure, "marks", f"{about}{edges[top]:g} to {edges[top + 1]:g} points of {most:g}.")


def plot_items(findings: Findings) -> Markup:
    """Difficulty and discrimination of each question, side by side."""
    items = findings.items[::-1]
    figure = Figure((INCHES, 0.9 + 0.3 * len(items)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [item.id for item in items]
    hard = [item.difficulty or 0.0 for item in items]
    left.barh(names, hard, color=BAR)
    left.set(xlim=(0, 1), xlabel="difficulty (mean share of points)")
    telling = [item.discrimination or 0.0 for item in items]
    right.barh(names, telling, color=[MARKED if value < WEAK else BAR for value in telling])
    right.axvline(WEAK, color=INK, linestyle="--", linewidth=0.8)
    right.set(xlim=(min(0.0, *telling), 1), xlabel="discrimination (correlation r)")
    told = "; ".join(
        f"{name} {value:.2f}, {r:.2f}" for name, value, r in zip(names, hard, telling, strict=True)
    )
    return drawn(figure, "items", f"Bars by question: difficulty, discrimination. {told}.")


def plot_likeness(findings: Findings) -> Markup:
    """Histogram of all pairs by likeness; few pairs stay visible because the scale is logarithmic."""
    likeness = findings.likeness
    counts = np.array(likeness.counts).reshape(50, BINS // 50).sum(axis=1)
    edges = np.linspace(0, 1, 51)
    figure = Figure((INCHES, 2.4), layout="constrained")
    axes = figure.subplots()
    listed = edges[:-1] >= ALIKE - 1e-9
    axes.bar(edges[:-1], counts, 0.02, align="edge", color=[MARKED if marked else BAR for marked in listed])
    axes.set(xlabel="likeness (weighted share of code in common)", ylabel="pairs", xlim=(0, 1))
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    about = f"Histogram of {likeness.compared} pairs by likeness; {counts[listed].sum()} from {ALIKE} on."
    return drawn(figure, "likeness", about)


def drawn(figure: Figure, name: str, about: str) -> Markup:
    """A figure as SVG for the middle of a page, in the page's own colours, with a text for screen readers."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()[file.getvalue().index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(about)}"', 1))
