"""nbgrader's gradebook, opened once for a whole run: marks in and out, and trouble with it in plain words.

Everything that belongs together is one transaction, and no row stays in memory after it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nbgrader.api import (
    BaseCell,
    Comment,
    Grade,
    Gradebook,
    GradeCell,
    InvalidEntry,
    MissingEntry,
    SolutionCell,
    Student,
    SubmittedAssignment,
    SubmittedNotebook,
    TaskCell,
)
from nbgrader.coursedir import CourseDirectory
from sqlalchemy import (
    URL,
    Boolean,
    ColumnElement,
    and_,
    bindparam,
    insert,
    make_url,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.exc import DataError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from .course import CourseError

ODD_FILES = (":memory:", "file:")  # SQLite databases without a path, or with one in a URI


class GradebookError(CourseError):
    """The gradebook's database refuses: perhaps only now, as when another program locks it."""


@contextmanager
def plainly(url: str) -> Iterator[None]:
    """Errors of the gradebook's database as a GradebookError that says what, where and what to do."""
    try:
        yield
    except DataError:
        raise  # one row's content, such as a name that is too long: nothing is wrong with the gradebook
    except (SQLAlchemyError, InvalidEntry) as error:
        raise refused(url, error) from error


def refused(url: str, error: BaseException) -> GradebookError:
    """What to tell of a database's error."""
    reason = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0]
    return GradebookError(
        f"The gradebook {shown(url)} can't be used: {reason}. Is it another program's now, may this "
        "account write there, is its disk full, does its server run? What is graded is kept: call again"
    )


def shown(url: str) -> str:
    """A database's address without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return url


def checked_url(url: str) -> URL:
    """The gradebook's address, if it is one that can work here.

    Raises:
        CourseError: not SQLite or PostgreSQL, or PostgreSQL without its driver, psycopg 3.
    """
    fit = "It must be like sqlite:////home/me/gradebook.db or postgresql+psycopg://name:password@host/book"
    try:
        parsed = make_url(url)
        dialect = parsed.get_dialect()
    except SQLAlchemyError as error:
        raise CourseError(f"The gradebook {shown(url)} can't be used: {error}. {fit}") from None
    if dialect.name not in ("sqlite", "postgresql") or dialect.driver not in ("pysqlite", "psycopg"):
        raise CourseError(f"The gradebook {shown(url)} can't be used: it is another kind. {fit}")
    try:
        dialect.import_dbapi()
    except ImportError as error:
        raise CourseError(
            f"The gradebook {shown(url)} can't be used: {error}. PostgreSQL needs the extra `cluster`: "
            "`pip install 'openweightlab[cluster]'`"
        ) from None
    return parsed


@dataclass(frozen=True)
class Mark:
    """What the gradebook says of one question: a person's points before the judge's; `waits` for a person."""

    points: float
    waits: bool


@dataclass(frozen=True)
class Cell:
    """What the gradebook has of one of a module's cells."""

    source: str
    points: float
    checksum: str | None = None


class Book(Gradebook):
    """nbgrader's Gradebook that stays open, and notices when its file is not the same any more."""

    def __init__(self, coursedir: CourseDirectory) -> None:
        self.url = str(coursedir.db_url)
        parsed = checked_url(self.url)
        on_disk = parsed.get_backend_name() == "sqlite" and parsed.database
        self.file = os.path.abspath(on_disk) if on_disk and not on_disk.startswith(ODD_FILES) else None
        with plainly(self.url):
            super().__init__(self.url, coursedir.course_id)
        self.identity = self._identity()

    def _identity(self) -> tuple[int, int] | None:
        """Which file it is; None where there is none, as for a server."""
        if not self.file:
            return None
        try:
            found = os.stat(self.file)
        except OSError:
            return 0, 0
        return found.st_dev, found.st_ino

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Everything in it is written, or nothing.

        Raises:
            GradebookError: the database refuses.
            CourseError: its file is another one than when it was opened.
        """
        with plainly(self.url):
            try:
                yield self.db()
                if self._identity() != self.identity:
                    raise CourseError(
                        f"The gradebook {self.file} was deleted, moved or replaced while grading, so marks "
                        "would be lost. What is graded is kept: put it back, or call again to fill a new one"
                    )
                self.db.commit()
            finally:
                self.db.remove()

    def try_to_write(self) -> None:
        """Raise CourseError if nothing can be written just now."""
        with self.transaction() as db:
            db.execute(text("UPDATE course SET id = id"))
            db.rollback()


@contextmanager
def gradebook(coursedir: CourseDirectory) -> Iterator[Book]:
    """The course's gradebook, opened and closed."""
    book = Book(coursedir)
    try:
        yield book
    finally:
        book.close()


def known_cells(book: Book, module: str) -> dict[str, Cell]:
    """Each cell that the gradebook has for a module; {} when it has no such module."""
    with book.transaction():
        try:
            notebook = book.find_notebook(module, module)
        except MissingEntry:
            return {}
        graded = [*notebook.grade_cells, *notebook.task_cells]
        points = {cell.name: float(cell.max_score) for cell in graded}
        return {
            cell.name: Cell(cell.source, points.get(cell.name, 0.0), cell.checksum)
            for cell in notebook.source_cells
        }


