"""The grading part of `make bench`: classes of real submissions, by `owl grade` and by stock nbgrader.

The submissions are the modules' notebooks with answers from tests/mutants/, as a class would hand them in.
What must not share a process with the rest is a job of its own: `python env/bench_grading.py JOB ...`.
"""

import copy
import json
import os
import random
import runpy
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode, v4

ROOT = Path(__file__).resolve().parent.parent
SEED = 4711
MIX = {"reference": 8, "rival": 4, "partial": 4, "worthless": 3, "stub": 1}  # of 20 answers
LARGEST, LIGHTEST = "01_moe", "00_workbench"
CLASS, SAMPLE, CROWD, SPREAD = 40, 8, 1000, 24  # submissions: see `measure`
LEARNERS = 100_000
JOBS = 2
HEAVY_CELL = """
import torch
_generator = torch.Generator().manual_seed(0)
_x = torch.randn(384, 384, generator=_generator) / 20
for _ in range({rounds}):
    _x = torch.tanh(_x @ _x.T) / 20
"""
Class = dict[str, NotebookNode]  # by student


# Classes


def release(folder: str, module: str) -> NotebookNode:
    """A module's notebook, from exercises/ or solutions/."""
    return nbformat.read(ROOT / folder / module / f"{module}.ipynb", as_version=4)


def submissions(module: str, count: int) -> Class:
    """What `count` students hand in: each answer drawn from the known right and wrong ones."""
    variants = runpy.run_path(str(ROOT / "tests" / "mutants" / f"{module}.py"))["VARIANTS"]
    draws, found, blank = random.Random(SEED), {}, release("exercises", module)
    for number in range(count):
        notebook = copy.deepcopy(blank)
        for cell in notebook.cells:
            question = cell.metadata.get("nbgrader", {}).get("grade_id", "").removesuffix("-answer")
            if question in variants and cell.metadata.nbgrader.solution:
                kinds = {kind: weight for kind, weight in MIX.items() if kind in variants[question]}
                (kind,) = draws.choices(list(kinds), list(kinds.values()))
                answer = draws.choice(sorted(variants[question][kind].values()))
                cell.source = f"# {question} answer\n{answer.strip()}"
        found[f"s{number:04d}"] = notebook
    return found


def heavier(notebooks: Class, rounds: int) -> Class:
    """The same with a cell of the student's own that computes, as those of fine-tuning modules will."""
    for notebook in notebooks.values():
        notebook.cells.insert(2, v4.new_code_cell(HEAVY_CELL.format(rounds=rounds)))
    return notebooks


def five_seconds() -> int:
    """How many rounds of HEAVY_CELL take about five seconds of one core here."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    begun = time.perf_counter()
    exec(HEAVY_CELL.format(rounds=200), {})
    rounds = round(200 * 5 / (time.perf_counter() - begun))
    torch.set_num_threads(threads)
    return rounds


def hand_in(notebooks: Class, module: str, submitted: Path) -> None:
    """Write a class's submissions as nbgrader lays them out."""
    for student, notebook in notebooks.items():
        folder = submitted / student / module
        folder.mkdir(parents=True)
        nbformat.write(notebook, folder / f"{module}.ipynb")


def environment() -> dict[str, str]:
    """The environment of a grader: nbgrader's helpers on the path, no network, plots without a window."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "OWL_SEED": str(SEED), "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg"}


def call(root: Path, *command: str) -> float:
    """Seconds that a command takes; raises RuntimeError, with its last words, if it fails."""
    begun = time.perf_counter()
    program = str(Path(sysconfig.get_path("scripts"), command[0]))
    done = subprocess.run(
        [program, *command[1:]], cwd=root, env=environment(), capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} in {root}: {(done.stderr or done.stdout)[-2000:]}")
    return time.perf_counter() - begun


# `owl grade` and stock nbgrader


def make_course(root: Path, notebooks: Class, module: str) -> Path:
    """A fresh course folder with one module and a class's submissions."""
    for folder in ("exercises", "solutions"):
        shutil.copytree(ROOT / folder / module, root / folder / module)
    shutil.copytree(ROOT / "judges", root / "judges", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "nbgrader_config.py", root)
    hand_in(notebooks, module, root / "submitted")
    return root


