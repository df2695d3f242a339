"""What the student's process can see and use, in levels; the strongest that works here is taken.

- `cgroup+bubblewrap`: as the next, and the kernel itself bounds memory and processes of the whole submission.
- `bubblewrap`: the system's libraries, this Python with its packages and the package `openweightlab`, all
  read-only, an empty home and no network; judges, solutions, gradebook and other submissions are not there.
- `landlock`: the same files and no others may be opened, no connection made, no other process touched; for
  containers, where bubblewrap has no namespaces to use. Paths are denied there, not hidden.

confine.py holds what the process does to itself, at every level.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from . import cgroups

PACKAGE = Path(__file__).resolve().parents[1]
INSIDE_HOME = "/student"
INSIDE_KIT = "/kit"
INSIDE_SOCKETS = "/io"
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/sys/devices/system/cpu")
ETC = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "fonts", "localtime", "timezone")
OF_ITSELF = (  # not net and task, which tell of every socket of the machine
    *("status", "stat", "statm", "maps", "smaps", "smaps_rollup", "mountinfo", "mounts", "cgroup", "fd"),
    *("cmdline", "comm", "exe", "limits", "environ", "io"),
)
READABLE = (
    *(f"/proc/self/{name}" for name in OF_ITSELF),
    *("/dev/random", "/dev/urandom", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat"),
    *("/proc/uptime", "/proc/loadavg", "/proc/version", "/proc/filesystems", "/proc/sys/kernel/osrelease"),
    *("/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/pid_max", "/sys/kernel/mm/transparent_hugepage"),
)
LEVELS = ("cgroup+bubblewrap", "bubblewrap", "landlock")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
WITHOUT = "none (switched off)"


@dataclass(frozen=True)
class Sandbox:
    """One level: `walls` are "bubblewrap", "landlock" or "none"; `command` is bubblewrap's with its user."""

    name: str
    walls: str = "none"
    command: tuple[str, ...] = ()
    groups: cgroups.Parent | None = field(default=None, compare=False)

    @property
    def isolated(self) -> bool:
        return self.walls != "none"


def choose(wanted: str = "auto") -> Sandbox:
    """The sandbox to use: "auto" takes the strongest that works, a level's name insists, "none" goes without.

    Raises:
        ValueError: another word.
        RuntimeError: it doesn't work here, or none does.
    """
    if wanted == "none":
        return Sandbox(WITHOUT)
    if wanted not in ("auto", *LEVELS):
        known = ", ".join(f'"{level}"' for level in ("auto", *LEVELS, "none"))
        raise ValueError(f"sandbox must be one of {known}, not {wanted!r}")
    for level in LEVELS if wanted == "auto" else (wanted,):
        found = attempt(level)
        if isinstance(found, Sandbox):
            return found
    raise RuntimeError(refusal(wanted))


def refusal(wanted: str = "auto") -> str:
    """Why there is no sandbox to grade in, and what to do."""
    levels = LEVELS if wanted == "auto" else (wanted,)
    reasons = "; ".join(f"{level}: {attempt(level)}" for level in levels)
    return (
        f"Students' code is not run without a sandbox, and none works here. {reasons}. Install bubblewrap, "
        "or grade on Linux 6.12 or newer, or, if you trust everybody's code, say --no-sandbox"
    )


@cache
def attempt(level: str) -> Sandbox | str:
    """A level's sandbox, tried out on this machine; or why it doesn't work."""
    if level == "landlock":
        return _landlock()
    if level == "bubblewrap":
        return _bubblewrap()
    walls = attempt("bubblewrap")
    if isinstance(walls, str):
        return walls
    groups = cgroups.find()
    return groups if isinstance(groups, str) else Sandbox(level, walls.walls, walls.command, groups)


def probe() -> Sandbox:
    """The strongest sandbox that works on this machine; its name says why when that is none."""
    found = [attempt(level) for level in LEVELS]
    return next((box for box in found if isinstance(box, Sandbox)), Sandbox(f"none ({found[1]}; {found[2]})"))


def _landlock() -> Sandbox | str:
    if sys.platform != "linux":
        return "Landlock is Linux's"
    from . import confine

    if confine.landlock_abi() < confine.NEEDED_ABI:
        return f"Landlock's version here is {confine.landlock_abi()}, {confine.NEEDED_ABI} is needed"
    if os.getuid() == 0:
        return "Landlock does not bind root: grade as an ordinary user"
    return Sandbox("landlock", "landlock")


