"""`owl report`: figures with known answers, marks and their states, exports, likeness, the page."""

import argparse
import csv
import html
import io
import json
import os
import random
import re
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from test_normalise import DOUBLE, MODULE, make_release, worked
from test_records import Lab, changed, judged, lab  # noqa: F401  (the fixture)

from openweightlab.grading import (
    collect,
    exports,
    findings,
    itemanalysis,
    records,
    report,
    reportpage,
    similarity,
)
from openweightlab.grading.course import Course
from openweightlab.grading.results import Answer, ClassResults, Item, Result, gather
from openweightlab.grading.run import Record

ROOT = Path(__file__).parents[1]
HOSTILE = '=1+1,"Bob" <img src=x onerror=alert(1)>\x1b[2J'


def make_class(shares: dict[str, list[float | None]], most: float = 4.0, **students: object) -> ClassResults:
    """A class from a table of shares of points, None where a person has yet to mark."""
    items = {id: Item(id, f"About {id}", most) for id in shares}
    results = []
    for n, row in enumerate(zip(*shares.values(), strict=True)):
        answers = {
            id: Answer((share or 0.0) * most, most, pending=share is None)
            for id, share in zip(shares, row, strict=True)
        }
        results.append(Result(f"s{n:02d}", status="graded", answers=answers))
    return ClassResults(Course(Path("nowhere")), MODULE, make_release(), items, results)


# Item analysis


def test_difficulty_and_discrimination_against_numpy_and_scipy():
    rng = np.random.default_rng(4)
    able = rng.normal(size=(30, 1))
    table = np.clip(np.round((able + rng.normal(size=(30, 4))) * 2 + 2), 0, 4) / 4
    found = itemanalysis.figures(make_class({f"Q9.{n}": list(table[:, n]) for n in range(4)}))
    for n, item in enumerate(found):
        rest = np.delete(table, n, axis=1).sum(axis=1)
        assert item.difficulty == pytest.approx(table[:, n].mean())
        assert item.discrimination == pytest.approx(stats.pearsonr(table[:, n], rest).statistic)
        assert item.discrimination == pytest.approx(np.corrcoef(table[:, n], rest)[0, 1])
        assert (item.full, item.none) == ((table[:, n] == 1).sum(), (table[:, n] == 0).sum())


def test_an_item_does_not_correlate_with_itself():
    """Uncorrected, every item of two unrelated ones would correlate with the total."""
    first, second = [0.0, 1.0] * 6, [0.0] * 6 + [1.0] * 6
    found = itemanalysis.figures(make_class({"Q9.1": first, "Q9.2": second}))
    assert [item.discrimination for item in found] == [0.0, 0.0]
    assert np.corrcoef(first, np.add(first, second))[0, 1] == pytest.approx(0.7071, abs=1e-3)


def test_no_figure_where_none_can_be():
    alike, varied = [1.0] * 12, [0.0, 1.0] * 6
    same, other = itemanalysis.figures(make_class({"Q9.1": alike, "Q9.2": varied}))
    assert (same.discrimination, other.discrimination) == (None, None)  # the rest is the same for all, too
    assert (same.difficulty, same.remark) == (1.0, "everybody has it")
    few = itemanalysis.figures(make_class({"Q9.1": varied[:8], "Q9.2": varied[:8]}))
    assert [item.discrimination for item in few] == [None, None] and few[0].difficulty == 0.5
    (nobody,) = itemanalysis.figures(make_class({"Q9.1": []}))
    assert (nobody.students, nobody.difficulty, nobody.discrimination) == (0, None, None)


def test_answers_that_wait_for_a_person_are_left_out():
    judged_, written = [0.0, 1.0] * 6, [0.0, 1.0] * 5 + [None, None]
    found = make_class({"Q9.1": judged_, "Q9.2": written, "Q9.3": [None] * 12})
    first, second, third = itemanalysis.figures(found)
    assert (second.students, second.difficulty, second.discrimination) == (10, 0.5, 1.0)
    assert first.discrimination == 1.0
    assert (third.students, third.difficulty, third.discrimination) == (0, None, None)


