"""A small stock nbgrader course (0.9.6, default settings, its own gradebook), graded with attackers in it.

One question of 5 points: a visible test of 2 and a hidden one of 3, in locked cells. Used as people do: by
nbgrader's command line, in a process whose home is a temporary folder.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
from attacks import LEAKY, SCRIPT, STOPPERS, VARIANTS, Variant
from class_of_submissions import program
from nbformat import NotebookNode, v4

ASSIGNMENT, NOTEBOOK = "ps1", "p1"
RIGHT = "def square(x):\n    return x * x"
CELLS = [
    ("square", {"solution": True}, f"### BEGIN SOLUTION\n{RIGHT}\n### END SOLUTION"),
    ("visible", {"grade": True, "locked": True, "points": 2}, "assert square(2) == 4"),
    (
        "hidden",
        {"grade": True, "locked": True, "points": 3},
        "assert callable(square)\n### BEGIN HIDDEN TESTS\nassert square(-3) == 9\n### END HIDDEN TESTS",
    ),
]


@dataclass
class Stock:
    """The course's folder and the home of whoever grades it."""

    root: Path
    home: Path

    def call(self, *arguments: str) -> subprocess.CompletedProcess:
        """One nbgrader command."""
        path = os.pathsep.join([str(Path(program("nbgrader")).parent), os.environ["PATH"]])
        env = {**os.environ, "PATH": path, "HOME": str(self.home)}
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
            env.pop(name, None)
        command = [program("nbgrader"), *arguments]
        return subprocess.run(command, cwd=self.root, env=env, capture_output=True, text=True, timeout=1200)

    def submit(self, student: str, notebook: NotebookNode) -> Path:
        """Write a submission; its folder."""
        folder = self.root / "submitted" / student / ASSIGNMENT
        folder.mkdir(parents=True)
        (folder / f"{NOTEBOOK}.ipynb").write_text(json.dumps(notebook), "utf-8")
        return folder

    def release(self, answer: str | None = None) -> NotebookNode:
        """The notebook that students get, with an answer if one is given."""
        notebook = nbformat.read(self.root / "release" / ASSIGNMENT / f"{NOTEBOOK}.ipynb", as_version=4)
        notebook.cells[0].source = answer or notebook.cells[0].source
        return notebook

    def marks(self) -> dict[str, float]:
        """Points by student, of those who have a mark."""
        query = (
            "select a.student_id, sum(coalesce(g.manual_score, g.auto_score)) from grade g "
            "join submitted_notebook n on n.id = g.notebook_id "
            "join submitted_assignment a on a.id = n.assignment_id group by a.student_id"
        )
        with sqlite3.connect(self.root / "gradebook.db") as database:
            return {student: marks for student, marks in database.execute(query) if marks is not None}


def make(folder: Path) -> Stock:
    """A fresh course with its assignment released."""
    stock = Stock(folder / "course", folder / "home")
    source = stock.root / "source" / ASSIGNMENT
    source.mkdir(parents=True)
    stock.home.mkdir()
    (stock.root / "nbgrader_config.py").write_text(
        "c = get_config()\nc.CourseDirectory.course_id = 'stock'\n"
    )
    plain = {"schema_version": 3, "grade": False, "solution": False, "locked": False, "task": False}
    cells = [
        v4.new_code_cell(text, metadata={"nbgrader": plain | marks | {"grade_id": id}})
        for id, marks, text in CELLS
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(
        v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), source / f"{NOTEBOOK}.ipynb"
    )
    done = stock.call("generate_assignment", ASSIGNMENT)
    assert done.returncode == 0, done.stderr[-2000:]
    return stock


def attacked(stock: Stock, variant: Variant) -> NotebookNode:
    """The released notebook with the variant's trick in it."""
    words = {"ROOT": str(stock.root), "STUDENT": variant.id}
    notebook = stock.release(variant.answer("square", **words))
    variant.edit(notebook)
    return notebook


def outcomes(folder: Path) -> dict[str, str]:
    """What stock nbgrader gave and did, by variant and leak, in the words of `Variant.stock`."""
    stock = make(folder)
    stock.submit("A00 right", stock.release(RIGHT))
    stock.submit("Z99 unanswered", stock.release())
    for variant in VARIANTS:
        place = stock.submit(variant.id, attacked(stock, variant))
        for name, text in variant.files.items():
            (place / name).write_text(text)
    leaky = stock.release(f"{LEAKY}\n{RIGHT}")
    (stock.submit("L01", leaky) / "notes.txt").symlink_to(
        stock.root / "source" / ASSIGNMENT / f"{NOTEBOOK}.ipynb"
    )
    said = stock.call("autograde", ASSIGNMENT).stderr
    _wait_for_the_late_one(stock)
    marks = stock.marks()
    assert marks["A00 right"] == 5, said[-3000:]
    got = {v.id: f"{marks[v.id]:g}" if v.id in marks else "not graded" for v in VARIANTS}
    got["Z14"] += f"; the next, unanswered: {marks['Z99 unanswered']:g}"
    return got | _leaks(stock) | _stops(stock)


def _wait_for_the_late_one(stock: Stock) -> None:
    """Until the process that A12 left behind has done its work, or clearly won't."""
    deadline = time.monotonic() + 15
    while stock.marks().get("A12", 0) == 0 and time.monotonic() < deadline:
        time.sleep(0.2)


def _leaks(stock: Stock) -> dict[str, str]:
    """What a feedback page gives away, and how much of a long output is kept."""
    done = stock.call("generate_feedback", ASSIGNMENT, "--student=L01")
    folder = stock.root / "feedback" / "L01" / ASSIGNMENT
    page, linked = (folder / f"{NOTEBOOK}.html").read_text(), folder / "notes.txt"
    assert done.returncode == 0, done.stderr[-2000:]
    size = (stock.root / "autograded" / "L01" / ASSIGNMENT / f"{NOTEBOOK}.ipynb").stat().st_size
    return {
        "L01": "runs" if SCRIPT in page else "does not run",
        "L02": "shown" if "-3" in page else "not shown",
        "L03": "handed out" if linked.exists() and "BEGIN SOLUTION" in linked.read_text() else "not there",
        "L04": "kept whole" if size > 10**7 else "cut",
    }


def _stops(stock: Stock) -> dict[str, str]:
    """Whether somebody behind a submission that nbgrader can't take is still graded."""
    got = {}
    for id, change in STOPPERS.items():
        notebook = stock.release(RIGHT)
        change(notebook)
        stock.submit(id, notebook)
        stock.submit(f"{id}z", stock.release(RIGHT))
        stock.call("autograde", ASSIGNMENT)
        got[id] = "go on" if f"{id}z" in stock.marks() else "stop"
        shutil.rmtree(stock.root / "submitted" / id)
    return got
