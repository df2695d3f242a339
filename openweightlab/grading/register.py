"""Making the gradebook know a module, from what nbgrader's generate_assignment makes of its solution."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbgrader.converters import GenerateAssignment
from nbgrader.converters.base import NbGraderException
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import SaveCells
from nbgrader.utils import is_grade, is_locked, is_solution, is_task
from sqlalchemy.exc import SQLAlchemyError

from .course import Course, CourseError
from .gradebook import Cell, gradebook, known_cells, plainly, refused, shown
from .keepmarks import KeepMarks

BESIDE_THE_POINT = ("There was", "Please see", "(Background on", "[SQL:", "[parameters:")


@contextmanager
def complaints(log: logging.Logger) -> Iterator[list[str]]:
    """What is logged as errors meanwhile: of each message, the last line, if it says anything."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines = [line.strip() for line in record.getMessage().splitlines() if line.strip()]
            said.extend([line for line in lines if not line.startswith(BESIDE_THE_POINT)][-1:])

    listener, level = Listener(logging.ERROR), log.level
    log.addHandler(listener)
    log.setLevel(min(level, logging.ERROR))
    try:
        yield said
    finally:
        log.removeHandler(listener)
        log.setLevel(level)


class _Converter(GenerateAssignment):
    """GenerateAssignment of one notebook, whatever characters the names of the folders above hold."""

    def init_notebooks(self) -> None:
        module = self.coursedir.assignment_id
        folder = self._format_source(module, self.coursedir.student_id)  # has a "." in it that nbgrader wants
        self.assignments = {folder: [os.path.join(folder, f"{module}.ipynb")]}


def register(coursedir: CourseDirectory, module: str, parent: Any = None) -> list[str]:
    """Make the gradebook know the module as it was handed out, as `nbgrader generate_assignment` would.

    Only the gradebook is written, never exercises/. Returns what changed in a gradebook that knew the module.

    Raises:
        CourseError: the gradebook can't take it, or exercises/ and solutions/ don't agree.
    """
    release = _kept_by_nbgrader(Course(Path(coursedir.root)).release(module))
    with gradebook(coursedir) as book:
        if _agrees(release, known_cells(book, module)):
            return []
    return _register(coursedir, module, parent, set(release))


def _register(coursedir: CourseDirectory, module: str, parent: Any, cells: set[str]) -> list[str]:
    """Run nbgrader's converter, up to where it would write exercises/."""
    before = coursedir.assignment_id, coursedir.release_directory, coursedir.notebook_id
    with tempfile.TemporaryDirectory() as elsewhere, complaints(coursedir.log) as said:
        coursedir.assignment_id, coursedir.release_directory, coursedir.notebook_id = module, elsewhere, "*"
        converter = _Converter(coursedir=coursedir, parent=parent, force=True)
        saver = KeepMarks(parent=converter, wanted=cells)
        steps = converter.preprocessors
        converter.preprocessors = [saver if step in (SaveCells, KeepMarks) else step for step in steps]
        try:
            with plainly(coursedir.db_url):
                converter.start()
        except NbGraderException as error:
            if isinstance(error.__context__, SQLAlchemyError):
                raise refused(coursedir.db_url, error.__context__) from error
            raise CourseError(
                f"The gradebook {shown(coursedir.db_url)} can't take {module} as it is now "
                f"({' '.join(said[-1:])}). `nbgrader generate_assignment {module}` makes exercises/ anew"
            ) from error
        finally:
            coursedir.assignment_id, coursedir.release_directory, coursedir.notebook_id = before
    return list(saver.news)


def _kept_by_nbgrader(release: NotebookNode) -> dict[str, tuple[str, float]]:
    """Source and points of each cell that nbgrader would keep in its gradebook."""
    kept = {}
    for cell in release.cells:
        graded = is_grade(cell) or is_task(cell)
        if graded or is_solution(cell) or is_locked(cell):
            about = cell.metadata.nbgrader
            kept[about.grade_id] = (cell.source, float(about.points) if graded else 0.0)
    return kept


def _agrees(release: dict[str, tuple[str, float]], known: dict[str, Cell]) -> bool:
    """Whether the gradebook has exactly the release's cells, hidden tests aside."""
    if set(release) != set(known):
        return False
    pairs = [(known[id], *ours) for id, ours in release.items()]
    return all(
        cell.points == points and (cell.source == source or "BEGIN HIDDEN TESTS" in cell.source)
        for cell, source, points in pairs
    )
