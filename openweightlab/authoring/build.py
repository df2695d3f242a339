"""All sources of authoring/ to the texts of all notebooks; nothing is written here."""

from collections.abc import Callable, Mapping
from pathlib import Path

from nbformat import NotebookNode

from openweightlab.authoring.question_rules import Spec
from openweightlab.authoring.release import faults, release
from openweightlab.authoring.rules import problems
from openweightlab.authoring.source import Problem, Refused, Source, fingerprint, read_source, to_text

Specs = Callable[[str], Mapping[str, Spec]]


def public_specs(module: str) -> Mapping[str, Spec]:
    """A module's questions as the package has them; none for a module without."""
    from openweightlab import questions

    return questions.load(module) if module in questions.modules() else {}


def build(root: Path, specs: Specs = public_specs) -> dict[str, str]:
    """Every notebook that the sources give: path from `root` -> text. Writes nothing.

    Raises:
        Refused: a source breaks a rule; all its problems, those of all files.
    """
    sources = read_all(root)
    wrong = [p for s in sources for p in problems(s, specs(s.module) if s.kind == "graded" else {})]
    if wrong:
        raise Refused(wrong)
    built = {}
    for lesson in (source for source in sources if source.kind == "lesson"):
        _stamp({"lesson": lesson.notebook})
        built[f"lessons/{lesson.module}.ipynb"] = to_text(lesson.notebook)
    graded = {source.module: source for source in sources if source.kind == "graded"}
    exercises = release(root, {module: source.notebook for module, source in graded.items()})
    for module, source in graded.items():
        _refuse_leaks(source, exercises[module])
        _stamp({"solution": source.notebook, "exercise": exercises[module]})
        built[f"solutions/{module}/{module}.ipynb"] = to_text(source.notebook)
        built[f"exercises/{module}/{module}.ipynb"] = to_text(exercises[module])
    return built


def read_all(root: Path) -> list[Source]:
    """All sources in authoring/, sorted; raises Refused with what is wrong in any of them."""
    sources, wrong = [], []
    for file in sorted((root / "authoring").glob("*.py")):
        try:
            sources.append(read_source(root, file))
        except Refused as refused:
            wrong += refused.problems
    if wrong or not sources:
        raise Refused(wrong or [Problem("authoring/", 1, "no NN_topic_lesson.py or NN_topic_graded.py here")])
    return sources


def _stamp(notebooks: dict[str, NotebookNode]) -> None:
    """Write fingerprints into the notebooks' metadata.

    A solution carries its exercise's too, and the same stamp: nbgrader copies it, so that an exercise made
    by `nbgrader generate_assignment` is the same file as one made here.
    """
    stamps = {kind: fingerprint(notebook) for kind, notebook in notebooks.items()}
    for notebook in notebooks.values():
        notebook.metadata.owl["sha256"] = NotebookNode(stamps)


def _refuse_leaks(source: Source, exercise: NotebookNode) -> None:
    """Raise Refused if an exercise shows what students must not see; nbgrader keeps the number of cells."""
    if found := faults(source.notebook, exercise):
        raise Refused([source.problem(cell, f"students would see {text}") for cell, text in found])
