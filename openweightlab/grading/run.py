"""Run one submission in a sandboxed kernel while the judge, on the trusted side, gives the points."""

import json
import math
import os
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from nbformat import NotebookNode

from ..questions import Case, Question, load
from . import judge as judging
from . import sandbox as boxes
from .judge import versions
from .kernel import Kernel
from .outputs import Collector
from .start import Starter, StartError


@dataclass(frozen=True)
class Limits:
    """What one submission may use; times in seconds, memory in MiB."""

    cell_seconds: float = 60.0
    case_seconds: float = 20.0  # one hidden case, or less where the question says so
    notebook_seconds: float = 600.0
    cpu_seconds: float = 1200.0  # of processor time, all of its processes together
    memory_mib: int = 4096
    disk_mib: int = 512
    processes: int = 64
    output_bytes: int = 1_000_000  # of a whole notebook, kept in the record
    cells: int = 500
    threads: int = 1
    max_stretch: float = 10.0  # on a busy machine, times grow with its load per core, up to so much


@dataclass
class Record:
    """What came of one submission; plain JSON throughout (`Record(**json.loads(text))` restores it).

    status: graded | timeout | crashed | unreadable | missing; timeout and crashed keep the points of what
    finished. questions: {"Q0.1": {"points", "max_points", "error": str | None, "cases": [{"label", "ok",
    "message"}]}}; labels
        and messages are words that a student may read: no hidden input, no expected value. Ordinary
        nbgrader test cells appear under their grade_id with "weak": True.
    flags: "no-sandbox", "oversized-output", "weak-tests", "infrastructure" (not the student's fault: run
    it again). outputs: one list of nbformat outputs for each cell of the notebook that was run, sanitised
    (text and PNG only)
        and capped; empty for markdown cells and for check cells. After the first hidden case was put,
        only cells that are marked by hand keep their outputs, of the others only the kind of an error
        stays.
    """

    module: str
    status: str = "graded"
    reason: str = ""
    questions: dict[str, dict[str, Any]] = field(default_factory=dict)
    manual_pending: float = 0.0
    seconds: float = 0.0
    peak_mib: float = 0.0
    sandbox: str = ""
    flags: list[str] = field(default_factory=list)
    seed: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    outputs: list[list[dict[str, Any]]] = field(default_factory=list)

    @property
    def points(self) -> float:
        """Points given by the judge, written questions not counted."""
        return float(sum(question["points"] for question in self.questions.values()))

    def to_json(self) -> str:
        """The record as JSON text, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True, indent=1)


class Runner:
    """Runs submissions, one after another, behind the same walls, from one warm start.

    Args:
        sandbox: "auto" (the strongest level that works), a level's name (that or none), "none".
        hidden: a folder that students' code must not see, such as the course's.
        warm: whether to import once what all of them import; the first run may wait for that.

    Raises:
        RuntimeError: the sandbox asked for doesn't work, or this system has no unix sockets.
    """

    def __init__(self, sandbox: str = "auto", *, hidden: Path, warm: bool = True) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise RuntimeError("Grading needs Linux or macOS; on Windows, use it inside WSL")
        self.box = boxes.choose(sandbox)
        if self.box.walls == "landlock" and boxes.shows(hidden):
            raise RuntimeError(f"{hidden} lies where every program may read; move the course elsewhere")
        self._drawn: object = None
        self._starter = Starter(self.box, Path(hidden).resolve(), warm)

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self._starter.__exit__()

    def run(
        self,
        notebook: NotebookNode,
        module: str,
        *,
        seed: int,
        judges_dir: Path,
        limits: Limits = Limits(),
        cases_dir: Path | None = None,
    ) -> Record:
        """Execute a normalised notebook, cell by cell, and score it.

        Args:
            judges_dir: folder with `<module>.py`, the trusted side.
            cases_dir: where drawn cases are kept, so that a class's submissions need not each draw them anew.

        Raises:
            FileNotFoundError, ValueError: there is no such judge or module.
        """
        start = time.monotonic()
        self.draw(module, seed, judges_dir, cases_dir)
        record = Record(module, sandbox=self.box.name, seed=seed, versions=versions())
        with _Run(notebook, record, self._cases, self._starter, limits) as running:
            running.grade()
        record.seconds = round(time.monotonic() - start, 2)
        return record

    def draw(self, module: str, seed: int, judges_dir: Path, cases_dir: Path | None = None) -> None:
        """Have the cases of a module at hand, as `run` does where they are not; the same errors."""
        drawn = module, judging.fingerprint(judges_dir, module, seed)
        if self._drawn != drawn:
            self._drawn, self._cases = drawn, judging.draw(judges_dir, module, seed, cases_dir)


class _Run:
    """One submission's run: its kernel, its judge, and the record that they fill."""

    def __init__(
        self,
        notebook: NotebookNode,
        record: Record,
        cases: dict[str, list[Case]],
        starter: Starter,
        limits: Limits,
    ) -> None:
        self.cells, self.record, self.cases = notebook.cells, record, cases
        self.starter, self.limits = starter, limits
        self.questions = load(record.module)
        self.deadline = time.monotonic() + limits.notebook_seconds * self._stretch()
        self.left = [limits.output_bytes]
        self.finished: list[int] = []  # cells to run again should the kernel be lost
        self.restarts = 0
        self.put = False  # whether the student's process has seen a hidden case
        self.broken: dict[str, str] = {}  # errors that cells ended with, by their source
        self.kernel: Kernel | None = None
        lines = (line.strip() for cell in self.cells for line in cell.source.splitlines())
        self.own_lines = frozenset(line[:200] for line in lines)
        record.outputs = [[] for _ in self.cells]
        record.manual_pending = sum((_points(c) for c in self.cells if _is_written(c)), 0.0)

    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.kernel:
            self._close_kernel()

    def grade(self) -> None:
        """Fill the record: every question gets an entry, whatever happens."""
        self.record.flags += [] if self.starter.box.isolated else ["no-sandbox"]
        if len(self.cells) > self.limits.cells:
            self._end("crashed", f"The notebook has more than {self.limits.cells} cells.")
        elif self._start_kernel():
            self._run_cells()
        self._fill_missing()

    # The kernel

    def _start_kernel(self) -> bool:
        """Whether there is a kernel that answers."""
        complaint = ""
        try:
            self.kernel = Kernel(self.starter, self.limits)
            if self.kernel.wait_ready():
                return True
            complaint = self.kernel.complaint
        except StartError as error:
            complaint = str(error)
        self.record.flags.append("infrastructure")
        self._end("crashed", f"The kernel did not start. {complaint}".strip())
        return False

    def _close_kernel(self) -> None:
        assert self.kernel
        self.record.peak_mib = round(max(self.record.peak_mib, self.kernel.peak_mib), 1)
        self.kernel.close()
        self.kernel = None

    def _restart(self) -> bool:
        """A fresh kernel in which every cell that had finished has run again; False when it can't be had."""
        self._close_kernel()
        self.restarts += 1
        if self.restarts > len(self.questions) + 1 or time.monotonic() > self.deadline:
            return False
        if not self._start_kernel():
            return False
        silent = Collector([0])
        return all(self._execute(index, silent) in ("ok", "error", "timeout") for index in self.finished)

    # The cells

    def _run_cells(self) -> None:
        for index, cell in enumerate(self.cells):
            if cell.cell_type != "code" or not cell.source.strip():
                continue
            if time.monotonic() > self.deadline:
                self._end("timeout", "The notebook's time was up.")
                return
            how = self._check_cell(index) if _grade_id(cell) in self.questions else self._plain_cell(index)
            if how in ("hung", "dead"):
                if not self._restart():
                    return
            elif _grade_id(cell) not in self.questions:
                self.finished.append(index)

    def _execute(self, index: int, collector: Collector, tick: Any = lambda: "", extra: float = 0.0) -> str:
        assert self.kernel
        how = self.kernel.execute(self.cells[index].source, self._cell_deadline() + extra, collector, tick)
        if how in ("timeout", "hung"):
            self._end("timeout", f"Cell {index + 1} ran longer than its time and was stopped.")
        elif how == "dead":
            self._end("crashed", f"Cell {index + 1} ended the kernel. {self.kernel.trouble}".strip())
        return how

    def _cell_deadline(self) -> float:
        return min(time.monotonic() + self.limits.cell_seconds * self._stretch(), self.deadline)

    def _stretch(self) -> float:
        """How much longer than on an idle machine things may take now."""
        return min(max(os.getloadavg()[0] / (os.cpu_count() or 1), 1.0), self.limits.max_stretch)

    def _plain_cell(self, index: int) -> str:
        collector = Collector(self.left)
        how = self._execute(index, collector)
        self.record.outputs[index] = self._showable(index, collector)
        if collector.error in judging.ERRORS:
            self.broken[self.cells[index].source] = collector.error
        if collector.cut and "oversized-output" not in self.record.flags:
            self.record.flags.append("oversized-output")
        if _is_ordinary_test(self.cells[index]):
            self._ordinary_test(index, how, collector)
        return how

    def _showable(self, index: int, collector: Collector) -> list[dict[str, Any]]:
        """A cell's outputs; once a hidden case was put only an error's kind, lest a print hand that case on.

        Cells that are marked by hand keep theirs: they are what there is to mark.
        """
        if not self.put or _is_written(self.cells[index]):
            return collector.outputs
        if collector.error not in judging.ERRORS:
            return []
        return [{"output_type": "error", "ename": collector.error, "evalue": "", "traceback": []}]

    def _check_cell(self, index: int) -> str:
        id = _grade_id(self.cells[index])
        question, collector = self.questions[id], Collector([100_000])
        assert self.kernel
        server = judging.Server(
            question,
            self.cases[id],
            self.kernel.offer,
            case_seconds=min(question.seconds, self.limits.case_seconds) * self._stretch(),
            deadline=self._cell_deadline(),
            own_lines=self.own_lines,
        )

        def tick() -> str:
            if server.outcome.stuck:
                return "kill"
            wanted = server.wants_interrupt.is_set()
            server.wants_interrupt.clear()
            return "interrupt" if wanted else ""

        with server:
            how = self._execute(index, collector, tick, extra=2 * judging.GRACE_SECONDS)
        if server.outcome.too_long:
            self._end("timeout", f"{id} ran longer than its time and was stopped.")
        self.put = self.put or bool(server.outcome.verdicts)
        entry = judging.mark(question, self.cases[id], server.outcome)
        if not server.outcome.finished:
            entry["error"] = self._why_not(question, how, collector.error) or entry["error"]
        self.record.questions.setdefault(id, entry)
        return how

    def _why_not(self, question: Question, how: str, error: str) -> str:
        """Why a check did not come to its end, as far as the trusted side can tell."""
        assert self.kernel
        if how == "dead":
            return f"The answer ended the kernel. {self.kernel.trouble}".strip()
        if how in ("timeout", "hung"):
            return "The answer ran longer than its time."
        if error in ("NameError", "CheckError"):
            names = " and ".join(question.functions)
            why = self._broken_answer(question.id)
            return f"Nothing to check: {names} is not defined as a function. {why}".strip()
        return ""

    def _broken_answer(self, id: str) -> str:
        """What the answer cell ended with, if that was an error."""
        answers = (cell.source for cell in self.cells if _nbgrader(cell).get("grade_id") == f"{id}-answer")
        errors = [self.broken[source] for source in answers if source in self.broken]
        return f"The answer cell ended with {errors[-1]}." if errors else ""

    def _ordinary_test(self, index: int, how: str, collector: Collector) -> None:
        """An instructor's own test cell, scored as nbgrader does; only stderr costs nothing here."""
        cell, maximum = self.cells[index], _points(self.cells[index])
        points = 0.0
        if how == "ok" and not collector.error:
            points = _partial(collector.outputs, maximum)
        error = "" if points == maximum else f"The test ended with {collector.error or how}."
        self.record.questions[_grade_id(cell)] = _weak(cell, points, error)
        if "weak-tests" not in self.record.flags:
            self.record.flags.append("weak-tests")

    # The record

    def _end(self, status: str, reason: str) -> None:
        """Note what broke the run off; the first thing counts."""
        if self.record.status == "graded":
            self.record.status, self.record.reason = status, reason

    def _fill_missing(self) -> None:
        """Zero points, with the reason, for every question whose check did not run."""
        present = {_grade_id(cell) for cell in self.cells if cell.cell_type == "code"}
        for id, question in self.questions.items():
            why = self.record.reason if id in present else "Its check cell is missing."
            missing = judging.mark(question, [], judging.Outcome(error=why or "Its check did not run."))
            self.record.questions.setdefault(id, missing)
        for cell in filter(_is_ordinary_test, self.cells):
            self.record.questions.setdefault(_grade_id(cell), _weak(cell, 0.0, self.record.reason))
        order = [*self.questions, *(id for id in self.record.questions if id not in self.questions)]
        self.record.questions = {id: self.record.questions[id] for id in order}