def find(book: Book, module: str, student: str) -> SubmittedNotebook | None:
    """A student's submission as the gradebook has it; to be called within a transaction."""
    try:
        return book.find_submission_notebook(module, module, student)
    except MissingEntry:
        return None


def marks(db: Session, notebook: SubmittedNotebook) -> dict[str, Mark]:
    """What a submission has for each question."""
    return {
        row.name: Mark(float(row.score), row.needs_manual_grade and row.manual_score is None)
        for row in _grades(db, notebook)
    }


def automatic_scores(db: Session, notebook: SubmittedNotebook) -> dict[str, float | None]:
    """The autograder's points by cell."""
    return {row.name: row.auto_score for row in _grades(db, notebook)}


def _grades(db: Session, notebook: SubmittedNotebook) -> Sequence[Any]:
    wanted = (Grade.id, Grade.score, Grade.auto_score, Grade.manual_score, Grade.needs_manual_grade)
    of = select(BaseCell.name, *wanted).join(BaseCell, BaseCell.id == Grade.cell_id)
    return db.execute(of.where(_of(notebook, Grade))).all()


def _of(notebook: SubmittedNotebook, kind: Any) -> ColumnElement[bool]:
    """Which grades or comments are a submission's.

    Its cells are named too, since nbgrader's only index on these tables begins with the cell: without, each
    question to the database reads what all students have.
    """
    cells = select(BaseCell.id).where(BaseCell.notebook_id == notebook.notebook_id)
    return and_(kind.notebook_id == notebook.id, kind.cell_id.in_(cells))


def add_up(db: Session, notebook: SubmittedNotebook) -> None:
    """Make `notebook.score` known, for which nbgrader would read what all students have."""
    set_committed_value(notebook, "score", sum(row.score for row in _grades(db, notebook)))


def clear(db: Session, notebook: SubmittedNotebook) -> None:
    """Take back what the autograder gave, so that none of it outlives its submission; people's marks stay."""
    notebook.late_submission_penalty = None
    nothing: dict[Any, dict[str, Any]] = {
        Grade: {"auto_score": None, "needs_manual_grade": True},
        Comment: {"auto_comment": None},
    }
    for kind, values in nothing.items():
        change = update(kind).where(_of(notebook, kind)).values(values)
        db.execute(change, execution_options={"synchronize_session": False})


def is_known(book: Book, student: str) -> bool:
    """Whether the gradebook has this student; to be called within a transaction."""
    return book.db().get(Student, student) is not None


def start_submission(book: Book, module: str, student: str) -> SubmittedNotebook:
    """A student's submission, made if it isn't there, with a place for each mark and comment."""
    db, notebook = book.db(), find(book, module, student)
    if notebook is None:
        if db.get(Student, student) is None:
            db.add(Student(id=student))
            db.flush()
        original = book.find_notebook(module, module)
        about = {"assignment_id": original.assignment_id, "student_id": student}
        submission = db.scalars(select(SubmittedAssignment).filter_by(**about)).one_or_none()
        if submission is None:
            submission = SubmittedAssignment(**about)
            db.add(submission)
            db.flush()
        notebook = SubmittedNotebook(notebook_id=original.id, assignment_id=submission.id)
        db.add(notebook)
        db.flush()
    for kind, cells in ((Grade, (GradeCell, TaskCell)), (Comment, (SolutionCell, TaskCell))):
        _make_places(db, notebook, kind, [cell.__name__ for cell in cells])
    return notebook


def _make_places(db: Session, notebook: SubmittedNotebook, kind: Any, cells: list[str]) -> None:
    there = select(kind.cell_id).where(_of(notebook, kind))
    lacking = select(BaseCell.id).where(
        BaseCell.notebook_id == notebook.notebook_id, BaseCell.type.in_(cells), BaseCell.id.not_in(there)
    )
    rows = [{"notebook_id": notebook.id, "cell_id": id} for id in db.scalars(lacking)]
    if rows:
        db.execute(insert(kind), rows)


def save(
    db: Session, notebook: SubmittedNotebook, scores: dict[str, float | None], comments: dict[str, str | None]
) -> None:
    """Write the autograder's points and comments; a mark by hand beside them is left, for a person to see to.

    Raises:
        KeyError: a cell that the gradebook doesn't have.
    """
    ids = {row.name: row.id for row in _grades(db, notebook)}
    grade, waits = Grade.__table__, bindparam("waits", type_=Boolean)
    change = (
        grade.update()
        .where(grade.c.id == bindparam("row"))
        .values(
            auto_score=bindparam("score"), needs_manual_grade=or_(grade.c.manual_score.is_not(None), waits)
        )
    )
    rows = [{"row": ids[name], "score": score, "waits": score is None} for name, score in scores.items()]
    if rows:
        db.execute(change, rows)
    of = select(BaseCell.name, Comment.id).join(BaseCell, BaseCell.id == Comment.cell_id)
    ids = {row.name: row.id for row in db.execute(of.where(_of(notebook, Comment)))}
    rows = [{"id": ids[name], "auto_comment": said} for name, said in comments.items()]
    if rows:
        db.execute(update(Comment), rows)
