"""A trusted process that stays: `python -m openweightlab.grading.worker FOLDER` runs submissions.

From the second on, the imports are behind it. Orders (pool.Order) are read from standard input and
answered on standard output, {"record": ...} or {"error": "..."}; before each message comes its length, and
what anything else prints goes to standard error. {"prepare": ...}, with a pool.Setting, says what orders will
want, and has no answer. It ends, with all that it started, at the end of its input, which comes with the end
of whoever started it. It makes FOLDER for its temporary files, and removes it.
"""

import json
import logging
import os
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, NoReturn

import nbformat

from . import sandbox as boxes
from .pool import END_SECONDS, HEAD, Order, Setting
from .processes import tree
from .run import Limits, Record, Runner

log = logging.getLogger(__name__)


class Bench:
    """Keeps the warm start of one order for the next, while they want the same sandbox."""

    def __init__(self) -> None:
        self._runner: Runner | None = None
        self._made_for: object = None

    def run(self, order: Order) -> Record:
        """An order's record; raises what Runner and its methods raise."""
        return self._runner_for(order).run(
            nbformat.from_dict(order["notebook"]),
            order["module"],
            seed=order["seed"],
            judges_dir=Path(order["judges_dir"]),
            limits=Limits(**order["limits"]),
            cases_dir=Path(order["cases_dir"]),
        )

    def prepare(self, setting: Setting) -> None:
        """Start what orders of this setting will want, and draw their cases; raises what `run` raises."""
        judges, cases = Path(setting["judges_dir"]), Path(setting["cases_dir"])
        self._runner_for(setting).draw(setting["module"], setting["seed"], judges, cases)

    def _runner_for(self, setting: Setting) -> Runner:
        hidden = Path(setting["judges_dir"]).resolve().parent
        wanted = hidden if boxes.shows(hidden) else "in no sandbox anyway", setting["sandbox"]
        if self._runner is None or self._made_for != wanted:
            self.close()
            self._runner = Runner(setting["sandbox"], hidden=hidden)
            self._made_for = wanted
        import torch  # the judge's part, while the warm start has its own imports

        torch.set_num_threads(1)  # each job has one core
        return self._runner

    def close(self) -> None:
        """End the warm start, if there is one."""
        if self._runner:
            self._runner.__exit__()
            self._runner = None


def answer(order: Order, bench: Bench) -> dict[str, Any]:
    """The answer to one order; what the run raises is one, too."""
    started = time.monotonic()
    try:
        record = bench.run(order)
    except Exception as error:
        log.exception("%s: the run failed", order["student"])
        return {"error": f"{type(error).__name__}: {error}"}
    log.info("%s: %s after %.1f s", order["student"], record.status, time.monotonic() - started)
    return {"record": asdict(record)}


def _read(source: IO[bytes], messages: queue.SimpleQueue[Any]) -> None:
    """Read messages up to the end of the input, which ends this process."""
    while len(head := source.read(HEAD.size)) == HEAD.size:
        messages.put(json.loads(source.read(HEAD.unpack(head)[0])))
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(END_SECONDS)
    os._exit(1)  # the run doesn't heed the signal, and nobody is left to see to it


def _own_output() -> IO[bytes]:
    """Standard output, for answers alone: whatever prints goes to standard error from now on."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def main(arguments: list[str]) -> int:
    """Answer orders until the input ends, and this process with it."""
    if len(arguments) != 1:
        print("Usage: python -m openweightlab.grading.worker FOLDER", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    answers, messages = _own_output(), queue.SimpleQueue[Any]()
    os.mkdir(arguments[0], 0o700)  # so it is nobody else's
    tempfile.tempdir = arguments[0]
    status = 0
    try:
        threading.Thread(target=_read, args=(sys.stdin.buffer, messages), daemon=True).start()
        _serve(messages, answers)
    except Exception:
        log.exception("the worker failed")
        status = 1
    except SystemExit:  # by the signal that says that it is no longer needed
        pass
    finally:
        for pid in tree(os.getpid())[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(arguments[0], ignore_errors=True)
        os._exit(status)  # the thread that reads would hold up Python's own way out


def _serve(messages: queue.SimpleQueue[Any], answers: IO[bytes]) -> NoReturn:
    with closing(Bench()) as bench:
        while True:
            asked = messages.get()
            if "prepare" in asked:
                _prepare(asked["prepare"], bench)
                continue
            message = json.dumps(answer(asked, bench)).encode()
            answers.write(HEAD.pack(len(message)) + message)
            answers.flush()


def _prepare(setting: Setting, bench: Bench) -> None:
    try:
        bench.prepare(setting)
    except Exception:  # the first order meets the same, and can say so
        log.exception("the preparation failed")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
