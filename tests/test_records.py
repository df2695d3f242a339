"""Records and the gradebook behind them: what is kept, when it counts, that no mark outlives its submission.

A small course with a stand-in for the sandboxed run; test_grade_paths.py has the real one.
"""

import argparse
import copy
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sysconfig
import tempfile
import threading
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode, v4
from nbgrader.api import Gradebook
from test_normalise import A1, A2, DOUBLE, ESSAY, HALVES, MODULE, W3, hand_in, make_release, worked

from openweightlab.grading import engine, pool, records, sandbox
from openweightlab.grading.course import Course, CourseError, find_course
from openweightlab.grading.normalise import Normalised, normalise
from openweightlab.grading.run import Limits, Record

ROOT = Path(__file__).parents[1]
POINTS = {"Q9.1": 2.0, "Q9.2": 3.0}


def judged(task: records.Task) -> Record:
    """A record as a run would give it: full points for the answers of test_normalise, 1 for any other."""
    questions = {}
    for cell in task.submission.notebook.cells:
        id = cell.metadata.get("nbgrader", {}).get("grade_id", "").removesuffix("-answer")
        if id in POINTS and cell.metadata.nbgrader.solution:
            stub = "NotImplementedError" in cell.source
            points = 0.0 if stub else POINTS[id] if cell.source in (DOUBLE, HALVES) else 1.0
            case = {"label": "odd numbers", "ok": points == POINTS[id], "message": "It <b>rounds</b>."}
            questions[id] = {"points": points, "max_points": POINTS[id], "error": None, "cases": [case]}
        if id == "mine":
            points = float("assert double(-1)" in cell.source)
            questions[id] = {"points": points, "max_points": 1.0, "error": None, "cases": [], "weak": True}
    outputs = [[] for _ in task.submission.notebook.cells]
    return Record(
        task.module, questions=questions, seconds=1.5, peak_mib=100.0, sandbox="stand-in", outputs=outputs
    )


@cache
def empty_gradebook() -> bytes:
    """A gradebook's file with its tables only; making them takes nbgrader two seconds."""
    os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])  # has alembic
    with tempfile.TemporaryDirectory() as folder:
        Gradebook(f"sqlite:///{folder}/gradebook.db", "openweightlab").close()
        return Path(folder, "gradebook.db").read_bytes()


