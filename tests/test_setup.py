"""Set-up: the right Python, what is installed when, repairs, and a clear sentence for each failure."""

import ast
import http.server
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import tomllib
import zipfile
from collections import namedtuple
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SETUP = ROOT / "env" / "setup.py"
LOCKS = ("cpu", "cuda", "test")


def load_setup():
    """A fresh copy of env/setup.py as a module."""
    spec = importlib.util.spec_from_file_location("kit_setup", SETUP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def setup():
    return load_setup()


@pytest.fixture
def kit(tmp_path):
    """env/setup.py at work in a folder of its own, its path with a space, pip and venv replaced by notes."""
    module = load_setup()
    root = tmp_path / "my course"
    shutil.copytree(ROOT / "env", root / "env")
    shutil.copy(ROOT / "pyproject.toml", root)
    at_home(module, root)
    module.calls = []
    module.pip = lambda what, *arguments: module.calls.append((what, arguments))
    module.venv = lambda *options: (module.calls.append(("venv", options)), fake_venv(module))
    module.has_gpu = lambda: False
    module.has_pip = lambda: True
    module.reachable = lambda url, seconds=2.0: False
    module.torch_installed = lambda: None
    module.check_imports = lambda: None
    return module


def at_home(module, root):
    """Point a set-up module at another folder."""
    module.ROOT, module.ENV, module.VENV = root, root / "env", root / ".venv"
    module.BIN = module.VENV / "bin"
    module.PYTHON, module.STAMP = module.BIN / "python", module.VENV / "openweightlab.json"


def fake_venv(module):
    """A .venv whose python is this one."""
    module.BIN.mkdir(parents=True, exist_ok=True)
    if not module.PYTHON.exists():
        module.PYTHON.symlink_to(sys.executable)


def steps(module):
    """What was called, in order, and forget it."""
    names = [name for name, _ in module.calls]
    module.calls.clear()
    return names


FIRST = ["venv", "PyTorch", "the packages", "the kit"]
AGAIN = ["PyTorch", "the packages", "the kit"]


# --- a fitting Python --------------------------------------------------------------------------------


def test_setup_can_be_read_by_an_old_python_so_that_it_can_complain():
    ast.parse(SETUP.read_text(), feature_version=(3, 8))


def test_newest_fitting_python_is_taken(setup, monkeypatch):
    there = {"python3.12": (3, 12), "python3.11": (3, 11), "python3": (3, 14)}
    monkeypatch.setattr(setup, "WINDOWS", False)
    monkeypatch.setattr(setup, "version_of", lambda command: there.get(command[0]))
    assert setup.other_python() == ["python3.12"]


def test_windows_asks_its_launcher(setup, monkeypatch):
    monkeypatch.setattr(setup, "WINDOWS", True)
    monkeypatch.setattr(setup, "version_of", lambda command: (3, 11) if command == ["py", "-3.11"] else None)
    assert setup.other_python() == ["py", "-3.11"]


def test_no_fitting_python_is_said_with_what_to_do(setup, monkeypatch, capsys):
    monkeypatch.setattr(setup, "PYTHONS", ((2, 7),))
    monkeypatch.setattr(setup, "version_of", lambda command: None)
    assert setup.main(["lab"]) == 1
    said = capsys.readouterr().err
    assert "needs Python 3.11, 3.12 or 3.13" in said and "Install one" in said


def test_version_of_tells_a_python_from_anything_else(setup):
    assert setup.version_of([sys.executable]) == sys.version_info[:2]
    assert setup.version_of(["no-such-python"]) is None
    assert setup.version_of(["echo", "hello"]) is None


def test_unknown_job_prints_the_usage(setup, capsys):
    assert setup.main(["lunch"]) == 2
    assert "env/setup.py lab" in capsys.readouterr().out


# --- Makefile ----------------------------------------------------------------------------------------

MAKE = shutil.which("make")


@pytest.mark.skipif(not MAKE, reason="no make here")
@pytest.mark.parametrize("target", ["lab", "test", "bench", "notebooks"])
def test_make_hands_its_arguments_over(target):
    done = subprocess.run(
        [MAKE, "-n", target, "ARGS=--smoke", "PYTHON=/a b/python"], cwd=ROOT, capture_output=True, text=True
    )
    assert f'"/a b/python" env/setup.py {target} --smoke' in done.stdout


@pytest.mark.skipif(not MAKE, reason="no make here")
def test_make_without_any_python_says_what_to_do(tmp_path):
    done = subprocess.run(
        [MAKE, "lab"], cwd=ROOT, capture_output=True, text=True, env={"PATH": str(tmp_path)}
    )
    assert done.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13" in done.stderr and "Install one" in done.stderr


# --- lock files --------------------------------------------------------------------------------------


def pins(name):
    """{package: (version, marker)} of one lock file."""
    text = (ROOT / "env" / f"lock-{name}.txt").read_text()
    wanted = [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]
    return {
        canonicalize_name(one.name): (str(one.specifier).removeprefix("=="), one.marker) for one in wanted
    }


def ranges(*extras):
    """pyproject.toml's requirements: the core's, then each extra's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"]]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return [one for one in map(Requirement, lines) if one.name != "openweightlab"]


@pytest.mark.parametrize(
    ("names", "extras"),
    [
        (("cpu",), ("lab", "grade")),
        (("cuda",), ("lab", "grade", "gpu")),
        (("cpu", "test"), ("lab", "grade", "dev")),
        (("cuda", "test"), ("lab", "grade", "gpu", "dev")),
    ],
)
def test_locks_satisfy_pyproject(names, extras):
    locked = {k: v for name in names for k, v in pins(name).items()}
    for wanted in ranges(*extras):
        number = locked[canonicalize_name(wanted.name)][0]
        assert wanted.specifier.contains(number), f"{wanted} but env/lock-{names} has {number}"


def test_locks_agree_with_each_other():
    cpu, cuda, test = map(pins, LOCKS)
    assert not cpu.keys() & test.keys(), "a package in two files that are installed together"
    assert {k: v for k, v in cuda.items() if k in cpu} == cpu


def test_lock_is_complete_because_it_is_installed_without_dependencies():
    """Each pinned package that is installed here in that version needs nothing that isn't pinned."""
    locked, lacking, looked_at = {**pins("cpu"), **pins("test")}, [], 0
    for name, (number, _) in locked.items():
        try:
            if version(name) != number:
                continue
        except PackageNotFoundError:
            continue
        looked_at += 1
        needs = [Requirement(line) for line in requires(name) or []]
        needs = [need for need in needs if not need.marker or need.marker.evaluate({"extra": ""})]
        lacking += [f"{name} needs {need}" for need in needs if canonicalize_name(need.name) not in locked]
    cuda_only = [
        line for line in lacking if line.startswith("torch needs")
    ]  # torch's CUDA build, kept from before
    assert [line for line in lacking if line not in cuda_only] == []
    assert looked_at > 100


@pytest.mark.parametrize("name", ["cpu", "test"])
def test_no_cuda_package_in_what_a_machine_without_gpu_gets(name):
    assert [pin for pin in pins(name) if re.match(r"nvidia|cuda|triton|bitsandbytes", pin)] == []


@pytest.mark.parametrize("name", LOCKS)
def test_locks_name_no_address_and_only_exact_versions(name):
    text = (ROOT / "env" / f"lock-{name}.txt").read_text()
    assert "://" not in text and "--" not in text
    assert all(re.fullmatch(r"[\w.]+", number) for number, _ in pins(name).values())


def test_pytorch_index_is_named_in_one_place(setup):
    host = setup.TORCH_INDEX.split("/")[2]
    files = [
        *ROOT.glob("*.*"),
        *(ROOT / "env").rglob("*.*"),
        *(ROOT / "openweightlab").rglob("*.py"),
        ROOT / "Makefile",
    ]
    files = [f for f in files if f.is_file() and f.suffix not in {".safetensors", ".pyc", ".db"}]
    assert [f.name for f in files if host in f.read_text(errors="ignore")] == ["setup.py"]


# --- what is installed when --------------------------------------------------------------------------


def test_first_call_installs_and_second_does_nothing(kit, capsys):
    kit.ensure(["lab"])
    assert steps(kit) == FIRST
    assert "[4/4]" in capsys.readouterr().out
    begun = time.monotonic()
    kit.ensure(["lab"])
    assert steps(kit) == [] and time.monotonic() - begun < 0.5


def test_tests_add_their_packages_to_the_same_venv(kit):
    kit.ensure(["lab"])
    steps(kit)
    kit.ensure(["lab", "test"])
    assert [arguments[-1] for what, arguments in kit.calls if what == "the packages"] and steps(kit) == AGAIN
    kit.ensure(["lab", "test"])
    assert steps(kit) == []


def test_a_changed_lock_is_noticed(kit):
    kit.ensure(["lab"])
    steps(kit)
    with open(kit.ENV / "lock-cpu.txt", "a") as file:
        file.write("# changed\n")
    kit.ensure(["lab"])
    assert steps(kit) == AGAIN


@pytest.mark.parametrize("breaks_at", AGAIN)
def test_a_broken_off_call_is_repaired_by_the_next(kit, breaks_at):
    note = kit.pip

    def broken(what, *arguments):
        note(what, *arguments)
        if what == breaks_at:
            raise KeyboardInterrupt

    kit.pip = broken
    with pytest.raises(KeyboardInterrupt):
        kit.ensure(["lab"])
    assert kit.read_stamp() == {}
    steps(kit)
    kit.pip = note
    kit.ensure(["lab"])
    assert steps(kit) == AGAIN and kit.missing_parts(["lab"]) == []


def test_what_does_not_start_is_not_called_installed(kit):
    def broken():
        raise kit.Stop("Installed, but it doesn't start")

    kit.check_imports = broken
    with pytest.raises(kit.Stop):
        kit.ensure(["lab"])
    assert kit.missing_parts(["lab"]) == ["lab"]


def test_half_installed_packages_are_installed_again(kit):
    kit.ensure(["lab"])
    packages = kit.VENV / "lib" / "python3.11" / "site-packages"
    for name in ("whole-1.0.dist-info", "half-1.0.dist-info", "~umpy", "numpy"):
        (packages / name).mkdir(parents=True)
    (packages / "whole-1.0.dist-info" / "INSTALLER").write_text("pip\n")
    kit.sweep()
    assert sorted(f.name for f in packages.iterdir()) == ["numpy", "whole-1.0.dist-info"]


def test_a_venv_that_lost_its_python_is_made_anew(kit, capsys):
    kit.ensure(["lab"])
    steps(kit)
    kit.PYTHON.unlink()
    kit.PYTHON.symlink_to("/nowhere/python3.11")
    kit.venv = lambda *options: (kit.calls.append(("venv", options)), kit.PYTHON.unlink(), fake_venv(kit))
    kit.ensure(["lab"])
    assert ("venv", ("--clear",)) in kit.calls and "making it anew" in capsys.readouterr().out


def test_a_moved_course_gets_a_venv_that_names_its_new_folder(kit, tmp_path):
    kit.ensure(["lab"])
    steps(kit)
    kit.ROOT.rename(tmp_path / "elsewhere")
    at_home(kit, tmp_path / "elsewhere")
    kit.ensure(["lab"])
    assert ("venv", ("--clear",)) in kit.calls


def test_a_venv_of_another_python_is_left_alone_with_a_word(kit, monkeypatch):
    fake_venv(kit)
    monkeypatch.setattr(kit, "version_of", lambda command: (3, 9))
    with pytest.raises(kit.Stop, match=r"holds Python 3\.9.*Delete the folder \.venv"):
        kit.make_venv()


def test_two_calls_at_once_wait_for_each_other(setup, tmp_path):
    with open(tmp_path / "lock", "w") as one, open(tmp_path / "lock", "w") as two:
        assert setup.try_lock(one)
        assert not setup.try_lock(two)
        one.close()
        assert setup.try_lock(two)


# --- PyTorch -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("have", ["2.9.0", "2.11.0+cu128", "2.13.0+cpu", "2.15"])
def test_a_torch_that_fits_is_never_replaced(kit, have):
    kit.torch_installed = lambda: have
    kit.ensure(["lab"])
    assert steps(kit) == ["venv", "the packages", "the kit"]


@pytest.mark.parametrize("have", ["2.8.1", "3.0.0", "1.13.1+cpu"])
def test_a_torch_that_does_not_fit_is(kit, have):
    kit.torch_installed = lambda: have
    kit.ensure(["lab"])
    assert steps(kit) == FIRST


def test_torch_is_never_in_the_list_of_other_packages(kit, monkeypatch):
    seen = []

    def note(what, *arguments):
        if "-r" in arguments:
            seen.append((Path(arguments[-1]).read_text(), arguments))

    monkeypatch.setattr(kit, "pip", note)
    kit.ensure(["lab"])
    [(text, arguments)] = seen
    assert "torch==" not in text and "numpy==" in text and "--no-deps" in arguments


@pytest.mark.parametrize(
    ("variant", "windows", "answers", "index"),
    [
        ("cpu", False, True, "cpu/"),
        ("cpu", True, True, "cpu/"),
        ("cpu", False, False, None),
        ("cuda", False, True, None),
        ("cuda", True, True, "cu130/"),
    ],
)
def test_where_torch_comes_from(kit, variant, windows, answers, index):
    kit.WINDOWS, kit.reachable = windows, lambda url, seconds=2.0: answers
    assert kit.torch_index(variant) == (["--index-url", kit.TORCH_INDEX + index] if index else [])


def test_a_gpu_chooses_the_cuda_lock(kit):
    kit.has_gpu = lambda: True
    kit.FREE_GB["cuda"] = 0.0
    kit.ensure(["lab"])
    assert kit.read_stamp()["variant"] == "cuda"
    assert kit.lock_file("lab", "cuda").name == "lock-cuda.txt"


class Silent(http.server.BaseHTTPRequestHandler):
    """Answers a HEAD request with the server's own status."""

    def do_HEAD(self):
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(("status", "reached"), [(200, True), (403, False)])
def test_reachable(setup, status, reached):
    with http.server.HTTPServer(("127.0.0.1", 0), Silent) as server:
        server.status = status
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert setup.reachable(f"http://127.0.0.1:{server.server_port}/") is reached
        server.shutdown()


def test_reachable_never_waits_longer_than_told(setup):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        begun = time.monotonic()
        assert not setup.reachable(f"http://127.0.0.1:{deaf.getsockname()[1]}/", seconds=0.3)
        assert time.monotonic() - begun < 1.5


# --- failures in words -------------------------------------------------------------------------------

PIP_SAYS = {
    "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device": "disk is full",
    "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError'\n"
    "ERROR: Could not find a version that satisfies the requirement numpy==2.4.6": "can't be reached",
    "ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: none)\n"
    "ERROR: No matching distribution found for torch==2.13.0": "no build for this Python and system",
    "ERROR: Could not install packages due to an OSError: Read-only file system": "can't be written",
    "PermissionError: [WinError 5] Access is denied: 'C:\\owl\\.venv'": "can't be written",
    "HINT: this system does not have Windows Long Path support enabled": "too long",
    "ERROR: the moon is in the wrong phase": "the moon is in the wrong phase. Delete the folder .venv",
}


@pytest.mark.parametrize("output", PIP_SAYS)
def test_each_failure_of_pip_is_one_clear_sentence(setup, output):
    said = setup.explain(output, "install the packages")
    assert PIP_SAYS[output] in said and said.startswith("Could not install the packages") and "\n" not in said


def test_too_little_disk_is_said_before_anything_is_written(kit, monkeypatch):
    monkeypatch.setattr(kit.shutil, "disk_usage", lambda path: namedtuple("usage", "free")(1.2e9))
    with pytest.raises(kit.Stop, match=r"has 1\.2 GB free, and the first set-up takes up to 3 GB"):
        kit.ensure(["lab"])
    assert steps(kit) == [] and not kit.VENV.exists()


def test_a_folder_that_cannot_be_written_is_said(kit, monkeypatch):
    def refuse(dir):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(kit.tempfile, "TemporaryFile", refuse)
    with pytest.raises(kit.Stop, match=r"can't be written to \(Read-only file system\).*Copy the course"):
        kit.ensure(["lab"])


def test_a_mac_with_an_intel_processor_is_sent_to_colab(kit, monkeypatch):
    monkeypatch.setattr(kit.sys, "platform", "darwin")
    monkeypatch.setattr(kit.platform, "machine", lambda: "x86_64")
    with pytest.raises(kit.Stop, match="Colab"):
        kit.check_machine("cpu")


def test_a_python_without_ensurepip_names_the_package_to_install(setup, monkeypatch):
    monkeypatch.setattr(setup.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(setup.Stop, match=r"apt install python3\.\d+-venv"):
        setup.venv()


def test_stop_and_ctrl_c_end_in_a_word_not_in_a_traceback(kit, capsys):
    def stop(parts):
        raise kit.Stop("the disk is full")

    def interrupt(parts):
        raise KeyboardInterrupt

    kit.ensure = stop
    assert kit.main(["lab"]) == 1
    kit.ensure = interrupt
    assert kit.main(["lab"]) == 130
    said = capsys.readouterr().err
    assert "the disk is full" in said and "Call again" in said and "Traceback" not in said


# --- for real, without the network -------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A real, empty .venv in a folder with a space and an accent, and a wheel to put into it."""
    module = load_setup()
    root = tmp_path_factory.mktemp("a course é")
    at_home(module, root)
    module.make_venv()
    with zipfile.ZipFile(root / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "answer = 42\n")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(
            "tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tiny-1.0.dist-info/RECORD", "tiny.py,,\n")
    return module


def answer(module):
    """What the tiny package in .venv says."""
    command = [str(module.PYTHON), "-c", "import tiny; print(tiny.answer)"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def test_venv_is_made_and_repaired_for_real(real):
    assert real.version_of([str(real.PYTHON)]) == sys.version_info[:2]
    assert real.has_pip() and real.torch_installed() is None
    wheel = str(real.ROOT / "tiny-1.0-py3-none-any.whl")
    real.pip("tiny", "--no-index", wheel)
    assert answer(real) == "42"
    [record] = real.VENV.glob("lib/*/site-packages/tiny-1.0.dist-info")
    (record / "INSTALLER").unlink()  # as a killed pip leaves it
    (record.parent / "tiny.py").write_text("")
    real.make_venv()
    real.pip("tiny", "--no-index", wheel)
    assert answer(real) == "42"


def test_venv_without_pip_gets_it_back(real):
    for folder in real.VENV.glob("lib/*/site-packages/pip*"):
        shutil.rmtree(folder)
    assert not real.has_pip()
    real.make_venv()
    assert real.has_pip()


def test_pip_without_network_is_told_in_words(real, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(real.Stop, match="the package index can't be reached"):
        real.pip("tiny", "--retries", "1", "--index-url", "http://127.0.0.1:9/simple", "no-such-package")


def test_a_killed_pip_is_told_in_words(setup, tmp_path, monkeypatch):
    (tmp_path / "python").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(setup, "PYTHON", tmp_path / "python")
    with pytest.raises(setup.Stop, match=r"signal 9.*while installing PyTorch.*call again"):
        setup.pip("PyTorch", "torch")


def test_programs_of_the_venv_come_first_and_foreign_settings_last(setup, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/opt/robots")
    env = setup.environment()
    assert env["PATH"].split(os.pathsep)[0] == str(setup.BIN) and "PYTHONPATH" not in env


def test_stamp_is_written_whole_or_not_at_all(kit):
    kit.ensure(["lab"])
    assert json.loads(kit.STAMP.read_text())["root"] == str(kit.ROOT)
    kit.STAMP.write_text('{"root": "')
    assert kit.read_stamp() == {} and kit.missing_parts(["lab"]) == ["lab"]
