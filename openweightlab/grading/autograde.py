"""nbgrader's own autograde converter, told to take submissions the way students really hand them in.

`nbgrader autograde`, formgrader's button and `owl grade` all go through it: nbgrader_config.py calls
`install`. For a module with a judge it normalises each submission, gets its record, and brings that into
autograded/ and the gradebook in one go; everything behind (late penalties, manual grading, feedback, export)
is nbgrader's.
"""

import copy
import json
import logging
import os
import shutil
import traceback
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
import nbgrader.apps.api
import nbgrader.apps.autogradeapp
from nbformat import NotebookNode
from nbgrader.api import SubmittedNotebook
from nbgrader.converters import Autograde
from nbgrader.converters.base import NbGraderException
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    ClearOutput,
    DeduplicateIds,
    Execute,
    OverwriteCells,
    OverwriteKernelspec,
    SaveAutoGrades,
)
from nbgrader.utils import (
    compute_checksum,
    determine_grade,
    find_all_files,
    is_grade,
    is_solution,
    is_task,
    parse_utc,
    rmtree,
)

from . import gradebook as books
from . import records
from .course import Course, CourseError
from .gradebook import Book, Cell, Mark
from .normalise import Normalised, normalise
from .preprocessor import Judge, show
from .register import register
from .run import Record

# nbgrader's steps that normalising and one transaction make needless; all others of the settings are taken.
DONE_HERE = (
    *(ClearOutput, DeduplicateIds, OverwriteKernelspec, OverwriteCells, CheckCellMetadata),
    *(Execute, SaveAutoGrades, AssignLatePenalties),
)


def install() -> None:
    """Put CourseAutograde in Autograde's place, for the command line and for formgrader's button.

    nbgrader has no setting for it: its hooks come after the decision to skip a submission, and see no folder
    without a notebook of the right name.
    """
    for place in (nbgrader.apps.autogradeapp, nbgrader.apps.api):
        place.Autograde = CourseAutograde  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _Desk:
    """What grading one student after another needs, read once."""

    book: Book
    release: NotebookNode
    cells: dict[str, Cell]
    steps: list[Any]
    late: AssignLatePenalties | None
    masters: dict[str, Path]


