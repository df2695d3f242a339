"""A class's submissions to module 00: right, wrong, partly right, honest mistakes; and their grading.

Each door (owl grade, nbgrader autograde, formgrader) has a course folder of its own and is used as people do.
`started()` opens the two that need no browser, side by side, once for all tests.
"""

import atexit
import base64
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
SHORT = {"cell_seconds": 10.0, "case_seconds": 3.0, "max_stretch": 5.0}
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


def marked(question: str, source: str) -> NotebookNode:
    """The worked notebook with one answer cell's whole source, marker line and all."""
    notebook = answered()
    notebook.cells[PLACE[f"{question}-answer"]].source = source
    return notebook


def with_cell(before: str, source: str, **sources: str) -> NotebookNode:
    """The worked notebook with a cell of one's own before the cell of that name."""
    notebook = answered(**sources)
    notebook.cells.insert(PLACE[before], v4.new_code_cell(source))
    return notebook


def reordered() -> NotebookNode:
    """Everything upside down."""
    notebook = answered()
    notebook.cells.reverse()
    return notebook


def with_picture() -> NotebookNode:
    """A pasted photo of 12 MB and outputs of 5 MB that were not cleared."""
    notebook = answered()
    picture = base64.b64encode(b"\x89PNG\r\n\x1a\n" + os.urandom(9 * 2**20)).decode()
    note = v4.new_markdown_cell("![me](attachment:me.png)", attachments={"me.png": {"image/png": picture}})
    notebook.cells.insert(1, note)
    text = v4.new_output("stream", text="loss: nan\n" * 500_000)
    notebook.cells[PLACE["Q0.2-answer"] + 1].outputs = [text]
    return notebook


def windows_lines() -> bytes:
    notebook = answered()
    for cell in notebook.cells:
        cell.source = cell.source.replace("\n", "\r\n")
    return json.dumps(notebook, indent=1).replace("\n", "\r\n").encode()


def beside_a_draft(path: Path) -> None:
    """The right notebook next to an old one, a checkpoint and data."""
    (path.parent / ".ipynb_checkpoints").mkdir()
    for other in ("Untitled.ipynb", f".ipynb_checkpoints/{MODULE}-checkpoint.ipynb"):
        (path.parent / other).write_text(json.dumps(RELEASE), "utf-8")
    (path.parent / "data.csv").write_text("1,2")
    path.write_text(json.dumps(answered()), "utf-8")


GIB = "def weight_gib(n_parameters, bits):\n    return n_parameters * bits / 8 / 2**30"
SORT = next(iter(VARIANTS["Q0.4"]["reference"].values())).strip()
NEXT = next(iter(VARIANTS["Q0.3"]["reference"].values())).strip()
ALIASED = "def my_size(n, b):\n    return n * b / 8 / 2**30\n\nweight_gib = my_size"
MAGICS = "%matplotlib inline\n!echo installing\n%config InlineBackend.figure_format = 'svg'\n" + GIB
TIMED = f"%%time\n# Q0.2 answer\n{GIB}\nweight_gib(7_000_000_000, 16)"
CAPTURED = f"%%capture out\n# Q0.2 answer\n{GIB}"
COLAB = "from google.colab import drive\ndrive.mount('/content/drive')"
GUARDED = 'if __name__ == "__main__":\n    ' + GIB.replace("\n", "\n    ")
HELPER_BELOW = GIB.replace("n_parameters * bits / 8 / 2**30", "gib(n_parameters * bits)") + (
    "\n\ndef gib(n_bits):\n    return n_bits / 8 / 2**30"
)
ASKING = GIB.replace("    return", '    input("go on? ")\n    return')
BREAKING = GIB.replace("    return", "    breakpoint()\n    return")
CUDA = "import torch\n" + NEXT.replace("):\n", '):\n    model.to("cuda")\n', 1)
CUDA_IF = "import torch\ndevice = 'cuda' if torch.cuda.is_available() else 'cpu'\n" + NEXT.replace(
    "):\n", "):\n    model.to(device)\n", 1
)
TALKING = GIB.replace("    return", "    print('debug ' * 40_000)\n    return")
GLOBAL_STATE = "calls = globals().get('calls', [])\n" + GIB.replace(
    "    return", "    calls.append(bits)\n    return"
)
SEEDED = "import random, numpy, torch\nrandom.seed(0); numpy.random.seed(0); torch.manual_seed(0)\n"
SETTINGS = """
import logging, os, sys, warnings
import numpy as np, torch
warnings.simplefilter("error")
logging.basicConfig(level=logging.DEBUG, force=True)
np.seterr(all="raise")
np.set_printoptions(precision=2)
torch.set_printoptions(precision=2)
torch.set_grad_enabled(False)
torch.use_deterministic_algorithms(True)
torch.set_num_threads(4)
os.chdir("..")
os.environ["CUDA_VISIBLE_DEVICES"] = "0"
sys.setrecursionlimit(300)
"""
DOUBLES = "import torch\ntorch.set_default_dtype(torch.float64)"
AUTORELOAD = """
%load_ext autoreload
%autoreload 2
%precision 3
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.ast_node_interactivity = "all"
"""
NUMPY_BACK = f"import numpy as np\n{GIB.replace('return ', 'return np.float32(').rstrip()})"
TUPLES = f"""{SORT}

_sort = sort_claims
def sort_claims(claims):
    return {{kind: tuple(ids) for kind, ids in _sort(claims).items()}}
"""
GENERATOR = TUPLES.replace("tuple(ids)", "(id for id in ids)")
MUTATING = f"""{SORT}

_sort = sort_claims
def sort_claims(claims):
    found = _sort(claims)
    claims.clear()
    return found
"""

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
        honest("m03 no checks", without_checks(), "check-restored"),
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
        *more_mistakes(),
    ]


