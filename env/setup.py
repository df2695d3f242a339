"""Make `.venv/`, install the locked packages and the kit into it, then run one job there.

    python env/setup.py lab [--smoke] [--instructor]     JupyterLab on the first lesson
    python env/setup.py test [pytest's options]          every test that needs no GPU and no network
    python env/setup.py bench | notebooks [--check]      measurements | build the notebooks

`make lab` is the same as the first line. Standard library only; any system's Python starts it, and
Python 3.11 to 3.13 does the work. A second call installs nothing and starts at once; after a broken-off
call it finishes the work.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
ENV = ROOT / "env"
WINDOWS = os.name == "nt"
BIN = VENV / ("Scripts" if WINDOWS else "bin")
PYTHON = BIN / ("python.exe" if WINDOWS else "python")
STAMP = VENV / "openweightlab.json"  # written last: what is installed, and where
PYTHONS = ((3, 11), (3, 12), (3, 13))
TORCH_INDEX = "https://download.pytorch.org/whl/"  # PyTorch's own builds; the only address in the kit
FREE_GB = {"cpu": 3.0, "cuda": 12.0}  # disk that a first installation takes, downloads included
JOBS = {  # job -> (what must be installed, what runs)
    "lab": (["lab"], ["-m", "openweightlab.cli", "lab"]),
    "test": (["lab", "test"], ["-m", "pytest", "-n", "2", "--dist", "loadfile"]),
    "bench": (["lab", "test"], [str(ENV / "bench.py")]),
    "notebooks": (["lab", "test"], ["-m", "openweightlab.cli", "notebooks"]),
}


class Stop(Exception):
    """What went wrong and what to do about it, in words for a newcomer."""


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


# --- a Python to build with -------------------------------------------------------------------------


def candidates() -> list[list[str]]:
    """Commands that may start a fitting Python, the newest first."""
    versions = [f"{major}.{minor}" for major, minor in reversed(PYTHONS)]
    named = [["py", f"-{v}"] for v in versions] if WINDOWS else [[f"python{v}"] for v in versions]
    return [*named, ["python3"], ["python"]]


def version_of(command: Sequence[str]) -> tuple[int, ...] | None:
    """(major, minor) of the Python that `command` starts; None where it starts none."""
    code = "import sys; print(*sys.version_info[:2])"
    try:
        done = subprocess.run([*command, "-c", code], capture_output=True, text=True, timeout=30)
        return tuple(map(int, done.stdout.split())) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def other_python() -> list[str]:
    """A command that starts Python 3.11 to 3.13; raises Stop where there is none."""
    for command in candidates():
        if version_of(command) in PYTHONS:
            return command
    raise Stop(
        f"Open-Weight Lab needs Python 3.11, 3.12 or 3.13; this is {platform.python_version()} and no other "
        "was found. Install one (from python.org, or with your system's package manager), then call again."
    )


# --- what is there already ---------------------------------------------------------------------------


def fingerprint(part: str, variant: str) -> str:
    """A hash of the files that decide what `part` ("lab" or "test") installs."""
    files = [ROOT / "pyproject.toml", lock_file(part, variant)]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def lock_file(part: str, variant: str) -> Path:
    """The lock file behind one part, e.g. env/lock-cpu.txt for ("lab", "cpu")."""
    return ENV / f"lock-{variant if part == 'lab' else part}.txt"


def read_stamp() -> dict:
    """What the last finished installation wrote; {} where none finished here."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
        return stamp if stamp["root"] == str(ROOT) and PYTHON.exists() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def missing_parts(parts: Sequence[str]) -> list[str]:
    """Those of `parts` that are not installed as the lock files say now."""
    stamp = read_stamp()
    done = stamp.get("parts", {})
    return [part for part in parts if done.get(part) != fingerprint(part, stamp.get("variant", "cpu"))]


def write_stamp(variant: str, parts: Sequence[str]) -> None:
    """Remember that `parts` are installed; the file appears whole or not at all."""
    done = {**read_stamp().get("parts", {}), **{part: fingerprint(part, variant) for part in parts}}
    draft = STAMP.with_suffix(".part")
    draft.write_text(json.dumps({"root": str(ROOT), "variant": variant, "parts": done}), encoding="utf-8")
    os.replace(draft, STAMP)


def lock_lines(part: str, variant: str) -> list[str]:
    """The pins of one part, "name==version ; marker", without comments."""
    text = lock_file(part, variant).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


