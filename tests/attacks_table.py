"""Write docs/attacks.md, what was tried against grading: `python tests/attacks_table.py`; a test compares."""

import sys
from pathlib import Path

from attacks import LEAKS, VARIANTS
from own_attacks import OWN

FILE = Path(__file__).resolve().parents[1] / "docs" / "attacks.md"
KNOWN = """# What was tried against grading

Every line is a submission that `tests/test_attacks.py` grades, with stock nbgrader 0.9.6 (default settings, a
small assignment of 5 points) and with this kit in the same run. The sources are in `tests/attacks.py` and
`tests/own_attacks.py`. Written by `python tests/attacks_table.py`; the tests hold every figure.

## Known tricks

None of these submissions holds a right answer. In the kit the trick stands in all four answers of module 00.

| | trick | stock nbgrader, of 5 | this kit, of 10 |
|---|---|---|---|
"""
LEAKING = """
More points than 5 are marks that the submission wrote into the gradebook itself.

## Leaks, and what stops a class

| | what | stock nbgrader | this kit |
|---|---|---|---|
"""
HERE = {
    "L01": "is not on the page",
    "L02": "is not on the page",
    "L03": "is not followed",
    "L04": "is cut",
    "S01": "are graded",
    "S02": "are graded",
}
OURS = """
## Against the kit's own design

Question Q0.2 is answered wrongly in each, and must earn nothing. Where the attack leaves a right answer to
Q0.4 standing, that one keeps its 2 points. Behind each that reaches out for others comes an innocent student,
who must not notice.

| attack | what it would gain | Q0.2 | Q0.4 |
|---|---|---|---|
"""


def text() -> str:
    """The whole page."""
    known = "".join(f"| {v.id} | {v.name} | {v.stock} | 0 |\n" for v in VARIANTS)
    leaks = "".join(f"| {id} | {what} | {stock} | {HERE[id]} |\n" for id, (what, stock) in LEAKS.items())
    ours = "".join(
        f"| {a.name} | {a.would} | {a.keeps.get('Q0.2', 0):g} | {a.keeps.get('Q0.4', 0):g} |\n" for a in OWN
    )
    return KNOWN + known + LEAKING + leaks + OURS + ours


def main() -> int:
    """Write the page."""
    FILE.write_text(text(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
