"""Grading on a Dask cluster: real processes on this machine, in folders of their own, ended as machines end.

What doesn't need a student's kernel runs with a stand-in in place of the sandboxed process.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import class_of_submissions as real
import psutil
import pytest
from cluster_of_processes import ROOT, Cluster, copy_kit, end, wait_for
from nbformat import v4
from test_normalise import DOUBLE, worked
from test_records import changed, lab  # noqa: F401  (the fixture)

from openweightlab.grading import cluster
from openweightlab.grading.cluster import DaskCluster
from openweightlab.grading.course import CourseError
from openweightlab.grading.pool import AHEAD, Done, LocalPool, Order


def worked_by(name: str) -> tuple[str, str]:
    """The option that makes a Dask worker use a program of tests/ in place of grading.worker."""
    code = "import sys; from openweightlab.grading import pool; pool.COMMAND = [sys.executable, {!r}]"
    return "--preload", code.format(str(ROOT / "tests" / name))


STAND_IN, QUICK = worked_by("stand_in_worker.py"), worked_by("quick_worker.py")
SECRETS = {"99_x.py": "SECRET_JUDGE = 1"}, "99_x.cases", b"SECRET_CASES"


def order(number: int, **todo: object) -> Order:
    """A submission for the stand-in."""
    cells = [v4.new_code_cell("SECRET_ANSWER = 1", metadata={"nbgrader": {}})]
    notebook = v4.new_notebook(cells=cells, metadata={"points": float(number), **todo})
    return Order(
        **{"student": f"SECRET_NAME {number}", "key": "k", "notebook": notebook, "module": "99_x", "seed": 1},
        **{"limits": {}, "sandbox": "none", "judges_dir": "/nowhere", "cases_dir": "/nowhere"},
    )


def run(machines: Cluster, orders: Iterable[Order]) -> list[Done]:
    """What the cluster makes of the orders."""
    with DaskCluster(machines.address) as executor:
        return list(executor.run(orders))


def points(found: list[Done]) -> dict[str, float]:
    """Points by student; nobody may come twice."""
    assert len({done.order["student"] for done in found}) == len(found)
    return {done.order["student"]: done.record.points for done in found}


def wanted(orders: list[Order]) -> dict[str, float]:
    return {order["student"]: order["notebook"]["metadata"]["points"] for order in orders}


@pytest.fixture(autouse=True)
def hidden(monkeypatch):
    """The stand-in's judge and cases, in place of those of the stand-in's module."""
    real, ours = cluster._hidden, str(ROOT / "judges")
    monkeypatch.setattr(
        cluster, "_hidden", lambda place, *more: real(place, *more) if place == ours else SECRETS
    )
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 5.0)


@pytest.fixture(scope="module")
def kit(tmp_path_factory) -> Path:
    """One copy of the package for all stand-in workers."""
    cluster.here()  # as this checkout is now
    return copy_kit(tmp_path_factory.mktemp("kit"))


@pytest.fixture(scope="module")
def machines(tmp_path_factory, kit) -> Iterator[Cluster]:
    """A scheduler, and one worker of stand-ins, with a nanny, for all tests that leave both alive."""
    with Cluster(tmp_path_factory.mktemp("machines")) as found:
        found.add("first", *STAND_IN, kit=kit)
        yield found


# The real thing


@pytest.mark.timeout(1200)
def test_one_of_two_workers_dies_and_marks_are_those_of_a_local_run(tmp_path):
    students = [*(real.variant(number) for number in (0, 2, 7, 14)), real.untouched()]
    students.append(real.honest("killer", real.answered(Q2=real.DEATH)))
    common = {"key": "k", "module": real.MODULE, "seed": 7, "limits": real.LIMITS, "sandbox": "auto"}
    places = {"judges_dir": str(ROOT / "judges"), "cases_dir": str(tmp_path / "cases")}
    orders = [
        Order(student=student.name, notebook=student.hand_in, **common, **places)  # type: ignore[typeddict-item]
        for student in students
    ]
    found, left = [], []
    with Cluster(tmp_path) as machines:
        cluster.here()
        for name in ("first", "second"):
            machines.add(name)
        wait_for(lambda: all("Registered" in machines.log(n) for n in ("first", "second")), 60, "workers")
        with DaskCluster(machines.address) as executor:
            for done in executor.run(orders):
                found.append(done)
                if len(found) == 2:
                    left = machines.kill("first")
        assert not left, "what the dead worker had started still runs"
        said = "".join(machines.log(name) for name in ("scheduler", "first", "second"))
    with LocalPool(2) as executor:
        local = {done.order["student"]: done.record for done in executor.run(orders)}
    assert points(found) == {name: record.points for name, record in local.items()}
    assert {done.order["student"]: marks(done.record) for done in found} == {
        name: marks(record) for name, record in local.items()
    }
    assert not [word for word in ("killer", "v07", "def ", "Q0.1", "judge") if word in said]


def marks(record) -> dict:
    """A record without its times."""
    return vars(record) | {"seconds": 0, "peak_mib": 0}


# What travels


def test_only_the_message_carries_anything(machines):
    """Files come from the parcel into a private folder that is gone afterwards; no name goes along."""
    (done,) = run(machines, [order(3)])
    told = json.loads(done.record.reason)
    assert told["files"] == {"99_x.py": "SECRET_JUDGE = 1", "99_x.cases": "SECRET_CASES"}
    assert told["mode"] == "700" and told["student"] == ""
    assert Path(told["place"]).is_relative_to(machines.folder / "first") and not Path(told["place"]).exists()
    assert not any("SECRET" in machines.log(name) for name in ("scheduler", "first"))
    assert "SECRET" not in repr(cluster.Parcel("SECRET", *SECRETS, {}))


def test_few_orders_are_on_their_way_and_none_is_remembered(machines):
    taken = []

    def orders():
        for number in range(12):
            taken.append(number)
            yield order(number)

    with DaskCluster(machines.address) as executor:
        for count, _ in enumerate(executor.run(orders()), 1):
            assert len(taken) <= count + AHEAD + 1
        wait_for(lambda: tasks(executor) == 0, 20, "empty scheduler")
    assert taken == list(range(12))


def tasks(executor: DaskCluster) -> int:
    """How many tasks the scheduler knows."""
    return executor._client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))


# Machines that fail


def test_a_worker_killed_by_the_system_is_replaced_and_nobody_is_lost(machines):
    orders = [order(number, sleep=0.2) for number in range(8)]
    found, left = [], []
    with DaskCluster(machines.address) as executor:
        for done in executor.run(orders):
            found.append(done)
            if len(found) == 3:
                left = kill_worker_process(machines.processes["first"].pid)
    assert points(found) == wanted(orders) and not left


def kill_worker_process(nanny: int) -> list[psutil.Process]:
    """Kill a nanny's worker; what that one had started and still runs half a minute later."""
    workers = [child for child in psutil.Process(nanny).children() if child.children()]
    below = [below for worker in workers for below in worker.children(recursive=True)]
    assert below
    for worker in workers:
        worker.kill()
    return psutil.wait_procs(below, timeout=30)[1]


