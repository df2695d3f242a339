"""Twenty times `kill -9` at random moments, and calls until it is through: the marks of an undisturbed class.

Fourteen kills hit calls whose workers are stand-ins, six a real class; there kernels are hit, too.
"""

import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from class_of_submissions import MODULE as REAL
from class_of_submissions import Grading, environment, make_course, program, variant
from test_normalise import MODULE
from test_pool import Class

from openweightlab.grading import records

pytestmark = pytest.mark.timeout(1800)


def tree(pid: int) -> list[psutil.Process]:
    """A process's descendants; one that is gone has none."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def strike(grader: int, kind: str, chance: random.Random) -> list[psutil.Process]:
    """Kill the call itself, one of its workers, or a child of theirs: it and all that it had started.

    The list is empty where there was none to kill.
    """
    found = tree(grader)
    with suppress(psutil.NoSuchProcess):
        workers = [process for process in found if process.ppid() == grader]
        children = [process for process in found if process not in workers]
        victims = {"grader": [psutil.Process(grader)], "worker": workers, "child": children}[kind]
        if victims:
            victim = chance.choice(victims)
            hit = [victim, *victim.children(recursive=True)]
            victim.kill()
            return hit
    return []


def disturb(start: Callable[[], Any], kills: list[str], longest: float, chance: random.Random) -> list[str]:
    """Call until it comes through, with kills at random moments on the way; those not needed until then.

    Nothing outlives who started it.
    """
    call, left = start(), list(kills)
    call.join(chance.uniform(0.05, longest) if left else None)
    while call.exitcode is None:
        hit = strike(call.pid, left[0], chance)
        if not hit:
            call.join(0.1)  # soon there will be such a process
            continue
        if left.pop(0) == "grader":
            call.join()
            call = start()
        assert psutil.wait_procs(hit, timeout=60)[1] == []
        call.join(chance.uniform(0.05, longest) if left else None)
    assert call.exitcode == 0
    return left


def kept(store: Path, module: str) -> dict[str, list[bytes]]:
    """The records of each student, times aside."""
    found: dict[str, list[bytes]] = {}
    for path in sorted((store / "records" / module).glob("*/*.json")):
        record = records.load(path)
        assert record, path
        found.setdefault(path.parent.name, []).append(records.canonical(record))
    return found


def test_fourteen_kills_of_calls_and_workers(tmp_path, monkeypatch):
    chance, before = random.Random(14), psutil.Process().children()
    many = Class(tmp_path, monkeypatch)
    names = many.submit_many(24, "sleep 0.2")
    empty = (many.root / "gradebook.db").read_bytes()
    many.grade(jobs=2)
    undisturbed = many.file.read_bytes(), many.scores(), kept(many.root / ".owl", MODULE)
    assert list(undisturbed[2]) == names and all(len(found) == 1 for found in undisturbed[2].values())
    kills = ["grader", "worker"] * 7
    chance.shuffle(kills)
    while kills:
        (many.root / "gradebook.db").write_bytes(empty)
        for place in (many.root / ".owl", many.root / "autograded"):
            shutil.rmtree(place)
        many.file.unlink()
        kills = disturb(lambda: many.start(jobs=2), kills, 1.0, chance)
        while any("infrastructure" in row["flags"] for row in many.rows().values()):
            many.grade(jobs=2)  # a submission whose worker was hit three times has its chance again
        assert (many.file.read_bytes(), many.scores(), kept(many.root / ".owl", MODULE)) == undisturbed
    assert [process for process in psutil.Process().children() if process not in before] == []


class Program(subprocess.Popen):
    """A program, in multiprocessing's words."""

    def join(self, seconds: float | None = None) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(seconds)

    @property
    def exitcode(self) -> int | None:
        return self.poll()


@pytest.fixture
def temporary():
    """A folder for temporary files, with a short name: the paths of sockets may have 107 letters."""
    with tempfile.TemporaryDirectory(prefix="owl-kills-") as folder:
        yield Path(folder)


def outcome(door: Grading) -> tuple[Any, ...]:
    """All that came of a class, times aside."""
    rows = door.rows()
    for row in rows.values():
        del row["seconds"], row["peak_mib"]
    return rows, door.gradebook(), kept(door.root / ".owl", REAL)


@pytest.mark.needs_bwrap
def test_six_kills_of_a_real_class_down_to_its_kernels(temporary):
    chance = random.Random(6)
    kills = ["grader", "worker", "child"] * 2
    chance.shuffle(kills)
    students = [variant(0), variant(2), variant(7)]
    settings = environment() | {"TMPDIR": str(temporary)}

    def start(door: Grading) -> Any:
        order = ["grade", REAL, "--submissions", str(door.submissions), "--json", str(door.file)]
        with open(door.log, "ab") as log:
            return Program([program("owl"), *order], cwd=door.root, env=settings, stdout=log, stderr=log)

    calm, rounds = make_course("calm", students), 0
    assert disturb(lambda: start(calm), [], 0, chance) == []
    while kills:
        rounds += 1
        door = make_course(f"killed {rounds}", students)
        kills = disturb(lambda door=door: start(door), kills, 6.0, chance)
        while any("infrastructure" in row["flags"] for row in door.rows().values()):
            disturb(lambda door=door: start(door), [], 0, chance)
        assert outcome(door) == outcome(calm)
        assert list(door.rows()) == [student.name for student in students]
    assert list(temporary.iterdir()) == []
