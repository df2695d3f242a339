"""Each sandbox level that works here, as this user and as an ordinary one: what a student's process can't do.

Every level's runs happen in one process of their own (`main`), started as the user in question.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import ordinary_user
import pytest
from test_run import GIB, MODULE, QUICK, RIGHT, ROOT, SORT, notebook

from openweightlab.grading import confine, judge, sandbox, wire
from openweightlab.grading.processes import tree, use
from openweightlab.grading.run import Limits, Record, Runner
from openweightlab.questions import modules

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sandboxes are Linux's")
LINES = ("cgroup+bubblewrap", "bubblewrap as an ordinary user", "landlock as an ordinary user")
WALLS = [*LINES, "none"]
SMALL = asdict(Limits(cell_seconds=30, memory_mib=700, disk_mib=64, processes=20, max_stretch=5))

# One cell that tries everything and tells what worked; the name says what would be wrong. What is tried does
# no lasting harm where it works.
PROBES = """
import ctypes, json, os, resource, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
call = libc.syscall
def works(act):
    try:
        return act() not in (False, None, -1, [], "")
    except BaseException:
        return False
def in_a_child(act):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if works(act) else 1)
    return os.waitpid(pid, 0)[1] == 0
def connects(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(2)
        s.connect(address)
        return True
def sends(family, address):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        return s.sendto(b"x", address)
def first_byte(path):
    return open(path, "rb").read(1)
def written(folder):
    path = os.path.join(folder, f"probe-{os.getpid()}")
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    os.unlink(path)
    return True
def of_others(name):
    own = {1, os.getpid(), os.getppid()}  # 1 is bubblewrap itself, with this environment
    pids = [int(p) for p in os.listdir("/proc") if p.isdigit() and int(p) not in own]
    return any(works(lambda: first_byte(f"/proc/{pid}/{name}")) for pid in pids)
def changed_mode():
    os.chmod(SECRET, 0o640)
    return os.stat(SECRET).st_mode & 0o777 == 0o640
def clone_with_namespace():
    pid = call(56, 0x10000000 | 17, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return pid > 0
def shared_memory():
    id = call(29, 0, 4096, 0o1600)
    return id >= 0 and call(31, id, 0, None) == 0
def message_queue():
    return call(240, b"owl-probe", 0o102, 0o600, None) >= 0 and call(241, b"owl-probe") == 0
def locked(path):
    import fcntl
    with open(path) as first, open(path) as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        return not works(lambda: fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB) is None)
def status(name):
    return [line.split()[1] for line in open("/proc/self/status") if line.startswith(name)][0]
def foreign_files():
    links = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if int(n) > 2
             and os.path.lexists(f"/proc/self/fd/{n}")]
    own = (os.environ["HOME"], "/proc", "/dev", "/tmp", IO, sys.prefix, sys.base_prefix)
    return [link for link in links if link.startswith("/") and not link.startswith(own)]
