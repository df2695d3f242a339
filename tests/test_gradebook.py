"""The gradebook side of grading, on SQLite and a real PostgreSQL: nothing lost, nothing stale, clear words.

The class is test_records.py's, with its stand-in for the sandboxed run.
"""

import copy
import errno
import gc
import json
import logging
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
import sqlalchemy as sa
from nbformat import NotebookNode, v4
from nbgrader.api import Base, Gradebook
from nbgrader.apps import NbGrader
from nbgrader.apps.api import NbGraderAPI
from nbgrader.converters.base import NbGraderException
from nbgrader.preprocessors import AssignLatePenalties, OverwriteCells, SaveAutoGrades
from postgres_server import Server, server
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError
from test_normalise import A1, C2, ESSAY, MODULE, W3, make_release, worked
from test_records import Lab, changed, empty_gradebook, judged

from openweightlab.grading import engine, gradebook, records, sandbox
from openweightlab.grading.autograde import CourseAutograde
from openweightlab.grading.course import CourseError
from openweightlab.grading.gradebook import GradebookError, Mark

WRONG = "# Q9.1 answer\ndouble = 3"  # 1 point by test_records' stand-in


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server with one database, `book`, that has nbgrader's tables."""
    empty_gradebook()  # for its side effect: nbgrader finds alembic
    with server() as made:
        Gradebook(made.make("book"), "openweightlab").close()
        yield made


class Class(Lab):
    """test_records' class, whose gradebook may be anywhere."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, url: str | None = None) -> None:
        super().__init__(folder, monkeypatch)
        self.url = url or f"sqlite:///{self.root}/gradebook.db"

    def grade(self, expect: int = 0, **options: object) -> dict[str, dict]:
        return super().grade(expect, **{"gradebook": self.url, **options})

    def sql(self, query: str, **values: object) -> list[tuple]:
        made = sa.create_engine(self.url)
        try:
            with made.begin() as connection:
                found = connection.execute(sa.text(query), values)
                return [tuple(row) for row in found] if found.returns_rows else []
        finally:
            made.dispose()

    @contextmanager
    def grader(self, **options: object) -> Iterator[CourseAutograde]:
        """The converter, opened, with the course's own settings."""
        app = NbGrader(log_level=logging.CRITICAL)
        app.initialize([], root=str(self.root))
        app.log_level = logging.CRITICAL
        app.coursedir.submitted_directory, app.coursedir.assignment_id = str(self.submissions), MODULE
        app.coursedir.db_url = self.url
        made = CourseAutograde(coursedir=app.coursedir, parent=app, **options)
        with made.opened() as self.news:
            yield made

    def mark(self, student: str, question: str) -> dict[str, Any]:
        names = ("auto_score", "manual_score", "extra_credit", "needs_manual_grade")
        row = self.sql(
            f"select g.{', g.'.join(names)} from grade g join base_cell c on c.id = g.cell_id "
            "join submitted_notebook n on n.id = g.notebook_id "
            "join submitted_assignment a on a.id = n.assignment_id "
            "where a.student_id = :student and c.name = :question",
            student=student,
            question=question,
        )
        mark = dict(zip(names, row[0], strict=True)) if row else {}
        return mark | ({"needs_manual_grade": bool(mark["needs_manual_grade"])} if mark else {})

    def give(self, student: str, question: str, **values: object) -> None:
        """What a person enters in formgrader, through nbgrader's own gradebook."""
        with Gradebook(self.url, "openweightlab") as book:
            for name, value in values.items():
                find = book.find_comment if name == "manual_comment" else book.find_grade
                place = find(question, MODULE, MODULE, student)
                setattr(place, name, value)
                if name == "manual_score":
                    place.needs_manual_grade = False
            book.db.commit()


@pytest.fixture(params=["sqlite", "postgres"])
def lab(request, tmp_path, monkeypatch) -> Class:
    """The class, once for each kind of gradebook."""
    if request.param == "sqlite":
        return Class(tmp_path, monkeypatch)
    return Class(tmp_path, monkeypatch, request.getfixturevalue("postgres").empty("book"))


@pytest.fixture
def lite(tmp_path, monkeypatch) -> Class:
    """The class with SQLite alone, for what has to do with files."""
    return Class(tmp_path, monkeypatch)


def take_in(grader: CourseAutograde, student: str) -> dict[str, Mark]:
    """One student's record, brought in."""
    task = grader.task(student)
    return grader.take_in(task, judged(task) if not task.submission.status else records.ungraded(task))


