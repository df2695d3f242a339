"""What students hand in, and what the normaliser makes of it: one small release, every honest mistake."""

import copy
import json
import os
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode, v4

from openweightlab.grading import handin
from openweightlab.grading.normalise import Normalised, normalise

MODULE = "09_demo"
DOUBLE = "# Q9.1 answer\ndef double(x):\n    return 2 * x"
HALVES = "# Q9.2 answer\ndef low(x):\n    return x // 2\n\n\ndef high(x):\n    return x - low(x)"
ESSAY = "**Q9.3 answer**\n\nBecause every token passes two experts only."


def _graded(cell: NotebookNode, grade_id: str, **meta: object) -> NotebookNode:
    plain = {"grade": False, "solution": False, "locked": False, "task": False, "schema_version": 3}
    cell.metadata["nbgrader"] = {**plain, "grade_id": grade_id, "cell_type": cell.cell_type, **meta}
    return cell


def make_release() -> NotebookNode:
    """Two coded questions (the second with two functions), a written one, a locked cell and plain ones."""
    stub = '    raise NotImplementedError("write your answer here, in place of this line")'
    cells = [
        v4.new_markdown_cell("# Demo"),
        _graded(v4.new_code_cell("import openweightlab as owl"), "setup", locked=True),
        v4.new_code_cell("import math"),
        v4.new_markdown_cell("### Q9.1 · Double · 2 points"),
        _graded(v4.new_code_cell(f"# Q9.1 answer\ndef double(x):\n{stub}"), "Q9.1-answer", solution=True),
        _graded(v4.new_code_cell('owl.check("Q9.1", double)'), "Q9.1", grade=True, points=2, locked=True),
        v4.new_markdown_cell("### Q9.2 · Halves · 3 points"),
        _graded(
            v4.new_code_cell(f"# Q9.2 answer\ndef low(x):\n{stub}\n\n\ndef high(x):\n{stub}"),
            "Q9.2-answer",
            solution=True,
        ),
        _graded(v4.new_code_cell('owl.check("Q9.2", low, high)'), "Q9.2", grade=True, points=3, locked=True),
        v4.new_markdown_cell("### Q9.3 · Say why · 4 points"),
        _graded(
            v4.new_markdown_cell("**Q9.3 answer**\n\n*Write your answer here, in place of this line.*"),
            "Q9.3",
            grade=True,
            solution=True,
            points=4,
        ),
    ]
    for n, cell in enumerate(cells):
        cell["id"] = f"cell-{n}"
    return v4.new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    )


RELEASE = make_release()
SETUP, PLAIN, A1, C1, A2, C2, W3 = 1, 2, 4, 5, 7, 8, 10


def worked() -> NotebookNode:
    """The release with every question answered."""
    notebook = copy.deepcopy(RELEASE)
    notebook.cells[A1].source, notebook.cells[A2].source, notebook.cells[W3].source = DOUBLE, HALVES, ESSAY
    return notebook


