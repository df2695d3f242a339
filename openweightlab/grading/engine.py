"""`owl grade`: a folder of submissions, through nbgrader, into its gradebook and a JSON file with a row each.

Resumable: every submission's record is kept as soon as it is there, so a second call, also after a kill,
grades only what is new or changed. FILE is written whole, and anew after each student.
"""

import argparse
import json
import logging
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy
from nbformat import NotebookNode
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.apps import NbGrader
from nbgrader.converters.base import NbGraderException
from tqdm import tqdm

from . import records
from .autograde import CourseAutograde, prepare, submission_folder
from .course import Course, CourseError, find_course
from .gradebook import complaints, gradebook, register
from .preprocessor import Judge
from .run import Record

Row = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """What `owl grade` was asked to do."""

    course: Course
    module: str
    submissions: Path
    file: Path
    gradebook: str | None = None
    sandbox: bool = True
    fresh: bool = False


def main(args: argparse.Namespace) -> int:
    """Exit status: 0 when every submission has a row, 2 when grading was impossible, 130 when interrupted."""
    try:
        call = _call(args)
        rows = grade(call)
    except CourseError as error:
        print(f"owl grade: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nowl grade: interrupted; what is graded is kept, and the same call goes on.", file=sys.stderr)
        return 130
    _say(_summary(rows, call.file))
    return 0


def _call(args: argparse.Namespace) -> Call:
    """The arguments, checked and absolute, since grading works from the course's folder."""
    course = find_course()
    course.release(args.module)
    submissions, file = Path(args.submissions).resolve(), Path(args.json).resolve()
    if not submissions.is_dir():
        raise CourseError(
            f"There is no folder {args.submissions}; it should hold one folder for each student"
        )
    if not file.parent.is_dir() or file.is_dir():
        raise CourseError(f"{args.json} can't be written: give the name of a file in a folder that exists")
    sandbox, fresh = not args.no_sandbox, getattr(args, "force", False)
    return Call(course, args.module, submissions, file, args.gradebook, sandbox, fresh)


def grade(call: Call) -> list[Row]:
    """Grade every student's folder, one after another, and write the file.

    Raises:
        CourseError: no submission at all, a gradebook that can't be used, a file that can't be written.
    """
    names = sorted(path.name for path in call.submissions.glob("[!.]*") if path.is_dir())
    if not names:
        layout = f"<student>/{call.module}/{call.module}.ipynb"
        raise CourseError(f"No submissions in {call.submissions}: expected {layout} in there")
    rows: list[Row] = []
    with _nbgrader(call) as app:
        most = _open(app, call)
        _write(call, most, rows)
        for name in tqdm(names, desc=call.module, unit="student", file=sys.stderr, disable=None):
            rows.append(_grade_one(app, call, name))
            _write(call, most, rows)
            _say(_line(rows[-1]))
    return rows


@contextmanager
def _nbgrader(call: Call) -> Iterator[NbGrader]:
    """nbgrader with the course's own settings, this call's submissions and gradebook; errors in our words."""
    before = os.getcwd()
    os.chdir(call.course.root)
    warnings.filterwarnings("ignore", category=sqlalchemy.exc.SAWarning, module="nbgrader")
    app = NbGrader(log_level=logging.CRITICAL)
    try:
        app.initialize([], root=str(call.course.root))
        app.log_level = logging.CRITICAL
        app.coursedir.submitted_directory = str(call.submissions)
        app.coursedir.assignment_id = call.module
        if call.gradebook:
            app.coursedir.db_url = call.gradebook
        if not call.sandbox:
            app.config.Judge.sandbox = "none"
        yield app
    except sqlalchemy.exc.SQLAlchemyError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        url = app.coursedir.db_url
        raise CourseError(
            f"The gradebook {url} can't be used: {reason}. Is it another program's now, may this account "
            "write there, and is it a URL such as sqlite:////home/me/gradebook.db?"
        ) from error
    finally:
        os.chdir(before)


