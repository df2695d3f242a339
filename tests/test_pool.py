"""Workers that stay, and `owl grade` with several of them: whatever one does, nobody is lost or doubled.

Most workers here are stand-ins (quick_worker.py), processes of the same protocol without torch and kernels.
"""

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import nbformat
import psutil
import pytest
from class_of_submissions import MODULE as REAL
from class_of_submissions import ROOT, answered, wait_for
from test_normalise import DOUBLE, HALVES, MODULE, worked
from test_records import Lab, changed

from openweightlab.grading import engine, pool, records

QUICK = [sys.executable, str(Path(__file__).with_name("quick_worker.py"))]
SHORT = {"notebook_seconds": 1.0, "max_stretch": 1.0}
FORK = multiprocessing.get_context("fork")
GRADE, CLOSE, PREPARE = pool.Worker.grade, pool.Worker.close, pool.Worker.prepare


def troubled(what: str) -> nbformat.NotebookNode:
    """A worked notebook whose worker gets into trouble."""
    return changed(a1=f"{DOUBLE}  # trouble: {what}")


def order(tmp_path: Path, student: str = "ada", trouble: str = "none", **limits: float) -> pool.Order:
    about = {"module": MODULE, "seed": 7, "limits": limits, "sandbox": "auto", "key": student}
    places = {"judges_dir": str(tmp_path / "judges"), "cases_dir": str(tmp_path / "cases")}
    return pool.Order(student=student, notebook=troubled(trouble), **about, **places)  # type: ignore[misc]


BEFORE: set[int] = set()  # processes that tests of other files keep


@pytest.fixture(autouse=True)
def others() -> None:
    """Tests of other files may have processes of theirs running."""
    BEFORE.clear()
    BEFORE.update(process.pid for process in psutil.Process().children())


def children() -> list[psutil.Process]:
    """What this test has started and still runs; a browser that was there before may have new children."""
    found = []
    for process in psutil.Process().children():
        if process.pid not in BEFORE:
            with suppress(psutil.NoSuchProcess):
                found += [process, *process.children(recursive=True)]
    return found


@pytest.fixture
def quick(monkeypatch) -> None:
    """Workers are stand-ins."""
    monkeypatch.setattr(pool, "COMMAND", QUICK)


# One worker


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("die", "it was ended by signal 9"),
        ("rubbish", "it answered rubbish"),
        ("hang", "did not answer in time"),
    ],
)
def test_a_worker_that_fails_is_tried_three_times_and_told_of(quick, tmp_path, monkeypatch, trouble, words):
    monkeypatch.setattr(pool, "GRACE_SECONDS", 0.0)
    with pool.Worker() as worker:
        done = worker.grade(order(tmp_path, trouble=trouble, **SHORT))
        assert (done.record.status, done.record.flags) == ("crashed", ["infrastructure"])
        assert words in done.record.reason and "not the student's fault" in done.record.reason
        assert len(done.audit["troubles"]) == 3 and done.record.points == 0
        assert {id: entry["max_points"] for id, entry in done.record.questions.items()} == {
            "Q9.1": 2,
            "Q9.2": 3,
        }
        assert worker.grade(order(tmp_path, "bob")).record.status == "graded"
    assert children() == []


def test_a_worker_that_dies_once_is_replaced(quick, tmp_path):
    with pool.Worker() as worker:
        before = worker.grade(order(tmp_path, "bob"))
        done = worker.grade(order(tmp_path, trouble="die once"))
        after = worker.grade(order(tmp_path, "cy"))
    assert done.record.status == "graded" and done.audit["troubles"] == ["it was ended by signal 9"]
    assert before.audit["pid"] != done.audit["pid"] == after.audit["pid"]
    assert before.record == after.record


@pytest.mark.parametrize(("trouble", "status"), [("crash", "crashed"), ("crash once", "graded")])
def test_a_dead_kernel_is_the_student_s_doing_only_if_it_dies_again(quick, tmp_path, trouble, status):
    with pool.Worker() as worker:
        done = worker.grade(order(tmp_path, trouble=trouble))
    assert done.record.status == status and done.audit["troubles"] == ["Cell 3."]


