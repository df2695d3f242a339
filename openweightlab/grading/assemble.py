"""Match one student's cells with the release's, and put the answers into the release's own notebook.

Answers are found by `grade_id`, else by their marker comment (`# Q0.1 answer`), else by the functions they
define, else by their likeness to the stub. The student's own cells stay, in their places, without metadata.
"""

import copy
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cached_property
from itertools import pairwise
from typing import Any

from nbformat import NotebookNode, v4

from .handin import Cell

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


@dataclass(eq=False)
class Piece:
    """A student's cell or part of one: the release's cell `place`, a candidate for answer `slot`, or own."""

    kind: str
    source: str
    place: int | None = None
    slot: int | None = None
    attachments: dict[str, Any] = field(default_factory=dict)

    @property
    def own(self) -> bool:
        return self.place is None and self.slot is None


class Assembly:
    """One student's cells matched with the release; `notebook()` puts them together."""

    def __init__(self, cells: list[Cell], release: NotebookNode, flags: set[str]) -> None:
        self.release, self.skeleton, self.flags = release, Skeleton(release), set(flags)
        self.foreign: set[str] = set()  # other modules' questions seen
        self.pieces = [piece for cell in cells for piece in self._pieces(cell)]
        self._claim_second_halves()
        self._claim_by_name()
        self._claim_by_likeness()
        self._claim_written_by_place()
        self.sources = {slot: self._resolve(slot) for slot in self.skeleton.slot.values()}
        if self.skeleton.checks - {piece.place for piece in self.pieces}:
            self.flags.add("check-restored")

    @property
    def recognised(self) -> bool:
        """Whether any of the release's questions is in there."""
        graded = {*self.skeleton.checks, *self.skeleton.slot.values()}
        return any(piece.slot is not None or piece.place in graded for piece in self.pieces)

    @property
    def answered(self) -> int:
        """How many questions hold something other than the stub."""
        return sum(not self.skeleton.is_stub(slot, source) for slot, source in self.sources.items())

    # What each cell is

    def _pieces(self, cell: Cell) -> Iterator[Piece]:
        skeleton, place = self.skeleton, self.skeleton.place.get(cell.grade_id)
        self._note_foreign(cell)
        if place is not None:
            self._flag_changes(cell, place)
        written = place if place in skeleton.written else self._marked_written(cell)
        if written is not None:
            yield Piece("markdown", cell.source, slot=written, attachments=cell.attachments)
        elif place in skeleton.checks and cell.kind != "code":
            yield Piece("code", "", place=place)
        elif cell.kind == "code" or place in skeleton.answers or self._is_code_in_text(cell):
            yield from self._code_pieces(cell, place)
        else:
            place = skeleton.by_text.get(bare(cell.source)) if place is None else place
            yield Piece(cell.kind, cell.source, place=place, attachments=cell.attachments)

    def _code_pieces(self, cell: Cell, place: int | None) -> Iterator[Piece]:
        """A code cell's parts, answers and own code; calls of checks go, they have cells of their own."""
        source = cell.source if cell.kind == "code" else _unfenced(cell.source)
        twin = place if place is not None else self.skeleton.plain_code.get(cell.id)
        if twin is not None and twin not in {*self.skeleton.answers, *self.skeleton.checks}:
            yield Piece("code", "", place=twin)  # theirs runs after ours
        for question, text in _split_at_markers(source):
            slot = self._slot(question, place, text)
            rest = CHECK.sub("", text).strip("\n")
            if slot is not None or bare(rest):
                copied = None if slot is not None else self.skeleton.by_text.get(bare(rest))
                yield Piece("code", rest, place=copied, slot=slot)
            checks = (self.skeleton.place.get(check) for check, _ in CHECK.findall(text))
            yield from (Piece("code", "", place=check) for check in checks if check is not None)
        if place in self.skeleton.checks:
            yield Piece("code", "", place=place)

    def _slot(self, question: str, place: int | None, source: str) -> int | None:
        """Which answer this is: its grade_id tells, unless marker and functions disagree; else its marker."""
        marked = self.skeleton.slot.get(question)
        if marked not in self.skeleton.answers:
            return place if place in self.skeleton.answers else None
        if place not in self.skeleton.answers:
            self.flags.add("metadata-repaired")
            return marked
        defined = {slot for slot in (marked, place) if _defines(source, self.skeleton.functions[slot])}
        return marked if defined == {marked} else place

    def _marked_written(self, cell: Cell) -> int | None:
        """Which written question a text cell without a grade_id answers, by its marker."""
        marker = MARKER.search(cell.source) if not cell.grade_id and cell.kind != "code" else None
        slot = self.skeleton.slot.get(f"Q{marker[1]}") if marker else None
        if slot not in self.skeleton.written:
            return None
        self.flags.add("metadata-repaired")
        return slot

    def _is_code_in_text(self, cell: Cell) -> bool:
        """Whether a text cell is an answer of changed type: it has a marker and the functions asked for."""
        slots = {self.skeleton.slot.get(f"Q{question}") for question in MARKER.findall(cell.source)}
        names = self.skeleton.functions
        found = any(_defines(cell.source, names.get(slot, ())) for slot in slots if slot is not None)
        self.flags |= {"cell-type-repaired"} if found else set()
        return found

    def _note_foreign(self, cell: Cell) -> None:
        seen = {f"Q{number}" for number in MARKER.findall(cell.source)}
        seen |= {question for question, _ in CHECK.findall(cell.source)}
        seen |= set(re.findall(r"^Q\d+\.\d+", cell.grade_id))
        self.foreign |= seen - set(self.skeleton.slot)

    def _flag_changes(self, cell: Cell, place: int) -> None:
        """Flag a check cell that isn't the one handed out, and changed types; both are put right."""
        ours, theirs = self.skeleton.meta[place], cell.nbgrader
        check = place in self.skeleton.checks
        if cell.kind != self.skeleton.cells[place].cell_type:
            self.flags.add("cell-type-repaired")
        edited = check and bare(cell.source) != bare(self.skeleton.cells[place].source)
        changed = any(
            theirs.get(key) != ours.get(key) for key in ("grade", "solution", "points", "schema_version")
        )
        if edited or changed or (check and cell.tags):
            self.flags.add("tampered")

    # Answers that carry neither id nor marker

    def _unanswered(self, among: Iterable[int]) -> list[int]:
        """Answers for which no candidate holds more than the stub."""
        candidates = [(piece.slot, piece.source) for piece in self.pieces if piece.slot is not None]
        real = {slot for slot, source in candidates if not self.skeleton.is_stub(slot, source)}
        return [slot for slot in among if slot not in real]

    def _claim_second_halves(self) -> None:
        """Indented code that only makes sense behind the answer before it was split off that answer."""
        for before, piece in pairwise(self.pieces):
            halves = f"{before.source.rstrip()}\n{piece.source}"
            split_off = piece.own and piece.kind == "code" and piece.source.startswith((" ", "\t"))
            split_off = split_off and not _parses(piece.source) and _parses(halves)
            if split_off and before.slot in self.skeleton.answers:
                piece.slot = before.slot

    def _claim_by_name(self) -> None:
        for slot in self._unanswered(self.skeleton.answers):
            for piece in self.pieces:
                code = piece.source if piece.kind == "code" else _unfenced(piece.source)
                usable = piece.own and (piece.kind == "code" or _parses(code))
                if usable and _defines(code, self.skeleton.functions[slot]):
                    self.flags.add("metadata-repaired" if piece.kind == "code" else "cell-type-repaired")
                    piece.slot, piece.kind, piece.source = slot, "code", code

    def _claim_by_likeness(self) -> None:
        for slot in self._unanswered(self.skeleton.answers):
            stub = self.skeleton.cells[slot].source
            for piece in self.pieces:
                code = piece.own and piece.kind == "code" and not MARKER.search(piece.source)
                if code and _alike(piece.source, stub):
                    piece.slot = slot
                    self.flags.add("metadata-repaired")

    def _claim_written_by_place(self) -> None:
        """A student's own text right where a written answer belongs is that answer."""
        for slot in self._unanswered(self.skeleton.written):
            last: int | None = None
            for piece in self.pieces:
                if piece.own and piece.kind == "markdown" and last in (slot - 1, slot):
                    piece.slot = slot
                    self.flags.add("metadata-repaired")
                if not piece.own:
                    last = piece.place if piece.slot is None else piece.slot

    # One answer out of several candidates

    def _resolve(self, slot: int) -> str:
        """The source that goes into an answer's cell; candidates not taken become the student's own cells."""
        mine = [piece for piece in self.pieces if piece.slot == slot]
        real = _without_copies([piece for piece in mine if not self.skeleton.is_stub(slot, piece.source)])
        if not real:
            return self._elsewhere(slot) or self.skeleton.cells[slot].source
        taken = self._taken(slot, real)
        if len(mine) > 1:
            self.flags.add("split-answer" if len(taken) > 1 else "duplicate-answer")
        for piece in real:
            piece.slot = slot if piece in taken else None
        return self._joined(slot, taken)

    def _taken(self, slot: int, real: list[Piece]) -> list[Piece]:
        """Of an answer's copies the last; of the parts of a split answer all."""
        names = self.skeleton.functions.get(slot, ())
        defining = [piece for piece in real if _defines(piece.source, names)]
        copies = any(sum(_defines(piece.source, [name]) for piece in real) > 1 for name in names)
        if slot in self.skeleton.written or (not copies and _parses(self._joined(slot, real))):
            return real
        return (defining or real)[-1:]

    def _joined(self, slot: int, parts: list[Piece]) -> str:
        if len(parts) == 1:
            return parts[0].source
        between = "\n\n" if slot in self.skeleton.written else "\n"
        return between.join(piece.source.strip("\n") for piece in parts)

    def _elsewhere(self, slot: int) -> str:
        """What stands in place of the stub when another cell defines the function: the stub would undo it."""
        names = self.skeleton.functions.get(slot, ())
        others = (piece.source for piece in self.pieces if piece.place is None and piece.slot != slot)
        if any(_defines(source, names) for source in others):
            return f"# {self.skeleton.question(slot)} answer\n# (defined in another cell)"
        return ""

    # The notebook

    def notebook(self) -> NotebookNode:
        """The release with this student's answers, and the student's own cells after what they followed."""
        notebook = blank(self.release)
        for slot, source in self.sources.items():
            notebook.cells[slot].source = source
        self._attach_pictures(notebook)
        cells: list[NotebookNode] = []
        own = self._own_cells()
        for n in range(-1, len(notebook.cells)):
            cells += [notebook.cells[n]] if n >= 0 else []
            cells += [_own_cell(piece, f"own-{n + 1}-{k}") for k, piece in enumerate(own.get(n, []))]
        notebook.cells = cells
        return notebook

    def _own_cells(self) -> dict[int, list[Piece]]:
        """Own cells by the release's cell that they follow: after what stood before, before later answers."""
        slots = [piece.slot for piece in self.pieces]
        own: dict[int, list[Piece]] = {}
        last = -1
        for n, piece in enumerate(self.pieces):
            if not piece.own:
                last = next(place for place in (piece.slot, piece.place) if place is not None)
            elif bare(piece.source) or piece.attachments:
                ahead = [slot - 1 for slot in slots[n + 1 :] if slot is not None]
                own.setdefault(min([last, *ahead]), []).append(piece)
        return own

    def _attach_pictures(self, notebook: NotebookNode) -> None:
        for piece in self.pieces:
            if piece.slot in self.skeleton.written and piece.attachments:
                cell = notebook.cells[piece.slot]
                cell.attachments = {**cell.get("attachments", {}), **piece.attachments}


