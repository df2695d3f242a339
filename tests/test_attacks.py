"""Attacks: none gets a point that it didn't earn, none touches anybody else; stock nbgrader's figures beside.

One class, graded by `owl grade` as a command: known attacks on nbgrader, ones on this kit's own design, and
innocent students behind those that reach out for others. The same known attacks go through stock
`nbgrader autograde` at the same time.
"""

import json
import os
import re
import secrets
import socket
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import attacks_table
import psutil
import pytest
import stock_course
from attacks import LEAKS, LEAKY, STOPPERS, VARIANTS, Variant, fill
from bs4 import BeautifulSoup
from class_of_submissions import (
    MODULE,
    PLACE,
    POINTS,
    ROOT,
    Grading,
    Student,
    answered,
    environment,
    make_course,
    program,
    untouched,
)
from nbformat import NotebookNode, v4
from own_attacks import BOMBS, GIB, LISTEN, OWN, RIGHT, SCRIPTS, SOCKETS, SPEAK, STAY, Attack
from transformers import AutoConfig  # noqa: F401  (lazy: not to be imported by two threads at once)

from openweightlab.grading import judge as judging
from openweightlab.grading.run import Limits, Record, Runner

pytestmark = pytest.mark.timeout(3000)
FUNCTIONS = {
    "Q1": "count_parameters",
    "Q2": "weight_gib",
    "Q3": "next_token_probabilities",
    "Q4": "sort_claims",
}
NOTHING = "pass"  # an answer cell that defines nothing
LIMITS = {"cell_seconds": 15.0, "case_seconds": 3.0, "max_stretch": 5.0, "memory_mib": 900, "disk_mib": 300}
LIMITS |= {"processes": 40, "output_bytes": 300_000}
CANARY = f"canary-{secrets.token_hex(16)}"
IDS = {attack.name: f"K{number:02d}" for number, attack in enumerate(OWN)}
REACHING = [*BOMBS, *SOCKETS, *STAY]  # behind each of these comes an innocent student


def zipped() -> bytes:
    """Four MB that unpack to 4 GB, by the name of a notebook."""
    data = BytesIO()
    with (
        zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{MODULE}.ipynb", "w", force_zip64=True) as file,
    ):
        for _ in range(512):
            file.write(bytes(2**20))
    return data.getvalue()


def _cells(*sources: object) -> bytes:
    cells = [{"cell_type": "code", "metadata": {}, "source": source, "outputs": []} for source in sources]
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}).encode()


HAND_INS: dict[str, Callable[[Path], object] | bytes] = {
    "H01 zip bomb": zipped(),
    "H02 deep JSON": b'{"cells":' + b"[" * 10**6,
    "H03 many lists": b'{"cells":[' + b"[]," * 2**21 + b"[]]}",
    "H04 huge number": b'{"nbformat": ' + b"9" * 10**6 + b', "cells": []}',
    "H05 keys twice": b'{"nbformat": 4, "cells": [], "cells": [{"source": "1"}], "metadata": NaN}',
    "H06 100,000 cells": _cells(*["1"] * 100_000),
    "H07 sources that are none": _cells(7, None, {"a": 1}, ["x", 7], "\ud800", "\x1b[2J", "\0"),
    "H08 fifo": lambda path: os.mkfifo(path),
    "H09 link to a device": lambda path: path.symlink_to("/dev/zero"),
    "H10 folder": lambda path: path.mkdir(),
    "H11 link out": lambda path: (path.parent.rmdir(), path.parent.symlink_to("/etc")),
    "H12 too large": b"{" + b" " * (33 * 2**20),
    "H13 metadata": json.dumps(
        {"cells": [{"cell_type": "code", "source": "1", "metadata": "x"}] * 3, "metadata": []}
    ).encode(),
}


@dataclass
class Host:
    """What attacks may find on this machine: a process, sockets, and what came to those."""

    words: dict[str, str]
    came: list[str]


