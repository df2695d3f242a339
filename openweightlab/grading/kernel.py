"""The student's kernel: fed cell by cell, watched, ended with all it started. start.py starts its process."""

import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.blocking.client import BlockingKernelClient

from .judge import GRACE_SECONDS
from .processes import exactly, tree, use
from .start import Starter

MAX_MESSAGE = 2**22  # bytes; a longer one breaks the connection; two may wait
START_SECONDS = 90.0
WATCH_SECONDS = 0.2
SHARED_BYTES = 2**24
MAX_ENTRIES = 50_000  # files and folders
FLOOD_MIB = 512  # that the grader itself may grow by
PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")


class Kernel:
    """An ipykernel in its own process tree, reached over unix sockets in a folder of its own."""

    def __init__(self, starter: Starter, limits: Any) -> None:
        self.limits = limits
        self.peak_mib = 0.0
        self.trouble = ""  # why the watcher ended it
        self._idle = ""  # the last cell that has shown all of its outputs
        info: dict[str, Any] = {"transport": "ipc", "signature_scheme": "hmac-sha256"}
        info |= {"key": secrets.token_hex(16)} | {port: number for number, port in enumerate(PORTS, 1)}
        self.process = starter.start(lambda folder: info | {"ip": f"{folder}/k"}, limits)
        self._connect(info | {"ip": str(self.process.folder / "k")})
        self._stop = starter.stop
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._closed = threading.Event()
        self._watcher.start()

    def offer(self, line: socket.socket) -> None:
        """Hand the student's process its end of a line on which the judge puts one question's cases."""
        with suppress(OSError):
            socket.send_fds(self.process.judge, [b"!"], [line.fileno()])

    def _connect(self, info: Any) -> None:
        """Open the client's end, which takes no more than it can hold."""
        context = zmq.Context()
        for option, value in (
            *((zmq.MAXMSGSIZE, MAX_MESSAGE), (zmq.RCVHWM, 2), (zmq.LINGER, 0)),
            *((zmq.RECONNECT_IVL, 10), (zmq.RECONNECT_IVL_MAX, 0)),
        ):
            context.setsockopt(option, value)
        self.client = BlockingKernelClient(context=context)
        self.client.load_connection_info(info)
        self.client.start_channels(stdin=False, hb=False)
        self._breaks = self.client.iopub_channel.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)

    def wait_ready(self) -> bool:
        """Whether the kernel answers in time, and on both channels: else first outputs would get lost."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and not self.process.ended:
            message_id, answered = self.client.kernel_info(), set()
            until = time.monotonic() + 5
            while time.monotonic() < until and not self.process.ended:
                for channel, message in self._messages(100):
                    if message["parent_header"].get("msg_id") == message_id:
                        answered.add(channel)
                if answered == {"shell", "iopub"}:
                    return True
                if "shell" in answered:  # outputs are not subscribed to yet: ask again soon
                    until = min(until, time.monotonic() + 0.05)
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
            if self.process.ended:
                self.trouble = self.trouble or (self._too_much_memory if self.process.out_of_memory else "")
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
        ends = {"iopub": self.client.iopub_channel.socket, "shell": self.client.shell_channel.socket}
        for end in ends.values():
            poller.register(end, zmq.POLLIN)
        ready = dict(poller.poll(milliseconds))
        for channel, end in ends.items():
            for _ in range(10):
                if not ready.get(end) or not end.poll(0):
                    break
                try:
                    _, parts = self.client.session.feed_identities(end.recv_multipart())
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
        self.process.kill()

    def close(self) -> None:
        """Kill the kernel and let go of its sockets."""
        self._closed.set()
        self._watcher.join()
        self._stop()
        self.client.iopub_channel.socket.disable_monitor()
        self.client.stop_channels()
        self.client.context.destroy(linger=0)

    @property
    def complaint(self) -> str:
        """The end of what the process wrote to its standard error."""
        return self.process.said()

    @property
    def _too_much_memory(self) -> str:
        return f"It used more than {self.limits.memory_mib:,} MiB of memory."

    def _watch(self) -> None:
        """See to the limits until the end; what can't be watched is ended."""
        try:
            self._watch_on()
        except Exception as error:
            self.trouble = f"It could not be watched ({type(error).__name__})."
            self.kill()

    def _watch_on(self) -> None:
        before = use([os.getpid()]).owned
        while not self._closed.wait(WATCH_SECONDS) and not self.process.ended:
            below = tree(self.process.pid)[1:]  # the first process only waits for the others
            if len(below) > self.limits.processes:
                self.trouble = f"It started more than {self.limits.processes} processes."
            elif use([os.getpid()]).owned > before + FLOOD_MIB:
                self.trouble = "It flooded the grader with output."
            else:
                self.trouble = self._too_much(below)
            if self.trouble:
                self.kill()

    def _too_much(self, below: list[int]) -> str:
        """What these processes use too much of, in words."""
        now = use(below)
        if now.owned > self.limits.memory_mib and exactly(below) > self.limits.memory_mib:
            return self._too_much_memory
        several = now.processes > 1
        self.peak_mib = max(self.peak_mib, exactly(below, ("Pss:",)) if several else now.resident)
        if now.cpu > self.limits.cpu_seconds:
            return f"It used more than {self.limits.cpu_seconds:g} s of processor time."
        if size(self.process.folder) > SHARED_BYTES:
            return "It wrote into the grader's own folder."
        if self.process.home and size(self.process.home) > self.limits.disk_mib * 2**20:
            return f"It wrote more than {self.limits.disk_mib:,} MiB of files."
        return ""


def size(folder: Path) -> float:
    """Bytes of the files below a folder, and a thousand for each entry; infinite for too many or too deep."""
    total, seen, folders = 0, 0, [str(folder)]
    while folders:
        try:
            for entry in os.scandir(folders.pop()):
                seen += 1
                total += 1000 + entry.stat(follow_symlinks=False).st_size
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
        except FileNotFoundError:
            continue
        except OSError:
            return math.inf
        if seen > MAX_ENTRIES:
            return math.inf
    return total
