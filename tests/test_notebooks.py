"""The build chain: authoring/ to notebooks, what it refuses, and that it loses nobody's edits."""

import json
import os
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml

from openweightlab import notebooks
from openweightlab.authoring import build as builder
from openweightlab.authoring.build import build, public_specs
from openweightlab.authoring.files import differences, show_difference, strays, write
from openweightlab.authoring.rules import problems
from openweightlab.authoring.source import Refused, read_source
from openweightlab.grading.gradeids import CheckGradeIds

ROOT = Path(__file__).parents[1]
SAMPLE = Path(__file__).parent / "data" / "sample"
SPECS = {"Q90.1": SimpleNamespace(title="Scale it", points=3, functions=("scale_up", "scale_down"))}
LESSON, SOLUTION, EXERCISE = (
    "lessons/90_sample.ipynb",
    "solutions/90_sample/90_sample.ipynb",
    "exercises/90_sample/90_sample.ipynb",
)


def specs(module: str) -> dict:
    return SPECS if module == "90_sample" else dict(public_specs(module))


def new_course(folder: Path) -> Path:
    (folder / "authoring").mkdir(parents=True)
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    for file in SAMPLE.glob("*.txt"):
        shutil.copy(file, folder / "authoring" / f"{file.stem}.py")
    return folder


@pytest.fixture(scope="module")
def sample_built(tmp_path_factory) -> dict[str, str]:
    return build(new_course(tmp_path_factory.mktemp("sample") / "course"), specs)


@pytest.fixture
def sample(tmp_path, sample_built) -> Path:
    """A course folder of one sample module, built."""
    root = new_course(tmp_path / "course")
    write(root, sample_built)
    return root


def edit(path: Path, change) -> str:
    """Change a notebook as a person would; returns the file's new text."""
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    nbformat.write(notebook, path)
    return path.read_text(encoding="utf-8")


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


# The committed notebooks


def test_every_built_notebook_equals_its_source():
    built = build(ROOT)
    assert [str(d) for d in differences(ROOT, built) + strays(ROOT, built)] == [], "run `make notebooks`"


def test_another_process_in_another_folder_builds_the_same_bytes(tmp_path):
    shutil.copytree(ROOT / "authoring", tmp_path / "authoring")
    shutil.copy(ROOT / "nbgrader_config.py", tmp_path)
    command = [sys.executable, "-m", "openweightlab.cli", "notebooks"]
    env = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    made = {
        p.relative_to(tmp_path)
        for folder in ("lessons", "solutions", "exercises")
        for p in tmp_path.glob(f"{folder}/**/*.ipynb")
    }
    assert made
    for path in made:
        assert (tmp_path / path).read_bytes() == (ROOT / path).read_bytes(), path
    assert not list(tmp_path.glob("gradebook.db")), "the builder touched a gradebook"


def test_links_to_files_lead_somewhere():
    notebooks_here = [*ROOT.glob("lessons/*.ipynb"), *ROOT.glob("exercises/*/*.ipynb")]
    assert notebooks_here
    dead = []
    for file in notebooks_here:
        text = "\n".join(c.source for c in nbformat.read(file, 4).cells if c.cell_type == "markdown")
        links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) + re.findall(r"(?:src|href)=\"([^\"#]+)", text)
        local = [link for link in links if not re.match(r"[a-z]+:", link)]
        dead += [f"{file.name}: {link}" for link in local if not (file.parent / link).exists()]
    assert dead == []


# What is built