def owl_grade(root: Path, module: str, *options: str) -> tuple[float, dict[str, dict[str, Any]]]:
    """Seconds that `owl grade` takes for a class, all of it, and its rows by student."""
    order = "owl", "grade", module, "--submissions", "submitted", "--json", "marks.json"
    seconds = call(root, *order, *options)
    rows = json.loads((root / "marks.json").read_text())["submissions"]
    return seconds, {row["student"]: row for row in rows}


def stock(root: Path, notebooks: Class, module: str) -> float:
    """Seconds that stock `nbgrader autograde` takes for a class.

    Default settings throughout. What stock can't take in our notebooks is put right in the copies: the dots
    in grade_ids. Its cells call the public checks, since it knows of no judge.
    """
    for notebook in (source := release("solutions", module), *notebooks.values()):
        for cell in notebook.cells:
            marks = cell.metadata.get("nbgrader", {})
            if "grade_id" in marks:
                marks["grade_id"] = marks["grade_id"].replace(".", "-")
    (root / "source" / module).mkdir(parents=True)
    nbformat.write(source, root / "source" / module / f"{module}.ipynb")
    (root / "nbgrader_config.py").write_text("c = get_config()\nc.CourseDirectory.course_id = 'stock'\n")
    call(root, "nbgrader", "generate_assignment", module)
    hand_in(notebooks, module, root / "submitted")
    seconds = call(root, "nbgrader", "autograde", module)
    graded = list((root / "autograded").glob(f"*/{module}/*.ipynb"))
    assert len(graded) == len(notebooks), "stock nbgrader lost some"
    return seconds