class CourseAutograde(Autograde):
    """Autograde that grades renamed, nested, damaged and changed submissions, each for itself.

    `start` does a whole class. Whoever gets records in another way calls, with the course as working folder,
    `opened`, and inside it `task` and `take_in` for one student after another, from one thread.
    Assignments without a judge of the kit go nbgrader's own way.
    """

    @property
    def course(self) -> Course:
        return Course(Path(self.coursedir.root))

    @property
    def _module(self) -> str:
        return str(self.coursedir.assignment_id)

    @cached_property
    def _judge(self) -> Judge:
        return Judge(parent=self)

    def start(self) -> None:
        """Grade what is new or changed, or all of it with --force."""
        if not self.course.has(self._module):
            super().start()
            return
        try:
            self._judge.check()
            with chdir(self.coursedir.root), self.opened():
                failed = [student for student in self._names() if not self._grade(student)]
        except CourseError as error:
            self.log.error(str(error))
            raise NbGraderException(str(error)) from error
        if failed:
            message = f"Please see the messages above; not graded: {', '.join(failed)}"
            self.log.error(message)
            raise NbGraderException(message)

    def _names(self) -> list[str]:
        wanted, without = self.coursedir.student_id, self.coursedir.student_id_exclude.split(",")
        everybody = students(self.coursedir, self._module)
        names = [name for name in everybody if name == wanted or fnmatchcase(name, wanted)]
        if not names:
            where = submission_folder(self.coursedir, "<student>", self._module)
            raise CourseError(f"No submission found: there is no {where}")
        return [name for name in names if name not in without]

    def _grade(self, student: str) -> bool:
        """Grade one submission; False, with the reason in the log, where that was not possible."""
        try:
            task = self.task(student)
            self.take_in(task, records.obtain(task, fresh=self.force))
        except CourseError:
            raise
        except OSError as error:
            raise _cannot_write(error, self.course.store) from error
        except Exception as error:
            self.log.debug(traceback.format_exc())
            self.log.error("%s: %s", student, error)
            return False
        return True

    @contextmanager
    def opened(self) -> Iterator[list[str]]:
        """One gradebook, open while any number of submissions is graded; what changed in it, for people.

        Raises:
            CourseError: nobody can be graded, as with a gradebook that can't be written.
        """
        with books.gradebook(self.coursedir) as book:
            book.try_to_write()
            news = register(self.coursedir, self._module, self)
            cells, release = books.known_cells(book, self._module), self.course.release(self._module)
            self._desk = _Desk(book, release, cells, self._steps(), self._late(), self._masters())
            try:
                yield news
            finally:
                del self._desk

    def _steps(self) -> list[Any]:
        """The settings' preprocessors that are not done here, such as LimitOutput and an instructor's own."""
        exporter = self.exporter_class(parent=self, config=self.config)
        wanted = [*self.sanitize_preprocessors, *self.autograde_preprocessors]
        for step in wanted:
            if not _is_a(step, *DONE_HERE):
                exporter.register_preprocessor(step)
        return list(exporter._preprocessors)

    def _late(self) -> AssignLatePenalties | None:
        """nbgrader's late penalties, with the settings' plugin."""
        for step in self.autograde_preprocessors:
            if _is_a(step, AssignLatePenalties):
                late = step(parent=self)
                late.init_plugin()
                return late if late.enabled else None
        return None

    def _masters(self) -> dict[str, Path]:
        """Files beside the solution, which nbgrader puts beside each autograded notebook."""
        folder = self.coursedir.format_path(self.coursedir.source_directory, ".", self._module)
        found = find_all_files(folder, [*self.coursedir.ignore, "*.ipynb"])
        names = {os.path.relpath(path, folder): Path(path) for path in found}
        kept = self.exclude_overwriting.get(self._module, [])
        return {name: path for name, path in names.items() if name not in kept}

    def task(self, student: str) -> records.Task:
        """A student's submission as it is graded, under the course's settings."""
        folder = submission_folder(self.coursedir, student, self._module)
        submission = prepare(folder, self._module, self._desk.release, self._desk.cells)
        return self._judge.task(submission.notebook, str(self.course.root), self._module, student)

    def take_in(self, task: records.Task, record: Record) -> dict[str, Mark]:
        """Bring a record into autograded/ and the gradebook, if it isn't there; the marks by question.

        Marks of another record are taken back first, so that none is left if this breaks off.

        Raises:
            CourseError: nobody can be graded now, and the same call later goes on.
            NbGraderException: this submission can't be taken in.
        """
        try:
            kept = None if self.force else self._kept(task, record)
            if kept is not None:
                self.log.info("%s is graded already", task.student)
                return kept
            self._take_back(task.student)
            return self._replace(task, record)
        except CourseError:
            raise
        except OSError as error:
            raise _cannot_write(error, self._target(task.student)) from error
        except Exception as error:
            self.log.debug(traceback.format_exc())
            raise NbGraderException(f"{type(error).__name__}: {error}".splitlines()[0]) from error

    def _kept(self, task: records.Task, record: Record) -> dict[str, Mark] | None:
        """The marks, if this very record is in the gradebook; a late penalty is put right on the way."""
        stamp = records.digest(record), _handed_in(task)
        if _stamp(self._target(task.student) / f"{task.module}.ipynb") != stamp:
            return None
        with self._desk.book.transaction() as db:
            notebook = books.find(self._desk.book, task.module, task.student)
            if notebook is None:
                return None
            scores = books.automatic_scores(db, notebook)
            if any(scores.get(id) != result["points"] for id, result in record.questions.items()):
                return None
            books.add_up(db, notebook)
            notebook.late_submission_penalty = self._penalty(task.student, notebook)
            db.flush()
            return books.marks(db, notebook)

    def _target(self, student: str) -> Path:
        return Path(self._format_dest(self._module, student))

    def _take_back(self, student: str) -> None:
        """Remove what an earlier record left: the notebook, and all that the autograder gave."""
        with self._desk.book.transaction() as db:
            notebook = books.find(self._desk.book, self._module, student)
            if notebook is not None:
                books.clear(db, notebook)
        target = self._target(student)
        if target.exists():
            rmtree(str(target))

    def _replace(self, task: records.Task, record: Record) -> dict[str, Mark]:
        """Bring in a record where there is none; the notebook gets its name when its marks are written."""
        self.notebooks = [str(self._target(task.student) / f"{task.module}.ipynb")]
        self.log.info("Autograding %s", self.notebooks[0])
        self.run_pre_convert_hook()
        notebook = self._shown(task, record)
        written = self._write(task, notebook)
        found = self._save(task, notebook)
        written.rename(self._target(task.student))
        self.set_permissions(task.module, task.student)
        self.run_post_convert_hook()
        say = self.log.info if record.status == "graded" else self.log.warning
        flags = ", ".join(notebook.metadata["owl_grading"]["flags"]) or "none"
        about = task.student, record.status, record.points, flags, record.reason
        say("%s: %s, %g points, flags: %s. %s", *about)
        return found

    def _shown(self, task: records.Task, record: Record) -> NotebookNode:
        """The autograded notebook."""
        notebook = copy.deepcopy(task.submission.notebook)
        show(notebook, record)
        notebook.metadata["owl_grading"] |= {"record": records.digest(record), "key": task.key}
        about = {"student": task.student, "assignment": task.module, "notebook": task.module}
        resources: dict[str, Any] = {"unique_key": task.module, "output_files_dir": f"{task.module}_files"}
        resources |= {"nbgrader": {**about, "db_url": self.coursedir.db_url}}
        for step in self._desk.steps:
            notebook, resources = step(notebook, resources)
        return notebook

    def _write(self, task: records.Task, notebook: NotebookNode) -> Path:
        """Write the folder of autograded/ under a name that nobody looks for."""
        target = self._target(task.student)
        folder = target.with_name(f".{target.name}.new")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        text = nbformat.writes(notebook, version=4)
        (folder / f"{task.module}.ipynb").write_text(text + "\n", "utf-8")
        if _handed_in(task):
            (folder / "timestamp.txt").write_text(_handed_in(task))
        for name, path in self._desk.masters.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / name)
        return folder

    def _save(self, task: records.Task, notebook: NotebookNode) -> dict[str, Mark]:
        """Write all that the gradebook is to know of a submission, in one transaction."""
        about = notebook.metadata["owl_grading"]
        scores = {_id(cell): determine_grade(cell, self.log)[0] for cell in notebook.cells if is_grade(cell)}
        answers = [cell for cell in notebook.cells if is_solution(cell) or is_task(cell)]
        comments = {_id(cell): _comment(cell, about["reason"], about["whole"]) for cell in answers}
        book = self._desk.book
        with book.transaction() as db:
            if not (self.create_student or books.is_known(book, task.student)):
                raise NbGraderException("the gradebook has no such student, and is to make none")
            submitted = books.start_submission(book, task.module, task.student)
            submitted.assignment.timestamp = parse_utc(about["timestamp"]) if about["timestamp"] else None
            books.save(db, submitted, scores, comments)
            books.add_up(db, submitted)
            submitted.late_submission_penalty = self._penalty(task.student, submitted)
            db.flush()
            return books.marks(db, submitted)

    def _penalty(self, student: str, notebook: SubmittedNotebook) -> float | None:
        """What nbgrader's plugin takes off for lateness; None for a submission in time."""
        late, seconds = self._desk.late, notebook.assignment.total_seconds_late
        if late is None or seconds <= 0:
            return None
        penalty = late.plugin_inst.late_submission_penalty(student, notebook.score, seconds)
        self.log.warning("%s is %g seconds late; penalty: %s", student, seconds, penalty)
        return None if penalty is None else float(late._check_late_penalty(notebook, penalty))