class Nth:
    """A listener that does something at the n-th statement or commit that it is shown, and only then."""

    def __init__(self, n: int, then: Callable[[], None], only: str = "") -> None:
        self.left, self.then, self.only, self.fired = n, then, only, False

    def __call__(self, text: str) -> None:
        self.left -= text.startswith(self.only)
        if self.left == 0 and not self.fired:
            self.fired = True
            self.then()


def refuse() -> None:
    raise OperationalError("statement", None, RuntimeError("disk full, says the test"))


@contextmanager
def watched(watch: Callable[[str], None]) -> Iterator[None]:
    """Every statement of every database in this process, and every commit, is shown to `watch` first."""

    def statement(connection, cursor, text, *rest):
        watch(text)

    def commit(connection):
        watch("COMMIT")

    event.listen(Engine, "before_cursor_execute", statement)
    event.listen(Engine, "commit", commit)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", statement)
        event.remove(Engine, "commit", commit)


def dies(lab: Class, work: Callable[[CourseAutograde], object], n: int, only: str) -> bool:
    """Whether a child at work could be killed at its n-th statement of a kind; else it got through."""
    child = os.fork()
    if child == 0:
        try:
            watch = Nth(n, lambda: os.kill(os.getpid(), signal.SIGKILL), only)
            with watched(watch), lab.grader() as grader:
                work(grader)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def set_up(lab: Class, setting: str) -> None:
    with open(lab.root / "nbgrader_config.py", "a") as config:
        config.write(f"\n{setting}\n")


def hand_in_at(lab: Class, student: str, when: str) -> None:
    (lab.submissions / student / MODULE / "timestamp.txt").write_text(when)


@contextmanager
def api_of(grader: CourseAutograde) -> Iterator[NbGraderAPI]:
    """What formgrader's buttons call."""
    made = NbGraderAPI(grader.coursedir, parent=grader.parent)
    try:
        yield made
    finally:
        made.gradebook.close()


# What is written


def dump(lab: Class) -> tuple[list[tuple], list[tuple]]:
    """All grades and all comments that the gradebook has."""
    owner = (
        "join base_cell c on c.id = x.cell_id join submitted_notebook n on n.id = x.notebook_id "
        "join submitted_assignment a on a.id = n.assignment_id order by a.student_id, c.name, c.type"
    )
    marks = "x.auto_score, x.manual_score, x.extra_credit, x.needs_manual_grade, n.late_submission_penalty"
    return (
        lab.sql(f"select a.student_id, c.name, a.timestamp, {marks} from grade x {owner}"),
        lab.sql(f"select a.student_id, c.name, x.auto_comment, x.manual_comment from comment x {owner}"),
    )


def test_what_is_written_is_what_nbgrader_s_own_steps_would_write(lab):
    """The oracle: nbgrader's preprocessors, on the same notebooks, over all that we wrote."""
    set_up(lab, 'c.LateSubmissionPlugin.penalty_method = "zero"')
    for student, notebook in (("ada", worked()), ("bob", make_release()), ("cy", b"{")):
        lab.submit(student, notebook)
    hand_in_at(lab, "ada", "2026-11-02 10:00:00 UTC")
    with lab.grader() as grader:
        lab.sql("update assignment set duedate = '2026-11-01 10:00:00'")
        for student in ("ada", "bob", "cy"):
            take_in(grader, student)
    lab.give("bob", "Q9.1", manual_score=1.5, extra_credit=0.5)
    lab.give("ada", "Q9.2-answer", manual_comment="Neat.")
    with lab.grader(force=True) as grader:
        for student in ("ada", "bob", "cy"):
            take_in(grader, student)
        grades, comments = dump(lab)
        lab.sql("update grade set auto_score = 77, needs_manual_grade = (manual_score is null)")
        lab.sql("update submitted_notebook set late_submission_penalty = 77")
        lab.sql("update comment set auto_comment = 'stale'")
        for student in ("ada", "bob", "cy"):
            about = {"student": student, "assignment": MODULE, "notebook": MODULE, "db_url": lab.url}
            notebook = lab.autograded(student)
            for step in (OverwriteCells, SaveAutoGrades, AssignLatePenalties):
                notebook, _ = step(parent=grader)(notebook, {"nbgrader": about})
    assert (grades, comments[:6]) == (dump(lab)[0], dump(lab)[1][:6])
    assert [row[3:] for row in grades if row[:2] == ("bob", "Q9.1")] == [(0.0, 1.5, 0.5, True, None)]
    assert {row[-1] for row in grades if row[0] == "ada"} == {5.0}
    # nbgrader says "No response" of what could not be graded; we say why.
    assert {row[2] for row in comments[6:]} == {lab.autograded("cy").metadata["owl_grading"]["reason"]}


