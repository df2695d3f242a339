"""`owl grade --scheduler ADDRESS`: submissions are run by the machines of an existing Dask cluster.

A Dask worker never runs a student's code: it hands each submission to a process of its own (`pool.Worker`).
Machines share no disk: a parcel carries the notebook, the judge's sources and the drawn cases, so the network
must be trusted or encrypted (`tls://`, Dask's own settings). Nothing of it gets into Dask's logs.
"""

import contextlib
import hashlib
import json
import logging
import multiprocessing
import queue
import re
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from . import judge as judging
from . import sandbox as boxes
from .course import CourseError
from .pool import AHEAD, Done, Order, Worker, failed
from .run import Record

try:
    from distributed import Client, Future, KilledWorker, Security, get_worker
except ImportError:
    raise CourseError(
        "--scheduler needs Dask: call `make test` once, or install the kit's extra `cluster`"
    ) from None

PACKAGE = Path(__file__).resolve().parents[1]
CONNECT_SECONDS = 20.0  # to reach the scheduler, at first or again
PATIENCE_SECONDS = 180.0  # without any worker there
TRIES = 2  # of an order; Dask gives one up after the loss of several machines
IDLE_SECONDS = 60.0  # after which a warm process on a worker's machine ends


# What travels, and what runs where it arrives


@dataclass(frozen=True, repr=False)
class Parcel:
    """A submission with all that its run needs. Its repr, which Dask may log, says nothing of that."""

    order: str  # as JSON
    judge: dict[str, str]  # source files by name
    cases_name: str
    cases: bytes
    versions: dict[str, str]  # of the grader's machine

    def unpack(self, folder: str) -> Order:
        """The order, for a worker's private folder that has the files now."""
        judges, cases = Path(folder, "judges"), Path(folder, "cases")
        for place in (judges, cases):
            place.mkdir()
        for name, source in self.judge.items():
            (judges / name).write_text(source, "utf-8")
        (cases / self.cases_name).write_bytes(self.cases)
        return json.loads(self.order) | {"judges_dir": str(judges), "cases_dir": str(cases)}


def here() -> dict[str, str]:
    """What marks depend on at this machine: versions, and the kit's files as one hash."""
    return {**judging.versions(), "the kit's files": _kit()}


@cache
def _kit() -> str:
    files = [*PACKAGE.rglob("*.py"), *(PACKAGE / "pocket" / "weights").glob("*/*")]
    hashes = (f"{f.relative_to(PACKAGE)} {hashlib.sha256(f.read_bytes()).hexdigest()}" for f in files)
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()[:12]


def unfit(wanted: dict[str, str], sandbox: str) -> str:
    """Why this machine can't grade for one with those versions, in words; empty if it can."""
    found = here()
    if found != wanted:
        names = [name for name in wanted if wanted[name] != found.get(name)]
        differ = ", ".join(f"{name} is {found.get(name)} there and {wanted[name]} here" for name in names)
        return f"{differ}; marks must not depend on the machine, so install the same there"
    try:
        boxes.choose(sandbox)
    except RuntimeError as error:
        return str(error)
    return ""


def work(parcel: Parcel) -> str:
    """One submission, on a Dask worker: its record as JSON. Raises nothing: Dask would log it."""
    try:
        order = json.loads(parcel.order)
        reason = unfit(parcel.versions, order["sandbox"])
        if reason:
            return json.dumps({"unfit": f"{get_worker().address}: {reason}"})
        with tempfile.TemporaryDirectory(prefix="owl-", dir=get_worker().local_directory) as folder:
            done = _grade(parcel.unpack(folder))
        return json.dumps({"record": asdict(done.record), "audit": done.audit})
    except Exception as error:
        return json.dumps({"trouble": f"{type(error).__name__}: {error}"[:500]})


_resting: dict[Worker, threading.Timer] = {}  # warm processes of this Dask worker without work
_working: dict[str, Worker] = {}  # by the key of their order
_guard = threading.Lock()


def _grade(order: Order) -> Done:
    """Have a warm process grade; one that is there, else a new one."""
    with _guard:
        worker, timer = _resting.popitem() if _resting else (Worker(), None)
        _working[order["key"]] = worker
    if timer:
        timer.cancel()
    try:
        return worker.grade(order)
    finally:
        with _guard:
            stopped = _working.pop(order["key"], None) is None
        if not stopped:
            _rest(worker)