def test_an_exercise_is_what_nbgrader_generates(sample):
    before = (sample / EXERCISE).read_bytes()
    shutil.rmtree(sample / "exercises")
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", "90_sample"]
    done = subprocess.run(command, cwd=sample, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (sample / EXERCISE).read_bytes() == before


def test_notebooks_carry_no_outputs_and_no_versions(sample_built):
    for path, text in sample_built.items():
        notebook = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
        assert text.endswith("}\n"), path
        assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
        assert set(notebook.metadata) == {"kernelspec", "language_info", "owl"}
        assert notebook.metadata.language_info == {"name": "python"}
        assert not any(c.get("outputs") or c.get("execution_count") for c in notebook.cells), path


def test_short_nbgrader_metadata_is_completed(sample_built):
    cells = {
        c.metadata.nbgrader.grade_id: c
        for c in nbformat.reads(sample_built[SOLUTION], 4).cells
        if "nbgrader" in c.metadata
    }
    settings = {"grade_id": "Q90.1", "points": 3, "grade": True, "solution": False, "task": False}
    full = {**settings, "locked": True, "cell_type": "code", "schema_version": 3}
    assert cells["Q90.1"].metadata.nbgrader == full
    assert not cells["Q90.1-answer"].metadata.nbgrader.locked
    assert cells["Q90.2"].metadata.nbgrader.solution and not cells["Q90.2"].metadata.nbgrader.locked


def test_students_get_signatures_and_friendly_stubs(sample_built):
    cells = {
        c.metadata.nbgrader.grade_id: c.source
        for c in nbformat.reads(sample_built[EXERCISE], 4).cells
        if "nbgrader" in c.metadata
    }
    stub = '    raise NotImplementedError("write your answer here, in place of this line")'
    assert cells["Q90.1-answer"].split("\n")[:4] == [
        "# Q90.1 answer",
        "def scale_up(number: float, factor: float) -> float:",
        '    """The number, made larger."""',
        stub,
    ]
    assert cells["Q90.1-answer"].count(stub) == 2
    assert cells["Q90.2"] == "**Q90.2 answer**\n\n*Write your answer here, in place of this line.*"


def test_cell_ids_stay_when_another_section_is_edited(sample):
    file = sample / "authoring" / "90_sample_graded.py"
    ids = [cell.id for cell in read_source(sample, file).notebook.cells]
    assert len(set(ids)) == len(ids)
    text = file.read_text(encoding="utf-8")
    file.write_text(
        text.replace("import openweightlab as owl\n", "import openweightlab as owl\n\n# %%\nprint(1)\n"),
        encoding="utf-8",
    )
    after = [cell.id for cell in read_source(sample, file).notebook.cells]
    assert len(after) == len(ids) + 1
    assert [i for i in after if i in ids] == ids


# What is refused

REFUSED = yaml.safe_load((SAMPLE / "refused.yaml").read_text(encoding="utf-8"))
HEADING = "### Q90.1 · Scale it · 3 points · ●●○○○ · 10 min"


def read_problems(root: Path, file: Path) -> list[str]:
    try:
        return [str(problem) for problem in problems(read_source(root, file), SPECS)]
    except Refused as refused:
        return [str(problem) for problem in refused.problems]


@pytest.mark.parametrize("name", REFUSED)
def test_a_source_is_refused_without_its(name, tmp_path):
    case = REFUSED[name]
    file = tmp_path / f"90_sample_{case['in']}.py"
    text = (SAMPLE / f"{file.stem}.txt").read_text(encoding="utf-8")
    assert case["find"] in text, "this example no longer fits the sample"
    file.write_text(text.replace(case["find"], case["put"]), encoding="utf-8")
    found = read_problems(tmp_path, file)
    assert any(case["says"] in problem for problem in found), found


@pytest.mark.parametrize("kind", ["lesson", "graded"])
def test_the_sample_itself_is_not_refused(kind, tmp_path):
    shutil.copy(SAMPLE / f"90_sample_{kind}.txt", tmp_path / f"90_sample_{kind}.py")
    assert read_problems(tmp_path, tmp_path / f"90_sample_{kind}.py") == []


def test_a_problem_names_file_and_line(tmp_path):
    text = (SAMPLE / "90_sample_graded.txt").read_text(encoding="utf-8")
    file = tmp_path / "90_sample_graded.py"
    file.write_text(text.replace(HEADING, "### Q90.1 · Scale it · 3 points · 10 min"), encoding="utf-8")
    line = 1 + text.split("\n").index(f"# {HEADING}")
    assert any(
        problem.startswith(f"90_sample_graded.py:{line}: Q90.1") for problem in read_problems(tmp_path, file)
    )


def test_one_bad_source_stops_the_whole_build_and_all_problems_are_told(sample):
    graded = sample / "authoring" / "90_sample_graded.py"
    graded.write_text(
        graded.read_text(encoding="utf-8").replace("●●○○○", "").replace("Hint", "Help"), encoding="utf-8"
    )
    (sample / "authoring" / "draft.py").write_text("# %%\n1\n")
    with pytest.raises(Refused, match=r"authoring/draft\.py:1: name it NN_topic_lesson\.py"):
        build(sample, specs)
    (sample / "authoring" / "draft.py").unlink()
    with pytest.raises(Refused) as refused:
        build(sample, specs)
    assert {problem.text.split(":")[0] for problem in refused.value.problems} == {"Q90.1", "Q90.2"}


def test_a_hint_that_gives_the_solution_away_is_refused(sample):
    graded = sample / "authoring" / "90_sample_graded.py"
    text = graded.read_text(encoding="utf-8")
    graded.write_text(
        text.replace(
            "Bytes have eight bits.", "return  number/factor  if factor else float('inf')".replace("'", '"')
        ),
        encoding="utf-8",
    )
    with pytest.raises(Refused, match=r"students would see part of Q90\.1-answer's solution"):
        build(sample, specs)


def test_what_nbgrader_refuses_is_told_in_its_words(sample):
    graded = sample / "authoring" / "90_sample_graded.py"
    hidden = "x = 1\n### BEGIN HIDDEN TESTS\nassert x\n### END HIDDEN TESTS\n"
    graded.write_text(
        graded.read_text(encoding="utf-8").replace("import openweightlab as owl\n", hidden), encoding="utf-8"
    )
    with pytest.raises(
        Refused, match=r"no exercise of 90_sample(?s:.)*Hidden test region detected in a non-grade cell"
    ):
        build(sample, specs)


# Nobody's work is lost


def answer(notebook):
    cell = next(c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == "Q90.1-answer")
    cell.source = cell.source.replace("raise NotImplementedError", "return number  # ")


EDITS = {  # a person's work: which notebook, what was done to it
    "a changed word": (LESSON, lambda nb: nb.cells[0].update(source="# Another title")),
    "a new cell": (LESSON, lambda nb: nb.cells.append(nbformat.v4.new_code_cell("my_idea = 1"))),
    "a deleted cell": (SOLUTION, lambda nb: nb.cells.pop(1)),
    "two cells swapped": (LESSON, lambda nb: nb.cells.insert(1, nb.cells.pop(2))),
    "code made text": (LESSON, lambda nb: nb.cells[2].update(cell_type="raw")),
    "other points": (SOLUTION, lambda nb: nb.cells[4].metadata.nbgrader.update(points=5)),
    "a tag": (SOLUTION, lambda nb: nb.cells[1].metadata.update(tags=["skip"])),
    "a student's answer": (EXERCISE, answer),
    "a word, and no stamp": (LESSON, lambda nb: (nb.metadata.pop("owl"), nb.cells.pop())),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_no_build_writes_over(name, sample, sample_built):
    path, change = EDITS[name]
    edit(sample / path, change)
    (sample / next(p for p in sample_built if p != path)).unlink()  # something else is to be built, too
    before = snapshot(sample)
    with pytest.raises(Refused) as refused:
        write(sample, sample_built)
    assert path in str(refused.value) and "Move them to authoring/" in str(refused.value)
    assert snapshot(sample) == before, "nothing else may be written in a refused build"
    assert show_difference(sample, path, sample_built[path])


def test_a_file_that_is_no_notebook_is_kept(sample, sample_built):
    (sample / LESSON).write_text("<<<<<<< HEAD\n{}\n=======")
    with pytest.raises(Refused, match="broken merge"):
        write(sample, sample_built)
    assert (sample / LESSON).read_text().startswith("<<<<<<<")


def run_in_lab(notebook):
    """What JupyterLab leaves in a notebook that was run and saved, no word of it changed."""
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="again\n")]
    notebook.cells[-1].execution_count = 3
    notebook.metadata.language_info = {"name": "python", "version": "3.12.1"}
    notebook.metadata.widgets = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    notebook.cells.append(nbformat.v4.new_code_cell(""))


