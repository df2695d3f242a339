"""`make bench`: the measurements that the README quotes, printed and written to bench.json."""

import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BATCH, LENGTH = 8, 128  # tokens of one forward pass: 8 x 128


def seconds(job: Callable[[], Any], runs: int) -> float:
    """The median time of `job` over `runs` runs, in seconds."""
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        job()
        times.append(time.perf_counter() - begun)
    return round(statistics.median(times), 3)


def lab_start() -> float:
    """Seconds that a second `make lab` takes until JupyterLab answers: the check of .venv and the start."""
    from openweightlab import lab

    spec = importlib.util.spec_from_file_location("kit_setup", ROOT / "env" / "setup.py")
    assert spec and spec.loader
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        setup.missing_parts(["lab"])
        process = lab.launch(ROOT, Path(folder))
        try:
            lab.wait_for(process, Path(folder))
            return round(time.perf_counter() - begun, 3)
        finally:
            lab.stop(process)


def python(code: str) -> Callable[[], Any]:
    """A job that runs code in a fresh Python."""
    return lambda: subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def experts() -> dict[str, int]:
    """Tokens per second of pocket-moe's forward pass, its experts as a loop and as one grouped product."""
    import torch

    import openweightlab as owl

    torch.manual_seed(0)
    model, tokenizer = owl.load("pocket-moe")
    ids = torch.randint(len(tokenizer), (BATCH, LENGTH))
    speed = {}
    for name in ("eager", "grouped_mm"):
        model.set_experts_implementation(name)
        with torch.no_grad():
            model(ids)  # the first pass prepares buffers
            speed[name] = round(BATCH * LENGTH / seconds(lambda: model(ids), runs=5))
    return speed


def main() -> int:
    """Measure, print and write bench.json."""
    speed = experts()
    found = {
        "machine": {"processor": platform.machine(), "python": platform.python_version()},
        "lab_start_s": statistics.median(lab_start() for _ in range(3)),
        "import_s": seconds(python("import openweightlab"), runs=5),
        "load_pocket_moe_s": seconds(python("import openweightlab as owl; owl.load('pocket-moe')"), runs=3),
        "pocket_moe_tokens_per_s": speed,
        "grouped_over_eager": round(speed["grouped_mm"] / speed["eager"], 2),
    }
    text = json.dumps(found, indent=1)
    (ROOT / "bench.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
