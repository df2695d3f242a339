"""Marks as CSV, for reading and for the grade imports of Canvas and Moodle.

A cell that a spreadsheet would take for a formula gets an apostrophe in front, which makes it text. In the
two formats for learning platforms, a mark that is not final is an empty cell, never a 0.
"""

import csv
import html
import io
import json
from datetime import UTC, datetime
from pathlib import Path

from .records import write_whole
from .results import ClassResults, Result

FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # wide ones too: some spreadsheets take them as well
FORMATS = ("plain", "canvas", "moodle")
Rows = list[list[object]]


def harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula: an apostrophe comes before = + - @, tab and line end.

    >>> harmless("=1+1"), harmless("Ada"), harmless(" @SUM(A1)")
    ("'=1+1", 'Ada', "' @SUM(A1)")
    """
    return f"'{text}" if text.lstrip().startswith(FORMULA) or text[:1] in ("\t", "\r", "\n") else text


def plain(found: ClassResults) -> Rows:
    """A row for each student with all there is; `status` keeps graded, zero, failed and missing apart."""
    head = ["student", "name", "email", "status", "points", "max_points", "late_penalty"]
    rows: Rows = [[*head, "pending_points", "grading", "flags", "reason", *found.items]]
    for result in found.results:
        who = [result.student, result.name, result.email, result.state]
        marks = [_points(result.points), _points(found.most), _points(result.late_penalty)]
        told = [_points(result.pending), result.status, " ".join(result.flags), result.reason]
        rows.append([*who, *marks, *told, *(_mark(result, id) for id in found.items)])
    return rows


def _mark(result: Result, id: str) -> object:
    """Points for one question; nothing where a person has yet to mark it."""
    answer = result.answers.get(id)
    return _points(answer.points) if answer and not answer.pending else ""


def canvas(found: ClassResults, everything: bool = False, column: str = "") -> Rows:
    """Canvas's gradebook import: its five columns on the student, a column for the mark, points possible.

    Canvas finds a student by ID, else SIS User ID, SIS Login ID, name (see its lib/gradebook_importer.rb).
    """
    who = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
    rows: Rows = [
        [*who, column or found.module],
        ["    Points Possible", "", "", "", "", _points(found.most)],
    ]
    for result in found.results:
        name, number = result.name or result.student, number_for(result, "canvas")
        rows.append([name, number, "", result.student, "", _final(result, everything)])
    return rows


def moodle(found: ClassResults, everything: bool = False) -> Rows:
    """Moodle's grading worksheet, whose other columns also fit Moodle's general grade import.

    The worksheet's import needs Identifier, Grade and "Last modified (grade)", and keeps a grade that was
    changed in Moodle after that time (mod/assign/feedback/offline of Moodle).
    """
    head = ["Identifier", "Full name", "ID number", "Email address", "Grade", "Maximum Grade"]
    rows: Rows = [[*head, "Last modified (grade)", "Feedback comments"]]
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    for result in found.results:
        number = number_for(result, "moodle")
        identifier = f"Participant {number}" if number else ""
        who = [identifier, result.name, result.student, result.email]
        mark = _final(result, everything)
        said = _feedback(found, result) if mark != "" else ""
        rows.append([*who, mark, _points(found.most), now, said])
    return rows


def number_for(result: Result, platform: str) -> str:
    """The platform's number for a student; what the hand-in carried goes before the class's list."""
    return result.numbers.get(platform) or result.number


def _final(result: Result, everything: bool) -> object:
    """The mark, or an empty cell where it is not final and not everything was asked for."""
    return _points(result.points) if result.final or everything else ""


def _feedback(found: ClassResults, result: Result) -> str:
    """Points by question with the comments; Moodle shows it as HTML."""
    lines = []
    for id, item in found.items.items():
        answer = result.answers.get(id)
        if answer:
            comment = f": {html.escape(answer.comment)}" if answer.comment else ""
            lines.append(f"{id} {answer.points:g} of {item.most:g}{comment}")
    late = f"late: -{result.late_penalty:g}"
    return "<br>".join([*lines, *([late] if result.late_penalty else [])])


def _points(number: float) -> float | int:
    """A number as people write it: 3 for 3.0, at most two decimals."""
    number = round(float(number), 2)
    return int(number) if number.is_integer() else number


def export(found: ClassResults, format: str, everything: bool = False, column: str = "") -> str:
    """Marks as CSV text: quoted where it is needed, formulas made harmless.

    Args:
        everything: also marks that are not final, in canvas and moodle; plain has them anyway.
        column: Canvas's name of the assignment, best with its number: "The bench (1234)".
    """
    rows = {
        "plain": lambda: plain(found),
        "canvas": lambda: canvas(found, everything, column),
        "moodle": lambda: moodle(found, everything),
    }[format]()
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([harmless(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return (
        "\ufeff" if format == "plain" else ""
    ) + file.getvalue()  # else Excel takes UTF-8 for something else


def write(found: ClassResults, path: Path, format: str, everything: bool = False, column: str = "") -> None:
    """Write one export whole, and remember its marks, so that the next report can say what changed.

    Raises:
        OSError: the file or the course's `.owl/` can't be written.
    """
    write_whole(path, export(found, format, everything, column))
    marks = {result.student: result.points for result in found.results if result.final or everything}
    write_whole(_memory(found), json.dumps({"format": format, "marks": marks}, indent=1, sort_keys=True))


def changed(found: ClassResults) -> dict[str, tuple[float, float]]:
    """Marks that are not as they were exported last: the mark then and now, by student."""
    try:
        then = json.loads(_memory(found).read_text("utf-8"))["marks"]
    except (OSError, ValueError, KeyError):
        return {}
    now = {result.student: result.points for result in found.results}
    return {
        student: (mark, now[student])
        for student, mark in sorted(then.items())
        if student in now and abs(mark - now[student]) > 1e-9
    }


def _memory(found: ClassResults) -> Path:
    return found.course.store / "exports" / f"{found.module}.json"