def test_a_class_resubmission_and_marks_by_hand(lab):
    for student in ("ada", "bob"):
        lab.submit(student, worked())
    assert {name: row["points"] for name, row in lab.grade().items()} == {"ada": 5.0, "bob": 5.0}
    lab.give("ada", "Q9.3", manual_score=3.5, extra_credit=1.0)
    lab.give("ada", "Q9.1", manual_score=0.5)
    lab.give("ada", "Q9.3", manual_comment="Why two?")
    assert lab.grade()["ada"]["points"] == 3.5 + 1.0 + 0.5 + 3.0 and lab.runs == []
    assert lab.mark("ada", "Q9.3")["needs_manual_grade"] is False
    lab.submit("ada", changed(a1=WRONG, w3=ESSAY + " And more."))
    lab.submit("bob", changed(a1=WRONG))
    rows = lab.grade()
    assert (rows["ada"]["points"], rows["bob"]["points"]) == (3.5 + 1.0 + 0.5 + 3.0, 1.0 + 3.0)
    for question, auto in (("Q9.1", 1.0), ("Q9.3", None)):
        mark = lab.mark("ada", question)
        assert mark["auto_score"] == auto and mark["needs_manual_grade"] is True
    assert ("ada", "Q9.3", None, "Why two?") in dump(lab)[1]


def test_late_penalties_follow_the_time_the_due_date_and_marks_by_hand(lab):
    """No new run for any of it; a submission without a time any more is not late any more."""
    set_up(lab, 'c.LateSubmissionPlugin.penalty_method = "zero"')
    lab.submit("ada", worked())
    hand_in_at(lab, "ada", "2026-11-02 10:00:00 UTC")
    lab.grade()

    def penalty() -> float | None:
        lab.grade()
        assert lab.runs == []
        return lab.sql("select late_submission_penalty from submitted_notebook")[0][0]

    assert penalty() is None
    lab.sql("update assignment set duedate = '2026-11-01 10:00:00'")
    assert penalty() == 5.0
    lab.give("ada", "Q9.3", manual_score=2.0)
    assert penalty() == 7.0 and lab.mark("ada", "Q9.3")["needs_manual_grade"] is False
    hand_in_at(lab, "ada", "2026-10-31 10:00:00 UTC")
    assert penalty() is None
    hand_in_at(lab, "ada", "2026-11-01 10:00:01 UTC")
    assert penalty() == 7.0
    (lab.submissions / "ada" / MODULE / "timestamp.txt").unlink()
    assert penalty() is None
    assert lab.sql("select timestamp from submitted_assignment") == [(None,)]


def test_no_statement_can_fail_and_leave_a_mark_of_an_earlier_submission(lab):
    """Each statement and commit of one import fails in turn; then the mark is gone or nothing has begun."""
    lab.submit("ada", worked())
    with lab.grader() as grader:
        take_in(grader, "ada")
        lab.give("ada", "Q9.2", manual_score=2.5)
        old = grader.task("ada")
        lab.submit("ada", changed(a1=WRONG))
        new = grader.task("ada")
        seen, n, fired = set(), 0, True
        while fired:
            n += 1
            grader.take_in(old, judged(old))
            watch = Nth(n, refuse)
            with watched(watch):
                try:
                    grader.take_in(new, judged(new))
                except GradebookError as error:
                    assert "disk full, says the test" in str(error)
            fired = watch.fired
            seen.add((lab.mark("ada", "Q9.1")["auto_score"], grader._target("ada").exists()))
            assert lab.mark("ada", "Q9.2")["manual_score"] == 2.5
            marks = grader.take_in(new, judged(new))
            assert (marks["Q9.1"].points, marks["Q9.2"].points) == (1.0, 2.5)
            assert lab.mark("ada", "Q9.1")["auto_score"] == 1.0 and grader._target("ada").exists()
    assert n > 12
    # Either nothing has begun, or the old mark is gone, or the new one is there and so is its notebook.
    assert seen == {(2.0, True), (None, False), (1.0, True)}


