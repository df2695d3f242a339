"""Runs one notebook in a fresh kernel and tells how it went; test_lessons_run.py starts it without network.

python run_notebook.py IN.ipynb OUT.ipynb SECONDS   ->   one line of JSON on stdout
"""

import json
import resource
import sys
import time
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError


def run(source: Path, target: Path, seconds: float) -> dict:
    """Execute `source` in an empty folder, save it with its outputs to `target`.

    Kernel and client speak over files (ipc): where there is no network, there is no 127.0.0.1 either.
    """
    notebook = nbformat.read(source, as_version=4)
    manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=str(target.parent / "kernel"))
    work = target.parent / "work"
    work.mkdir()
    client = NotebookClient(
        notebook, km=manager, timeout=seconds, resources={"metadata": {"path": str(work)}}
    )
    start, error = time.monotonic(), None
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as problem:
        error = str(problem)[-4000:]
    nbformat.write(notebook, target)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # KiB, on macOS bytes
    mib = peak / (1024**2 if sys.platform == "darwin" else 1024)
    return {"seconds": round(time.monotonic() - start, 1), "peak_mib": round(mib), "error": error}


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))))
