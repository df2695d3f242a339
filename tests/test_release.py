"""Nothing that students must not see is in an exercise, or in the package that they install."""

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from openweightlab.authoring.release import faults, leaks, solution_regions, tokens

ROOT = Path(__file__).parents[1]
MODULES = sorted(folder.name for folder in (ROOT / "solutions").iterdir() if folder.is_dir())
TEXT = {".py", ".md", ".json", ".yaml", ".txt", ".toml", ".html", ".css", ".js", ".jinja"}


def solution(module: str) -> NotebookNode:
    return nbformat.read(ROOT / "solutions" / module / f"{module}.ipynb", as_version=4)


def exercise(module: str) -> NotebookNode:
    return nbformat.read(ROOT / "exercises" / module / f"{module}.ipynb", as_version=4)


def package_texts() -> dict[str, str]:
    files = (file for file in (ROOT / "openweightlab").rglob("*") if file.suffix in TEXT)
    return {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in files}


def plain(region: str) -> str:
    """A solution without its comments, spaced anew, as somebody might copy it."""
    return " ".join(tokens("\n".join(line.split("#")[0] for line in region.splitlines())))


def test_every_module_is_here_three_times():
    sources = {file.name.removesuffix("_graded.py") for file in (ROOT / "authoring").glob("*_graded.py")}
    assert MODULES and set(MODULES) == sources == {folder.name for folder in (ROOT / "exercises").iterdir()}


@pytest.mark.parametrize("module", MODULES)
def test_an_exercise_shows_no_solution_test_judge_or_output(module):
    regions = solution_regions(solution(module))
    assert regions and all(tokens(region) for region in regions.values())
    assert faults(solution(module), exercise(module)) == []


@pytest.mark.parametrize("module", MODULES)
def test_the_package_repeats_no_solution(module):
    assert [f"{leak.where}: {leak}" for leak in leaks(solution(module), package_texts())] == []


@pytest.mark.parametrize("module", MODULES)
def test_every_solution_would_be_found_if_it_leaked(module):
    for grade_id, region in solution_regions(solution(module)).items():
        told = exercise(module)
        told.cells[0].source += f"\n\nFor example `{plain(region)}`."
        assert any(cell == 0 and "solution" in words for cell, words in faults(solution(module), told)), (
            grade_id
        )
        (found,) = leaks(solution(module), {"openweightlab/measure/new.py": f"x = 1\n{region}"})
        assert found.where == "openweightlab/measure/new.py"


PLANTED = {  # what went wrong with a release, and the words that it is found by
    "half of a solution": (
        lambda nb, text: nb.cells[0].update(source=text[: len(text) * 2 // 3]),
        "solution: ",
    ),
    "a solution's mark": (lambda nb, text: nb.cells[0].update(source="### BEGIN SOLUTION"), "BEGIN SOLUTION"),
    "a hidden test": (
        lambda nb, text: nb.cells[1].update(source="### BEGIN HIDDEN TESTS"),
        "BEGIN HIDDEN TESTS",
    ),
    "a judge": (lambda nb, text: nb.cells.append(code("from judges import draw")), "names the judges"),
    "a judge by its path": (
        lambda nb, text: nb.cells.append(code("open('judges/00.py')")),
        "names the judges",
    ),
    "an output": (lambda nb, text: nb.cells.append(code("1", outputs=[stream("1")])), "an output"),
    "an execution count": (lambda nb, text: nb.cells.append(code("1", execution_count=4)), "an output"),
}


def code(source: str, **more) -> NotebookNode:
    return nbformat.v4.new_code_cell(source, **more)


def stream(text: str) -> NotebookNode:
    return nbformat.v4.new_output("stream", text=text)


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("module", MODULES)
def test_a_planted_fault_is_found(module, name):
    plant, words = PLANTED[name]
    longest = max(solution_regions(solution(module)).values(), key=len)
    spoilt = exercise(module)
    plant(spoilt, longest)
    assert any(words in found for _, found in faults(solution(module), spoilt))


def test_prose_that_only_speaks_of_the_same_things_is_no_leak():
    answer = code("### BEGIN SOLUTION\nreturn sum(p.numel() for p in model.parameters())\n### END SOLUTION")
    notebook = nbformat.v4.new_notebook(cells=[answer])
    hints = [
        "Use p.numel().",
        "Sum over model.parameters(), each tensor once.",
        "for p in model.parameters(): ...",
    ]
    assert leaks(notebook, dict(enumerate(hints))) == []
    typed = code(
        "### BEGIN SOLUTION\ngroups: dict[str, list[str]] = {name: [] for name in names}\n### END SOLUTION"
    )
    assert (
        leaks(
            nbformat.v4.new_notebook(cells=[typed]),
            {0: "def f() -> None:\n    seen: dict[str, list[str]] = {}"},
        )
        == []
    )
    assert leaks(notebook, {0: "sum( p.numel()  for p in\n   model.parameters() )"})


@pytest.mark.skipif(
    int(version("setuptools").split(".")[0]) < 77, reason="building a wheel needs setuptools 77"
)
def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    here = tmp_path / "source"
    ignore = shutil.ignore_patterns("__pycache__", "weights")
    for name in ("openweightlab", "judges", "solutions", "authoring", "exercises", "tests"):
        shutil.copytree(ROOT / name, here / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, here)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(tmp_path),
        str(here),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"openweightlab"}
    assert not [name for name in names if name.endswith(".ipynb") or "judges" in name]
    assert "openweightlab/questions/__init__.py" in names and "openweightlab/data/claims.yaml" in names
