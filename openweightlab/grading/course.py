"""The instructor's side of a course: where it lies, its modules, what was handed out, and the secret seed."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

CONFIG = "nbgrader_config.py"


class CourseError(Exception):
    """Something about the course or the call, in a sentence that says what to do."""


@dataclass(frozen=True)
class Course:
    """A course folder, the one with nbgrader_config.py; grading keeps its own files in `.owl/` there."""

    root: Path

    @property
    def judges_dir(self) -> Path:
        return self.root / "judges"

    @property
    def store(self) -> Path:
        return self.root / ".owl"

    def modules(self) -> list[str]:
        """Modules that can be graded: handed out, and with a judge."""
        released = (path.parent.name for path in (self.root / "exercises").glob("*/*.ipynb"))
        return sorted({name for name in released if self.has(name)})

    def has(self, module: str) -> bool:
        """Whether the course's own judge grades this module."""
        return self._notebook(module).is_file() and (self.judges_dir / f"{module}.py").is_file()

    def _notebook(self, module: str) -> Path:
        return self.root / "exercises" / module / f"{module}.ipynb"

    def release(self, module: str) -> NotebookNode:
        """The notebook that students were given.

        Raises:
            CourseError: there is none, or no judge for it.
        """
        if not self.has(module):
            known = ", ".join(self.modules()) or f"none yet in {self.root}; `make notebooks` builds them"
            raise CourseError(f"There is no module {module!r} to grade; there are: {known}")
        return nbformat.read(self._notebook(module), as_version=4)

    def seed(self) -> int:
        """The seed of the hidden cases: OWL_SEED, else `.owl/seed`, made at random at its first use.

        One seed serves all students and all three ways to grade; who knows it can foresee the hidden cases.
        """
        given = os.environ.get("OWL_SEED") or self._seed_file()
        try:
            return int(given)
        except ValueError:
            where = "OWL_SEED" if os.environ.get("OWL_SEED") else str(self.store / "seed")
            raise CourseError(f"{where} must be a whole number, not {given[:40]!r}") from None

    def _seed_file(self) -> str:
        path = self.store / "seed"
        try:
            self.store.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(f"{secrets.randbits(48)}\n")
        except FileExistsError:
            pass
        except OSError as error:
            why = f"{path} can't be written ({error.strerror})"
            raise CourseError(f"{why}; grading keeps its seed and records there") from None
        return path.read_text().strip()


def find_course(start: Path | None = None) -> Course:
    """The course that a folder belongs to: the nearest one above with nbgrader_config.py, else this checkout.

    Raises:
        CourseError: there is neither.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (folder / CONFIG).is_file():
            return Course(folder)
    raise CourseError(
        f"No course here: {here} and the folders above have no {CONFIG}. Go to the course's folder"
    )
