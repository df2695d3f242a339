"""Records: what came of grading one submission, written whole, under a key of all that the marks depend on.

"Done" means that a record is there. A record that is damaged or cut off counts as none.
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from . import sandbox as boxes
from .course import Course
from .normalise import Normalised
from .run import Limits, Record, versions

PACKAGE = Path(__file__).resolve().parents[1]
FORMAT = 1  # of the files and of the key
GRACE_SECONDS = 300  # beyond the notebook's own limit, before a run itself is given up


@dataclass(frozen=True)
class Task:
    """One submission to be graded: everything that its record depends on."""

    course: Course
    module: str
    student: str
    submission: Normalised
    sandbox: str = "auto"
    limits: Limits = field(default_factory=Limits)

    @cached_property
    def key(self) -> str:
        """SHA-256 of the submission, the judge, the questions, seed, limits, sandbox and versions."""
        parts = {
            "format": FORMAT,
            "cells": _cells(self.submission.notebook),
            "cannot be run": [self.submission.status, self.submission.reason],
            "sources": _sources(self.course.judges_dir, self.module),
            "seed": self.course.seed(),
            "limits": asdict(self.limits),
            "sandbox": boxes.choose(self.sandbox).name,
            "versions": versions(),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def path(self) -> Path:
        """Where the record is kept."""
        return self.course.store / "records" / self.module / self.student / f"{self.key[:32]}.json"


def _cells(notebook: NotebookNode) -> list[Any]:
    marks = ("grade_id", "grade", "solution", "points")
    return [
        [cell.cell_type, cell.source, [cell.metadata.get("nbgrader", {}).get(mark) for mark in marks]]
        for cell in notebook.cells
    ]


@cache
def _sources(judges_dir: Path, module: str) -> str:
    """One hash of the judge, the module's questions, and the code and models that marks come from."""
    ours = [
        *(
            path
            for path in judges_dir.glob("*.py")
            if path.stem == module or not re.match(r"\d\d_", path.stem)
        ),
        *(path for path in (PACKAGE / "questions").glob("*.py") if not re.match(r"m\d\d_", path.stem)),
        *(PACKAGE / name for name in ("check.py", "models.py", f"questions/m{module}.py")),
        *(
            PACKAGE / "grading" / f"{name}.py"
            for name in ("run", "judge", "wire", "kernel", "launch", "outputs")
        ),
        *(PACKAGE / "pocket" / "weights").glob("*/*"),
    ]
    hashes = [
        f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in ours if path.is_file()
    ]
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def load(path: Path) -> Record | None:
    """A record, or None where there is none or what is there is not whole."""
    try:
        kept = json.loads(path.read_text("utf-8"))
        return Record(**kept["record"]) if kept["sha256"] == digest(kept["record"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(path: Path, record: Record) -> None:
    """Write a record whole: to a temporary file, to the disk, then under its name."""
    body = asdict(record)
    write_whole(path, json.dumps({"sha256": digest(body), "record": body}, sort_keys=True, indent=1))


def write_whole(path: Path, text: str) -> None:
    """Write a file so that whoever reads it sees the old text or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def digest(record: Record | dict[str, Any]) -> str:
    """SHA-256 of a record's content."""
    body = asdict(record) if isinstance(record, Record) else record
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def obtain(task: Task, *, fresh: bool = False) -> Record:
    """The submission's record: the one kept, else (or if `fresh`) from a run, which is then kept.

    A run that the machine failed (flag "infrastructure") is kept too, yet made again next time.
    """
    path = task.path
    kept = None if fresh else load(path)
    if kept and "infrastructure" not in kept.flags:
        return kept
    record = judge(task) if not task.submission.status else ungraded(task)
    save(path, record)
    return record


def ungraded(task: Task, status: str = "", reason: str = "", flags: tuple[str, ...] = ()) -> Record:
    """Zero points, with the reason, for what can't be run."""
    status, reason = status or task.submission.status, reason or task.submission.reason
    points = {
        cell.metadata.nbgrader.grade_id: float(cell.metadata.nbgrader.points)
        for cell in task.submission.notebook.cells
        if cell.metadata.get("nbgrader", {}).get("grade") and not cell.metadata.nbgrader.get("solution")
    }
    questions = {
        id: {"points": 0.0, "max_points": most, "error": reason, "cases": []} for id, most in points.items()
    }
    outputs: list[list[dict[str, Any]]] = [[] for _ in task.submission.notebook.cells]
    common = {"seed": task.course.seed(), "versions": versions(), "flags": list(flags), "outputs": outputs}
    return Record(task.module, status, reason, questions, **common)  # type: ignore[arg-type]


def judge(task: Task) -> Record:
    """Run a submission in a process of its own, whose event loop or crash is nobody else's matter."""
    with tempfile.TemporaryDirectory(prefix="owl-") as folder:
        given, made = Path(folder, "in.json"), Path(folder, "out.json")
        order = {
            "notebook": task.submission.notebook,
            "module": task.module,
            "seed": task.course.seed(),
            "limits": asdict(task.limits),
            "sandbox": task.sandbox,
            "judges_dir": str(task.course.judges_dir),
            "cases_dir": str(task.course.store / "cases"),
        }
        given.write_text(json.dumps(order), "utf-8")
        trouble = _call(
            [sys.executable, "-m", f"{__package__}.run", str(given), str(made)], folder, task.limits
        )
        try:
            return Record(**json.loads(made.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            reason = f"the grader itself failed, this is not the student's fault: {trouble}"
            return ungraded(task, "crashed", reason, ("infrastructure",))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a run to clean up and end; make it, if it won't."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _call(command: list[str], folder: str, limits: Limits) -> str:
    """Run the judging process to its end; what it said last, when that is of interest."""
    path = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(path)}
    with open(Path(folder, "log"), "w+b") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            code = process.wait(limits.notebook_seconds * limits.max_stretch + GRACE_SECONDS)
            said = f"exit status {code}"
        except subprocess.TimeoutExpired:
            said = "it did not end"
        finally:
            _end(process)
        log.seek(max(0, log.tell() - 2000))
        lines = log.read().decode("utf-8", errors="replace").strip().splitlines()
    return f"{said}; {lines[-1][:300]}" if lines else said
