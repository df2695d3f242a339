"""What came of a module, for every student: the gradebook's marks beside the records that they came from.

Read only: nothing is graded, and no student's code is run or imported.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbgrader.api import (
    Comment,
    Grade,
    Gradebook,
    MissingEntry,
    Notebook,
    Student,
    SubmittedAssignment,
    SubmittedNotebook,
)
from nbgrader.coursedir import CourseDirectory
from sqlalchemy.orm import Query

from . import records
from .autograde import prepare, submission_folder
from .autograde import students as handed_in
from .course import Course, CourseError
from .gradebook import Book, checked_url, known_cells, plainly, shown
from .judge import NOT_ANSWERED
from .normalise import Normalised
from .place import Target
from .place import known as collected
from .roster import Person, read_list, safe_id
from .run import Record
from .settings import in_course

FAILED = ("timeout", "crashed", "unreadable")
UNGRADED = "ungraded"  # handed in, but not in the gradebook yet


@dataclass(frozen=True)
class Item:
    """One graded thing of a module: a question, or an instructor's own test cell."""

    id: str
    title: str
    most: float
    written: bool = False  # marked by a person


@dataclass(frozen=True)
class Answer:
    """What one student has for one item; `cases` are the judge's, in words."""

    points: float
    most: float
    auto: float = 0.0  # what the judge gave, as the gradebook has it
    pending: bool = False
    by_hand: bool = False
    comment: str = ""
    error: str = ""
    cases: tuple[dict[str, Any], ...] = ()

    @property
    def tried(self) -> bool:
        """Whether the judge saw an answer there, right or wrong."""
        return any(case.get("ok") or case.get("message") != NOT_ANSWERED for case in self.cases)


@dataclass
class Result:
    """One student's outcome; points are the gradebook's, a person's before the judge's."""

    student: str
    status: str = "missing"
    reason: str = ""
    flags: tuple[str, ...] = ()
    answers: dict[str, Answer] = field(default_factory=dict)
    late_penalty: float = 0.0
    handed_in: datetime | None = None
    name: str = ""
    email: str = ""
    number: str = ""  # the learning platform's own for this student, as the class's list has it
    numbers: dict[str, str] = field(default_factory=dict)  # by platform, as `owl collect` found it
    sources: dict[str, str] = field(default_factory=dict)  # of the answers in code
    key: str = ""
    record: Record | None = None
    path: Path | None = None  # the record's
    doubt: str = ""  # why the mark may not be what it should be, until `owl grade` is called again

    @property
    def points(self) -> float:
        """The final mark: all points, less the penalty for handing in late, never under 0."""
        return max(0.0, sum(answer.points for answer in self.answers.values()) - self.late_penalty)

    @property
    def pending(self) -> float:
        """Points that a person has yet to decide on."""
        return sum(answer.most for answer in self.answers.values() if answer.pending)

    @property
    def state(self) -> str:
        """graded | zero | failed | missing | ungraded: what the number of points alone would hide."""
        if self.status in ("missing", UNGRADED):
            return self.status
        if self.status in FAILED or "infrastructure" in self.flags:
            return "failed"
        return "zero" if self.points == 0 and not self.pending else "graded"

    @property
    def final(self) -> bool:
        """Whether the mark says what the student can do: nothing failed or is missing, nobody is awaited."""
        if self.pending or self.doubt or self.status == UNGRADED or "infrastructure" in self.flags:
            return False
        by_hand = any(answer.by_hand for answer in self.answers.values())
        return self.state in ("graded", "zero") or self.points > 0 or by_hand

    @property
    def counted(self) -> bool:
        """Whether it ran, so that it tells something about the questions."""
        return self.status in ("graded", "timeout", "crashed") and "infrastructure" not in self.flags


@dataclass(frozen=True)
class ClassResults:
    """A module's items, in the notebook's order, and its students, by name."""

    course: Course
    module: str
    release: NotebookNode
    items: dict[str, Item]
    results: list[Result]

    @property
    def title(self) -> str:
        """The notebook's own title, if it has one."""
        return next(
            (cell.source[2:].split("\n")[0] for cell in self.release.cells if cell.source[:2] == "# "), ""
        )

    @property
    def most(self) -> float:
        """The points that can be had."""
        return sum(item.most for item in self.items.values())


