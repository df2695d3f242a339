"""Inside the sandbox: forks a kernel for each submission, so that what all of them import is imported once.

`python -m openweightlab.grading.forkserver SOCKET`, started by start.py, which speaks to it over the
inherited socket with that number. It runs no student's code itself; each fork parts from it and from its
siblings for good (confine.py) before it becomes a kernel.
"""

import gc
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from . import confine
from .processes import tree
from .sandbox import THREADS

PRELOADED = (
    *("torch", "transformers", "transformers.models.qwen3.modeling_qwen3"),
    *("transformers.models.qwen3_moe.modeling_qwen3_moe", "openweightlab", "openweightlab.check"),
    *("openweightlab.models", "openweightlab.lens", "openweightlab.measure", "openweightlab.questions.tiny"),
    *("numpy", "pandas", "matplotlib.pyplot", "matplotlib_inline.backend_inline", "ipywidgets"),
    *("ipykernel.kernelapp", "ipykernel.zmqshell", "safetensors.torch", "tqdm.auto"),
)
JUDGE = 3  # the file descriptor over which the student's process hears from the judge
LAST = 1024
MOST = 2**18  # bytes of a message
SINKS = ("/dev/null", "/dev/full")
Plan = dict[str, Any]


def main(arguments: list[str]) -> None:
    """Say when the imports are done, then fork for each order until the grader closes the socket."""
    control = socket.socket(fileno=int(arguments[0]))
    plan = json.loads(control.recv(MOST))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        confine.prctl(confine.PR_SET_CHILD_SUBREAPER, 1)
        confine.prctl(confine.PR_SET_DUMPABLE, 0)  # its memory is nobody's to read or write
    if plan["preload"]:
        preload()
    control.send(b"ready\n")
    while True:
        text, handles, _, _ = socket.recv_fds(control, MOST, 4)
        if not text:
            break
        order = json.loads(text)
        if order["do"] == "sweep":
            sweep()
            control.send(b"swept\n")
        elif os.fork() == 0:
            control.close()
            newborn(order, handles, plan)
        for handle in handles:
            os.close(handle)
        reap()
    sweep()


def preload() -> None:
    """Import what notebooks import, and keep it out of the garbage collector's way, so that forks share it.

    Raises:
        RuntimeError: an import has started a thread, which would be missing in every fork.
    """
    for name in PRELOADED:
        with suppress(ImportError):
            importlib.import_module(name)
    if sys.platform == "linux" and len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("an import has started threads")
    gc.collect()
    gc.freeze()


def reap() -> None:
    """Let go of processes that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def sweep() -> None:
    """End every process below this one: a submission is over."""
    for _ in range(1000):
        reap()
        below = tree(os.getpid())[1:]
        if not below:
            return
        for pid in below:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)


# What a fork does


def newborn(order: dict[str, Any], handles: list[int], plan: Plan) -> NoReturn:
    """Become the first process of one submission's tree, whose child is the kernel; never returns."""
    judge, errors, report = handles
    try:
        if sys.platform == "linux":
            confine.prctl(confine.PR_SET_DUMPABLE, 1)
        os.dup2(errors, 2)
        with socket.socket(fileno=report) as grader:
            os.setsid()
            if not leave(order, plan, grader):
                os._exit(0)
            grader.send(str(os.getpid()).encode())  # from its credentials the grader learns the real number
            if grader.recv(10) != b"go":
                os._exit(1)
        shut_in(order, plan)
        kernel = os.fork()
        if kernel == 0:
            if plan["walls"] == "landlock":  # the process before it stays outside, and so out of reach
                confine.landlock(plan["readable"], [plan["home"], order["io"], *SINKS])
            become_kernel(order, judge)
        for handle in (judge, errors):
            os.close(handle)
        wait_for(kernel)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def leave(order: dict[str, Any], plan: Plan, grader: socket.socket) -> bool:
    """Part from the siblings; False in a process that has only made the one that goes on."""
    if plan["warm"] and plan["walls"] == "bubblewrap":
        try:
            sockets, home = Path(plan["sockets"]), Path(plan["home"])
            confine.leave_siblings(sockets, order["name"], home, order["disk_mib"], plan["kept"])
        except OSError as error:
            grader.send(f"!{error}".encode())
            os._exit(1)
        return os.fork() == 0
    if sys.platform == "linux":
        confine.prctl(confine.PR_SET_CHILD_SUBREAPER, 1)
        confine.prctl(confine.PR_SET_PDEATHSIG, signal.SIGKILL)
    return True


def shut_in(order: dict[str, Any], plan: Plan) -> None:
    """Give up, for good, what this submission may not do; raises OSError."""
    os.nice(10)  # whoever watches it comes first
    tasks = order["tasks"]
    if plan["warm"] and plan["walls"] == "bubblewrap":
        confine.mount_proc()
    elif plan["walls"] != "bubblewrap":
        tasks += confine.tasks_of_user()
    confine.limit(order["memory_mib"], order["cpu_seconds"], order["disk_mib"], tasks)
    if plan["walls"] != "none":
        confine.drop_capabilities()
        confine.seccomp(keep_modes=plan["walls"] == "landlock")


def wait_for(kernel: int) -> NoReturn:
    """Let go of ended processes until the kernel itself ends, and take the rest along."""
    while os.wait()[0] != kernel:
        pass
    for pid in tree(os.getpid())[1:]:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    os._exit(0)


def become_kernel(order: dict[str, Any], judge: int) -> NoReturn:
    """Turn this process into an ipykernel that finds the judge at the descriptor JUDGE; never returns."""
    os.setsid()
    for number in (0, 1):
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    os.dup2(judge, JUDGE)
    os.closerange(JUDGE + 1, LAST)
    home = Path(os.environ["HOME"])
    os.environ["OWL_JUDGE"] = str(JUDGE)
    if order["threads"] != 1:
        os.environ |= dict.fromkeys(THREADS, str(order["threads"]))
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(order["threads"])
    os.chdir(home)
    file = home / ".connection.json"
    file.write_text(json.dumps(order["connection"]))
    from ipykernel.kernelapp import launch_new_instance
    from ipykernel.zmqshell import ZMQInteractiveShell

    ZMQInteractiveShell.ask_exit = lambda shell: None  # type: ignore[method-assign]  # exit() ends no notebook
    launch_new_instance([f"--f={file}", "--HistoryManager.enabled=False"])
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
