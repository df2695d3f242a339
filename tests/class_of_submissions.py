"""A class's submissions to module 00: right, wrong, partly right, honest mistakes; and their grading.

Each door (owl grade, nbgrader autograde, formgrader) has a course folder of its own and is used as people do.
`started()` opens the two that need no browser, side by side, once for all tests.
"""

import atexit
import copy
import json
import os
import runpy
import shutil
import signal
import sqlite3
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import nbformat
import psutil
from nbformat import NotebookNode, v4

ROOT = Path(__file__).resolve().parents[1]
MODULE = "00_workbench"
SEED = 4711
LIMITS = {"cell_seconds": 120.0}  # right answers have time on a busy machine, too
VARIANTS = runpy.run_path(str(ROOT / "tests" / "mutants" / f"{MODULE}.py"))["VARIANTS"]
POINTS = {"Q0.1": 3.0, "Q0.2": 2.0, "Q0.3": 3.0, "Q0.4": 2.0}
WORTH = {"reference": "full", "rival": "full", "partial": "part", "stub": "none", "worthless": "none"}
FULL = dict.fromkeys(POINTS, "full")
NONE = dict.fromkeys(POINTS, "none")
SCRIPT = "<script>window.pwned = 1</script><img src='x' onerror='window.pwned = 1'>"


def read(folder: str) -> NotebookNode:
    return nbformat.read(ROOT / folder / MODULE / f"{MODULE}.ipynb", as_version=4)


RELEASE = read("exercises")
PLACE = {cell.metadata.get("nbgrader", {}).get("grade_id"): n for n, cell in enumerate(RELEASE.cells)}


def variants(question: str) -> list[tuple[str, str, str]]:
    """(kind, name, source) of every known answer to a question, always in the same order."""
    kinds = VARIANTS[question]
    return [(kind, name, source) for kind in WORTH for name, source in kinds[kind].items()]


MOST_VARIANTS = max(len(variants(question)) for question in POINTS)


def answered(**sources: str) -> NotebookNode:
    """The exercise with the reference's answers, some replaced: `answered(Q2="...")` is Q0.2's."""
    notebook = copy.deepcopy(RELEASE)
    for question in POINTS:
        source = sources.get(question.replace("0.", ""), next(iter(VARIANTS[question]["reference"].values())))
        notebook.cells[PLACE[f"{question}-answer"]].source = f"# {question} answer\n{source.strip()}"
    return notebook


@dataclass
class Student:
    """One submission and what it must come to: for each question "full", "part" or "none" of its points."""

    name: str
    hand_in: Callable[[Path], object] | NotebookNode | bytes | None
    marks: dict[str, str] = field(default_factory=lambda: FULL)
    status: str = "graded"
    flags: frozenset[str] = frozenset()
    file: str = f"{MODULE}.ipynb"
    reason: str = ""

    def submit(self, submissions: Path) -> None:
        """Write the submission to `submissions/<name>/<module>/`."""
        path = submissions / self.name / MODULE / self.file
        path.parent.mkdir(parents=True)
        if callable(self.hand_in):
            self.hand_in(path)
        elif isinstance(self.hand_in, bytes):
            path.write_bytes(self.hand_in)
        elif self.hand_in is not None:
            path.write_text(json.dumps(self.hand_in), "utf-8")


def variant(number: int) -> Student:
    """The notebook that carries the number-th variant of every question; short lists begin again."""
    sources, marks = {}, {}
    for question in POINTS:
        kind, _, source = variants(question)[number % len(variants(question))]
        sources[question.replace("0.", "")], marks[question] = source, WORTH[kind]
    return Student(f"v{number:02d}", answered(**sources), marks)


def untouched() -> Student:
    return Student("stub", copy.deepcopy(RELEASE), NONE)


# Honest mistakes: each takes a worked notebook and spoils it


def copied_cell() -> NotebookNode:
    notebook = answered()
    place = PLACE["Q0.2-answer"]
    older = copy.deepcopy(notebook.cells[place])
    older.source = "# Q0.2 answer\ndef weight_gib(n_parameters, bits):\n    return n_parameters * bits"
    notebook.cells.insert(place, older)
    return notebook


