"""Real runs in a real kernel: points survive crashes, limits hold, attacks gain nothing."""

import atexit
import json
import runpy
import socket
import threading
from functools import cache
from pathlib import Path

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from openweightlab.grading import sandbox as boxes
from openweightlab.grading.outputs import CUT
from openweightlab.grading.processes import tree
from openweightlab.grading.run import Limits, Record, Runner
from openweightlab.questions import load

ROOT = Path(__file__).parents[1]
MODULE = "00_workbench"
QUESTIONS = load(MODULE)
VARIANTS = runpy.run_path(str(ROOT / "tests" / "mutants" / f"{MODULE}.py"))["VARIANTS"]
RIGHT = {id: next(iter(kinds["reference"].values())) for id, kinds in VARIANTS.items()}
GIB, SORT = RIGHT["Q0.2"], RIGHT["Q0.4"]  # these two need no torch in the kernel, so their runs are quick
QUICK = Limits(cell_seconds=10, case_seconds=2, max_stretch=5)


def answer(id: str, source: str) -> NotebookNode:
    marks = {"grade_id": f"{id}-answer", "grade": False, "solution": True, "locked": False}
    return new_code_cell(f"# {id} answer\n{source}", metadata={"nbgrader": marks})


def check(id: str) -> NotebookNode:
    question = QUESTIONS[id]
    marks = {"grade_id": id, "grade": True, "solution": False, "locked": True, "points": question.points}
    source = f'owl.check("{id}", {", ".join(question.functions)})'
    return new_code_cell(source, metadata={"nbgrader": marks})


def notebook(answers: dict[str, str], *scratch: str) -> NotebookNode:
    """Set-up, then scratch cells, then each question's answer and check cell."""
    cells = [new_code_cell("import openweightlab as owl"), *map(new_code_cell, scratch)]
    for id, source in answers.items():
        cells += [new_markdown_cell(f"### {id}"), answer(id, source), check(id)]
    return new_notebook(cells=cells)


@cache
def runner(sandbox: str) -> Runner:
    """One warm start for all tests of this file."""
    if sandbox == "auto" and not boxes.probe().isolated:
        pytest.skip(f"no sandbox works here: {boxes.probe().name}")
    made = Runner(sandbox, hidden=ROOT)
    atexit.register(made.__exit__)
    return made


def grade(answers: dict[str, str], *scratch: str, limits: Limits = QUICK, sandbox: str = "auto") -> Record:
    return run(notebook(answers, *scratch), limits, sandbox)


def run(book: NotebookNode, limits: Limits = QUICK, sandbox: str = "auto") -> Record:
    return runner(sandbox).run(book, MODULE, seed=7, limits=limits, judges_dir=ROOT / "judges")


def points(record: Record) -> dict[str, float]:
    return {id: entry["points"] for id, entry in record.questions.items() if entry["points"]}


def printed(record: Record, cell: int = 1) -> str:
    return "".join(output.get("text", "") for output in record.outputs[cell])


# Right and wrong


def test_the_reference_gets_full_marks_and_an_audit_record() -> None:
    limits = Limits(notebook_seconds=300)
    record = grade(RIGHT, "print('hello')", limits=limits)
    assert points(record) == {"Q0.1": 3, "Q0.2": 2, "Q0.3": 3, "Q0.4": 2}
    assert (record.status, record.reason, record.points) == ("graded", "", 10.0)
    assert printed(record) == "hello\n"
    assert record.seed == 7 and record.seconds > 0 and record.peak_mib > 50
    assert {"python", "torch", "transformers", "openweightlab"} <= set(record.versions)
    assert Record(**json.loads(record.to_json())) == record
    assert all(case["ok"] for entry in record.questions.values() for case in entry["cases"])


