"""Records: what came of grading one submission, written whole, under a key of all that the marks depend on.

"Done" means that a record is there. A record that is damaged or cut off counts as none.
"""

import hashlib
import json
import os
import re
import tempfile
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from .course import Course
from .normalise import Normalised
from .pool import Done, Order, Setting, run_here, unmarked
from .run import Limits, Record, versions

PACKAGE = Path(__file__).resolve().parents[1]
FORMAT = 2  # of the files and of the key
TIMES = ("seconds", "peak_mib")  # what differs when the same submission is run again


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
    def parts(self) -> dict[str, Any]:
        """What the marks depend on; of the sandbox only whether one is wanted, not which a machine has."""
        return {
            "format": FORMAT,
            "cells": _hash(_cells(self.submission.notebook)),
            "cannot be run": [self.submission.status, self.submission.reason],
            "sources": _sources(self.course.judges_dir, self.module),
            "seed": self.course.seed(),
            "limits": asdict(self.limits),
            "sandbox": "none" if self.sandbox == "none" else "auto",
            "versions": versions(),
        }

    @cached_property
    def key(self) -> str:
        """SHA-256 of all that the marks depend on."""
        return _hash(self.parts)

    @property
    def path(self) -> Path:
        """Where the record is kept."""
        return folder_of(self.course, self.module, self.student) / f"{self.key[:32]}.json"

    @property
    def order(self) -> Order:
        """The task as plain data, for a worker."""
        return Order(
            student=self.student,
            key=self.key,
            notebook=self.submission.notebook,
            limits=asdict(self.limits),
            **setting(self.course, self.module, self.sandbox),
        )


def setting(course: Course, module: str, sandbox: str) -> Setting:
    """What the orders of all tasks of a module have in common."""
    return Setting(
        module=module,
        seed=course.seed(),
        sandbox=sandbox,
        judges_dir=str(course.judges_dir),
        cases_dir=str(course.store / "cases"),
    )


def folder_of(course: Course, module: str, student: str) -> Path:
    """Where a student's records for a module are kept."""
    return course.store / "records" / module / student


def _hash(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


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
            for name in ("run", "judge", "wire", "kernel", "forkserver", "confine", "outputs")
        ),
        *(PACKAGE / "pocket" / "weights").glob("*/*"),
    ]
    hashes = [
        f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in ours if path.is_file()
    ]
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def load(path: Path) -> Record | None:
    """A record, or None where there is none or what is there is not whole."""
    return _load(path)[0]


def audit(path: Path) -> dict[str, Any]:
    """What is kept beside a record, for whoever must answer for a mark; {} where there is no whole record.

    "key" and "parts" (what it is a hash of: seed, limits, versions, hashes of judge and questions), "answers"
    (the student's cells as they were run), "flags" of the hand-in, and of the run "machine", "pid",
    "started", "ended", "troubles" and "log" (see pool.Done).
    """
    return _load(path)[1]


def _load(path: Path) -> tuple[Record | None, dict[str, Any]]:
    try:
        kept = json.loads(path.read_text("utf-8"))
        if kept["sha256"] == digest(kept["record"]):
            return Record(**kept["record"]), dict(kept["audit"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None, {}


def save(path: Path, record: Record, about: dict[str, Any] | None = None) -> None:
    """Write a record whole: to a temporary file, to the disk, then under its name; `about` is its audit."""
    body = asdict(record)
    kept = {"sha256": digest(body), "record": body, "audit": about or {}}
    write_whole(path, json.dumps(kept, sort_keys=True, indent=1))


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
    return _hash(asdict(record) if isinstance(record, Record) else record)


def canonical(record: Record) -> bytes:
    """A record's content without its times: the same bytes whenever the same submission is run.

    >>> once, again = Record("01_moe", seconds=2.5, peak_mib=700.0), Record("01_moe", seconds=3.1)
    >>> canonical(once) == canonical(again)
    True
    """
    body = {name: value for name, value in asdict(record).items() if name not in TIMES}
    return json.dumps(body, sort_keys=True, indent=1).encode()


def kept(task: Task) -> Record | None:
    """The task's record, if it is there and not of a run that the machine failed."""
    record = load(task.path)
    return record if record and "infrastructure" not in record.flags else None


def keep(task: Task, done: Done) -> Record:
    """Write down what came of a task, with its audit; the task's record.

    A run that the machine failed (flag "infrastructure") never takes a record's place.
    """
    found = kept(task) if "infrastructure" in done.record.flags else None
    if found:
        return found
    answers = {
        cell.metadata.nbgrader.grade_id: cell.source
        for cell in task.submission.notebook.cells
        if cell.metadata.get("nbgrader", {}).get("solution")
    }
    about = {"key": task.key, "parts": task.parts, "answers": answers, "flags": task.submission.flags}
    save(task.path, done.record, about | done.audit)
    return done.record


def obtain(task: Task, *, fresh: bool = False) -> Record:
    """The submission's record: the one kept, else (or if `fresh`) from a run here, which is then kept."""
    found = None if fresh else kept(task)
    if found:
        return found
    return keep(
        task, Done(task.order, ungraded(task), {}) if task.submission.status else run_here(task.order)
    )


def ungraded(task: Task, status: str = "", reason: str = "", flags: tuple[str, ...] = ()) -> Record:
    """Zero points, with the reason, for what can't be run."""
    status, reason = status or task.submission.status, reason or task.submission.reason
    notebook, seed = task.submission.notebook, task.course.seed()
    return unmarked(notebook, task.module, seed, status, reason, list(flags))