class Lab:
    """A course folder, a folder of submissions, and `owl grade` on them, each run counted."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.submissions = folder / "course", folder / "handed in"
        self.file = folder / "marks.json"
        self.runs: list[str] = []
        self.tasks: list[records.Task] = []
        self.judge = judged
        for name in ("solutions", "exercises"):
            (self.root / name / MODULE).mkdir(parents=True)
        self.release(make_release())
        (self.root / "judges").mkdir()
        (self.root / "judges" / f"{MODULE}.py").write_text("# stand-in\n")
        shutil.copy(ROOT / "nbgrader_config.py", self.root)
        (self.root / "gradebook.db").write_bytes(empty_gradebook())
        self.submissions.mkdir()
        self.closed = threading.Event()  # when the executor was told to end what runs
        monkeypatch.setattr(pool.Worker, "grade", lambda worker, order: self._run(order))
        monkeypatch.setattr(pool.Worker, "prepare", lambda worker, setting: None)
        monkeypatch.setattr(pool.Worker, "close", lambda worker: self.closed.set())
        monkeypatch.setattr(sandbox, "choose", lambda wanted: None)  # nothing of a student is run
        monkeypatch.setenv("OWL_SEED", "7")
        monkeypatch.chdir(self.root)

    def _run(self, order: pool.Order) -> pool.Done:
        submission = Normalised(nbformat.from_dict(order["notebook"]))
        about = order["sandbox"], Limits(**order["limits"])
        task = records.Task(Course(self.root), order["module"], order["student"], submission, *about)
        self.runs.append(task.student)
        self.tasks.append(task)
        return pool.Done(order, self.judge(task), {"log": "on a quiet machine"})

    def release(self, notebook: NotebookNode, hidden: str = "") -> None:
        """What students get, and the solution nbgrader makes it of; its last cell has the hidden tests."""
        nbformat.write(notebook, self.root / "exercises" / MODULE / f"{MODULE}.ipynb")
        solution, region = copy.deepcopy(notebook), r"\1### BEGIN SOLUTION\n\1return 1\n\1### END SOLUTION"
        for cell in solution.cells:
            cell.source = re.sub(r"(?m)^( *)(raise NotImpl.*|\*Write your.*)$", region, cell.source)
        if hidden:
            solution.cells[-1].source += f"\n### BEGIN HIDDEN TESTS\n{hidden}\n### END HIDDEN TESTS"
        nbformat.write(solution, self.root / "solutions" / MODULE / f"{MODULE}.ipynb")

    def submit(
        self, student: str, notebook: NotebookNode | bytes | None, name: str = f"{MODULE}.ipynb"
    ) -> Path:
        folder = self.submissions / student / MODULE
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        if notebook is not None:
            hand_in(folder, notebook, name)
        return folder

    def arguments(self, **options: object) -> argparse.Namespace:
        places = {"submissions": str(self.submissions), "json": str(self.file)}
        usual = {"module": MODULE, "gradebook": None, "no_sandbox": False, "force": False, **places}
        return argparse.Namespace(**{**usual, "jobs": 1, "scheduler": None, **options})

    def grade(self, expect: int = 0, **options: object) -> dict[str, dict]:
        """Rows by student after one call."""
        self.runs.clear()
        status = engine.main(self.arguments(**options))
        assert status == expect
        return self.rows()

    def rows(self) -> dict[str, dict]:
        rows = json.loads(self.file.read_text())["submissions"] if self.file.exists() else []
        return {row["student"]: row for row in rows}

    def sql(self, query: str, *values: object) -> list[tuple]:
        with sqlite3.connect(self.root / "gradebook.db") as database:
            return list(database.execute(query, values))

    def scores(self) -> dict[str, float]:
        """The gradebook's total by student: a person's mark before the autograder's."""
        rows = self.sql(
            "select student_id, coalesce(manual_score, auto_score, 0) from grade "
            "join submitted_notebook n on n.id = grade.notebook_id "
            "join submitted_assignment a on a.id = n.assignment_id"
        )
        totals: dict[str, float] = {}
        for student, score in rows:
            totals[student] = totals.get(student, 0.0) + score
        return totals

    def autograded(self, student: str) -> NotebookNode:
        return nbformat.read(self.root / "autograded" / student / MODULE / f"{MODULE}.ipynb", as_version=4)


@pytest.fixture
def lab(tmp_path, monkeypatch) -> Lab:
    return Lab(tmp_path, monkeypatch)


def changed(**sources: str) -> NotebookNode:
    notebook = worked()
    for name, source in sources.items():
        notebook.cells[{"a1": A1, "a2": A2, "w3": W3}[name]].source = source
    return notebook


# The file, to the letter


def test_rows_have_every_key_and_the_gradebook_the_same_marks(lab):
    lab.submit("ada", worked())
    lab.submit("bob", make_release())
    lab.submit("cy", b"{")
    lab.submit("dee", None)
    (lab.submissions / "eve").mkdir()
    rows = lab.grade()
    assert json.loads(lab.file.read_text())["module"] == MODULE
    assert json.loads(lab.file.read_text())["max_points"] == 9.0
    assert list(rows) == ["ada", "bob", "cy", "dee", "eve"]
    ada = {
        key: rows["ada"][key]
        for key in ("status", "points", "manual_pending", "seconds", "peak_mib", "flags")
    }
    assert ada == {
        **{"status": "graded", "points": 5.0, "manual_pending": 4.0},
        **{"seconds": 1.5, "peak_mib": 100.0, "flags": []},
    }
    assert rows["ada"]["questions"]["Q9.1"] == {"points": 2.0, "max_points": 2.0, "error": None}
    assert rows["bob"]["points"] == rows["bob"]["manual_pending"] == 0.0
    assert (rows["cy"]["status"], rows["cy"]["points"]) == ("unreadable", 0.0)
    assert rows["cy"]["questions"]["Q9.2"]["error"] == rows["cy"]["reason"] != ""
    assert rows["dee"]["status"] == rows["eve"]["status"] == "missing"
    assert lab.scores() == {student: row["points"] for student, row in rows.items()}
    assert lab.runs == ["ada", "bob"]


