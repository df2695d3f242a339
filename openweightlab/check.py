"""`owl.check`: visible cases and an explanation for a learner; while grading, the judge's cases instead."""

import html
import json
import linecache
import os
import socket
import sys
import textwrap
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

from . import questions
from .grading import wire
from .questions import Case, Question, Verdict

Functions = tuple[Callable[..., Any], ...]
GREEN, RED = "#009E73", "#D55E00"  # told apart also by colour-blind readers


class CheckError(ValueError):
    """A check that was called wrongly; Jupyter shows its sentence and no stack."""

    def _render_traceback_(self) -> list[str]:
        return [f"owl.check: {self}"]


@dataclass(frozen=True)
class Row:
    """How one visible case went."""

    label: str
    ok: bool
    message: str = ""
    called: str = ""


@dataclass(frozen=True)
class Report:
    """How a question's visible cases went, shown as a card in a notebook and as text elsewhere."""

    question: str
    title: str
    rows: tuple[Row, ...] = ()
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether every visible case passes."""
        return not self.problem and all(row.ok for row in self.rows)

    @property
    def summary(self) -> str:
        """The verdict in one sentence."""
        if self.problem:
            return self.problem
        passed = sum(row.ok for row in self.rows)
        if self.ok:
            return f"All {passed} visible cases pass. Grading draws fresh ones of the same kinds."
        return (
            f"{passed} of {len(self.rows)} visible cases pass. Stuck? Open Hint 1 above, under the heading."
        )

    def __repr__(self) -> str:
        lines = [f"{'✓' if self.ok else '✗'} {self.question} {self.title}: {self.summary}"]
        for row in self.rows:
            lines.append(f"  {'✓' if row.ok else '✗'} {row.label}")
            if not row.ok:
                lines += [textwrap.indent(textwrap.fill(text, 90), "      ") for text in _details(row)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(_row_html(row) for row in self.rows)
        colour = GREEN if self.ok else RED
        return (
            f'<div role="status" style="border-left:5px solid {colour};padding:.3em .9em;max-width:700px">'
            f"<strong>{'✓' if self.ok else '✗'} {self.question} · {html.escape(self.title)}</strong><br>"
            f"{html.escape(self.summary)}"
            f'<ul style="list-style:none;padding-left:0;margin:.4em 0 0">{rows}</ul></div>'
        )


def _details(row: Row) -> list[str]:
    """What a failed case says: its verdict, and the call that was made."""
    return [row.message, *([f"The call: {row.called}"] if row.called else [])]


def _row_html(row: Row) -> str:
    mark = f'<span style="color:{GREEN if row.ok else RED};font-weight:bold">{"✓" if row.ok else "✗"}</span>'
    style = "margin-left:1.4em;overflow-wrap:anywhere"
    said = (
        "" if row.ok else "".join(f'<div style="{style}">{html.escape(text)}</div>' for text in _details(row))
    )
    return f'<li style="margin:.15em 0">{mark} {html.escape(row.label)}{said}</li>'


def check(question_id: str, *functions: Callable[..., Any]) -> None:
    """Try your answer on the question's visible cases and explain what comes.

    Args:
        question_id: e.g. "Q0.1".
        functions: your functions, in the order of the question's heading.

    Raises:
        CheckError: no such question, or something else than its functions.

    Example: `owl.check("Q0.1", count_parameters)`.
    """
    question = _question(question_id, functions)
    judge = os.environ.get("OWL_JUDGE")
    if judge:
        serve(int(judge), question, functions)
        return
    report = examine(question, functions)
    _note_for_self_check(report)
    _show(report)


def _question(question_id: str, functions: Functions) -> Question:
    try:
        question = questions.find(question_id)
    except ValueError as error:
        raise CheckError(str(error)) from None
    wanted = f'owl.check("{question.id}", {", ".join(question.functions)})'
    if len(functions) != len(question.functions):
        numbers = f"{question.id} checks {len(question.functions)} function(s), {len(functions)} came."
        raise CheckError(f"{numbers} Write {wanted}")
    for name, function in zip(question.functions, functions, strict=True):
        if not callable(function):
            kind = type(function).__name__
            raise CheckError(
                f"{name} must be a function, but this is a {kind}. Pass its name without brackets: {wanted}"
            )
    return question


def examine(question: Question, functions: Functions) -> Report:
    """Run the visible cases, one after another."""
    rows: list[Row] = []
    for case in questions.public_cases(questions.module_of(question.id))[question.id]:
        try:
            verdict = judge_case(question, case, wire.flatten(question.call(functions, case.inputs)))
        except NotImplementedError:
            names = " and ".join(f"`{name}`" for name in question.functions)
            return Report(
                question.id, question.title, problem=f"Not answered yet: write {names} in the cell above."
            )
        except wire.WireError as error:
            verdict = Verdict(False, f"Your function's result is of no use here: {error}.")
        except KeyboardInterrupt:
            return Report(question.id, question.title, (*rows, Row(case.label, False)), "Interrupted.")
        except (Exception, SystemExit) as error:
            verdict = Verdict(False, _describe(error, functions))
        message = "" if verdict.ok else verdict.message or "The result differs from the expected one."
        called = "" if verdict.ok else _shorten(question.describe(case.inputs))
        rows.append(Row(case.label, verdict.ok, message, called))
    return Report(question.id, question.title, tuple(rows))


def _shorten(text: str, width: int = 400) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def judge_case(question: Question, case: Case, got: questions.Plain) -> Verdict:
    """The question's verdict on one flattened result; a result that can't even be compared is wrong."""
    try:
        return question.compare(case.expected, got)
    except Exception:
        return Verdict(
            False, "The result is not of the expected kind.", "The result is not of the expected kind."
        )


def _describe(error: BaseException, functions: Functions) -> str:
    """An exception in two short sentences, with the learner's own line."""
    said = "".join(traceback.format_exception_only(type(error), error)).strip()
    place = where(error, functions)
    at = f" In your line {place[0]}: {place[1]}" if place else ""
    return f"Your function raised {said[:300].rstrip('.')}.{at}"