def test_an_error_of_the_run_is_an_answer(quick, tmp_path):
    """Were it tried again, a broken judge would cost three runs a student."""
    with pool.Worker() as worker:
        done = worker.grade(order(tmp_path, trouble="raise"))
        assert done.record.flags == ["infrastructure"] and "the judge is broken" in done.record.reason
        assert done.audit["troubles"] == []
        assert worker.grade(order(tmp_path)).audit["pid"] == done.audit["pid"]


def test_what_a_run_logs_is_kept_with_its_own_record(quick, tmp_path):
    with pool.Worker() as worker:
        logs = [
            worker.grade(order(tmp_path, trouble=what)).audit["log"] for what in ("chatter", "", "chatter")
        ]
    assert logs == ["a line for the log\n", "", "a line for the log\n"]


def test_a_closed_worker_ends_what_it_runs(quick, tmp_path):
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            worker.grade(order(tmp_path, trouble="hang"))
        except pool.Closed as error:
            caught.append(error)

    worker = pool.Worker()
    thread = threading.Thread(target=ask)
    thread.start()
    wait_for(lambda: bool(children()), 30, "worker")
    worker.close()
    thread.join(30)
    assert len(caught) == 1 and children() == []
    with pytest.raises(pool.Closed):
        worker.grade(order(tmp_path))


def test_the_real_worker_stays_and_talks_of_nothing_else(tmp_path):
    """What a judge prints doesn't get between the answers, what it raises is an answer, and runs agree."""
    (tmp_path / "judges").mkdir()
    noise = "import os\nprint('hello')\nos.write(1, b'hello')\nraise ValueError('not today')"
    (tmp_path / "judges" / f"{REAL}.py").write_text(noise)
    about = order(tmp_path) | {"module": REAL, "notebook": answered(), "sandbox": "none", "limits": {}}
    with pool.Worker() as worker:
        broken = worker.grade(about)
        runs = [worker.grade(about | {"judges_dir": str(ROOT / "judges")}) for _ in range(2)]
        process = worker.start()
    assert process.returncode == 0, "it did not go by itself"
    assert "ValueError: not today" in broken.record.reason and "hello" in broken.audit["log"]
    assert [run.record.points for run in runs] == [10, 10]
    assert records.canonical(runs[0].record) == records.canonical(runs[1].record)
    assert {run.audit["pid"] for run in (broken, *runs)} == {broken.audit["pid"]} and children() == []


def test_a_process_shares_one_worker_for_a_while(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "IDLE_SECONDS", 1.0)
    first, second = (pool.run_here(order(tmp_path)) for _ in range(2))
    assert first.audit["pid"] == second.audit["pid"]
    wait_for(lambda: not children(), 30, "end of the idle worker")
    assert pool.run_here(order(tmp_path)).audit["pid"] != first.audit["pid"]
    wait_for(lambda: not children(), 30, "end of the idle worker")


def test_a_worker_gets_ready_before_its_first_order(tmp_path):
    """It draws the cases meanwhile; what can't be prepared is said with the first order, and only then."""
    about = order(tmp_path) | {"module": REAL, "notebook": answered(), "sandbox": "none", "limits": {}}
    right = about | {"judges_dir": str(ROOT / "judges")}
    with pool.Worker() as worker:
        worker.prepare(about)  # has no judge
        assert "There is no judge" in worker.grade(about).record.reason
        worker.prepare(right)
        wait_for(lambda: list((tmp_path / "cases").glob(f"{REAL}-*.cases")) != [], 60, "cases")
        done = worker.grade(right)
    assert done.record.points == 10 and done.audit["troubles"] == [] and children() == []


# The pool