# --- checks before anything is written -----------------------------------------------------------------


def has_gpu() -> bool:
    """Whether an NVIDIA driver answers here."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    try:
        listing = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listing.returncode == 0 and "GPU" in listing.stdout


def check_machine(variant: str) -> None:
    """Raises Stop where this folder, this disk or this machine can't carry the kit."""
    if sys.platform == "darwin" and platform.machine() == "x86_64":
        raise Stop(
            "PyTorch is no longer built for Macs with Intel processors. Use the Colab door in README.md."
        )
    try:
        tempfile.TemporaryFile(dir=ROOT).close()
    except OSError as error:
        raise Stop(
            f"This folder can't be written to ({error.strerror}): {ROOT}. "
            "Copy the course to a folder of your own, then call again there."
        ) from error
    free = shutil.disk_usage(ROOT).free / 1e9
    if not (VENV / "pyvenv.cfg").exists() and free < FREE_GB[variant]:
        raise Stop(
            f"The disk under {ROOT} has {free:.1f} GB free, and the first set-up takes up "
            f"to {FREE_GB[variant]:.0f} GB. Free some or move the course to a larger disk, then call again."
        )


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold this folder's set-up lock, so that two calls at once don't write into one .venv."""
    name = "openweightlab-" + hashlib.sha256(str(ROOT).encode()).hexdigest()[:16]
    with open(Path(tempfile.gettempdir(), name), "w") as file:
        if not try_lock(file):
            say("Another set-up is at work in this folder; waiting for it.")
            while not try_lock(file):
                time.sleep(1)
        yield  # closing the file gives the lock back, and so does the end of the process


def try_lock(file: IO[str]) -> bool:
    """Take the lock on an open file if nobody holds it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


# --- making .venv --------------------------------------------------------------------------------------


def make_venv() -> None:
    """A working .venv with pip: new, or the one that is there with what a broken-off call left cleaned up."""
    version = version_of([str(PYTHON)]) if VENV.exists() else None
    if version is not None and version not in PYTHONS:
        raise Stop(
            f".venv holds Python {'.'.join(map(str, version))}, and the kit needs 3.11 to 3.13. "
            "Delete the folder .venv, then call again."
        )
    if version is None or moved():
        if VENV.exists():
            say("The .venv here is broken or was moved: making it anew.")
        venv("--clear")
    elif not has_pip():
        venv()
    sweep()


