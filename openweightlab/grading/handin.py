"""Find and read what one student handed in: any notebook, however it was named, saved, nested or damaged."""

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_MIB = 32  # of one notebook file
MAX_ENTRIES = 2000  # files and folders looked at in one submission
MAX_CELLS = 2000
NOT_HANDED_IN = {".ipynb_checkpoints", "__MACOSX", "__pycache__", ".git", ".venv"}
PICTURES = {"image/png", "image/jpeg", "image/gif"}


class Unusable(Exception):
    """Why something that a student handed in can't be used, in words for that student's row."""


@dataclass(frozen=True)
class Cell:
    """One cell as it was handed in; `kind` is code, markdown or raw, `nbgrader` its metadata of that name."""

    kind: str
    source: str
    id: str = ""
    nbgrader: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    attachments: dict[str, Any] = field(default_factory=dict)

    @property
    def grade_id(self) -> str:
        return str(self.nbgrader.get("grade_id", ""))


@dataclass
class Found:
    """A submission folder's notebooks, best names first, and what else was noticed there."""

    notebooks: list[Path] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)


def find(folder: Path, module: str) -> Found:
    """Every notebook below a folder (or the one file that it is); links and outsized files are refused."""
    found = Found()
    if folder.is_symlink():
        _refuse(found, folder.name, "symlink", "is a link; hand in the file itself")
        return found
    entries = [folder] if folder.is_file() else list(_walk(folder))
    if len(entries) >= MAX_ENTRIES:
        found.flags.add("oversized-folder")
    for path in entries:
        _sort_in(found, path, str(path.relative_to(folder)) if path != folder else path.name)
    found.notebooks.sort(key=lambda path: (path.name != f"{module}.ipynb", len(path.parts), str(path)))
    return found


def _walk(folder: Path) -> Iterator[Path]:
    seen = 0
    for here, folders, files in os.walk(folder, followlinks=False):
        links = [name for name in folders if (Path(here) / name).is_symlink()]
        folders[:] = sorted(set(folders) - NOT_HANDED_IN - set(links))
        for name in sorted(files + links):
            if not name.startswith("._"):
                yield Path(here) / name
            seen += 1
            if seen >= MAX_ENTRIES:
                return


def _sort_in(found: Found, path: Path, name: str) -> None:
    info = path.lstat()
    looks_like_one = ".ipynb" in path.name.lower()
    if stat.S_ISLNK(info.st_mode):
        _refuse(found, name, "symlink", "is a link; hand in the file itself")
    elif path.name == "timestamp.txt":
        pass  # nbgrader's note of when it was handed in
    elif not looks_like_one:
        found.others.append(name)
    elif not stat.S_ISREG(info.st_mode):
        _refuse(found, name, "special-file", "is not a plain file")
    elif info.st_size > MAX_MIB * 2**20:
        size = info.st_size / 2**20
        _refuse(
            found,
            name,
            "oversized-file",
            f"has {size:.0f} MiB, the limit is {MAX_MIB}; clear its outputs first",
        )
    else:
        found.notebooks.append(path)


def _refuse(found: Found, name: str, flag: str, why: str) -> None:
    found.flags.add(flag)
    found.refused.append(f"{name} {why}")


def read(path: Path) -> tuple[list[Cell], set[str]]:
    """The cells of one notebook file of any nbformat, with flags for what had to be repaired.

    Raises:
        Unusable: empty, not text, not JSON, or JSON of another kind.
    """
    text, flags = _text(path.read_bytes())
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"is not a notebook: {_what_it_is(text)} ({_short(error)})") from None
    raw = _raw_cells(data, flags)
    if len(raw) > MAX_CELLS:
        raise Unusable(f"has {len(raw)} cells, the limit is {MAX_CELLS}")
    return [cell for cell in map(_cell, raw) if cell], flags


def _text(content: bytes) -> tuple[str, set[str]]:
    if not content.strip(b"\0 \t\r\n"):
        raise Unusable(f"is empty ({len(content)} bytes)")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace"), {"encoding-repaired"}
    if content.startswith(b"\xef\xbb\xbf"):
        return content.decode("utf-8-sig", errors="replace"), {"encoding-repaired"}
    try:
        return content.decode("utf-8"), set()
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace"), {"encoding-repaired"}


def _what_it_is(text: str) -> str:
    start = text.lstrip()[:200].lower()
    if start.startswith(("<!doctype", "<html", "<?xml")):
        return "it is a web page"
    if start.startswith("%pdf"):
        return "it is a PDF"
    if start.startswith("pk\x03\x04"):
        return "it is a zip archive"
    if start.startswith("{"):
        return "its JSON is damaged or cut off"
    return "it holds no JSON"


def _short(error: Exception) -> str:
    return str(error).split("\n")[0][:120]


def _raw_cells(data: Any, flags: set[str]) -> list[Any]:
    """The list of cells, also from nbformat 3, which kept them in worksheets."""
    if not isinstance(data, dict):
        raise Unusable(f"is not a notebook: its JSON is a {type(data).__name__}, not an object")
    cells = data.get("cells")
    if not isinstance(cells, list):
        sheets = data.get("worksheets")
        sheets = [sheet for sheet in sheets if isinstance(sheet, dict)] if isinstance(sheets, list) else []
        if not sheets:
            raise Unusable("is not a notebook: its JSON has no cells")
        flags.add("old-format")
        lists = [sheet["cells"] for sheet in sheets if isinstance(sheet.get("cells"), list)]
        cells = [cell for cells in lists for cell in cells]
    return cells


def _cell(raw: Any) -> Cell | None:
    if not isinstance(raw, dict):
        return None
    meta = raw.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    nbgrader, tags, kind = meta.get("nbgrader"), meta.get("tags"), raw.get("cell_type")
    source = _joined(raw.get("source", raw.get("input", "")))
    return Cell(
        kind=kind if kind in ("code", "raw") else "markdown",
        source="#" * _level(raw) + " " + source if kind == "heading" else source,
        id=str(raw.get("id", "")),
        nbgrader=nbgrader if isinstance(nbgrader, dict) else {},
        tags=tuple(str(tag) for tag in tags) if isinstance(tags, list) else (),
        attachments=_attachments(raw.get("attachments")),
    )


def _level(raw: dict[str, Any]) -> int:
    level = raw.get("level")
    return level if isinstance(level, int) and 1 <= level <= 6 else 1


def _joined(source: Any) -> str:
    """A cell's source as one string that can be written as UTF-8 (JSON may hold half of a surrogate pair)."""
    if isinstance(source, list):
        source = "".join(part for part in source if isinstance(part, str))
    text = source if isinstance(source, str) else ""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _attachments(raw: Any) -> dict[str, Any]:
    """Pictures pasted into a text cell, the only attachments kept."""
    kept: dict[str, Any] = {}
    for name, bundle in raw.items() if isinstance(raw, dict) else ():
        if isinstance(bundle, dict):
            pictures = {
                kind: data for kind, data in bundle.items() if kind in PICTURES and isinstance(data, str)
            }
            kept |= {str(name): pictures} if pictures else {}
    return kept