def test_a_pool_that_knows_what_comes_starts_its_workers_at_once(quick, tmp_path):
    with pool.LocalPool(2, order(tmp_path)) as local:
        ready = {process.pid for process in children()}
        done = list(local.run(order(tmp_path, name, "sleep 0.5") for name in ("a", "b")))
    assert len(ready) == 2 and {one.audit["pid"] for one in done} == ready and children() == []
    with pool.LocalPool(2, order(tmp_path)):
        assert len(children()) == 2
    assert children() == []


def test_a_pool_runs_each_order_once_and_takes_few_ahead(quick, tmp_path):
    taken: list[str] = []

    def orders():
        for number in range(30):
            taken.append(f"s{number}")
            yield order(tmp_path, taken[-1], "die once" if number in (3, 17) else "none")

    with pool.LocalPool(2) as local:
        done = []
        for one in local.run(orders()):
            done.append(one.order["student"])
            assert one.record.status == "graded"
            assert len(taken) - len(done) < pool.AHEAD * 2
    assert sorted(done) == sorted(taken) and len(taken) == 30 and children() == []


def test_a_pool_that_is_closed_hands_out_what_was_done(quick, tmp_path):
    local = pool.LocalPool(2)
    orders = [order(tmp_path, name, "hang" if name == "slow" else "none") for name in ("slow", "a", "b", "c")]
    results = local.run(orders)
    first = next(results)
    wait_for(lambda: sum(future.done() for future in local._running) == 2, 30, "rest of the quick ones")
    assert {first.order["student"], *(one.order["student"] for one in local.close())} == {"a", "b", "c"}
    assert local.close() == [] and children() == []


# owl grade with processes


class Class(Lab):
    """A Lab whose submissions are run by stand-in processes, and calls in processes of their own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, monkeypatch)
        monkeypatch.setattr(pool.Worker, "grade", GRADE)
        monkeypatch.setattr(pool.Worker, "close", CLOSE)
        monkeypatch.setattr(pool.Worker, "prepare", PREPARE)
        monkeypatch.setattr(pool, "COMMAND", QUICK)

    def start(self, before: Callable[[], object] = lambda: None, **options: object):
        """A call in another process, a copy of this one; `before` is done in there at first."""

        def call() -> None:
            before()
            sys.exit(engine.main(self.arguments(**options)))

        process = FORK.Process(target=call)
        process.start()
        return process

    def submit_many(self, count: int, trouble: str = "sleep 0.1") -> list[str]:
        names = [f"s{number:03d}" for number in range(count)]
        for number, name in enumerate(names):
            answers = {"a1": f"{DOUBLE}  # trouble: {trouble}", "a2": f"{HALVES}  # {number}"}
            self.submit(name, changed(**answers))
        return names

    @property
    def book(self) -> Path:
        return self.root / "gradebook.db"

    def times(self, student: str) -> list[int]:
        """When the student's records were written."""
        folder = self.root / ".owl" / "records" / MODULE / student
        return [path.stat().st_mtime_ns for path in folder.iterdir()]

    def kept(self) -> dict[str, list[str]]:
        """Files in the store of records, by student."""
        folder = self.root / ".owl" / "records" / MODULE
        return {path.name: sorted(file.name for file in path.iterdir()) for path in folder.iterdir()}


@pytest.fixture
def many(tmp_path, monkeypatch) -> Class:
    return Class(tmp_path, monkeypatch)


def test_more_jobs_give_the_same_bytes(many):
    many.submit_many(12, "sleep 0.05")
    many.submit("s005 died", troubled("die"))
    many.submit("s006 empty", b"")
    many.grade()
    once = many.file.read_bytes(), many.scores()
    many.grade(jobs=2, force=True)
    assert (many.file.read_bytes(), many.scores()) == once
    rows = json.loads(once[0])["submissions"]
    assert [row["student"] for row in rows] == sorted(row["student"] for row in rows) and len(rows) == 14
    assert [row["status"] for row in rows].count("graded") == 12 and children() == []