def _cannot_write(error: OSError, where: Path) -> CourseError:
    return CourseError(
        f"{error.filename or where} can't be written ({error.strerror}). Is the disk full, or not yours to "
        "write? What is graded is kept: call again"
    )


def _is_a(step: Any, *kinds: type) -> bool:
    return isinstance(step, type) and issubclass(step, kinds)


def _id(cell: NotebookNode) -> str:
    return str(cell.metadata.nbgrader.grade_id)


def _comment(cell: NotebookNode, reason: str, whole: list[str]) -> str | None:
    """What the autograder says of an answer: why it could not be graded, or that it is none."""
    if reason and is_solution(cell) and _id(cell) not in whole:
        return reason
    untouched = cell.metadata.nbgrader.get("checksum") == compute_checksum(cell) and not is_task(cell)
    return "No response." if untouched else None


def prepare(folder: Path, module: str, release: NotebookNode, cells: dict[str, Cell]) -> Normalised:
    """A submission as it is graded: normalised, with the gradebook's own source in every locked cell.

    The two differ where an instructor added nbgrader's hidden tests, which the release lacks. What was seen
    goes along in the notebook's metadata, where no student can have written it.
    """
    submission = normalise(folder, module, release)
    for cell in submission.notebook.cells:
        marks = cell.metadata.get("nbgrader", {})
        known = cells.get(marks.get("grade_id", ""))
        if known:
            marks["checksum"] = known.checksum
            cell.source = cell.source if marks.get("solution") else known.source
    kept = {"status": submission.status, "reason": submission.reason, "flags": list(submission.flags)}
    submission.notebook.metadata["owl_grading"] = kept | {"timestamp": _timestamp(folder / "timestamp.txt")}
    return submission