def test_a_second_call_runs_nothing_and_writes_the_same_bytes(lab):
    lab.submit("ada", worked())
    lab.submit("cy", b"{")
    lab.grade()
    first = lab.file.read_bytes()
    when = (lab.root / "autograded/ada" / MODULE / f"{MODULE}.ipynb").stat().st_mtime_ns
    lab.grade()
    assert lab.runs == [] and lab.file.read_bytes() == first
    assert (lab.root / "autograded/ada" / MODULE / f"{MODULE}.ipynb").stat().st_mtime_ns == when


def test_only_what_is_new_or_changed_is_run(lab):
    lab.submit("ada", worked())
    lab.submit("bob", worked())
    lab.grade()
    lab.submit("bob", changed(a1="# Q9.1 answer\ndef double(x):\n    return x + x"))
    lab.submit("cy", worked())
    rows = lab.grade()
    assert lab.runs == ["bob", "cy"]
    assert rows["bob"]["points"] == 4.0
    assert lab.scores() == {"ada": 5.0, "bob": 4.0, "cy": 5.0}
    lab.grade(force=True)
    assert lab.runs == ["ada", "bob", "cy"]


def test_nothing_that_counts_for_nothing_changes_the_key(lab):
    """Outputs, ids, metadata and the file's name are no new submission."""
    lab.submit("ada", worked())
    lab.grade()
    notebook = worked()
    notebook.cells[A1].outputs = [v4.new_output("stream", text="hi")]
    notebook.metadata["colab"] = {}
    lab.submit("ada", notebook, "again.ipynb")
    rows = lab.grade()
    assert lab.runs == [] and rows["ada"]["flags"] == ["renamed-file"]


# No stale mark


@pytest.mark.parametrize("later", [b"{", None, "deleted"], ids=["unreadable", "empty folder", "folder gone"])
def test_a_resubmission_that_cannot_be_graded_takes_the_old_mark_away(lab, later):
    lab.submit("ada", worked())
    lab.grade()
    if later == "deleted":
        shutil.rmtree(lab.submissions / "ada" / MODULE)
    else:
        lab.submit("ada", later)
    rows = lab.grade()
    assert rows["ada"]["points"] == 0.0 and lab.scores() == {"ada": 0.0}
    lab.submit("ada", worked())
    assert lab.grade()["ada"]["points"] == 5.0 and lab.scores() == {"ada": 5.0}


def test_a_mark_does_not_survive_a_grading_that_breaks_off(lab):
    lab.submit("ada", worked())
    lab.grade()
    lab.submit("ada", changed(a1="# Q9.1 answer\ndouble = 3"))

    def broken(task: records.Task) -> Record:
        return records.ungraded(task, "crashed", "the grader itself failed", ("infrastructure",))

    lab.judge = broken
    rows = lab.grade()
    assert (rows["ada"]["status"], rows["ada"]["flags"]) == ("crashed", ["infrastructure"])
    assert lab.scores() == {"ada": 0.0}
    lab.judge = judged
    assert lab.grade()["ada"]["points"] == 4.0 and lab.runs == ["ada"]


def test_an_interrupted_call_keeps_the_rows_it_has_and_goes_on(lab):
    for student in ("ada", "bob", "cy"):
        lab.submit(student, worked())

    def stopped(task: records.Task) -> Record:
        if task.student == "bob":
            os.kill(os.getpid(), signal.SIGINT)
            lab.closed.wait()
            raise pool.Closed
        return judged(task)

    lab.judge = stopped
    assert list(lab.grade(expect=130)) == ["ada"]
    lab.judge = judged
    rows = lab.grade()
    assert lab.runs == ["bob", "cy"]
    assert {student: row["points"] for student, row in rows.items()} == {"ada": 5.0, "bob": 5.0, "cy": 5.0}


def test_a_call_interrupted_before_its_first_row_leaves_the_file_as_it_was(lab):
    def stopped(task: records.Task) -> Record:
        os.kill(os.getpid(), signal.SIGINT)
        lab.closed.wait()
        raise pool.Closed

    lab.submit("ada", worked())
    rows = lab.grade()
    lab.submit("ada", changed(a1="# Q9.1 answer\ndouble = 3"))
    lab.closed.clear()
    lab.judge = stopped
    assert lab.grade(expect=130) == rows


