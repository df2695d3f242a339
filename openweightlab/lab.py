"""`owl lab`: JupyterLab on the first lesson, for learners or instructors; and a smoke run of it all."""

import argparse
import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "env"  # holds the folders that Jupyter reads settings from
LESSON = "lessons/00_workbench.ipynb"
NBGRADER = "@jupyter/nbgrader"  # the extension that only instructors see
SILENT_SECONDS = 300  # how long a running cell may print nothing


class LabError(Exception):
    """What went wrong and what to do, in words for a learner."""


def main(args: argparse.Namespace) -> int:
    """Open the running server of this checkout, else start one; with --smoke, try everything and stop."""
    try:
        if args.smoke:
            return smoke(ROOT)
        require(ROOT / LESSON)
        server = running(ROOT, args.instructor)
        return reuse(server) if server else start(ROOT, args.instructor)
    except LabError as error:
        print(f"owl lab: {error}", file=sys.stderr)
        return 1


def require(lesson: Path) -> None:
    """Raises LabError where the lesson is not on disk."""
    if not lesson.exists():
        raise LabError(f"there is no {lesson}. Start it inside a clone of the course (git restore lessons).")


# --- the server --------------------------------------------------------------------------------------


def command(root: Path, *options: str) -> list[str]:
    """JupyterLab on `root`, at the first lesson, asking nothing of the network."""
    return [
        *(sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}"),
        *(f"--LabApp.default_url=/lab/tree/{LESSON}", "--LabApp.news_url=None"),
        *("--LabApp.extension_manager=readonly", "--allow-root", *options),
    ]