def moved() -> bool:
    """Whether .venv was finished in another folder: its scripts name that folder and no longer start."""
    try:
        return json.loads(STAMP.read_text(encoding="utf-8"))["root"] != str(ROOT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def has_pip() -> bool:
    """Whether .venv's pip starts."""
    return subprocess.run([str(PYTHON), "-m", "pip", "--version"], capture_output=True).returncode == 0


def venv(*options: str) -> None:
    """Run the venv module on .venv; raises Stop where it can't."""
    if importlib.util.find_spec("ensurepip") is None:
        raise Stop(
            f"This Python {platform.python_version()} comes without the module ensurepip. "
            f"On Debian or Ubuntu: sudo apt install python3.{sys.version_info.minor}-venv, then call again."
        )
    done = subprocess.run(
        [sys.executable, "-m", "venv", *options, str(VENV)], capture_output=True, text=True, env=environment()
    )
    if done.returncode:
        raise Stop(explain(done.stdout + done.stderr, "make .venv"))


def sweep() -> list[Path]:
    """Remove the records of packages whose installation was broken off, so that pip installs them again.

    pip writes a package's INSTALLER file after all its other files.
    """
    places = [*VENV.glob("lib/python*/site-packages/*"), *VENV.glob("Lib/site-packages/*")]
    folders = [place for place in places if place.is_dir()]
    broken = [f for f in folders if f.suffix == ".dist-info" and not (f / "INSTALLER").exists()]
    broken += [f for f in folders if f.name.startswith("~")]
    for folder in broken:
        shutil.rmtree(folder)
    return broken


# --- pip -----------------------------------------------------------------------------------------------

REASONS = (  # in pip's words -> in ours; the first that matches tells
    (
        r"No space left|Errno 28|not enough space",
        "the disk is full. Free some space (a first set-up takes about 3 GB), then call again: "
        "it goes on from here",
    ),
    (
        r"Long Path|WinError 206",
        "the path is too long for Windows. Move the course to a short path such as C:\\owl, then call again",
    ),
    (
        r"Permission denied|Access is denied|Read-only file system|WinError (5|32)\b",
        "a file in .venv can't be written. Close every JupyterLab that uses it and check who owns the "
        "folder, then call again",
    ),
    (
        r"Connection|connection|resolve|resolution|timed out|Retrying|Max retries|ProxyError|SSLError",
        "the package index can't be reached. Check the network (and the proxy, if you use one), "
        "then call again: what is already installed stays",
    ),
    (
        r"No matching distribution|Could not find a version",
        "a package has no build for this Python and system ({python}, {system}). "
        "Use a 64-bit Python 3.11, 3.12 or 3.13",
    ),
)


def explain(output: str, what: str) -> str:
    """One sentence on why `what` failed, from the program's own output."""
    system = f"{platform.system()} {platform.machine()}"
    for pattern, reason in REASONS:
        if re.search(pattern, output):
            return f"Could not {what}: {reason.format(python=platform.python_version(), system=system)}."
    return f"Could not {what}; its last words: {last_words(output)}. Delete the folder .venv and call again."


def last_words(output: str) -> str:
    """The last line that tells of an error, else the last that says something."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["nothing"]
    return ([line for line in lines if "error" in line.lower()] or lines)[-1]


def environment() -> dict[str, str]:
    """The environment for programs of .venv: its scripts found first, other Pythons' settings left out."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH")}
    path = os.pathsep.join([str(BIN), env.get("PATH", "")])
    return {**env, "PATH": path, "VIRTUAL_ENV": str(VENV), "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}


def pip(what: str, *arguments: str) -> None:
    """Run `pip install`: its own bars on a terminal, else a line per large download; raises Stop."""
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *arguments]
    errors: list[str] = []
    out = None if sys.stdout.isatty() else subprocess.PIPE
    process = subprocess.Popen(
        command, stdout=out, stderr=subprocess.PIPE, text=True, errors="replace", env=environment(), cwd=ROOT
    )
    reader = threading.Thread(target=lambda: errors.extend(process.stderr or []))
    reader.start()
    for line in process.stdout or []:
        if re.search(r"Downloading .*\([\d.]+ [MG]B\)", line):
            say("      " + line.strip())
    reader.join()
    status = process.wait()
    if status < 0:
        raise Stop(
            f"pip was ended from outside (signal {-status}; the system does that when memory runs out) "
            f"while installing {what}. Close other programs, then call again: it goes on from here."
        )
    if status:
        raise Stop(explain("".join(errors), f"install {what}"))


def lock_install(part: str, variant: str) -> None:
    """Install one lock file's pins, nothing beside them; torch was seen to before."""
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder, "pins.txt")
        lines = [line for line in lock_lines(part, variant) if not line.startswith("torch==")]
        pins.write_text("\n".join(lines), encoding="utf-8")
        pip("the packages", "--no-deps", "-r", str(pins))


# --- PyTorch -------------------------------------------------------------------------------------------