def test_what_people_gave_is_never_overwritten(lab):
    lab.submit("ada", worked())
    lab.grade()
    find = "select grade.id from grade join base_cell c on c.id = grade.cell_id where c.name = ?"
    for name, score in (("Q9.3", 3.5), ("Q9.1", 1.5)):
        lab.sql("update grade set manual_score = ? where id = ?", score, lab.sql(find, name)[0][0])
    row = lab.grade()["ada"]
    assert (row["points"], row["manual_pending"]) == (3.5 + 1.5 + 3.0, 0.0)
    lab.submit("ada", changed(a2="# Q9.2 answer\nlow = high = 3", w3=ESSAY + " And so on."))
    row = lab.grade()["ada"]
    assert (row["points"], row["manual_pending"]) == (3.5 + 1.5 + 1.0, 0.0)
    assert row["questions"]["Q9.1"]["points"] == 1.5


def test_another_or_a_lost_gradebook_is_filled_from_the_records(lab, tmp_path):
    lab.submit("ada", worked())
    lab.grade()
    lab.grade(gradebook=f"sqlite:///{tmp_path}/other.db")
    assert lab.runs == []
    with sqlite3.connect(tmp_path / "other.db") as other:
        assert list(other.execute("select sum(auto_score) from grade")) == [(5.0,)]
    (lab.root / "gradebook.db").unlink()
    assert lab.grade()["ada"]["points"] == 5.0
    assert lab.runs == [] and lab.scores() == {"ada": 5.0}


def test_a_mark_changed_behind_our_back_is_put_right(lab):
    lab.submit("ada", worked())
    lab.grade()
    lab.sql("update grade set auto_score = 99")
    assert lab.grade()["ada"]["points"] == 5.0 and lab.scores() == {"ada": 5.0}


def test_a_deleted_autograded_folder_comes_back(lab):
    lab.submit("ada", worked())
    lab.grade()
    shutil.rmtree(lab.root / "autograded")
    lab.grade()
    assert lab.autograded("ada") and lab.runs == []


def test_settings_and_options_reach_the_run(lab):
    """Were the two ways in which settings are read at odds, each submission would be run twice."""
    lab.submit("ada", worked())
    lab.grade()
    assert lab.tasks[-1].sandbox == "auto" and lab.tasks[-1].limits == Limits()
    lab.grade(no_sandbox=True)
    with open(lab.root / "nbgrader_config.py", "a") as config:
        config.write('\nc.Judge.limits = {"cell_seconds": 7}\n')
    lab.grade()
    assert lab.runs == ["ada"] and lab.tasks[-1].limits.cell_seconds == 7
    assert [task.sandbox for task in lab.tasks] == ["auto", "none", "auto"]


def test_a_setting_that_does_not_exist_is_named(lab, capsys):
    lab.submit("ada", worked())
    with open(lab.root / "nbgrader_config.py", "a") as config:
        config.write('\nc.Judge.limits = {"minutes": 7}\n')
    lab.grade(expect=2)
    assert "it may have: cell_seconds" in capsys.readouterr().err


# Records as files


def make_task(tmp_path: Path, **options: object) -> records.Task:
    course = Course(tmp_path / "course")
    course.judges_dir.mkdir(parents=True, exist_ok=True)
    (course.judges_dir / f"{MODULE}.py").write_text("# a judge")
    submission = hand_in(tmp_path / "in", worked())
    return records.Task(course, MODULE, "ada", submission, **{"sandbox": "none", **options})


def test_the_key_names_everything_that_marks_depend_on(tmp_path, monkeypatch):
    monkeypatch.setenv("OWL_SEED", "1")
    base = make_task(tmp_path)
    keys = {base.key, make_task(tmp_path, limits=Limits(cell_seconds=1)).key}
    other = normalise(tmp_path / "nowhere", MODULE, make_release())
    keys |= {records.Task(base.course, MODULE, "ada", other, "none").key}
    monkeypatch.setenv("OWL_SEED", "2")
    keys |= {make_task(tmp_path).key}
    monkeypatch.setenv("OWL_SEED", "1")
    monkeypatch.setattr(records, "versions", lambda: {"torch": "99"})
    keys |= {make_task(tmp_path).key}
    monkeypatch.undo()
    monkeypatch.setenv("OWL_SEED", "1")
    assert make_task(tmp_path).key == base.key
    records._sources.cache_clear()
    (base.course.judges_dir / f"{MODULE}.py").write_text("# another judge")
    keys |= {records.Task(base.course, MODULE, "ada", base.submission, "none").key}
    assert len(keys) == 6