IO = os.environ.get("OWL_IO", "/io")
os.mkdir("probe")
probes = {
    "tcp out": lambda: connects(socket.AF_INET, ("127.0.0.1", PORT)),
    "udp out": lambda: sends(socket.AF_INET, ("127.0.0.1", PORT)),
    "unix socket": lambda: connects(socket.AF_UNIX, SOCKET),
    "unix datagram": lambda: sends(socket.AF_UNIX, DATAGRAM),
    "abstract socket": lambda: connects(socket.AF_UNIX, ABSTRACT),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "judge": lambda: first_byte(COURSE + "/judges/00_workbench.py"),
    "solution": lambda: first_byte(COURSE + "/solutions/00_workbench/00_workbench.ipynb"),
    "grader's file": lambda: first_byte(SECRET),
    "grader's file's mode": changed_mode,
    "list of the grader's folders": lambda: [n for n in os.listdir("/tmp") if n.startswith("test-")],
    "writing into the kit": lambda: written(KIT),
    "writing into Python": lambda: written(sys.prefix),
    "writing into /usr": lambda: written("/usr"),
    "writing beside the kit": lambda: written(os.path.dirname(KIT)),
    "writing anywhere else": lambda: [p for p in ("/", "/dev", "/etc", "/root", "/home", "/var", "/run")
                                      if works(lambda: written(p))],
    "the system's settings": lambda: os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY)) is None,
    "a lock on the kit": lambda: locked(KIT + "/__init__.py"),
    "a watch on the kit": lambda: libc.inotify_init() >= 0,
    "memory shared and of no file": lambda: __import__("mmap").mmap(-1, 4096),
    "a raw local socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_RAW),
    "others' memory": lambda: of_others("mem"),
    "others' environment": lambda: of_others("environ"),
    "a signal to the grader": lambda: os.kill(GRADER, 0) is None,
    "ptrace": lambda: in_a_child(lambda: call(101, 0x4206, os.getppid(), 0, 0) == 0),
    "a user namespace": lambda: in_a_child(lambda: libc.unshare(0x10000000) == 0),
    "a clone with a namespace": clone_with_namespace,
    "mount": lambda: libc.mount(b"probe", b"probe", None, 4096, None) == 0 and libc.umount(b"probe") == 0,
    "chroot": lambda: in_a_child(lambda: os.chroot("probe") is None),
    "io_uring": lambda: call(425, 8, ctypes.create_string_buffer(200)) >= 0,
    "bpf": lambda: call(321, 0, ctypes.create_string_buffer(200), 100) >= 0,
    "a key ring": lambda: call(250, 0, -3, 1) >= 0,
    "shared memory": shared_memory,
    "a message queue": message_queue,
    "uncounted memory": lambda: os.memfd_create("probe"),
    "the grader's limits": lambda: resource.prlimit(GRADER, resource.RLIMIT_CORE),
    "capabilities": lambda: int(status("CapEff"), 16),
    "new privileges": lambda: status("NoNewPrivs") != "1",
    "the environment's secrets": lambda: "hunter2" in str(dict(os.environ)) or "OWL_SEED" in os.environ,
    "open files of others": foreign_files,
}
print(json.dumps([name for name, act in probes.items() if works(act)]))
print("can:", json.dumps({
    "run a program": subprocess.run(["/bin/sh", "-c", "echo yes"], capture_output=True, text=True).stdout,
    "write at home": works(lambda: open("mine", "w").write("x")),
    "write a temporary file": works(lambda: __import__("tempfile").TemporaryFile().write(b"x")),
    "use threads": works(lambda: __import__("concurrent.futures").futures.ThreadPoolExecutor(4).submit(str)),
    "use pipes": works(lambda: __import__("multiprocessing").Pipe()),
    "copy a file": works(lambda: __import__("shutil").copy2("mine", "mine2")),
    "see itself": works(lambda: __import__("psutil").Process().memory_info().rss),
}))
"""
BOMBS = {
    "memory": "import time\nkept = []\nwhile True: kept.append(bytearray(b'x') * 10**7); time.sleep(0.01)",
    "files": "n = 0\nwhile True:\n    open(f'f{n}', 'wb').write(bytes(10**7)); n += 1",
    "processes": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "processor": "import os\nfor _ in range(2): os.fork()\nwhile True: pass",
    "depth": "import os\nfor _ in range(3000):\n    os.mkdir('d'); os.chdir('d')\nos.chmod('.', 0)",
}
STRAY = """
import os, subprocess, sys
code = "import os, time; os.setsid(); os.environ.clear(); time.sleep(4321)"
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        os.execve(sys.executable, [sys.executable, "-c", code], {})
    os._exit(0)
