"""Every question against every known answer to it, over many seeds, by the judge without a kernel."""

import importlib
import multiprocessing
import runpy
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from openweightlab import questions
from openweightlab.check import answer, examine, judge_case
from openweightlab.grading import judge as judging
from openweightlab.questions import Case, Question, Verdict

ROOT = Path(__file__).parents[1]
JUDGES = ROOT / "judges"
SEEDS = range(12)
FEWER_SEEDS = range(100, 104)  # wrong answers are many
MODULES = questions.modules()


@cache
def variants(module: str) -> dict[str, dict[str, dict[str, str]]]:
    return runpy.run_path(str(ROOT / "tests" / "mutants" / f"{module}.py"))["VARIANTS"]


@cache
def hidden(module: str, seed: int) -> dict[str, list[Case]]:
    return judging.load_judge(JUDGES, module).cases(seed)


def every(*kinds: str) -> list:
    """A test parameter for each variant of these kinds."""
    return [
        pytest.param(module, question, source, id=f"{question}-{kind}-{name}".replace(" ", "_"))
        for module in MODULES
        for question, by_kind in variants(module).items()
        for kind in kinds
        for name, source in by_kind[kind].items()
    ]


def functions(question: Question, source: str) -> tuple:
    scope: dict = {"__name__": "answer"}
    exec(compile(source, f"<ipython-input-{question.id}>", "exec"), scope)
    return tuple(scope[name] for name in question.functions)


def points(module: str, id: str, source: str, seed: int) -> float:
    question, cases = questions.load(module)[id], hidden(module, seed)[id]
    mine = functions(question, source)
    verdicts = [judging.verdict(question, case, answer(question, mine, case.inputs)) for case in cases]
    return judging.score(question, cases, verdicts)


@pytest.mark.parametrize(("module", "id", "source"), every("reference", "rival"))
def test_right_answers_get_full_marks_on_every_seed(module: str, id: str, source: str) -> None:
    got = {seed: points(module, id, source, seed) for seed in SEEDS}
    assert got == {seed: questions.load(module)[id].points for seed in SEEDS}


@pytest.mark.parametrize(("module", "id", "source"), every("partial"))
def test_wrong_answers_never_get_full_marks(module: str, id: str, source: str) -> None:
    full = questions.load(module)[id].points
    got = {seed: points(module, id, source, seed) for seed in FEWER_SEEDS}
    assert all(0 < value < full for value in got.values()), got


@pytest.mark.parametrize(("module", "id", "source"), every("stub", "worthless"))
def test_worthless_answers_get_nothing(module: str, id: str, source: str) -> None:
    assert {points(module, id, source, seed) for seed in FEWER_SEEDS} == {0.0}


@pytest.mark.parametrize("module", MODULES)
def test_every_question_has_enough_variants(module: str) -> None:
    for id, by_kind in variants(module).items():
        assert len(by_kind["reference"]) == len(by_kind["stub"]) == 1, id
        assert len(by_kind["rival"]) >= 2, id
        assert len(by_kind["partial"]) + len(by_kind["worthless"]) >= 5, id
    assert list(variants(module)) == list(questions.load(module))


@pytest.mark.parametrize("module", MODULES)
def test_hidden_cases_are_drawn_from_the_seed(module: str) -> None:
    again = judging.load_judge(JUDGES, module).cases(3)
    for id, cases in hidden(module, 3).items():
        assert repr(cases) == repr(again[id])
        assert repr(cases) != repr(hidden(module, 4)[id])
        assert len(cases) >= 8 and len({case.label for case in cases}) == len(cases)
        assert sum(case.core for case in cases) >= 2


@pytest.mark.parametrize("module", MODULES)
def test_public_cases_are_what_the_oracle_gives(module: str, tmp_path: Path) -> None:
    judging.record(JUDGES, module, tmp_path)
    shipped = ROOT / "openweightlab" / "questions" / "cases"
    for suffix in ("json", "safetensors"):
        file = f"{module}.{suffix}"
        assert (tmp_path / file).read_bytes() == (shipped / file).read_bytes(), "run `judge record` again"


@pytest.mark.parametrize("module", MODULES)
def test_public_cases_are_not_hidden_ones(module: str) -> None:
    """Except for edges that are the same on every seed: no claims, no weights."""
    for id, cases in questions.public_cases(module).items():
        drawn = [{repr(case.inputs) for case in hidden(module, seed)[id]} for seed in SEEDS]
        shown = {repr(case.inputs) for case in cases} - set.intersection(*drawn)
        assert not shown & set.union(*drawn)


@pytest.mark.parametrize(("module", "id", "source"), every("reference", "rival"))
def test_right_answers_pass_the_visible_cases(module: str, id: str, source: str) -> None:
    question = questions.load(module)[id]
    report = examine(question, functions(question, source))
    assert report.ok, report


