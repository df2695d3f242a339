"""The trusted side: loads a module's judge, puts hidden cases to the student's process, decides the points.

`python -m openweightlab.grading.judge record MODULE` writes the public cases of a module from its judge's
oracle.
"""

import builtins
import hashlib
import importlib.util
import json
import math
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from ..check import judge_case
from ..questions import Case, Question, Verdict, load
from . import wire

QUESTIONS = Path(__file__).resolve().parents[1] / "questions"
PARTS = 4  # points come in quarters
UNKNOWN = "The result is not the expected one."
NOT_ANSWERED = "Not answered yet."
GRACE_SECONDS = 5.0  # for an interrupt to be heeded
ERRORS = {name for name, kind in vars(builtins).items() if isinstance(kind, type)} | {"OutOfMemoryError"}


def load_judge(judges_dir: Path, module: str) -> ModuleType:
    """The judge's file `judges_dir/<module>.py` as a Python module.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = Path(judges_dir) / f"{module}.py"
    if not path.is_file():
        raise FileNotFoundError(f"There is no judge for module {module!r}: {path} is missing")
    spec = importlib.util.spec_from_file_location(f"owl_judge_{module}", path)
    assert spec and spec.loader
    judge = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(judge)
    return judge


def draw(judges_dir: Path, module: str, seed: int, keep: Path | None = None) -> dict[str, list[Case]]:
    """The hidden cases of a module, from the folder `keep` if they were drawn before.

    What is kept there holds expected results, so the folder must lie out of the students' reach.
    """
    if keep is None:
        return dict(load_judge(judges_dir, module).cases(seed))
    path = keep / f"{module}-{fingerprint(judges_dir, module, seed)}.cases"
    if kept := _kept(path):
        return kept
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone_in(path.parent):
        if kept := _kept(path):  # another process drew them meanwhile
            return kept
        drawn = dict(load_judge(judges_dir, module).cases(seed))
        write_whole(path, wire.pack({id: [asdict(case) for case in cases] for id, cases in drawn.items()}))
        return drawn


def _kept(path: Path) -> dict[str, list[Case]] | None:
    """The cases in a file, or None where there are none or it is damaged."""
    try:
        kept = wire.read(path.read_bytes(), trusted=True)
        return {id: [Case(**case) for case in cases] for id, cases in kept.items()}
    except (FileNotFoundError, wire.WireError, TypeError):
        return None


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes waiting that come here for the same folder."""
    import fcntl  # nothing is graded where there is none

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def fingerprint(judges_dir: Path, module: str, seed: int) -> str:
    """A name for all that the drawn cases depend on."""
    sources = [Path(judges_dir) / f"{module}.py", *sorted(QUESTIONS.glob("*.py"))]
    digest = hashlib.sha256(f"{seed} {versions()}".encode())
    for source in sources:
        digest.update(source.read_bytes() if source.is_file() else b"")
    return digest.hexdigest()[:16]


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a mark may depend on."""
    found = {"python": platform.python_version()}
    for name in ("openweightlab", "torch", "transformers", "ipykernel"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a reader finds all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def score(question: Question, cases: list[Case], verdicts: list[Verdict]) -> float:
    """Points for a question: the share of cases passed, rounded down to quarters; 0 while a core case fails.

    A case without a verdict counts as failed.
    """
    passed = [verdict.ok for verdict in verdicts] + [False] * (len(cases) - len(verdicts))
    if not all(ok for case, ok in zip(cases, passed, strict=True) if case.core):
        return 0.0
    return math.floor(sum(passed) * question.points * PARTS / len(cases)) / PARTS


def verdict(question: Question, case: Case, reply: Any, own_lines: frozenset[str] = frozenset()) -> Verdict:
    """The verdict on one reply of `check.answer`, of which nothing is taken on trust."""
    if not isinstance(reply, dict):
        return Verdict(False, "", UNKNOWN)
    if set(reply) == {"result"}:
        return judge_case(question, case, reply["result"])
    if "error" in reply:
        return Verdict(False, "", _raised(reply, own_lines))
    return Verdict(False, "", "The result is not made of numbers, strings, lists, dicts or tensors.")


def _raised(reply: dict[str, Any], own_lines: frozenset[str]) -> str:
    """An exception in words; its own text could carry a hidden input, so only kind and line are told."""
    kind, line = reply["error"], reply.get("line")
    if not isinstance(kind, str) or kind not in ERRORS:
        kind = "an exception"
    if kind == "NotImplementedError":
        return NOT_ANSWERED
    at = f" in your line `{line}`" if isinstance(line, str) and line in own_lines else ""
    return f"It raised {kind}{at}."


@dataclass
class Outcome:
    """What one question's check cell has shown so far."""

    verdicts: list[Verdict] = field(default_factory=list)
    error: str = ""
    finished: bool = False
    too_long: int = 0  # cases that were to be interrupted
    stuck: bool = False  # one of them was not to be