"""


@cache
def outcome(line: str) -> dict[str, Any]:
    """What came of all notebooks of this file at one level; skips, by name, what can't be had here."""
    level, _, ordinary = line.partition(" as ")
    user = ordinary_user.command if ordinary else lambda *words: list(words)
    if ordinary and ordinary_user.why_not():
        pytest.skip(f"{line}: {ordinary_user.why_not()}")
    if level not in ("none", "landlock") and isinstance(sandbox.attempt(level), str):
        pytest.skip(f"{line}: {sandbox.attempt(level)}")
    if level == "landlock" and confine.landlock_abi() < confine.NEEDED_ABI:
        pytest.skip(f"{line}: Landlock's version here is {confine.landlock_abi()}")
    words = user(sys.executable, str(Path(__file__).resolve()), level)
    env = {**os.environ, "OWL_SEED": "7", "SECRET": "hunter2", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, env=env, cwd="/")
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def main(level: str) -> None:
    """Run every notebook at one level and print what came, as JSON."""
    import socket

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="test-") as folder:
        tempfile.tempdir = folder
        names: dict[str, Any] = {"COURSE": str(ROOT), "GRADER": os.getpid(), "SECRET": f"{folder}/secret"}
        names |= {"SOCKET": f"{folder}/s", "DATAGRAM": f"{folder}/d", "ABSTRACT": f"\0owl-test-{os.getpid()}"}
        Path(names["SECRET"]).write_text("marks")
        servers = [socket.create_server(("127.0.0.1", 0))]
        for name, kind in (("SOCKET", socket.SOCK_STREAM), ("ABSTRACT", socket.SOCK_STREAM), ("DATAGRAM", 2)):
            servers.append(socket.socket(socket.AF_UNIX, kind))
            servers[-1].bind(names[name])
            if kind == socket.SOCK_STREAM:
                servers[-1].listen()
        names["PORT"] = servers[0].getsockname()[1]
        head = "\n".join(f"{name} = {value!r}" for name, value in names.items())
        head += "\nimport openweightlab, os\nKIT = os.path.dirname(openweightlab.__file__)\n"
        with Runner(level, hidden=ROOT) as runner:
            for name, (answers, scratch, limits) in notebooks(head, level).items():
                options = {"seed": 7, "limits": Limits(**limits), "judges_dir": ROOT / "judges"}
                record = runner.run(notebook(answers, *scratch), MODULE, **options)
                found[name] = asdict(record) | {"left": left_behind(runner)}
            found["warm"] = runner._starter.warm
        found["folders left"] = [name for name in os.listdir(folder) if name.startswith("owl-")]
    print(json.dumps(found))


def notebooks(head: str, level: str) -> dict[str, tuple[dict[str, str], list[str], dict[str, Any]]]:
    """Every notebook of this file: its answers, cells and limits."""
    two = {"Q0.2": GIB, "Q0.4": SORT}
    places = "('.', os.environ['TMPDIR'])" if level == "none" else "('.', '/tmp', '/dev/shm')"
    plant = f"import os\nfor place in {places}:\n    try: open(place + '/planted', 'w').write('x')"
    plant += "\n    except OSError: pass"
    look = f"import os\nprint([p for p in {places} if os.path.exists(p + '/planted')])"
    bombs = {name: ({"Q0.2": GIB}, [source], SMALL | {"cpu_seconds": 5}) for name, source in BOMBS.items()}
    if level == "none":
        bombs = {"files": bombs["files"]}  # the others could reach beyond the test
    return {
        "right": (RIGHT, [], asdict(QUICK) | {"cell_seconds": 60}),
        "probes": (two, [head + PROBES], asdict(QUICK) | {"cell_seconds": 60}),
        "plants": (two, [plant, STRAY], asdict(QUICK)),
        "looks": (two, [look], asdict(QUICK)),
        **bombs,
    }


def left_behind(runner: Runner) -> list[str]:
    """Programs below this one that belong to a submission which is over."""
    server = runner._starter._server
    keep = {os.getpid(), *(tree(server.process.pid) if server and runner.box.walls == "bubblewrap" else ())}
    keep |= {server.process.pid} if server else set()
    if server and runner.box.walls == "bubblewrap":
        keep -= {pid for pid in keep if "4321" in words_of(pid)}
    return [words_of(pid)[:80] for pid in tree(os.getpid()) if pid not in keep]


def words_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


# What must hold at each level


@pytest.mark.parametrize("line", WALLS)
def test_right_answers_get_full_marks_at_every_level(line: str) -> None:
    record = outcome(line)["right"]
    assert sum(entry["points"] for entry in record["questions"].values()) == 10, record
    assert record["status"] == "graded"
    assert record["flags"] == (["no-sandbox"] if line == "none" else [])
    assert record["sandbox"] == (sandbox.WITHOUT if line == "none" else line.partition(" as ")[0])
    assert outcome(line)["warm"], "the warm start worked"


@pytest.mark.parametrize("line", LINES)
def test_nothing_is_in_reach(line: str) -> None:
    found, can = probed(line)
    assert found == []
    assert all(can.values()), can