def test_a_question_against_the_others_is_remarked_on():
    good, bad = [0.0, 1.0] * 6, [1.0, 0.0] * 6
    figures = itemanalysis.figures(make_class({"Q9.1": good, "Q9.2": good, "Q9.3": bad}, most=1.0))
    assert figures[2].discrimination == -1.0 and "better students do worse" in figures[2].remark


def test_what_chance_may_do_is_no_finding():
    """The interval is scipy's; a slightly negative correlation says something of a large class only."""
    for r, n in ((-0.28, 24), (0.5, 40), (-0.9, 12)):
        pair = correlated(r, n)
        theirs = stats.pearsonr(*pair).confidence_interval(0.95).high
        assert itemanalysis.highest(stats.pearsonr(*pair).statistic, n) == pytest.approx(theirs, abs=1e-4)
    item = itemanalysis.ItemFigures("Q9.1", "", 1.0, 24, 0.5, -0.28, 12, 12)
    assert item.remark == "hardly tells students apart"
    assert "do worse" in replace(item, students=200).remark


def test_a_question_that_nobody_answers_is_not_called_hard():
    (nobody,) = itemanalysis.figures(make_class({"Q9.1": [0.0] * 5}))
    (hard,) = itemanalysis.figures(make_class({"Q9.1": [0.0] * 4 + [0.5]}))
    assert (nobody.remark, hard.remark) == ("nobody has a point", "very hard")