@pytest.mark.parametrize(("n", "only"), [(1, "INSERT"), (5, "INSERT"), (1, "UPDATE grade"), (3, "COMMIT")])
def test_a_kill_in_the_middle_of_an_import(lab, n, only):
    """kill -9 of the process that writes: the next call gives the marks of an undisturbed one."""
    lab.submit("ada", worked())
    killed = dies(lab, lambda grader: take_in(grader, "ada"), n, only)
    assert killed and not (lab.root / "autograded" / "ada" / MODULE).exists()
    assert dump(lab) == ([], [])
    with lab.grader() as grader:
        assert take_in(grader, "ada")["Q9.1"] == Mark(2.0, False)
    assert lab.scores() == {"ada": 5.0} and len(dump(lab)[0]) == 3
    lab.submit("ada", changed(a1=WRONG))
    killed = dies(lab, lambda grader: take_in(grader, "ada"), 2, "UPDATE grade")
    assert killed and lab.scores() == {"ada": 0.0}
    with lab.grader() as grader:
        take_in(grader, "ada")
    assert lab.scores() == {"ada": 4.0}


def test_a_mark_given_while_we_write_is_kept_and_flagged(lab):
    """Formgrader is another program: a person may save a mark between our reading and our writing."""
    lab.submit("ada", worked())
    with lab.grader() as grader:
        take_in(grader, "ada")
        lab.submit("ada", changed(a1=WRONG))
        task = grader.task("ada")
        entered = Nth(2, lambda: lab.give("ada", "Q9.1", manual_score=1.5), "UPDATE grade")
        with watched(entered):
            marks = grader.take_in(task, judged(task))
    assert entered.fired and marks["Q9.1"] == Mark(1.5, False)
    assert lab.mark("ada", "Q9.1") == {
        **{"auto_score": 1.0, "manual_score": 1.5, "extra_credit": None, "needs_manual_grade": True}
    }


def cut(lab: Class, server: Server) -> None:
    """End every connection to the class's database, as an administrator may."""
    with server.connect() as connection:
        query = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s"
        connection.execute(query, [sa.make_url(lab.url).database])


@pytest.fixture
def served(tmp_path, monkeypatch, postgres) -> Class:
    """The class with PostgreSQL alone."""
    monkeypatch.setattr(engine, "PATIENCE_SECONDS", 0.0)
    return Class(tmp_path, monkeypatch, postgres.empty("book"))


def test_a_connection_cut_in_the_middle_of_an_import(served, postgres):
    served.submit("ada", worked())
    with served.grader() as grader:
        take_in(grader, "ada")
        served.submit("ada", changed(a1=WRONG))
        for n, only in ((1, "SELECT"), (2, "UPDATE"), (4, "UPDATE"), (2, "COMMIT")):
            grader.force = True
            watch = Nth(n, lambda: cut(served, postgres), only)
            with watched(watch), pytest.raises(GradebookError, match="does its server run"):
                take_in(grader, "ada")
            assert watch.fired and served.mark("ada", "Q9.1")["auto_score"] in (2.0, None)
            assert take_in(grader, "ada")["Q9.1"] == Mark(1.0, False)
            grader.force = False
            served.submit("ada", worked())
            take_in(grader, "ada")
            served.submit("ada", changed(a1=WRONG))


def test_a_server_that_stops_while_grading_is_told_and_the_next_call_goes_on(served, postgres, capsys):
    for student in ("ada", "bob", "cy"):
        served.submit(student, worked())

    def stopping(task: records.Task) -> records.Record:
        if task.student == "bob":
            postgres.stop()
        return judged(task)

    served.judge = stopping
    try:
        served.grade(expect=2)
    finally:
        postgres.start()
    said = capsys.readouterr().err
    assert "does its server run" in said and "Traceback" not in said
    assert "bob" in served.runs and len(served.sql("select * from submitted_assignment")) <= 1
    served.judge = judged
    rows = served.grade()
    assert "ada" not in served.runs
    assert {name: row["points"] for name, row in rows.items()} == {"ada": 5.0, "bob": 5.0, "cy": 5.0}
    assert served.scores() == {"ada": 5.0, "bob": 5.0, "cy": 5.0}


# Questions that change after submissions came in


def other_questions() -> NotebookNode:
    """The release with Q9.1 fixed, 4 points in place of 3 for Q9.2, Q9.3 dropped and Q9.4 added."""
    release = make_release()
    release.cells[A1].source = release.cells[A1].source.replace("(x):", "(x):\n    # of any number")
    release.cells[C2].metadata.nbgrader.points = 4
    added = copy.deepcopy(release.cells[W3])
    added.source, added.metadata.nbgrader.grade_id = added.source.replace("9.3", "9.4"), "Q9.4"
    del release.cells[W3]
    release.cells.append(added)
    return release