def test_a_worker_that_dies_on_one_submission_poisons_nobody(many, capsys):
    many.submit_many(4, "none")
    many.submit("s001 killer", troubled("die"))
    rows = many.grade(jobs=2)
    assert rows["s001 killer"]["flags"] == ["infrastructure"] and rows["s001 killer"]["points"] == 0.0
    assert [row["status"] for row in rows.values()] == ["graded", "graded", "crashed", "graded", "graded"]
    many.submit("s001 killer", worked())
    assert many.grade()["s001 killer"]["status"] == "graded"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_is_done_and_the_same_call_goes_on(many, number):
    names = many.submit_many(8, "sleep 0.3")
    call = many.start(jobs=2)
    wait_for(lambda: many.file.exists() and len(many.rows()) >= 2, 60, "second row")
    started = psutil.Process(call.pid).children(recursive=True)
    os.kill(call.pid, number)
    call.join(60)
    assert call.exitcode == 130 and not any(process.is_running() for process in started)
    done = many.rows()
    assert 2 <= len(done) < len(names)
    assert set(done) == set(many.kept()) == set(many.scores())
    rows = many.grade(jobs=2)
    assert list(rows) == names and {name: rows[name] for name in done} == done
    undisturbed = many.file.read_bytes()
    many.grade(force=True)
    assert many.file.read_bytes() == undisturbed


def test_a_full_disk_is_told_of_and_the_same_call_goes_on(many, capfd):
    """A limit on the size of files stands in for the disk: the second student's record exceeds it."""
    many.submit("ada", worked())
    many.submit("bob", troubled("large"))
    many.submit("cy", worked())
    call = many.start(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000)))
    call.join(60)
    assert call.exitcode == 2
    said = capfd.readouterr().err
    assert f"records/{MODULE}/bob" in said and "can't be written: File too large" in said
    assert "the same call goes on" in said and "Traceback" not in said
    assert list(many.rows()) == ["ada"] and many.kept()["bob"] == []
    assert [row["status"] for row in many.grade().values()] == ["graded"] * 3


def test_two_calls_at_once(many, capsys):
    many.submit_many(3, "sleep 1")
    call = many.start()
    wait_for(lambda: (many.root / ".owl" / f"{MODULE}.lock").exists() and bool(children()), 60, "first call")
    wait_for(lambda: many.file.exists(), 60, "first row")
    many.grade(expect=2)
    assert "Another `owl grade 09_demo` is at work" in capsys.readouterr().err
    call.join(60)
    assert call.exitcode == 0 and len(many.rows()) == 3


HOLD = """
import sqlite3, sys
book = sqlite3.connect(sys.argv[1], isolation_level=None)
book.execute("begin exclusive")
print("locked", flush=True)
sys.stdin.readline()
book.execute("rollback")
"""


def test_a_gradebook_that_another_program_takes_for_a_while_is_waited_for(many, capsys):
    names = many.submit_many(3, "sleep 1")
    command = [sys.executable, "-c", HOLD, str(many.book)]

    def hold() -> None:
        wait_for(many.file.exists, 60, "first row")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdin and other.stdout
            other.stdout.readline()
            time.sleep(7)  # nbgrader itself waits for five seconds
            other.stdin.close()

    other = threading.Thread(target=hold)
    other.start()
    assert [row["status"] for row in many.grade().values()] == ["graded"] * 3
    other.join()
    assert "The gradebook is another program's just now" in capsys.readouterr().out
    assert list(many.scores()) == names


def test_a_gradebook_that_is_lost_amid_a_call_ends_it_and_the_next_call_goes_on(many, capsys):
    names = many.submit_many(6, "sleep 0.5")
    lost = threading.Thread(target=lambda: (wait_for(many.file.exists, 60, "row"), many.book.unlink()))
    lost.start()
    done = many.grade(expect=2, jobs=2)
    lost.join()
    said = capsys.readouterr().err
    assert "was deleted, moved or replaced while grading" in said and "Traceback" not in said
    assert 1 <= len(done) < len(names)
    before = {student: many.times(student) for student in many.kept()}
    assert set(done) < set(before)
    assert list(many.grade()) == list(many.scores()) == names
    assert {student: many.times(student) for student in before} == before  # none was run again
