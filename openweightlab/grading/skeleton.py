"""The release as a shape that answers go into, and what tells one piece of a student's code from another."""

import copy
import re
from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher
from functools import cached_property
from itertools import pairwise

from nbformat import NotebookNode

MARKER = re.compile(r"^[ \t#>*_-]*Q[ \t]*(\d+\.\d+)[ \t:._-]*answer\b.*$", re.IGNORECASE | re.MULTILINE)
CHECK = re.compile(
    r"^(?:\w+\.)*check\(\s*[\"'](Q\d+\.\d+)[\"']\s*,?([^()]*)\)[ \t]*;?[ \t]*(?:#[^\n]*)?$", re.MULTILINE
)
LIKENESS = 0.6  # how like the stub a cell must be to count as its answer when nothing else tells


def blank(release: NotebookNode) -> NotebookNode:
    """A copy of the release without outputs or counts."""
    notebook = copy.deepcopy(release)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


class Skeleton:
    """The release, looked at from a student's side: where answers, checks and everything else stand."""

    def __init__(self, release: NotebookNode) -> None:
        self.cells = release.cells
        self.meta = [cell.metadata.get("nbgrader", {}) for cell in self.cells]
        self.place = {meta["grade_id"]: n for n, meta in enumerate(self.meta) if meta.get("grade_id")}
        graded = [
            (n, bool(meta.get("grade")), bool(meta.get("solution"))) for n, meta in enumerate(self.meta)
        ]
        self.answers = [n for n, grade, solution in graded if solution and not grade]
        self.written = [n for n, grade, solution in graded if solution and grade]
        self.checks = {n for n, grade, solution in graded if grade and not solution}
        self.slot = {self.question(n): n for n in [*self.answers, *self.written]}
        self.by_text = {bare(cell.source): n for n, cell in reversed(list(enumerate(self.cells)))}
        self.by_text.pop("", None)
        plain = [n for n, cell in enumerate(self.cells) if cell.cell_type == "code" and not self.meta[n]]
        self.plain_code = {self.cells[n].id: n for n in plain if "id" in self.cells[n]}

    def question(self, n: int) -> str:
        """The question that a cell belongs to: "Q0.1" for the cells "Q0.1-answer" and "Q0.1"."""
        return str(self.meta[n].get("grade_id", "")).removesuffix("-answer")

    @cached_property
    def functions(self) -> dict[int, tuple[str, ...]]:
        """The names that each answer must define: its check cell's arguments, else what its stub defines."""
        stubs = {n: self.cells[n].source for n in self.answers}
        names = {
            n: tuple(re.findall(r"^(?:def|class) (\w+)", stub, re.MULTILINE)) for n, stub in stubs.items()
        }
        for check in self.checks:
            for question, arguments in CHECK.findall(self.cells[check].source):
                if question in self.slot:
                    names[self.slot[question]] = tuple(re.findall(r"\w+", arguments))
        return names

    def is_stub(self, n: int, source: str) -> bool:
        """Whether an answer cell holds nothing beyond what was handed out."""
        return bare(source) == bare(self.cells[n].source) or not bare(MARKER.sub("", source))


def bare(source: str) -> str:
    """A source without what no reader sees: blank ends of lines, blank first and last lines."""
    return "\n".join(line.rstrip() for line in source.strip().splitlines())


def split_at_markers(source: str) -> Iterator[tuple[str, str]]:
    """(question or "", text) for each part that opens with a marker; the whole if the parts don't parse."""
    starts = [found for found in MARKER.finditer(source) if not found[0].startswith((" ", "\t"))]
    cuts = [0, *[found.start() for found in starts], len(source)]
    parts = [source[a:b] for a, b in pairwise(cuts)]
    whole = len(starts) > 1 and parses(source) and not all(map(parses, parts))
    if whole or len(starts) == 1:
        yield f"Q{starts[0][1]}", source
    else:
        yield from ([("", parts[0])] if bare(parts[0]) else [])
        yield from ((f"Q{found[1]}", part) for found, part in zip(starts, parts[1:], strict=True))


def unfenced(source: str) -> str:
    """A text cell's code without the ``` fences around it."""
    return re.sub(r"^```.*$", "", source, flags=re.MULTILINE).strip("\n")


def defines(source: str, names: Iterable[str]) -> bool:
    """Whether the source defines any of the names at its left margin; it need not parse."""
    either = "|".join(map(re.escape, names))
    definition = rf"(?:async[ \t]+def|def|class)[ \t]+(?:{either})\b"
    assignment = rf"(?:{either})[ \t]*(?::[^=\n]*)?=(?!=)"
    return bool(either) and re.search(f"^(?:{definition}|{assignment})", source, re.MULTILINE) is not None


def parses(source: str) -> bool:
    """Whether Python could compile the source, shell and magic lines left out."""
    plain = re.sub(r"^([ \t]*)[%!?].*$", r"\1pass", source, flags=re.MULTILINE)
    try:
        compile(plain, "cell", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def alike(source: str, stub: str) -> bool:
    matcher = SequenceMatcher(None, bare(source)[:5000], bare(stub)[:5000])
    quick = matcher.real_quick_ratio() > LIKENESS and matcher.quick_ratio() > LIKENESS
    return quick and matcher.ratio() > LIKENESS