def filled(lab: Class) -> None:
    """Two graded students, with much given by hand, on questions that stay and on one that goes."""
    lab.submit("ada", worked())
    lab.submit("bob", make_release())
    hand_in_at(lab, "ada", "2026-11-02 10:00:00 UTC")
    lab.grade()
    lab.give("ada", "Q9.3", manual_score=3.5, extra_credit=1.0)
    lab.give("ada", "Q9.3", manual_comment="Why two?")
    lab.give("bob", "Q9.3", manual_comment="Empty.")
    lab.give("ada", "Q9.2", manual_score=2.5, extra_credit=0.25)
    lab.give("ada", "Q9.1-answer", manual_comment="Short.")


def test_changed_questions_keep_every_mark_by_hand(lab, capsys):
    filled(lab)
    lab.release(other_questions())
    lab.submit("ada", changed(w3=ESSAY.replace("9.3", "9.4")))
    capsys.readouterr()
    rows = lab.grade()
    assert sorted(lab.runs) == ["ada", "bob"]
    assert list(rows["ada"]["questions"]) == ["Q9.1", "Q9.2", "Q9.4"]
    assert rows["ada"]["points"] == 2.0 + 2.75 and rows["ada"]["manual_pending"] == 4.0
    assert lab.mark("ada", "Q9.2") == {
        **{"auto_score": 3.0, "manual_score": 2.5, "extra_credit": 0.25, "needs_manual_grade": True}
    }
    assert lab.mark("ada", "Q9.3") == lab.mark("bob", "Q9.3") == {} and lab.mark("bob", "Q9.4")
    assert ("ada", "Q9.1-answer", None, "Short.") in dump(lab)[1]
    assert dict(lab.sql("select name, max_score from grade_cells join base_cell using (id)"))["Q9.2"] == 4.0
    (kept,) = (lab.root / ".owl").glob(f"dropped-{MODULE}-*.json")
    ada, bob = json.loads(kept.read_text())["marks"]
    given = {"max_score": 4.0, "manual_score": 3.5, "extra_credit": 1.0, "auto_score": None}
    assert ada == {
        **{"student": "ada", "question": "Q9.3", "handed_in": "2026-11-02T10:00:00"},
        **{**given, "comment": "Why two?"},
    }
    assert (bob["student"], bob["comment"]) == ("bob", "Empty.")
    said = capsys.readouterr().out
    for words in ("no longer a question: Q9.3", str(kept), "New question Q9.4: 2", "Q9.2: 3 points became 4"):
        assert words in said
    assert lab.grade() == rows and lab.runs == [] and len(list((lab.root / ".owl").glob("dropped*"))) == 1


def test_fewer_points_than_were_given_by_hand_are_told(lab):
    filled(lab)
    release = make_release()
    release.cells[C2].metadata.nbgrader.points = 2
    lab.release(release)
    with lab.grader():
        assert lab.news[0].startswith("Q9.2: 3 points became 2. 1 marks by hand are above that")
    assert lab.mark("ada", "Q9.2")["manual_score"] == 2.5


def test_a_question_that_is_added_is_there_ungraded_until_the_run(lab):
    filled(lab)
    lab.release(other_questions())
    with lab.grader():
        pass
    for student in ("ada", "bob"):
        mark = lab.mark(student, "Q9.4")
        assert mark["auto_score"] is None and mark["needs_manual_grade"] is True
    with Gradebook(lab.url, "openweightlab") as book:
        assert book.find_comment("Q9.4", MODULE, MODULE, "bob").comment is None
        assert book.find_notebook(MODULE, MODULE).max_score == 2.0 + 4.0 + 4.0
    assert lab.mark("ada", "Q9.1")["auto_score"] == 2.0


def shape(lab: Class) -> str:
    """All cells, with every grade and comment."""
    cells = lab.sql("select name, type from base_cell order by name, type")
    points = lab.sql("select max_score from grade_cells order by id")
    return repr((cells, points, lab.sql("select name, source from source_cell order by name"), dump(lab)))


def test_a_kill_while_questions_change_leaves_the_old_or_the_new(lab):
    filled(lab)
    before = shape(lab)
    lab.release(other_questions())
    seen = []
    for only, step in (("COMMIT", 1), ("UPDATE", 4), ("INSERT", 2), ("DELETE", 2)):
        for n in range(1, 100, step):
            if not dies(lab, lambda grader: None, n, only):
                break
            seen.append(shape(lab))
            if only == "COMMIT" and seen[-1] != before:
                break
        else:
            raise AssertionError("it never got through")
    after = shape(lab)
    assert before != after and set(seen) <= {before, after} and before in seen
    assert lab.grade()["ada"]["points"] == 2.0 + 2.75


