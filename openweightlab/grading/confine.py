"""What a student's process gives up before any of the student's code runs; Linux only, no way back.

Namespaces part it from other submissions, Landlock from files (where bubblewrap can't be had), seccomp from
system calls that no notebook needs, rlimits from more than its share. The kernel's own interfaces are called
through ctypes: the Python packages for Landlock and seccomp are no longer kept up, and this is all they do.
Sources: man pages unshare(2), landlock(7), seccomp(2), capabilities(7), getrlimit(2).
"""

import ctypes
import os
import platform
import resource
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)

NEW_NS, NEW_CGROUP, NEW_UTS, NEW_IPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEW_USER, NEW_PID, NEW_NET = 0x10000000, 0x20000000, 0x40000000
ALL_NEW = NEW_NS | NEW_CGROUP | NEW_UTS | NEW_IPC | NEW_USER | NEW_PID | NEW_NET
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP = 1, 4, 22
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
EPERM, ENOSYS, EOPNOTSUPP = 1, 38, 95  # ZeroMQ takes the last for "no network" and goes on


def _ok(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int = 0) -> None:
    """Call prctl(2) with one argument; raises OSError."""
    _ok(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl({option})")


# Limits


def limit(memory_mib: int, cpu_seconds: float, file_mib: int, tasks: int) -> None:
    """Set rlimits for this process and its children.

    The memory limit lies above the watcher's: one huge allocation fails at once and politely. `tasks` counts
    processes and threads, of this user in this user namespace.
    """
    limits = {
        "RLIMIT_DATA": (memory_mib + 1024) * 2**20,
        "RLIMIT_CPU": int(cpu_seconds) + 5,
        "RLIMIT_FSIZE": file_mib * 2**20,
        "RLIMIT_NPROC": tasks,
        "RLIMIT_NOFILE": 256,
        "RLIMIT_CORE": 0,
    }
    for name, most in limits.items():
        kind = getattr(resource, name, NONE)
        if kind is not None:
            _, hard = resource.getrlimit(kind)
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (most, most))


def tasks_of_user() -> int:
    """How many processes and threads this user has now, in sum."""
    found = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{name}").st_uid == os.getuid():
                found += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            continue
    return found


# Namespaces: apart from the other submissions that the same process forks


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Call mount(2); raises OSError."""
    arguments = source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags)
    _ok(libc.mount(*arguments, data.encode() or None), f"mount {kind or 'bind'} on {target}")


def leave_siblings(sockets: Path, own: str, home: Path, disk_mib: int, kept: Iterable[str]) -> None:
    """Give this process namespaces of its own and its children a process tree of their own.

    Of the folder `sockets` only its sub-folder `own` stays, under the name of the folder itself; /tmp,
    /dev/shm and `home` become folders of one new tmpfs, in which folders `kept` are seen as before. Raises
    OSError.
    """
    uid, gid = os.getuid(), os.getgid()
    _ok(libc.unshare(ALL_NEW), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    handles = {folder: os.open(folder, os.O_PATH | os.O_DIRECTORY) for folder in kept}
    mount(str(sockets / own), str(sockets), "", MS_BIND)
    mount("tmpfs", str(home), "tmpfs", MS_NOSUID | MS_NODEV, f"size={disk_mib}m,nr_inodes=50000,mode=755")
    for place in ("/tmp", "/dev/shm"):
        inside = home / f".{Path(place).name}"
        inside.mkdir()
        mount(str(inside), place, "", MS_BIND)
    for folder, handle in handles.items():
        os.makedirs(folder, exist_ok=True)
        mount(f"/proc/self/fd/{handle}", folder, "", MS_BIND | MS_REC)
        os.close(handle)


def mount_proc() -> None:
    """Show only the processes of this process's own namespace in /proc, read-only; raises OSError."""
    mount("proc", "/proc", "proc", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)


