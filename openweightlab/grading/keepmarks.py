"""How the gradebook gets to know a module, also when its questions change after submissions came in.

nbgrader refuses that ("Cannot add or remove cells"). Here questions that stay keep every mark and comment,
new ones appear ungraded, and what people gave for dropped ones is written to a file before it goes.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbgrader.api import (
    Assignment,
    BaseCell,
    Comment,
    Grade,
    GradeCell,
    Notebook,
    SolutionCell,
    SourceCell,
    SubmittedAssignment,
    SubmittedNotebook,
    TaskCell,
)
from nbgrader.preprocessors import SaveCells
from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session
from traitlets import List, Set, Unicode

from . import records
from .course import find_course

Cells = dict[str, dict[str, Any]]
GRADED, COMMENTED = (GradeCell, TaskCell), (SolutionCell, TaskCell)
NOTE = "nbgrader keeps neither who gave a mark nor when."


class KeepMarks(SaveCells):
    """SaveCells that takes other questions for a notebook with submissions, in one transaction."""

    news = List(Unicode(), help="What changed, in sentences for people.")
    wanted = Set(Unicode(), help="The cells that exercises/ has, where solutions/ must have the same.")

    def _create_notebook(self, nb: NotebookNode) -> None:
        """Bring the gradebook to the cells that were collected; the name is nbgrader's."""
        odd = self.wanted and self.wanted ^ set(self.new_source_cells)
        if odd:
            names = ", ".join(sorted(odd))
            raise ValueError(f"exercises/ and solutions/ don't agree: only one of them has {names}")
        db = self.gradebook.db()
        kinds = {
            GradeCell: self.new_grade_cells,
            SolutionCell: self.new_solution_cells,
            TaskCell: self.new_task_cells,
            SourceCell: self.new_source_cells,
        }
        try:
            notebook = _notebook(db, self.notebook_id, self.assignment_id)
            notebook.kernelspec = json.dumps(nb.metadata.get("kernelspec", {}))
            db.flush()
            dropped = [cell for kind in kinds for cell in _surplus(db, notebook, kind, kinds[kind])]
            told = self._dropped(db, dropped)
            for cell in dropped:
                _delete(db, cell)
            for kind, wanted in kinds.items():
                told += _take(db, notebook, kind, wanted)
            db.commit()
        finally:
            db.rollback()
        for line in told:
            self.log.warning(line)
        self.news = told

    def _dropped(self, db: Session, cells: list[Any]) -> list[str]:
        """Write what people gave for cells that go to a file; what there is to tell about it."""
        rows = _given(db, [cell for cell in cells if isinstance(cell, BaseCell)])
        names = ", ".join(sorted({_question(cell.name) for cell in cells if isinstance(cell, GRADED)}))
        told = [f"{self.assignment_id}: no longer a question: {names}."] if names else []
        if rows:
            path = _keep(find_course().store, self.assignment_id, rows)
            told.append(f"Marks and comments by hand for what was dropped ({len(rows)}) are kept in {path}.")
        return told


def _notebook(db: Session, name: str, assignment: str) -> Notebook:
    """The gradebook's notebook, made if it isn't there."""
    found = db.scalars(
        select(Notebook).join(Assignment).where(Notebook.name == name, Assignment.name == assignment)
    ).one_or_none()
    if found is None:
        above = db.scalars(select(Assignment.id).where(Assignment.name == assignment)).one()
        found = Notebook(name=name, assignment_id=above)
        db.add(found)
    return found


def _cells(db: Session, notebook: Notebook, kind: Any) -> dict[str, Any]:
    return {cell.name: cell for cell in db.scalars(select(kind).where(kind.notebook_id == notebook.id))}


def _surplus(db: Session, notebook: Notebook, kind: type, wanted: Cells) -> list[Any]:
    return [cell for name, cell in _cells(db, notebook, kind).items() if name not in wanted]


