"""Item analysis: how hard each question is, how well it tells students apart, where most fail alike."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from .results import Answer, ClassResults, Result

FEW = 10  # students; with fewer a correlation says next to nothing
WEAK = 0.2  # discrimination under which a question is worth another look
MOST = 0.5  # share of those who answered that makes a failing case suspicious
SOME = 3  # students who answered, at the least, before a failing case is suspicious
WORST = 3  # failing cases that are told of one question
NOT_RUN = "Not run:"  # how the judge's word on a case begins that was never put


@dataclass(frozen=True)
class ItemFigures:
    """One question in figures; None where the class does not allow one."""

    id: str
    title: str
    most: float
    students: int  # whose mark on it is there
    difficulty: float | None
    discrimination: float | None
    full: int
    none: int

    @property
    def remark(self) -> str:
        """What a reader should notice, in a few words."""
        if self.discrimination is not None and highest(self.discrimination, self.students) < 0:
            return "the better students do worse here: look again"
        if self.discrimination is not None and self.discrimination < WEAK:
            return "hardly tells students apart"
        if self.students >= SOME and self.none == self.students:
            return "nobody has a point"
        if self.difficulty is not None and self.difficulty < 0.3:
            return "very hard"
        return "everybody has it" if self.students >= SOME and self.full == self.students else ""


@dataclass(frozen=True)
class CommonFailure:
    """A case that so many fail that the question, its text or the judge may be to blame."""

    id: str
    case: str
    failed: int
    answered: int
    message: str  # the commonest of the judge's words

    @property
    def share(self) -> float:
        return self.failed / self.answered


def shares(found: ClassResults) -> pd.DataFrame:
    """Share of points, from 0 to 1, by student and item; NaN where a person has yet to mark.

    Only students whose work ran are in it: a file that can't be read says nothing about a question.
    """
    rows = {
        result.student: {id: _share(result.answers.get(id)) for id in found.items}
        for result in found.results
        if result.counted
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(found.items), dtype=float)


def _share(answer: Answer | None) -> float | None:
    return answer.points / answer.most if answer and answer.most and not answer.pending else None


def difficulty(table: pd.DataFrame) -> pd.Series:
    """Mean share of an item's points: 1 is easy, 0 is hard (for right-or-wrong items the "p-value").

    >>> difficulty(pd.DataFrame({"Q1": [1.0, 0.5, 0.0], "Q2": [1.0, None, 0.0]})).to_dict()
    {'Q1': 0.5, 'Q2': 0.5}
    """
    return table.mean()


def discrimination(table: pd.DataFrame, points: pd.Series) -> pd.Series:
    """Corrected item-total correlation: Pearson's r of an item with the points on all others.

    The item itself is left out of the total, else it would correlate with itself (S. Henrysson, "Correction
    of item-total correlations in item analysis", Psychometrika 28, 1963, in its plain form). NaN with fewer
    than FEW students, and where the item or the rest is the same for everybody. Items that nobody has a mark
    on are left out, then students with a mark missing.

    >>> table = pd.DataFrame({"Q1": [0.0, 1.0] * 5, "Q2": [0.0, 1.0] * 5, "Q3": [1.0, 0.0] * 5})
    >>> discrimination(table, pd.Series({"Q1": 2.0, "Q2": 3.0, "Q3": 1.0})).to_dict()
    {'Q1': 1.0, 'Q2': 1.0, 'Q3': -1.0}
    """
    marked = (table * points).dropna(axis="columns", how="all").dropna()
    found = {}
    for id in marked.columns if len(marked) >= FEW else ():
        rest = marked.drop(columns=id).sum(axis="columns")
        varies = marked[id].nunique() > 1 and rest.nunique() > 1
        found[id] = round(float(marked[id].corr(rest)), 12) if varies else float("nan")
    return pd.Series(found, dtype=float).reindex(table.columns)


def highest(correlation: float, students: int) -> float:
    """The upper end of a correlation's 95 % interval (R. A. Fisher's z), so that chance isn't reported.

    >>> round(highest(-0.28, 24), 2), round(highest(-0.28, 200), 2)
    (0.14, -0.15)
    """
    if students <= 3 or abs(correlation) >= 1:
        return correlation
    return math.tanh(math.atanh(correlation) + 1.96 / math.sqrt(students - 3))


def figures(found: ClassResults) -> list[ItemFigures]:
    """Every item in figures, in the notebook's order."""
    table = shares(found)
    points = pd.Series({item.id: item.most for item in found.items.values()}, dtype=float)
    hard, telling = difficulty(table), discrimination(table, points)
    return [
        ItemFigures(
            item.id,
            item.title,
            item.most,
            int(table[item.id].count()),
            _or_none(hard[item.id]),
            _or_none(telling[item.id]),
            int((table[item.id] >= 1).sum()),
            int((table[item.id] == 0).sum()),
        )
        for item in found.items.values()
    ]


def _or_none(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


def common_failures(found: ClassResults) -> list[CommonFailure]:
    """Cases that at least half of those fail who answered the question, the worst few of each question."""
    failures = []
    for id in found.items:
        many = _failures(id, [answer for answer in _answers(found.results, id) if answer.tried])
        many = [failure for failure in many if failure.answered >= SOME and failure.share >= MOST]
        failures += sorted(many, key=lambda failure: (-failure.share, failure.case))[:WORST]
    return failures


def _answers(results: Iterable[Result], id: str) -> list[Answer]:
    return [result.answers[id] for result in results if result.counted and id in result.answers]


def _failures(id: str, answers: list[Answer]) -> list[CommonFailure]:
    """Each case of one question with how many were put it and how many failed it."""
    put: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    words: dict[str, Counter[str]] = {}
    for answer in answers:
        cases = [case for case in answer.cases if not case.get("message", "").startswith(NOT_RUN)]
        wrong = {case["label"]: case.get("message", "") for case in cases if not case["ok"]}
        put.update({case["label"] for case in cases})
        failed.update(wrong.keys())
        for label, message in wrong.items():
            words.setdefault(label, Counter())[message] += 1
    return [
        CommonFailure(id, case, failed[case], put[case], words[case].most_common(1)[0][0]) for case in failed
    ]
