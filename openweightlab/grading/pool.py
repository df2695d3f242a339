"""Executors: they have submissions run, several at a time, and hand out each record as soon as it is there.

`owl grade` knows no more of them than `Executor`: `LocalPool` works on this machine, `cluster.DaskCluster` on
others. Both leave the work to `Worker`, a process that has its imports behind it and runs one submission
after another. nbgrader's own commands share one such worker (`run_here`).
"""

import atexit
import json
import os
import platform
import queue
import secrets
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, Self, TypedDict

from .judge import versions
from .run import Limits, Record

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", f"{__package__}.worker"]
HEAD = struct.Struct("!Q")  # before each message: its length in bytes
MOST_BYTES = 2**28  # of an answer
TRIES = 3
GRACE_SECONDS = 300.0  # beyond the notebook's own limit, for imports, cases and clearing up
END_SECONDS = 20.0  # for a worker to end all that it started, before it is killed
IDLE_SECONDS = 60.0  # after which the shared worker ends
LOG_BYTES = 8000  # of what a worker said, kept with the record
AHEAD = 2  # orders under way for each worker: one that it runs, one that is ready


class Setting(TypedDict):
    """What all of a class's submissions to a module have in common; plain JSON data."""

    module: str
    seed: int
    sandbox: str  # "auto" or "none"
    judges_dir: str
    cases_dir: str  # where drawn cases are kept; out of the students' reach


class Order(Setting):
    """One submission to be run: plain JSON data, which may go to another process or machine."""

    student: str
    key: str  # records.Task.key: what the record will be kept under
    notebook: dict[str, Any]  # nbformat, normalised
    limits: dict[str, Any]  # those of run.Limits


class Done(NamedTuple):
    """What came of an order.

    audit: what is no part of the marks, yet may be asked for: "machine", "pid" (of the worker), "started" and
    "ended" (UTC), "troubles" (why each lost try was lost) and "log" (the last that the run had to say).
    """

    order: Order
    record: Record
    audit: dict[str, Any]


class Executor(Protocol):
    """Has orders run. A context manager: at its end nothing that it started is left.

    An order that could not be run (its machine failed, again and again) comes back with the record of
    `failed`, and never holds up others.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def run(self, orders: Iterable[Order]) -> Iterator[Done]:
        """Each order once with its record, in the order in which they are done.

        Orders are taken one at a time, in the caller's thread, and only a few more of them than are being
        run, so that a class of any size fits in memory.

        Raises:
            CourseError: nothing can be run any more, such as when the scheduler is gone.
        """
        ...

    def close(self) -> list[Done]:
        """End all that runs; what was done by then and not yet handed out. Nothing can be run after."""
        ...


def failed(order: Order, trouble: str) -> Record:
    """Zero points and the flag "infrastructure" for what the machine failed to run; it is run again."""
    reason = f"the grader itself failed, this is not the student's fault: {trouble}"
    return unmarked(order["notebook"], order["module"], order["seed"], "crashed", reason, ["infrastructure"])


def unmarked(
    notebook: Any, module: str, seed: int, status: str, reason: str, flags: list[str] | None = None
) -> Record:
    """A record without a run: zero points for each question, with the reason."""
    questions = {
        mark["grade_id"]: {"points": 0.0, "max_points": float(mark["points"]), "error": reason, "cases": []}
        for mark in (cell["metadata"].get("nbgrader", {}) for cell in notebook["cells"])
        if mark.get("grade") and not mark.get("solution")
    }
    outputs: list[list[dict[str, Any]]] = [[] for _ in notebook["cells"]]
    return Record(
        *(module, status, reason, questions),
        seed=seed,
        versions=versions(),
        flags=flags or [],
        outputs=outputs,
    )


class Trouble(Exception):
    """A worker died, hangs, or answered what is no answer; says which."""


class Closed(Exception):
    """The worker was closed, so what it was asked for won't come."""