def _delete(db: Session, cell: Any) -> None:
    """Take a cell out, with the grades and comments that belong to it."""
    if isinstance(cell, BaseCell):
        for kind in (Grade, Comment):
            db.execute(delete(kind).where(kind.cell_id == cell.id))
    db.delete(cell)
    db.flush()


def _take(db: Session, notebook: Notebook, kind: type, wanted: Cells) -> list[str]:
    """Change and add cells of one kind; what there is to tell about it."""
    known, told = _cells(db, notebook, kind), []
    for name, info in wanted.items():
        values = {key: value for key, value in info.items() if key != "id"}
        cell = known.get(name)
        if cell is None:
            cell = kind(name=name, notebook_id=notebook.id, **values)
            db.add(cell)
            db.flush()
            count = _fill_in(db, notebook, cell)
            if count and isinstance(cell, GRADED):
                told.append(f"New question {_question(name)}: {count} submissions wait to be graded on it.")
            continue
        before = getattr(cell, "max_score", None)
        for key, value in values.items():
            setattr(cell, key, value)
        if before != getattr(cell, "max_score", None):
            told.append(f"{_question(name)}: {before:g} points became {cell.max_score:g}.{_above(db, cell)}")
    db.flush()
    return told


def _above(db: Session, cell: Any) -> str:
    """A word on marks by hand that are more than a question's points."""
    more = select(func.count()).where(Grade.cell_id == cell.id, Grade.manual_score > cell.max_score)
    count = db.scalar(more)
    return f" {count} marks by hand are above that now and are left: look at them again." if count else ""


def _fill_in(db: Session, notebook: Notebook, cell: Any) -> int:
    """Give each submission that is there what a new cell needs; how many there are."""
    of_notebook = select(SubmittedNotebook.id).where(SubmittedNotebook.notebook_id == notebook.id)
    rows = [{"notebook_id": id, "cell_id": cell.id} for id in db.scalars(of_notebook)]
    for kind, of in ((Grade, GRADED), (Comment, COMMENTED)):
        if rows and isinstance(cell, of):
            db.execute(insert(kind), rows)
    return len(rows)


def _given(db: Session, cells: Iterable[BaseCell]) -> list[dict[str, Any]]:
    """What people gave on these cells: a row for each student and question."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in cells:
        for kind in (Grade, Comment):
            found = db.execute(
                select(kind, SubmittedAssignment)
                .join(SubmittedNotebook, SubmittedNotebook.id == kind.notebook_id)
                .join(SubmittedAssignment, SubmittedAssignment.id == SubmittedNotebook.assignment_id)
                .where(kind.cell_id == cell.id)
                .order_by(SubmittedAssignment.student_id)
                .with_for_update(of=kind)
            )
            for entry, submission in found:
                given = _by_hand(entry, cell)
                if given:
                    about = {"student": submission.student_id, "question": _question(cell.name)}
                    about["handed_in"] = submission.timestamp and submission.timestamp.isoformat()
                    rows.setdefault((about["student"], about["question"]), about).update(given)
    return list(rows.values())


def _by_hand(entry: Any, cell: Any) -> dict[str, Any]:
    if isinstance(entry, Comment):
        return {"comment": entry.manual_comment} if entry.manual_comment else {}
    if entry.manual_score is None and entry.extra_credit is None:
        return {}
    names = ("manual_score", "extra_credit", "auto_score")
    return {"max_score": cell.max_score, **{name: getattr(entry, name) for name in names}}


def _question(cell: str) -> str:
    return cell.removesuffix("-answer")


def _keep(store: Path, module: str, rows: list[dict[str, Any]]) -> Path:
    now = datetime.now(UTC)
    path = store / f"dropped-{module}-{now:%Y-%m-%dT%H%M%S.%f}Z.json"
    kept = {"module": module, "dropped": now.isoformat(), "note": NOTE, "marks": rows}
    records.write_whole(path, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    return path