def test_nbgrader_s_own_command_takes_changed_questions_too(lite):
    """Stock nbgrader refuses, and has deleted exercises/ by then."""
    filled(lite)
    lite.release(other_questions())
    with lite.grader() as grader, api_of(grader) as api:
        done = api.generate_assignment(MODULE)
    assert done["success"], done["error"]
    made = nbformat.read(lite.root / "exercises" / MODULE / f"{MODULE}.ipynb", as_version=4)
    assert [cell.source for cell in made.cells] == [cell.source for cell in other_questions().cells]
    assert lite.mark("ada", "Q9.2")["manual_score"] == 2.5 and lite.mark("ada", "Q9.4")
    assert len(list((lite.root / ".owl").glob("dropped*"))) == 1


# Trouble, in plain words


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "It must be like sqlite:"),
        ("mysql://me@host/book", "It must be like sqlite:"),
        ("postgres://me@host/book", "It must be like sqlite:"),
        ("postgresql+psycopg2://me:secret@host/book", "it is another kind"),
        ("postgresql+asyncpg://me:secret@host/book", "it is another kind"),
        ("postgresql+psycopg://me:secret@/book?host=/no/such/folder", "does its server run"),
    ],
)
def test_addresses_that_cannot_work(lite, capsys, url, words):
    lite.submit("ada", worked())
    lite.grade(expect=2, gradebook=url)
    said = capsys.readouterr().err
    assert words in said and "can't be used" in said and "Traceback" not in said and "secret" not in said
    assert lite.runs == []


@pytest.mark.parametrize("url", ["postgresql://me@host/book", "postgresql+psycopg://me@host/book"])
def test_postgresql_without_its_driver_names_the_extra(monkeypatch, url):
    assert gradebook.checked_url(url).get_dialect().driver == "psycopg"
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(CourseError, match=r"needs the extra `cluster`"):
        gradebook.checked_url(url)


def test_a_database_without_a_driver_or_rights_is_told(served, postgres):
    with postgres.connect(sa.make_url(served.url).database) as connection:
        connection.execute("CREATE USER reader")
        connection.execute("GRANT pg_read_all_data TO reader")
    served.url = served.url.replace("owl@", "reader@")
    with pytest.raises(GradebookError, match="permission denied for table course"), served.grader():
        pass


def break_it(lab: Class, how: str) -> None:
    """What may happen to a gradebook's file while a class is being graded."""
    path = lab.root / "gradebook.db"
    if how == "deleted":
        path.unlink()
    if how == "replaced":
        path.rename(lab.root / "old.db")
        shutil.copy(lab.root / "old.db", path)
    if how == "damaged":
        path.write_bytes(b"x" * path.stat().st_size)


@pytest.mark.parametrize(
    ("how", "words"), [("deleted", "deleted"), ("replaced", "replaced"), ("damaged", "not a database")]
)
def test_a_gradebook_that_goes_while_grading(lite, capsys, how, words):
    for student in ("ada", "bob", "cy"):
        lite.submit(student, worked())

    def breaking(task: records.Task) -> records.Record:
        if task.student == "bob":
            break_it(lite, how)
        return judged(task)

    lite.judge = breaking
    lite.grade(expect=2)
    said = capsys.readouterr().err
    assert words in said and "What is graded is kept" in said and "Traceback" not in said
    assert "bob" in lite.runs
    lite.judge = judged
    if how == "damaged":
        lite.grade(expect=2)
        assert "not a database" in capsys.readouterr().err
    if how != "replaced":
        (lite.root / "gradebook.db").write_bytes(empty_gradebook())  # nbgrader would need two seconds for it
    rows = lite.grade()
    assert "ada" not in lite.runs
    assert {row["points"] for row in rows.values()} == {5.0}
    assert lite.scores() == {"ada": 5.0, "bob": 5.0, "cy": 5.0}


def test_no_gradebook_but_some_other_file(lite, capsys):
    lite.submit("ada", worked())
    (lite.root / "gradebook.db").write_bytes(b"not a database, " * 1000)
    lite.grade(expect=2)
    assert "file is not a database" in capsys.readouterr().err and lite.runs == []


def test_a_gradebook_that_may_only_be_read(lite, capsys):
    lite.submit("ada", worked())
    lite.grade(expect=2, gradebook=f"sqlite:///file:{lite.root}/gradebook.db?mode=ro&uri=true")
    said = capsys.readouterr().err
    assert "readonly database" in said and "Traceback" not in said and lite.runs == []