def _bubblewrap() -> Sandbox | str:
    path = shutil.which("bwrap")
    if not path:
        return "bubblewrap is not installed"
    said = ""
    for user in _user_namespaces():
        test = [path, *user, *_namespaces(), *_mounts_of_system("/proc"), "--", "/bin/sh", "-c", "exit 0"]
        done = subprocess.run(test, capture_output=True, text=True, timeout=30)
        if done.returncode == 0:
            return Sandbox("bubblewrap", "bubblewrap", (path, *user))
        said = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"
    return f"bubblewrap does not start here: {said[:160]}"


def _user_namespaces() -> list[tuple[str, ...]]:
    """Ways to drop privileges; the last works where only root may make namespaces."""
    return [("--unshare-user", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL"), ("--cap-drop", "ALL")]


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


def _mounts_of_system(proc: str) -> list[str]:
    """System libraries, fonts, and fresh /dev, /tmp and home; /proc is new, or is left for later to cover."""
    mounts = []
    for place in SYSTEM:
        link = os.readlink(place) if os.path.islink(place) else None
        mounts += ["--symlink", link, place] if link else ["--ro-bind-try", place, place]
    for name in ETC:
        mounts += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    mounts += ["--proc", "/proc"] if proc == "/proc" else ["--bind", "/proc", "/proc"]
    mounts += ["--dev", "/dev", "--ro-bind", "/dev/null", "/dev/zero"]  # zeros could be mapped, uncounted
    return [*mounts, "--tmpfs", "/tmp", "--dir", INSIDE_HOME]


def command(
    box: Sandbox, inner: list[str], *, sockets: Path, hidden: Path, warm: bool, disk_mib: int
) -> list[str]:
    """The full command line: `inner` behind bubblewrap's walls, if those are the sandbox's.

    `sockets` can be written inside as INSIDE_SOCKETS, `hidden` is absent. A warm process may make
    namespaces and a /proc for each process that it forks; a process for one submission alone may not.
    """
    if box.walls != "bubblewrap":
        return inner
    mounts = _mounts_of_system("later" if warm else "/proc")
    for place in ("/dev/shm", "/tmp", INSIDE_HOME) if not warm else ():
        mounts += [
            *(("--size", str(disk_mib * 2**20)) if _can_size(box.command[0]) else ()),
            "--tmpfs",
            place,
        ]
    pythons = [*python_folders(), *extra_packages()]
    mounts += [part for folder in pythons for part in ("--ro-bind", folder, folder)]
    if any(_within(str(hidden), place) for place in (*SYSTEM, *pythons)):  # e.g. a course under /usr/local
        mounts += ["--tmpfs", str(hidden)]
        mounts += [part for f in pythons if _within(f, str(hidden)) for part in ("--ro-bind", f, f)]
    mounts += ["--ro-bind", str(PACKAGE), f"{INSIDE_KIT}/{PACKAGE.name}"]
    mounts += ["--bind", str(sockets), INSIDE_SOCKETS, "--chdir", "/"]
    mounts += [] if warm else ["--remount-ro", "/proc"]  # for root, the system's settings are in there
    mounts += ["--remount-ro", "/dev", "--remount-ro", "/"]  # or one submission could leave code for the next
    return [*box.command, *_namespaces(), *mounts, "--", *inner]


def readable() -> list[str]:
    """What a process under Landlock may read and run."""
    etc = [f"/etc/{name}" for name in ETC]
    return [*SYSTEM, *etc, *READABLE, *python_folders(), *extra_packages(), str(PACKAGE)]


def in_temporary_folders() -> list[str]:
    """Folders of this Python that lie where each submission gets an empty folder of its own."""
    found = [*python_folders(), *extra_packages()]
    return [folder for folder in found if any(_within(folder, place) for place in ("/tmp", "/dev/shm"))]


def shows(hidden: Path) -> bool:
    """Whether a folder lies inside one that every student's process may read."""
    return any(_within(str(hidden), place) for place in (*SYSTEM, *python_folders(), *extra_packages()))


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


def environment(box: Sandbox, *, home: str) -> dict[str, str]:
    """Environment variables of the student's process; nothing of the grader's own environment gets there."""
    kit = INSIDE_KIT if box.walls == "bubblewrap" else str(PACKAGE.parent)
    own = {
        "HOME": home,
        "USER": "student",
        "LOGNAME": "student",
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), "/usr/local/bin", "/usr/bin", "/bin"]),
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp" if box.walls == "bubblewrap" else home,
        "IPYTHONDIR": f"{home}/.ipython",
        "JUPYTER_RUNTIME_DIR": f"{home}/.jupyter",
        "MPLCONFIGDIR": f"{home}/.matplotlib",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "HF_HOME": f"{home}/.hf",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
        "NBGRADER_EXECUTION": "autograde",
        "OWL_STATE": f"{home}/.owl",
        "PYTHONPATH": os.pathsep.join([kit, *extra_packages()]),
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
    }
    return own | {name: "1" for name in THREADS}
