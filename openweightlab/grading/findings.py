"""What a report says about a class, worked out once for the terminal and for the page."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from . import exports, itemanalysis, similarity
from .results import UNGRADED, ClassResults, Result
from .run import Record

WORTH_A_LOOK = {
    "tampered": "a check or its metadata was changed",
    "infrastructure": "the grader failed, not the student: call `owl grade` again",
    "several-notebooks": "of several notebooks the one with most answers counted",
    "duplicate-answer": "of several copies of an answer the last counted",
    "weak-tests": "has tests that run among the student's own code",
    "no-sandbox": "ran without a sandbox",
    "oversized-output": "printed more than was kept",
    "oversized-file": "a file was too large to be taken",
    "oversized-folder": "too many files",
    "symlink": "handed in a link",
    "special-file": "handed in something that is no plain file",
    "wrong-module": "another module's notebook",
}
MANY = 0.5  # share of those who ran from which a flag is told once, for all
STATES = ("graded", "zero", "failed", "missing", UNGRADED)


@dataclass(frozen=True)
class Way:
    """How some of the class were graded: sandbox and versions; seconds in the median, MiB at most."""

    sandbox: str
    versions: str
    students: int
    seconds: float
    mib: float


@dataclass(frozen=True)
class Findings:
    """A class's results and what follows from them; `look` is (student, or "" for all, why)."""

    found: ClassResults
    items: list[itemanalysis.ItemFigures]
    failures: list[itemanalysis.CommonFailure]
    look: list[tuple[str, str]]
    likeness: similarity.Likeness

    @property
    def marks(self) -> np.ndarray:
        """Points of everybody whose mark is final."""
        return np.array([result.points for result in self.found.results if result.final])

    @property
    def ways(self) -> list[Way]:
        """The ways in which records were made, the commonest first; one, if all is well."""
        records = [result.record for result in self.found.results if result.record and result.record.sandbox]
        groups: dict[tuple[str, str], list[Record]] = {}
        for record in records:
            versions = ", ".join(f"{name} {number}" for name, number in sorted(record.versions.items()))
            groups.setdefault((record.sandbox, versions), []).append(record)
        ways = [
            Way(
                *key, len(those), float(np.median([r.seconds for r in those])), max(r.peak_mib for r in those)
            )
            for key, those in groups.items()
        ]
        return sorted(ways, key=lambda way: -way.students)

    @property
    def states(self) -> dict[str, int]:
        """How many students are in each state; states that nobody is in are left out."""
        counts = Counter(result.state for result in self.found.results)
        return {state: counts[state] for state in STATES if counts[state]}


def histogram(marks: np.ndarray, most: float, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts and edges, the edges being whole numbers of points; at most about so many bins.

    >>> histogram(np.array([0.0, 5.5, 9.0]), 9.0, 5)[1].tolist()
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    width = max(1.0, np.ceil(most / bins))
    edges = np.arange(0.0, max(most, *marks) + width, width)
    return np.histogram(marks, edges)


def work_out(found: ClassResults) -> Findings:
    """All of it; nothing is written."""
    return Findings(
        found,
        itemanalysis.figures(found),
        itemanalysis.common_failures(found),
        to_look_at(found),
        similarity.compare(found),
    )


def to_look_at(found: ClassResults) -> list[tuple[str, str]]:
    """Who to look at by hand, and why, in the students' order; first what most of the class share."""
    counts = Counter(flag for result in found.results if result.counted for flag in result.flags)
    ran = sum(result.counted for result in found.results)
    shared = {flag for flag in WORTH_A_LOOK if ran > 1 and counts[flag] > MANY * ran}
    look = [("", f"{counts[flag]} of {ran} students: {WORTH_A_LOOK[flag]}") for flag in sorted(shared)]
    look += [("", f"{id}: {count} to mark by hand") for id, count in _pending(found).items()]
    changed = exports.changed(found)
    for result in found.results:
        why = _why(result, shared)
        if result.student in changed:
            then, now = changed[result.student]
            why.append(f"the mark was {then:g} in the last export and is {now:g} now")
        look += [(result.student, "; ".join(why))] if why else []
    return look


def _why(result: Result, shared: set[str]) -> list[str]:
    why = [WORTH_A_LOOK[flag] for flag in result.flags if flag in WORTH_A_LOOK and flag not in shared]
    if result.status == UNGRADED:
        why.append("handed in, but not graded yet: call `owl grade`")
    if result.doubt:
        why.append(f"{result.doubt}: call `owl grade`")
    if result.state == "failed":
        why.insert(0, f"{result.status}: {result.reason}" if result.reason else result.status)
    return why


def _pending(found: ClassResults) -> Counter[str]:
    """How many answers to each question a person has yet to mark."""
    answers = [(id, answer) for result in found.results for id, answer in result.answers.items()]
    return Counter(id for id, answer in answers if answer.pending)