def hand_in(folder: Path, notebook: NotebookNode | str | bytes, name: str = f"{MODULE}.ipynb") -> Normalised:
    """Write one file into a submission's folder and normalise that."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(notebook) if isinstance(notebook, NotebookNode) else notebook
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return normalise(folder, MODULE, RELEASE)


def sources(result: Normalised) -> list[str]:
    return [cell.source for cell in result.notebook.cells]


def check_shape(result: Normalised) -> None:
    """Whatever came: valid nbformat, all of the release's cells, in order, with the release's metadata."""
    nbformat.validate(result.notebook)
    graded = [cell for cell in result.notebook.cells if "nbgrader" in cell.metadata]
    expected = [cell for cell in RELEASE.cells if "nbgrader" in cell.metadata]
    assert [cell.metadata for cell in graded] == [cell.metadata for cell in expected]
    answers = {"Q9.1-answer", "Q9.2-answer", "Q9.3"}
    for ours, theirs in zip(graded, expected, strict=True):
        if ours.metadata.nbgrader.grade_id not in answers:
            assert (ours.source, ours.cell_type) == (theirs.source, theirs.cell_type)


def answers_of(result: Normalised) -> tuple[str, str, str]:
    check_shape(result)
    by_id = {cell.metadata.get("nbgrader", {}).get("grade_id"): cell for cell in result.notebook.cells}
    return by_id["Q9.1-answer"].source, by_id["Q9.2-answer"].source, by_id["Q9.3"].source


def run_all(result: Normalised) -> dict[str, list]:
    """Run the code cells in order, checks recorded; what each check was given, called on 7."""
    seen: dict[str, list] = {}

    class Owl:
        @staticmethod
        def check(question: str, *functions) -> None:
            seen[question] = [function(7) for function in functions]

    space: dict = {"owl": Owl}
    for cell in result.notebook.cells:
        if cell.cell_type == "code":
            try:
                exec(cell.source.replace("import openweightlab as owl", ""), space)
            except Exception as error:
                seen[f"error {len(seen)}"] = [repr(error)]
    return seen


FULL = {"Q9.1": [14], "Q9.2": [3, 4]}


def test_a_worked_notebook_comes_through_unchanged(tmp_path):
    result = hand_in(tmp_path, worked())
    assert (result.status, result.reason, result.flags) == ("", "", ())
    assert sources(result) == [cell.source for cell in worked().cells]
    assert run_all(result) == FULL


def test_the_untouched_release_has_only_stubs_and_no_flag(tmp_path):
    result = hand_in(tmp_path, RELEASE)
    assert (result.status, result.flags) == ("", ())
    assert result.notebook == RELEASE


@pytest.mark.parametrize("name", [f"{MODULE} (1).ipynb", "my work.ipynb", f"{MODULE}.ipynb.txt", "X.IPYNB"])
def test_renamed(tmp_path, name):
    result = hand_in(tmp_path, worked(), name)
    assert answers_of(result) == (DOUBLE, HALVES, ESSAY)
    assert result.flags == ("renamed-file",)


def test_nested(tmp_path):
    result = hand_in(tmp_path, worked(), f"home/week 1/{MODULE}.ipynb")
    assert answers_of(result) == (DOUBLE, HALVES, ESSAY)
    assert result.flags == ("nested-file",)


def test_a_single_file_instead_of_a_folder(tmp_path):
    (tmp_path / f"{MODULE}.ipynb").write_text(json.dumps(worked()))
    result = normalise(tmp_path / f"{MODULE}.ipynb", MODULE, RELEASE)
    assert answers_of(result) == (DOUBLE, HALVES, ESSAY)
    assert result.flags == ()


def test_of_several_notebooks_the_one_with_most_answers_counts(tmp_path):
    half = copy.deepcopy(worked())
    half.cells[A2].source = RELEASE.cells[A2].source
    hand_in(tmp_path, RELEASE)
    hand_in(tmp_path, half, "half.ipynb")
    hand_in(tmp_path, worked(), f".ipynb_checkpoints/{MODULE}-checkpoint.ipynb")
    result = hand_in(tmp_path, worked(), f"{MODULE}-Copy1.ipynb")
    assert answers_of(result) == (DOUBLE, HALVES, ESSAY)
    assert result.flags == ("renamed-file", "several-notebooks")


def test_among_equal_notebooks_the_right_name_counts(tmp_path):
    other = copy.deepcopy(worked())
    other.cells[A1].source = DOUBLE.replace("2", "3")
    hand_in(tmp_path, other, "a.ipynb")
    assert answers_of(hand_in(tmp_path, worked()))[0] == DOUBLE


def test_a_damaged_notebook_beside_a_good_one_costs_nothing(tmp_path):
    hand_in(tmp_path, "{", "a.ipynb")
    assert answers_of(hand_in(tmp_path, worked())) == (DOUBLE, HALVES, ESSAY)


# Cells copied, split, added, deleted, moved


def test_copied_answer_last_wins_and_the_older_still_runs_before(tmp_path):
    notebook = worked()
    old = copy.deepcopy(notebook.cells[A1])
    old.source = "# Q9.1 answer\nfactor = 2\ndef double(x):\n    return 0"
    notebook.cells.insert(A1, old)
    notebook.cells[A1 + 1].source = "# Q9.1 answer\ndef double(x):\n    return factor * x"
    result = hand_in(tmp_path, notebook)
    assert answers_of(result)[0].endswith("factor * x")
    assert result.flags == ("duplicate-answer",)
    assert run_all(result) == FULL


def test_a_stub_copied_below_the_answer_does_not_win(tmp_path):
    notebook = worked()
    notebook.cells.insert(A1 + 1, copy.deepcopy(RELEASE.cells[A1]))
    assert run_all(hand_in(tmp_path, notebook)) == FULL


def test_an_identical_copy_is_dropped(tmp_path):
    notebook = worked()
    notebook.cells.insert(A1 + 1, copy.deepcopy(notebook.cells[A1]))
    result = hand_in(tmp_path, notebook)
    assert sources(result) == [cell.source for cell in worked().cells]


def test_a_cell_copied_for_the_next_question_counts_there(tmp_path):
    """Copied with its metadata, then edited: the marker and the functions say where it belongs."""
    notebook = worked()
    copied = copy.deepcopy(notebook.cells[A1])
    copied.source = HALVES
    notebook.cells[A2] = copied
    result = hand_in(tmp_path, notebook)
    assert answers_of(result)[:2] == (DOUBLE, HALVES)


@pytest.mark.parametrize("keeps_metadata", [True, False])
@pytest.mark.parametrize(
    "parts",
    [
        ("# Q9.2 answer\ndef low(x):\n    return x // 2", "def high(x):\n    return x - low(x)"),
        (
            "# Q9.2 answer\ndef low(x):\n    return x // 2\ndef high(x):\n    rest = x - low(x)",
            "    return rest",
        ),
        ("# Q9.2 answer\nTWO = 2", "def low(x):\n    return x // TWO\ndef high(x):\n    return x - low(x)"),
    ],
    ids=["between functions", "inside a function", "helper first"],
)
def test_split_answer(tmp_path, parts, keeps_metadata):
    notebook = worked()
    second = copy.deepcopy(notebook.cells[A2])
    notebook.cells[A2].source, second.source = parts
    if not keeps_metadata:
        second = v4.new_code_cell(parts[1])
    notebook.cells.insert(A2 + 1, second)
    result = hand_in(tmp_path, notebook)
    assert run_all(result) == FULL
    check_shape(result)
    if keeps_metadata or parts[1].startswith(" "):
        assert result.flags == ("split-answer",)


def test_own_cells_keep_their_places_and_get_no_grade_id(tmp_path):
    notebook = worked()
    notebook.cells[A1].source = "# Q9.1 answer\ndef double(x):\n    return scale(x)"
    notebook.cells.insert(A1, v4.new_code_cell("def scale(x):\n    return FACTOR * x"))
    notebook.cells.insert(A1, v4.new_markdown_cell("my notes"))
    notebook.cells.insert(0, v4.new_code_cell("FACTOR = 2"))
    notebook.cells[0].metadata["nbgrader"] = {
        "grade_id": "mine",
        "grade": True,
        "solution": False,
        "points": 99,
    }
    result = hand_in(tmp_path, notebook)
    assert result.flags == ()
    assert run_all(result) == FULL
    assert sources(result)[0] == "FACTOR = 2"
    assert sources(result).index("my notes") < sources(result).index("def scale(x):\n    return FACTOR * x")
    check_shape(result)


def test_copies_of_check_cells_and_calls_inside_other_cells_are_dropped(tmp_path):
    notebook = worked()
    notebook.cells.insert(C1 + 1, copy.deepcopy(notebook.cells[C1]))
    notebook.cells.insert(A1, v4.new_code_cell('owl.check("Q9.1", double)  # try'))
    notebook.cells[A1 + 1].source += '\n\nowl.check("Q9.1", double)\n'
    result = hand_in(tmp_path, notebook)
    assert sum("owl.check" in source for source in sources(result)) == 2
    assert run_all(result) == FULL


def test_deleted_check_cell_is_restored(tmp_path):
    notebook = worked()
    del notebook.cells[C1]
    result = hand_in(tmp_path, notebook)
    assert result.flags == ("check-restored",)
    assert run_all(result) == FULL


def test_an_answer_typed_into_the_check_cell_counts(tmp_path):
    notebook = worked()
    notebook.cells[A1].source = RELEASE.cells[A1].source
    notebook.cells[C1].source = DOUBLE.split("\n", 1)[1] + '\n\nowl.check("Q9.1", double)'
    result = hand_in(tmp_path, notebook)
    assert run_all(result) == FULL
    assert "tampered" in result.flags


def test_moved_cells_come_back_in_the_release_s_order(tmp_path):
    notebook = worked()
    notebook.cells[A1], notebook.cells[C1] = notebook.cells[C1], notebook.cells[A1]
    notebook.cells.reverse()
    result = hand_in(tmp_path, notebook)
    assert sources(result) == [cell.source for cell in worked().cells]


def test_an_answer_written_in_a_new_cell_below_the_stub(tmp_path):
    notebook = copy.deepcopy(RELEASE)
    notebook.cells.insert(A1 + 1, v4.new_code_cell("def double(x):\n    return 2 * x"))
    result = hand_in(tmp_path, notebook)
    assert run_all(result)["Q9.1"] == [14]
    assert "metadata-repaired" in result.flags


def test_an_answer_written_in_a_new_cell_above_the_stub(tmp_path):
    notebook = copy.deepcopy(RELEASE)
    notebook.cells.insert(0, v4.new_code_cell("double = lambda x: 2 * x"))
    assert run_all(hand_in(tmp_path, notebook))["Q9.1"] == [14]


def test_edits_of_the_handed_out_code_run_after_it(tmp_path):
    notebook = worked()
    notebook.cells[PLAIN].source = "import math\nfrom operator import mul"
    notebook.cells[SETUP].source = "import openweightlab as owl\nTWO = 2"
    notebook.cells[A1].source = "# Q9.1 answer\ndef double(x):\n    return mul(2, x)"
    result = hand_in(tmp_path, notebook)
    found = sources(result)
    assert found.index("import math") + 1 == found.index("import math\nfrom operator import mul")
    assert found[SETUP : SETUP + 2] == ["import openweightlab as owl", "import openweightlab as owl\nTWO = 2"]
    assert run_all(result) == FULL


# Types and metadata changed or lost


@pytest.mark.parametrize("kind", ["markdown", "raw"])
@pytest.mark.parametrize("keeps_metadata", [True, False])
def test_changed_type_of_an_answer(tmp_path, kind, keeps_metadata):
    notebook = worked()
    make = v4.new_markdown_cell if kind == "markdown" else v4.new_raw_cell
    meta = notebook.cells[A1].metadata if keeps_metadata else {}
    notebook.cells[A1] = make(DOUBLE, metadata=meta)
    result = hand_in(tmp_path, notebook)
    assert run_all(result) == FULL
    assert "cell-type-repaired" in result.flags


def test_an_answer_in_a_fenced_text_cell(tmp_path):
    notebook = worked()
    notebook.cells[A1] = v4.new_markdown_cell(f"```python\n{DOUBLE}\n```")
    assert run_all(hand_in(tmp_path, notebook)) == FULL


def test_changed_type_of_check_and_written_cells(tmp_path):
    notebook = worked()
    notebook.cells[C1] = v4.new_markdown_cell(notebook.cells[C1].source, metadata=notebook.cells[C1].metadata)
    notebook.cells[W3] = v4.new_code_cell(ESSAY, metadata=notebook.cells[W3].metadata)
    result = hand_in(tmp_path, notebook)
    assert run_all(result) == FULL
    assert answers_of(result)[2] == ESSAY


def strip(notebook: NotebookNode) -> NotebookNode:
    """Without any metadata or id, as after a trip through tools that keep neither."""
    cells = [
        NotebookNode(cell_type=cell.cell_type, source=cell.source, metadata={}, **_code_fields(cell))
        for cell in notebook.cells
    ]
    return NotebookNode(nbformat=4, nbformat_minor=4, metadata={}, cells=cells)


def _code_fields(cell: NotebookNode) -> dict:
    return {"outputs": [], "execution_count": None} if cell.cell_type == "code" else {}


def test_stripped_metadata(tmp_path):
    result = hand_in(tmp_path, strip(worked()))
    assert answers_of(result) == (DOUBLE, HALVES, ESSAY)
    assert result.flags == ("metadata-repaired",)
    assert sources(result) == [cell.source for cell in worked().cells]


def test_stripped_metadata_and_markers(tmp_path):
    notebook = strip(worked())
    notebook.cells[A1].source = DOUBLE.split("\n", 1)[1]
    notebook.cells[A2].source = HALVES.split("\n", 1)[1]
    notebook.cells[W3].source = "Because every token passes two experts only."
    result = hand_in(tmp_path, notebook)
    assert run_all(result) == FULL
    assert answers_of(result)[2] == "Because every token passes two experts only."


def test_cleared_and_pasted_code_only(tmp_path):
    code = [cell for cell in strip(worked()).cells if cell.cell_type == "code"]
    result = hand_in(tmp_path, NotebookNode(nbformat=4, metadata={}, cells=code), "Untitled.ipynb")
    assert run_all(result) == FULL
    assert "metadata-repaired" in result.flags


@pytest.mark.parametrize("markers", [True, False])
def test_everything_pasted_into_one_cell(tmp_path, markers):
    text = "\n\n".join(cell.source for cell in worked().cells if cell.cell_type == "code")
    text = text if markers else text.replace("# Q9.1 answer\n", "").replace("# Q9.2 answer\n", "")
    result = hand_in(tmp_path, v4.new_notebook(cells=[v4.new_code_cell(text)]))
    check_shape(result)
    assert run_all(result) == FULL


def test_answers_in_new_cells_at_the_end_bring_their_helpers_along(tmp_path):
    notebook = copy.deepcopy(RELEASE)
    for source in ("TWO = 2", "def double(x):\n    return TWO * x", HALVES):
        notebook.cells.append(v4.new_code_cell(source))
    assert run_all(hand_in(tmp_path, notebook)) == FULL


def test_a_renamed_function_is_matched_by_likeness(tmp_path):
    notebook = strip(worked())
    notebook.cells[A1].source = RELEASE.cells[A1].source.split("\n", 1)[1].replace("double", "doubled")
    result = hand_in(tmp_path, notebook)
    assert "doubled" in answers_of(result)[0]


def test_tags_points_and_unknown_metadata_are_dropped_and_told(tmp_path):
    notebook = worked()
    notebook.cells[C1].metadata["tags"] = ["skip-execution"]
    notebook.cells[C2].metadata.nbgrader["points"] = 99
    notebook.metadata["widgets"] = {"state": {}}
    result = hand_in(tmp_path, notebook)
    check_shape(result)
    assert result.flags == ("tampered",)
    assert result.notebook.metadata == RELEASE.metadata


@pytest.mark.parametrize(
    "change", [{"grade_id": "Q9.9"}, {"schema_version": 99}, {"grade": False}, {"solution": True}]
)
def test_edited_nbgrader_metadata_of_a_check(tmp_path, change):
    notebook = worked()
    notebook.cells[C1].metadata.nbgrader.update(change)
    result = hand_in(tmp_path, notebook)
    check_shape(result)
    assert run_all(result) == FULL


# Files of other shapes


def test_colab_shaped(tmp_path):
    notebook = strip(worked())
    notebook["nbformat_minor"] = 0
    notebook.metadata = {"colab": {"provenance": []}, "accelerator": "GPU"}
    for n, cell in enumerate(notebook.cells):
        cell.metadata = {
            "id": f"abc{n}",
            "outputId": "x",
            "nbgrader": RELEASE.cells[n].metadata.get("nbgrader", {}),
        }
    result = hand_in(tmp_path, notebook)
    assert answers_of(result) == (DOUBLE, HALVES, ESSAY)
    assert result.flags == ()


def test_nbformat_3(tmp_path):
    cells = []
    for cell in worked().cells:
        text = (
            {"input": cell.source} if cell.cell_type == "code" else {"source": cell.source.splitlines(True)}
        )
        cells.append({"cell_type": cell.cell_type, "metadata": {}, **text})
    cells.insert(0, {"cell_type": "heading", "level": 2, "source": "My heading", "metadata": {}})
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": cells}]}
    result = hand_in(tmp_path, json.dumps(old))
    assert answers_of(result) == (DOUBLE, HALVES, ESSAY)
    assert "old-format" in result.flags
    assert "## My heading" in sources(result)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_other_encodings(tmp_path, encoding):
    notebook = worked()
    notebook.cells[W3].source = ESSAY + " À bientôt."
    text = json.dumps(notebook, ensure_ascii=False).replace("·", "-")
    result = hand_in(tmp_path, text.encode(encoding))
    assert answers_of(result)[2].endswith("À bientôt.")
    assert "encoding-repaired" in result.flags


def test_half_a_surrogate_pair_can_be_written(tmp_path):
    notebook = worked()
    notebook.cells[W3].source = ESSAY + " \ud83d"
    result = hand_in(tmp_path, notebook)
    nbformat.writes(result.notebook).encode("utf-8")


def test_pictures_pasted_into_a_written_answer_stay_and_scripts_do_not(tmp_path):
    notebook = worked()
    notebook.cells[W3]["attachments"] = {"a.png": {"image/png": "AAAA"}, "b.svg": {"image/svg+xml": "<svg/>"}}
    cell = hand_in(tmp_path, notebook).notebook.cells[W3]
    assert cell.attachments == {"a.png": {"image/png": "AAAA"}}


# What can't be graded


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty (0 bytes)"),
        (b"\0\0\0\0", "is empty"),
        (b"not json", "holds no JSON"),
        (b'{"cells": [', "damaged or cut off"),
        (b"<!DOCTYPE html><html>", "it is a web page"),
        (b"%PDF-1.7", "it is a PDF"),
        (b"[1, 2]", "its JSON is a list"),
        (b'{"a": 1}', "its JSON has no cells"),
        (b"[" * 100_000, "damaged or cut off|holds no JSON"),
        (b'{"cells": [{"cell_type": "code", "source": []}, 3, null, {"source": {"x": 1}}]}', "none of"),
    ],
)
def test_unreadable_files_say_why(tmp_path, content, words):
    result = hand_in(tmp_path, content)
    assert result.status == "unreadable"
    assert f"{MODULE}.ipynb " in result.reason
    assert any(part in result.reason for part in words.split("|")), result.reason
    assert result.notebook == RELEASE
    assert str(tmp_path) not in result.reason


def test_random_damage_never_raises(tmp_path):
    """Every prefix and every flipped byte of a real file: a status, or a notebook of the release's shape."""
    content = json.dumps(worked()).encode()
    for n in range(0, len(content), 97):
        check_shape(hand_in(tmp_path, content[:n]))
        check_shape(hand_in(tmp_path, content[:n] + bytes([content[n] ^ 0x55]) + content[n + 1 :]))