@dataclass
class Server:
    """Puts one question's cases, over a line of their own, to the process that runs its check cell.

    `offer` hands the process its end of the line. A case may take `case_seconds`, all of them the time up to
    `deadline` (of `time.monotonic()`). `wants_interrupt` is set when a case takes too long: whoever owns the
    kernel interrupts it and clears the event.
    """

    question: Question
    cases: list[Case]
    offer: Callable[[socket.socket], None]
    case_seconds: float
    deadline: float
    own_lines: frozenset[str] = frozenset()
    outcome: Outcome = field(default_factory=Outcome)
    wants_interrupt: threading.Event = field(default_factory=threading.Event)
    _closed: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Server":
        self._line, theirs = socket.socketpair()
        with theirs:
            self.offer(theirs)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        with suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)  # whatever the thread waits for on it ends
        self._thread.join()
        self._line.close()

    def _run(self) -> None:
        try:
            hello = self._receive(self._line, max(self.deadline - time.monotonic(), 0.0))
            if isinstance(hello, dict) and hello.get("question") == self.question.id:
                self._serve(self._line)
        except (OSError, wire.WireError):
            pass
        with suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)  # nobody waits for more

    def _serve(self, connection: socket.socket) -> None:
        try:
            for case in self.cases:
                self.outcome.verdicts.append(self._put(connection, case))
            self.outcome.finished = True
            wire.send(connection, {"said": "answered"})
        except TimeoutError:
            self.outcome.stuck = True
            self.outcome.error = "The answer took too long and could not be interrupted."
        except wire.WireError as error:
            self.outcome.error = f"What the check sent could not be read: {error}."
        except OSError:
            if not self.outcome.finished:
                self.outcome.error = "The answer ended before all of its cases were done."

    def _put(self, connection: socket.socket, case: Case) -> Verdict:
        """The verdict on one case, interrupted when it takes too long; after two such the rest is skipped."""
        seconds = min(self.case_seconds, self.deadline - time.monotonic())
        if self.outcome.too_long == 2 or seconds <= 0:
            return Verdict(False, "", "Not run: the cases before took too long.")
        wire.send(connection, {"inputs": case.inputs})
        try:
            return verdict(self.question, case, self._receive(connection, seconds), self.own_lines)
        except TimeoutError:
            self.outcome.too_long += 1
            self.wants_interrupt.set()
            self._receive(connection, GRACE_SECONDS)
            return Verdict(False, "", "It took too long and was stopped.")

    def _receive(self, connection: socket.socket, seconds: float) -> Any:
        """One message within that time, less when the check cell is over meanwhile."""
        deadline = time.monotonic() + seconds
        while True:
            connection.settimeout(0.1)
            try:
                if not connection.recv(1, socket.MSG_PEEK):
                    raise ConnectionError
                return wire.receive(connection, deadline)
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise
                if self._closed.is_set():
                    raise ConnectionError from None


def mark(question: Question, cases: list[Case], outcome: Outcome) -> dict[str, Any]:
    """One question's entry in the record; points only if all of its cases were put."""
    verdicts = outcome.verdicts
    causes = {verdict.cause for verdict in verdicts}
    error = outcome.error or ("" if outcome.finished else "Its check did not run.")
    if causes == {NOT_ANSWERED}:
        error = NOT_ANSWERED
    rows = [
        {"label": case.label, "ok": verdict.ok, "message": "" if verdict.ok else verdict.cause or UNKNOWN}
        for case, verdict in zip(cases, verdicts, strict=False)
    ]
    points = score(question, cases, verdicts) if outcome.finished else 0.0
    return {"points": points, "max_points": float(question.points), "error": error or None, "cases": rows}


def record(judges_dir: Path, module: str, into: Path) -> None:
    """Write a module's public cases: `<module>.json`, and its tensors beside it."""
    from safetensors.torch import save

    tensors: dict[str, Any] = {}
    public = load_judge(judges_dir, module).public()
    tree = {id: [wire.to_json(asdict(case), tensors) for case in public[id]] for id in load(module)}
    into.mkdir(parents=True, exist_ok=True)
    (into / f"{module}.json").write_text(json.dumps(tree, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (into / f"{module}.safetensors").write_bytes(save(tensors))


def main(arguments: list[str]) -> int:
    """`record MODULE [JUDGES_DIR]`: JUDGES_DIR is `judges` unless given."""
    if len(arguments) < 2 or arguments[0] != "record":
        print("Usage: python -m openweightlab.grading.judge record MODULE [JUDGES_DIR]", file=sys.stderr)
        return 2
    judges_dir = Path(arguments[2] if len(arguments) > 2 else "judges")
    record(judges_dir, arguments[1], QUESTIONS / "cases")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
