"""Runs one notebook in a fresh kernel and tells how it went; test_lessons_run.py starts it without network.

python run_notebook.py IN.ipynb OUT.ipynb SECONDS   ->   one line of JSON on stdout
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from traitlets.config import Config


def run(source: Path, target: Path, seconds: float) -> dict:
    """Execute `source` in an empty folder, save it with its outputs to `target`.

    Kernel and client speak over files (ipc): where there is no network, there is no 127.0.0.1 either.
    """
    notebook = nbformat.read(source, as_version=4)
    start, error = time.monotonic(), None
    with tempfile.TemporaryDirectory() as folder:  # a short path: a socket's may have 100 letters
        config = Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}})
        where = {"metadata": {"path": folder}}
        client = NotebookClient(
            notebook, config=config, kernel_name="python3", timeout=seconds, resources=where
        )
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as problem:
            error = str(problem)[-4000:]
    nbformat.write(notebook, target)
    import resource  # not on Windows, where this is not called

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # KiB, on macOS bytes
    mib = peak / (1024**2 if sys.platform == "darwin" else 1024)
    return {"seconds": round(time.monotonic() - start, 1), "peak_mib": round(mib), "error": error}


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))))