def test_what_dask_gives_up_on_is_the_machines_fault_and_stops_nobody(tmp_path, kit):
    """Dask gives up on whatever was on that worker, too; each is tried again by itself."""
    orders = [order(0), order(1, fatal=True), order(2)]
    with Cluster(tmp_path, {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}) as machines:
        machines.add("first", *STAND_IN, kit=kit)
        found = {done.order["student"]: done for done in run(machines, orders)}
    assert found["SECRET_NAME 0"].record.points == 0 and found["SECRET_NAME 2"].record.points == 2
    given_up = found["SECRET_NAME 1"]
    assert given_up.record.status == "crashed" and "infrastructure" in given_up.record.flags
    assert len(given_up.audit["troubles"]) == cluster.TRIES and "KilledWorker" in given_up.record.reason


def test_owl_grade_says_that_the_scheduler_died_and_goes_on_with_a_new_one(lab, tmp_path, kit, capsys):  # noqa: F811
    students = [f"s{number}" for number in range(6)]
    for student in students:
        lab.submit(student, changed(a1=f"{DOUBLE}  # trouble: sleep 0.2"))

    def kept() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (lab.root / ".owl" / "records").rglob("*.json")}

    with Cluster(tmp_path) as machines:
        machines.add("first", "--no-nanny", *QUICK, kit=kit)
        killer = threading.Thread(
            target=lambda: (
                wait_for(lambda: len(kept()) > 1, 60, "two"),
                end(machines.processes["scheduler"]),
            )
        )
        killer.start()
        lab.grade(expect=2, scheduler=machines.address)
        killer.join()
        said = capsys.readouterr().err
        assert f"The Dask scheduler at {machines.address} is gone. What is graded is kept" in said
        assert "Traceback" not in said
        before = kept()
        assert 2 <= len(before) < 6 and len(lab.rows()) == len(before)
        machines.start()
        machines.add("second", "--no-nanny", *QUICK, kit=kit)
        rows = lab.grade(scheduler=machines.address)
    assert sorted(rows) == students and len(kept()) == 6
    assert {path: kept()[path] for path in before} == before
    assert len({row["points"] for row in rows.values()}) == 1 and lab.scores() == {
        student: row["points"] for student, row in rows.items()
    }