def where(error: BaseException, functions: Functions) -> tuple[int, str] | None:
    """Number (in its cell) and text of the last of the learner's own lines that the error came through."""
    files = {function.__code__.co_filename for function in functions if hasattr(function, "__code__")}
    found = None
    for frame, number in traceback.walk_tb(error.__traceback__):
        name = frame.f_code.co_filename
        if name in files or "ipykernel_" in name or name.startswith("<ipython-input"):
            found = number, linecache.getline(name, number, frame.f_globals).strip()
    return found


def _show(report: Report) -> None:
    """In IPython a card (HTML with plain text beside it), elsewhere plain text."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        print(report)
        return
    if get_ipython() is None:
        print(report)
    else:
        display(report)


def _note_for_self_check(report: Report) -> None:
    """Where `owl check NOTEBOOK` runs the notebook, leave the outcome for it, one JSON line a check."""
    path = os.environ.get("OWL_CHECK_REPORT")
    if path:
        with open(path, "a", encoding="utf-8") as lines:
            lines.write(json.dumps({**asdict(report), "ok": report.ok}) + "\n")


def serve(handle: int, question: Question, functions: Functions) -> None:
    """Let the judge put its cases: inputs come one at a time, plain results go back.

    Raises:
        CheckError: the judge doesn't put this question now.
    """
    line = _line(handle)
    if line is None:
        raise CheckError(f"{question.id} is put once, in its own check cell")
    with line:
        wire.send(line, {"question": question.id})
        while "inputs" in (message := wire.receive(line)):
            wire.send(line, answer(question, functions, message["inputs"]))
        print(f"{question.id}: {message.get('said', 'answered')}")


def _line(handle: int) -> socket.socket | None:
    """The newest line that the judge has handed over, if any; older ones were for other questions."""
    newest = None
    with socket.socket(fileno=os.dup(handle)) as judge:
        judge.setblocking(False)
        while True:
            try:
                words, handles, _, _ = socket.recv_fds(judge, 1, 1)
            except BlockingIOError:
                return newest
            if not words:
                return newest
            for found in handles:
                if newest:
                    newest.close()
                newest = socket.socket(fileno=found)


def answer(question: Question, functions: Functions, inputs: Any) -> dict[str, Any]:
    """One reply to the judge: the flattened result, or why there is none."""
    try:
        reply = {"result": wire.flatten(question.call(functions, inputs))}
        wire.pack(reply)
        return reply
    except wire.WireError as error:
        return {"refused": str(error)}
    except BaseException as error:
        place = where(error, functions)
        return {"error": type(error).__name__, "line": place[1] if place else ""}


class _Callable(ModuleType):
    """Importing this module puts it under the name `openweightlab.check`, which must be the function."""

    def __call__(self, question_id: str, *functions: Callable[..., Any]) -> None:
        check(question_id, *functions)


sys.modules[__name__].__class__ = _Callable