def _own_cell(piece: Piece, id: str) -> NotebookNode:
    make = {"code": v4.new_code_cell, "raw": v4.new_raw_cell}.get(piece.kind, v4.new_markdown_cell)
    cell = make(source=piece.source, id=id)
    if piece.attachments and piece.kind == "markdown":
        cell.attachments = NotebookNode(piece.attachments)
    return cell


def _without_copies(pieces: list[Piece]) -> list[Piece]:
    """Of pieces with equal source only the last, in the notebook's order."""
    last = {bare(piece.source): n for n, piece in enumerate(pieces)}
    return [pieces[n] for n in sorted(last.values())]


def bare(source: str) -> str:
    """A source without what no reader sees: blank ends of lines, blank first and last lines."""
    return "\n".join(line.rstrip() for line in source.strip().splitlines())


def _split_at_markers(source: str) -> Iterator[tuple[str, str]]:
    """(question or "", text) for each part that opens with a marker; the whole if the parts don't parse."""
    starts = [found for found in MARKER.finditer(source) if not found[0].startswith((" ", "\t"))]
    cuts = [0, *[found.start() for found in starts], len(source)]
    parts = [source[a:b] for a, b in pairwise(cuts)]
    whole = len(starts) > 1 and _parses(source) and not all(map(_parses, parts))
    if whole or len(starts) == 1:
        yield f"Q{starts[0][1]}", source
    else:
        yield from ([("", parts[0])] if bare(parts[0]) else [])
        yield from ((f"Q{found[1]}", part) for found, part in zip(starts, parts[1:], strict=True))


def _unfenced(source: str) -> str:
    """A text cell's code without the ``` fences around it."""
    return re.sub(r"^```.*$", "", source, flags=re.MULTILINE).strip("\n")


def _defines(source: str, names: Iterable[str]) -> bool:
    """Whether the source defines any of the names at its left margin; it need not parse."""
    either = "|".join(map(re.escape, names))
    definition = rf"(?:async[ \t]+def|def|class)[ \t]+(?:{either})\b"
    assignment = rf"(?:{either})[ \t]*(?::[^=\n]*)?=(?!=)"
    return bool(either) and re.search(f"^(?:{definition}|{assignment})", source, re.MULTILINE) is not None


def _parses(source: str) -> bool:
    """Whether Python could compile the source, shell and magic lines left out."""
    plain = re.sub(r"^([ \t]*)[%!?].*$", r"\1pass", source, flags=re.MULTILINE)
    try:
        compile(plain, "cell", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _alike(source: str, stub: str) -> bool:
    matcher = SequenceMatcher(None, bare(source)[:5000], bare(stub)[:5000])
    quick = matcher.real_quick_ratio() > LIKENESS and matcher.quick_ratio() > LIKENESS
    return quick and matcher.ratio() > LIKENESS
