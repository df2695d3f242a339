"""What a learner predicted and answered: one small JSON file on their own disk, sent nowhere.

It lies in the folder `.owl/` beside the notebook, or in the folder that OWL_STATE names.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def state_file() -> Path:
    """Where the learner's state is kept."""
    return Path(os.environ.get("OWL_STATE") or ".owl") / "learner.json"


def now() -> str:
    """The local time, to the second, as the state file writes it."""
    return time.strftime("%Y-%m-%d %H:%M:%S")


def read(section: str, key: str) -> Record | None:
    """The record kept under `section` and `key`, or None."""
    return _load(state_file()).get(section, {}).get(key)


def write(section: str, key: str, record: Record) -> None:
    """Keep one record: the whole file is written beside the old one, then takes its place.

    Raises OSError with the path where the folder cannot be written.
    """
    path = state_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            everything = _load(path)
            everything.setdefault(section, {})[key] = record
            _replace(path, json.dumps(everything, ensure_ascii=False, indent=1))
    except OSError as error:
        raise OSError(
            f"your answer could not be kept in {path.absolute()} ({error.strerror or error}); "
            "set OWL_STATE to a folder that you may write to, then run the cell again"
        ) from error


def _load(path: Path) -> dict[str, dict[str, Record]]:
    """The whole state; a damaged file is moved aside, never overwritten, and its new name is printed."""
    try:
        everything = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(everything, dict) and all(isinstance(part, dict) for part in everything.values()):
            return everything
    except FileNotFoundError:
        return {}
    except ValueError:
        pass
    aside = path.with_name(f"learner.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.json")
    os.replace(path, aside)
    print(f"{path} could not be read. It is kept as {aside.name}; a new one is begun.")
    return {}


def _replace(path: Path, text: str) -> None:
    """Write `text` beside `path` and move it there in one step, so that a crash leaves the old or the new."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix="learner.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


@contextmanager
def _locked(path: Path, patience: float = 3.0) -> Iterator[None]:
    """Hold `path`'s lock file; one left behind by a crash is taken over after `patience` seconds."""
    lock = path.with_suffix(".lock")
    deadline = time.monotonic() + patience
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            if time.monotonic() > deadline:
                lock.unlink(missing_ok=True)
            time.sleep(0.02)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
