"""`make bench`: the measurements that the README quotes, printed and written to bench.json.

`make bench ARGS="grading"` measures that part alone, and leaves the others' figures as they are; the parts
are start, models and grading. `--scale 0.1` makes the classes of the grading part smaller, to try it out.
"""

import argparse
import importlib.util
import json
import os
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
FILE = ROOT / "bench.json"
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


def start() -> dict[str, Any]:
    """How long a learner waits."""
    return {
        "lab_start_s": statistics.median(lab_start() for _ in range(3)),
        "import_s": seconds(python("import openweightlab"), runs=5),
        "load_pocket_moe_s": seconds(python("import openweightlab as owl; owl.load('pocket-moe')"), runs=3),
    }


def models() -> dict[str, Any]:
    """How fast pocket-moe runs."""
    speed = experts()
    ratio = round(speed["grouped_mm"] / speed["eager"], 2)
    return {"pocket_moe_tokens_per_s": speed, "grouped_over_eager": ratio}


def grading(scale: float) -> dict[str, Any]:
    """How fast classes are graded."""
    import bench_grading

    return {"grading": bench_grading.measure(scale)}


def kept() -> dict[str, Any]:
    """The figures of earlier calls."""
    try:
        return dict(json.loads(FILE.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def main(arguments: list[str]) -> int:
    """Measure the parts asked for, or all; print and write bench.json."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="all of them unless named")
    parser.add_argument("--scale", type=float, default=1.0, help="of the classes that are graded")
    asked = parser.parse_args(arguments)
    if unknown := sorted({*asked.parts} - {*PARTS}):
        parser.error(f"there is no {unknown[0]}; the parts are {', '.join(PARTS)}")
    machine = {
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
    }
    found = kept() | {"machine": machine}
    for part in asked.parts or PARTS:
        found |= PARTS[part](asked.scale) if part == "grading" else PARTS[part]()
    text = json.dumps(found, indent=1)
    FILE.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


PARTS: dict[str, Callable[..., dict[str, Any]]] = {"start": start, "models": models, "grading": grading}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