def test_each_question_is_graded_on_its_own_and_partly_right_answers_in_part() -> None:
    wrong = VARIANTS["Q0.2"]["partial"]["whole bits"]
    stub = VARIANTS["Q0.4"]["stub"]["untouched"]
    first, again = grade({"Q0.2": wrong, "Q0.4": stub}), grade({"Q0.2": wrong, "Q0.4": stub})
    assert 0 < first.questions["Q0.2"]["points"] < 2
    assert first.questions["Q0.4"]["error"] == "Not answered yet."
    assert first.questions["Q0.1"]["error"] == "Its check cell is missing."
    assert first.questions == again.questions, "the same submission and seed give the same record"
    failed = [case for case in first.questions["Q0.2"]["cases"] if not case["ok"]]
    assert any("fraction of `bits`" in case["message"] for case in failed)
    assert not any(digit in case["message"] for case in failed for digit in "0123456789"), (
        "no values are told"
    )


def test_noise_and_errors_outside_the_answer_cost_nothing() -> None:
    noisy = "import warnings, sys, logging\n" + GIB.replace(
        "    return",
        "    warnings.warn('slow'); logging.warning('hm'); print('progress', file=sys.stderr)\n    return",
    )
    record = grade({"Q0.2": noisy, "Q0.4": SORT}, "1 / 0", "import no_such_package", "def f(:", "%nonsense")
    assert points(record) == {"Q0.2": 2, "Q0.4": 2} and record.status == "graded"
    assert record.outputs[1][0]["ename"] == "ZeroDivisionError"
    assert all(not outputs for cell, outputs in enumerate(record.outputs) if cell in (7, 10)), (
        "check cells are blank"
    )


def test_a_raised_error_is_told_by_kind_and_own_line_only() -> None:
    source = "def weight_gib(n_parameters, bits):\n    raise ValueError(f'{n_parameters} {bits}')"
    entry = grade({"Q0.2": source}).questions["Q0.2"]
    line = "raise ValueError(f'{n_parameters} {bits}')"
    assert {case["message"] for case in entry["cases"]} == {f"It raised ValueError in your line `{line}`."}
    sneaky = "def weight_gib(n_parameters, bits):\n    raise type(f'Seen{n_parameters}', (Exception,), {})()"
    messages = {case["message"] for case in grade({"Q0.2": sneaky}).questions["Q0.2"]["cases"]}
    assert all(message.startswith("It raised an exception") for message in messages)


def test_an_ordinary_test_cell_counts_as_nbgrader_scores_it_and_is_marked_weak() -> None:
    book = notebook({"Q0.2": GIB})
    tests = {
        "easy": "assert weight_gib(2**30, 8) == 1",
        "hard": "assert False",
        "half": "0.5",
        "nan": "float('nan')",
    }
    for name, source in tests.items():
        marks = {"grade_id": name, "grade": True, "solution": False, "locked": True, "points": 1}
        book.cells.append(new_code_cell(source, metadata={"nbgrader": marks}))
    record = run(book)
    weak = {id: entry["points"] for id, entry in record.questions.items() if entry.get("weak")}
    assert weak == {"easy": 1, "hard": 0, "half": 0.5, "nan": 0} and "weak-tests" in record.flags


# Crashes and limits


def test_a_crash_costs_its_own_question_only() -> None:
    crash = "import os\ndef weight_gib(n_parameters, bits):\n    os._exit(3)"
    sort = SORT + "\nassert kept == 5, 'cells before the crash have run again'"
    record = grade({"Q0.2": crash, "Q0.4": sort}, "kept = 5")
    assert points(record) == {"Q0.4": 2} and "oversized-output" not in record.flags
    assert record.status == "crashed" and "ended the kernel" in record.questions["Q0.2"]["error"]