def test_a_record_comes_back_as_it_was_and_only_whole(tmp_path):
    path = tmp_path / "records" / "r.json"
    record = Record(MODULE, questions={"Q9.1": {"points": 1.25}}, seconds=0.1, outputs=[[{"text": "é"}]])
    records.save(path, record)
    assert records.load(path) == record
    whole = path.read_bytes()
    for cut in range(0, len(whole), 50):
        path.write_bytes(whole[:cut])
        assert records.load(path) is None
    path.write_bytes(whole.replace(b"1.25", b"2.25"))
    assert records.load(path) is None
    for other in (b"[]", b"{}", b'{"record": 3, "sha256": 4}', b"\xff"):
        path.write_bytes(other)
        assert records.load(path) is None
    assert records.load(tmp_path) is None
    assert [entry.name for entry in path.parent.iterdir()] == ["r.json"]


def test_a_record_carries_what_an_appeal_asks_for(lab):
    lab.submit("ada", worked())
    lab.submit("bob", b"{")
    lab.grade()
    ada, bob = (next((lab.root / ".owl/records" / MODULE / name).glob("*.json")) for name in ("ada", "bob"))
    about, task = records.audit(ada), lab.tasks[-1]
    assert about["key"] == task.key and ada.name == f"{task.key[:32]}.json"
    assert about["parts"]["seed"] == 7 and about["parts"]["limits"] == asdict(Limits())
    assert about["parts"]["versions"]["torch"] and len(about["parts"]["sources"]) == 64
    assert about["answers"] == {"Q9.1-answer": DOUBLE, "Q9.2-answer": HALVES, "Q9.3": ESSAY}
    assert about["log"] == "on a quiet machine"  # what the worker told, as it is
    assert records.audit(bob)["flags"] == list(
        normalise(lab.submissions / "bob", MODULE, make_release()).flags
    )
    ada.write_bytes(ada.read_bytes()[:-9])
    assert records.audit(ada) == {}


def test_the_same_class_graded_twice_has_the_same_records_times_aside(lab):
    def timed(task: records.Task) -> Record:
        return replace(judged(task), seconds=float(len(lab.runs)), peak_mib=len(lab.runs) * 10.0)

    lab.judge = timed
    for name in ("ada", "bob"):
        lab.submit(name, worked())
    lab.submit("cy", None)
    found = []
    for _ in range(2):
        lab.grade(force=True)
        lab.judge = lambda task: replace(timed(task), seconds=99.0)
        paths = sorted((lab.root / ".owl/records").rglob("*.json"))
        found.append({path.parent.name: records.load(path) for path in paths})
    once, again = found
    assert list(once) == list(again) == ["ada", "bob", "cy"] and once["ada"] != again["ada"]
    for name in once:
        assert records.canonical(once[name]) == records.canonical(again[name])
    assert records.canonical(replace(once["ada"], seed=8)) != records.canonical(once["ada"])


def test_a_run_that_the_machine_failed_takes_no_record_s_place(lab):
    lab.submit("ada", worked())
    lab.grade()
    lab.judge = lambda task: records.ungraded(task, "crashed", "no memory", ("infrastructure",))
    assert lab.grade(force=True)["ada"]["points"] == 5.0 and lab.runs == ["ada"]
    lab.submit("ada", changed(a1="# Q9.1 answer\ndouble = 3"))
    assert lab.grade()["ada"]["flags"] == ["infrastructure"]
    lab.judge = judged
    assert lab.grade()["ada"]["points"] == 4.0 and lab.runs == ["ada"]


def test_which_level_a_machine_s_sandbox_has_makes_no_other_submission(lab):
    """A cluster's machines differ; what matters is whether there must be a sandbox."""
    lab.submit("ada", worked())
    lab.grade()
    task = lab.tasks[0]
    assert replace(task, sandbox="bubblewrap").key == task.key != replace(task, sandbox="none").key


