"""What each question of a graded notebook must have, and how it must agree with openweightlab.questions."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from openweightlab.authoring.source import Problem, Source

Found = Iterator[Problem]
HEADING = re.compile(r"### (Q\d+\.\d+)\b(.*)")
PARTS = {
    "points (`3 points`)": re.compile(r"(\d+) points?"),
    "difficulty (`●●○○○`)": re.compile(r"(?=[●○]{5}$)(●+○*)"),
    "minutes (`10 min`)": re.compile(r"(\d+) min"),
}


class Spec(Protocol):
    """What the builder reads of an openweightlab.questions.Question."""

    @property
    def title(self) -> str: ...
    @property
    def points(self) -> Any: ...
    @property
    def functions(self) -> tuple[str, ...]: ...


@dataclass
class Asked:
    """One question as the notebook asks it: its heading's facts and the cells under it."""

    source: Source
    id: str
    cell: int
    title: str
    points: int
    minutes: int
    cells: list[int] = field(default_factory=list)

    def problem(self, text: str, cell: int | None = None, offset: int = 0) -> Problem:
        """A problem with this question, at one of its cells or at its heading."""
        return self.source.problem(self.cell if cell is None else cell, f"{self.id}: {text}", offset)

    def graded_as(self, grade_id: str) -> list[int]:
        """The cells under the heading that carry this grade_id."""
        return [cell for cell in self.cells if self.source.settings(cell).get("grade_id") == grade_id]

    def is_written(self) -> bool:
        """Whether it is answered in a text cell, which a person marks."""
        return any(self.source.settings(cell).get("solution") for cell in self.graded_as(self.id))


def questions_asked(source: Source) -> tuple[list[Asked], list[Problem]]:
    """The notebook's questions, each with the cells under its heading; and what is wrong with headings."""
    asked: list[Asked] = []
    wrong: list[Problem] = []
    current: Asked | None = None
    for cell in range(len(source.notebook.cells)):
        for offset, line in source.text_lines(cell):
            if line.startswith(("# ", "## ")):
                current = None
            elif line.startswith("### Q"):
                read = read_heading(source, cell, offset, line)
                current = read if isinstance(read, Asked) else None
                asked += [current] if current else []
                wrong += [read] if isinstance(read, Problem) else []
        if current:
            current.cells.append(cell)
    seen: set[str] = set()
    for question in asked:
        wrong += [question.problem("this question has two headings")] if question.id in seen else []
        seen.add(question.id)
    return asked, wrong


def read_heading(source: Source, cell: int, offset: int, line: str) -> Asked | Problem:
    """A heading like `### Q0.1 · Count the parameters · 3 points · ●○○○○ · 10 min`, or what it lacks."""
    match = HEADING.fullmatch(line)
    if match is None:
        return source.problem(cell, f"{line!r}: a question's number looks like `Q1.3`", offset)
    title, *parts = [part.strip() for part in match[2].split("·")[1:]] or [""]
    values = {name: [m[1] for part in parts if (m := want.fullmatch(part))] for name, want in PARTS.items()}
    lacking = [name for name, value in values.items() if len(value) != 1] + ([] if title else ["a title"])
    if lacking or len(parts) != len(PARTS):
        what = f"lacks {', '.join(lacking)}" if lacking else "has too many parts"
        like = f"### {match[1]} · Count the parameters · 3 points · ●○○○○ · 10 min"
        return source.problem(cell, f"{match[1]}: the heading {what}; write it like `{like}`", offset)
    points, _, minutes = (value[0] for value in values.values())
    return Asked(source, match[1], cell, title, int(points), int(minutes))


def check_question(asked: Asked, spec: Spec | None) -> Found:
    """Every rule for one question; one without a spec in openweightlab.questions must be a written one."""
    yield from _help(asked)
    if spec is None and asked.is_written():
        yield from _written_question(asked)
    elif spec is None:
        yield asked.problem(f"not in openweightlab.questions for {asked.source.module}")
    else:
        if spec.title != asked.title:
            yield asked.problem(f"titled {asked.title!r} here, {spec.title!r} in openweightlab.questions")
        if float(spec.points) != asked.points:
            yield asked.problem(f"{asked.points} points here, {spec.points} in openweightlab.questions")
        yield from _code_question(asked, spec)


def _help(asked: Asked) -> Found:
    """At least one folded hint, and the pseudocode."""
    texts = "\n".join(line for cell in asked.cells for _, line in asked.source.text_lines(cell))
    folded = re.findall(r"<summary>(.*?)</summary>", texts, re.DOTALL)
    titles = [re.sub(r"<[^>]+>", "", title).strip() for title in folded]
    for name in ("Hint", "Pseudocode"):
        if not any(title.startswith(name) for title in titles):
            want = f"`<details><summary>{name}</summary>` … `</details>`"
            yield asked.problem(f"no folded {name.lower()}; add {want} below the task")
    if texts.count("<details>") != texts.count("</details>"):
        yield asked.problem("a <details> without its </details>")


def _code_question(asked: Asked, spec: Spec) -> Found:
    """Answer cell, then check cell."""
    answers, checks = asked.graded_as(f"{asked.id}-answer"), asked.graded_as(asked.id)
    if not answers:
        header = f'# %% nbgrader={{"grade_id": "{asked.id}-answer", "solution": true}}'
        yield asked.problem(f"no answer cell under its heading (`{header}`)")
    if not checks:
        header = f'# %% nbgrader={{"grade_id": "{asked.id}", "grade": true, "points": {asked.points}}}'
        yield asked.problem(f"no check cell under its heading (`{header}`)")
    if answers and checks and checks[0] < answers[0]:
        yield asked.problem("the check cell stands above its answer", checks[0])
    if answers:
        yield from _answer(asked, spec, answers[0])
    if checks:
        yield from _check(asked, spec, checks[0])


