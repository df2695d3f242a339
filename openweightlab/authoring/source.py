"""A notebook's text source (authoring/*.py, jupytext py:percent) as a notebook, the same bytes every time."""

import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbformat import NotebookNode

KERNEL = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
NAME = re.compile(r"(?P<module>\d\d_[a-z0-9_]+)_(?P<kind>lesson|graded)\.py")


@dataclass(frozen=True)
class Problem:
    """Something an author has to change, and where."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


class Refused(Exception):
    """The builder stops; `problems` says why, one sentence each."""

    def __init__(self, problems: list[Any]):
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass(frozen=True)
class Source:
    """One file of authoring/, read: its notebook, and the line at which each cell begins."""

    path: str
    module: str
    kind: str
    title: str
    minutes: int
    notebook: NotebookNode
    lines: list[int]

    def line(self, cell: int) -> int:
        """The line of a cell's header in the file, from 1; text above the first header counts as line 1."""
        extra = len(self.notebook.cells) - len(self.lines)
        return self.lines[cell - extra] if 0 <= cell - extra < len(self.lines) else 1

    def problem(self, cell: int, text: str, offset: int = 0) -> Problem:
        """A problem with one cell, `offset` lines below the cell's header."""
        return Problem(self.path, self.line(cell) + offset, text)

    def settings(self, cell: int) -> dict[str, Any]:
        """A cell's nbgrader metadata; empty where it has none."""
        return self.notebook.cells[cell].metadata.get("nbgrader", {})

    def text_lines(self, cell: int) -> list[tuple[int, str]]:
        """A text cell's lines, numbered from 1, without fenced code; none for a code cell."""
        if self.notebook.cells[cell].cell_type != "markdown":
            return []
        kept, fenced = [], False
        for number, line in enumerate(self.notebook.cells[cell].source.split("\n"), 1):
            if line.lstrip().startswith("```"):
                fenced = not fenced
            elif not fenced:
                kept.append((number, line))
        return kept


def read_source(root: Path, file: Path) -> Source:
    """Read `file` into a notebook with full metadata and steady cell ids; raises Refused."""
    path = file.relative_to(root).as_posix()
    name = NAME.fullmatch(file.name)
    if name is None:
        raise Refused([Problem(path, 1, "name it NN_topic_lesson.py or NN_topic_graded.py")])
    text = file.read_text(encoding="utf-8")
    try:
        notebook = jupytext.reads(text, fmt="py:percent")
    except Exception as error:
        raise Refused(
            [Problem(path, 1, f"jupytext cannot read it ({error}); see authoring/README.md")]
        ) from None
    header = _header(path, name["module"], notebook)
    notebook.metadata = NotebookNode(nbformat.from_dict(KERNEL), owl=NotebookNode(header, built_from=path))
    notebook.nbformat_minor = 5
    for cell in notebook.cells:
        _complete(cell)
    for cell, cell_id in zip(notebook.cells, cell_ids(notebook.cells), strict=True):
        cell.id = cell_id
    return Source(
        path, name["module"], name["kind"], header["title"], header["minutes"], notebook, _lines(text)
    )


def _header(path: str, module: str, notebook: NotebookNode) -> dict[str, Any]:
    """The header's `owl` block: module, title, minutes; raises Refused where one is missing or wrong."""
    owl = notebook.metadata.get("owl")
    if not isinstance(owl, dict):
        raise Refused([Problem(path, 1, "the header has no `jupyter: owl:` block; see authoring/README.md")])
    wrong = []
    if owl.get("module") != module:
        wrong.append(f"the header says module {owl.get('module')!r}, the file's name {module!r}")
    if not (isinstance(owl.get("title"), str) and owl["title"].strip()):
        wrong.append("the header has no title")
    if not (type(owl.get("minutes")) is int and owl["minutes"] > 0):
        wrong.append("the header has no minutes (a whole number, the sum of the sections' or questions')")
    if extra := sorted(set(owl) - {"module", "title", "minutes"}):
        wrong.append(f"the header's owl block has {', '.join(extra)}; it knows module, title, minutes")
    if wrong:
        raise Refused([Problem(path, 1, text) for text in wrong])
    return {key: owl[key] for key in ("module", "title", "minutes")}


def _complete(cell: NotebookNode) -> None:
    """Give a cell's short nbgrader metadata the keys that nbgrader's schema 3 wants; in place.

    Example: {"grade_id": "Q0.1", "grade": true, "points": 3} becomes a locked test cell.
    """
    cell.metadata.pop("lines_to_next_cell", None)
    short = cell.metadata.get("nbgrader")
    if short is None:
        return
    full = {
        "schema_version": 3,
        "grade": False,
        "solution": False,
        "task": False,
        "cell_type": cell.cell_type,
    }
    full["locked"] = bool(short.get("grade")) and not short.get("solution")
    cell.metadata["nbgrader"] = NotebookNode(full | short)


def cell_ids(cells: list[NotebookNode]) -> list[str]:
    """One id a cell: its grade_id, else heading and place under it, so that edits elsewhere change none.

    >>> cell = nbformat.v4.new_markdown_cell
    >>> cell_ids([cell("# The bench"), cell("Hello."), cell("## Tiers"), cell("Three.")])
    ['the-bench', 'the-bench-2', 'tiers', 'tiers-2']
    """
    ids: list[str] = []
    section, place = "start", 0
    for cell in cells:
        heading = re.match(r"#{1,6} (.+)", cell.source) if cell.cell_type == "markdown" else None
        section, place = (_slug(heading[1]), 1) if heading else (section, place + 1)
        graded = cell.metadata.get("nbgrader", {}).get("grade_id")
        wanted = (
            re.sub(r"[^\w-]", "-", str(graded))[:60] if graded else f"{section}-{place}".removesuffix("-1")
        )
        same = sum(1 for other in ids if other == wanted or re.fullmatch(re.escape(wanted) + r"_\d+", other))
        ids.append(f"{wanted}_{same + 1}" if same else wanted)
    return ids


def _slug(heading: str) -> str:
    """A heading as an identifier: "Q0.1 · Count them · 3 points · …" becomes "q0-1-count-them"."""
    parts = " ".join(heading.split(" · ")[:2])
    plain = unicodedata.normalize("NFKD", parts).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:48].strip("-") or "section"


def _lines(text: str) -> list[int]:
    """The line of each cell's `# %%` header, from 1."""
    return [number for number, line in enumerate(text.splitlines(), 1) if re.match(r"# %%(\s|$)", line)]


def fingerprint(notebook: NotebookNode) -> str:
    """SHA-256 of what an author writes: sources, order, types, tags, nbgrader settings; not outputs, not ids.

    Empty cells do not count, because JupyterLab adds one whenever the last cell is run.
    """
    parts = [
        [
            cell.cell_type,
            cell.source,
            sorted(cell.metadata.get("tags", [])),
            _settings(cell),
            cell.get("attachments"),
        ]
        for cell in notebook.cells
        if cell.source.strip() or "nbgrader" in cell.metadata
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _settings(cell: NotebookNode) -> list[Any]:
    """What nbgrader is told about a cell, without what it computes itself."""
    settings = cell.metadata.get("nbgrader", {})
    return [
        settings.get("grade_id"),
        *(bool(settings.get(key)) for key in ("grade", "solution", "locked", "task")),
        float(settings.get("points") or 0),
    ]


def to_text(notebook: NotebookNode) -> str:
    """The notebook as JSON with sorted keys, one line break at its end, as nbgrader and Jupyter write it."""
    return nbformat.writes(notebook).rstrip("\n") + "\n"
