"""`owl notebooks`: builds lessons/, solutions/ and exercises/ from authoring/, and loses nobody's edits."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path


def course_root(start: Path) -> Path:
    """The nearest folder, from `start` upwards, that holds authoring/ and nbgrader_config.py."""
    for folder in [start, *start.parents]:
        if (folder / "authoring").is_dir() and (folder / "nbgrader_config.py").is_file():
            return folder
    raise SystemExit(
        f"No authoring/ and nbgrader_config.py in {start} or above it: call this in the course's folder."
    )


def main(args: argparse.Namespace) -> int:
    """Build, or with `--check` or `--diff` only compare; returns 1 if anything was refused or differs."""
    try:
        from openweightlab.authoring.build import build
        from openweightlab.authoring.files import write
        from openweightlab.authoring.source import Refused
    except ModuleNotFoundError as error:
        print(f"The builder needs {error.name}: install the kit with its `dev` extra.", file=sys.stderr)
        return 1
    root = course_root(Path.cwd())
    try:
        built = build(root)
        if args.check or args.diff:
            return check(root, built, args.diff)
        written = write(root, built)
    except Refused as refused:
        print(*refused.problems, "Nothing was written.", sep="\n", file=sys.stderr)
        return 1
    print(*[f"wrote {path}" for path in written], f"{len(built) - len(written)} unchanged", sep="\n")
    return 0


def check(root: Path, built: Mapping[str, str], show: bool) -> int:
    """Print every notebook that differs from its source, and how if `show`; returns 1 if any does."""
    from openweightlab.authoring.files import differences, show_difference, strays

    found = [*differences(root, built), *strays(root, built)]
    for difference in found:
        print(difference)
        if show and difference.path in built:
            print(show_difference(root, difference.path, built[difference.path]))
    print(f"{len(built)} notebooks, {len(found) or 'no'} difference{'s' * (len(found) != 1)}")
    return 1 if found else 0
