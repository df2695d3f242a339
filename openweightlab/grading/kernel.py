"""The student's kernel: started in its sandbox, fed cell by cell, watched, ended with all it started."""

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.blocking.client import BlockingKernelClient

from . import sandbox as boxes
from .judge import GRACE_SECONDS

MAX_MESSAGE = 2**25  # a longer one breaks the connection; two may wait
START_SECONDS = 90.0
SHARED_BYTES = 2**24
PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")


@dataclass(frozen=True)
class Use:
    """What a process tree uses now, in MiB: `owned` is its own memory, `resident` includes shared files."""

    owned: float
    resident: float
    processes: int


def tree(root: int) -> list[int]:
    """A process and all of its descendants, from /proc; empty where there is none."""
    children: dict[int, list[int]] = {}
    for pid in _processes():
        try:
            parent = int(
                Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1]
            )
        except (OSError, ValueError, IndexError):
            continue
        children.setdefault(parent, []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _processes() -> Iterator[int]:
    if os.path.isdir("/proc/self"):
        yield from (int(name) for name in os.listdir("/proc") if name.isdigit())


def use(pids: list[int]) -> Use:
    """Memory and number of these processes; those that ended meanwhile count nothing."""
    owned = resident = 0
    alive = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines()
        except OSError:
            continue
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
        owned += sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)
        resident += sizes.get("VmRSS", 0)
        alive += 1
    return Use(owned / 1024, resident / 1024, alive)