def test_a_notebook_that_was_only_run_is_told_of_and_rebuilt(sample, sample_built):
    edit(sample / LESSON, run_in_lab)
    (found,) = differences(sample, sample_built)
    assert str(found) == f"{LESSON}: holds outputs or an editor's settings, but no edit"
    assert write(sample, sample_built) == [LESSON]
    assert (sample / LESSON).read_text(encoding="utf-8") == sample_built[LESSON]


def test_an_old_notebook_is_rebuilt_when_its_source_changed(sample):
    file = sample / "authoring" / "90_sample_lesson.py"
    file.write_text(
        file.read_text(encoding="utf-8").replace("Two sections", "Some sections"), encoding="utf-8"
    )
    fresh = build(sample, specs)
    assert [str(d) for d in differences(sample, fresh)] == [
        f"{LESSON}: older than authoring/90_sample_lesson.py"
    ]
    assert write(sample, fresh) == [LESSON]
    assert differences(sample, fresh) == []


def test_an_edit_that_was_moved_to_authoring_is_no_longer_one(sample):
    edit(sample / LESSON, lambda nb: nb.cells[0].update(source="# A sample\n\nSome sections."))
    file = sample / "authoring" / "90_sample_lesson.py"
    file.write_text(
        file.read_text(encoding="utf-8").replace("Two sections", "Some sections"), encoding="utf-8"
    )
    assert write(sample, build(sample, specs)) == [LESSON]