@pytest.mark.parametrize("value", [None, 1, "x", [], {}, [[]], True])
@pytest.mark.parametrize("key", ["metadata", "source", "cell_type", "attachments", "id"])
def test_odd_values_in_cells_never_raise(tmp_path, key, value):
    notebook = json.loads(json.dumps(worked()))
    for cell in notebook["cells"]:
        cell[key] = value
    check_shape(hand_in(tmp_path, json.dumps(notebook)))


def test_another_module_s_notebook(tmp_path):
    other = json.dumps(worked()).replace("Q9.", "Q4.").replace("double", "probe").replace("low", "lo")
    result = hand_in(tmp_path, other.replace("high", "hi"))
    assert (result.status, result.flags) == ("unreadable", ("wrong-module",))
    assert "Q4.1" in result.reason and MODULE in result.reason


def test_an_unrelated_notebook(tmp_path):
    result = hand_in(tmp_path, v4.new_notebook(cells=[v4.new_code_cell("print('hello')")]))
    assert (result.status, result.flags) == ("unreadable", ("wrong-module",))


def test_empty_and_absent_folders_are_missing(tmp_path):
    assert normalise(tmp_path, MODULE, RELEASE).status == "missing"
    assert normalise(tmp_path / "absent", MODULE, RELEASE).status == "missing"
    (tmp_path / "report.pdf").write_bytes(b"%PDF")
    result = normalise(tmp_path, MODULE, RELEASE)
    assert result.status == "missing" and "report.pdf" in result.reason