def test_a_gradebook_locked_in_the_middle(lite):
    """Another program has it for longer than SQLite waits (5 s, here less): told, and the next try works."""
    lite.url += "?timeout=0.1"
    lite.submit("ada", worked())
    with lite.grader() as grader:
        with sqlite3.connect(lite.root / "gradebook.db", isolation_level=None) as other:
            other.execute("begin immediate")
            with pytest.raises(GradebookError, match="database is locked"):
                take_in(grader, "ada")
            other.execute("rollback")
        assert take_in(grader, "ada")["Q9.1"] == Mark(2.0, False)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_folders_that_may_not_be_written(lite, capsys):
    lite.submit("ada", worked())
    for name in ("book", "autograded"):
        (lite.root / name).mkdir()
    (lite.root / "book" / "gradebook.db").write_bytes(empty_gradebook())
    for name, words in (("book", "gradebook.db can't be used"), ("autograded", "autograded/ada")):
        (lite.root / name).chmod(0o555)
        lite.grade(expect=2, gradebook=f"sqlite:///{lite.root}/book/gradebook.db")
        (lite.root / name).chmod(0o755)
        said = capsys.readouterr().err
        assert words in said and "call again" in said and "Traceback" not in said
    assert lite.grade(gradebook=f"sqlite:///{lite.root}/book/gradebook.db")["ada"]["points"] == 5.0


def test_a_full_disk_under_the_gradebook(lite, capsys):
    """SQLite itself says that the disk is full, here because its file may not grow."""
    names = [f"{n:02}" * 120 for n in range(24)]
    for student in names:
        lite.submit(student, worked())

    def full(connection, record):
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    event.listen(Engine, "connect", full)
    try:
        lite.grade(expect=2)
    finally:
        event.remove(Engine, "connect", full)
    said = capsys.readouterr().err
    assert "database or disk is full" in said and "Traceback" not in said
    rows = lite.grade()
    assert names[0] not in lite.runs and names[-1] in lite.runs
    assert {name: row["points"] for name, row in rows.items()} == dict.fromkeys(names, 5.0) == lite.scores()


def no_room(self: Path, *rest: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))


@pytest.mark.parametrize("call", ["write_text", "rename", "mkdir"])
def test_a_full_disk_under_autograded(lite, monkeypatch, call):
    """Nothing half-written counts, and no mark of the earlier submission is left."""
    lite.submit("ada", worked())
    with lite.grader() as grader:
        take_in(grader, "ada")
        lite.submit("ada", changed(a1=WRONG))
        task = grader.task("ada")
        with monkeypatch.context() as patch, pytest.raises(CourseError, match=r"No space left.*call again"):
            patch.setattr(Path, call, no_room)
            grader.take_in(task, judged(task))
        assert lite.mark("ada", "Q9.1")["auto_score"] != 2.0
        assert not grader._target("ada").exists()
        assert grader.take_in(task, judged(task))["Q9.1"] == Mark(1.0, False)
        assert [path.name for path in (lite.root / "autograded" / "ada").iterdir()] == [MODULE]


def test_autograded_that_is_no_folder(lite, capsys):
    lite.submit("ada", worked())
    (lite.root / "autograded").write_text("in the way")
    lite.grade(expect=2)
    said = capsys.readouterr().err
    assert "autograded" in said and "can't be written" in said and "Traceback" not in said
    (lite.root / "autograded").unlink()
    assert lite.grade()["ada"]["points"] == 5.0 and lite.runs == []


def test_one_student_who_cannot_be_taken_in_stops_nobody(served):
    """PostgreSQL takes no name of more than 128 letters; SQLite doesn't mind."""
    for student in ("ada", "b" * 150, "cy"):
        served.submit(student, worked())
    rows = served.grade()
    assert (rows["ada"]["points"], rows["cy"]["points"]) == (5.0, 5.0)
    assert rows["b" * 150]["flags"] == ["infrastructure"] and "too long" in rows["b" * 150]["reason"]
    assert served.scores() == {"ada": 5.0, "cy": 5.0}


def test_a_record_without_a_question_s_result_gives_no_full_marks(lite):
    lite.submit("ada", worked())
    with lite.grader() as grader:
        take_in(grader, "ada")
        lite.submit("ada", changed(a1=WRONG))
        task = grader.task("ada")
        record = judged(task)
        del record.questions["Q9.2"]
        with pytest.raises(NbGraderException, match=r"no result for Q9\.2"):
            grader.take_in(task, record)
    assert lite.mark("ada", "Q9.1")["auto_score"] is lite.mark("ada", "Q9.2")["auto_score"] is None
    assert not (lite.root / "autograded/ada" / MODULE).exists()


def test_exercises_and_solutions_that_don_t_agree_are_told(lite, capsys):
    lite.submit("ada", worked())
    nbformat.write(other_questions(), lite.root / "exercises" / MODULE / f"{MODULE}.ipynb")
    lite.grade(expect=2)
    assert "only one of them has Q9.3, Q9.4" in capsys.readouterr().err and lite.runs == []


