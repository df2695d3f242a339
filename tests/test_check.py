"""What a learner reads: verdicts, causes, errors; and `owl check` on a notebook."""

import json
import re
import runpy
from pathlib import Path

import pytest
from nbformat import write
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import openweightlab as owl
from openweightlab import cli, questions
from openweightlab.check import CheckError, Report, examine
from openweightlab.grading.selfcheck import first_hint

ROOT = Path(__file__).parents[1]
VARIANTS = runpy.run_path(str(ROOT / "tests" / "mutants" / "00_workbench.py"))["VARIANTS"]


def report(id: str, source: str) -> Report:
    question = questions.find(id)
    scope: dict = {}
    exec(compile(source, "<ipython-input-1>", "exec"), scope)
    return examine(question, tuple(scope[name] for name in question.functions))


CAUSES = {
    ("Q0.1", "whole state dict"): "counted twice",
    ("Q0.1", "trainable only"): "frozen ones are parameters too",
    ("Q0.1", "with buffers"): "Buffers were counted too",
    ("Q0.1", "number of tensors"): "number of tensors",
    ("Q0.1", "bytes"): "size in bytes",
    ("Q0.1", "without embeddings"): "embedding was left out",
    ("Q0.1", "a string"): "not a finite number",
    ("Q0.2", "GB of 10**9 bytes"): "a GiB has 2**30",
    ("Q0.2", "bits for bytes"): "a byte has 8 bits",
    ("Q0.2", "bytes"): "divide by 2**30",
    ("Q0.2", "whole bits"): "fraction of `bits` got lost",
    ("Q0.2", "rounded"): "was rounded",
    ("Q0.2", "whole-number division"): "drops the fraction",
    ("Q0.3", "logits"): "softmax is missing",
    ("Q0.3", "log-probabilities"): "log-probabilities",
    ("Q0.3", "first position"): "after the first token",
    ("Q0.3", "softmax over positions"): "over the vocabulary",
    ("Q0.3", "batch dimension kept"): "batch dimension is still there",
    ("Q0.3", "every position"): "distribution for every position",
    ("Q0.3", "dropout stays on"): "dropout was on",
    ("Q0.3", "mode not restored"): "came in train mode and was left in eval mode",
    ("Q0.3", "detached at the end"): "A gradient graph was built",
    ("Q0.3", "softmax in bf16"): "ran in bf16",
    ("Q0.4", "source goes first"): "can measure is measurable",
    ("Q0.4", "a press report as a source"): "no primary source",
    ("Q0.4", "an empty source counts"): "empty string is no source",
    ("Q0.4", "only the keys in use"): "always all three",
    ("Q0.4", "texts"): "wanted are their ids",
    ("Q0.4", "sets"): "a set came",
    ("Q0.4", "keys taken for granted"): "KeyError",
}


@pytest.mark.parametrize(("id", "name"), CAUSES)
def test_a_failing_case_names_the_likeliest_cause(id: str, name: str) -> None:
    source = (VARIANTS[id]["partial"] | VARIANTS[id]["worthless"])[name]
    text = repr(report(id, source))
    assert CAUSES[id, name] in re.sub(r"\s+", " ", text), text


def test_a_verdict_reads_well_as_text_and_as_html() -> None:
    good, bad = (
        report("Q0.2", VARIANTS["Q0.2"]["reference"]["bits to bytes to GiB"]),
        report("Q0.2", VARIANTS["Q0.2"]["worthless"]["a string"]),
    )
    assert good.ok and "All 5 visible cases pass" in repr(good)
    assert not bad.ok and "0 of 5 visible cases pass. Stuck? Open Hint 1" in repr(bad)
    assert "The call: weight_gib(65558773188, 16)" in repr(bad)
    html = bad._repr_html_()
    assert "✗" in html and "Expected a number" in html and "&#x27;" in html and "'122" not in html


def test_the_untouched_stub_is_friendly() -> None:
    text = repr(report("Q0.3", VARIANTS["Q0.3"]["stub"]["untouched"]))
    assert "Not answered yet: write `next_token_probabilities` in the cell above." in text