def gather(
    course: Course,
    module: str,
    *,
    submissions: Path | None = None,
    url: str | None = None,
    roster: Path | None = None,
) -> ClassResults:
    """All there is to know of a module's marks.

    Args:
        submissions: where students handed in, if not in the course's `submitted/`.
        url: the gradebook, if not the course's own.
        roster: the class's list, as `owl collect` takes it: names, e-mails and the platform's numbers.

    Raises:
        CourseError: no such module, no such folder, or a gradebook that can't be read or lacks the module.
    """
    release = course.release(module)
    with _coursedir(course, module, submissions, url) as coursedir, Book(coursedir) as book:
        try:
            notebook = book.find_notebook(module, module)
        except MissingEntry:
            where = shown(coursedir.db_url)
            raise CourseError(f"The gradebook {where} has no marks for {module}: call `owl grade`") from None
        found = _students(book, handed_in(coursedir, module))
        _add_people(read_list(roster) if roster else [], found)
        _add_numbers(collected(Target(Path(coursedir.submitted_directory), module, release)), found)
        _add_marks(book, notebook, found)
        cells = known_cells(book, module)
        for result in found.values():
            _add_grading(result, coursedir, partial(prepare, module=module, release=release, cells=cells))
    return ClassResults(course, module, release, _items(release), [found[name] for name in sorted(found)])


def _add_grading(result: Result, coursedir: CourseDirectory, prepared: Callable[[Path], Normalised]) -> None:
    """What grading kept of one student, and whether that still fits."""
    module = str(coursedir.assignment_id)
    autograded = _autograded(coursedir, module, result.student)
    _add_record(result, autograded, Course(Path(coursedir.root)), module)
    folder = submission_folder(coursedir, result.student, module)
    result.doubt = _doubt(result, autograded, folder, prepared)


@contextmanager
def _coursedir(
    course: Course, module: str, submissions: Path | None, url: str | None
) -> Iterator[CourseDirectory]:
    """nbgrader's settings of the course; errors of the gradebook in our words."""
    with in_course(course, module, submissions=submissions, url=url) as app:
        _must_exist(app.coursedir.db_url)
        with plainly(app.coursedir.db_url):
            yield app.coursedir


def _must_exist(url: str) -> None:
    """Raise CourseError for a file that is not there; nbgrader would make an empty one."""
    where = checked_url(url)
    if where.get_backend_name() == "sqlite" and not Path(where.database or "").is_file():
        raise CourseError(f"There is no gradebook {where.database}: nothing is graded yet, call `owl grade`")


def _students(book: Gradebook, folders: list[str]) -> dict[str, Result]:
    """Everybody: who is on the gradebook's list, and who handed in without being there yet."""
    found = {name: Result(name, status=UNGRADED) for name in folders}
    columns = (Student.id, Student.first_name, Student.last_name, Student.email, Student.lms_user_id)
    for id, first, last, email, number in book.db.query(*columns):
        result = found.setdefault(id, Result(id))
        result.name = ", ".join(filter(None, (last, first)))
        result.email, result.number = email or "", number or ""
    return found


def _add_people(people: list[Person], found: dict[str, Result]) -> None:
    """What the class's list says, also of those who handed in nothing."""
    for person in people:
        if person.id:
            id = safe_id(person.id)
            result = found.setdefault(id, Result(id))
            result.name, result.email = person.name or result.name, person.email or result.email
            result.number = person.number or result.number


def _add_numbers(origins: dict[str, str], found: dict[str, Result]) -> None:
    """The platform's numbers from its names for what was handed in, such as "moodle Ana Lopez_4711"."""
    for key, student in origins.items():
        number = re.fullmatch(r"(canvas) ([0-9]+)|(moodle) .*_([0-9]+)", key)
        if number and student in found:
            found[student].numbers[number[1] or number[3]] = number[2] or number[4]


def _add_marks(book: Gradebook, notebook: Notebook, found: dict[str, Result]) -> None:
    """The gradebook's points and comments, in three queries however large the class is."""
    handed = book.db.query(
        SubmittedAssignment.student_id,
        SubmittedAssignment.timestamp,
        SubmittedNotebook.late_submission_penalty,
    )
    for student, when, late in _of(handed.select_from(SubmittedNotebook), notebook):
        found[student].handed_in, found[student].late_penalty = when, late or 0.0
        found[student].status = "graded"  # unless its record knows better
    by_people = {cell.id: cell.name for cell in [*notebook.solution_cells, *notebook.task_cells]}
    said = book.db.query(SubmittedAssignment.student_id, Comment.cell_id, Comment.comment)
    said = said.select_from(Comment).join(SubmittedNotebook)
    comments = {(student, by_people.get(cell)): text or "" for student, cell, text in _of(said, notebook)}
    cells = {cell.id: cell for cell in [*notebook.grade_cells, *notebook.task_cells]}
    columns = (Grade.cell_id, Grade.score, Grade.auto_score, Grade.manual_score, Grade.needs_manual_grade)
    given = book.db.query(SubmittedAssignment.student_id, *columns)
    given = given.select_from(Grade).join(SubmittedNotebook)
    for student, id, score, auto, by_hand, waits in _of(given, notebook):
        name = cells[id].name
        found[student].answers[name] = Answer(
            float(score),
            float(cells[id].max_score),
            auto or 0.0,
            pending=bool(waits) and by_hand is None and name in by_people.values(),
            by_hand=by_hand is not None,
            comment=comments.get((student, name)) or comments.get((student, f"{name}-answer"), ""),
        )


