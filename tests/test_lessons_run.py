"""Every lesson and every solution, top to bottom, in a fresh kernel, with the network cut off."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
NOTEBOOKS = [*sorted(ROOT.glob("lessons/*.ipynb")), *sorted(ROOT.glob("solutions/*/*.ipynb"))]
CELL_SECONDS = 600

pytestmark = pytest.mark.skipif(os.name == "nt", reason="cutting the network off needs Unix sockets")


NO_SOCKETS = """
import socket
_connect = socket.socket.connect
def _refuse(self, address):
    if self.family != socket.AF_UNIX:
        raise OSError(101, "Network is unreachable (cut off by the test)")
    return _connect(self, address)
socket.socket.connect = socket.socket.connect_ex = _refuse
"""


@dataclass(frozen=True)
class Cut:
    """A way to start a program that has no network."""

    name: str
    command: tuple[str, ...] = ()

    def works(self) -> bool:
        """Whether this machine has it and permits it."""
        if not self.command:
            return True
        found = shutil.which(self.command[0])
        return bool(found) and subprocess.run([*self.command, "true"], capture_output=True).returncode == 0

    def run(self, arguments: list[str], folder: Path, seconds: float = 60) -> subprocess.CompletedProcess:
        """Start Python with these arguments, and with a home of its own in `folder`."""
        env = os.environ | {"HOME": str(folder), "OWL_STATE": str(folder / "state")}
        if not self.command:
            (folder / "sitecustomize.py").write_text(NO_SOCKETS, encoding="utf-8")  # Python imports it first
            env["PYTHONPATH"] = str(folder)
        env.pop("MPLBACKEND", None)  # figures as a notebook draws them
        command = [*self.command, sys.executable, *arguments]
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=seconds)


WAYS = (  # the strongest first
    Cut("bubblewrap", ("bwrap", "--dev-bind", "/", "/", "--unshare-net", "--die-with-parent")),
    Cut("unshare", ("unshare", "--map-root-user", "--net")),
    Cut("patched sockets"),
)


@pytest.fixture(scope="session")
def without_network() -> Cut:
    """The best way that works on this machine."""
    return next(way for way in WAYS if way.works())


def run(notebook: Path, way: Cut, folder: Path) -> tuple[dict, NotebookNode]:
    """How a run went, and the notebook with its outputs."""
    script = str(Path(__file__).with_name("run_notebook.py"))
    done = way.run([script, str(notebook), str(folder / "out.ipynb"), str(CELL_SECONDS)], folder, 3000)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1]), nbformat.read(folder / "out.ipynb", as_version=4)


def said(cell: NotebookNode) -> str:
    """A code cell's outputs as text."""
    outputs = cell.get("outputs", [])
    return "\n".join(str(o.get("text") or o.get("data", {}).get("text/plain", "")) for o in outputs)


def without_alt(cell: NotebookNode) -> list[str]:
    """The pictures among a cell's outputs that say nothing to somebody who can't see them."""
    found = []
    for output in cell.get("outputs", []):
        for kind in ("image/png", "image/jpeg", "image/svg+xml"):
            if kind in output.get("data", {}) and not output.metadata.get(kind, {}).get("alt"):
                found.append(f"{cell.id}: {kind}")
        html = str(output.get("data", {}).get("text/html", ""))
        pictures, texts = (
            html.count("<img") + html.count("<svg"),
            html.count(' alt="') + html.count("aria-label="),
        )
        found += [f"{cell.id}: <img> or <svg>"] if pictures > texts else []
    return found


@pytest.mark.timeout(3100)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_runs_top_to_bottom_without_network(path, without_network, tmp_path, record_property):
    went, notebook = run(path, without_network, tmp_path)
    took = f"{went['seconds']:7.1f} s {went['peak_mib']:6d} MiB"
    record_property("notebook", f"{took}  {path.relative_to(ROOT)}  ({without_network.name})")
    assert went["error"] is None, went["error"]
    assert went["peak_mib"] > 50, "no kernel was measured"
    codes = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    assert codes and all(cell.execution_count for cell in codes)
    assert not [o for cell in codes for o in cell.outputs if o.output_type == "error"]
    assert [picture for cell in codes for picture in without_alt(cell)] == []
    for cell in codes:
        question = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        if cell.metadata.get("nbgrader", {}).get("grade"):
            assert said(cell).startswith(f"✓ {question} "), said(cell)


def test_every_source_has_its_notebooks_here():
    sources = [file.name for file in (ROOT / "authoring").glob("*_*.py")]
    assert sources and len(NOTEBOOKS) == len(sources)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_the_network_is_really_cut_by(way, tmp_path):
    if not way.works():
        pytest.skip(f"{way.name}: not on this machine, or not permitted")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ask = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5); print('reached')"
        inside = way.run(["-c", ask], tmp_path)
        outside = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
    assert outside.stdout == "reached\n", "this test proves nothing here"
    assert inside.returncode != 0 and "Error" in inside.stderr, inside.stderr


BAD = {  # a notebook that must not pass, and what is told of it
    "an error": ("1 / 0", "ZeroDivisionError"),
    "a download": ("import socket; socket.create_connection(('192.0.2.1', 80), 5)", "Error"),
    "a kernel that dies": ("import os; os._exit(3)", "died"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_notebook_fails_for(name, without_network, tmp_path):
    source, words = BAD[name]
    cells = [
        nbformat.v4.new_code_cell("a = 1"),
        nbformat.v4.new_code_cell(source),
        nbformat.v4.new_code_cell("b = 2"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "bad.ipynb")
    went, notebook = run(tmp_path / "bad.ipynb", without_network, tmp_path)
    assert words in went["error"]
    assert notebook.cells[2].execution_count is None


def test_a_picture_without_alt_text_is_found():
    bare = {"image/png": "iVBO"}
    spoken = nbformat.v4.new_output(
        "display_data", data=bare, metadata={"image/png": {"alt": "a line that falls"}}
    )
    html = nbformat.v4.new_output("display_data", data={"text/html": '<img src="data:," alt="two bars">'})
    dumb = [
        nbformat.v4.new_output("display_data", data=data) for data in (bare, {"text/html": "<svg></svg>"})
    ]
    assert without_alt(nbformat.v4.new_code_cell("", outputs=[spoken, html])) == []
    assert len(without_alt(nbformat.v4.new_code_cell("", outputs=dumb))) == 2