class Worker:
    """The client of one worker process, which starts at the first need and anew when it has failed.

    For use in one thread; only `close` may be called from another.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (what it says; closed in close)
        self._folder = ""  # the process's temporary files
        self._closed = False
        self._starting, self._working = threading.Lock(), threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> subprocess.Popen[bytes]:
        """The process; where it must be started, this doesn't wait for its imports.

        Raises:
            Closed: the worker was closed before.
        """
        with self._starting:
            if self._closed:
                raise Closed
            if not self._process:
                self._folder = f"{tempfile.gettempdir()}/owl-{secrets.token_hex(4)}"
                self._process = _start(self._folder, self._log)
            return self._process

    def prepare(self, setting: Setting) -> None:
        """Start the process, which gets ready for such orders; doesn't wait for that."""
        with self._working, suppress(Trouble, OSError):  # the first order meets the same, and can say so
            _send(self.start(), {"prepare": setting}, time.monotonic() + END_SECONDS)

    def grade(self, order: Order) -> Done:
        """Have one order run: up to three times in all should the worker fail or the kernel die.

        A kernel's death may be the student's doing or the machine's, which runs out of memory, say; what
        happens twice is taken for the student's.

        Raises:
            Closed: the worker was closed, before or meanwhile.
        """
        audit: dict[str, Any] = {"machine": platform.node(), "started": _now(), "troubles": []}
        with self._working:
            for _ in range(TRIES):
                record, trouble = self._try(order, audit)
                died = record.status == "crashed" and "infrastructure" not in record.flags
                if died and record.reason not in audit["troubles"]:
                    trouble = record.reason
                if not trouble:
                    break
                audit["troubles"].append(trouble)
        return Done(order, record, audit | {"ended": _now()})

    def _try(self, order: Order, audit: dict[str, Any]) -> tuple[Record, str]:
        """A record, and what was wrong with the worker, if that was so; it is ended then."""
        try:
            process = self.start()
            audit["pid"] = process.pid
            self._log.seek(0)  # for the process, too
            self._log.truncate()
            record = _ask(process, order)
            audit["log"] = _end_of(self._log)
            return record, ""
        except (Trouble, OSError) as error:
            audit["log"] = _end_of(self._log)
            self._end()
            if self._closed:
                raise Closed from None
            last = audit["log"].strip().splitlines()[-1:]
            trouble = "; ".join([str(error), *(line[:300] for line in last)])
            return failed(order, trouble), trouble
        except BaseException:
            self._end()  # what it still answers is nobody's any more
            raise

    def _end(self) -> None:
        process, self._process = self._process, None
        if process:
            _stop(process)
            for pipe in (process.stdin, process.stdout):
                assert pipe
                pipe.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """End the process with all that it started; a `grade` under way raises Closed."""
        self._closed = True
        with self._starting:
            process = self._process
        if process:
            _stop(process)
        with self._working:
            self._end()
            self._log.close()


def _start(folder: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """A worker process in its own session, out of a terminal's reach."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [*COMMAND, folder],
        bufsize=0,
        env={**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
    )
    assert process.stdin
    os.set_blocking(process.stdin.fileno(), False)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a worker to end all that it started and itself; make it, if it won't."""
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ask(process: subprocess.Popen[bytes], order: Order) -> Record:
    """A worker's record for an order, that of `failed` where the run raised something.

    Raises:
        Trouble: no answer can be had from this process.
    """
    limits = Limits(**order["limits"])
    deadline = time.monotonic() + limits.notebook_seconds * limits.max_stretch + GRACE_SECONDS
    _send(process, order, deadline)
    (size,) = HEAD.unpack(_read(process, HEAD.size, deadline))
    if size > MOST_BYTES:
        raise Trouble("it answered rubbish")
    try:
        answer = json.loads(_read(process, size, deadline))
        return Record(**answer["record"]) if "record" in answer else failed(order, str(answer["error"]))
    except (ValueError, KeyError, TypeError):
        raise Trouble("it answered rubbish") from None


def _send(process: subprocess.Popen[bytes], plain: Any, deadline: float) -> None:
    assert process.stdin
    message = json.dumps(plain).encode()
    rest = memoryview(HEAD.pack(len(message)) + message)
    try:
        while rest:
            _await(process.stdin, selectors.EVENT_WRITE, deadline)
            rest = rest[os.write(process.stdin.fileno(), rest) :]
    except BrokenPipeError:
        raise Trouble(_how_it_ended(process)) from None


def _read(process: subprocess.Popen[bytes], size: int, deadline: float) -> bytes:
    assert process.stdout
    data = bytearray()
    while len(data) < size:
        _await(process.stdout, selectors.EVENT_READ, deadline)
        part = os.read(process.stdout.fileno(), min(size - len(data), 2**20))
        if not part:
            raise Trouble(_how_it_ended(process))
        data += part
    return bytes(data)


def _await(pipe: IO[bytes], event: int, deadline: float) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, event)
        if not selector.select(max(deadline - time.monotonic(), 0)):
            raise Trouble("it did not answer in time")


