"""Match one student's cells with the release's, and put the answers into the release's own notebook.

Answers are found by `grade_id`, else by their marker comment (`# Q0.1 answer`), else by the functions they
define, else by their likeness to the stub. The student's own cells stay, in their places, without metadata.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from nbformat import NotebookNode, v4

from .handin import Cell
from .skeleton import CHECK, MARKER, Skeleton, alike, bare, blank, defines, parses, split_at_markers, unfenced


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
        source = cell.source if cell.kind == "code" else unfenced(cell.source)
        twin = place if place is not None else self.skeleton.plain_code.get(cell.id)
        if twin is not None and twin not in {*self.skeleton.answers, *self.skeleton.checks}:
            yield Piece("code", "", place=twin)  # theirs runs after ours
        for question, text in split_at_markers(source):
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
        defined = {slot for slot in (marked, place) if defines(source, self.skeleton.functions[slot])}
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
        found = any(defines(cell.source, names.get(slot, ())) for slot in slots if slot is not None)
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
            split_off = split_off and not parses(piece.source) and parses(halves)
            if split_off and before.slot in self.skeleton.answers:
                piece.slot = before.slot

    def _claim_by_name(self) -> None:
        for slot in self._unanswered(self.skeleton.answers):
            for piece in self.pieces:
                code = piece.source if piece.kind == "code" else unfenced(piece.source)
                usable = piece.own and (piece.kind == "code" or parses(code))
                if usable and defines(code, self.skeleton.functions[slot]):
                    self.flags.add("metadata-repaired" if piece.kind == "code" else "cell-type-repaired")
                    piece.slot, piece.kind, piece.source = slot, "code", code

    def _claim_by_likeness(self) -> None:
        for slot in self._unanswered(self.skeleton.answers):
            stub = self.skeleton.cells[slot].source
            for piece in self.pieces:
                code = piece.own and piece.kind == "code" and not MARKER.search(piece.source)
                if code and alike(piece.source, stub):
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
        defining = [piece for piece in real if defines(piece.source, names)]
        copies = any(sum(defines(piece.source, [name]) for piece in real) > 1 for name in names)
        if slot in self.skeleton.written or (not copies and parses(self._joined(slot, real))):
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
        if any(defines(source, names) for source in others):
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
