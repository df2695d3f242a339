"""Run one submission in a sandboxed kernel while the judge, on the trusted side, gives the points."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nbformat import NotebookNode


@dataclass(frozen=True)
class Limits:
    """What one submission may use; times in seconds, memory in MiB."""

    cell_seconds: float = 60.0
    notebook_seconds: float = 600.0
    memory_mib: int = 4096
    processes: int = 64
    output_bytes: int = 1_000_000  # of a whole notebook, kept in the record
    cells: int = 500
    threads: int = 1


@dataclass
class Record:
    """What came of one submission; plain JSON throughout (`Record(**json.loads(text))` restores it).

    status: graded | timeout | crashed | unreadable | missing; timeout and crashed keep the points of what finished.
    questions: {"Q0.1": {"points", "max_points", "error": str | None, "cases": [{"label", "ok", "message"}]}}; labels and messages
        are words that a student may read: no hidden input, no expected value. Ordinary nbgrader test cells appear under
        their grade_id with "weak": True.
    outputs: one list of nbformat outputs for each cell of the notebook that was run, sanitised (text and PNG only) and
        capped; empty for markdown cells and for check cells.
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
        return sum(question["points"] for question in self.questions.values())

    def to_json(self) -> str:
        """The record as JSON text, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True, indent=1)


def run(
    notebook: NotebookNode,
    module: str,
    *,
    seed: int,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    sandbox: str = "auto",
    judges_dir: Path,
    workdir: Path | None = None,
) -> Record:
    """Execute a normalised notebook, cell by cell, and score it.

    Args:
        sandbox: "auto" (bubblewrap where it works), "bubblewrap" (or raise), "none".
        judges_dir: folder with `<module>.py`, the trusted side.
        workdir: where temporary files go; a fresh temporary folder unless given.
    """
    raise RuntimeError("being written")


# As a subprocess: `python -m openweightlab.grading.run IN.json OUT.json`, where IN.json holds
# {"notebook": nbformat dict, "module": str, "seed": int, "limits": {..}, "sandbox": str, "judges_dir": str, "workdir": str | null}
# (limits, sandbox and workdir may be absent) and OUT.json is written whole (temporary file, rename).
# Exit 0 when OUT.json was written, whatever the marks.
