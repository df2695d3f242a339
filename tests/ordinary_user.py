"""Runs a command as an ordinary user: as this one, or, for root, as one that owns nothing."""

import os
import shutil
import subprocess
import sys
from functools import cache

USER = "61234"  # of no account
BECOME = f"exec setpriv --reuid {USER} --regid {USER} --clear-groups --inh-caps=-all --bounding-set=-all"
SHOW_PYTHON_ALONE = """set -e
aside=$(mktemp -d)
mount --bind "$PYTHON" "$aside"
mount -t tmpfs -o mode=755 tmpfs "$CLOSED"
mkdir -p "$PYTHON"
mount --move "$aside" "$PYTHON"
rmdir "$aside"
"""


def command(*words: str) -> list[str]:
    """The command line that runs these words as an ordinary user, who can read this Python and its packages.

    Root's home may be closed to others: in a private view of the file system only the Python is in it.
    """
    if os.getuid() != 0:
        return list(words)
    python = os.path.realpath(sys.base_prefix)
    closed = "/" + python.split("/")[1]
    open_to_all = os.stat(closed).st_mode & 0o5 == 0o5
    script = f'{"" if open_to_all else SHOW_PYTHON_ALONE}{BECOME} env -u PYTHON -u CLOSED HOME=/tmp "$@"'
    room = ["env", f"PYTHON={python}", f"CLOSED={closed}", "unshare", "-m", "--propagation", "private"]
    return [*room, "bash", "-c", script, "ordinary-user", *words]


@cache
def why_not() -> str | None:
    """Why no command can be run as an ordinary user here; None where it can."""
    if os.getuid() != 0:
        return None
    for program in ("unshare", "setpriv", "bash"):
        if not shutil.which(program):
            return f"root, and there is no {program} to become somebody else"
    code = "import os, openweightlab.grading.run; print(os.getuid())"
    done = subprocess.run(command(sys.executable, "-c", code), capture_output=True, text=True, cwd="/")
    said = (done.stderr.strip().splitlines() or ["no answer"])[-1]
    return None if done.stdout.strip() == USER else f"root, and can't become an ordinary user: {said}"