def probed(line: str) -> tuple[list[str], dict[str, Any]]:
    outputs = outcome(line)["probes"]["outputs"][1]
    return read_probes(outputs)


def read_probes(outputs: list[dict[str, Any]]) -> tuple[list[str], dict[str, Any]]:
    """What the probes printed, without warnings such as Python 3.12's of forks."""
    text = "".join(output["text"] for output in outputs if output.get("name") == "stdout")
    assert "can:" in text, outputs
    found, can = text.split("can:")
    return json.loads(found), json.loads(can)


def test_without_a_sandbox_most_of_it_is_in_reach() -> None:
    """So the probes do find what there is."""
    found, _ = probed("none")
    assert {"tcp out", "unix socket", "unix datagram", "abstract socket", "judge", "solution"} <= set(found)
    assert {"grader's file", "grader's file's mode", "a signal to the grader", "shared memory"} <= set(found)


@pytest.mark.parametrize(("line", "bomb"), [*product(LINES, BOMBS), ("none", "files")])
def test_a_bomb_costs_nothing_but_itself(line: str, bomb: str) -> None:
    record = outcome(line)[bomb]
    assert record["questions"]["Q0.2"]["points"] == 2, record
    words = {
        "memory": "700 MiB of memory",
        "files": "64 MiB of files",
        "processes": "processes",
        "processor": "5 s of processor time",
        "depth": "64 MiB of files",
    }
    full = bomb in ("files", "depth") and record["status"] == "graded"  # behind bubblewrap the disk is full
    assert words[bomb] in record["reason"] or full, record["reason"]
    if full and bomb == "files":
        assert "No space left" in json.dumps(record["outputs"])
    assert record["peak_mib"] < 3000


@pytest.mark.parametrize("line", LINES)
def test_nothing_outlives_a_submission(line: str) -> None:
    found = outcome(line)
    assert found["looks"]["outputs"][1][0]["text"].strip() == "[]"
    assert leftovers(found) == {}
    assert found["folders left"] == []


def leftovers(found: dict[str, Any]) -> dict[str, list[str]]:
    return {name: record["left"] for name, record in found.items() if name in BOMBS and record["left"]}


def test_strays_end_without_a_sandbox_too() -> None:
    assert leftovers(outcome("none")) == {}


# The warm start


@pytest.fixture(scope="module")
def box() -> str:
    """The strongest level here."""
    best = sandbox.probe()
    if not best.isolated:
        pytest.skip(f"no sandbox works here: {best.name}")
    return best.name


def run(runner: Runner, *scratch: str) -> Record:
    book = notebook({"Q0.2": GIB, "Q0.4": SORT}, *scratch)
    return runner.run(book, MODULE, seed=7, limits=QUICK, judges_dir=ROOT / "judges")


def test_nothing_is_in_reach_after_a_cold_start_either(box: str) -> None:
    names = {"PORT": 9, "SOCKET": "x", "DATAGRAM": "x", "ABSTRACT": "x", "COURSE": str(ROOT), "SECRET": "/x"}
    head = "\n".join(f"{name} = {value!r}" for name, value in (names | {"GRADER": os.getpid()}).items())
    head += "\nimport openweightlab, os\nKIT = os.path.dirname(openweightlab.__file__)\n"
    with Runner(box, hidden=ROOT, warm=False) as runner:
        outputs = run(runner, head + PROBES).outputs[1]
    found, can = read_probes(outputs)
    assert found == [] and all(can.values()), can


def test_a_cold_start_gives_the_same_record(box: str) -> None:
    cell = "import os; print(os.getcwd(), os.environ['HOME'], os.environ['IPYTHONDIR'])"
    records = []
    for warm in (True, False):
        with Runner(box, hidden=ROOT, warm=warm) as runner:
            records.append(run(runner, cell))
            assert runner._starter.warm is warm
    for record in records:
        record.seconds = record.peak_mib = 0.0
    assert records[0] == records[1]


def test_a_fork_server_that_dies_is_started_anew(box: str) -> None:
    with Runner(box, hidden=ROOT) as runner:
        assert run(runner).points == 4
        server = runner._starter._server
        assert server
        for pid in reversed(tree(server.process.pid)):
            os.kill(pid, signal.SIGKILL)
        assert run(runner).points == 4 and runner._starter.warm
        server = runner._starter._server
        assert server
    assert not [pid for pid in tree(server.process.pid) if os.path.exists(f"/proc/{pid}")]