def test_a_damaged_record_is_made_again(lab):
    lab.submit("ada", worked())
    lab.grade()
    kept = next((lab.root / ".owl/records" / MODULE / "ada").glob("*.json"))
    kept.write_bytes(kept.read_bytes()[:100])
    assert lab.grade()["ada"]["points"] == 5.0 and lab.runs == ["ada"]


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "f.json"
    records.write_whole(path, "old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        records.write_whole(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_grader_that_dies_is_told_as_such(tmp_path, monkeypatch):
    """A run that ends without a record: zero points, the reason, and nobody blames the student."""
    monkeypatch.setenv("OWL_SEED", "1")
    task = make_task(tmp_path)
    record = records.obtain(task)  # 09_demo is no module of the kit
    assert record.status == "crashed" and record.flags == ["infrastructure"]
    assert "not the student's fault" in record.reason and "09_demo" in record.reason
    assert {id: entry["points"] for id, entry in record.questions.items()} == {"Q9.1": 0.0, "Q9.2": 0.0}


# The seed and the course


def test_the_seed_is_made_once_kept_and_private(tmp_path, monkeypatch):
    monkeypatch.delenv("OWL_SEED", raising=False)
    course = Course(tmp_path)
    seed = course.seed()
    assert course.seed() == seed and Course(tmp_path / "other").seed() != seed
    assert (tmp_path / ".owl" / "seed").stat().st_mode & 0o077 == 0
    monkeypatch.setenv("OWL_SEED", "12")
    assert course.seed() == 12
    monkeypatch.setenv("OWL_SEED", "twelve")
    with pytest.raises(CourseError, match="OWL_SEED must be a whole number, not 'twelve'"):
        course.seed()


def test_the_course_is_found_from_any_folder_in_it(lab):
    (lab.root / "deep" / "er").mkdir(parents=True)
    assert find_course(lab.root / "deep" / "er").root == lab.root
    assert find_course(Path("/")).root == ROOT  # this checkout, where there is no other


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"module": "77_nothing"}, "There is no module '77_nothing' to grade; there are: 09_demo"),
        ({"submissions": "nowhere"}, "There is no folder nowhere"),
        ({"json": "no/such/folder/marks.json"}, "can't be written"),
        ({"json": "."}, "can't be written"),
        ({"gradebook": "nonsense"}, "can't be used"),
        ({"gradebook": "sqlite:////no/such/folder/book.db"}, "can't be used"),
        ({}, "No submissions in"),
    ],
)
def test_calls_that_cannot_work_say_why(lab, capsys, options, words):
    if "gradebook" in options:
        lab.submit("ada", worked())
    lab.grade(expect=2, **options)
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said


def test_a_locked_gradebook_is_told_before_anything_runs(lab, capsys, monkeypatch):
    monkeypatch.setattr(engine, "PATIENCE_SECONDS", 0)
    lab.submit("ada", worked())
    lab.grade()
    lab.submit("ada", changed(a1="# Q9.1 answer\ndouble = 3"))
    with sqlite3.connect(lab.root / "gradebook.db", isolation_level=None) as other:
        other.execute("begin exclusive")
        lab.grade(expect=2)
        other.execute("rollback")
    said = capsys.readouterr().err
    assert "database is locked" in said and "Traceback" not in said and lab.runs == []
    assert lab.grade()["ada"]["points"] == 4.0


def test_exercises_and_solutions_are_never_written(lab):
    lab.submit("ada", worked())
    files = [path for name in ("exercises", "solutions") for path in (lab.root / name).rglob("*.*")]
    before = [path.read_bytes() for path in files]
    lab.grade()
    after = [path.read_bytes() for path in files]
    assert before == after


def test_a_changed_release_reaches_the_gradebook(lab):
    """New points and other questions are taken over; test_gradebook.py has what happens to marks by hand."""
    lab.submit("ada", worked())
    lab.grade()
    release = make_release()
    release.cells[W3].metadata.nbgrader.points = 6
    lab.release(release)
    assert lab.grade()["ada"]["manual_pending"] == 6.0
    del release.cells[W3]
    lab.release(release)
    row = lab.grade()["ada"]
    assert row["manual_pending"] == 0.0 and list(row["questions"]) == ["Q9.1", "Q9.2"]


# How it looks to nbgrader


