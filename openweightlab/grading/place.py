"""Write one student's files where grading looks for them: repaired, whole, only what changed."""

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from . import handin
from .normalise import normalise
from .roster import plain, safe_id
from .skeleton import Skeleton

FORMAT = 1  # of what is kept of a collected submission
TIMESTAMP = "timestamp.txt"
NOTE = "NOT_COLLECTED.txt"
Row = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """Where the submissions to one module go, and the notebook that was handed out."""

    into: Path
    module: str
    release: NotebookNode

    @property
    def state(self) -> Path:
        """Where is kept what was placed, and where files are written before they get their names."""
        return self.into / ".collected" / self.module

    @property
    def unplaced(self) -> Path:
        return self.into / ".unplaced" / self.module


@dataclass
class Piece:
    """One file of a student: its path there, its bytes, or why it has none."""

    source: str
    path: tuple[str, ...]
    content: bytes | None
    reason: str = ""


def place(target: Target, student: str, key: str, pieces: list[Piece], when: str) -> Row:
    """Write one student's files where they are new or changed; what the report says of them.

    key: who this is for the platform; it is kept, so that nobody gets a second folder under another id.
    when: the platform's time of handing in; "" leaves an older one in place if the files are the same.
    """
    folder, memory = target.into / student / target.module, target.state / f"{student}.json"
    source, old = _digest(pieces), _remembered(memory)
    there = folder.is_dir() and any(folder.iterdir())
    whole = old["source"] == source and all((folder / name).is_file() for name in old["files"])
    if whole and when in ("", old["when"]):
        return {"state": "same", "files": old["files"]}
    outputs, files = ({}, old["files"]) if whole else _outputs(target, pieces)
    outputs |= {TIMESTAMP: when.encode()} if when else {}
    new = {name: content for name, content in outputs.items() if not _holds(folder / name, content)}
    stale = [name for name in old["files"] if not whole and name not in outputs]
    _update(folder, new, stale, target.state)
    kept = {"source": source, "key": key, "when": when, "files": files}
    write_whole(memory, json.dumps(kept, indent=1).encode(), target.state)
    return {"state": "new" if not there else "changed" if new or stale else "same", "files": files}


def _digest(pieces: list[Piece]) -> str:
    parts = [[piece.path, piece.reason, hashlib.sha256(piece.content or b"").hexdigest()] for piece in pieces]
    return hashlib.sha256(json.dumps([FORMAT, parts]).encode()).hexdigest()


