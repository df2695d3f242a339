"""`owl check NOTEBOOK`: run a notebook in a fresh kernel against its visible cases; points, a first hint."""

import asyncio
import html
import json
import os
import re
import sys
import tempfile
import textwrap
from argparse import Namespace
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from traitlets import Instance

from .. import questions
from ..questions import Question, Verdict
from .judge import score

CELL_SECONDS = 180
CHECK = re.compile(r"""\bowl\.check\(\s*["'](Q\d+\.\d+)["']""")
HINT = re.compile(r"<details>\s*<summary>\s*Hint 1[^<]*</summary>(.*?)</details>", re.S)


class ThisPython(AsyncKernelManager):
    """Starts ipykernel in this very Python: without kernel folders, no other one can be registered."""

    kernel_spec_manager = Instance(KernelSpecManager, kw={"kernel_dirs": []})


class Unusable(ValueError):
    """A file that can't be checked, with the reason in a sentence."""


def main(args: Namespace) -> int:
    """Exit 0 if all visible cases pass, 1 if not, 2 if the file can't be checked."""
    try:
        result = self_check(Path(args.notebook))
    except Unusable as error:
        print(f"owl check: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result, indent=1, ensure_ascii=False) if args.json else _text(result))
    return 0 if result["ok"] else 1


def self_check(path: Path) -> dict[str, Any]:
    """What `owl check --json` prints: points by question, its visible cases, and a hint where one fails.

    Raises:
        Unusable: no such file, not a notebook, or no question of this course in it.
    """
    notebook = read(path)
    asked = _asked(notebook, path)
    reports, errors = _run(notebook, path)
    entries = {}
    for id, question in asked.items():
        error = errors.get(id, "Its check did not run.")
        missing = {"problem": f"{error} Is its answer cell in order?", "rows": [], "ok": False}
        entries[id] = _entry(question, reports.get(id, missing), first_hint(notebook, id))
    return {
        "notebook": str(path),
        "points": sum(entry["points"] for entry in entries.values()),
        "max_points": sum(entry["max_points"] for entry in entries.values()),
        "ok": all(entry["ok"] for entry in entries.values()),
        "questions": entries,
    }


def read(path: Path) -> NotebookNode:
    """A notebook from disk; raises Unusable with the reason."""
    if not path.is_file():
        raise Unusable(f"There is no file {path}.")
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises all kinds at a file of another shape
        what = (str(error).splitlines() or ["it is empty"])[0]
        raise Unusable(f"{path} is not a notebook that can be read: {what[:200]}") from None
    if not isinstance(notebook.get("cells"), list):
        raise Unusable(f"{path} is not a notebook that can be read: it has no cells")
    return notebook


def _asked(notebook: NotebookNode, path: Path) -> dict[str, Question]:
    """The questions that the notebook's check cells name, in order."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    ids = [id for source in sources for id in CHECK.findall(source)]
    if not ids:
        raise Unusable(f'{path} has no check cells, such as owl.check("Q0.1", …): is it an exercise?')
    try:
        return {id: questions.find(id) for id in ids}
    except ValueError as error:
        raise Unusable(f"{path} is not of this version of the course. {error}") from None


def _run(notebook: NotebookNode, path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Execute a copy; what each check reported, and what kept the others from it."""
    with tempfile.TemporaryDirectory(prefix="owl-check-") as folder:
        notes = Path(folder) / "reports.jsonl"
        environment = os.environ | {"OWL_CHECK_REPORT": str(notes)}
        environment.pop("OWL_JUDGE", None)
        copy = nbformat.from_dict(notebook)
        broken = _execute(copy, path.resolve().parent, environment)
        lines = notes.read_text("utf-8").splitlines() if notes.exists() else []
    reports = {report["question"]: report for report in map(json.loads, lines)}
    return reports, {id: error or broken for id, error in _errors(copy).items() if error or broken}


def _execute(notebook: NotebookNode, folder: Path, environment: dict[str, str]) -> str:
    """Run every cell with this Python; why it broke off, or an empty string."""
    stopped = {"ename": "TimeoutError", "evalue": f"stopped after {CELL_SECONDS} seconds", "traceback": []}
    client = NotebookClient(
        notebook,
        kernel_manager_class=ThisPython,
        kernel_name="python3",
        extra_arguments=["--log-level=40"],
        timeout=CELL_SECONDS,
        interrupt_on_timeout=True,
        error_on_timeout=stopped,
        allow_errors=True,
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        asyncio.run(client.async_execute(env=environment))
    except DeadKernelError:
        return "The kernel died, so the checks from there on did not run."
    return ""


def _errors(notebook: NotebookNode) -> dict[str, str]:
    """For each check cell, the error that it ended with, if any."""
    found = {}
    for cell in notebook.cells:
        for id in CHECK.findall(cell.source) if cell.cell_type == "code" else ():
            errors = [output for output in cell.outputs if output.output_type == "error"]
            found[id] = f"Its check ended with {errors[0].ename}: {errors[0].evalue}." if errors else ""
    return found


def _entry(question: Question, report: dict[str, Any], hint: str) -> dict[str, Any]:
    rows = report["rows"]
    cases = questions.public_cases(questions.module_of(question.id))[question.id]
    finished = not report["problem"]
    points = score(question, cases, [Verdict(row["ok"]) for row in rows]) if finished else 0.0
    return {
        "title": question.title,
        "points": points,
        "max_points": float(question.points),
        "ok": report["ok"],
        "problem": report["problem"],
        "cases": rows,
        "hint": "" if report["ok"] else hint,
    }


def first_hint(notebook: NotebookNode, id: str) -> str:
    """The text of "Hint 1" under a question's heading; empty where there is none."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    _, _, after = text.partition(f"### {id} ")
    found = HINT.search(after.partition("\n### ")[0])
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", found[1])).split()) if found else ""


def _text(result: dict[str, Any]) -> str:
    lines = []
    for id, entry in result["questions"].items():
        mark = "✓" if entry["ok"] else "✗"
        lines.append(f"{mark} {id:<6}{entry['points']:g} of {entry['max_points']:g}  {entry['title']}")
        failed = next((row for row in entry["cases"] if not row["ok"]), None)
        why = entry["problem"] or (f"{failed['label']}: {failed['message']}" if failed else "")
        lines += _indented(why) + _indented(f"Hint: {entry['hint']}" if entry["hint"] else "")
    lines.append(f"{result['points']:g} of {result['max_points']:g} points on the visible cases; ")
    lines[-1] += "grading draws fresh ones of the same kinds."
    return "\n".join(lines)


def _indented(text: str) -> list[str]:
    return [textwrap.fill(text, 100, initial_indent=" " * 8, subsequent_indent=" " * 8)] if text else []