def correlated(r: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two rows of n numbers whose correlation is r."""
    first, other = np.random.default_rng(n).normal(size=(2, n))
    first -= first.mean()
    other -= other.mean() + first * (first @ other) / (first @ first)
    return first, r * first / np.linalg.norm(first) + np.sqrt(1 - r * r) * other / np.linalg.norm(other)


def case(label: str, ok: bool, message: str = "It is off by one.") -> dict:
    return {"label": label, "ok": ok, "message": "" if ok else message}


def with_cases(*students: list[dict]) -> ClassResults:
    found = make_class({"Q9.1": [0.5] * len(students)})
    for result, cases in zip(found.results, students, strict=True):
        result.answers["Q9.1"] = replace(result.answers["Q9.1"], cases=tuple(cases))
    return found


def test_a_case_that_half_of_those_who_answered_fail_is_told():
    fails = [case("small", True), case("large", False), case("empty", False, "Not run: too slow.")]
    passes = [case("small", True), case("large", True)]
    stub = [case("small", False, "Not answered yet."), case("large", False, "Not answered yet.")]
    (told,) = itemanalysis.common_failures(with_cases(fails, fails, passes, passes, stub, stub, stub))
    assert (told.id, told.case, told.failed, told.answered, told.share) == ("Q9.1", "large", 2, 4, 0.5)
    assert told.message == "It is off by one."
    assert itemanalysis.common_failures(with_cases(fails, passes, passes, passes)) == []
    assert itemanalysis.common_failures(with_cases(fails, fails)) == []  # too few to say


# Marks and their states, from a gradebook and its records


def graded(lab: Lab) -> dict[str, Result]:  # noqa: F811
    """One student in each state, and what is known of them."""
    lab.submit("ada", worked())
    lab.submit("bob", make_release())
    lab.submit("cy", b"{")
    lab.submit("dee", None)
    lab.grade()
    lab.submit("eve", worked())
    return results(lab)


def results(lab: Lab, **options: object) -> dict[str, Result]:  # noqa: F811
    return {result.student: result for result in everything(lab, **options).results}


def everything(lab: Lab, **options: object) -> ClassResults:  # noqa: F811
    return gather(Course(lab.root), MODULE, submissions=lab.submissions, **options)


def mark_by_hand(lab: Lab, student: str, question: str, points: float) -> None:  # noqa: F811
    query = (
        "update grade set manual_score = ? where cell_id in (select id from base_cell where name = ?) and "
        "notebook_id in (select n.id from submitted_notebook n join submitted_assignment a "
        "on a.id = n.assignment_id where a.student_id = ?)"
    )
    lab.sql(query, points, question, student)


def owl_report(lab: Lab, expect: int = 0, **options: object) -> None:  # noqa: F811
    usual = dict.fromkeys(("html", "csv", "student", "gradebook", "roster"))
    usual |= {"module": MODULE, "format": "plain", "all": False, "column": "", "submissions": lab.submissions}
    assert report.main(argparse.Namespace(**{**usual, **options})) == expect


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline="")))


def test_states_points_and_what_is_pending(lab):  # noqa: F811
    found = graded(lab)
    states = {name: (result.state, result.points, result.pending) for name, result in found.items()}
    assert states == {
        **{"ada": ("graded", 5.0, 4.0), "bob": ("zero", 0.0, 0.0), "cy": ("failed", 0.0, 0.0)},
        **{"dee": ("missing", 0.0, 0.0), "eve": ("ungraded", 0.0, 0.0)},
    }
    assert {name for name, result in found.items() if result.final} == {"bob"}
    assert found["ada"].record == judged_record(lab) and "Q9.1-answer" in found["ada"].sources
    assert found["cy"].reason and found["cy"].counted is False


def judged_record(lab: Lab) -> Record:  # noqa: F811
    (path,) = (lab.root / ".owl/records" / MODULE / "ada").iterdir()
    return records.load(path)


def test_a_person_s_mark_counts_and_lateness_costs(lab):  # noqa: F811
    graded(lab)
    mark_by_hand(lab, "ada", "Q9.1", 0.5)
    mark_by_hand(lab, "ada", "Q9.3", 3.0)
    mark_by_hand(lab, "cy", "Q9.2", 0.0)
    lab.sql("update submitted_notebook set late_submission_penalty = 1.5")
    found = results(lab)
    assert (found["ada"].points, found["ada"].pending, found["ada"].final) == (0.5 + 3 + 3 - 1.5, 0.0, True)
    assert found["bob"].points == 0.0 and found["cy"].final  # a person has looked at it
    assert found["ada"].answers["Q9.1"].by_hand and not found["ada"].answers["Q9.2"].by_hand


def test_a_student_whom_the_grader_failed_is_told_apart(lab):  # noqa: F811
    lab.submit("ada", worked())
    lab.judge = lambda task: records.ungraded(task, "crashed", "no memory", ("infrastructure",))
    lab.grade()
    ada = results(lab)["ada"]
    assert (ada.state, ada.final, ada.counted) == ("failed", False, False)
    why = "crashed: no memory; the grader failed, not the student: call `owl grade` again"
    assert ("ada", why) in findings.to_look_at(everything(lab))


def test_a_mark_of_something_else_than_what_lies_there_is_told(lab):  # noqa: F811
    for name in ("ada", "bob", "cy"):
        lab.submit(name, worked())
    lab.grade()
    for name in ("ada", "bob", "cy"):
        mark_by_hand(lab, name, "Q9.3", 4.0)
    lab.submit("ada", changed(a1="# Q9.1 answer\ndef double(x):\n    return 3"))
    lab.submit("bob", worked())  # the same again
    lab.submit("cy", b"{")
    os.utime(lab.submissions / "ada" / MODULE / f"{MODULE}.ipynb", (0, 0))
    found = results(lab)
    assert {name for name, result in found.items() if result.doubt} == {"ada", "cy"}
    assert {name for name, result in found.items() if result.final} == {"bob"}
    assert ("ada", "handed in anew since it was graded: call `owl grade`") in findings.to_look_at(
        everything(lab)
    )
    lab.grade()
    assert not any(result.doubt for result in results(lab).values())
    lab.sql("update grade set auto_score = auto_score + 1 where auto_score = 2")
    for path in (lab.root / ".owl/records" / MODULE / "cy").glob("*.json"):
        path.write_text(path.read_text()[:100])
    doubts = {name: result.doubt for name, result in results(lab).items()}
    assert doubts["bob"] == "the gradebook has other points than its record"
    assert doubts["ada"] == "" and doubts["cy"] == "its record is not there"


def test_what_stops_a_report_is_said(lab, capsys):  # noqa: F811
    owl_report(lab, expect=2)
    assert "has no marks for 09_demo: call `owl grade`" in capsys.readouterr().err
    owl_report(lab, expect=2, gradebook=f"sqlite:///{lab.root}/none.db")
    assert "nothing is graded yet" in capsys.readouterr().err and not (lab.root / "none.db").exists()
    owl_report(lab, expect=2, module="77_other")
    assert "There is no module '77_other'" in capsys.readouterr().err
    graded(lab)
    owl_report(lab, expect=2, html=lab.root / "course.db" / ".." / "gradebook.db" / "page.html")
    assert "can't be written" in capsys.readouterr().err
    owl_report(lab, expect=2, student="nobody")
    assert "There is no student 'nobody'" in capsys.readouterr().err


def test_the_terminal_s_report(lab, capsys):  # noqa: F811
    for student in ("fay", "gil", "hal", "ida"):
        lab.submit(student, changed(a1=f"# Q9.1 answer\ndef double(x):\n    return x + {len(student)}"))
    graded(lab)
    capsys.readouterr()
    owl_report(lab)
    told = capsys.readouterr().out
    assert "9 students (5 graded, 1 zero, 1 failed, 1 missing, 1 ungraded), 9 points" in told
    assert "Q9.1: 5 of 6 (83%) fail “odd numbers”; most often: It <b>rounds</b>." in told
    assert "the class: Q9.3: 5 to mark by hand" in told
    assert "eve: handed in, but not graded yet" in told and "cy: unreadable: " in told
    assert "6 students: sandbox stand-in" in told


def test_one_student_s_mark_can_be_answered_for(lab, capsys):  # noqa: F811
    graded(lab)
    mark_by_hand(lab, "ada", "Q9.2", 1.0)
    capsys.readouterr()
    owl_report(lab, student="ada")
    told = capsys.readouterr().out
    (path,) = (lab.root / ".owl/records" / MODULE / "ada").iterdir()
    assert str(path) in told and records.audit(path)["key"] in told
    assert "sandbox   stand-in" in told and "took      1.5 s, at most 100 MiB" in told
    assert "Q9.2    1 of 3 by hand  Halves" in told and "✓ odd numbers" in told
    assert "4 points wait for a mark by hand" in told and "Q9.3    0 of 4 waits for a person" in told


def test_a_mark_that_changed_after_the_last_export_is_listed(lab):  # noqa: F811
    graded(lab)
    for student in ("ada", "bob"):
        mark_by_hand(lab, student, "Q9.3", 2.0)
    owl_report(lab, csv=lab.root / "marks.csv", format="canvas")
    assert exports.changed(everything(lab)) == {}
    mark_by_hand(lab, "ada", "Q9.3", 4.0)
    assert exports.changed(everything(lab)) == {"ada": (7.0, 9.0)}
    assert ("ada", "the mark was 7 in the last export and is 9 now") in findings.to_look_at(everything(lab))


# Exports


def test_plain_keeps_what_a_number_would_hide(lab):  # noqa: F811
    graded(lab)
    owl_report(lab, csv=lab.root / "marks.csv")
    rows = {row["student"]: row for row in read(lab.root / "marks.csv")}
    assert {name: row["status"] for name, row in rows.items()} == {
        **{"ada": "graded", "bob": "zero", "cy": "failed", "dee": "missing", "eve": "ungraded"}
    }
    ada = {key: rows["ada"][key] for key in ("points", "max_points", "pending_points", "Q9.1", "Q9.3")}
    assert ada == {"points": "5", "max_points": "9", "pending_points": "4", "Q9.1": "2", "Q9.3": ""}
    assert rows["cy"]["grading"] == "unreadable" and "JSON" in rows["cy"]["reason"]


@pytest.mark.parametrize("format, column", [("canvas", "The bench (1234)"), ("moodle", "Grade")])
def test_a_mark_that_is_not_final_is_an_empty_cell_never_a_zero(lab, format, column):  # noqa: F811
    graded(lab)
    file = lab.root / "marks.csv"
    options = {"csv": file, "format": format, "column": "The bench (1234)"}
    who = {"canvas": "SIS Login ID", "moodle": "ID number"}[format]
    owl_report(lab, **options)
    assert marks(file, who, column) == {"ada": "", "bob": "0", "cy": "", "dee": "", "eve": ""}
    owl_report(lab, **options, all=True)
    assert marks(file, who, column) == {"ada": "5", "bob": "0", "cy": "0", "dee": "0", "eve": "0"}


def marks(file: Path, who: str, column: str) -> dict[str, str]:
    return {row[who]: row[column] for row in read(file) if row[who]}


def test_canvas_s_shape(lab):  # noqa: F811
    """As its importer reads it: five columns on the student, then marks; second the points possible."""
    graded(lab)
    (lab.root / "list.csv").write_text(
        'Student,ID,SIS User ID,SIS Login ID,Section\n"Lovelace, Ada",17,u1,ada,A\n"Zoe, Zed",18,u2,zoe,A\n'
    )
    owl_report(lab, csv=lab.root / "c.csv", format="canvas", column="Demo (5)", roster=lab.root / "list.csv")
    with open(lab.root / "c.csv", newline="") as file:
        head, possible, *rows = list(csv.reader(file))
    assert head == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "Demo (5)"]
    assert possible == ["    Points Possible", "", "", "", "", "9"]
    assert rows[0] == ["Lovelace, Ada", "17", "", "ada", "", ""]
    assert rows[-1] == ["Zoe, Zed", "18", "", "zoe", "", ""]  # on the list, handed in nothing


def test_moodle_s_shape(lab, capsys):  # noqa: F811
    (lab.root / "zip").mkdir()
    (lab.root / "zip" / f"Ada Lovelace_4711_assignsubmission_file_{MODULE}.ipynb").write_text(
        json.dumps(worked())
    )
    options = dict.fromkeys(("roster", "late_from", "timezone", "json"))
    call = {"archive": str(lab.root / "zip"), "module": MODULE, "into": str(lab.submissions), **options}
    assert collect.main(argparse.Namespace(**call)) == 0
    lab.submit("zed_17", worked())  # no number of Moodle's
    lab.grade()
    mark_by_hand(lab, "Ada Lovelace_4711", "Q9.3", 2.5)
    lab.sql("update comment set manual_comment = 'Well <put>.' where cell_id in (select id from base_cell)")
    capsys.readouterr()
    owl_report(lab, csv=lab.root / "m.csv", format="moodle")
    assert "1 students have no number of Moodle's" in capsys.readouterr().out
    row, other = read(lab.root / "m.csv")
    assert (other["Identifier"], other["ID number"]) == ("", "zed_17")
    assert {"Identifier", "Grade", "Last modified (grade)", "Feedback comments"} <= set(row)
    assert (row["Identifier"], row["Grade"], row["Maximum Grade"]) == ("Participant 4711", "7.5", "9")
    assert "Q9.3 2.5 of 4: Well &lt;put&gt;." in row["Feedback comments"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", row["Last modified (grade)"])


NAMES = [
    "a,b",
    'q"uote',
    "two\nlines",
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\tx",
    " =x",
    "＝1",
    "Müller",
    "ordinary",
]


@pytest.mark.parametrize("format", exports.FORMATS)
def test_hostile_names_come_back_whole_and_are_no_formulas(format):
    found = make_class({"Q9.1": [1.0] * len(NAMES)})
    for result, name in zip(found.results, NAMES, strict=True):
        result.student = result.name = result.email = name
        result.reason = result.flags = name if format == "plain" else ""
    rows = list(csv.reader(io.StringIO(exports.export(found, format).removeprefix("\ufeff"), newline="")))
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if cell.lstrip(" ").startswith(exports.FORMULA)]
    assert not [cell for cell in cells if cell[:1] in ("\t", "\r", "\n")]
    assert len({len(row) for row in rows}) == 1
    column = rows[0].index({"plain": "student", "canvas": "SIS Login ID", "moodle": "ID number"}[format])
    came = [row[column].removeprefix("'") for row in rows[-len(NAMES) :]]
    assert came == NAMES


# Likeness


def students(*answers: dict[str, str]) -> ClassResults:
    found = make_class({"Q9.1": [1.0] * len(answers)})
    for result, sources in zip(found.results, answers, strict=True):
        result.sources = sources
    return found


VARIANTS = runpy.run_path(str(ROOT / "tests/mutants/01_moe.py"))["VARIANTS"]
RIGHT = {
    id: [source for kind in ("reference", "rival") for source in kinds[kind].values()]
    for id, kinds in VARIANTS.items()
}


def honest(seed: int) -> dict[str, str]:
    """Right answers, each written in one of its known ways."""
    chosen = random.Random(seed)
    return {f"{id}-answer": f"# {id} answer\n{chosen.choice(ways)}" for id, ways in RIGHT.items()}


def disguised(answers: dict[str, str]) -> dict[str, str]:
    """The same code with other names, comments and layout, its functions in another order."""
    out = {}
    for id, source in answers.items():
        source = re.sub(r"\b(total|out|weights|logits|experts|config|x|p|h)\b", r"my_\1", source)
        head, *functions = re.split(r"(?m)^(?=def |class |@)", source)
        out[id] = head + "".join(reversed(functions)).replace("\n    ", "\n    # mine\n    ", 1)
    return out


def test_a_disguised_copy_is_found_in_an_honest_class():
    answers = [honest(seed) for seed in range(15)]
    found = similarity.compare(students(*answers, disguised(answers[3])))
    assert [(pair.first, pair.second) for pair in found.pairs] == [("s03", "s15")]
    (pair,) = found.pairs
    assert pair.likeness > 0.9 and pair.next < 0.6 and found.compared == 16 * 15 / 2
    assert len(pair.questions) >= 6 and set(pair.verbatim) < set(pair.questions)
    assert found.quantile(0.5) < 0.3 and found.quantile(0.99) < 0.8


def test_different_right_answers_are_not_alike():
    """Every known way to write the right answers, each student a way that nobody else has."""
    ways = range(min(map(len, RIGHT.values())))
    answers = [{f"{id}-answer": sources[way] for id, sources in RIGHT.items()} for way in ways]
    found = similarity.compare(students(*answers))
    assert found.students == len(answers) >= 4 and found.pairs == () and found.quantile(1.0) < 0.5


def test_what_was_handed_out_and_what_is_too_short_is_not_compared():
    stub = {"Q9.1-answer": make_release().cells[4].source}
    assert similarity.compare(students(stub, stub, {"Q9.1-answer": DOUBLE}, {})).compared == 0
    given = "\n".join(cell.source for cell in make_release().cells if cell.cell_type == "code")
    assert similarity.compare(students({"Q9.1-answer": given}, {"Q9.1-answer": given})).students == 0


def test_code_that_everybody_has_counts_little():
    """Two who share what only they have are more alike than two who share as much that all have."""
    common, rare = RIGHT["Q1.1"][0], RIGHT["Q1.8"][0]
    own = [RIGHT["Q1.3"][n] for n in range(8)]
    answers = [{"a": common, "b": own[n], "c": rare if n in (2, 5) else ""} for n in range(8)]
    matrix, _ = _rows(answers)
    likeness = similarity._common(matrix, [2])[1][0]
    assert likeness[5] > 3 * max(likeness[n] for n in (0, 1, 3, 4, 6, 7)) > 0


def _rows(answers: list[dict[str, str]]) -> tuple:
    columns: dict = {}
    runs = [similarity._columns(Result("x", sources=one), set(), columns) for one in answers]
    return similarity._matrix(runs, len(columns)), columns


def test_likeness_looks_at_code_and_never_runs_it(tmp_path):
    mark = tmp_path / "ran"
    source = f"open({str(mark)!r}, 'w')\nimport os; os._exit(3)\n" + RIGHT["Q1.8"][0] + "\ndef broken(:"
    found = similarity.compare(students({"Q9.1-answer": source}, {"Q9.1-answer": source}))
    assert len(found.pairs) == 1 and not mark.exists()


def test_likeness_is_the_same_in_every_process():
    """Python hashes strings differently in each."""
    code = "import test_report; print(test_report.likeness_of_seven())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "tests",
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == likeness_of_seven() and "s02" in done.stdout


def likeness_of_seven() -> str:
    answers = [honest(n) for n in range(6)]
    found = similarity.compare(students(*answers, disguised(answers[2])))
    return f"{found.pairs} {found.counts}"


# The page


def hostile_class() -> findings.Findings:
    rng = np.random.default_rng(1)
    shares = {f"Q9.{n}": list(rng.integers(0, 5, 14) / 4) for n in range(1, 4)}
    found = make_class(shares)
    answers = [honest(seed) for seed in range(13)]
    for result, sources in zip(found.results, [*answers, answers[0]], strict=True):
        result.sources, result.student = sources, f"{HOSTILE} {result.student}"
        wrong = case(f"large {HOSTILE}", False, HOSTILE)
        result.answers["Q9.1"] = replace(result.answers["Q9.1"], cases=(wrong,), comment=HOSTILE)
        result.reason, result.flags = HOSTILE, ("tampered", HOSTILE)
        result.record = Record(MODULE, sandbox=HOSTILE, versions={"python": HOSTILE})
    found.results[1].status = "crashed"
    return findings.work_out(found)


def test_nothing_of_a_student_is_markup_in_the_page():
    page = reportpage.page(hostile_class())
    assert not re.search(r"<(script|img|iframe|object|embed|form|base|link)\b", page)
    assert not re.search(r"<[^>]+\son\w+\s*=", re.sub(r'"[^"]*"', '""', page))
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    head = page[page.index("<head>") :][:300]
    assert "Content-Security-Policy" in head and "default-src 'none'" in html.unescape(head)
    own = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert "http:" not in own and "https:" not in own and "url(http" not in own


def test_the_page_has_its_plots_with_texts_and_well_formed():
    page = reportpage.page(hostile_class())
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(plots) == 3
    for plot in plots:
        root = ET.fromstring(plot)
        assert root.get("role") == "img" and len(root.get("aria-label", "")) > 40
        assert "var(--ink)" in plot and not re.search(r"#01010[123]", plot)
        assert any("(" in (text.text or "") for text in root.iter("{http://www.w3.org/2000/svg}text"))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert levels[0] == 1 and set(levels[1:]) == {2}
    assert similarity.NO_PROOF.split(":")[0] in page


def test_an_empty_class_has_a_page_too():
    found = findings.work_out(make_class({"Q9.1": []}))
    page = reportpage.page(found)
    assert "No mark is final yet." in page and "Fewer than two submissions" in page
    assert "No mark is final yet." in report.text(found)


def test_terminals_get_no_control_characters():
    text = report.text(hostile_class())
    assert "\x1b" not in text and "onerror" in text


@pytest.mark.needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_700_pixels_and_loads_nothing(browser, tmp_path, scheme):
    (tmp_path / "page.html").write_text(reportpage.page(hostile_class()))
    page = browser.new_page(viewport={"width": 700, "height": 900}, color_scheme=scheme)
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto((tmp_path / "page.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
    assert len(asked) == 1 and said == []
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert contrast(ink, paper) > 7
    bar = page.evaluate("getComputedStyle(document.querySelector('svg path[style*=bar]')).fill")
    assert contrast(bar, paper) > 3
    page.close()


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2 between two colours as browsers write them."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