def drop_capabilities() -> None:
    """Give up every capability, for good: no program that is started can bring one back."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    header = struct.pack("Ii", 0x20080522, 0)
    _ok(libc.capset(header, bytes(24)), "capset")


# Landlock: only these files, no TCP, no signals beyond its own processes

LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446  # the same on every architecture
FS_EXECUTE, FS_WRITE_FILE, FS_READ_FILE, FS_READ_DIR = 1, 2, 4, 8
FS_FILE_ONLY = FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | 1 << 14 | 1 << 15  # with truncate, ioctl
FS_ALL = (1 << 16) - 1
FS_NO_DEVICES = FS_ALL & ~(1 << 6 | 1 << 11)  # no making of character or block devices
NET_ALL, SCOPE_ALL = 3, 3
NEEDED_ABI = 6  # the first that keeps signals and abstract sockets inside; Linux 6.12


def landlock_abi() -> int:
    """The version of Landlock that this system offers, 0 for none."""
    return max(int(libc.syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)), 0)


def landlock(readable: Iterable[str], writable: Iterable[str]) -> None:
    """Leave this process and its children only these folders and files, no TCP, no signals to others.

    Paths that are not there are passed by. Raises OSError.
    """
    rules = struct.pack("QQQ", FS_ALL, NET_ALL, SCOPE_ALL)
    ruleset = _ok(libc.syscall(LANDLOCK_CREATE, rules, ctypes.c_size_t(len(rules)), 0), "Landlock")
    for path in readable:
        _allow(ruleset, path, FS_EXECUTE | FS_READ_FILE | FS_READ_DIR)
    for path in writable:
        _allow(ruleset, path, FS_NO_DEVICES)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    _ok(libc.syscall(LANDLOCK_RESTRICT, ruleset, 0), "Landlock")
    os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    access &= FS_ALL if os.path.isdir(path) else FS_FILE_ONLY
    rule = struct.pack("=Qi", access, handle)
    _ok(libc.syscall(LANDLOCK_ADD, ruleset, 1, rule, 0), f"Landlock for {path}")
    os.close(handle)


# seccomp: system calls that no notebook needs

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
NONE = 2**32 - 1  # no such call there
FORBIDDEN = {  # name: (number on x86_64, on aarch64); numbers from 424 on are the same everywhere
    **{"connect": (42, 203), "ptrace": (101, 117), "process_vm_readv": (310, 270)},
    **{"process_vm_writev": (311, 271), "kcmp": (312, 272), "pidfd_getfd": (438, 438)},
    **{"io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427)},
    **{"bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282)},
    **{"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219)},
    **{"unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39)},
    **{"pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429)},
    **{"fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433)},
    **{"mount_setattr": (442, 442), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264)},
    **{"shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190)},
    **{"semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186)},
    **{"msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187), "mq_open": (240, 180)},
    **{"inotify_init": (253, NONE), "inotify_init1": (294, 26), "fanotify_init": (300, 262)},
    **{"lookup_dcookie": (212, 18), "personality": (135, 92)},
}
OWN_PROCESS_ONLY = {  # without effect unless the first argument, a process, is 0: the caller
    **{"sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118)},
    **{"sched_setattr": (314, 274), "migrate_pages": (256, 238), "move_pages": (279, 239)},
}
# fcntl's commands by which two submissions could signal to each other over files that both may read
LOCKS, LOOKS, NOTICES = (6, 7, 37, 38), (5, 36), (1024, 1026)
OWN_PRIORITY_ONLY = {"setpriority": (141, 140), "ioprio_set": (251, 30)}  # the second argument
WITHOUT_EFFECT = {  # changes of files' modes, owners and times, which Landlock can't confine to one folder
    **{"chmod": (90, NONE), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452)},
    **{"chown": (92, NONE), "fchown": (93, 55), "lchown": (94, NONE), "fchownat": (260, 54)},
    **{"utime": (132, NONE), "utimes": (235, NONE), "futimesat": (261, NONE), "utimensat": (280, 88)},
    **{"setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14)},
    **{"lremovexattr": (198, 15), "fremovexattr": (199, 16)},
}
UNKNOWN = {  # as if there were no such call: memory that no limit counts; a clone whose flags can't be seen
    **{"memfd_create": (319, 279), "memfd_secret": (447, 447), "clone3": (435, 435)},
}
SOCKET, SOCKETPAIR, CLONE, PRLIMIT = (41, 198), (53, 199), (56, 220), (302, 261)
FCNTL, FLOCK, MMAP = (72, 25), (73, 32), (9, 222)
AF_UNIX, SOCK_STREAM, SOCK_SEQPACKET = 1, 1, 5
SHARED = 0x21  # shared and of no file: memory that no limit counts once it is let go of
X32 = 0x40000000

LOAD, EQUAL, ABOVE, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
Step = tuple[int, int, int, int]


def seccomp(keep_modes: bool = False) -> None:
    """Refuse system calls that reach other processes, networks, namespaces or the system's own settings.

    keep_modes: calls that change files' modes, owners or times succeed without effect. Raises OSError, also
    on processors for which the numbers of the calls are not known here.
    """
    steps = list(_program(keep_modes))
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(buffer))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    _ok(libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(2), program, 0, 0), "seccomp")


def _program(keep_modes: bool) -> Iterator[Step]:
    """The filter: each rule jumps over its own verdict when it doesn't apply."""
    if platform.machine() not in ARCHITECTURES:
        raise OSError(ENOSYS, f"seccomp: no list of system calls for {platform.machine()}")
    audit, column = ARCHITECTURES[platform.machine()]
    refuse = ERRNO | EPERM
    yield from [(LOAD, 0, 0, 4), (EQUAL, 1, 0, audit), (RETURN, 0, 0, KILL)]
    yield from [(LOAD, 0, 0, 0)]
    if column == 0:
        yield from [(ABOVE, 0, 1, X32), (RETURN, 0, 0, KILL)]
    for numbers in FORBIDDEN.values():
        yield from [(EQUAL, 0, 1, numbers[column]), (RETURN, 0, 0, refuse)]
    for numbers in UNKNOWN.values():
        yield from [(EQUAL, 0, 1, numbers[column]), (RETURN, 0, 0, ERRNO | ENOSYS)]
    if keep_modes:
        for numbers in WITHOUT_EFFECT.values():
            yield from [(EQUAL, 0, 1, numbers[column]), (RETURN, 0, 0, ERRNO)]
    for table, argument in ((OWN_PROCESS_ONLY, 0), (OWN_PRIORITY_ONLY, 1)):
        for numbers in table.values():
            yield from _unless(numbers[column], argument, [(EQUAL, 1, 0, 0)], ERRNO)
    yield from [(EQUAL, 0, 1, FLOCK[column]), (RETURN, 0, 0, ERRNO)]
    for command in LOCKS:
        yield from _unless(FCNTL[column], 1, [(EQUAL, 0, 1, command)], ERRNO)
    for command in (*LOOKS, *NOTICES):
        yield from _unless(FCNTL[column], 1, [(EQUAL, 0, 1, command)], refuse)
    yield from _unless(MMAP[column], 3, [(AND, 0, 0, SHARED), (EQUAL, 0, 1, SHARED)], refuse)
    yield from _unless(PRLIMIT[column], 0, [(EQUAL, 1, 0, 0)], refuse)
    yield from _unless(CLONE[column], 0, [(ANY_BIT, 0, 1, ALL_NEW)], refuse)
    yield from _unless(SOCKET[column], 0, [(EQUAL, 1, 0, AF_UNIX)], ERRNO | EOPNOTSUPP)
    for call in (SOCKET, SOCKETPAIR):  # streams and the like: datagrams can be addressed without connect
        test = [(AND, 0, 0, 0xF), (EQUAL, 2, 0, SOCK_STREAM), (EQUAL, 1, 0, SOCK_SEQPACKET)]
        yield from _unless(call[column], 1, test, refuse)
    yield (RETURN, 0, 0, ALLOW)


def _unless(number: int, argument: int, test: list[Step], verdict: int) -> list[Step]:
    """For one system call: look at an argument (its lower half), and return the verdict or go on.

    The test's last step jumps 0 ahead to the verdict, or 1 ahead past it.
    """
    body = [(LOAD, 0, 0, 16 + 8 * argument), *test, (RETURN, 0, 0, verdict), (LOAD, 0, 0, 0)]
    return [(EQUAL, 0, len(body), number), *body]