def environment(instructor: bool) -> dict[str, str]:
    """The server's environment: the kit's programs found first; nbgrader's extensions off for learners."""
    folders = ["jupyter"] if instructor else ["jupyter-learner", "jupyter"]
    paths = [*(str(CONFIG / name) for name in folders), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    programs = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return {
        **os.environ,
        "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, paths)),
        "PATH": os.pathsep.join(filter(None, programs)),
    }


def start(root: Path, instructor: bool) -> int:
    """Become the server; on Windows, where a process can't, wait for it."""
    env = environment(instructor)
    if os.name != "nt":
        sys.stdout.flush()
        os.execve(sys.executable, command(root), env)
    try:
        return subprocess.run(command(root), env=env).returncode
    except KeyboardInterrupt:
        return 0


def reuse(server: dict) -> int:
    """Point at a server that runs already."""
    print(f"JupyterLab is running already: {address(server)}\n(to stop it: File menu, Shut Down)")
    if sys.stdout.isatty():
        webbrowser.open(address(server))
    return 0


def address(server: dict) -> str:
    """Where a browser finds the first lesson."""
    return f"{server['url']}lab/tree/{LESSON}?token={server['token']}"


def running(root: Path, instructor: bool) -> dict | None:
    """The live server of this folder that shows (or hides) nbgrader as asked, if there is one."""
    from jupyter_core.paths import jupyter_runtime_dir

    for server in servers(Path(jupyter_runtime_dir())):
        if Path(server.get("root_dir", "")) != root:
            continue
        try:
            if shows_nbgrader(server) == instructor:
                return server
        except (OSError, ValueError):
            continue  # it died, or hangs
    return None


def servers(folder: Path) -> Iterator[dict]:
    """What each Jupyter server says of itself in the folder for that, the newest first."""
    for file in sorted(folder.glob("jpserver-*.json"), key=lambda f: -f.stat().st_mtime):
        try:
            yield json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # just being written or removed


def ask(server: dict, path: str, data: Any = None, method: str | None = None, seconds: float = 5) -> str:
    """The server's answer to one request; raises OSError (also for a refusal) or TimeoutError."""
    body = None if data is None else json.dumps(data).encode()
    headers = {"Authorization": f"token {server['token']}", "Content-Type": "application/json"}
    request = urllib.request.Request(server["url"] + path, body, headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is this machine: no proxy
    with opener.open(request, timeout=seconds) as answer:
        return answer.read().decode()


def shows_nbgrader(server: dict) -> bool:
    """Whether the page that this server gives a browser has nbgrader's extension switched on."""
    page = ask(server, "lab")
    found = re.search(r'<script id="jupyter-config-data"[^>]*>(.*?)</script>', page, re.S)
    if not found:
        raise ValueError("not a JupyterLab page")
    config = json.loads(found.group(1))
    there = any(extension["name"] == NBGRADER for extension in config.get("federated_extensions", []))
    return there and NBGRADER not in config.get("disabledExtensions", [])


# --- the smoke run -----------------------------------------------------------------------------------


def smoke(root: Path) -> int:
    """Start a server, fetch the first lesson from it, run it in a kernel of its, stop it: one line a step."""
    require(root / LESSON)
    with ended_politely(), tempfile.TemporaryDirectory() as folder:
        runtime = Path(folder)
        process = launch(root, runtime)
        try:
            server = wait_for(process, runtime)
            step(f"server answers at {server['url']}")
            notebook = json.loads(ask(server, f"api/contents/{LESSON}"))["content"]
            step(f"lesson {LESSON}: {len(notebook['cells'])} cells")
            run_lesson(server, notebook)
        finally:
            forced = stop(process)
        if forced:
            raise LabError(f"the server stopped, but {forced} of its processes had to be ended by force.")
        step("server and kernel stopped")
    return 0


@contextlib.contextmanager
def ended_politely() -> Iterator[None]:
    """While it lasts, a request to end (SIGTERM) runs the clean-up too, so that no server is left behind."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def step(text: str) -> None:
    """Print one finished step."""
    print(f"ok  {text}", flush=True)


def launch(root: Path, runtime: Path, instructor: bool = False) -> subprocess.Popen:
    """A server on a free port with a token; its files and what a lesson records go to `runtime`."""
    env = environment(instructor)
    env |= {"JUPYTER_RUNTIME_DIR": str(runtime), "OWL_STATE": str(runtime)}
    env["JUPYTER_TOKEN"] = secrets.token_hex(16)
    lab = command(root, "--no-browser", "--ServerApp.port=0", "--ServerApp.ip=127.0.0.1")
    with open(runtime / "server.log", "wb") as log:
        return subprocess.Popen(lab, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def wait_for(process: subprocess.Popen, runtime: Path, seconds: float = 90) -> dict:
    """The started server once it answers; raises LabError with its last words where it doesn't."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        for server in servers(runtime):
            try:
                ask(server, "api/status")
                return server
            except OSError:
                pass
        time.sleep(0.2)
    words = (runtime / "server.log").read_text(errors="replace").strip().splitlines()[-15:]
    raise LabError("JupyterLab did not start; its last words:\n" + "\n".join(words))


def run_lesson(server: dict, notebook: dict) -> None:
    """Run the lesson's cells in a kernel that the server starts; raises LabError at the first that fails."""
    request = {"path": LESSON, "name": LESSON, "type": "notebook", "kernel": {"name": "python3"}}
    session = json.loads(ask(server, "api/sessions", request, seconds=60))
    with Kernel(server, session["kernel"]["id"]) as kernel:
        home = kernel.run("import sys; print(sys.prefix, end='')")["text"]
        if Path(home) != Path(sys.prefix):
            raise LabError(f"the kernel runs {home}, not {sys.prefix}: remove the kernelspec that names it.")
        step(f"kernel of {home}")
        begun = time.monotonic()
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        for number, cell in enumerate(code, 1):
            error = kernel.run(source(cell))["error"]
            if error and "raises-exception" not in cell["metadata"].get("tags", []):
                place = f"{LESSON}: code cell {number} of {len(code)}"
                raise LabError(f"{place} failed:\n{source(cell)}\n\n{error}")
        step(f"lesson ran: {len(code)} code cells in {time.monotonic() - begun:.0f} s")


def source(cell: dict) -> str:
    """A cell's source as one string."""
    return "".join(cell["source"])


class Kernel:
    """One of the server's kernels, spoken to through the server as a browser does."""

    def __init__(self, server: dict, kernel_id: str) -> None:
        from websocket import create_connection

        channels = server["url"].replace("http", "ws", 1) + f"api/kernels/{kernel_id}/channels"
        header = [f"Authorization: token {server['token']}"]
        self.socket = create_connection(channels, header=header, timeout=SILENT_SECONDS, http_no_proxy=["*"])

    def __enter__(self) -> "Kernel":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def run(self, code: str) -> dict[str, str]:
        """Run code; its printed text and its traceback ("" where none): {"text": ..., "error": ...}."""
        from websocket import WebSocketException

        asked = uuid.uuid4().hex
        header = {"msg_id": asked, "msg_type": "execute_request", "username": "owl", "session": asked}
        header |= {"version": "5.3", "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        message = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}}
        message["content"] = {"code": code, "silent": False, "allow_stdin": False}
        result = {"text": "", "error": ""}
        try:
            self.socket.send(json.dumps(message))
            while not self.finished(asked, result):
                pass
        except (OSError, WebSocketException) as error:
            raise LabError(f"the kernel does not answer any more ({error}):\n{code}") from error
        return result

    def finished(self, asked: str, result: dict[str, str]) -> bool:
        """Take one message in; True once the kernel is idle again after the request `asked`."""
        reply = json.loads(self.socket.recv())
        kind, content = reply["header"]["msg_type"], reply["content"]
        if kind == "status" and content["execution_state"] in ("restarting", "dead"):
            raise OSError("it died")
        if reply["parent_header"].get("msg_id") != asked:
            return False
        if kind == "stream" and content["name"] == "stdout":
            result["text"] += content["text"]
        if kind == "error":
            result["error"] = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(content["traceback"]))
        return kind == "status" and content["execution_state"] == "idle"


def stop(process: subprocess.Popen, seconds: float = 20) -> int:
    """Stop the server and every process below it; how many had to be ended by force."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        family[0].terminate()
        _, left = psutil.wait_procs(family, timeout=seconds if os.name != "nt" else 0)
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(left, timeout=5)
        return len(left) if os.name != "nt" else 0  # Windows knows no gentle end
    return 0