def _check(asked: Asked, spec: Spec, cell: int) -> Found:
    """The check cell is one exact line in a locked code cell that carries the points."""
    line = f'owl.check("{asked.id}", {", ".join(spec.functions)})'
    if asked.source.notebook.cells[cell].source != line:
        yield asked.problem(f"the check cell must be exactly `{line}`", cell)
    yield from _set_up(asked, cell, "code", grade=True, solution=False, locked=True)


def _set_up(asked: Asked, cell: int, cell_type: str, **want: bool) -> Found:
    """A cell's type, nbgrader switches and points are as they should be."""
    settings = asked.source.settings(cell)
    if asked.source.notebook.cells[cell].cell_type != cell_type:
        yield asked.problem(f"this must be a {cell_type} cell", cell)
    for name, value in want.items():
        if bool(settings.get(name)) != value:
            yield asked.problem(f"set {name} to {str(value).lower()} in this cell's nbgrader metadata", cell)
    points = settings.get("points", 0 if want["grade"] else asked.points)
    if float(points or 0) != asked.points:
        yield asked.problem(f"{asked.points} points in the heading, {points or 'none'} in this cell", cell)


def _answer(asked: Asked, spec: Spec, cell: int) -> Found:
    """Marker, solution region, and a signature with its docstring left outside of the region."""
    text = asked.source.notebook.cells[cell].source
    if text.split("\n")[0] != f"# {asked.id} answer":
        yield asked.problem(f"the answer cell's first line must be `# {asked.id} answer`", cell, 1)
    yield from _set_up(asked, cell, "code", grade=False, solution=True, locked=False)
    stub, regions = without_solutions(text)
    if not regions:
        want = "`### BEGIN SOLUTION` and `### END SOLUTION` lines"
        yield asked.problem(f"put {want} around what students are to write", cell)
        return
    try:
        tree = ast.parse(stub)
    except SyntaxError as error:
        yield asked.problem(f"without the solution the cell is not Python ({error.msg})", cell)
        return
    defined = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for name in spec.functions:
        if name not in defined:
            yield asked.problem(f"keep the line that defines `{name}` outside of the solution", cell)
        elif not ast.get_docstring(defined[name]):
            yield asked.problem(f"`{name}` needs a docstring, outside of the solution", cell)


def without_solutions(text: str) -> tuple[str, int]:
    """A cell's text with `...` for each solution region, and how many there were (0 if one is not closed).

    >>> without_solutions("def f():\\n    ### BEGIN SOLUTION\\n    return 1\\n    ### END SOLUTION")
    ('def f():\\n    ...', 1)
    """
    kept: list[str] = []
    marks = re.findall(r"(BEGIN|END) SOLUTION", text)
    paired = marks == ["BEGIN", "END"] * (len(marks) // 2)
    inside = False
    for line in text.split("\n"):
        if "BEGIN SOLUTION" in line:
            inside = True
            kept.append(line[: len(line) - len(line.lstrip())] + "...")
        elif "END SOLUTION" in line:
            inside = False
        elif not inside:
            kept.append(line)
    return "\n".join(kept), len(marks) // 2 if paired else 0


def _written_question(asked: Asked) -> Found:
    """One text cell that is both answer and graded; its solution is a rubric and two sample answers."""
    cell = asked.graded_as(asked.id)[0]
    text = asked.source.notebook.cells[cell].source
    if text.split("\n")[0] != f"**{asked.id} answer**":
        yield asked.problem(f"the cell's first line must be `**{asked.id} answer**`", cell, 1)
    yield from _set_up(asked, cell, "markdown", grade=True, solution=True, locked=False)
    stub, regions = without_solutions(text)
    if not regions:
        want = "`<!-- BEGIN SOLUTION -->` and `<!-- END SOLUTION -->`"
        yield asked.problem(f"put the rubric and the sample answers between {want}", cell)
    for name in ("**Rubric**", "**Weak answer**", "**Strong answer**"):
        if name not in text or name in stub:
            yield asked.problem(f"the solution has no {name}", cell)
    steps = sum(int(points) for points in re.findall(r"^- (\d+) points?:", text, re.MULTILINE))
    if steps != asked.points:
        yield asked.problem(
            f"the rubric's steps (`- 2 points: …`) add up to {steps}, not to {asked.points}", cell
        )


def check_complete(source: Source, specs: Mapping[str, Spec]) -> Found:
    """Questions that the notebook does not ask, and graded cells whose question has no heading."""
    lines = [line for cell in range(len(source.notebook.cells)) for _, line in source.text_lines(cell)]
    headings = {match[1] for line in lines if (match := HEADING.match(line))}
    for question in specs:
        if question not in headings:
            yield Problem(
                source.path, 1, f"{question} is in openweightlab.questions, and not in this notebook"
            )
    for cell in range(len(source.notebook.cells)):
        grade_id = str(source.settings(cell).get("grade_id", ""))
        if grade_id.startswith("Q") and grade_id.removesuffix("-answer") not in headings:
            yield source.problem(
                cell, f"grade_id {grade_id!r} belongs to no question heading of this notebook"
            )