def submission(attack: Attack, words: dict[str, str]) -> NotebookNode:
    """The notebook of one attack on this kit."""
    sources = {"Q1": NOTHING, "Q2": attack.gib, "Q3": NOTHING, "Q4": attack.sort} | attack.more
    notebook = answered(**{id: fill(source, **words) for id, source in sources.items()})
    if attack.cell:
        notebook.cells.insert(PLACE["Q0.1-answer"], v4.new_code_cell(fill(attack.cell, **words)))
    return notebook


def known(variant: Variant, words: dict[str, str]) -> NotebookNode:
    """The notebook of one known attack, with its trick in all four answers."""
    words = words | {"STUDENT": variant.id}
    notebook = answered(**{id: variant.answer(name, **words) for id, name in FUNCTIONS.items()})
    variant.edit(notebook)
    return notebook


def innocent(name: str) -> Student:
    """Somebody who did two questions right and left two."""
    return Student(name, answered(Q1=NOTHING, Q2=GIB, Q3=NOTHING, Q4=RIGHT), {})


def beside(notebook: NotebookNode, files: dict[str, str]) -> object:
    """Hands in a notebook with files next to it."""

    def write(path: Path) -> None:
        path.write_text(json.dumps(notebook), "utf-8")
        for name, text in files.items():
            (path.parent / name).write_text(text)

    return write


def linked(path: Path) -> None:
    """A right notebook, with a link to the solution next to it."""
    leaky = answered()
    leaky.cells.insert(PLACE["Q0.1-answer"], v4.new_code_cell(LEAKY))
    path.write_text(json.dumps(leaky), "utf-8")
    (path.parent / "notes.txt").symlink_to(path.parents[3] / "solutions" / MODULE / path.name)


def known_attackers(words: dict[str, str]) -> list[Student]:
    """The known attacks on nbgrader, the leaks and what stops nbgrader, each with somebody behind it."""
    students = [Student("A00 right", with_canary(answered()))]
    students += [Student(v.id, beside(known(v, words), v.files), {}) for v in VARIANTS]
    students += [Student("Z99 unanswered", untouched().hand_in), Student("L01", linked)]
    for id, change in STOPPERS.items():
        notebook = answered()
        change(notebook)
        students += [Student(id, notebook), innocent(f"{id} next")]
    return students


def own_attackers(words: dict[str, str]) -> list[Student]:
    """The attacks on this kit's design; behind those that reach out for others comes an innocent student."""
    students = [innocent("K before")]
    for attack in OWN:
        students.append(Student(IDS[attack.name], submission(attack, words), {}))
        if attack in REACHING:
            students.append(innocent(f"{IDS[attack.name]} next"))
    return students


def with_canary(notebook: NotebookNode) -> NotebookNode:
    """A neighbour's notebook that says what must not be found."""
    notebook.cells.insert(0, v4.new_markdown_cell(CANARY))
    return notebook


def grading(name: str, host: Host, *, everyone: bool) -> Grading:
    """`owl grade` on a class of attackers, started."""
    door = make_course(name, [], LIMITS)
    words = host.words | {"ROOT": str(door.root)}
    students = (known_attackers(words) if everyone else []) + own_attackers(words)
    students += [Student(name, content) for name, content in HAND_INS.items()]  # type: ignore[arg-type]
    for student in students:
        student.submit(door.submissions)
    door.students = students
    for place in (door.root / "judges", door.root / ".owl", door.root):
        place.mkdir(exist_ok=True)
        (place / "canary.txt").write_text(CANARY)
    order = ["grade", MODULE, "--submissions", str(door.submissions), "--json", str(door.file), "--jobs", "2"]
    door.command = [program("owl"), *order]
    door.start()
    return door


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """This machine as attacks may find it: a process of ours and sockets that note who calls."""
    came: list[str] = []
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        path, abstract = tmp_path_factory.mktemp("s") / "agent", f"owl-{secrets.token_hex(8)}"
        listeners = [tcp]
        for name in (str(path), f"\0{abstract}"):
            unix = stack.enter_context(socket.socket(socket.AF_UNIX))
            unix.bind(name)
            unix.listen(5)
            listeners.append(unix)
        datagrams = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        datagrams.bind(f"{path}.datagrams")
        with socket.create_server(("127.0.0.1", 0)) as unused:
            free = str(unused.getsockname()[1])
        victim = subprocess.Popen(["sleep", "3000"])
        stack.callback(victim.kill)
        stack.callback(lambda: [came.append("closed"), [s.close() for s in (*listeners, udp, datagrams)]])
        for listener in listeners:
            threading.Thread(target=_note, args=(listener.accept, came), daemon=True).start()
        for mailbox in (udp, datagrams):
            threading.Thread(target=_note, args=(partial(mailbox.recv, 99), came), daemon=True).start()
        words = {
            "CHECKOUT": str(ROOT),
            "HOME": str(Path.home()),
            "GRADER": str(os.getpid()),
            "VICTIM": str(victim.pid),
            "LIMIT_MIB": f"{LIMITS['memory_mib']:g}",
            "TCP": str(tcp.getsockname()[1]),
            "UDP": str(udp.getsockname()[1]),
            "UNIX": str(path),
            "ABSTRACT": abstract,
            "FREE": free,
        }
        yield Host(words, came)