def _remembered(path: Path) -> Row:
    """What was placed for a student before."""
    try:
        kept = json.loads(path.read_text("utf-8"))
        texts = {name: str(kept[name]) for name in ("source", "key", "when")}
        return texts | {"files": dict(kept["files"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"source": "", "key": "", "when": "", "files": {}}


def known(target: Target) -> dict[str, str]:
    """Who was placed before, by the platform's key, and still has a folder."""
    students = (path.stem for path in target.state.glob("*.json"))
    there = [one for one in students if (target.into / one / target.module).is_dir()]
    return {_remembered(target.state / f"{one}.json")["key"]: one for one in there}


def _holds(path: Path, content: bytes) -> bool:
    return not path.is_symlink() and path.is_file() and path.read_bytes() == content


def _update(folder: Path, new: dict[str, bytes], stale: list[str], scratch: Path) -> None:
    """Write new files into a folder, each whole at any moment, then remove those that they replace."""
    folder.mkdir(parents=True, exist_ok=True)
    if (new or stale) and TIMESTAMP not in new:
        (folder / TIMESTAMP).unlink(missing_ok=True)  # it told when the old files came
    for name, content in new.items():
        write_whole(folder / name, content, scratch)
    for name in stale:
        (folder / name).unlink(missing_ok=True)


def _outputs(target: Target, pieces: list[Piece]) -> tuple[dict[str, bytes], dict[str, Row]]:
    """A submission's files and a row for each; the notebook with most answers has the module's name."""
    good = [piece for piece in pieces if piece.content is not None and not piece.reason]
    notebooks = [piece for piece in good if ".ipynb" in piece.path[-1].lower()]
    repaired = {piece.source: _repaired(target, piece) for piece in notebooks}
    order = sorted(good, key=lambda piece: _rank(target, piece, repaired.get(piece.source)))
    outputs: dict[str, bytes] = {}
    rows: dict[str, Row] = {}
    for n, piece in enumerate(order):
        first = n == 0 and piece.source in repaired
        name = _free(f"{target.module}.ipynb" if first else safe_name(piece.path[-1]), outputs)
        outputs[name], rows[name] = repaired.get(piece.source, (piece.content or b"", {"from": piece.source}))
    refused = [f"{piece.source}: {piece.reason}\n" for piece in pieces if piece.reason]
    if refused and not notebooks:
        outputs[NOTE], rows[NOTE] = "".join(refused).encode(), {"from": ""}
    return outputs, rows


def _rank(target: Target, piece: Piece, repaired: tuple[bytes, Row] | None) -> tuple[Any, ...]:
    """Grading's own order: notebooks with most answers, the module's name, the shortest path."""
    answers = repaired[1].get("answers", 0) if repaired else -1
    return -answers, piece.path[-1] != f"{target.module}.ipynb", len(piece.path), piece.path, piece.source


def _repaired(target: Target, piece: Piece) -> tuple[bytes, Row]:
    """A notebook with the release's metadata, or its own bytes if it has them or can't be repaired.

    One with changed checks stays as it is, too: grading puts it right and says that it was tampered with.
    """
    content = piece.content or b""
    with tempfile.TemporaryDirectory(prefix="owl-collect-") as scratch:
        path = Path(scratch, f"{target.module}.ipynb")
        path.write_bytes(content)
        result = normalise(path, target.module, target.release)
        row: Row = {"from": piece.source, "flags": list(result.flags)}
        if result.status:
            return content, row | {"problem": result.reason}
        mend = "tampered" not in result.flags and _lacks(path, target.release)
    row |= {"answers": _answers(result.notebook, target.release), "repaired": mend}
    return (nbformat.writes(result.notebook).encode() if mend else content), row


def _lacks(path: Path, release: NotebookNode) -> bool:
    """Whether a notebook lacks any of the release's cells of nbgrader, or must be read in an unusual way."""
    cells, flags = handin.read(path)
    theirs = [cell.nbgrader for cell in cells]
    ours = [cell.metadata["nbgrader"] for cell in release.cells if "nbgrader" in cell.metadata]
    return bool(flags) or any(meta not in theirs for meta in ours)


def _answers(notebook: NotebookNode, release: NotebookNode) -> int:
    skeleton = Skeleton(release)
    ids = {skeleton.meta[n]["grade_id"]: n for n in skeleton.slot.values()}
    cells = [
        (ids.get(cell.metadata.get("nbgrader", {}).get("grade_id")), cell.source) for cell in notebook.cells
    ]
    return sum(n is not None and not skeleton.is_stub(n, source) for n, source in cells)


def safe_name(name: str) -> str:
    """A file name for every system; never one that grading reads something from."""
    stem, dot, end = name.rpartition(".")
    safe = f"{safe_id(stem)}.{safe_id(end)}" if dot and stem.strip(" .") and end else safe_id(name)
    return f"students-{safe}" if plain(safe) in (TIMESTAMP, plain(NOTE)) else safe


def _free(name: str, taken: dict[str, bytes]) -> str:
    """The name, with a number if another file has it, also where a file system takes A and a for one."""
    used, stem, end = {plain(one) for one in taken}, *os.path.splitext(name)
    names = [name, *(f"{stem} ({n}){end}" for n in range(2, len(taken) + 3))]
    return next(one for one in names if plain(one) not in used)


def write_whole(path: Path, content: bytes, scratch: Path) -> None:
    """Write a file so that it is there whole or not at all, also after a kill."""
    handle, name = tempfile.mkstemp(prefix=".part-", dir=scratch)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
