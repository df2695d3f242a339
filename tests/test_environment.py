"""The kit at work: conda's list, owl doctor, JupyterLab for learners and instructors, the smoke run, CI."""

import argparse
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import nbformat
import psutil
import pytest
import yaml
from packaging.requirements import Requirement

from openweightlab import cli, doctor, lab

# --- conda -------------------------------------------------------------------------------------------

CONDA_NAMES = {"torch": "pytorch"}


def test_conda_environment_is_in_step_with_pyproject(course):
    project = tomllib.loads((course.root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = map(Requirement, [*project["dependencies"], *extras["lab"], *extras["grade"]])
    listed = yaml.safe_load((course.root / "environment.yml").read_text())["dependencies"]
    plain = {one.name: one.specifier for one in map(Requirement, (e for e in listed if isinstance(e, str)))}
    assert (
        plain.pop("pip") == ""
        and plain.pop("python") == Requirement(f"x{project['requires-python']}").specifier
    )
    assert plain == {CONDA_NAMES.get(one.name, one.name): one.specifier for one in wanted}
    assert listed[-1] == {"pip": ["-e ."]}


# --- owl doctor --------------------------------------------------------------------------------------


@pytest.fixture
def healthy(monkeypatch):
    """A machine on which nothing is wrong, without asking the real one for models or sandbox."""
    good = {"expected": "ab12", "actual": "ab12", "problem": None}
    monkeypatch.setattr(doctor, "broken", lambda: [])
    monkeypatch.setattr(doctor, "gpus", lambda: [{"name": "Tesla T4", "memory_gib": 14.7, "bf16": False}])
    monkeypatch.setattr(doctor, "tier", lambda: {"name": "colab", "why": "Tesla T4, 15 GiB, no bf16"})
    monkeypatch.setattr(doctor, "pocket", lambda: {"pocket-moe": dict(good), "pocket-dense": dict(good)})
    box = {"name": "bubblewrap", "isolated": True, "levels": {"bubblewrap": "works"}}
    monkeypatch.setattr(doctor, "sandbox", lambda: box)
    monkeypatch.setattr(doctor, "memory", lambda: {"ram_gib": 16.0, "ram_free_gib": 9.0})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: argparse.Namespace(free=50 * doctor.GIB))
    return monkeypatch


def run_doctor(capsys, as_json=False):
    """(exit status, what was printed) of owl doctor."""
    status = doctor.main(argparse.Namespace(json=as_json))
    return status, capsys.readouterr().out


def test_doctor_tells_all_of_a_healthy_machine(healthy, capsys):
    status, text = run_doctor(capsys)
    assert status == 0 and "The pocket tier works here." in text
    for wanted in (
        "Python",
        "torch",
        "CPU",
        "memory",
        "disk",
        "Tesla T4, 14.7 GiB, no bf16",
        "colab",
        "bubblewrap",
    ):
        assert wanted in text
    assert "note:" not in text and "PROBLEM" not in text


def test_doctor_in_json(healthy, capsys):
    status, text = run_doctor(capsys, as_json=True)
    found = json.loads(text)
    assert status == 0 and found["problems"] == [] and found["packages"]["torch"]
    assert {
        "python",
        "packages",
        "cpu",
        "gpu",
        "ram_gib",
        "disk_free_gib",
        "tier",
        "pocket",
        "sandbox",
    } <= found.keys()


def test_doctor_fails_on_a_changed_or_missing_pocket_model(healthy, capsys):
    bad = {
        name: doctor.checksum_problem("ab", actual) for name, actual in (("one", "cd"), ("two", "missing"))
    }
    healthy.setattr(doctor, "pocket", lambda: {n: {"actual": "cd", "problem": p} for n, p in bad.items()})
    status, text = run_doctor(capsys)
    assert status == 1 and "one: weights not those that were shipped" in text
    assert "two: weights missing: git restore" in text and "cannot work" in text
    assert doctor.checksum_problem("ab", "ab") is None


def test_doctor_sees_a_changed_weight_file(tmp_path, monkeypatch):
    from openweightlab.pocket import card

    (tmp_path / "pocket-moe").mkdir()
    (tmp_path / "pocket-moe" / "model.safetensors").write_bytes(b"shipped")
    card.record_checksums(tmp_path)
    real = card.checksums
    monkeypatch.setattr(card, "checksums", lambda: real(tmp_path))
    assert doctor.pocket()["pocket-moe"]["problem"] is None
    (tmp_path / "pocket-moe" / "model.safetensors").write_bytes(b"touched")
    assert "not those that were shipped" in doctor.pocket()["pocket-moe"]["problem"]
    shutil.rmtree(tmp_path)
    assert "missing" in doctor.pocket()["the Pocket models"]["problem"]


def test_doctor_fails_on_a_missing_or_broken_package(healthy, capsys):
    healthy.setattr(doctor, "packages", lambda: {"torch": None})
    status, text = run_doctor(capsys)
    assert status == 1 and "torch is missing: delete .venv and call make lab again" in text
    healthy.setattr(doctor, "packages", lambda: {"torch": "2.13.0"})
    healthy.setattr(doctor, "broken", lambda: ["torch does not start (no libgomp)"])
    status, text = run_doctor(capsys)
    assert status == 1 and "torch does not start (no libgomp)" in text


def test_doctor_remarks_on_what_is_scarce(healthy, capsys):
    healthy.setattr(doctor, "memory", lambda: {"ram_gib": 2.0, "ram_free_gib": 1.0})
    healthy.setattr(doctor, "gpus", lambda: [])
    none = {"name": "none", "isolated": False, "levels": {"bubblewrap": "not installed"}}
    healthy.setattr(doctor, "sandbox", lambda: none)
    healthy.setattr(shutil, "which", lambda name: "/usr/bin/" + name)
    healthy.setattr(shutil, "disk_usage", lambda path: argparse.Namespace(free=0.2 * doctor.GIB))
    status, text = run_doctor(capsys)
    assert status == 0 and text.count("note:") == 4


def test_doctor_on_this_machine(course):
    done = subprocess.run(
        [sys.executable, "-m", "openweightlab.cli", "doctor", "--json"], capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    assert found["problems"] == [] and done.returncode == 0, found["problems"]
    assert found["tier"]["name"] == "pocket" and found["ram_gib"] > 0


# --- JupyterLab --------------------------------------------------------------------------------------


def small_course(folder, *sources):
    """A course whose first lesson has these code cells; its folder's name has a space."""
    root = folder / "my course"
    cells = [nbformat.v4.new_markdown_cell("# A lesson"), *map(nbformat.v4.new_code_cell, sources)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (root / lab.LESSON).parent.mkdir(parents=True)
    nbformat.write(notebook, root / lab.LESSON)
    return root


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Two real servers on one small course: {"learner": info, "instructor": info}."""
    root, started, found = small_course(tmp_path_factory.mktemp("lab"), "1 + 1"), [], {}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_CONFIG_DIR", folder)
        for who in ("learner", "instructor"):
            runtime = Path(folder, who)
            runtime.mkdir()
            started.append(lab.launch(root, runtime, instructor=who == "instructor"))
            found[who] = (started[-1], runtime)
        yield {"root": root} | {who: lab.wait_for(*one) | {"runtime": one[1]} for who, one in found.items()}
        assert [lab.stop(process) for process in started] == [0, 0]


def test_nbgrader_is_there_for_instructors_and_hidden_from_learners(servers):
    assert lab.shows_nbgrader(servers["instructor"])
    assert not lab.shows_nbgrader(servers["learner"])
    assert "formgrader" in lab.ask(servers["instructor"], "formgrader").lower()
    with pytest.raises(OSError, match="404"):
        lab.ask(servers["learner"], "formgrader")


@pytest.mark.needs_browser
def test_what_learners_and_instructors_see_in_a_browser(servers, browser):
    menus = {}
    for who in ("learner", "instructor"):
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.goto(lab.address(servers[who]))
        page.wait_for_selector(".jp-RenderedMarkdown >> text=A lesson", timeout=60_000)
        page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=60_000)
        menus[who] = page.locator(".lm-MenuBar-itemLabel").all_inner_texts()
        assert page.locator("text=official Jupyter news").count() == 0
        page.close()
    assert "Nbgrader" in menus["instructor"] and "Nbgrader" not in menus["learner"]


def test_a_running_server_is_found_again_by_its_kind(servers, monkeypatch):
    def folder_of(who):
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(servers[who]["runtime"]))

    root = servers["root"]
    folder_of("learner")
    assert lab.running(root, instructor=False)["url"] == servers["learner"]["url"]
    assert lab.running(root, instructor=True) is None
    assert lab.running(root / "lessons", instructor=False) is None
    folder_of("instructor")
    assert lab.running(root, instructor=True)["url"] == servers["instructor"]["url"]


def test_second_call_prints_the_running_servers_address(servers, monkeypatch, capsys):
    monkeypatch.setattr(lab, "ROOT", servers["root"])
    monkeypatch.setattr(lab, "running", lambda root, instructor: servers["learner"])
    monkeypatch.setattr(lab, "start", lambda *_: pytest.fail("started a second server"))
    assert cli.main(["lab"]) == 0
    assert servers["learner"]["url"] + "lab/tree/lessons/00_workbench.ipynb?token=" in capsys.readouterr().out


def test_a_dead_servers_file_is_not_believed(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    dead = {"url": "http://127.0.0.1:9/", "token": "x", "root_dir": str(tmp_path)}
    (tmp_path / "jpserver-1.json").write_text(json.dumps(dead))
    (tmp_path / "jpserver-2.json").write_text('{"url": ')
    assert lab.running(tmp_path, instructor=False) is None


# --- the smoke run -----------------------------------------------------------------------------------


def test_smoke_runs_the_lesson_and_leaves_nothing_behind(tmp_path, capfd):
    root = small_course(
        tmp_path, "x = 20", "import pathlib; assert pathlib.Path.cwd().name == 'lessons'; x + 1"
    )
    before = set(psutil.Process().children())
    assert lab.smoke(root) == 0
    said = capfd.readouterr().out
    assert said.count("ok  ") == 5 and "2 code cells" in said and sys.prefix in said
    assert not set(psutil.Process().children()) - before
    assert sorted(p.name for p in root.rglob("*")) == ["00_workbench.ipynb", "lessons"]


def test_smoke_fails_with_the_cell_and_its_traceback(tmp_path, monkeypatch, capsys):
    root = small_course(tmp_path, "x = 1", "print('here')\nx / 0", "never = 1")
    monkeypatch.setattr(lab, "ROOT", root)
    assert cli.main(["lab", "--smoke"]) == 1
    said = capsys.readouterr().err
    assert "code cell 2 of 3 failed" in said and "x / 0" in said and "ZeroDivisionError" in said


def test_smoke_tells_a_kernel_that_dies(tmp_path):
    with pytest.raises(lab.LabError, match=r"does not answer any more \(it died\):\nimport os"):
        lab.smoke(small_course(tmp_path, "import os; os._exit(3)"))


def test_smoke_that_is_ended_leaves_nothing_behind(tmp_path):
    root = small_course(tmp_path, "import time; time.sleep(600)")
    code = "import sys; from pathlib import Path; from openweightlab import lab; lab.smoke(Path(sys.argv[1]))"
    process = subprocess.Popen([sys.executable, "-c", code, root], stdout=subprocess.PIPE, text=True)
    assert any("kernel of" in line for line in process.stdout)
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    assert process.wait(timeout=60) == 143 and len(family) >= 2
    assert not psutil.wait_procs(family, timeout=5)[1]


def test_a_server_that_does_not_start_is_told_in_its_own_words(tmp_path):
    code = "import sys; print('no port left', file=sys.stderr); sys.exit(1)"
    with open(tmp_path / "server.log", "wb") as log:
        process = subprocess.Popen([sys.executable, "-c", code], stderr=log)
    with pytest.raises(lab.LabError, match=r"did not start(.|\n)*no port left"):
        lab.wait_for(process, tmp_path)


def test_no_lesson_is_said_with_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lab, "ROOT", tmp_path)
    assert cli.main(["lab"]) == 1
    assert "inside a clone of the course" in capsys.readouterr().err


# --- CI ----------------------------------------------------------------------------------------------


def stub(folder, name, text):
    """A program that runs one line of sh."""
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(stat.S_IRWXU)


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
@pytest.mark.parametrize("apt", ["exit 0", "exit 100"])
def test_ci_installs_what_is_missing_and_ends_as_make_test_does(course, tmp_path, apt):
    for tool in ("bash", "dirname", "id"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    stub(tmp_path, "apt-get", f'echo "$@" >> {tmp_path}/asked; {apt}')
    stub(tmp_path, "sudo", 'shift; "$@"')
    stub(tmp_path, "make", 'echo "made $1"; exit 7')
    env = {"PATH": str(tmp_path), "CI": "true"}
    done = subprocess.run(
        [tmp_path / "bash", course.root / ".ci/run"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 7 and "made test" in done.stdout
    asked = (tmp_path / "asked").read_text()
    assert "update" in asked and (apt != "exit 0" or re.search("install.* bubblewrap chromium", asked))
    assert ("could not install" in done.stdout) == (apt != "exit 0")


def test_ci_can_be_executed(course):
    assert os.access(course.root / ".ci" / "run", os.X_OK)