@pytest.mark.parametrize(("module", "id", "source"), every("worthless"))
def test_worthless_answers_fail_visibly(module: str, id: str, source: str) -> None:
    question = questions.load(module)[id]
    report = examine(question, functions(question, source))
    assert not report.ok and all(row.message for row in report.rows if not row.ok)


def recorded_mistakes(tree: object) -> set[str]:
    """Names of the mistakes that a case's `expected` holds, at any depth."""
    if not isinstance(tree, dict):
        return set()
    here = {name for key in ("mistakes", "wrong_ids", "wrong_weights") for name in tree.get(key, {})}
    return here.union(*(recorded_mistakes(value) for value in tree.values()))


@pytest.mark.parametrize("module", MODULES)
def test_every_recorded_mistake_has_its_cause_in_words(module: str) -> None:
    source = importlib.import_module(f"openweightlab.questions.m{module}")
    tables = [value for name, value in vars(source).items() if name.endswith("_CAUSES")]
    told = {name for table in tables for name in table} - set(getattr(source, "ASPECT_CAUSES", ()))
    drawn = [case.expected for seed in SEEDS for cases in hidden(module, seed).values() for case in cases]
    assert set().union(*map(recorded_mistakes, drawn)) == told


@pytest.mark.parametrize("module", MODULES)
def test_compare_survives_any_plain_value(module: str) -> None:
    strange = [
        None,
        True,
        -1,
        10**400,
        float("nan"),
        "",
        "x" * 1000,
        [],
        [[]],
        {},
        {"groups": 3},
        {"probabilities": []},
    ]
    for id, question in questions.load(module).items():
        for case in questions.public_cases(module)[id]:
            for value in strange:
                assert not judge_case(question, case, value).ok, (id, case.label, value)


def test_points_are_the_share_of_cases_in_quarters() -> None:
    question = questions.load("00_workbench")["Q0.1"]
    cases = [Case(str(n), {}, None, core=n == 0) for n in range(10)]
    yes, no = Verdict(True), Verdict(False)
    assert judging.score(question, cases, [yes] * 10) == 3.0
    assert judging.score(question, cases, [yes] * 9 + [no]) == 2.5
    assert judging.score(question, cases, [yes] * 9) == 2.5, "a case without a verdict is a failed one"
    assert judging.score(question, cases, [no] + [yes] * 9) == 0.0, "no points while a core case fails"


def test_drawn_cases_can_be_kept_and_a_damaged_file_is_drawn_again(tmp_path: Path) -> None:
    drawn = judging.draw(JUDGES, "00_workbench", 5, tmp_path)
    (kept,) = tmp_path.iterdir()
    whole = kept.read_bytes()
    assert repr(judging.draw(JUDGES, "00_workbench", 5, tmp_path)) == repr(drawn)
    for damage in (whole[:-9], b"", b"{}"):
        kept.write_bytes(damage)
        assert repr(judging.draw(JUDGES, "00_workbench", 5, tmp_path)) == repr(drawn)
    assert kept.read_bytes() == whole and len(list(tmp_path.iterdir())) == 1
    judging.draw(JUDGES, "00_workbench", 6, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2, "another seed, another file"


def test_of_several_processes_one_draws_and_the_others_wait_for_it(tmp_path: Path) -> None:
    counting = (
        "import os, time\ndef cases(seed):\n    open(__file__ + str(os.getpid()), 'w')\n    time.sleep(1)\n"
    )
    (tmp_path / "judges").mkdir()
    (tmp_path / "judges" / "99_slow.py").write_text(counting + "    return {'Q9.1': []}\n")
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as several:
        arguments = (tmp_path / "judges", "99_slow", 5, tmp_path / "cases")
        found = [several.submit(judging.draw, *arguments) for _ in range(3)]
        assert [one.result() for one in found] == [{"Q9.1": []}] * 3
    assert len(list((tmp_path / "judges").glob("99_slow.py?*"))) == 1


@pytest.mark.parametrize("module", MODULES)
def test_the_published_table_has_every_variant_with_fitting_points(module: str) -> None:
    text = (ROOT / "docs" / "variants" / f"{module}.md").read_text("utf-8")
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| Q")]
    told = {(id, name): span for id, name, _, span in lines}
    for id, by_kind in variants(module).items():
        full = f"{questions.load(module)[id].points:g}"
        for kind, sources in by_kind.items():
            for name in sources:
                span = told.pop((id, name))
                assert (span == full) == (kind in ("reference", "rival")), (id, name)
                assert (span == "0") == (kind in ("stub", "worthless")), (id, name)
    assert not told, f"rows of answers that are gone; run python tests/variants_table.py {module}"