def _handed_in(task: records.Task) -> str:
    return str(task.submission.notebook.metadata["owl_grading"]["timestamp"])


def students(coursedir: CourseDirectory, module: str) -> list[str]:
    """Students who handed something in for a module, in order."""
    above = submission_folder(coursedir, "?", module, loose=False)
    while above.name != "?":
        above = above.parent
    names = (path.name for path in above.parent.glob("[!.]*") if path.is_dir())
    return sorted(name for name in names if _any(submission_folder(coursedir, name, module)))


def _any(folder: Path) -> bool:
    return folder.exists() or folder.is_symlink()


def submission_folder(coursedir: CourseDirectory, student: str, module: str, loose: bool = True) -> Path:
    """Where a submission lies: `<student>/<module>`, or `<student>` when notebooks lie loose in there."""
    folder = Path(coursedir.format_path(coursedir.submitted_directory, student, module))
    parent = folder.parent
    if loose and not _any(folder) and parent.name == student and any(parent.glob("*.ipynb")):
        return parent
    return folder


def _timestamp(path: Path) -> str:
    """What a timestamp.txt says, if it says a time; a student's own may say anything."""
    try:
        if path.is_symlink() or path.stat().st_size > 100:
            return ""
        text = path.read_text("utf-8").strip()
        return text if text and parse_utc(text) else ""
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, OverflowError) as error:
        logging.getLogger(__name__).warning("%s is no time and is left out: %s", path, error)
        return ""


def _stamp(path: Path) -> tuple[str, str] | None:
    """Which record an autograded notebook shows, and when what it shows was handed in."""
    try:
        kept = json.loads(path.read_text("utf-8"))["metadata"]["owl_grading"]
        return str(kept["record"]), str(kept["timestamp"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