# Clusters that can't be used


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tcp://127.0.0.1:9", "No Dask scheduler answers at tcp://127.0.0.1:9"),
        ("tls://127.0.0.1:9", "Dask's configuration on this machine names none"),
        ("127.0.0.1:9", "give it as tcp://HOST:PORT"),
    ],
)
def test_no_scheduler(lab, monkeypatch, capsys, address, words):  # noqa: F811
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1.0)
    lab.submit("ada", worked())
    lab.grade(expect=2, scheduler=address)
    assert words in capsys.readouterr().err


def test_no_worker(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 1.0)
    with Cluster(tmp_path) as machines, pytest.raises(CourseError, match="has no worker"):
        DaskCluster(machines.address).__enter__()
    assert "waiting for one" in capsys.readouterr().err


def test_a_worker_with_other_questions_is_refused_by_name(machines, tmp_path):
    other = copy_kit(tmp_path)
    with open(other / "openweightlab" / "questions" / "m00_workbench.py", "a") as file:
        file.write("\n# one more line\n")
    taken = []
    orders = (taken.append(number) or order(number) for number in range(3))
    with joined(machines, "other", "--no-nanny", kit=other) as address, pytest.raises(CourseError) as told:
        run(machines, orders)
    assert f"{address}: the kit's files" in str(told.value) and "must not depend" in str(told.value)
    assert str(told.value).count("tcp://") == 1 and len(taken) == 1


def test_a_worker_without_the_kit_is_refused_by_name(machines, tmp_path):
    (tmp_path / "openweightlab.py").write_text("raise ImportError('no kit')")
    with joined(machines, "bare", "--no-nanny", kit=tmp_path) as address, pytest.raises(CourseError) as told:
        run(machines, [order(1)])
    assert f"{address}: the kit does not start" in str(told.value)


def test_a_worker_that_comes_later_with_another_torch_is_refused(machines, kit):
    """It is not asked before it gets its first submission, which it gives back."""
    torch = "import openweightlab.grading.judge as j; j.versions = lambda: {'torch': '1.0'}"
    orders = (order(number, sleep=0.1) for number in range(3000))
    with pytest.raises(CourseError, match="came later") as told, DaskCluster(machines.address) as executor:
        found = executor.run(orders)
        next(found)
        with joined(machines, "late", "--no-nanny", "--preload", torch, kit=kit):
            list(found)
    assert "torch is 1.0 there" in str(told.value)


@contextmanager
def joined(machines: Cluster, name: str, *options: str, kit: Path) -> Iterator[str]:
    """Another worker for a while; its address."""
    machines.add(name, *options, kit=kit)
    wait_for(lambda: "Registered" in machines.log(name), 60, "worker")
    try:
        yield machines.log(name).split("Start worker at:")[1].split()[0]
    finally:
        end(machines.processes[name])


# Graders that end


def test_a_grader_that_is_interrupted_takes_its_orders_back(machines):
    executor = DaskCluster(machines.address).__enter__()
    orders = order(0), order(1, sleep=600), order(2)
    running = executor.run(slowly(orders))
    assert next(running).record.points == 0
    worker = psutil.Process(machines.processes["first"].pid)
    (stand_in,) = stand_ins(worker)
    begun = time.monotonic()
    assert points(executor.close()) == {}
    assert psutil.wait_procs([stand_in], timeout=30)[1] == [] and time.monotonic() - begun < 60
    with DaskCluster(machines.address) as executor:
        assert tasks(executor) == 0
        assert points(list(executor.run([order(5)]))) == {"SECRET_NAME 5": 5.0}


def slowly(orders: Iterable[Order]) -> Iterator[Order]:
    """One after another: of what comes within a tenth of a second, Dask may run any first."""
    for one in orders:
        yield one
        time.sleep(0.5)


def stand_ins(worker: psutil.Process) -> list[psutil.Process]:
    return [one for one in worker.children(recursive=True) if "stand_in_worker.py" in " ".join(one.cmdline())]


def test_a_grader_that_is_killed_is_forgotten(machines, kit):
    script = (
        "import sys, test_cluster as t; t.cluster._hidden = lambda *_: t.SECRETS\n"
        "with t.DaskCluster(sys.argv[1]) as executor:\n"
        "    for done in executor.run(t.order(n, sleep=n) for n in range(0, 600, 3)):\n"
        "        print(done.record.points, flush=True)"
    )
    grader = subprocess.Popen(
        [sys.executable, "-c", script, machines.address],
        cwd=ROOT / "tests",
        env=os.environ | {"PYTHONPATH": str(kit)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert grader.stdout and grader.stdout.readline() == "0.0\n"
    os.kill(grader.pid, signal.SIGKILL)
    grader.wait()
    with DaskCluster(machines.address) as executor:
        wait_for(lambda: tasks(executor) == 0, 60, "empty scheduler")
        assert points(list(executor.run([order(5)]))) == {"SECRET_NAME 5": 5.0}