def _note(receive, came: list[str]) -> None:
    """Note whatever comes until the socket closes."""
    while True:
        try:
            came.append(str(receive()))
        except OSError:
            return


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future]:
    """What stock nbgrader gives, in the background."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(stock_course.outcomes, tmp_path_factory.mktemp("stock"))


@pytest.fixture(scope="module")
def kit(host: Host, stock: Future) -> Grading:
    """The class after `owl grade`."""
    door = grading("attacks", host, everyone=True)
    assert door.finish() == 0, door.log.read_text()[-3000:]
    return door


def total(row: dict) -> float:
    return sum(question["points"] for question in row["questions"].values())


def printed(door: Grading, student: str) -> str:
    """All text that a student's own cells left in the graded notebook."""
    cells = [c for c in door.autograded(student).cells if c.cell_type == "code"]
    outputs = [output for cell in cells if "owl.check(" not in cell.source for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def got(text: str) -> list[str]:
    """What an attack says that it reached."""
    return re.findall(r"GOT .*", text)


# Known attacks on nbgrader


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.id)
def test_known_attacks_get_nothing_here(kit: Grading, variant: Variant):
    row = kit.rows()[variant.id]
    assert {id: entry["points"] for id, entry in row["questions"].items()} == dict.fromkeys(POINTS, 0.0), row
    assert row["status"] == "graded"


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.id)
def test_what_stock_nbgrader_gives_for_them(stock: Future, variant: Variant):
    assert stock.result()[variant.id] == variant.stock


@pytest.mark.parametrize("id", LEAKS)
def test_what_stock_nbgrader_leaks(stock: Future, id: str):
    assert stock.result()[id] == LEAKS[id][1]


# Attacks on this kit's design


@pytest.mark.parametrize("attack", OWN, ids=lambda attack: IDS[attack.name])
def test_own_attacks_get_nothing(kit: Grading, attack: Attack):
    row, said = kit.rows()[IDS[attack.name]], printed(kit, IDS[attack.name])
    points = {id: entry["points"] for id, entry in row["questions"].items() if entry["points"]}
    assert points == attack.keeps, row
    assert row["status"] in attack.status.split() and bool(row["reason"]) == (row["status"] != "graded"), row
    assert got(said) == []
    tried = re.search(r"TRIED (\d+)", said)
    assert not attack.tries or (tried and int(tried[1]) >= attack.tries), said[-2000:]


@pytest.mark.parametrize("name", HAND_INS)
def test_files_that_are_no_notebooks(kit: Grading, name: str):
    """Bombs and odd things handed in: a row that says why, at once."""
    row = kit.rows()[name]
    assert row["points"] == 0 and row["reason"].isprintable(), row
    assert row["status"] in ("unreadable", "graded", "missing") and row["seconds"] < 60


# Nobody else


