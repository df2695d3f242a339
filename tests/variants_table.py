"""Write docs/variants.md, all known answers and their points: `python tests/variants_table.py`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "variants.md"
WORDS = {
    "reference": "right",
    "rival": "right",
    "stub": "untouched",
    "partial": "wrong",
    "worthless": "wrong",
}
HEAD = """# Answers that the judge was tried on

Every question was put to the judge with the reference answer, the untouched cell, right answers
written differently and wrong ones that a learner might write, each over {seeds} seeds. Right
answers must get full marks on every seed, wrong ones never; sources in `tests/mutants/`. Written by
`python tests/variants_table.py`; a test compares.
"""


def rows(module: str, seeds: range) -> list[str]:
    """Table rows of one module, with the least and the most points over the seeds."""
    from test_questions import points, variants

    made = []
    for id, by_kind in variants(module).items():
        for kind, sources in by_kind.items():
            for name, source in sources.items():
                got = [points(module, id, source, seed) for seed in seeds]
                span = f"{min(got):g}" if min(got) == max(got) else f"{min(got):g} to {max(got):g}"
                made.append(f"| {id} | {name} | {WORDS[kind]} | {span} |")
    return made


def main() -> int:
    """Write the table for every module that has questions."""
    from test_questions import MODULES, SEEDS, questions

    parts = [HEAD.format(seeds=len(SEEDS))]
    for module in MODULES:
        full = ", ".join(f"{id} {question.points}" for id, question in questions.load(module).items())
        parts.append(
            f"\n## {module}\n\nFull marks: {full}.\n\n| question | answer | | points |\n|---|---|---|---|"
        )
        parts.append("\n".join(rows(module, SEEDS)))
    TABLE.write_text("\n".join(parts) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