def test_where_forks_cannot_be_parted_the_start_is_cold(box: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork server that can't make namespaces says so, and every submission gets a process of its own."""
    real = sandbox.command

    def without_namespaces(*arguments: Any, **options: Any) -> list[str]:
        words = real(*arguments, **options)
        return [*words[: words.index("--")], "--disable-userns", *words[words.index("--") :]]

    if "bubblewrap" not in box or "--unshare-user" not in sandbox.choose(box).command:
        pytest.skip(f"{box} makes no user namespaces")
    monkeypatch.setattr(sandbox, "command", without_namespaces)
    with Runner(box, hidden=ROOT) as runner:
        assert [run(runner).points, run(runner).points] == [4, 4]
        assert not runner._starter.warm


def test_memory_does_not_grow_from_run_to_run(box: str) -> None:
    with Runner(box, hidden=ROOT) as runner:
        sizes = []
        for _ in range(8):
            run(runner)
            assert runner._starter._server
            server = use(tree(runner._starter._server.process.pid)).owned
            sizes.append(use([os.getpid()]).owned + server)
    assert sizes[-1] - sizes[2] < 10, sizes
    assert len(os.listdir("/proc/self/fd")) < 60


def test_the_grader_s_end_is_the_students_end(box: str) -> None:
    """Killed like by a power cut, the grader leaves no process and no student's program behind."""
    code = (
        "import sys; from pathlib import Path; from test_sandbox import *\n"
        f"with Runner({box!r}, hidden=ROOT) as r: run(r, 'print(1)', 'import time; time.sleep(99)')"
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    grader = subprocess.Popen([sys.executable, "-c", code], env=env, cwd="/")
    deadline = time.monotonic() + 120
    while len(tree(grader.pid)) < 5:
        assert time.monotonic() < deadline and grader.poll() is None
        time.sleep(0.1)
    below = tree(grader.pid)[1:]
    grader.kill()
    grader.wait()
    while any(alive(pid) for pid in below):
        assert time.monotonic() < deadline, below
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# Refusals and parts


def test_without_a_sandbox_grading_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "attempt", lambda level: f"{level} is not to be had")
    with pytest.raises(RuntimeError, match=r"none works here.*landlock is not to be had.*--no-sandbox"):
        sandbox.choose("auto")
    with pytest.raises(RuntimeError, match="bubblewrap is not to be had"):
        sandbox.choose("bubblewrap")
    with pytest.raises(ValueError, match="must be one of"):
        sandbox.choose("docker")
    assert not sandbox.choose("none").isolated and not sandbox.probe().isolated


def test_landlock_is_not_trusted_with_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "landlock_abi", lambda: 7)
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert "ordinary user" in str(sandbox._landlock())
    monkeypatch.setattr(confine, "landlock_abi", lambda: 4)
    assert "4, 6 is needed" in str(sandbox._landlock())


def test_the_filter_has_a_number_for_every_call_on_both_processors() -> None:
    tables = [confine.FORBIDDEN, confine.UNKNOWN, confine.OWN_PROCESS_ONLY, confine.OWN_PRIORITY_ONLY]
    for column in (0, 1):
        numbers = [pair[column] for table in tables for pair in table.values()]
        numbers = [number for number in numbers if number != confine.NONE]
        assert len(numbers) == len(set(numbers)) and min(numbers) > 0


@pytest.mark.parametrize("module", modules())
def test_kept_cases_are_read_back_and_not_drawn_anew(module: str, tmp_path: Path) -> None:
    drawn = judge.draw(ROOT / "judges", module, 5, tmp_path)
    (file,) = tmp_path.iterdir()
    made = file.stat().st_mtime_ns
    again = judge.draw(ROOT / "judges", module, 5, tmp_path)
    assert file.stat().st_mtime_ns == made
    assert (
        wire.pack({id: [asdict(case) for case in cases] for id, cases in again.items()}) == file.read_bytes()
    )
    assert list(again) == list(drawn)


if __name__ == "__main__":
    main(sys.argv[1])