def more_mistakes() -> list[Student]:
    """Honest mistakes in what cells do and how files are saved; most cost nothing at all."""
    later = answered(Q2=GIB.replace("n_parameters * bits / 8", "to_bytes(n_parameters, bits)"))
    later.cells.append(v4.new_code_cell("def to_bytes(n, bits):\n    return n * bits / 8"))
    return [
        honest("n01 draft above", with_cell("Q0.2-answer", "def weight_gib(n, b):\n    return n * b")),
        honest("n02 alias", answered(Q2=ALIASED)),
        honest("n03 upside down", reordered()),
        honest("n04 magics", answered(Q2=MAGICS)),
        honest("n05 timed", marked("Q0.2", TIMED)),
        honest("n06 captured", marked("Q0.2", CAPTURED)),
        honest("n07 colab drive", with_cell("Q0.1-answer", COLAB, Q2=f"{GIB}\n{COLAB}")),
        honest("n08 helper below", answered(Q2=HELPER_BELOW)),
        honest("n09 helper too late", later, marks=EXCEPT_Q2),
        honest("n10 picture", with_picture()),
        honest("n11 windows", windows_lines()),
        honest("n12 utf-16", json.dumps(answered()).encode("utf-16"), "encoding-repaired"),
        honest("n13 main guard", answered(Q2=GUARDED)),
        honest("n14 input", answered(Q2=ASKING), marks=EXCEPT_Q2),
        honest("n15 breakpoint", answered(Q2=BREAKING)),
        honest("n16 cuda", answered(Q3=CUDA), marks=FULL | {"Q0.3": "none"}),
        honest("n17 cuda if there", answered(Q3=CUDA_IF)),
        honest("n18 debug prints", answered(Q2=TALKING)),
        honest("n19 global state", answered(Q2=GLOBAL_STATE, Q4=f"calls = []\n{SORT}")),
        honest("n20 seeds", with_cell("Q0.1-answer", SEEDED, Q4=SEEDED + SORT)),
        honest("n21 settings", with_cell("Q0.1-answer", SETTINGS)),
        honest("n22 doubles", with_cell("Q0.1-answer", DOUBLES)),
        honest("n23 autoreload", with_cell("Q0.1-answer", AUTORELOAD)),
        honest("n24 numpy scalar", answered(Q2=NUMPY_BACK)),
        honest("n25 tuples", answered(Q4=TUPLES)),
        honest("n26 generator", answered(Q4=GENERATOR), marks=FULL | {"Q0.4": "none"}),
        honest("n27 mutates", answered(Q4=MUTATING), marks=FULL | {"Q0.4": "part"}),
        honest("n28 beside a draft", beside_a_draft, "several-notebooks"),
    ]


def endless() -> list[Student]:
    """Loops: graded with short limits, in a class of their own, since each waits for its limit."""
    forever = "while True:\n    print('x')"
    return [
        honest("l01 loop", answered(Q2=LOOP), marks=EXCEPT_Q2, status="timeout"),
        honest("l02 deaf loop", answered(Q2=DEAF_LOOP), marks=EXCEPT_Q2, status="timeout"),
        honest("l03 endless cell", with_cell("Q0.1-answer", "while True:\n    pass"), status="timeout"),
        honest("l04 endless print", with_cell("Q0.1-answer", forever), "oversized-output", status="timeout"),
        honest("l05 right", answered()),
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


def make_course(name: str, students: list[Student], limits: dict[str, float] = LIMITS) -> Grading:
    """A fresh course folder with this checkout's module and the class's submissions."""
    root = workplace() / name
    for folder in ("exercises", "solutions"):
        shutil.copytree(ROOT / folder / MODULE, root / folder / MODULE)
    shutil.copytree(ROOT / "judges", root / "judges", ignore=shutil.ignore_patterns("__pycache__"))
    settings = (ROOT / "nbgrader_config.py").read_text()
    (root / "nbgrader_config.py").write_text(f"{settings}\nc.Judge.limits = {limits}\n")
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
    by_owl.command = [program("owl"), *order, "--jobs", "2"]
    by_nbgrader = make_course("nbgrader", [*everyone, *rest])
    by_nbgrader.command = [program("nbgrader"), "autograde", MODULE]
    for door in (by_owl, by_nbgrader):
        door.start()
        atexit.register(_stop, door)
    wait_for(lambda: by_owl.file.exists() and len(by_owl.rows()) >= 3, 600, "third row")
    assert by_owl.kill() == []  # the run that was under way ends, too
    assert 3 <= len(by_owl.rows()) < len(by_owl.students)
    by_owl.start()
    return {"owl": by_owl, "nbgrader": by_nbgrader}


@cache
def loops() -> Grading:
    """Endless submissions after `owl grade` with short limits."""
    door = make_course("loops", endless(), SHORT)
    order = ["grade", MODULE, "--submissions", str(door.submissions), "--json", str(door.file), "--jobs", "2"]
    door.command = [program("owl"), *order]
    door.start()
    assert door.finish() == 0, door.log.read_text()[-3000:]
    return door


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
