"""A process and all that it has started: who they are and what they use, from /proc where there is one."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OWNED = ("RssAnon", "RssShmem", "VmPTE", "VmSwap")
EXACT = ("Pss_Anon", "Pss_Shmem", "SwapPss")
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True)
class Use:
    """What processes use: MiB of memory (`owned`: their own, `resident`: with shared files), s of CPU."""

    owned: float = 0.0
    resident: float = 0.0
    cpu: float = 0.0
    processes: int = 0


def tree(root: int) -> list[int]:
    """A process and all of its descendants, itself first."""
    found = [root]
    if os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children"):
        for pid in found:
            found += _children(pid)
        return found
    parents: dict[int, list[int]] = {}
    for pid in _processes():
        parents.setdefault(_parent(pid), []).append(pid)
    for pid in found:
        found += parents.get(pid, [])
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += map(int, file.read().split())
    except OSError:
        return found
    return found


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return -1


def _processes() -> Iterator[int]:
    if os.path.isdir("/proc/self"):
        yield from (int(name) for name in os.listdir("/proc") if name.isdigit())


def use(pids: list[int], owned: tuple[str, ...] = OWNED) -> Use:
    """Memory, CPU time and number of these processes; those that ended meanwhile count nothing."""
    own = resident = ticks = alive = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines()
            times = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:
            continue
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
        own += sum(sizes.get(name, 0) for name in owned)
        resident += sizes.get("VmRSS", 0)
        ticks += sum(map(int, times[11:15]))
        alive += 1
    return Use(own / 1024, resident / 1024, ticks / TICKS, alive)


def exactly(pids: list[int], counted: tuple[str, ...] = EXACT) -> float:
    """MiB of memory that these processes own, or with ("Pss:",) use; what forks share counts once. Slow."""
    total = 0.0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith(counted))
            total += use([pid], ("VmPTE",)).owned * 1024
        except OSError:
            total += use([pid]).owned * 1024
    return total / 1024
