"""A Dask cluster on this machine, as several machines would be: processes in folders of their own.

Each worker has its own copy of the kit, so that nothing of this checkout is needed where it runs.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
ONLY_HERE = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0", "--no-dashboard"]


def copy_kit(folder: Path) -> Path:
    """The package, and nothing else of the checkout, in a folder to put on PYTHONPATH."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "openweightlab", folder / "openweightlab", ignore=ignore)
    return folder


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until the condition holds, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {seconds:g} s"
        time.sleep(0.1)


class Cluster:
    """A scheduler and its workers; `folder` gets a folder and a log for each process, `env` goes to all."""

    def __init__(self, folder: Path, env: dict[str, str] | None = None) -> None:
        self.folder, self.env = folder, env or {}
        self.address = ""
        self.processes: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> "Cluster":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            end(process)

    def start(self) -> None:
        """Start a scheduler, on a free port."""
        place = self.folder / "scheduler.json"
        place.unlink(missing_ok=True)
        self._run("scheduler", "scheduler", "--port", "0", "--scheduler-file", str(place))
        wait_for(lambda: place.exists() and place.read_text().strip().endswith("}"), 60, "scheduler")
        self.address = json.loads(place.read_text())["address"]

    def add(self, name: str, *options: str, kit: Path | None = None) -> None:
        """Start a worker with one thread in `folder/name`, with a copy of the kit unless one is given."""
        place = self.folder / name
        place.mkdir(exist_ok=True)
        kit = kit or copy_kit(place / "kit")
        own = ["--nthreads", "1", "--local-directory", str(place), "--name", name]
        self._run(name, "worker", self.address, *own, *options, env={"PYTHONPATH": str(kit)})

    def _run(self, name: str, *command: str, env: dict[str, str] | None = None) -> None:
        place = self.folder / name
        place.mkdir(exist_ok=True)
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "dask", *command, *ONLY_HERE],
                cwd=place,
                env=os.environ | self.env | (env or {}),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def log(self, name: str) -> str:
        """What a process has said so far."""
        return (self.folder / f"{name}.log").read_text()

    def kill(self, name: str) -> list[psutil.Process]:
        """End a worker, and its nanny, as a power cut would; what it had started and outlives it by 30 s."""
        below = psutil.Process(self.processes[name].pid).children(recursive=True)
        end(self.processes[name])
        return psutil.wait_procs(below, timeout=30)[1]


def end(process: subprocess.Popen) -> None:
    """End a process of the cluster and its nanny's worker; what that had started ends with its input."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
