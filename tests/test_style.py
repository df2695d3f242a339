"""The kit's code is clean by its own rules: ruff's lint and format, and mypy's types."""

import subprocess
import sys

import pytest

CHECKS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["mypy", "--no-error-summary"],
}


@pytest.mark.parametrize("name", CHECKS)
def test_code_is_clean(name, course):
    command = [sys.executable, "-m", *CHECKS[name]]
    done = subprocess.run(command, cwd=course.root, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(CHECKS[name])} says:\n{done.stdout}{done.stderr}"