def torch_installed() -> str | None:
    """The version of torch in .venv, without importing it; None where there is none."""
    code = "from importlib.metadata import version; print(version('torch'))"
    done = subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def torch_range() -> str:
    """The range of torch in pyproject.toml, e.g. ">=2.9,<3"."""
    found = re.search(r'"torch([^"]*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert found, "pyproject.toml names no torch"
    return found.group(1)


def fits(version: str, wanted: str) -> bool:
    """Whether a version lies in a range of >= and < bounds, e.g. fits("2.13.0+cpu", ">=2.9,<3")."""

    def key(text: str) -> tuple[int, ...]:
        numbers = [int(n) for n in re.findall(r"\d+", text.split("+")[0])[:3]]
        return tuple(numbers + [0] * (3 - len(numbers)))

    def holds(bound: str) -> bool:
        return key(version) >= key(bound) if bound.startswith(">=") else key(version) < key(bound)

    return all(holds(bound.strip()) for bound in wanted.split(","))


def reachable(url: str, seconds: float = 2.0) -> bool:
    """Whether url answers in time; never waits longer, not even for a slow name server."""
    answers: list[int] = []

    def ask() -> None:
        with contextlib.suppress(OSError, ValueError):
            request = urllib.request.Request(url, method="HEAD")
            answers.append(urllib.request.urlopen(request, timeout=seconds).status)

    asker = threading.Thread(target=ask, daemon=True)
    asker.start()
    asker.join(seconds)
    return bool(answers)


def torch_index(variant: str) -> list[str]:
    """pip's options for PyTorch's own builds where they are wanted and can be reached, else none.

    Plain pip finds the CUDA build on Linux and the CPU build on Windows.
    """
    if variant == "cuda" and not WINDOWS:
        return []
    url = TORCH_INDEX + ("cpu/" if variant == "cpu" else "cu130/")
    if reachable(url):
        return ["--index-url", url]
    say("      PyTorch's own builds can't be reached from here: taking the build that pip finds.")
    return []


def install_torch(variant: str) -> None:
    """Install the locked torch, unless one that the kit can use is there already: that one stays."""
    have = torch_installed()
    if have and fits(have, torch_range()):
        say(f"      PyTorch {have} is already there and fits: kept.")
        return
    pin = next(line for line in lock_lines("lab", variant) if line.startswith("torch=="))
    index = torch_index(variant)
    pip("PyTorch", *(["--no-deps", *index] if index else ["-c", str(lock_file("lab", variant))]), pin)


def check_imports() -> None:
    """Raises Stop where what was installed doesn't start, e.g. torch without its system libraries."""
    code = "import torch, jupyterlab, openweightlab"
    command = [str(PYTHON), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT)
    if done.returncode:
        hint = " On Windows, PyTorch needs Microsoft's Visual C++ Redistributable." if WINDOWS else ""
        raise Stop(
            f"Installed, but it doesn't start: {last_words(done.stderr)}.{hint} "
            "Delete the folder .venv and call again."
        )


# --- the jobs ------------------------------------------------------------------------------------------


def size_gb(folder: Path) -> float:
    """Disk taken by a folder's files."""
    return sum(os.lstat(Path(at, name)).st_size for at, _, names in os.walk(folder) for name in names) / 1e9


def step(number: int, of: int, text: str) -> None:
    """Announce one step of the set-up."""
    say(f"[{number}/{of}] {text}")


def install(parts: Sequence[str]) -> None:
    """Bring .venv to what the lock files say for `parts`; raises Stop."""
    variant = read_stamp().get("variant") or ("cuda" if has_gpu() else "cpu")
    check_machine(variant)
    start, steps = time.monotonic(), len(parts) + 3
    step(1, steps, f"Python {platform.python_version()} in .venv")
    make_venv()
    step(2, steps, f"PyTorch for {'an NVIDIA GPU' if variant == 'cuda' else 'CPU'}")
    install_torch(variant)
    for number, part in enumerate(parts, 3):
        pins, file = lock_lines(part, variant), lock_file(part, variant)
        step(number, steps, f"{len(pins)} packages of env/{file.name}")
        lock_install(part, variant)
    step(steps, steps, "the kit")
    pip("the kit", "--no-deps", "--no-build-isolation", "-e", str(ROOT))
    check_imports()
    write_stamp(variant, parts)
    say(f"Ready after {time.monotonic() - start:.0f} s; .venv takes {size_gb(VENV):.1f} GB.")


def ensure(parts: Sequence[str]) -> None:
    """Install what is missing of `parts`; nothing, and at once, where nothing is."""
    if missing_parts(parts):
        with alone():
            todo = missing_parts(parts)  # another call may have done it meanwhile
            if todo:
                install(todo if read_stamp() else parts)


def run_in_venv(arguments: Sequence[str]) -> int:
    """Hand over to .venv's Python: in this process where the system can, else as a child."""
    command = [str(PYTHON), *arguments]
    os.chdir(ROOT)
    if not WINDOWS:
        sys.stdout.flush()
        os.execve(command[0], command, environment())
    child = subprocess.Popen(command, env=environment())
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # Ctrl-C went to the child as well, which asks or stops by itself


def main(arguments: Sequence[str]) -> int:
    """Set up, then run the job that the first argument names."""
    job = arguments[0] if arguments else ""
    if job not in JOBS:
        say(__doc__ or "")
        return 2
    try:
        if sys.version_info[:2] not in PYTHONS:
            command = [*other_python(), str(Path(__file__).resolve()), *arguments]
            return subprocess.call(command)
        parts, run = JOBS[job]
        ensure(parts)
        return run_in_venv([*run, *arguments[1:]])
    except Stop as reason:
        print(f"\n{reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Call again to go on.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
