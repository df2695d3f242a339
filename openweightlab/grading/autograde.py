"""nbgrader's own autograde converter, told to take submissions the way students really hand them in.

`nbgrader autograde`, formgrader's button and `owl grade` all go through it: nbgrader_config.py calls
`install`. It normalises each submission into a staging folder, and nbgrader then works on that instead of on
`submitted/`; everything behind (scores, gradebook, late penalties, manual grading, feedback) is nbgrader's.
"""

import logging
import os
import shutil
import tempfile
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import nbformat
import nbgrader.apps.api
import nbgrader.apps.autogradeapp
from nbgrader.converters import Autograde
from nbgrader.converters.base import NbGraderException
from nbgrader.coursedir import CourseDirectory
from nbgrader.utils import parse_utc, rmtree
from traitlets import Bool, List, Unicode

from . import records
from .course import Course, CourseError
from .gradebook import automatic_scores, clear_grades, gradebook_cells, register
from .normalise import Normalised, normalise
from .preprocessor import Judge

OLD_SECONDS = 2 * 24 * 3600


def install() -> None:
    """Put CourseAutograde in Autograde's place, for the command line and for formgrader's button.

    nbgrader has no setting for it: its hooks come after the decision to skip a submission, and see no folder
    without a notebook of the right name.
    """
    for place in (nbgrader.apps.autogradeapp, nbgrader.apps.api):
        place.Autograde = CourseAutograde  # type: ignore[attr-defined]


class CourseAutograde(Autograde):
    """Autograde that grades renamed, nested, damaged and changed submissions, each for itself.

    Assignments without a judge of the kit go nbgrader's own way.
    """

    students = List(Unicode(), help="Grade these students, also those who handed in nothing; all others not.")
    fresh = Bool(False, help="Run submissions again although their records are there; --force says so too.")
    _staging: Path | None = None

    @property
    def course(self) -> Course:
        return Course(Path(self.coursedir.root))

    @property
    def _module(self) -> str:
        return str(self.coursedir.assignment_id)

    @property
    def _input_directory(self) -> str:
        if self._staging and self._sanitizing:
            return os.path.relpath(self._staging, self.coursedir.root)
        return str(super()._input_directory)

    def start(self) -> None:
        """Grade what is new or changed, or all of it with --force."""
        if not self.course.has(self._module):
            super().start()
            return
        try:
            register(self.coursedir, self._module, self)
            self._sweep()
            with tempfile.TemporaryDirectory(prefix="staged-", dir=self.course.store) as staging:
                self._staging = Path(staging)
                super().start()
        except CourseError as error:
            self.log.error(str(error))
            raise NbGraderException(str(error)) from error
        finally:
            self._staging = None

    def _sweep(self) -> None:
        """Remove what gradings left that were killed days ago."""
        self.course.store.mkdir(exist_ok=True)
        for old in self.course.store.glob("staged-*"):
            if time.time() - old.stat().st_mtime > OLD_SECONDS:
                shutil.rmtree(old, ignore_errors=True)

    def init_notebooks(self) -> None:
        """Stage the submissions; nbgrader takes the list of notebooks from here."""
        if not self._staging:
            super().init_notebooks()
            return
        names = self.students or self._found()
        self.assignments = {str(path.parent): [str(path)] for path in map(self._stage, names)}
        if not self.assignments:
            where = submission_folder(self.coursedir, "<student>", self._module)
            raise CourseError(f"No submission found: there is no {where}")

    def _found(self) -> list[str]:
        wanted = self.coursedir.student_id
        names = students(self.coursedir, self._module)
        return [name for name in names if name == wanted or fnmatchcase(name, wanted)]

    def _stage(self, student: str) -> Path:
        """Write one normalised submission to where nbgrader is going to look for it."""
        folder = submission_folder(self.coursedir, student, self._module)
        submission = prepare(self.coursedir, self.course, self._module, folder)
        path = Path(self._format_source(self._module, student), f"{self._module}.ipynb")
        path.parent.mkdir(parents=True)
        nbformat.write(submission.notebook, path)
        when = submission.notebook.metadata["owl_grading"]["timestamp"]
        if when:
            (path.parent / "timestamp.txt").write_text(when)
        return path

    def init_single_notebook_resources(self, notebook_filename: str) -> dict[str, Any]:
        """nbgrader's resources, and what Judge needs to know."""
        resources = super().init_single_notebook_resources(notebook_filename)
        if self._staging:
            task = self._about(resources["nbgrader"]["student"])
            resources["owl"] = {"task": task, "fresh": self.force or self.fresh}
        return resources

    def _about(self, student: str) -> dict[str, str]:
        return {"root": str(self.course.root), "module": self._module, "student": student}

    def init_destination(self, assignment_id: str, student_id: str) -> bool:
        """Whether to grade: not if the gradebook has this very record; what else was there is cleared."""
        if not self._staging:
            return bool(super().init_destination(assignment_id, student_id))
        if student_id in self.coursedir.student_id_exclude.split(","):
            return False
        if not (self.force or self.fresh) and self._is_done(student_id):
            self.log.info("%s is graded already", student_id)
            return False
        target = Path(self._format_dest(assignment_id, student_id))
        if target.exists():
            rmtree(str(target))
        clear_grades(self.coursedir, assignment_id, student_id)
        return True

    def _is_done(self, student: str) -> bool:
        name = f"{self._module}.ipynb"
        staged = nbformat.read(Path(self._format_source(self._module, student), name), as_version=4)
        record = records.load(Judge(parent=self).task(staged, **self._about(student)).path)
        if record is None or "infrastructure" in record.flags:
            return False
        stamp = _stamp(Path(self._format_dest(self._module, student), name))
        scores = {id: result["points"] for id, result in record.questions.items()}
        wanted = records.digest(record), staged.metadata["owl_grading"]["timestamp"]
        return stamp == wanted and scores == automatic_scores(self.coursedir, self._module, student)


def prepare(coursedir: CourseDirectory, course: Course, module: str, folder: Path) -> Normalised:
    """A submission as it is graded: normalised, with the gradebook's own source in every locked cell.

    The two differ where an instructor added nbgrader's hidden tests, which the release lacks. What was seen
    goes along in the notebook's metadata, where no student can have written it.
    """
    submission = normalise(folder, module, course.release(module))
    sources = gradebook_cells(coursedir, module)
    for cell in submission.notebook.cells:
        marks = cell.metadata.get("nbgrader", {})
        if marks.get("grade_id") in sources and not marks.get("solution"):
            cell.source = sources[marks["grade_id"]][0]
    kept = {"status": submission.status, "reason": submission.reason, "flags": list(submission.flags)}
    submission.notebook.metadata["owl_grading"] = kept | {"timestamp": _timestamp(folder / "timestamp.txt")}
    return submission


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
        kept = nbformat.read(path, as_version=4).metadata["owl_grading"]
        return str(kept["record"]), str(kept["timestamp"])
    except (OSError, ValueError, KeyError, nbformat.ValidationError):
        return None