def test_links_are_refused_with_a_word(tmp_path):
    secret = tmp_path / "secret.ipynb"
    secret.write_text(json.dumps(worked()))
    (tmp_path / "in").mkdir()
    os.symlink(secret, tmp_path / "in" / f"{MODULE}.ipynb")
    result = normalise(tmp_path / "in", MODULE, RELEASE)
    assert (result.status, result.flags) == ("unreadable", ("symlink",))
    assert "is a link" in result.reason
    (tmp_path / "dir").mkdir()
    os.symlink(tmp_path, tmp_path / "dir" / "more.ipynb")
    assert normalise(tmp_path / "dir", MODULE, RELEASE).flags == ("symlink",)
    os.symlink(tmp_path / "in", tmp_path / "linked")
    assert normalise(tmp_path / "linked", MODULE, RELEASE).flags == ("symlink",)


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / f"{MODULE}.ipynb")
    assert normalise(tmp_path, MODULE, RELEASE).flags == ("special-file",)


def test_reasons_hold_nothing_that_a_terminal_would_obey(tmp_path):
    result = hand_in(tmp_path, b"{", "a\x1b[2J\n\u202e.ipynb")
    assert result.reason.startswith("a?[2J??.ipynb is not a notebook")


def test_outsized_files_and_cell_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(handin, "MAX_MIB", 0)
    result = hand_in(tmp_path, worked())
    assert (result.status, result.flags) == ("unreadable", ("oversized-file",))
    monkeypatch.setattr(handin, "MAX_MIB", 32)
    many = json.dumps({"cells": [{"cell_type": "code", "source": "1"}] * (handin.MAX_CELLS + 1)})
    assert "the limit is" in hand_in(tmp_path, many).reason


def test_long_rulers_do_not_take_ages(tmp_path):
    notebook = worked()
    notebook.cells[A1].source = "# " + "-" * 5000 + "\n" + DOUBLE + "\n" + "#" * 5000 + "\n" + "(" * 5000
    assert hand_in(tmp_path, notebook).status == ""


def test_the_same_submission_gives_the_same_notebook(tmp_path):
    notebook = worked()
    notebook.cells.insert(3, v4.new_code_cell("x = 1"))
    assert hand_in(tmp_path, notebook) == hand_in(tmp_path, notebook)
