"""Built notebooks on disk: how they differ from their sources, and writing them without losing an edit."""

import difflib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from openweightlab.authoring.source import Refused, fingerprint

ADVICE = (
    "Building would lose these edits; `owl notebooks --diff` shows them. "
    "Move them to authoring/, or move or delete the notebook; then build again."
)
IGNORED = ("*.pyc", "__pycache__", ".ipynb_checkpoints")  # nbgrader leaves these out of a release, too


@dataclass(frozen=True)
class Difference:
    """A built notebook that is not what its source gives; `edited` means that writing it would lose work."""

    path: str
    why: str
    edited: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


def differences(root: Path, built: Mapping[str, str]) -> list[Difference]:
    """What stands in `root` and is not what was built: missing, old, edited, run, or without a source."""
    found = [compare(root, path, text) for path, text in built.items()]
    for pattern in ("lessons/*.ipynb", "solutions/*/*.ipynb", "exercises/*/*.ipynb"):
        for file in sorted(root.glob(pattern)):
            path = file.relative_to(root).as_posix()
            origin = _stamp(_read(file), "built_from")
            if path not in built and origin:
                found.append(Difference(path, f"its source {origin} is gone: bring it back, or delete this"))
    return [difference for difference in found if difference]


def compare(root: Path, path: str, text: str) -> Difference | None:
    """How the file at `path` differs from its freshly built `text`; None if not at all."""
    file = root / path
    if not file.exists():
        return Difference(path, "not built yet")
    if file.read_text(encoding="utf-8", errors="replace") == text:
        return None
    fresh = nbformat.reads(text, as_version=4)
    there = _read(file)
    if there is None:
        return Difference(path, "not a notebook that can be read (a broken merge?)", edited=True)
    kind = {"lessons": "lesson", "solutions": "solution", "exercises": "exercise"}[path.split("/")[0]]
    stamp = _stamp(there, "sha256", kind)
    now = fingerprint(there)
    if now == fingerprint(fresh):
        return Difference(path, "holds outputs or an editor's settings, but no edit")
    if stamp is None:
        return Difference(path, "not made by this builder (it has no stamp)", edited=True)
    if now != stamp:
        return Difference(path, "edited by hand since it was built", edited=True)
    return Difference(path, f"older than {fresh.metadata.owl.built_from}")


def _stamp(notebook: NotebookNode | None, *keys: str) -> str | None:
    """What the builder noted in a notebook's `owl` metadata under these keys, or None."""
    node: Any = notebook.metadata.get("owl") if notebook else None
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node if isinstance(node, str) else None


def _read(file: Path) -> NotebookNode | None:
    """The notebook in a file, or None if it is none."""
    try:
        return nbformat.read(file, as_version=4)
    except Exception:
        return None


def strays(root: Path, built: Mapping[str, str]) -> list[Difference]:
    """Files beside a solution that nbgrader would hand to students."""
    kept = {root / path for path in built if path.startswith("solutions/")}
    files = (
        file for notebook in sorted(kept) for file in sorted(notebook.parent.rglob("*")) if file.is_file()
    )
    found = (file.relative_to(root) for file in files if file not in kept)
    why = (
        "only the notebook may be here, because nbgrader gives all other files to the students; move it away"
    )
    return [
        Difference(path.as_posix(), why)
        for path in found
        if not any(fnmatch(part, pattern) for part in path.parts for pattern in IGNORED)
    ]


def write(root: Path, built: Mapping[str, str]) -> list[str]:
    """Write what differs, all or nothing; returns the paths written.

    Raises:
        Refused: a file to be written was edited by hand, or a stray file is in solutions/.
    """
    found = differences(root, built)
    edited = [difference for difference in found if difference.edited]
    if beside := strays(root, built):
        raise Refused([*edited, *beside])
    if edited:
        raise Refused([*edited, ADVICE])
    paths = [difference.path for difference in found if difference.path in built]
    with tempfile.TemporaryDirectory(dir=root, prefix=".notebooks-") as folder:
        for number, path in enumerate(paths):  # all are written before the first takes its place
            (Path(folder) / str(number)).write_text(built[path], encoding="utf-8", newline="\n")
        for number, path in enumerate(paths):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(folder) / str(number), root / path)
    return paths


def show_difference(root: Path, path: str, text: str) -> str:
    """Unified diff of what an author writes, from the file to what its source gives."""
    there = _read(root / path) if (root / path).exists() else nbformat.v4.new_notebook()
    if there is None:
        return "  (cannot be read as a notebook)"
    old, new = _plain(there), _plain(nbformat.reads(text, as_version=4))
    return "\n".join(difflib.unified_diff(old, new, f"{path} as it is", f"{path} as built", lineterm=""))


def _plain(notebook: NotebookNode) -> list[str]:
    """A notebook's cells as lines, each below a header with its type, tags and nbgrader settings."""
    lines: list[str] = []
    for cell in notebook.cells:
        settings = cell.metadata.get("nbgrader", {})
        shown = [cell.cell_type, *cell.metadata.get("tags", []), settings.get("grade_id")]
        shown += [name for name in ("grade", "solution", "locked") if settings.get(name)]
        shown += [f"{settings['points']} points"] if "points" in settings else []
        lines += [f"# %% {' '.join(filter(None, shown))}", *cell.source.split("\n")]
    return lines