def _open(app: NbGrader, call: Call) -> float:
    """Make sure of the gradebook, before anything long starts; the module's points in all."""
    _try_to_write(app)
    register(app.coursedir, call.module, app)
    marks = (cell.metadata.get("nbgrader", {}) for cell in call.course.release(call.module).cells)
    return sum(float(mark["points"]) for mark in marks if mark.get("grade"))


def _try_to_write(app: NbGrader) -> None:
    """Raise SQLAlchemy's error if the gradebook can't be written just now: locked, read-only, not there."""
    with gradebook(app.coursedir) as book:
        if book.engine.dialect.name == "sqlite":
            with book.engine.connect() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                connection.exec_driver_sql("ROLLBACK")


def _grade_one(app: NbGrader, call: Call, student: str) -> Row:
    """One student's row: the record first, which nbgrader then brings into autograded/ and the gradebook."""
    folder = submission_folder(app.coursedir, student, call.module)
    submission = prepare(app.coursedir, call.course, call.module, folder)
    task = Judge(parent=app).task(submission.notebook, str(call.course.root), call.module, student)
    record = records.obtain(task, fresh=call.fresh)
    converter = CourseAutograde(coursedir=app.coursedir, parent=app, students=[student])
    with complaints(app.log) as said:
        try:
            converter.start()
        except NbGraderException:
            _try_to_write(app)  # nobody can be graded into a gradebook that is locked now: that ends the call
            reason = f"nbgrader did not take the record: {said[-1] if said else 'it did not say why'}"
            record = records.ungraded(task, "crashed", reason, ("infrastructure",))
    with gradebook(app.coursedir) as book:
        return _row(student, record, submission.flags, submission.notebook, book)


def _row(
    student: str, record: Record, flags: tuple[str, ...], notebook: NotebookNode, book: Gradebook
) -> Row:
    """A student's entry in the file, with the gradebook's marks: a person's go before the judge's."""
    questions, pending = {}, 0.0
    for cell in notebook.cells:
        mark = cell.metadata.get("nbgrader", {})
        if mark.get("grade"):
            score, waits = _score(book, record.module, student, mark["grade_id"])
            error = record.questions.get(mark["grade_id"], {}).get("error")
            pending += float(mark["points"]) if waits and mark.get("solution") else 0.0
            questions[mark["grade_id"]] = {
                "points": score,
                "max_points": float(mark["points"]),
                "error": error,
            }
    return {
        "student": student,
        "status": record.status,
        "points": sum(question["points"] for question in questions.values()),
        "manual_pending": pending,
        "seconds": record.seconds,
        "peak_mib": record.peak_mib,
        "flags": sorted({*flags, *record.flags}),
        "reason": record.reason,
        "sandbox": record.sandbox,
        "questions": questions,
    }


def _score(book: Gradebook, module: str, student: str, grade_id: str) -> tuple[float, bool]:
    """Points in the gradebook, and whether they wait for a person."""
    try:
        grade = book.find_grade(grade_id, module, module, student)
    except MissingEntry:
        return 0.0, False
    return float(grade.score), grade.needs_manual_grade and grade.manual_score is None


def _write(call: Call, most: float, rows: list[Row]) -> None:
    text = json.dumps({"module": call.module, "max_points": most, "submissions": rows}, indent=1)
    try:
        records.write_whole(call.file, text + "\n")
    except OSError as error:
        raise CourseError(f"{call.file} can't be written: {error.strerror}") from error


def _line(row: Row) -> str:
    flags = f"  [{', '.join(row['flags'])}]" if row["flags"] else ""
    reason = f"  {row['reason']}" if row["reason"] else ""
    told = f"{row['student']:<16} {row['status']:<10} {row['points']:>6g}  {row['seconds']:>5.1f} s"
    return told + flags + reason


def _summary(rows: list[Row], file: Path) -> str:
    counts = Counter(row["status"] for row in rows)
    told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    return f"{len(rows)} submissions: {told}. Rows in {file}"


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stdout)
