"""`owl doctor`: what this machine has, what it can run, and what to do where something is missing."""

import argparse
import importlib
import json
import os
import platform
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

GIB = 2**30
WANTED_RAM_GIB = 3.0  # JupyterLab, one kernel with torch and a Pocket model, and a browser's share
WANTED_DISK_GIB = 1.0


def main(args: argparse.Namespace) -> int:
    """Print the findings as a table, or as JSON; 1 where the pocket tier can't work."""
    found = examine()
    print(json.dumps(found, indent=1) if args.json else "\n".join(table(found)))
    return 1 if found["problems"] else 0


def examine() -> dict[str, Any]:
    """Everything `owl doctor --json` prints; `problems` stop the pocket tier, `remarks` don't."""
    found: dict[str, Any] = {
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "packages": packages(),
        "cpu": {"name": cpu_name(), "cores": os.cpu_count(), "system": platform.platform()},
        **memory(),
        "disk_free_gib": round(shutil.disk_usage(Path.cwd()).free / GIB, 1),
    }
    problems = [
        f"{name} is missing: delete .venv and call make lab again"
        for name, v in packages().items()
        if v is None
    ]
    problems = problems or broken()
    if not problems:
        found |= {"gpu": gpus(), "tier": tier(), "pocket": pocket(), "sandbox": sandbox()}
        problems += [f"{name}: {one['problem']}" for name, one in found["pocket"].items() if one["problem"]]
    return {**found, "problems": problems, "remarks": remarks(found)}


def packages() -> dict[str, str | None]:
    """The versions of the kit and of what its core needs; None for one that is missing."""
    lines = [line for line in requires("openweightlab") or [] if "extra ==" not in line]
    names = ["openweightlab", *(re.split(r"[^\w.-]", line)[0] for line in lines)]
    return {name: installed(name) for name in names}


def installed(name: str) -> str | None:
    """An installed package's version, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def broken() -> list[str]:
    """A line for each library without which nothing runs and which is installed but does not start."""
    said = []
    for name in ("torch", "transformers"):
        try:
            importlib.import_module(name)
        except Exception as error:  # a missing system library can raise anything
            said.append(f"{name} does not start ({error}): delete .venv and call make lab again")
    return said


def cpu_name() -> str:
    """The processor's name, as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*:\s*(.+)", info.read_text())
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine()


def memory() -> dict[str, float | None]:
    """RAM in GiB: all of it, and what is free for use now; None where psutil is missing."""
    try:
        import psutil
    except ImportError:
        return {"ram_gib": None, "ram_free_gib": None}
    ram = psutil.virtual_memory()
    return {"ram_gib": round(ram.total / GIB, 1), "ram_free_gib": round(ram.available / GIB, 1)}


def gpus() -> list[dict[str, Any]]:
    """Each CUDA device that PyTorch sees: name, memory in GiB, whether it computes in bf16 itself."""
    import torch

    if not torch.cuda.is_available():
        return []
    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [
        {"name": card.name, "memory_gib": round(card.total_memory / GIB, 1), "bf16": card.major >= 8}
        for card in cards
    ]


def tier() -> dict[str, str]:
    """The tier chosen and why; a wrong OWL_TIER is told as the reason."""
    from openweightlab import models

    try:
        return {"name": models.tier(), "why": models.tier_reason()}
    except ValueError as error:
        return {"name": "pocket", "why": str(error)}


def pocket() -> dict[str, dict[str, Any]]:
    """Per shipped Pocket model: the checksum in its card, the file's, and the problem in words, or None."""
    from openweightlab.pocket import card

    try:
        sums = card.checksums()
    except OSError:  # not even the list of checksums is there
        sums = {"the Pocket models": ("", "missing")}
    return {
        name: {"expected": expected, "actual": actual, "problem": checksum_problem(expected, actual)}
        for name, (expected, actual) in sums.items()
    }


def checksum_problem(expected: str, actual: str) -> str | None:
    """What is wrong with a Pocket model's file and what to do, or None."""
    if actual == expected:
        return None
    wrong = "missing" if actual == "missing" else "not those that were shipped"
    return f"weights {wrong}: git restore openweightlab/pocket/weights"


def sandbox() -> dict[str, Any]:
    """What grading can shut a student's program into here."""
    from openweightlab.grading.sandbox import LEVELS, attempt, probe

    best = probe()
    tried = {level: attempt(level) for level in LEVELS}
    levels = {level: found if isinstance(found, str) else "works" for level, found in tried.items()}
    return {"name": best.name, "isolated": best.isolated, "levels": levels}


def remarks(found: dict[str, Any]) -> list[str]:
    """What to know, though the course runs: little memory or disk, an idle GPU, no sandbox."""
    said = []
    if found["ram_gib"] is not None and found["ram_gib"] < WANTED_RAM_GIB:
        said.append(f"{found['ram_gib']} GiB of memory is little: close other programs while you work.")
    if found["disk_free_gib"] < WANTED_DISK_GIB:
        said.append(f"{found['disk_free_gib']} GiB of free disk is little: free some before you go on.")
    if found.get("gpu") == [] and shutil.which("nvidia-smi"):
        said.append("PyTorch doesn't see this machine's GPU: for it, delete .venv and call make lab again.")
    if "sandbox" in found and not found["sandbox"]["isolated"]:
        said.append("No sandbox works here, so others' work can't be graded: install bubblewrap (Linux).")
    return said


def table(found: dict[str, Any]) -> list[str]:
    """The findings as lines for people."""
    rows = [
        ("Python", f"{found['python']['version']} at {found['python']['executable']}"),
        *((name, number or "MISSING") for name, number in found["packages"].items()),
        ("CPU", f"{found['cpu']['name']}, {found['cpu']['cores']} cores"),
        ("system", found["cpu"]["system"]),
        ("memory", f"{found['ram_gib']} GiB, {found['ram_free_gib']} GiB free"),
        ("disk", f"{found['disk_free_gib']} GiB free"),
        *(("GPU", describe_gpu(card)) for card in found.get("gpu", [])),
        *([("GPU", "none that PyTorch can use")] if found.get("gpu") == [] else []),
    ]
    if "tier" in found:
        rows.append(("tier", f"{found['tier']['name']} ({found['tier']['why']})"))
        rows += [(name, one["problem"] or "checksum right") for name, one in found["pocket"].items()]
        rows += [(f"sandbox {level}", why) for level, why in found["sandbox"]["levels"].items()]
    lines = [f"{name:<16} {text}" for name, text in rows]
    lines += [f"note: {text}" for text in found["remarks"]]
    lines += [f"PROBLEM: {text}" for text in found["problems"]]
    return [*lines, f"The pocket tier {'cannot work' if found['problems'] else 'works'} here."]


def describe_gpu(card: dict[str, Any]) -> str:
    """One GPU in a line, e.g. "Tesla T4, 14.7 GiB, no bf16"."""
    return f"{card['name']}, {card['memory_gib']} GiB, {'bf16' if card['bf16'] else 'no bf16'}"