class Kernel:
    """An ipykernel in its own process tree, reached over unix sockets in the folder `shared`."""

    def __init__(self, box: boxes.Sandbox, *, folder: Path, hidden: Path, judge: Path, limits: Any) -> None:
        self.limits = limits
        self.peak_mib = 0.0
        self.trouble = ""  # why the watcher ended it
        self._said = b""
        self._idle = ""  # the last cell that has shown all of its outputs
        self._shared = judge.parent
        self._name = secrets.token_hex(4)
        info = self._connection()
        home = folder / f"home-{self._name}"
        home.mkdir()
        inner = [sys.executable, "-m", f"{__package__}.launch", str(limits.memory_mib), str(self._file)]
        environment = boxes.environment(box, home=home, judge=judge, threads=limits.threads)
        self.process = subprocess.Popen(
            boxes.command(box, inner, shared=self._shared, hidden=hidden),
            env=environment | {"OWL_KERNEL": self._name},
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._connect(info)
        for work in (self._read_errors, self._watch):
            threading.Thread(target=work, daemon=True).start()

    def _connection(self) -> Any:
        """Where the kernel is to listen, and with which key; also as a file for it to read."""
        info = {
            "transport": "ipc",
            "ip": str(self._shared / self._name),
            "key": secrets.token_hex(16),
            "signature_scheme": "hmac-sha256",
            **{port: number for number, port in enumerate(PORTS, 1)},
        }
        self._file = self._shared / f"{self._name}.json"
        self._file.write_text(json.dumps(info))
        return info

    def _connect(self, info: Any) -> None:
        """Open the client's end, which takes no more than it can hold."""
        context = zmq.Context()
        for option, value in ((zmq.MAXMSGSIZE, MAX_MESSAGE), (zmq.RCVHWM, 2), (zmq.LINGER, 0)):
            context.setsockopt(option, value)
        self.client = BlockingKernelClient(context=context)
        self.client.load_connection_info(info)
        self.client.start_channels(stdin=False, hb=False)
        self._breaks = self.client.iopub_channel.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)

    def wait_ready(self) -> bool:
        """Whether the kernel answers in time, and on both channels: else first outputs would get lost."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            message_id, answered = self.client.kernel_info(), set()
            until = time.monotonic() + 5
            while time.monotonic() < until and self.process.poll() is None:
                for channel, message in self._messages(100):
                    if message["parent_header"].get("msg_id") == message_id:
                        answered.add(channel)
                if answered == {"shell", "iopub"}:
                    return True
                if "shell" in answered:  # outputs are not subscribed to yet: ask again soon
                    until = min(until, time.monotonic() + 0.3)
        return False

    def execute(
        self,
        source: str,
        deadline: float,
        listen: Callable[[dict[str, Any]], None],
        tick: Callable[[], str] = lambda: "",
    ) -> str:
        """Run one cell; every output message goes to `listen`; `tick()` may ask to "interrupt" or "kill".

        Returns:
            "ok", "error", "timeout" (interrupted at the deadline, the kernel lives), "hung" (did not let
            itself be interrupted and was killed) or "dead" (ended by itself, or by the watcher for the
            reason in `trouble`).
        """
        message_id = self.client.execute(source, allow_stdin=False)
        interrupted = False
        while True:
            status = self._reply(message_id, listen)
            if status:
                return "timeout" if interrupted else "ok" if status == "ok" else "error"
            if self.process.poll() is not None:
                return "dead"
            wanted = tick()
            if wanted == "kill" or time.monotonic() > deadline + GRACE_SECONDS:
                self.kill()
                return "hung"
            late = time.monotonic() > deadline and not interrupted
            interrupted = interrupted or late
            if late or wanted == "interrupt":
                self.interrupt()

    def _reply(self, message_id: str, listen: Callable[[dict[str, Any]], None]) -> str:
        """Pass on what has come of a cell; its reply's status if that came too, else an empty string."""
        status = self._pass_on(message_id, listen)
        until = time.monotonic() + GRACE_SECONDS  # for the last outputs
        while status and self._idle != message_id and not self._breaks.poll(0):
            self._pass_on(message_id, listen)
            if time.monotonic() > until:
                break
        if status and (self._idle != message_id or self._breaks.poll(0)):
            listen({"msg_type": "lost", "content": {}})
        while status and self._breaks.poll(0):  # each a message that was too long to be received
            self._breaks.recv_multipart()
        return status

    def _pass_on(self, message_id: str, listen: Callable[[dict[str, Any]], None]) -> str:
        status = ""
        for channel, message in self._messages(50):
            if message["parent_header"].get("msg_id") != message_id:
                continue
            if channel == "shell":
                status = str(message["content"].get("status"))
            elif message["content"].get("execution_state") == "idle":
                self._idle = message_id
            else:
                listen(message)
        return status

    def _messages(self, milliseconds: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """What has come on the two channels; a message that can't be read is passed by."""
        poller = zmq.Poller()
        sockets = {"iopub": self.client.iopub_channel.socket, "shell": self.client.shell_channel.socket}
        for socket in sockets.values():
            poller.register(socket, zmq.POLLIN)
        ready = dict(poller.poll(milliseconds))
        for channel, socket in sockets.items():
            for _ in range(100):
                if not ready.get(socket) or not socket.poll(0):
                    break
                try:
                    _, parts = self.client.session.feed_identities(socket.recv_multipart())
                    message = self.client.session.deserialize(parts)
                    message["parent_header"].get, message["content"].get, message["msg_type"]
                except Exception:  # whatever a forged message makes the parser do
                    continue
                yield channel, message

    def interrupt(self) -> None:
        """Ask the kernel to interrupt what it runs."""
        self.client.control_channel.send(self.client.session.msg("interrupt_request"))

    def kill(self) -> None:
        """End the kernel and everything that it started."""
        for pid in reversed([*tree(self.process.pid), *self._strays()]):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Kill the kernel and let go of its sockets."""
        self.kill()
        self.client.iopub_channel.socket.disable_monitor()
        self.client.stop_channels()
        self.client.context.destroy(linger=0)

    @property
    def complaint(self) -> str:
        """The end of what the process wrote to its standard error."""
        return self._said.decode("utf-8", "replace")[-500:].strip()

    def _strays(self) -> Iterator[int]:
        """Processes that left the tree, by the mark in their environment."""
        mark = f"OWL_KERNEL={self._name}".encode()
        for pid in _processes():
            try:
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    yield pid
            except OSError:
                continue

    def _read_errors(self) -> None:
        assert self.process.stderr
        while part := self.process.stderr.read1(4096):  # type: ignore[attr-defined]
            self._said = (self._said + part)[-4096:]

    def _watch(self) -> None:
        while self.process.poll() is None:
            now = use(tree(self.process.pid))
            self.peak_mib = max(self.peak_mib, now.resident)
            if now.owned > self.limits.memory_mib:
                self.trouble = f"It used more than {self.limits.memory_mib:,} MiB of memory."
            elif now.processes > self.limits.processes:
                self.trouble = f"It started more than {self.limits.processes} processes."
            elif _size(self._shared) > SHARED_BYTES:
                self.trouble = "It wrote into the grader's own folder."
            if self.trouble:
                self.kill()
            time.sleep(0.1)


def _size(folder: Path) -> int:
    """Bytes of the files in a folder, and a thousand for each entry."""
    total = 0
    try:
        for entry in os.scandir(folder):
            total += 1000 + entry.stat(follow_symlinks=False).st_size
            total += SHARED_BYTES if entry.is_dir(follow_symlinks=False) else 0
    except OSError:
        return total
    return total
