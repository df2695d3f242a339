"""From solution to exercise: nbgrader's generate_assignment, and a search for solutions that got through."""

import builtins
import keyword
import logging
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from openweightlab.authoring.source import Refused, to_text

PYTHONS_OWN = {*keyword.kwlist, *dir(builtins)}
WINDOW = 10  # this many words and signs in a row, equal to a solution's, are a leak


def release(root: Path, solutions: Mapping[str, NotebookNode]) -> dict[str, NotebookNode]:
    """What `nbgrader generate_assignment` makes of each module's solution, by the course's settings.

    Works in a folder of its own and without a gradebook, so that the instructor's is not touched.
    Raises Refused, with nbgrader's words, where nbgrader refuses.
    """
    exercises = {}
    with tempfile.TemporaryDirectory() as folder:
        for module, notebook in solutions.items():
            course = Path(folder).resolve() / module
            source = course / "solutions" / module / f"{module}.ipynb"
            source.parent.mkdir(parents=True)
            source.write_text(to_text(notebook), encoding="utf-8")
            _generate(root / "nbgrader_config.py", course, module)
            exercise = course / "exercises" / module / f"{module}.ipynb"
            exercises[module] = nbformat.read(exercise, as_version=4)
    return exercises


def _generate(config_file: Path, course: Path, module: str) -> None:
    """Run nbgrader's converter on one assignment of a course folder."""
    from nbgrader.converters import GenerateAssignment
    from nbgrader.converters.base import NbGraderException
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import PyFileConfigLoader

    config = PyFileConfigLoader(config_file.name, path=str(config_file.parent)).load_config()
    config.CourseDirectory.update({"root": str(course), "assignment_id": module})
    config.CourseDirectory.update({"source_directory": "solutions", "release_directory": "exercises"})
    config.GenerateAssignment.no_database = True  # as `nbgrader generate_assignment --no-db` does
    config.SaveCells.enabled = False
    converter = GenerateAssignment(coursedir=CourseDirectory(config=config), config=config)
    words = _Errors(logging.ERROR)
    converter.log.addHandler(words)
    try:
        converter.start()
    except NbGraderException as error:
        raise Refused([f"nbgrader makes no exercise of {module}: {words.heard or error}"]) from error
    finally:
        converter.log.removeHandler(words)


class _Errors(logging.Handler):
    """Keeps what nbgrader says before it gives up; its exception only says "see above"."""

    heard = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.heard = f"{self.heard}\n{record.getMessage()}".strip()


def solution_regions(notebook: NotebookNode) -> dict[str, str]:
    """The text between BEGIN SOLUTION and END SOLUTION, by grade_id.

    >>> cell = nbformat.v4.new_code_cell("# BEGIN SOLUTION\\nreturn 1\\n# END SOLUTION")
    >>> cell.metadata.nbgrader = {"grade_id": "Q0.1-answer"}
    >>> solution_regions(nbformat.v4.new_notebook(cells=[cell]))
    {'Q0.1-answer': 'return 1\\n'}
    """
    regions: dict[str, str] = {}
    for cell in notebook.cells:
        inside = False
        for line in cell.source.splitlines():
            if "BEGIN SOLUTION" in line or "END SOLUTION" in line:
                inside = "BEGIN SOLUTION" in line
            elif inside:
                grade_id = cell.metadata.get("nbgrader", {}).get("grade_id", "?")
                regions[grade_id] = regions.get(grade_id, "") + line + "\n"
    return regions


def tokens(text: str) -> list[str]:
    """Words, numbers and signs, without spacing, comment signs and text marks.

    >>> tokens("return  n*bits / 8  # bytes")
    ['return', 'n', '*', 'bits', '/', '8', 'bytes']
    """
    return re.findall(r"\w+|[^\w\s#`>]", text)


def windows(words: list[str]) -> Iterable[tuple[str, ...]]:
    """Every run of WINDOW tokens that says something: three different words, two of them not Python's own.

    A text with fewer tokens is one run.
    """
    for start in range(max(1, len(words) - WINDOW + 1)):
        run = tuple(words[start : start + WINDOW])
        different = {word for word in run if word.isidentifier() or word.isdigit()}
        if len(different) >= 3 and len(different - PYTHONS_OWN) >= 2:
            yield run


@dataclass(frozen=True)
class Leak:
    """Part of a question's solution, found where it must not be; `where` is the text's key."""

    where: Any
    grade_id: str
    words: str

    def __str__(self) -> str:
        return f"part of {self.grade_id}'s solution: {self.words}"


def leaks(solution: NotebookNode, texts: Mapping[Any, str]) -> list[Leak]:
    """The texts that repeat part of a solution, one finding each."""
    where: dict[tuple[str, ...], str] = {}
    for grade_id, region in solution_regions(solution).items():
        where.update((run, grade_id) for run in windows(tokens(region)))
    shorter = {len(run) for run in where}
    found = []
    for name, text in texts.items():
        words = tokens(text)
        runs = (tuple(words[i : i + n]) for n in shorter for i in range(len(words) - n + 1))
        hit = next((run for run in runs if run in where), None)
        if hit:
            found.append(Leak(name, where[hit], " ".join(hit)))
    return found


def faults(solution: NotebookNode, exercise: NotebookNode) -> list[tuple[int, str]]:
    """What an exercise must not hold, as (cell number, words): solutions, hidden tests, judges, outputs."""
    found = [
        (leak.where, str(leak)) for leak in leaks(solution, dict(enumerate(c.source for c in exercise.cells)))
    ]
    for number, cell in enumerate(exercise.cells):
        if mark := re.search(r"(BEGIN|END) (SOLUTION|HIDDEN TESTS|MARK SCHEME)", cell.source):
            found.append((number, f"the line {mark[0]!r}"))
        if cell.cell_type == "code" and re.search(r"\bjudges\b", cell.source):
            found.append((number, "code that names the judges"))
        if cell.get("outputs") or cell.get("execution_count"):
            found.append((number, "an output"))
    return found