def _how_it_ended(process: subprocess.Popen[bytes]) -> str:
    try:
        status = process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        return "it answers no more"
    return f"it was ended by signal {-status}" if status < 0 else f"it ended with exit status {status}"


def _end_of(log: IO[bytes]) -> str:
    """The last part of a log, read without moving the place where its writer goes on."""
    size = os.fstat(log.fileno()).st_size
    return os.pread(log.fileno(), LOG_BYTES, max(size - LOG_BYTES, 0)).decode("utf-8", "replace")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class LocalPool:
    """An Executor on this machine: so many threads, each of which asks a worker process of its own.

    With `ahead`, the setting of all orders, workers get ready at once instead of at their first order.
    """

    def __init__(self, jobs: int, ahead: Setting | None = None) -> None:
        self.jobs, self._ahead = jobs, ahead
        self._threads = ThreadPoolExecutor(jobs)
        self._workers = [Worker() for _ in range(jobs)]
        self._free: queue.LifoQueue[Worker] = queue.LifoQueue()  # first those that have their imports
        self._running: set[Future[Done]] = set()
        for worker in self._workers:
            self._free.put(worker)

    def __enter__(self) -> Self:
        if self._ahead:
            for worker in self._workers:
                worker.prepare(self._ahead)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, orders: Iterable[Order]) -> Iterator[Done]:
        """Each order once with its record, in the order in which they are done; see Executor."""
        for order in orders:
            self._running.add(self._threads.submit(self._grade, order))
            yield from self._finished(None if len(self._running) >= AHEAD * self.jobs else 0)
        while self._running:
            yield from self._finished(None)

    def _grade(self, order: Order) -> Done:
        worker = self._free.get()
        try:
            return worker.grade(order)
        finally:
            self._free.put(worker)

    def _finished(self, seconds: float | None) -> Iterator[Done]:
        for future in wait(self._running, seconds, FIRST_COMPLETED).done:
            self._running.discard(future)
            yield future.result()

    def close(self) -> list[Done]:
        """End the workers with all that they started; what was done and not yet handed out."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with ThreadPoolExecutor(self.jobs) as closing:
            list(closing.map(Worker.close, self._workers))
        self._threads.shutdown()
        done = [future for future in self._running if not (future.cancelled() or future.exception())]
        self._running.clear()
        return [future.result() for future in done]


class _Here:
    """One worker for all of this process, kept for a while in case there is more to do."""

    def __init__(self) -> None:
        self._worker = Worker()
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def grade(self, order: Order) -> Done:
        with self._lock:
            if self._timer:
                self._timer.cancel()
            try:
                return self._worker.grade(order)
            finally:
                self._timer = threading.Timer(IDLE_SECONDS, self.end)
                self._timer.daemon = True
                self._timer.start()

    def end(self) -> None:
        with self._lock:
            self._worker.close()
            self._worker = Worker()


_here = _Here()
atexit.register(_here.end)


def run_here(order: Order) -> Done:
    """Have one order run by the worker that all of this process shares; it ends after a minute without work.

    So a command such as `nbgrader autograde`, which grades one by one, pays for the imports once.
    """
    return _here.grade(order)
