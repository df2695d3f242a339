"""Submissions that are alike: where to look, never a proof.

Tokens come from copydetect (MIT, github.com/blingenf/copydetect): it takes a Pygments lexer, drops comments
and layout, writes V for every variable and F for every function, and hashes each run of K characters of what
is left. So renaming and reordering change little. Taken instead of rapidfuzz, whose string distances see a
reordered answer as another one, and of datasketch, whose estimates pay off with classes of tens of thousands.

Two choices are ours, since short answers to small questions are alike by nature. All runs of a short answer
are kept, not copydetect's winnowed sample, which depends on Python's random hash seed. And a run weighs
log2((students + 1) / students who have it): what the whole class writes says nothing, what two have and
nobody else says much. Likeness is the weighted share of runs that two have in common. All pairs are a few
sparse products: 500 students with module 01's eight answers, 124,750 pairs, took 7 seconds on one core, 6 of
them for the tokens; copydetect's own comparison, pair by pair, would have taken two minutes.
"""

from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from copydetect.utils import filter_code, hashed_kgrams
from scipy import sparse

from .results import ClassResults, Result
from .skeleton import bare

K = 12  # characters of tokenised code in a run: three or four tokens
LONGEST = 50_000  # characters of an answer that are looked at
LEAST = 50  # runs beyond the release's own that a submission must have to be compared
ALIKE = 0.8  # likeness from which a pair is listed
SHOWN = 20  # pairs listed at most
BLOCK = 256  # submissions compared with all others at a time
BINS = 1000  # for the class's own distribution
NO_PROOF = (
    "Likeness is no proof of copying: short answers to the same question come out alike, and so does code "
    "from the same book or assistant. Read both notebooks, and hear both students, before you conclude."
)


@dataclass(frozen=True)
class Pair:
    """Two submissions; likeness goes from 0 to 1."""

    first: str
    second: str
    likeness: float
    questions: tuple[str, ...]  # in which they are alike
    verbatim: tuple[str, ...]  # of these, equal letter for letter
    next: float  # the greatest likeness that either has with anybody else


@dataclass(frozen=True)
class Likeness:
    """The most alike pairs, of equals those with the rarest code first, and what is usual in this class."""

    students: int = 0
    pairs: tuple[Pair, ...] = ()
    left_out: int = 0  # more pairs as alike, beyond those listed
    counts: tuple[int, ...] = field(default=(), repr=False)  # of all pairs, by likeness, in BINS bins

    @property
    def compared(self) -> int:
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """The likeness that this share of all pairs stays under."""
        place = np.searchsorted(np.cumsum(self.counts), share * self.compared)
        return min(int(place) + 1, BINS) / BINS


def compare(found: ClassResults) -> Likeness:
    """Compare every student's answers in code with everybody else's; no code is run."""
    known = _release_runs(found)
    columns: dict[tuple[str, int], int] = {}
    runs = {result.student: _columns(result, known, columns) for result in found.results}
    names = [name for name, those in runs.items() if len(those) >= LEAST]
    if len(names) < 2:
        return Likeness(len(names))
    matrix = _matrix([runs[name] for name in names], len(columns))
    counts, close = _all_pairs(matrix)
    close.sort(key=lambda pair: (-pair[2], -pair[3], pair))
    sources = {result.student: result.sources for result in found.results}
    questions = np.array([run[0] for run in columns])
    pairs = tuple(_pair(matrix, questions, names, sources, a, b, value) for a, b, value, _ in close[:SHOWN])
    return Likeness(len(names), pairs, max(0, len(close) - SHOWN), tuple(int(count) for count in counts))


def _release_runs(found: ClassResults) -> set[int]:
    """Runs of the code that was handed out, which anybody may have."""
    code = (cell.source for cell in found.release.cells if cell.cell_type == "code")
    return set(chain.from_iterable(map(hashes, code)))


def _columns(result: Result, known: set[int], columns: dict[tuple[str, int], int]) -> np.ndarray:
    """A student's runs, question by question, as numbers of columns; new ones are added to `columns`."""
    runs = [(id, run) for id, source in result.sources.items() for run in hashes(source) - known]
    return np.array([columns.setdefault(run, len(columns)) for run in runs], dtype=np.int32)


def hashes(source: str) -> set[int]:
    """The runs of a piece of code; names, comments, layout and order leave no trace.

    >>> hashes("def f(x): return x + 1  # one more") == hashes("def g(number):\\n    return number + 1")
    True
    """
    tokens, _ = filter_code(source[:LONGEST], "answer.py", "python")
    return set(hashed_kgrams(tokens, K).tolist())


def _matrix(runs: list[np.ndarray], width: int) -> Any:
    """A row for each student, a column for each run; 1 where the student has it."""
    rows, places = np.repeat(np.arange(len(runs)), [len(those) for those in runs]), np.concatenate(runs)
    return sparse.csr_matrix((np.ones(len(rows)), (rows, places)), (len(runs), width))


def _weights(matrix: Any) -> np.ndarray:
    """What each run is worth, in bits; nothing where nobody who is compared has it."""
    have = np.asarray(matrix.sum(axis=0)).ravel()
    return np.log2((matrix.shape[0] + 1) / np.maximum(have, 1)) * (have > 0)


def _common(matrix: Any, rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """Bits that these rows have in common with all, and their likeness; rounded, for sums in any order."""
    weighted = matrix.multiply(_weights(matrix)).tocsr()
    total = np.asarray(weighted.sum(axis=1)).ravel()
    common = (weighted[rows] @ matrix.T).toarray()
    return np.round(common, 6), np.round(common / (total[rows][:, None] + total[None, :] - common), 6)


def _all_pairs(matrix: Any) -> tuple[np.ndarray, list[tuple[int, int, float, float]]]:
    """How many pairs have which likeness, and the close ones: (row, row, likeness, bits in common)."""
    counts, close, everybody = np.zeros(BINS, int), [], np.arange(matrix.shape[0])
    for start in range(0, len(everybody), BLOCK):
        rows = everybody[start : start + BLOCK]
        bits, likeness = _common(matrix, rows)
        later = everybody[None, :] > rows[:, None]
        counts += np.histogram(likeness[later], BINS, (0.0, 1.0 + 1e-9))[0]
        for a, b in np.argwhere(later & (likeness >= ALIKE)):
            close.append((start + int(a), int(b), float(likeness[a, b]), float(bits[a, b])))
    return counts, close


def _pair(
    matrix: Any,
    questions: np.ndarray,
    names: list[str],
    sources: dict[str, dict[str, str]],
    a: int,
    b: int,
    likeness: float,
) -> Pair:
    """One close pair, looked at question by question."""
    first, second = (matrix[n].toarray().ravel() > 0 for n in (a, b))
    both, either, weights = first & second, first | second, _weights(matrix)
    alike = [
        id
        for id in sources[names[a]]
        if weights[both & (questions == id)].sum() >= ALIKE * weights[either & (questions == id)].sum() > 0
    ]
    mine, theirs = sources[names[a]], sources[names[b]]
    verbatim = [id for id in alike if bare(mine[id]) == bare(theirs[id])]
    near = np.delete(_common(matrix, [a, b])[1], [a, b], axis=1)
    where, same = (tuple(id.removesuffix("-answer") for id in ids) for ids in (alike, verbatim))
    return Pair(names[a], names[b], likeness, where, same, float(near.max(initial=0.0)))