def test_no_sandbox_is_told_before_anybody_is_graded(lite, monkeypatch, capsys):
    """In `owl grade`, and where formgrader shows what nbgrader logged; --no-sandbox goes on."""

    def none_here(wanted: str) -> None:
        if wanted != "none":
            raise RuntimeError("no sandbox works here")

    lite.submit("ada", worked())
    monkeypatch.setattr(sandbox, "choose", none_here)
    lite.grade(expect=2)
    assert "no sandbox works here (c.Judge.sandbox is 'auto')" in capsys.readouterr().err and lite.runs == []
    assert lite.grade(no_sandbox=True)["ada"]["points"] == 5.0
    monkeypatch.setattr(sandbox, "choose", lambda wanted: None)
    with lite.grader() as grader, api_of(grader) as api:
        monkeypatch.setattr(sandbox, "choose", none_here)
        done = api.autograde(MODULE, "ada")
    assert not done["success"] and "no sandbox works here" in done["log"] and "Traceback" not in done["log"]


@pytest.mark.parametrize("level", ["auto", *sandbox.LEVELS, "none"])
def test_every_level_of_sandbox_may_be_set(lite, level):
    set_up(lite, f"c.Judge.sandbox = {level!r}")
    lite.submit("ada", worked())
    with lite.grader() as grader:
        assert grader.task("ada").sandbox == level


# What goes on beside


def test_memory_keeps_nothing_of_a_student(lab):
    """As many of nbgrader's rows are alive after the twelfth student as after the third."""
    names = [f"s{n:02}" for n in range(12)]
    for student in names:
        lab.submit(student, worked())
    alive = {}
    with lab.grader() as grader:
        for student in names:
            take_in(grader, student)
            if student in (names[2], names[-1]):
                gc.collect()
                alive[student] = sum(isinstance(thing, Base) for thing in gc.get_objects())
    assert len(set(alive.values())) == 1 and len(lab.sql("select * from student")) == 12


def test_settings_of_nbgrader_still_count(lite):
    """Preprocessors, an instructor's own too, files beside the solution, permissions, who is left out."""
    (lite.root / "own_step.py").write_text(
        "from nbgrader.preprocessors import NbGraderPreprocessor\n"
        "class Sign(NbGraderPreprocessor):\n"
        "    def preprocess(self, nb, resources):\n"
        "        nb.metadata['signed'] = resources['nbgrader']['student']\n"
        "        return nb, resources\n"
    )
    set_up(
        lite,
        f"import sys; sys.path.insert(0, {str(lite.root)!r}); from own_step import Sign\n"
        "c.Autograde.autograde_preprocessors = [*c.Autograde.autograde_preprocessors, Sign]\n"
        "c.LimitOutput.max_lines = 3\nc.Autograde.permissions = 440\n"
        "c.CourseDirectory.student_id_exclude = 'eve'\n"
        "c.Autograde.exclude_overwriting = {'09_demo': ['mine.txt']}\n",
    )
    for name in ("data/table.csv", "mine.txt"):
        path = lite.root / "solutions" / MODULE / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("1,2")
    for student in ("ada", "eve"):
        lite.submit(student, worked())
    hand_in_at(lite, "ada", "2026-11-02 10:00:00 UTC")
    lite.judge = talkative
    with lite.grader() as grader, api_of(grader) as api:
        monkey = api.autograde(MODULE, "*")
    assert monkey["success"], monkey["error"]
    notebook = lite.autograded("ada")
    assert notebook.metadata["signed"] == "ada"
    assert notebook.cells[A1].outputs[0].text.endswith("Output truncated ...")
    folder = lite.root / "autograded" / "ada" / MODULE
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {f"{MODULE}.ipynb", "timestamp.txt", "data/table.csv"}
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.*")} == {0o440}
    assert [name for (name,) in lite.sql("select id from student")] == ["ada"]


def talkative(task: records.Task) -> records.Record:
    """The stand-in's record, with ten lines of output."""
    record = judged(task)
    record.outputs[A1] = [v4.new_output("stream", text="line\n" * 10)]
    return record


def test_no_student_is_made_where_that_is_not_wanted(lite):
    lite.submit("ada", worked())
    with lite.grader(create_student=False) as grader:
        with pytest.raises(NbGraderException, match="no such student"):
            take_in(grader, "ada")
        lite.sql("insert into student (id) values ('ada')")
        assert take_in(grader, "ada")["Q9.1"] == Mark(2.0, False)