def split_cell() -> NotebookNode:
    notebook = answered(Q2="def weight_gib(n_parameters, bits):\n    n_bytes = n_parameters * bits / 8")
    place = PLACE["Q0.2-answer"]
    half = copy.deepcopy(notebook.cells[place])
    half.source = "    return n_bytes / 2**30"
    notebook.cells.insert(place + 1, half)
    return notebook


def without_checks() -> NotebookNode:
    notebook = answered()
    notebook.cells = [cell for cell in notebook.cells if "owl.check(" not in cell.source]
    return notebook


def stripped() -> NotebookNode:
    notebook = answered()
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
        cell.pop("id", None)
    return notebook | {"metadata": {}, "nbformat_minor": 4}


def pasted_into_one_cell() -> NotebookNode:
    code = [cell.source for cell in answered().cells if cell.cell_type == "code"]
    return v4.new_notebook(cells=[v4.new_code_cell("\n\n".join(code))])


def with_own_cells() -> NotebookNode:
    """Helpers, notes and experiments of one's own; the notes try to run a script in the grader's browser."""
    notebook = answered(Q2="def weight_gib(n_parameters, bits):\n    return to_gib(n_parameters * bits / 8)")
    place = PLACE["Q0.2-answer"]
    own = [
        v4.new_markdown_cell(f"## My notes\n\n{SCRIPT}\n\n[link](javascript:window.pwned=1)"),
        v4.new_code_cell("def to_gib(n_bytes):\n    return n_bytes / 2**30"),
        v4.new_code_cell(
            f"from IPython.display import HTML, display\ndisplay(HTML({SCRIPT!r}))\nto_gib(2**31)"
        ),
    ]
    notebook.cells[place:place] = own
    return notebook


def changed_types() -> NotebookNode:
    notebook = answered()
    for question, make in (("Q0.1", v4.new_markdown_cell), ("Q0.4", v4.new_raw_cell)):
        cell = notebook.cells[PLACE[f"{question}-answer"]]
        notebook.cells[PLACE[f"{question}-answer"]] = make(cell.source, metadata=cell.metadata)
    return notebook


def noisy() -> NotebookNode:
    """Warnings, logging and a progress bar on stderr, and every input printed, now and in a later cell."""
    source = """
import logging, sys, warnings
from tqdm import tqdm
seen = []
def weight_gib(n_parameters, bits):
    warnings.warn("careful")
    logging.warning("more care")
    for _ in tqdm(range(3)):
        print(n_parameters, bits, file=sys.stderr)
    print("inputs:", n_parameters, bits)
    seen.append((n_parameters, bits))
    return n_parameters * bits / 8 / 2**30
"""
    notebook = answered(Q2=source)
    notebook.cells.insert(PLACE["Q0.2"] + 1, v4.new_code_cell("print('seen:', seen)\nseen"))
    return notebook


def shouting() -> NotebookNode:
    """About 200 MB of output, and a picture as large as its neighbours together."""
    notebook = answered()
    source = "for _ in range(200):\n    print('x' * 10**6)\n\nlist(range(10**6))"
    notebook.cells.insert(PLACE["Q0.1"] + 1, v4.new_code_cell(source))
    return notebook


def leaving() -> NotebookNode:
    """Calls of exit, quit and input, an exception and a half-written line in cells of one's own."""
    notebook = answered()
    sources = ["exit()", "input('name? ')", "1 / 0", "def unfinished(:", "import sys; sys.exit(3)", "!exit 3"]
    notebook.cells[2:2] = [v4.new_code_cell(source) for source in sources]
    return notebook


def tampered() -> NotebookNode:
    notebook = answered()
    check = notebook.cells[PLACE["Q0.3"]]
    check.source, check.metadata["tags"] = "print('fine')", ["skip-execution"]
    notebook.cells[PLACE["Q0.4"]].metadata.nbgrader["points"] = 99
    return notebook


def colab_shaped() -> bytes:
    notebook = answered()
    notebook.metadata = {"colab": {"provenance": []}, "accelerator": "GPU"}
    for n, cell in enumerate(notebook.cells):
        cell.metadata = {"id": f"c{n}", **cell.metadata}
        cell.pop("id", None)
    return b"\xef\xbb\xbf" + json.dumps(notebook | {"nbformat_minor": 0}).encode()