def test_nobody_else_is_touched(kit: Grading):
    rows, model = kit.rows(), kit.rows()["K before"]
    for student in kit.students:
        if student.name.endswith("next"):
            row = rows[student.name]
            assert {k: row[k] for k in ("status", "points", "questions", "flags")} == {
                k: model[k] for k in ("status", "points", "questions", "flags")
            }
    assert (
        model["points"] == 4 and rows["A00 right"]["points"] == 10 and rows["Z99 unanswered"]["points"] == 0
    )
    assert kit.gradebook() == {
        name: {id: entry["points"] for id, entry in row["questions"].items()} for name, row in rows.items()
    }


def test_nothing_came_of_it(kit: Grading, host: Host):
    """Nothing reached this machine's sockets, nothing runs on, nothing secret is in what students get."""
    assert host.came == []
    assert psutil.pid_exists(int(host.words["VICTIM"]))
    assert [command for command in map(_command, psutil.process_iter()) if "owl-attack" in command] == []
    for folder in ("/tmp", "/dev/shm", "/var/tmp", str(Path.home())):
        assert [name for name in os.listdir(folder) if "planted" in name or "owl-meeting" in name] == []
    kept = [
        p for part in (".owl/records", "autograded") for p in (kit.root / part).rglob("*.*") if p.is_file()
    ]
    assert len(kept) > 100
    for path in kept:
        text = path.read_text("utf-8")
        assert path.stat().st_size < 2**20 and (CANARY not in text or "A00 right" in str(path)), path
    assert (kit.root / "canary.txt").read_text() == CANARY


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_the_terminal_is_told_nothing_that_it_would_obey(kit: Grading):
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x9b]", kit.log.read_text("utf-8", "replace"))


@pytest.fixture(scope="module")
def feedback(kit: Grading) -> Grading:
    """The same with feedback pages, of those who tried to put something in there."""
    for student in ("L01", IDS[SCRIPTS.name], "A00 right"):
        command = [program("nbgrader"), "generate_feedback", MODULE, f"--student={student}"]
        done = subprocess.run(command, cwd=kit.root, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    return kit


def test_feedback_runs_nothing_and_gives_nothing_away(feedback: Grading):
    places = list((feedback.root / "feedback").rglob("*.*"))
    pages = [place for place in places if place.suffix == ".html"]
    assert len(pages) == 3 and not any(place.name == "notes.txt" for place in places)
    for page in pages:
        soup = BeautifulSoup(page.read_text(), "html.parser")
        assert soup.find_all(["script", "iframe", "object", "embed", "form", "base", "svg", "link"]) == [], (
            page
        )
        for tag in soup.find_all(True):
            assert not [name for name in tag.attrs if name.startswith("on")], tag
            assert not any("javascript:" in str(value) for value in tag.attrs.values()), tag
        assert page.stat().st_size < 2 * 2**20


# Two at once


def test_two_that_run_at_the_same_time_can_not_speak(host: Host, tmp_path: Path):
    """One offers an answer in every way it can, the other listens."""
    words = host.words | {"ROOT": str(tmp_path), "SECONDS": "6", "PORT": host.words["FREE"]}
    judging.draw(ROOT / "judges", MODULE, 7)  # its imports are not for two threads at once
    with ThreadPoolExecutor(2) as pool:
        speaking = pool.submit(run_alone, submission(SPEAK, words), tmp_path)
        listening = run_alone(submission(LISTEN, words), tmp_path)
    said = "".join(output.get("text", "") for outputs in listening.outputs for output in outputs)
    assert got(said) == [] and int(re.search(r"TRIED (\d+)", said)[1]) >= LISTEN.tries
    for record in (listening, speaking.result()):
        assert {id: entry["points"] for id, entry in record.questions.items() if entry["points"]} == {
            "Q0.4": 2
        }


def run_alone(notebook: NotebookNode, folder: Path, sandbox: str = "auto") -> Record:
    with Runner(sandbox, hidden=folder) as runner:
        limits = Limits(**LIMITS | {"cell_seconds": 60})
        return runner.run(notebook, MODULE, seed=7, judges_dir=ROOT / "judges", limits=limits)


def test_the_published_table_is_what_is_tested():
    assert attacks_table.FILE.read_text("utf-8") == attacks_table.text(), "run python tests/attacks_table.py"
