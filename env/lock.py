"""Write the lock files anew from pyproject.toml's ranges: `pip install uv`, then `python env/lock.py`.

`--keep` holds every pin that is there and only adds what is new.

One resolution for Linux, macOS and Windows and for Python 3.11 to 3.13, so that the three files agree:
lock-cpu.txt and lock-cuda.txt (what `make lab` installs) and lock-test.txt (what `make test` adds).
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ENV = Path(__file__).resolve().parent
TORCH = "torch==2.13.0"
HEAD = "# Written by env/lock.py from pyproject.toml; change the ranges there, not the pins here.\n"
CUDA_ONLY = re.compile(r"(nvidia|cuda|triton)\b")  # what only PyTorch's CUDA build needs


def resolve(extras: list[str], pins: list[str]) -> list[str]:
    """The pins ("name==version ; marker") of the core and `extras`, held to `pins`."""
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "constraints.txt")
        constraints.write_text("\n".join(pins))
        options = ["--universal", "--python-version", "3.11", "--fork-strategy", "fewest"]
        options += ["--no-annotate", "--no-header", "-q", "-c", str(constraints)]
        options += [f"--extra={extra}" for extra in extras]
        command = ["uv", "pip", "compile", *options, str(ENV.parent / "pyproject.toml")]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [line for line in lines if "sys_platform == 'emscripten'" not in line]


def pinned() -> list[str]:
    """All pins of the lock files as they are."""
    files = (ENV / f"lock-{name}.txt" for name in ("cpu", "cuda", "test"))
    lines = (line for file in files for line in file.read_text().splitlines())
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def main() -> None:
    """Resolve everything once, then each file's share of it."""
    kept = pinned() if "--keep" in sys.argv else [TORCH]
    everything = resolve(["lab", "grade", "gpu", "dev"], kept)
    cuda = resolve(["lab", "grade", "gpu"], everything)
    cpu = [pin for pin in resolve(["lab", "grade"], everything) if not CUDA_ONLY.match(pin)]
    test = resolve(["dev"], everything)
    test = [pin for pin in test if pin not in {*cpu, *cuda} and not CUDA_ONLY.match(pin)]
    for name, pins in {"cpu": cpu, "cuda": cuda, "test": test}.items():
        (ENV / f"lock-{name}.txt").write_text(HEAD + "\n".join(pins) + "\n")
        print(f"lock-{name}.txt: {len(pins)} pins")


if __name__ == "__main__":
    main()
