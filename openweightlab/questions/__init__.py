"""The public side of every graded question: what is asked, called and compared; no answer and no oracle.

One file per module (`m00_workbench.py`, ...), each with a tuple `QUESTIONS`. Public cases are data
recorded from the oracle, in `cases/`. "Plain data" means None, bool, int, float, str, list, dict with
string keys, and torch.Tensor.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

Plain = Any  # None | bool | int | float | str | list[Plain] | dict[str, Plain] | torch.Tensor


@dataclass(frozen=True)
class Verdict:
    """One case's outcome: `message` may name values (in public cases), `cause` explains without any."""

    ok: bool
    message: str = ""
    cause: str = ""


@dataclass(frozen=True)
class Case:
    """One test of a question, its label in words; while a core case fails, the question earns nothing."""

    label: str
    inputs: dict[str, Plain]
    expected: Plain
    core: bool = False


@dataclass(frozen=True)
class Question:
    """One graded thing.

    `call(functions, inputs)` runs in the learner's process: it builds the real arguments from plain
    inputs, calls the learner's functions (in the order of `functions`) and returns what came, with what
    it observed. `compare(expected, got)` judges a result that was flattened to plain data; it never sees
    the learner's objects. `describe(inputs)` writes a call out, for a learner whose visible case fails.
    """

    id: str
    title: str
    points: int
    functions: tuple[str, ...]
    docs: str
    call: Callable[[tuple[Callable[..., Any], ...], dict[str, Plain]], Any] = field(repr=False)
    compare: Callable[[Plain, Plain], Verdict] = field(repr=False)
    hint: str = ""
    seconds: float = 20.0  # time that one case may take
    describe: Callable[[dict[str, Plain]], str] = field(default=lambda inputs: "", repr=False)


def modules() -> list[str]:
    """Names of the modules that have questions, e.g. `["00_workbench"]`."""
    names = (entry.name for entry in files(__name__).iterdir())
    return sorted(name[1:-3] for name in names if re.fullmatch(r"m\d\d_\w+\.py", name))


@cache
def load(module: str) -> dict[str, Question]:
    """The questions of one module by id, in the notebook's order.

    Raises:
        ValueError: there is no such module.

    >>> list(load("00_workbench"))
    ['Q0.1', 'Q0.2', 'Q0.3', 'Q0.4']
    """
    if module not in modules():
        raise ValueError(f"There is no module {module!r} with questions; there are: {', '.join(modules())}")
    found = import_module(f"{__name__}.m{module}").QUESTIONS
    return {question.id: question for question in found}


def module_of(question_id: str) -> str:
    """The module that a question id belongs to.

    Raises:
        ValueError: no module has that question.

    >>> module_of("Q0.3")
    '00_workbench'
    """
    match = re.fullmatch(r"Q(\d+)\.\d+", str(question_id))
    prefix = f"{int(match[1]):02d}_" if match else None
    for module in modules():
        if prefix and module.startswith(prefix) and question_id in load(module):
            return module
    known = ", ".join(id for module in modules() for id in load(module))
    raise ValueError(f"There is no question {question_id!r}; the questions are: {known}")


def find(question_id: str) -> Question:
    """One question by its id, e.g. `find("Q0.1")`; raises ValueError like `module_of`."""
    return load(module_of(question_id))[question_id]


@cache
def public_cases(module: str) -> dict[str, list[Case]]:
    """The cases that learners see, by question id, as recorded from the oracle by `grading.judge record`."""
    from safetensors.torch import load as load_tensors

    from ..grading.wire import MAX_NODES, from_json

    folder = files(__name__) / "cases"
    tensors = load_tensors((folder / f"{module}.safetensors").read_bytes())
    tree = from_json(json.loads((folder / f"{module}.json").read_text("utf-8")), tensors, [MAX_NODES])
    return {id: [Case(**case) for case in cases] for id, cases in tree.items()}
