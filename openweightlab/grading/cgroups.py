"""Control groups: the kernel's own limit on a submission's memory and processes, all of them together.

Version 2 needs a group that was delegated to this user, e.g. by `systemd-run --user --scope -p Delegate=yes`;
of version 1 the hierarchies `memory` and `pids` must be writable. `find()` says what is missing.
Source: the Linux kernel's admin guide, cgroup-v2 and cgroup-v1/memory.
"""

import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

WANTED = ("memory", "pids")
MEMORY_FILES = ("memory.max", "memory.limit_in_bytes")  # version 2, version 1
OWN = "owl-grader"  # the sub-group that the grader itself moves to
EVENTS = ("memory.events", "memory.oom_control")


@dataclass(frozen=True)
class Group:
    """One submission's group: a folder for each controller (the same one in version 2)."""

    folders: Mapping[str, Path]

    def add(self, pid: int) -> None:
        """Put a process in, and with it all that it is going to start."""
        for folder in set(self.folders.values()):
            (folder / "cgroup.procs").write_text(str(pid))

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel ended a process of the group for want of memory."""
        for name in EVENTS:
            try:
                lines = (self.folders["memory"] / name).read_text().splitlines()
            except OSError:
                continue
            return any(line.split()[0] == "oom_kill" and line.split()[1] != "0" for line in lines)
        return False

    def close(self) -> None:
        """End what still runs in it and remove it."""
        for folder in set(self.folders.values()):
            _kill(folder)
            for _ in range(50):
                try:
                    folder.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.02)


def _kill(folder: Path) -> None:
    """End every process of a group, however fast they multiply."""
    try:
        (folder / "cgroup.kill").write_text("1")
    except OSError:
        for _ in range(100):  # version 1 has no such file
            try:
                pids = [int(line) for line in (folder / "cgroup.procs").read_text().split()]
            except OSError:
                return
            for pid in pids:
                try:
                    os.kill(pid, 9)
                except OSError:
                    continue
            if not pids:
                return


@dataclass(frozen=True)
class Parent:
    """The group in which submissions' groups can be made."""

    folders: Mapping[str, Path]

    def make(self, memory_mib: int, tasks: int) -> Group:
        """A group with limits, still empty; raises OSError."""
        name = f"owl-{secrets.token_hex(6)}"
        group = Group({controller: folder / name for controller, folder in self.folders.items()})
        for folder in set(group.folders.values()):
            folder.mkdir()
        try:
            _limit_memory(group.folders["memory"], memory_mib * 2**20)
            (group.folders["pids"] / "pids.max").write_text(str(tasks))
        except OSError:
            group.close()
            raise
        return group


def _limit_memory(folder: Path, most: int) -> None:
    file = next(folder / name for name in MEMORY_FILES if (folder / name).exists())
    file.write_text(str(most))
    for name, value in {"memory.swap.max": 0, "memory.memsw.limit_in_bytes": most}.items():
        if (folder / name).exists():  # not where swap is not accounted
            (folder / name).write_text(str(value))


def find() -> Parent | str:
    """The group to make groups in, tried out; or why there is none."""
    try:
        mounts, own = _mounts(), _own_groups()
        parent = Parent({name: _folder(name, mounts, own) for name in WANTED})
        if parent.folders["memory"] == parent.folders["pids"]:
            _delegate(parent.folders["memory"])
        parent.make(64, 10).close()
    except (OSError, StopIteration, KeyError) as error:
        return f"no control group can be made here ({str(error) or 'controllers memory and pids not found'})"
    return parent


def _mounts() -> dict[str, Path]:
    """Where each controller of version 1 is mounted, and version 2 under an empty name."""
    found = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2":
            found[""] = Path(place)
        elif kind == "cgroup":
            found |= {name: Path(place) for name in options.split(",") if name in WANTED}
    return found


def _own_groups() -> dict[str, str]:
    """This process's group by controller, version 2's under an empty name."""
    found: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        found |= {name: path for name in controllers.split(",")}
    return found


def _folder(controller: str, mounts: dict[str, Path], own: dict[str, str]) -> Path:
    """The folder of this process's own group for a controller; raises KeyError where there is none."""
    if controller in mounts:
        return mounts[controller] / own[controller].lstrip("/")
    folder = mounts[""] / own[""].lstrip("/")
    folder = folder.parent if folder.name == OWN else folder
    if controller not in (folder / "cgroup.controllers").read_text().split():
        raise KeyError(f"the controller {controller} is not given to {folder}")
    return folder


def _delegate(folder: Path) -> None:
    """In version 2: let sub-groups have the controllers; raises OSError.

    A group with processes of its own can't, so this process moves to a sub-group first, if it is alone.
    """
    switch, wanted = folder / "cgroup.subtree_control", " ".join(f"+{name}" for name in WANTED)
    if set(WANTED) <= set(switch.read_text().split()):
        return
    try:
        switch.write_text(wanted)
    except OSError:
        if (folder / "cgroup.procs").read_text().split() != [str(os.getpid())]:
            raise
        (folder / OWN).mkdir(exist_ok=True)
        (folder / OWN / "cgroup.procs").write_text(str(os.getpid()))
        switch.write_text(wanted)