def _nbgrader(cell: NotebookNode) -> dict[str, Any]:
    found = cell.get("metadata", {}).get("nbgrader", {})
    return found if isinstance(found, dict) else {}


def _grade_id(cell: NotebookNode) -> str:
    """The id of a graded cell, an empty string for any other."""
    marks = _nbgrader(cell)
    return str(marks.get("grade_id", "")) if marks.get("grade") and not marks.get("solution") else ""


def _points(cell: NotebookNode) -> float:
    return float(_nbgrader(cell).get("points") or 0)


def _is_written(cell: NotebookNode) -> bool:
    marks = _nbgrader(cell)
    return bool(marks.get("grade") and marks.get("solution"))


def _is_ordinary_test(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(_grade_id(cell)) and not _grade_id(cell).startswith("Q")


def _weak(cell: NotebookNode, points: float, error: str) -> dict[str, Any]:
    """The record's entry for an ordinary test cell, which ran inside the student's own process."""
    entry = {"points": points, "max_points": _points(cell), "error": error or None}
    return entry | {"cases": [], "weak": True}


def _partial(outputs: list[dict[str, Any]], maximum: float) -> float:
    """Full points, or the number that the test cell shows as its result, kept within 0 and the maximum."""
    results = [output for output in outputs if output["output_type"] == "execute_result"]
    if not results:
        return maximum
    try:
        shown = float(results[0]["data"].get("text/plain", ""))
    except ValueError:
        return maximum
    return min(max(shown, 0.0), maximum) if math.isfinite(shown) else 0.0
