"""A submission, however it came, as a notebook of the shape that was handed out.

Everything that was handed out comes from the release, tags and unknown metadata go, and only answers and own
cells are the student's. Nothing a student did raises: what can't be used has a status and a reason in words.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from . import handin
from .assemble import Assembly
from .handin import Unusable
from .skeleton import blank


@dataclass(frozen=True)
class Normalised:
    """What is graded of one submission; status is "" when it can be run, else "missing" or "unreadable".

    flags: what was put right, or is worth a look; docs/instructors.md says what each means.
    """

    notebook: NotebookNode
    flags: tuple[str, ...] = ()
    status: str = ""
    reason: str = ""


def normalise(folder: Path, module: str, release: NotebookNode) -> Normalised:
    """One submission as a notebook of the release's shape.

    Args:
        folder: `DIR/<student>/<module>`, or one file; its notebook may have any name, in any sub-folder.
        release: the notebook that students were given, `exercises/<module>/<module>.ipynb`.
    """
    flags: set[str] = set()
    try:
        found = handin.find(Path(folder), module)
        flags |= found.flags
        if not found.notebooks:
            status, reason = _nothing_usable(found)
            return Normalised(blank(release), tuple(sorted(flags)), status, _shown(reason))
        path, assembly = _best(found, release)
        flags |= _name_flags(path, Path(folder), module)
        if not assembly.recognised:
            flags.add("wrong-module")
            raise Unusable(_not_ours(assembly, path.name, module))
        return Normalised(assembly.notebook(), tuple(sorted(flags | assembly.flags)))
    except Unusable as error:
        reason = str(error)
    except Exception as error:
        logging.getLogger(__name__).exception("%s could not be normalised", folder)
        reason = f"the notebook could not be understood ({type(error).__name__}: {error})"
    return Normalised(blank(release), tuple(sorted(flags)), "unreadable", _shown(reason))


def _shown(reason: str) -> str:
    """A reason fit for terminals and tables: it may quote a student's file names."""
    return "".join(letter if letter.isprintable() else "?" for letter in reason)[:500]


def _nothing_usable(found: handin.Found) -> tuple[str, str]:
    if found.refused:
        return "unreadable", "; ".join(found.refused[:5])
    if found.others:
        return "missing", f"no notebook (.ipynb) was handed in, only {', '.join(found.others[:5])}"
    return "missing", "nothing was handed in"


def _best(found: handin.Found, release: NotebookNode) -> tuple[Path, Assembly]:
    """The readable notebook with the most answers; among equals the one with the best name."""
    readable, problems = [], []
    for path in found.notebooks[:20]:
        try:
            cells, flags = handin.read(path)
            readable.append((path, Assembly(cells, release, flags)))
        except (Unusable, OSError) as error:
            problems.append(f"{path.name} {error}")
    if not readable:
        raise Unusable("; ".join(problems[:5]))
    best = max(readable, key=lambda pair: pair[1].answered)
    if len(found.notebooks) > 1:
        best[1].flags.add("several-notebooks")
    return best


def _name_flags(path: Path, folder: Path, module: str) -> set[str]:
    flags = set() if path.name == f"{module}.ipynb" else {"renamed-file"}
    return flags | ({"nested-file"} if path not in (folder, folder / path.name) else set())


def _not_ours(assembly: Assembly, name: str, module: str) -> str:
    if assembly.foreign:
        others = ", ".join(sorted(assembly.foreign)[:4])
        return f"{name} is another module's notebook: it has {others}, and nothing of {module}"
    return f"{name} has none of {module}'s questions"