def _of(query: Query, notebook: Notebook) -> Query:
    """The rows of a query on submitted notebooks that are about one of them."""
    query = query.join(SubmittedAssignment, SubmittedAssignment.id == SubmittedNotebook.assignment_id)
    return query.filter(SubmittedNotebook.notebook_id == notebook.id)


def _autograded(coursedir: CourseDirectory, module: str, student: str) -> dict[str, Any]:
    """An autograded notebook as it lies there; {} where there is none that can be read."""
    folder = coursedir.format_path(coursedir.autograded_directory, student, module)
    try:
        read = json.loads(Path(folder, f"{module}.ipynb").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def _add_record(result: Result, notebook: dict[str, Any], course: Course, module: str) -> None:
    """What grading noted in the autograded notebook, and the record that it names."""
    about = notebook.get("metadata", {}).get("owl_grading", {})
    if result.status in ("missing", UNGRADED) or not about:
        return
    result.status, result.reason = about.get("status") or "graded", about.get("reason", "")
    result.flags = tuple(about.get("flags", ()))
    marks = [(cell, cell["metadata"].get("nbgrader", {})) for cell in notebook["cells"]]
    result.sources = {
        mark["grade_id"]: "".join(cell["source"])
        for cell, mark in marks
        if mark.get("solution") and cell["cell_type"] == "code"
    }
    result.key = about.get("key", "")
    path = records.folder_of(course, module, result.student) / f"{result.key[:32]}.json"
    result.record = records.load(path)
    result.path = path if result.record else None
    for id, judged in result.record.questions.items() if result.record else ():
        if id in result.answers:
            error, cases = judged.get("error") or "", tuple(judged.get("cases", ()))
            result.answers[id] = replace(result.answers[id], error=error, cases=cases)


def _doubt(
    result: Result, autograded: dict[str, Any], folder: Path, prepared: Callable[[Path], Normalised]
) -> str:
    """Why a mark does not follow from its record and what lies there now; "" if it does."""
    if not result.answers:
        return ""
    if not result.record or not result.path:
        return "its record is not there"
    judged = {id: question["points"] for id, question in result.record.questions.items()}
    if any(result.answers[id].auto != points for id, points in judged.items() if id in result.answers):
        return "the gradebook has other points than its record"
    if _newest(folder) > result.path.stat().st_mtime and _shape(autograded) != _shape(
        prepared(folder).notebook
    ):
        return "handed in anew since it was graded"
    return ""


def _newest(folder: Path) -> float:
    """When anything in a submission was last put there or changed, whatever times its files claim."""
    entries = [folder, *folder.rglob("*")] if folder.is_dir() else []
    return max((path.lstat().st_ctime for path in entries), default=0.0)


def _shape(notebook: dict[str, Any]) -> list[Any]:
    """What of a normalised notebook was graded: its cells' sources, or why it could not be run."""
    about = notebook.get("metadata", {}).get("owl_grading", {})
    cannot = about.get("reason") if about.get("status") in ("missing", "unreadable") else ""
    return [cannot, *((cell["cell_type"], "".join(cell["source"])) for cell in notebook.get("cells", ()))]


def _items(release: NotebookNode) -> dict[str, Item]:
    """Everything in the notebook that gives points."""
    marks = [cell.metadata.get("nbgrader", {}) for cell in release.cells]
    return {
        mark["grade_id"]: Item(
            mark["grade_id"],
            heading(release, mark["grade_id"]),
            float(mark["points"]),
            written=bool(mark.get("solution") or mark.get("task")),
        )
        for mark in marks
        if mark.get("grade") or mark.get("task")
    }


def heading(notebook: NotebookNode, id: str) -> str:
    """A question's title from its heading in the notebook, else "".

    >>> from nbformat import v4
    >>> cell = v4.new_markdown_cell("### Q0.1 · Count the parameters · 3 points")
    >>> heading(v4.new_notebook(cells=[cell]), "Q0.1")
    'Count the parameters'
    """
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    found = re.search(rf"^#+ {re.escape(id)} · ([^·\n]+)", text, re.MULTILINE)
    return found[1].strip() if found else ""
