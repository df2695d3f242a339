"""Outside the sandbox: starts the fork server in it and has it fork one submission's process tree at a time.

Warm, the server has imported torch and all that once and forks for every submission. Where that can't be
(no namespaces to part the forks from each other), each submission gets a server of its own, which imports
anew: the same path, about five seconds slower.
"""

import json
import os
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import cgroups
from . import sandbox as boxes
from .processes import tree

START_SECONDS = 120.0
THREADS = 64  # that the processes allowed may have together


class StartError(RuntimeError):
    """The sandbox's process did not come up; the reason in words."""


class Started:
    """One submission's process tree: its first process, its kernel's sockets, its line to the judge.

    `folder` is where the kernel's sockets lie, `home` the student's, where that is on this disk.
    """

    def __init__(self, pid: int, folder: Path, judge: socket.socket, said: "_Said", alone: bool) -> None:
        self.pid, self.folder, self.judge, self.said = pid, folder, judge, said
        self.home: Path | None = None
        self.group: cgroups.Group | None = None
        self._alone = alone  # in a process namespace, which ends with its first process
        self._handle = os.pidfd_open(pid) if sys.platform == "linux" else None

    @property
    def ended(self) -> bool:
        """Whether its first process has ended."""
        if self._handle is not None:
            return bool(select.select([self._handle], [], [], 0)[0])
        try:
            os.kill(self.pid, 0)
            return False
        except OSError:
            return True

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel ended one of its processes for want of memory."""
        return self.group is not None and self.group.out_of_memory

    def kill(self) -> None:
        """End everything in it, and wait for that."""
        if self._handle is None or not self._alone:
            for pid in reversed(tree(self.pid)):
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        if self._handle is not None:
            with suppress(OSError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            select.select([self._handle], [], [], 30)

    def close(self) -> None:
        """Let go of what is held of it here."""
        self.judge.close()
        if self.group:
            self.group.close()
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class Starter:
    """Starts kernels' processes, one after another, behind one sandbox's walls."""

    def __init__(self, box: boxes.Sandbox, hidden: Path, warm: bool = True) -> None:
        self.box, self.hidden = box, hidden
        self.warm = warm and sys.platform == "linux"
        self.preload = sys.platform == "linux"
        self._server: _Server | None = None
        self._now: Started | None = None
        if self.warm:
            self._server = _Server(self, 0)

    def __enter__(self) -> "Starter":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._server:
            self._server.close()
            self._server = None

    def start(self, connection: Callable[[str], dict[str, Any]], limits: Any) -> Started:
        """A new submission's process tree, whose kernel listens as `connection(folder)` says.

        limits: run.Limits.

        Raises:
            StartError: neither a warm nor a cold start worked.
        """
        self.stop()
        # a server that was killed gets a second chance; one whose imports start threads can't fork after them
        for warm, preload in ((self.warm, True), (self.warm, True), (False, True), (False, False)):
            self.warm, self.preload = warm, self.preload and preload
            try:
                self._now = self._fork(connection, limits)
                return self._now
            except (StartError, OSError) as error:
                trouble = str(error)
                if self._server:
                    self._server.close()
                    self._server = None
        raise StartError(trouble)

    def _fork(self, connection: Callable[[str], dict[str, Any]], limits: Any) -> Started:
        if self._server is None or self._server.process.poll() is not None:
            self._server = _Server(self, limits.disk_mib)
        self._server.wait_ready()
        return self._server.fork(connection, limits)

    def stop(self) -> None:
        """End the submission that was started last, with everything that it has started."""
        now, self._now = self._now, None
        if now is None or self._server is None:
            return
        now.kill()
        clean = self.warm and self._server.clean()
        now.close()
        if not clean:
            self._server.close()
            self._server = None


@dataclass
class _Said:
    """The end of what comes out of a pipe, gathered by a thread."""

    pipe: Any
    text: bytes = b""
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        with suppress(OSError, ValueError), self.pipe:
            while part := self.pipe.read1(4096):
                self.text = (self.text + part)[-4096:]

    def __call__(self) -> str:
        self.thread.join(0.2)
        return self.text.decode("utf-8", "replace")[-500:].strip()


class _Server:
    """One fork server and its folder, in which submissions' sockets (and homes, without bubblewrap) lie."""

    def __init__(self, starter: Starter, disk_mib: int) -> None:
        self.box = starter.box
        short = len(tempfile.gettempdir()) < 50  # a unix socket's path has at most 107 bytes
        self.folder = Path(tempfile.mkdtemp(prefix="owl-", dir=None if short else "/tmp"))
        self.sockets, self.home = self.folder / "io", self.folder / "home"
        self.sockets.mkdir()
        self.home.mkdir()
        within = self.box.walls == "bubblewrap"
        self.alone = within and starter.warm
        self.inside = boxes.INSIDE_SOCKETS if within else str(self.sockets)
        home = boxes.INSIDE_HOME if within else str(self.home)
        plan = {
            "warm": starter.warm,
            "preload": starter.preload,
            "walls": self.box.walls,
            "home": home,
            "sockets": self.inside,
        }
        plan |= {"readable": boxes.readable() if self.box.walls == "landlock" else []}
        plan |= {"kept": boxes.in_temporary_folders() if within else []}
        self.control, theirs = socket.socketpair()
        inner = [sys.executable, "-m", f"{__package__}.forkserver", str(theirs.fileno())]
        walls = {"sockets": self.sockets, "hidden": starter.hidden, "warm": starter.warm}
        self.process = subprocess.Popen(
            boxes.command(self.box, inner, **walls, disk_mib=disk_mib),  # type: ignore[arg-type]
            env=boxes.environment(self.box, home=home),
            cwd=self.folder,
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        theirs.close()
        self.control.send(json.dumps(plan).encode())
        self._ready = False
        self.said = _Said(self.process.stderr)

    def wait_ready(self) -> None:
        """Wait until the server has imported what it is to share; raises StartError."""
        if not self._ready:
            self._expect(b"ready\n")
            self._ready = True

    def _expect(self, word: bytes) -> None:
        self.control.settimeout(START_SECONDS)
        with suppress(TimeoutError, ConnectionError):
            if self.control.recv(len(word), socket.MSG_WAITALL) == word:
                return
        raise StartError(f"The sandbox's process did not start. {self.said()}".strip())

    def fork(self, connection: Callable[[str], dict[str, Any]], limits: Any) -> Started:
        """Have a process forked, put it into its group, and let it go on as a kernel; raises StartError."""
        name = secrets.token_hex(8)
        folder = self.sockets / name
        folder.mkdir()
        self.home.mkdir(exist_ok=True)
        inside = self.inside if self.alone else f"{self.inside}/{name}"
        order = {"do": "fork", "name": name, "io": inside, "connection": connection(inside)}
        order |= {key: getattr(limits, key) for key in ("memory_mib", "cpu_seconds", "disk_mib", "threads")}
        order["tasks"] = limits.processes + THREADS
        judge, report, said = self._send(order)
        with report:
            started = Started(_born(report, said), folder, judge, said, self.alone)
            started.home = None if self.box.walls == "bubblewrap" else self.home
            if self.box.groups:
                most = limits.memory_mib + limits.disk_mib
                started.group = self.box.groups.make(most, limits.processes + THREADS)
                started.group.add(started.pid)
            report.send(b"go")
        return started

    def _send(self, order: dict[str, Any]) -> tuple[socket.socket, socket.socket, _Said]:
        """Order a fork; our ends of its line to the judge, of its report, and of its standard error."""
        judge, its_judge = socket.socketpair()
        report, its_report = socket.socketpair()
        errors, its_errors = os.pipe()
        if sys.platform == "linux":
            report.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        handles = [its_judge.fileno(), its_errors, its_report.fileno()]
        socket.send_fds(self.control, [json.dumps(order).encode()], handles)
        its_judge.close()
        its_report.close()
        os.close(its_errors)
        judge.setblocking(False)
        return judge, report, _Said(os.fdopen(errors, "rb"))

    def clean(self) -> bool:
        """End what may be left of a submission and remove its files; whether that worked."""
        try:
            if not self.alone:
                self.control.send(b'{"do": "sweep"}')
                self._expect(b"swept\n")
            return all(map(remove, [self.home, *self.sockets.iterdir()]))
        except (StartError, OSError):
            return False

    def close(self) -> None:
        """End the server and all that it has forked."""
        self.control.close()
        for pid in reversed(tree(self.process.pid)):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        remove(self.folder)


def remove(folder: Path) -> bool:
    """Remove a folder that a student's program could write in, whatever is there; whether it is gone."""
    try:
        for entry in os.scandir(folder):
            os.unlink(entry.path)
        os.rmdir(folder)
    except OSError:  # folders in it, then; these programs neither follow links nor mind the depth
        for words in (["rm", "-rf"], ["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            if os.path.lexists(folder):
                subprocess.run([*words, "--", str(folder)], stderr=subprocess.DEVNULL)
    return not os.path.lexists(folder)


def _born(report: socket.socket, said: _Said) -> int:
    """The number that a new process has on this side of the walls; raises StartError."""
    report.settimeout(START_SECONDS)
    try:
        words, extra, _, _ = report.recvmsg(1000, socket.CMSG_SPACE(12))
    except TimeoutError:
        words, extra = b"", []
    if not words or words.startswith(b"!"):
        raise StartError(f"The fork came to nothing. {words[1:].decode()} {said()}".strip())
    if sys.platform != "linux":
        return int(words)
    return struct.unpack("3i", extra[0][2])[0]