def _rest(worker: Worker) -> None:
    """Keep a worker for the next submission, for a while."""
    timer = threading.Timer(IDLE_SECONDS, _retire, [worker])
    timer.daemon = True
    with _guard:
        _resting[worker] = timer
    timer.start()


def _retire(worker: Worker) -> None:
    with _guard:
        idle = _resting.pop(worker, None) is not None
    if idle:
        worker.close()


def stop(keys: list[str]) -> None:
    """On a Dask worker: end the runs of these orders, and all that they started."""
    with _guard:
        workers = [_working.pop(key) for key in keys if key in _working]
    for worker in workers:
        threading.Thread(target=worker.close).start()


# The grader's side


@dataclass
class Sent:
    """An order on its way, and what went wrong with it so far."""

    order: Order
    future: Future
    troubles: list[str]


class DaskCluster:
    """An Executor (see pool.py) on the workers that a Dask scheduler has."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._sent: dict[str, Sent] = {}  # by the task's key, which tells nothing
        self._suspects: list[tuple[Order, list[str]]] = []  # to be sent again, each alone, at the end
        self._ended: queue.SimpleQueue[str] = queue.SimpleQueue()  # keys of tasks that came to an end
        self._seen = 0.0  # when there last was a worker
        self._threads, self._counted = 0, 0.0

    def __enter__(self) -> Self:
        """Find the scheduler and wait for workers.

        Raises:
            CourseError: there is no scheduler, or it has no worker for a long while.
        """
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is told in our words
        if not re.fullmatch(r"(tcp|tls)://.+:\d+", self.address):
            raise CourseError(f"--scheduler {self.address}: give it as tcp://HOST:PORT or tls://HOST:PORT")
        if self.address.startswith("tls:") and not Security().get_connection_args("client")["ssl_context"]:
            raise CourseError(
                f"{self.address} wants certificates, and Dask's configuration on this machine names none "
                "(distributed.comm.tls.client); docs/cluster.md says more"
            )
        try:
            self._client = Client(self.address, timeout=CONNECT_SECONDS, set_as_default=False)
        except OSError as error:
            raise CourseError(f"No Dask scheduler answers at {self.address}: {_words(error)}") from error
        try:
            self._await_workers()
        except BaseException:
            self._client.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, orders: Iterable[Order]) -> Iterator[Done]:
        """Each order once with its record, in the order in which they are done; see Executor."""
        coming = iter(orders)
        order = next(coming, None)
        if order:
            self._check(order["sandbox"])
        while order or self._sent or self._suspects:
            while order and len(self._sent) < AHEAD * self._count_threads():
                self._send(order, [])
                order = next(coming, None)
            if not self._sent and self._suspects:
                self._send(*self._suspects.pop())
            done = self._next()
            if done:
                yield done

    def close(self) -> list[Done]:
        """Call back all that is on its way; what was done by then and not yet handed out."""
        done = []
        with contextlib.suppress(queue.Empty, CourseError):
            while self._client.status == "running":
                done.append(self._take(self._ended.get_nowait()))
        if self._sent and self._client.status == "running":
            with contextlib.suppress(OSError):
                self._client.cancel([sent.future for sent in self._sent.values()])
                self._client.run(stop, list(self._sent), on_error="ignore")
        self._sent.clear()
        self._client.close()
        return [one for one in done if one]

    # Workers

    def _await_workers(self) -> None:
        self._seen = time.monotonic()
        if not self._count_threads():
            print(f"{self.address} has no worker yet; waiting for one", file=sys.stderr)
        while not self._count_threads():
            time.sleep(0.5)

    def _count_threads(self) -> int:
        """Threads of all workers, as far as known; raises CourseError when there was none for long."""
        now = time.monotonic()
        if self._client.status == "running" and (not self._threads or now > self._counted + 2):
            with contextlib.suppress(OSError):
                self._threads, self._counted = sum(self._client.nthreads().values()), now
        if self._threads:
            self._seen = now
        elif now > self._seen + PATIENCE_SECONDS:
            raise CourseError(
                f"The Dask scheduler at {self.address} has no worker. Start some, e.g. with "
                f"`dask worker {self.address}`, and call again; what is graded is kept"
            )
        return self._threads

    def _check(self, sandbox: str) -> None:
        """Raise CourseError, with the reasons, if a worker would not grade as this machine does."""
        found = self._client.run(unfit, here(), sandbox, on_error="return")
        reasons = [
            f"{address}: {reason if isinstance(reason, str) else 'the kit does not start: ' + _words(reason)}"
            for address, reason in found.items()
            if reason
        ]
        if reasons:
            raise CourseError("Not every worker can grade. " + "; ".join(reasons))

    # Orders

    def _send(self, order: Order, troubles: list[str]) -> None:
        key = f"owl-{uuid.uuid4().hex}"
        nameless = order | {"student": "", "key": key, "judges_dir": "", "cases_dir": ""}
        hidden = _hidden(order["judges_dir"], order["module"], order["seed"], order["cases_dir"])
        parcel = Parcel(json.dumps(nameless), *hidden, here())
        future = self._client.submit(work, parcel, key=key, pure=False)
        self._sent[key] = Sent(order, future, troubles)
        future.add_done_callback(lambda ended: self._ended.put(ended.key))

    def _next(self) -> Done | None:
        try:
            return self._take(self._ended.get(timeout=1))
        except queue.Empty:
            self._await_scheduler()
            return None

    def _take(self, key: str) -> Done | None:
        """What came of a task that ended; None when it has been sent again."""
        sent = self._sent.pop(key, None)
        if sent is None:
            return None
        answer = self._answer(sent.future)
        if "unfit" in answer:
            raise CourseError(f"A worker that came later can't grade. {answer['unfit']}")
        if "record" in answer:
            audit = answer["audit"]
            audit["troubles"] = [*sent.troubles, *audit["troubles"]]
            return Done(sent.order, Record(**answer["record"]), audit)
        troubles = [*sent.troubles, answer["trouble"]]
        if len(troubles) < TRIES:
            if "suspect" in answer:
                self._suspects.append((sent.order, troubles))
            else:
                self._send(sent.order, troubles)
            return None
        audit = {"machine": self.address, "tries": len(troubles), "troubles": troubles}
        return Done(sent.order, failed(sent.order, troubles[-1]), audit)

    def _answer(self, future: Future) -> dict[str, Any]:
        """A task's answer, or in words why Dask has none."""
        try:
            return json.loads(future.result(timeout=CONNECT_SECONDS))
        except CancelledError:
            self._await_scheduler()
            return {"trouble": "the scheduler lost it"}
        except KilledWorker as error:  # either it ends its workers, or it was queued behind one that does
            return {"trouble": _words(error), "suspect": True}
        except Exception as error:  # whatever else Dask has to say
            return {"trouble": _words(error)}

    def _await_scheduler(self) -> None:
        """Wait while Dask tries to reach the scheduler again; raise CourseError when it has given up."""
        while self._client.status == "connecting":
            time.sleep(0.2)
        if self._client.status != "running":
            raise CourseError(
                f"The Dask scheduler at {self.address} is gone. What is graded is kept: "
                "start one, and call again"
            )


@cache
def _hidden(judges_dir: str, module: str, seed: int, cases_dir: str) -> tuple[dict[str, str], str, bytes]:
    """The judge's source files, and the drawn cases as a file's name and content."""
    judges = Path(judges_dir)
    path = Path(cases_dir) / f"{module}-{judging.fingerprint(judges, module, seed)}.cases"
    if not path.is_file():  # drawing takes the models' libraries, which had better not stay in this process
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as elsewhere:
            elsewhere.submit(_draw, judges, module, seed, Path(cases_dir)).result()
    files = (f for f in judges.glob("*.py") if f.stem == module or not re.match(r"\d\d_", f.stem))
    return {file.name: file.read_text("utf-8") for file in files}, path.name, path.read_bytes()


def _draw(judges_dir: Path, module: str, seed: int, cases_dir: Path) -> None:
    judging.draw(judges_dir, module, seed, cases_dir)


def _words(error: BaseException) -> str:
    """An error as one short line."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:300]}" if said else type(error).__name__
