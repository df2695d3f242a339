"""In Execute's place among nbgrader's autograde preprocessors: the judge, not the student's kernel."""

import html
from dataclasses import fields
from pathlib import Path
from typing import Any

from nbformat import NotebookNode, v4
from nbgrader.api import Gradebook
from nbgrader.preprocessors import Execute, NbGraderPreprocessor
from traitlets import Dict, Enum

from . import records
from .course import CONFIG, Course, CourseError
from .normalise import Normalised
from .run import Limits, Record

Resources = dict[str, Any]
WEAK = "This test runs among the student's own code, which could have changed it."


class Judge(Execute):
    """Scores a module's notebook by its record and writes trusted outputs into it.

    nbgrader reads the points off the check cells as it would after executing them: each holds one result, the
    points as a number, with an explanation beside it. Assignments without a judge are executed by nbgrader.
    """

    sandbox = Enum(
        ["auto", "bubblewrap", "none"],
        "auto",
        help="Where students' code runs: bubblewrap if it works (auto), nowhere else, or unprotected (none).",
    ).tag(config=True)

    limits = Dict(
        help="What one submission may use, where that isn't as in openweightlab.grading.run.Limits, e.g. "
        '{"cell_seconds": 120, "memory_mib": 8192}.',
    ).tag(config=True)

    def preprocess(
        self, nb: NotebookNode, resources: Resources, km: Any = None
    ) -> tuple[NotebookNode, Resources]:
        """Find the submission's record, or make it, and show it in the notebook."""
        if "owl" not in resources:
            return super().preprocess(nb, resources, km)
        task = self.task(nb, **resources["owl"]["task"])
        record = records.obtain(task, fresh=resources["owl"]["fresh"])
        show(nb, record)
        kept = nb.metadata["owl_grading"]
        kept |= {"record": records.digest(record), "key": task.key}
        say = self.log.info if record.status == "graded" else self.log.warning
        about = task.student, record.status, record.points, ", ".join(kept["flags"]) or "none", record.reason
        say("%s: %s, %g points, flags: %s. %s", *about)
        return nb, resources

    def task(self, nb: NotebookNode, root: str, module: str, student: str) -> records.Task:
        """The grading task that a normalised notebook stands for, under this judge's settings."""
        kept = nb.metadata["owl_grading"]
        submission = Normalised(nb, tuple(kept["flags"]), kept["status"], kept["reason"])
        return records.Task(Course(Path(root)), module, student, submission, self.sandbox, self._limits())

    def _limits(self) -> Limits:
        try:
            return Limits(**self.limits)
        except TypeError:
            known = ", ".join(field.name for field in fields(Limits))
            raise CourseError(f"c.Judge.limits in {CONFIG} is {self.limits}; it may have: {known}") from None


class Explain(NbGraderPreprocessor):
    """Says in the gradebook, on each answer that it cost points, why a run was not possible or not whole.

    Comes after SaveAutoGrades, which would say "No response".
    """

    def preprocess(self, nb: NotebookNode, resources: Resources) -> tuple[NotebookNode, Resources]:
        """Write the reason, if there is one, as a comment on every answer that it cost points."""
        reason = nb.metadata.get("owl_grading", {}).get("reason", "")
        if "owl" not in resources or not reason:
            return nb, resources
        about = resources["nbgrader"]
        with Gradebook(about["db_url"]) as gradebook:
            for cell in nb.cells:
                marks = cell.metadata.get("nbgrader", {})
                if marks.get("solution") and marks.get("grade_id") not in nb.metadata["owl_grading"]["whole"]:
                    where = (marks["grade_id"], about["notebook"], about["assignment"], about["student"])
                    gradebook.find_comment(*where).auto_comment = reason
            gradebook.db.commit()
        return nb, resources


def show(nb: NotebookNode, record: Record) -> None:
    """Write a record into the notebook: points and explanations in check cells, outputs elsewhere."""
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
