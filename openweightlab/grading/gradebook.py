"""nbgrader's gradebook: what it knows of a module, its automatic points, and how it gets to know a module."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.converters import GenerateAssignment
from nbgrader.converters.base import NbGraderException
from nbgrader.coursedir import CourseDirectory

from .course import Course, CourseError


@contextmanager
def complaints(log: logging.Logger) -> Iterator[list[str]]:
    """What is logged as errors meanwhile: of each message, the last line, if it says anything."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines = [line.strip() for line in record.getMessage().splitlines() if line.strip()]
            said.extend(line for line in lines[-1:] if not line.startswith(("There was", "Please see")))

    listener, level = Listener(logging.ERROR), log.level
    log.addHandler(listener)
    log.setLevel(min(level, logging.ERROR))
    try:
        yield said
    finally:
        log.removeHandler(listener)
        log.setLevel(level)


@contextmanager
def gradebook(coursedir: CourseDirectory) -> Iterator[Gradebook]:
    """The course's gradebook, opened and closed."""
    with Gradebook(coursedir.db_url, coursedir.course_id) as book:
        yield book


def gradebook_cells(coursedir: CourseDirectory, module: str) -> dict[str, tuple[str, float]]:
    """Source and points of each cell that the gradebook has for a module; {} when it has no such module."""
    with gradebook(coursedir) as book:
        try:
            notebook = book.find_notebook(module, module)
        except MissingEntry:
            return {}
        points = {cell.name: float(cell.max_score) for cell in notebook.grade_cells}
        return {cell.name: (cell.source, points.get(cell.name, 0.0)) for cell in notebook.source_cells}


def automatic_scores(coursedir: CourseDirectory, module: str, student: str) -> dict[str, float | None]:
    """The autograder's points by check cell, as the gradebook has them."""
    with gradebook(coursedir) as book:
        try:
            grades = book.find_submission_notebook(module, module, student).grades
        except MissingEntry:
            return {}
        written = {cell.name for cell in book.find_notebook(module, module).solution_cells}
        return {grade.name: grade.auto_score for grade in grades if grade.name not in written}


def clear_grades(coursedir: CourseDirectory, module: str, student: str) -> None:
    """Take back the autograder's points, so that none outlives its submission; what people gave stays."""
    with gradebook(coursedir) as book:
        try:
            notebook = book.find_submission_notebook(module, module, student)
        except MissingEntry:
            return
        for grade in notebook.grades:
            grade.auto_score, grade.needs_manual_grade = None, True
        book.db.commit()


class _Register(GenerateAssignment):
    """GenerateAssignment of one notebook, whatever characters the names of the folders above hold."""

    def init_notebooks(self) -> None:
        module = self.coursedir.assignment_id
        folder = self._format_source(module, self.coursedir.student_id)  # has a "." in it that nbgrader wants
        self.assignments = {folder: [os.path.join(folder, f"{module}.ipynb")]}


def register(coursedir: CourseDirectory, module: str, parent: Any = None) -> None:
    """Make the gradebook know the module as it was handed out, as `nbgrader generate_assignment` would.

    Only the gradebook is written, never exercises/.

    Raises:
        CourseError: the gradebook has submissions for a version with other questions.
    """
    release = Course(Path(coursedir.root)).release(module)
    if _agrees(release, gradebook_cells(coursedir, module)):
        return
    before = coursedir.assignment_id, coursedir.release_directory, coursedir.notebook_id
    with tempfile.TemporaryDirectory() as elsewhere, complaints(coursedir.log) as said:
        coursedir.assignment_id, coursedir.release_directory, coursedir.notebook_id = module, elsewhere, "*"
        try:
            _Register(coursedir=coursedir, parent=parent, force=True).start()
        except NbGraderException as error:
            raise CourseError(
                f"The gradebook {coursedir.db_url} can't take {module} as it is now ({' '.join(said[-1:])}). "
                "If it holds submissions for other questions, use another gradebook, or remove the old "
                f"assignment: `nbgrader db assignment remove {module} --force`"
            ) from error
        finally:
            coursedir.assignment_id, coursedir.release_directory, coursedir.notebook_id = before


def _agrees(release: NotebookNode, known: dict[str, tuple[str, float]]) -> bool:
    """Whether the gradebook has exactly the release's cells, hidden tests aside."""
    ours = {}
    for cell in release.cells:
        marks = cell.metadata.get("nbgrader", {})
        if marks.get("grade_id"):
            points = float(marks.get("points", 0.0)) if marks.get("grade") else 0.0
            ours[marks["grade_id"]] = (cell.source, points)
    same = (known[id] == ours[id] or "BEGIN HIDDEN TESTS" in known[id][0] for id in ours if id in known)
    return set(ours) == set(known) and all(same)