def old_format() -> bytes:
    cells = []
    for cell in answered().cells:
        text = {"input": cell.source, "outputs": []} if cell.cell_type == "code" else {"source": cell.source}
        cells.append({"cell_type": cell.cell_type, "metadata": cell.metadata, **text})
    return json.dumps({"nbformat": 3, "metadata": {}, "worksheets": [{"cells": cells}]}).encode()


def other_module() -> bytes:
    text = json.dumps(RELEASE).replace("Q0.", "Q1.")
    for name in ("count_parameters", "weight_gib", "next_token_probabilities", "sort_claims"):
        text = text.replace(name, f"other_{name[:5]}")
    return text.encode()


def link_to_a_neighbour(path: Path) -> None:
    os.symlink(path.parents[2] / "v00" / MODULE / f"{MODULE}.ipynb", path)


LOOP = "def weight_gib(n_parameters, bits):\n    while True:\n        pass"
DEAF_LOOP = """
import signal
def weight_gib(n_parameters, bits):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            while True: pass
        except BaseException: pass
"""
DEATH = "import os\ndef weight_gib(n_parameters, bits):\n    os._exit(1)"
EXCEPT_Q2 = FULL | {"Q0.2": "none"}


def honest(name: str, notebook: object, *flags: str, **more: object) -> Student:
    return Student(name, notebook, flags=frozenset(flags), **more)  # type: ignore[arg-type]


def through_every_door() -> list[Student]:
    """The class that is graded three times."""
    return [
        *(variant(number) for number in (0, 2, 7, 14)),
        untouched(),
        honest("h01 copied cell", copied_cell(), "duplicate-answer"),
        honest("h02 kernel killed", answered(Q2=DEATH), marks=EXCEPT_Q2, status="crashed"),
        honest(
            "h03 one cell, renamed", pasted_into_one_cell(), *REPAIRED, "renamed-file", file="mine (1).ipynb"
        ),
        honest("h04 cut off", json.dumps(answered())[:2000].encode(), marks=NONE, **unreadable("cut off")),
        honest("h05 own cells", with_own_cells()),
        honest("h06 other module", other_module(), "wrong-module", marks=NONE, **unreadable("Q1.1")),
        honest("h07 noisy", noisy()),
    ]


def unreadable(reason: str) -> dict[str, str]:
    return {"status": "unreadable", "reason": reason}


REPAIRED = ("metadata-repaired",)


def honest_mistakes() -> list[Student]:
    """More honest mistakes, graded once; after each that breaks something comes one that must not notice."""
    return [
        honest("m01 split cell", split_cell(), "split-answer"),
        honest("m02 loop", answered(Q2=LOOP), marks=EXCEPT_Q2, status="timeout"),
        honest("m03 no checks", without_checks(), "check-restored"),
        honest("m04 deaf loop", answered(Q2=DEAF_LOOP), marks=EXCEPT_Q2, status="timeout"),
        honest("m05 stripped", stripped(), *REPAIRED),
        honest("m06 shouting", shouting(), "oversized-output"),
        honest("m07 nested", answered(), "nested-file", file=f"home/me/{MODULE}.ipynb"),
        honest("m08 empty file", b"", marks=NONE, **unreadable("is empty")),
        honest("m09 other types", changed_types(), "cell-type-repaired"),
        honest("m10 nothing", None, marks=NONE, status="missing", reason="nothing was handed in"),
        honest("m11 leaving", leaving()),
        honest("m12 link", link_to_a_neighbour, "symlink", marks=NONE, **unreadable("is a link")),
        honest("m13 colab", colab_shaped(), "encoding-repaired"),
        honest("m14 checks edited", tampered(), "tampered"),
        honest("m15 old format", old_format(), "old-format"),
    ]


# The three doors