def test_a_crash_while_defining_an_answer_leaves_the_others() -> None:
    record = grade({"Q0.2": GIB, "Q0.4": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"})
    assert points(record) == {"Q0.2": 2} and record.status == "crashed"
    assert "not defined" in record.questions["Q0.4"]["error"]


def test_a_broken_answer_is_told_by_its_error() -> None:
    entry = grade({"Q0.2": GIB, "Q0.4": "def sort_claims(claims):\nreturn {}"}).questions["Q0.4"]
    words = "Nothing to check: sort_claims is not defined as a function."
    assert entry["error"] == f"{words} The answer cell ended with IndentationError."


@pytest.mark.parametrize(
    "loop",
    [
        "while True: pass",
        "import time\nwhile True:\n        try: time.sleep(9)\n        except BaseException: pass",
    ],
    ids=["interruptible", "deaf"],
)
def test_an_endless_answer_costs_its_own_question_only(loop: str) -> None:
    endless = f"def weight_gib(n_parameters, bits):\n    {loop}".replace(
        "    import time\n", "    import time\n    "
    )
    record = grade({"Q0.2": endless, "Q0.4": SORT})
    assert points(record) == {"Q0.4": 2}
    assert record.status == "timeout"


def test_an_endless_cell_and_endless_output_end_at_the_limit() -> None:
    loops = ("while True: print('x' * 1000)", "print('y' * 30_000_000)", "print('z' * 60_000_000)")
    limits = Limits(cell_seconds=3, output_bytes=100_000)
    record = grade({"Q0.2": GIB}, *loops, limits=limits)
    assert points(record) == {"Q0.2": 2} and record.status == "timeout"
    assert "oversized-output" in record.flags and len(record.to_json()) < 150_000
    assert [printed(record, cell).endswith(CUT) for cell in (1, 2, 3)] == [True, True, True]


def test_one_slow_case_costs_that_case() -> None:
    slow = "import time\n" + GIB.replace("    return", "    if bits == 4.25: time.sleep(60)\n    return")
    entry = grade({"Q0.2": slow}).questions["Q0.2"]
    failed = [case for case in entry["cases"] if not case["ok"]]
    assert entry["points"] == 1.75
    assert [case["message"] for case in failed] == ["It took too long and was stopped."]


def test_the_whole_notebook_has_its_time() -> None:
    limits = Limits(notebook_seconds=9, max_stretch=1)
    book = notebook({"Q0.2": GIB, "Q0.4": SORT})
    book.cells[4:4] = [new_code_cell("import time; time.sleep(4)") for _ in range(5)]
    record = run(book, limits)
    assert points(record) == {"Q0.2": 2} and record.status == "timeout"
    assert "time" in record.questions["Q0.4"]["error"]


def test_memory_is_bounded() -> None:
    huge = "a = bytearray(10**12)"
    growing = "b = []\nwhile True: b.append(bytearray(b'x') * 10**7)"
    limits = Limits(memory_mib=700, cell_seconds=40)
    record = grade({"Q0.2": GIB}, huge, growing, limits=limits)
    assert points(record) == {"Q0.2": 2} and record.status == "crashed"
    assert record.outputs[1][0]["ename"] == "MemoryError"
    assert "700 MiB" in record.reason and record.peak_mib < 2500


def test_processes_are_bounded_and_none_is_left() -> None:
    many = "import subprocess, time\nfor _ in range(50): subprocess.Popen(['sleep', '77'])\ntime.sleep(3)"
    stray = "import subprocess\nsubprocess.Popen(['sleep', '78'], start_new_session=True)"
    limits = Limits(processes=20, cell_seconds=20)
    for sandbox in ("auto", "none"):
        record = grade({"Q0.2": GIB}, many, stray, limits=limits, sandbox=sandbox)
        assert points(record) == {"Q0.2": 2} and "processes" in record.reason
        assert not sleeping()


def sleeping() -> list[str]:
    found = []
    for pid in tree(1):
        try:
            found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip())
        except OSError:
            continue
    return [line for line in found if line in ("sleep 77", "sleep 78")]


def test_too_many_cells_are_refused_with_a_word() -> None:
    record = grade({"Q0.2": GIB}, *["1"] * 20, limits=Limits(cells=10))
    assert record.points == 0 and "more than 10 cells" in record.reason


# Reach


@pytest.mark.needs_bwrap
def test_nothing_of_value_is_in_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    (tmp_path / "gradebook.db").write_text("marks")
    with socket.create_server(("127.0.0.1", 0)) as server:
        look = f"""
import os, socket, sys, openweightlab
for path in [{str(ROOT / "judges")!r}, {str(ROOT / "solutions")!r}, {str(tmp_path)!r}, "/etc/passwd", "/var"]:
    print(path, os.path.exists(path))
tops = set(os.listdir("/")) - {{"proc", "sys", "usr", "opt"}}
found = [os.path.join(d, f) for top in tops for d, _, files in os.walk("/" + top) for f in files]
words = ("/judges/", "/solutions/", "/mutants/", "/authoring/0", "gradebook.db", ".git/")
own = [path for path in found if "/site-packages/" not in path]  # nbgrader ships a gradebook.db of its own
print("judges found:", [path for path in own if any(word in path for word in words)])
print("secret", "hunter2" in str(dict(os.environ)))
try:
    socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), timeout=2)
    print("connected True")
except OSError:
    print("connected False")
for place in (os.path.dirname(openweightlab.__file__), sys.prefix, "/usr"):
    try:
        open(place + "/mine", "w")
        print("written True")
    except OSError:
        print("written False")
"""
        record = grade({"Q0.2": GIB}, look, limits=Limits(cell_seconds=60))
    text = printed(record)
    assert record.sandbox in ("cgroup+bubblewrap", "bubblewrap") and record.flags == []
    assert "judges found: []" in text and "True" not in text, text
    assert text.count("False") == 10


def test_without_a_sandbox_it_still_grades_and_says_so() -> None:
    record = grade({"Q0.2": GIB}, "import os; print(os.getcwd(), os.listdir())", sandbox="none")
    assert points(record) == {"Q0.2": 2}
    assert record.flags == ["no-sandbox"] and record.sandbox == "none (switched off)"
    assert "owl-" in printed(record) and str(ROOT) not in printed(record)


def test_one_submission_does_not_change_the_next() -> None:
    plant = """
import os
folder = os.path.join(os.environ["IPYTHONDIR"], "profile_default", "startup")
os.makedirs(folder, exist_ok=True)
open(os.path.join(folder, "00-x.py"), "w").write("planted = True")
open("ipykernel.py", "w").write("raise SystemExit")
"""
    for sandbox in ("auto", "none"):
        assert points(grade({"Q0.2": GIB}, plant, "import os; os._exit(0)", sandbox=sandbox)) == {"Q0.2": 2}
        assert "NameError" in json.dumps(grade({"Q0.2": GIB}, "planted", sandbox=sandbox).outputs)


# Attacks: a wrong answer stays worth nothing

WRONG = "def weight_gib(n_parameters, bits):\n    return 1.0"
ATTACKS = {
    "a check that says yes": "owl.check = lambda *a: print('all passed')",
    "a comparison that says yes": """
import openweightlab.check as c, openweightlab.questions as q
yes = lambda *a: q.Verdict(True)
c.judge_case = yes
for question in q.load("00_workbench").values():
    object.__setattr__(question, "compare", yes)
""",
    "asserts dropped": """
import ast
class NoAsserts(ast.NodeTransformer):
    def visit_Assert(self, node): return None
    def visit_Compare(self, node): return ast.copy_location(ast.Constant(True), node)
get_ipython().ast_transformers.append(NoAsserts())
""",
    "cells emptied": "get_ipython().input_transformers_cleanup.append(lambda lines: ['pass'])",
    "points shown": """
import sys, builtins
real = owl.check
def forged(*a):
    sys.displayhook(2.0); real(*a); sys.displayhook(2.0); return 2.0
owl.check = forged
""",
    "a kernel that reports success": """
from IPython.core.interactiveshell import ExecutionResult, ExecutionInfo
shell = get_ipython()
shell.run_cell = lambda *a, **k: ExecutionResult(ExecutionInfo("", False, False, False, "", None))
""",
    "frames by hand": """
import os, socket, threading, time
from openweightlab import check
from openweightlab.grading import wire
def forge():
    while True:
        line = check._line(int(os.environ["OWL_JUDGE"]))
        if line is None:
            time.sleep(0.001)
            continue
        with line as s:
            try:
                wire.send(s, {"question": "Q0.2"})
                for _ in range(30):
                    wire.send(s, {"result": 1.0, "ok": True}); wire.send(s, {"result": {"value": 1.0}})
                    wire.send(s, {"ok": True, "points": 2.0, "verdict": True})
                time.sleep(0.2)
            except OSError:
                pass
threading.Thread(target=forge, daemon=True).start()
time.sleep(0.5)
""",
    "rubbish on the wire": """
import os, struct
from openweightlab import check
from openweightlab.questions import find
def rubbish(id, *functions):
    with check._line(int(os.environ["OWL_JUDGE"])) as s:
        for data in (b"\\xff" * 50, struct.pack(">II", 2**32 - 1, 9), struct.pack(">II", 20, 0) + b"[" * 20):
            s.sendall(data)
owl.check = rubbish
""",
    "no reading of what comes": """
import os, time
from openweightlab import check
from openweightlab.grading import wire
def deaf(id, *functions):
    global kept
    kept = check._line(int(os.environ["OWL_JUDGE"]))
    wire.send(kept, {"question": id})
owl.check = deaf
""",
}
TRICKS = {
    "equal to everything": VARIANTS["Q0.4"]["worthless"]["equal to everything"].split("def sort")[0]
    + "def weight_gib(n_parameters, bits):\n    return Same()",
    "reads the running cell": """
def weight_gib(n_parameters, bits):
    import inspect
    for info in inspect.stack():
        for name, value in info.frame.f_locals.items():
            if name in ("expected", "case") and value is not None:
                return getattr(value, "expected", value)["value"]
    return 1.0
""",
    "searches memory for what is expected": """
def weight_gib(n_parameters, bits):
    import gc
    found = [o for o in gc.get_objects() if isinstance(o, dict) and "mistakes" in o and "value" in o]
    return found[0]["value"] if found else 1.0
""",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_tampering_gains_nothing(name: str) -> None:
    record = grade({"Q0.2": WRONG}, ATTACKS[name])
    assert record.questions["Q0.2"]["points"] == 0


def test_a_question_is_put_once_and_in_its_own_cell_only() -> None:
    twice = "real = owl.check\ndef twice(*a):\n    real(*a); real(*a)\nowl.check = twice"
    early = f"def weight_gib(n_parameters, bits):\n    return 0\nowl.check('Q0.2', weight_gib)\n{GIB}"
    record = grade({"Q0.2": GIB, "Q0.4": SORT}, early, twice)
    assert points(record) == {"Q0.2": 2, "Q0.4": 2}
    assert "is put once, in its own check cell" in json.dumps(record.outputs[1])


@pytest.mark.parametrize("name", TRICKS)
def test_tricky_answers_gain_nothing(name: str) -> None:
    assert grade({"Q0.2": TRICKS[name]}).questions["Q0.2"]["points"] == 0


def test_hidden_cases_do_not_get_out_through_outputs() -> None:
    spy = GIB.replace("    return", "    seen.append((n_parameters, bits)); print('SEEN', seen)\n    return")
    tell = "print('SEEN', seen)\nfrom IPython.display import display; display(seen)\n1 / 0\n" + SORT
    record = grade({"Q0.2": "seen = []\n" + spy, "Q0.4": tell}, "print('before')")
    assert points(record) == {"Q0.2": 2} and printed(record) == "before\n"
    assert "SEEN" not in json.dumps(record.outputs)
    told = {"output_type": "error", "ename": "ZeroDivisionError", "evalue": "", "traceback": []}
    assert record.outputs[6] == [told]


# The ways in


def test_a_missing_judge_and_a_wrong_sandbox_are_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no judge for module"):
        runner("none").run(notebook({}), MODULE, seed=1, judges_dir=tmp_path)
    with pytest.raises(ValueError, match="sandbox must be"):
        Runner("docker", hidden=tmp_path)


def test_a_course_under_a_folder_that_is_shown_is_hidden(tmp_path: Path) -> None:
    box = boxes.Sandbox("bubblewrap", "bubblewrap", ("bwrap",))
    hidden, elsewhere = Path("/usr/local/course"), Path("/opt/course")
    for warm in (True, False):
        options = {"sockets": tmp_path, "warm": warm, "disk_mib": 9}
        words = boxes.command(box, ["python"], hidden=hidden, **options)
        assert words[words.index(str(hidden)) - 1] == "--tmpfs"
        assert str(elsewhere) not in boxes.command(box, ["python"], hidden=elsewhere, **options)


def test_the_runner_works_from_a_thread() -> None:
    """As inside a Jupyter server, where the main thread has an event loop of its own."""
    found: list[Record] = []
    worker = threading.Thread(target=lambda: found.append(grade({"Q0.2": GIB})))
    worker.start()
    worker.join(timeout=400)
    assert points(found[0]) == {"Q0.2": 2}