def test_an_exception_is_shown_with_the_learners_own_line_and_no_stack(capsys: pytest.CaptureFixture) -> None:
    def weight_gib(n_parameters: int, bits: float) -> float:
        return n_parameters / (bits - bits)

    owl.check("Q0.2", weight_gib)
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "ZeroDivisionError" in text and "return n_parameters / (bits - bits)" in text
    assert "Traceback" not in text and "check.py" not in text


def test_sys_exit_in_an_answer_is_only_a_wrong_answer() -> None:
    assert "SystemExit" in repr(
        report("Q0.2", "def weight_gib(n_parameters, bits):\n    raise SystemExit(3)")
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("Q9.9", len), "There is no question 'Q9.9'; the questions are: Q0.1"),
        ((3, len), "There is no question 3"),
        (("Q0.1",), 'Q0.1 checks 1 function(s), 0 came. Write owl.check("Q0.1", count_parameters)'),
        (("Q0.1", len, len), "2 came"),
        (("Q0.1", 5), "this is a int. Pass its name without brackets"),
    ],
)
def test_a_wrong_call_is_told_in_a_sentence(arguments: tuple, sentence: str) -> None:
    with pytest.raises(CheckError, match=re.escape(sentence)) as caught:
        owl.check(*arguments)
    assert caught.value._render_traceback_() == [f"owl.check: {caught.value}"]


def test_check_returns_nothing_so_no_ugly_repr_shows(capsys: pytest.CaptureFixture) -> None:
    assert owl.check("Q0.2", lambda n_parameters, bits: n_parameters * bits / 2**33) is None
    assert capsys.readouterr().out.startswith("✓ Q0.2 Memory for the weights: All 5")


def exercise(folder: Path, **answers: str) -> Path:
    cells = [new_code_cell("import openweightlab as owl")]
    hints = "<details><summary>Hint 1</summary>\n\nDivide by `2**30` &amp; by **8**.\n\n</details>"
    for id, source in answers.items():
        id = id.replace("_", ".")
        cells.append(new_markdown_cell(f"### {id} · Title · 2 points\n\nTask.\n\n{hints}"))
        functions = ", ".join(questions.find(id).functions)
        cells += [new_code_cell(f"# {id} answer\n{source}"), new_code_cell(f'owl.check("{id}", {functions})')]
    path = folder / "exercise.ipynb"
    write(new_notebook(cells=cells), path)
    return path


def test_owl_check_gives_points_and_the_first_hint(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    wrong = VARIANTS["Q0.2"]["worthless"]["GB of 10**9 bytes"]
    path = exercise(tmp_path, Q0_2=wrong, Q0_4="1 / 0")
    before = path.read_bytes()
    assert cli.main(["check", str(path), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    first, second = result["questions"]["Q0.2"], result["questions"]["Q0.4"]
    assert (first["points"], first["max_points"], first["ok"]) == (0, 2, False)
    assert first["hint"] == "Divide by `2**30` & by **8**."
    assert "NameError: name 'sort_claims' is not defined" in second["problem"] and second["points"] == 0
    assert path.read_bytes() == before, "the learner's file is only read"


def test_owl_check_succeeds_on_right_answers(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    right = {id.replace(".", "_"): next(iter(VARIANTS[id]["reference"].values())) for id in ("Q0.2", "Q0.4")}
    assert cli.main(["check", str(exercise(tmp_path, **right))]) == 0
    assert "4 of 4 points on the visible cases" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "There is no file"),
        ("", "not a notebook that can be read"),
        ("{", "not a notebook that can be read"),
        ('{"cells": 3}', "not a notebook that can be read"),
        ("[]", "not a notebook that can be read"),
        ('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "has no check cells"),
    ],
)
def test_owl_check_says_what_is_wrong_with_a_file(
    content: str | None, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "odd.ipynb"
    if content is not None:
        path.write_text(content)
    assert cli.main(["check", str(path)]) == 2
    said = capsys.readouterr()
    assert sentence in said.err and "Traceback" not in said.err + said.out


def test_hints_are_taken_from_the_question_s_own_section() -> None:
    cells = [
        new_markdown_cell("### Q0.1 · A\n\nno hint here"),
        new_markdown_cell("### Q0.2 · B\n\n<details>\n<summary>Hint 1</summary>\n\nb</details>"),
    ]
    book = new_notebook(cells=cells)
    assert (first_hint(book, "Q0.1"), first_hint(book, "Q0.2"), first_hint(book, "Q0.3")) == ("", "b", "")
