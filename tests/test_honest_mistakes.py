"""Honest mistakes: each is graded for what is there or has a row that says why not, and no neighbour notices.

Submissions are graded in the order of their names, so each of these follows another's mistake.
"""

import pytest
from class_of_submissions import (
    POINTS,
    Grading,
    Student,
    endless,
    expected,
    honest_mistakes,
    loops,
    started,
    through_every_door,
)

pytestmark = pytest.mark.timeout(3000)
CLASS = [*through_every_door(), *honest_mistakes()]


@pytest.fixture(scope="module")
def graded() -> Grading:
    """The whole class after `owl grade`, which was killed with SIGKILL on its way and called again."""
    door = started()["owl"]
    assert door.finish() == 0, door.log.read_text()[-3000:]
    return door


def test_every_submission_has_a_row(graded: Grading):
    assert list(graded.rows()) == sorted(student.name for student in CLASS)
    assert list(graded.gradebook()) == sorted(student.name for student in CLASS)


def names(student: Student) -> str:
    return student.name.replace(" ", "_")


@pytest.mark.parametrize("student", CLASS, ids=names)
def test_marks_status_and_flags(graded: Grading, student: Student):
    as_expected(graded, student)


@pytest.mark.parametrize("student", endless(), ids=names)
def test_an_endless_submission_costs_its_own_question_only(student: Student):
    as_expected(loops(), student)


def as_expected(graded: Grading, student: Student) -> None:
    """A row, the gradebook and the autograded notebook say what the student's entry says."""
    row = graded.rows()[student.name]
    marks = {id: question["points"] for id, question in row["questions"].items()}
    assert {id: expected(student.marks[id], marks[id], most) for id, most in POINTS.items()} == dict.fromkeys(
        POINTS, True
    ), row
    assert (row["status"], set(row["flags"]) - {"no-sandbox"}) == (student.status, set(student.flags)), row
    assert student.reason in row["reason"]
    assert bool(row["reason"]) == (student.status != "graded")
    assert row["points"] == sum(marks.values())
    assert graded.gradebook()[student.name] == marks
    assert graded.outcome(student.name) == (student.status, sorted(student.flags))


def test_memory_and_files_stay_small(graded: Grading):
    """A submission that prints 200 MB makes neither the record nor the autograded notebook large."""
    handed_in = {
        student.name: sum(
            path.stat().st_size for path in (graded.submissions / student.name).rglob("*.ipynb")
        )
        for student in CLASS
    }
    for path in graded.root.rglob("*.*"):
        if path.is_file() and "submitted" not in path.parts and path.name != "gradebook.db":
            own = max((size for name, size in handed_in.items() if name in path.parts), default=0)
            assert path.stat().st_size < 4 * 2**20 + own, path