@dataclass
class Grading:
    """One door's course folder and what it made of the class."""

    root: Path
    students: list[Student]
    log: Path
    command: list[str] = field(default_factory=list)
    process: subprocess.Popen | None = None
    was_killed: bool = False

    @property
    def submissions(self) -> Path:
        return self.root / "submitted"

    @property
    def file(self) -> Path:
        return self.root / "marks.json"

    def start(self) -> None:
        """Start the command in the background."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.root, env=environment(), stdout=log, stderr=log, start_new_session=True
            )

    def finish(self) -> int:
        """Wait for the command; its exit status."""
        assert self.process
        return self.process.wait()

    def kill(self) -> list[psutil.Process]:
        """End the command as a power cut would; what it had started and still runs half a minute later."""
        assert self.process
        started = psutil.Process(self.process.pid).children(recursive=True)
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.was_killed = True
        return psutil.wait_procs(started, timeout=30)[1]

    def rows(self) -> dict[str, dict]:
        """owl grade's file, by student."""
        return {row["student"]: row for row in json.loads(self.file.read_text())["submissions"]}

    def gradebook(self) -> dict[str, dict[str, float]]:
        """Points by student and question, from the gradebook's tables."""
        query = (
            "select a.student_id, c.name, coalesce(g.manual_score, g.auto_score) from grade g "
            "join base_cell c on c.id = g.cell_id join submitted_notebook n on n.id = g.notebook_id "
            "join submitted_assignment a on a.id = n.assignment_id"
        )
        marks: dict[str, dict[str, float]] = {}
        with sqlite3.connect(self.root / "gradebook.db") as database:
            for student, question, score in database.execute(query):
                marks.setdefault(student, {})[question] = score
        return {student: dict(sorted(points.items())) for student, points in sorted(marks.items())}

    def autograded(self, student: str) -> NotebookNode:
        return nbformat.read(self.root / "autograded" / student / MODULE / f"{MODULE}.ipynb", as_version=4)

    def outcome(self, student: str) -> tuple[str, list[str]]:
        """Status and flags, as the autograded notebook carries them."""
        kept = self.autograded(student).metadata["owl_grading"]
        return kept["status"], [flag for flag in kept["flags"] if flag != "no-sandbox"]


def environment() -> dict[str, str]:
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    return {**os.environ, "OWL_SEED": str(SEED), "PATH": path}


def program(name: str) -> str:
    return str(Path(sysconfig.get_path("scripts"), name))


@cache
def workplace() -> Path:
    """A temporary folder for all doors, removed at the end with all that still runs in it."""
    folder = Path(tempfile.mkdtemp(prefix="owl-class-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def make_course(name: str, students: list[Student]) -> Grading:
    """A fresh course folder with this checkout's module and the class's submissions."""
    root = workplace() / name
    for folder in ("exercises", "solutions"):
        shutil.copytree(ROOT / folder / MODULE, root / folder / MODULE)
    shutil.copytree(ROOT / "judges", root / "judges", ignore=shutil.ignore_patterns("__pycache__"))
    settings = (ROOT / "nbgrader_config.py").read_text()
    (root / "nbgrader_config.py").write_text(f"{settings}\nc.Judge.limits = {LIMITS}\n")
    for student in students:
        student.submit(root / "submitted")
    return Grading(root, students, root / "log")


@cache
def started() -> dict[str, Grading]:
    """The doors without a browser, both running; `owl grade` is killed and called again on its way."""
    everyone = through_every_door()
    names = {student.name for student in everyone}
    rest = [student for student in map(variant, range(MOST_VARIANTS)) if student.name not in names]
    by_owl = make_course("owl", [*everyone, *honest_mistakes()])
    order = ["grade", MODULE, "--submissions", str(by_owl.submissions), "--json", str(by_owl.file)]
    by_owl.command = [program("owl"), *order]
    by_nbgrader = make_course("nbgrader", [*everyone, *rest])
    by_nbgrader.command = [program("nbgrader"), "autograde", MODULE]
    for door in (by_owl, by_nbgrader):
        door.start()
        atexit.register(_stop, door)
    return {"owl": by_owl, "nbgrader": by_nbgrader}


def _stop(door: Grading) -> None:
    if door.process and door.process.poll() is None:
        os.killpg(door.process.pid, signal.SIGKILL)


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until the condition holds, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {seconds:g} s"
        time.sleep(0.2)


def expected(mark: str, points: float, most: float) -> bool:
    """Whether points are what "full", "part" or "none" means."""
    return {"full": points == most, "none": points == 0, "part": 0 < points < most}[mark]