def test_odd_names_of_students_and_folders(tmp_path, monkeypatch):
    lab = Lab(tmp_path / "class (2026) [a] +.*", monkeypatch)
    names = ["Zoë Müller", "a+b", "o'neil", "x[1]", "李雷"]
    for name in names:
        lab.submit(name, worked())
    assert {name: row["points"] for name, row in lab.grade().items()} == dict.fromkeys(sorted(names), 5.0)
    assert lab.scores() == dict.fromkeys(names, 5.0)


def test_files_beside_the_notebook_stay_out_and_a_bad_timestamp_costs_nothing(lab):
    folder = lab.submit("ada", worked())
    (folder / "timestamp.txt").write_text("yesterday")
    (folder / "ipykernel_launcher.py").write_text("raise SystemExit")
    os.symlink("/etc/passwd", folder / "passwd")
    assert lab.grade()["ada"]["points"] == 5.0
    assert [path.name for path in (lab.root / "autograded/ada" / MODULE).iterdir()] == [f"{MODULE}.ipynb"]
    (folder / "timestamp.txt").write_text("2026-11-01 10:00:00 UTC")
    lab.grade()
    assert lab.sql("select timestamp from submitted_assignment") == [("2026-11-01 10:00:00.000000",)]


def test_a_notebook_beside_the_module_s_folder_counts(lab):
    hand_in(lab.submissions / "ada", worked())
    assert lab.grade()["ada"]["points"] == 5.0


def test_explanations_in_the_autograded_notebook(lab):
    lab.submit("ada", changed(a1="# Q9.1 answer\ndouble = 3"))
    lab.submit("cy", b"{")
    lab.grade()
    check = next(cell for cell in lab.autograded("ada").cells if "check" in cell.source)
    assert check.outputs[0].data["text/plain"] == "1.0"
    page = check.outputs[0].data["text/html"]
    assert "Q9.1: 1 of 2 points" in page and "odd numbers" in page and "It &lt;b&gt;rounds&lt;/b&gt;." in page
    comments = lab.sql("select auto_comment from comment where auto_comment like '%damaged%'")
    assert len(comments) == 3  # every answer of cy's, and nobody else's


def test_no_staging_folder_is_left(lab):
    lab.submit("ada", worked())
    lab.grade()
    assert sorted(path.name for path in (lab.root / ".owl").iterdir()) == [f"{MODULE}.lock", "records"]


def test_an_instructor_s_hidden_tests_are_run_though_students_do_not_have_them(lab):
    release = make_release()
    meta = {"grade_id": "mine", "grade": True, "solution": False, "locked": True, "points": 1}
    meta |= {"schema_version": 3, "task": False, "cell_type": "code"}
    release.cells.append(v4.new_code_cell("assert double(2) == 4", metadata={"nbgrader": meta}))
    lab.release(release, hidden="assert double(-1) == -2")
    lab.submit("ada", worked())
    row = lab.grade()["ada"]
    assert row["questions"]["mine"]["points"] == 1.0 and row["points"] == 6.0
    assert "tampered" not in row["flags"]
    lab.grade()
    assert lab.runs == []
    assert "could have changed it" in lab.autograded("ada").cells[-1].outputs[0].data["text/html"]


def test_an_assignment_without_a_judge_goes_nbgrader_s_own_way(lab):
    meta = {"schema_version": 3, "task": False, "locked": False, "cell_type": "code"}
    answer = {**meta, "grade_id": "a", "solution": True, "grade": False}
    test = {**meta, "grade_id": "t", "solution": False, "grade": True, "locked": True, "points": 2}
    code = ["### BEGIN SOLUTION\nx = 1\n### END SOLUTION", "assert x == 1"]
    cells = [v4.new_code_cell(c, metadata={"nbgrader": m}) for c, m in zip(code, (answer, test), strict=True)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for folder in ("solutions/own", "submitted/ada/own"):
        (lab.root / folder).mkdir(parents=True)
        nbformat.write(v4.new_notebook(cells=cells, metadata=kernel), lab.root / folder / "own.ipynb")
    for command in ("generate_assignment", "autograde"):
        program = Path(sysconfig.get_path("scripts"), "nbgrader")
        done = subprocess.run([program, command, "own"], cwd=lab.root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert lab.scores() == {"ada": 2.0}
