"""What the student's process can see and use: bubblewrap where it works, a private folder where it doesn't.

Inside bubblewrap there are the system's libraries, this Python with its packages and the package
`openweightlab`, all read-only, an empty home and no network; judges, solutions, gradebook and other
submissions are not there at all.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
INSIDE_HOME = "/student"
INSIDE_KIT = "/kit"
TMPFS_BYTES = str(2**30)
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/sys/devices/system/cpu")
ETC = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "fonts", "localtime", "timezone")


@dataclass(frozen=True)
class Sandbox:
    """One way to start the kernel: `arguments` come before its command line (none without a sandbox)."""

    name: str
    isolated: bool
    arguments: tuple[str, ...] = ()


def choose(wanted: str = "auto") -> Sandbox:
    """The sandbox to use: "auto" takes bubblewrap where it works, "bubblewrap" insists, "none" goes without.

    Raises:
        ValueError: another word.
        RuntimeError: bubblewrap is wanted and doesn't work here.
    """
    if wanted not in ("auto", "bubblewrap", "none"):
        raise ValueError(f'sandbox must be "auto", "bubblewrap" or "none", not {wanted!r}')
    if wanted == "none":
        return Sandbox("none (switched off)", False)
    found = probe()
    if wanted == "bubblewrap" and not found.isolated:
        raise RuntimeError(f"A sandbox was asked for, but there is {found.name}")
    return found


@cache
def probe() -> Sandbox:
    """The strongest sandbox that starts on this machine; its name says why when that is none."""
    path = shutil.which("bwrap")
    if not path:
        return Sandbox("none (bubblewrap not installed)", False)
    said = ""
    for user in _user_namespaces(path):
        arguments = (path, *user, *_namespaces())
        test = [*arguments, *_mounts_of_system(path), "--", "/bin/sh", "-c", "exit 0"]
        done = subprocess.run(test, capture_output=True, text=True, timeout=30)
        if done.returncode == 0:
            return Sandbox("bubblewrap", True, arguments)
        said = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"
    return Sandbox(f"none (bubblewrap does not start here: {said[:160]})", False)


def _user_namespaces(path: str) -> list[tuple[str, ...]]:
    """Ways to drop privileges, strongest first; the last works where only root may make namespaces."""
    mapped = ("--unshare-user", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL")
    return [(*mapped, "--disable-userns"), mapped, ("--cap-drop", "ALL")]


def _namespaces() -> tuple[str, ...]:
    return (
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
        *("--hostname", "bench", "--die-with-parent", "--new-session"),
    )


@cache
def _can_size(path: str) -> bool:
    return (
        "--size BYTES" in subprocess.run([path, "--help"], capture_output=True, text=True, timeout=30).stdout
    )


def _tmpfs(path: str, place: str) -> list[str]:
    return [*(("--size", TMPFS_BYTES) if _can_size(path) else ()), "--tmpfs", place]


def _mounts_of_system(path: str) -> list[str]:
    """System libraries, fonts, and fresh /proc, /dev, /tmp and home."""
    mounts = []
    for place in SYSTEM:
        link = os.readlink(place) if os.path.islink(place) else None
        mounts += ["--symlink", link, place] if link else ["--ro-bind-try", place, place]
    for name in ETC:
        mounts += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    mounts += ["--proc", "/proc", "--dev", "/dev"]
    for place in ("/dev/shm", "/tmp", INSIDE_HOME):
        mounts += _tmpfs(path, place)
    return mounts


def command(sandbox: Sandbox, inner: list[str], *, shared: Path, hidden: Path) -> list[str]:
    """The full command line: `inner` in the sandbox, where `shared` can be written and `hidden` is absent."""
    if not sandbox.isolated:
        return inner
    path = sandbox.arguments[0]
    pythons = [*python_folders(), *extra_packages()]
    mounts = [part for folder in pythons for part in ("--ro-bind", folder, folder)]
    if any(_within(str(hidden), place) for place in (*SYSTEM, *pythons)):  # e.g. a course under /usr/local
        mounts += ["--tmpfs", str(hidden)]
        mounts += [part for f in pythons if _within(f, str(hidden)) for part in ("--ro-bind", f, f)]
    mounts += ["--ro-bind", str(PACKAGE), f"{INSIDE_KIT}/{PACKAGE.name}"]
    mounts += ["--bind", str(shared), str(shared)]
    return [*sandbox.arguments, *_mounts_of_system(path), *mounts, "--chdir", INSIDE_HOME, "--", *inner]


def _within(path: str, folder: str) -> bool:
    """Whether `path` lies inside `folder` (or is it)."""
    inner, outer = os.path.realpath(path), os.path.realpath(folder)
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def python_folders() -> list[str]:
    """Folders of this Python outside the system's: its environment, its installation, links on the way."""
    found = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]
    link = sys.executable
    while os.path.islink(link):
        link = os.path.join(os.path.dirname(link), os.readlink(link))
        found.append(os.path.dirname(os.path.dirname(link)))
    found += [os.path.realpath(folder) for folder in found]
    outside = (os.path.normpath(f) for f in found if not any(_within(f, place) for place in SYSTEM))
    return sorted(set(outside) - {"/"}, key=len)


def extra_packages() -> list[str]:
    """Package folders on the path that lie elsewhere, such as those of `pip install --user`."""
    known = (*SYSTEM, *python_folders())
    folders = (path for path in sys.path if path.endswith("-packages") and os.path.isdir(path))
    return [folder for folder in folders if not any(_within(folder, place) for place in known)]


def environment(sandbox: Sandbox, *, home: Path, judge: Path, threads: int) -> dict[str, str]:
    """Environment variables of the student's process; nothing of the grader's own environment gets there."""
    place = INSIDE_HOME if sandbox.isolated else str(home)
    kit = INSIDE_KIT if sandbox.isolated else str(PACKAGE.parent)
    own = {
        "HOME": place,
        "USER": "student",
        "LOGNAME": "student",
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), "/usr/local/bin", "/usr/bin", "/bin"]),
        "LANG": "C.UTF-8",
        "IPYTHONDIR": f"{place}/.ipython",
        "JUPYTER_RUNTIME_DIR": f"{place}/.jupyter",
        "MPLCONFIGDIR": f"{place}/.matplotlib",
        "HF_HOME": f"{place}/.hf",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
        "NBGRADER_EXECUTION": "autograde",
        "OWL_JUDGE": str(judge),
        "OWL_STATE": f"{place}/.owl",
        "PYTHONPATH": os.pathsep.join([kit, *extra_packages()]),
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
    }
    return own | {
        name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    }
