"""Write docs/variants/MODULE.md, known answers and their points: `python tests/variants_table.py MODULE`."""

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "variants"
WORDS = {
    "reference": "right",
    "rival": "right",
    "stub": "untouched",
    "partial": "wrong",
    "worthless": "wrong",
}
HEAD = """# {module}: answers that the judge was tried on

Every question was put to the judge with the reference answer, the untouched cell, right answers
written differently, and wrong ones that a learner might write, each over {seeds} seeds. Right
answers must get full marks on every seed, wrong ones never; their sources are in `tests/mutants/`.
Written by `python tests/variants_table.py {module}`; a test compares.

Full marks: {full}.

| question | answer | kind | points |
|---|---|---|---|
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
                made.append(f"| {id} | {name} | {WORDS[kind]} | {span} |\n")
    return made


def main(modules: list[str]) -> int:
    """Write the table of each module named, of all of them if none is."""
    from test_questions import MODULES, SEEDS, questions

    FOLDER.mkdir(exist_ok=True)
    for module in modules or MODULES:
        full = ", ".join(f"{id} {question.points}" for id, question in questions.load(module).items())
        head = HEAD.format(module=module, seeds=len(SEEDS), full=full)
        (FOLDER / f"{module}.md").write_text(head + "".join(rows(module, SEEDS)), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