def test_data_beside_a_solution_stops_the_build(sample, sample_built):
    (sample / "solutions/90_sample/answers.csv").write_text("1")
    (sample / "solutions/90_sample/.ipynb_checkpoints").mkdir()
    (sample / "solutions/90_sample/.ipynb_checkpoints/90_sample-checkpoint.ipynb").write_text("{}")
    with pytest.raises(Refused) as refused:
        write(sample, sample_built)
    (problem,) = refused.value.problems
    assert str(problem).startswith("solutions/90_sample/answers.csv: only the notebook may be here")


def test_an_instructors_own_assignment_is_left_alone(sample, sample_built):
    own = sample / "solutions/midterm/midterm.ipynb"
    own.parent.mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), own)
    before = own.read_bytes()
    assert differences(sample, sample_built) == [] and strays(sample, sample_built) == []
    write(sample, sample_built)
    assert own.read_bytes() == before


# The command


@pytest.fixture
def command(sample, sample_built, monkeypatch):
    monkeypatch.chdir(sample / "authoring")  # from any folder of the course
    monkeypatch.setattr(builder, "build", lambda root: sample_built)
    return lambda check=False, diff=False: notebooks.main(Namespace(check=check, diff=diff))


def test_check_says_which_notebook_differs(command, sample, capsys):
    assert command(check=True) == 0
    assert capsys.readouterr().out == "3 notebooks, no differences\n"
    edit(sample / SOLUTION, lambda nb: nb.cells[0].update(source="# Mine"))
    (sample / EXERCISE).unlink()
    before = snapshot(sample)
    assert command(check=True) == 1
    said = capsys.readouterr().out
    assert f"{SOLUTION}: edited by hand since it was built" in said and f"{EXERCISE}: not built yet" in said
    assert LESSON not in said and "3 notebooks, 2 differences" in said
    assert command(diff=True) == 1
    assert "-# Mine\n+# A sample" in capsys.readouterr().out
    assert snapshot(sample) == before


def test_build_says_what_it_wrote_and_what_it_refused(command, sample, capsys):
    (sample / LESSON).unlink()
    assert command() == 0
    assert capsys.readouterr().out == f"wrote {LESSON}\n2 unchanged\n"
    edit(sample / LESSON, lambda nb: nb.cells[0].update(source="# Mine"))
    assert command() == 1
    said = capsys.readouterr().err
    assert "edited by hand" in said and said.endswith("Nothing was written.\n")


def test_a_notebook_whose_source_is_gone_is_named(sample, sample_built):
    left = {path: text for path, text in sample_built.items() if path != LESSON}
    (found,) = differences(sample, left)
    assert (
        str(found)
        == f"{LESSON}: its source authoring/90_sample_lesson.py is gone: bring it back, or delete this"
    )
    write(sample, left)
    assert (
        json.loads((sample / LESSON).read_text(encoding="utf-8"))["metadata"]["owl"]["module"] == "90_sample"
    )


def test_outside_of_a_course_the_command_says_so(tmp_path):
    with pytest.raises(SystemExit, match=r"No authoring/ and nbgrader_config\.py"):
        notebooks.course_root(tmp_path)


# nbgrader's own checks, by nbgrader_config.py


def test_question_numbers_have_a_dot_and_nbgraders_check_still_finds_what_is_wrong(sample_built):
    notebook = nbformat.reads(sample_built[SOLUTION], 4)
    before = nbformat.writes(notebook)
    CheckGradeIds().preprocess(notebook, {})
    assert nbformat.writes(notebook) == before
    for wrong in ({"grade_id": "Q90.2"}, {"grade_id": "Q90 1"}, {"points": "many"}, {"schema_version": 2}):
        spoilt = nbformat.reads(sample_built[SOLUTION], 4)
        next(c for c in spoilt.cells if c.id == "Q90-1").metadata.nbgrader.update(wrong)
        with pytest.raises(Exception, match=r"failed to validate|Outdated schema"):
            CheckGradeIds().preprocess(spoilt, {})


def test_nbgrader_validate_does_not_pass_an_unanswered_exercise(sample):
    command = [sys.executable, "-m", "nbgrader", "validate", EXERCISE]
    done = subprocess.run(command, cwd=sample, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0 and "call `owl check NOTEBOOK`" in done.stderr
