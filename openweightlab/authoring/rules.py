"""What a notebook's source must have before it is built; each rule finds problems and says what to do."""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

from IPython.core.inputtransformer2 import TransformerManager

from openweightlab.authoring.question_rules import (
    Asked,
    Spec,
    check_complete,
    check_question,
    questions_asked,
)
from openweightlab.authoring.source import Problem, Source

Found = Iterator[Problem]
MINUTES = re.compile(r"> \*\*(\d+) min(, optional)?\*\* · \S")
NBGRADER_KEYS = {"schema_version", "grade_id", "grade", "solution", "locked", "task", "points", "cell_type"}
NETWORK = {
    "requests",
    "urllib",
    "urllib3",
    "http",
    "httpx",
    "aiohttp",
    "socket",
    "huggingface_hub",
    "datasets",
}
DOWNLOADS = {"load_dataset", "hf_hub_download", "snapshot_download"}


def problems(source: Source, specs: Mapping[str, Spec]) -> list[Problem]:
    """Everything an author has to change in `source`; `specs` are its module's questions (a lesson: none)."""
    lesson: list[Callable[[Source], Found]] = [
        _title,
        _pictures,
        _settings,
        _sections,
        _lesson_grades_nothing,
    ]
    graded: list[Callable[[Source], Found]] = [_title, _pictures, _settings, _offline]
    found = [problem for rule in (lesson if source.kind == "lesson" else graded) for problem in rule(source)]
    asked: list[Asked] = []
    if source.kind == "graded":
        asked, wrong = questions_asked(source)
        found += wrong + [problem for q in asked for problem in check_question(q, specs.get(q.id))]
        found += check_complete(source, specs)
    if not found:  # a wrong sum is worth telling once its parts are right
        found += _total(source, asked)
    return sorted(found, key=lambda problem: problem.line)


def _title(source: Source) -> Found:
    cells = source.notebook.cells
    if not cells or cells[0].cell_type != "markdown" or not cells[0].source.startswith("# "):
        yield source.problem(0, "the first cell must be text that opens with `# ` and the notebook's title")


def _pictures(source: Source) -> Found:
    """Every picture in a text cell has an alt text."""
    for cell in range(len(source.notebook.cells)):
        for offset, line in source.text_lines(cell):
            tags = re.findall(r"<img\b[^>]*", line)
            if re.search(r"!\[\s*\]\(", line) or any(
                not re.search(r"\balt=[\"']\s*[^\"'\s]", tag) for tag in tags
            ):
                want = '`![what it shows](…)` or `<img … alt="what it shows">`'
                yield source.problem(cell, f"a picture without alt text: write {want}", offset)


def _settings(source: Source) -> Found:
    """nbgrader metadata has known keys only and a grade_id of its own; solutions stand in solution cells."""
    first: dict[str, int] = {}
    for number, cell in enumerate(source.notebook.cells):
        settings = source.settings(number)
        if "BEGIN SOLUTION" in cell.source and not settings.get("solution"):
            yield source.problem(
                number, 'a solution in a cell without nbgrader={"grade_id": …, "solution": true}'
            )
        if not settings:
            continue
        if unknown := sorted(set(settings) - NBGRADER_KEYS):
            yield source.problem(number, f"nbgrader metadata has no {', '.join(unknown)}")
        grade_id = str(settings.get("grade_id", ""))
        if not grade_id:
            yield source.problem(number, "nbgrader metadata without a grade_id")
        elif grade_id in first:
            line = source.line(first[grade_id])
            yield source.problem(number, f"grade_id {grade_id!r} stands at line {line} already")
        first.setdefault(grade_id, number)


def _lesson_grades_nothing(source: Source) -> Found:
    for cell in range(len(source.notebook.cells)):
        if source.settings(cell):
            yield source.problem(
                cell, f"a lesson grades nothing: move this cell to {source.module}_graded.py"
            )


def _sections(source: Source) -> Found:
    """Every section of a lesson opens with its minutes and objectives."""
    sections = 0
    for cell in range(len(source.notebook.cells)):
        lines = [(offset, line) for offset, line in source.text_lines(cell) if line.strip()]
        for (offset, line), (_, below) in pairwise([*lines, (0, "")]):
            sections += line.startswith("## ")
            if line.startswith("## ") and not MINUTES.match(below):
                want = "put its minutes and objectives below it, `> **8 min** · You can …`"
                yield source.problem(cell, f"section {line[3:]!r}: {want}", offset)
    if not sections:
        yield source.problem(0, "a lesson has sections: no `## ` heading found")


def _total(source: Source, asked: list[Asked]) -> Found:
    """The header's minutes are the sum of those that sections and questions announce."""
    lines = [line for cell in range(len(source.notebook.cells)) for _, line in source.text_lines(cell)]
    announced = [match for line in lines if (match := MINUTES.match(line))]
    total = sum(int(match[1]) for match in announced if not match[2]) + sum(q.minutes for q in asked)
    if total != source.minutes:
        yield Problem(
            source.path, 1, f"the header says {source.minutes} minutes, sections and questions {total}"
        )


def _offline(source: Source) -> Found:
    """Nothing graded installs, downloads, or loads a model other than the Pocket models."""
    for number, cell in enumerate(source.notebook.cells):
        if cell.cell_type != "code":
            continue
        for offset, line in enumerate(cell.source.split("\n"), 1):
            if re.match(r"\s*(!|%pip|%conda|%%bash|%%sh|%system)", line):
                yield source.problem(
                    number, f"a graded notebook runs no shell command: {line.strip()}", offset
                )
        try:
            tree = ast.parse(TransformerManager().transform_cell(cell.source))
        except SyntaxError as error:
            yield source.problem(number, f"not Python: {error.msg}", error.lineno or 0)
            continue
        for node in ast.walk(tree):
            if reason := reaches_out(node):
                text = f"nothing graded may need a network: {reason}"
                yield source.problem(number, text, getattr(node, "lineno", 0))


def reaches_out(node: ast.AST) -> str | None:
    """Why a piece of code may need a network, or None.

    >>> reaches_out(ast.parse("AutoModel.from_pretrained('Qwen/Qwen3-0.6B')").body[0].value)
    "from_pretrained('Qwen/Qwen3-0.6B') asks a model hub; owl.load gives the Pocket models"
    """
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        bad = sorted({name.split(".")[0] for name in names} & NETWORK)
        return f"it imports {', '.join(bad)}" if bad else None
    if not isinstance(node, ast.Call):
        return None
    called = ast.unparse(node.func)
    name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
    if called.endswith("from_pretrained") and isinstance(name, str):
        return f"from_pretrained({name!r}) asks a model hub; owl.load gives the Pocket models"
    if called == "owl.load" and not str(name).startswith("pocket-"):
        return f"owl.load({name!r}) is not known to be a Pocket model"
    return f"it calls {called}" if called.split(".")[-1] in DOWNLOADS else None