def pure(root: Path, module: str) -> float:
    """Seconds for each submission of a course folder: its code alone, in one warm process; see `run_pure`."""
    command = [sys.executable, __file__, "pure", module, str(root)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    times = json.loads(done.stdout.splitlines()[-1])
    return sum(times) / len(times)


def run_pure(module: str, root: str) -> None:
    """Print, as JSON, the seconds that each submission's cells take here, one after another.

    A check cell's are those of the question's calls on the judge's cases. No kernel, no sandbox, no judging.
    """
    import torch
    from IPython.core.inputtransformer2 import TransformerManager

    from openweightlab import models, questions
    from openweightlab.grading import judge

    torch.set_num_threads(1)
    models.load("pocket-moe"), models.load("pocket-dense")
    known, cases = questions.load(module), judge.draw(ROOT / "judges", module, SEED)
    python, times = TransformerManager().transform_cell, []
    for path in sorted(Path(root, "submitted").glob(f"*/{module}/*.ipynb")):
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        begun, names = time.perf_counter(), {"__name__": "__main__"}
        for cell in cells:
            question = known.get(cell.metadata.get("nbgrader", {}).get("grade_id", ""))
            if question:
                ask(question, cases[question.id], names)
            else:
                exec(compile(python(cell.source), "cell", "exec"), names)
        times.append(time.perf_counter() - begun)
    print(json.dumps(times))


def ask(question: Any, cases: list[Any], names: dict[str, Any]) -> None:
    """Call a student's functions on a question's cases, as a check cell does."""
    from openweightlab.check import answer

    functions = tuple(names[name] for name in question.functions if name in names)
    if len(functions) == len(question.functions):
        for case in cases:
            answer(question, functions, case.inputs)


def throughput(folder: Path, module: str, count: int, rounds: int = 0) -> dict[str, Any]:
    """A class by `owl grade --jobs 2`, against stock nbgrader and against the students' code alone."""
    notebooks = submissions(module, count)
    if rounds:
        heavier(notebooks, rounds)
    seconds, rows = owl_grade(make_course(folder / "owl", notebooks, module), module, "--jobs", str(JOBS))
    assert all(row["status"] == "graded" for row in rows.values()), rows
    few = dict(list(notebooks.items())[:SAMPLE])
    bare = make_course(folder / "pure", few if rounds else notebooks, module)
    each = pure(bare, module)
    found = {
        "submissions": count,
        "sandbox": sorted({row["sandbox"] for row in rows.values()}),
        "owl_grade_s": round(seconds, 1),
        "pure_s_each": round(each, 3),
        "over_pure": round(seconds / (each * count / JOBS), 2),
        "fixed_s_each": round((seconds * JOBS - each * count) / count, 2),
        "peak_mib_each": max(row["peak_mib"] for row in rows.values()),
    }
    if rounds:
        return found
    theirs = stock(folder / "stock", notebooks, module)
    return found | {"stock_s": round(theirs, 1), "times_stock": round(theirs / seconds, 2)}


# A crowd


def crowd(folder: Path, records: list[Path], count: int) -> dict[str, Any]:
    """Memory and time of the grader itself: `count` submissions whose runs are stand-ins.

    The stand-ins answer at once, with the records that a real class had before.
    """
    kept = [json.loads(path.read_text())["record"] for path in records]
    (folder / "records.json").write_text(json.dumps(kept))
    make_course(folder / "course", submissions(LARGEST, count), LARGEST)
    command = [sys.executable, __file__, "crowd", str(folder / "records.json")]
    done = subprocess.run(
        command, cwd=folder / "course", env=environment(), stdout=subprocess.PIPE, text=True, check=True
    )
    sizes, seconds = json.loads(done.stdout.splitlines()[-1])
    rows = json.loads((folder / "course" / "marks.json").read_text())["submissions"]
    assert len(sizes) == len(rows) == count and all(row["status"] == "graded" for row in rows)
    tenth = sizes[count // 10 :]
    return {
        "submissions": count,
        "grader_peak_mib": round(max(sizes)),
        "grader_mib_by_tenths": [round(size) for size in sizes[count // 10 - 1 :: count // 10]],
        "grown_after_a_tenth": round(max(tenth) / tenth[0], 3),
        "grader_s_each": round(seconds / count, 3),
    }


def run_crowd(records: str) -> None:
    """`owl grade` in this process with stand-ins; prints its MiB after each submission, and its seconds."""
    import resource

    from openweightlab import cli
    from openweightlab.grading import pool
    from openweightlab.grading import records as kept

    pool.COMMAND = [sys.executable, __file__, "stand-in", records]
    sizes: list[float] = []
    keep = kept.keep

    def counted(task: kept.Task, done: pool.Done) -> Any:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        sizes.append(pages * resource.getpagesize() / 2**20)
        return keep(task, done)

    kept.keep = counted
    begun = time.perf_counter()
    order = ["grade", LARGEST, "--submissions", "submitted", "--json", "marks.json", "--jobs", str(JOBS)]
    status = cli.main(order)
    assert status == 0, status
    print(json.dumps([sizes, time.perf_counter() - begun]))


def run_stand_in(records: str, folder: str) -> None:
    """A worker (see grading.worker) that answers each order with the next of some records."""
    kept, head, number = json.loads(Path(records).read_text()), struct.Struct("!Q"), 0
    while len(size := sys.stdin.buffer.read(head.size)) == head.size:
        if b'"prepare"' in sys.stdin.buffer.read(*head.unpack(size))[:20]:
            continue
        message = json.dumps({"record": kept[number % len(kept)]}).encode()
        sys.stdout.buffer.write(head.pack(len(message)) + message)
        sys.stdout.buffer.flush()
        number += 1


def projection(each: float, gradebook_each: float) -> dict[str, Any]:
    """What 100,000 learners take for one module, from this machine's seconds for each."""
    return {
        "learners": LEARNERS,
        "core_hours": round(each * JOBS * LEARNERS / 3600),
        "hours_on_100_cores": round(each * JOBS * LEARNERS / 3600 / 100, 1),
        "hours_of_the_one_writer": round(gradebook_each * LEARNERS / 3600, 1),
    }


# Dask


def on_dask(folder: Path, count: int) -> dict[str, Any]:
    """One worker, two workers, and two of which one is killed half-way, each in a folder of its own.

    Raises AssertionError if marks differ from those of a local run.
    """
    sys.path.insert(0, str(ROOT / "tests"))
    import cluster_of_processes as processes

    notebooks = submissions(LIGHTEST, count)
    local = owl_grade(make_course(folder / "local", notebooks, LIGHTEST), LIGHTEST, "--jobs", str(JOBS))[1]
    rates = {}
    for name, workers, dies in (("one", 1, False), ("two", 2, False), ("one dies", 2, True)):
        root = make_course(folder / name, notebooks, LIGHTEST)
        (folder / f"{name} machines").mkdir()
        with processes.Cluster(folder / f"{name} machines") as machines:
            for number in range(workers):
                machines.add(f"worker{number}")
            rates[name], rows = graded_on(machines, root, count, dies)
        assert {s: row["points"] for s, row in rows.items()} == {s: row["points"] for s, row in local.items()}
    return {
        "submissions": count,
        "one_worker_s_each": round(rates["one"], 2),
        "two_workers_s_each": round(rates["two"], 2),
        "two_over_one": round(rates["one"] / rates["two"], 2),
        "one_of_two_killed": "same marks",
    }


def graded_on(machines: Any, root: Path, count: int, dies: bool) -> tuple[float, dict[str, Any]]:
    """Seconds between two submissions, once running, and rows; the first worker may be killed half-way."""
    order = [LIGHTEST, "--submissions", "submitted", "--json", "marks.json"]
    command = [sysconfig.get_path("scripts") + "/owl", "grade", *order, "--scheduler", machines.address]
    with open(root / "log", "w") as log:
        process = subprocess.Popen(command, cwd=root, env=environment(), stdout=log, stderr=log)
    kept = root / ".owl" / "records"
    while process.poll() is None:
        if dies and len(list(kept.rglob("*.json"))) >= count // 2:
            left = machines.kill("worker0")
            assert not left, left
            dies = False
        time.sleep(0.1)
    assert process.returncode == 0 and not dies, (root / "log").read_text()[-2000:]
    ends = sorted(path.stat().st_mtime for path in kept.rglob("*.json"))
    rows = json.loads((root / "marks.json").read_text())["submissions"]
    assert len(ends) == count
    return (ends[-1] - ends[2]) / (count - 3), {row["student"]: row for row in rows}


def measure(scale: float = 1.0) -> dict[str, Any]:
    """All figures; `scale` makes every class smaller, to try whether it runs."""

    def size(count: int) -> int:
        return max(round(count * scale), 4)

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="owl-bench-") as name:
        folder = Path(name)
        for module in (LARGEST, LIGHTEST):
            found[module] = throughput(folder / module, module, size(CLASS))
        found["heavy"] = throughput(folder / "heavy", LARGEST, size(CLASS), five_seconds())
        records = sorted((folder / LARGEST / "owl" / ".owl" / "records").rglob("*.json"))
        (folder / "crowd").mkdir()
        found["crowd"] = crowd(folder / "crowd", records, size(CROWD))
        found["dask"] = on_dask(folder / "dask", size(SPREAD))
    each = found[LARGEST]["owl_grade_s"] / found[LARGEST]["submissions"]
    return found | {"projection": projection(each, found["crowd"]["grader_s_each"])}


RUN: dict[str, Callable[..., None]] = {"pure": run_pure, "crowd": run_crowd, "stand-in": run_stand_in}

if __name__ == "__main__":
    RUN[sys.argv[1]](*sys.argv[2:])
