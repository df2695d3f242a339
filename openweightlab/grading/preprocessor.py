"""The judge's settings, in Execute's place among nbgrader's preprocessors; a record shown in a notebook."""

import html
from dataclasses import fields
from pathlib import Path
from typing import Any

from nbformat import NotebookNode, v4
from nbgrader.preprocessors import Execute
from traitlets import Dict, Enum

from . import records, sandbox
from .course import CONFIG, Course, CourseError
from .normalise import Normalised
from .run import Limits, Record

WEAK = "This test runs among the student's own code, which could have changed it."


class Judge(Execute):
    """How the course's settings say that submissions are judged: `c.Judge.sandbox` and `c.Judge.limits`.

    CourseAutograde judges the modules; this executes, as nbgrader does, assignments without a judge.
    """

    sandbox = Enum(
        ["auto", *sandbox.LEVELS, "none"],
        "auto",
        help="Where students' code runs: the strongest sandbox that works (auto), this one or not at all, or "
        "unprotected (none).",
    ).tag(config=True)

    limits = Dict(
        help="What one submission may use, where that isn't as in openweightlab.grading.run.Limits, e.g. "
        '{"cell_seconds": 120, "memory_mib": 8192}.',
    ).tag(config=True)

    def task(self, nb: NotebookNode, root: str, module: str, student: str) -> records.Task:
        """The grading task that a normalised notebook stands for, under this judge's settings."""
        kept = nb.metadata["owl_grading"]
        submission = Normalised(nb, tuple(kept["flags"]), kept["status"], kept["reason"])
        return records.Task(Course(Path(root)), module, student, submission, self.sandbox, self._limits())

    def check(self) -> None:
        """Raise CourseError if no submission can be run here under these settings."""
        try:
            sandbox.choose(self.sandbox)
        except RuntimeError as error:
            raise CourseError(f"{error} (c.Judge.sandbox is {self.sandbox!r})") from None

    def _limits(self) -> Limits:
        try:
            return Limits(**self.limits)
        except TypeError:
            known = ", ".join(field.name for field in fields(Limits))
            raise CourseError(f"c.Judge.limits in {CONFIG} is {self.limits}; it may have: {known}") from None


def show(nb: NotebookNode, record: Record) -> None:
    """Write a record into the notebook: points and explanations in check cells, outputs elsewhere.

    Raises:
        ValueError: a check cell without a result, which nbgrader would give full marks.
    """
    lacking = {_checked(cell) for cell in nb.cells} - {"", *record.questions}
    if lacking:
        raise ValueError(f"the record has no result for {', '.join(sorted(lacking))}")
    for cell, outputs in zip(nb.cells, record.outputs, strict=True):
        if cell.cell_type == "code":
            result = record.questions.get(_checked(cell))
            cell.outputs = [*([_verdict(_checked(cell), result)] if result else []), *map(_output, outputs)]
    whole = [
        f"{id}-answer" for id, found in record.questions.items() if found["points"] == found["max_points"]
    ]
    flags = sorted({*nb.metadata["owl_grading"]["flags"], *record.flags})
    about = {"status": record.status, "reason": record.reason, "flags": flags, "whole": whole}
    nb.metadata["owl_grading"] |= about


def _output(kept: dict[str, Any]) -> NotebookNode:
    return v4.new_output(**kept)


def _checked(cell: NotebookNode) -> str:
    marks = cell.metadata.get("nbgrader", {})
    return str(marks.get("grade_id")) if marks.get("grade") and not marks.get("solution") else ""


def _verdict(id: str, result: dict[str, Any]) -> NotebookNode:
    """The output that nbgrader reads the points from; people see the explanation in its place."""
    data = {"text/plain": repr(float(result["points"])), "text/html": explain(id, result)}
    return v4.new_output("execute_result", data=data, execution_count=None)


def explain(id: str, result: dict[str, Any]) -> str:
    """One question's outcome for student and instructor: cases in words, no input and no expected value."""
    points = f"{result['points']:g} of {result['max_points']:g} points"
    lines = [f"<strong>{html.escape(id)}: {points}</strong>"]
    if result.get("error"):
        lines.append(f"<div>{html.escape(result['error'])}</div>")
    if result.get("weak"):
        lines.append(f"<div><em>{WEAK}</em></div>")
    if result["cases"]:
        lines.append(f"<ul>{''.join(map(_case, result['cases']))}</ul>")
    return "".join(lines)


def _case(case: dict[str, Any]) -> str:
    sign, message = ("✓" if case["ok"] else "✗"), case.get("message", "")
    told = f"<div><em>{html.escape(message)}</em></div>" if message and not case["ok"] else ""
    return f"<li>{sign} {html.escape(case['label'])}{told}</li>"
