"""`owl pocket verify` and `owl pocket train`."""

import argparse
import dataclasses
import json
import shutil
import sys
from pathlib import Path

from openweightlab.models import WEIGHTS
from openweightlab.pocket.train import RECIPES


def main(args: argparse.Namespace) -> int:
    """Run the action asked for; returns the exit status."""
    return verify(args) if args.action == "verify" else train(args)


def verify(args: argparse.Namespace) -> int:
    """Measure the shipped models and print the table; 1 if a property is missing."""
    from openweightlab.pocket import card
    from openweightlab.pocket.verify import table
    from openweightlab.pocket.verify import verify as measure

    bad = [n for n, (expected, actual) in card.checksums().items() if expected != actual]
    findings = measure()
    misses = [f for f in findings if not f.ok]
    if args.json:
        print(json.dumps({"checksum_differs": bad, "findings": [f.row() for f in findings]}, indent=1))
    else:
        print(table(findings))
        print(f"{len(findings)} figures, {len(misses)} outside their band")
        for name in bad:
            print(f"the weights of {name} are not the ones that were released (checksum differs)")
    if args.cards:
        card.cards_with(findings)
    return 1 if misses or bad else 0


def train(args: argparse.Namespace) -> int:
    """Retrain one model from its recipe, going on from a checkpoint; `--ship` replaces the kit's weights."""
    from openweightlab.pocket import card
    from openweightlab.pocket.outliers import Outliers
    from openweightlab.pocket.train import train as run

    if args.name not in RECIPES:
        print(f"no recipe {args.name!r}; there are {', '.join(RECIPES)}", file=sys.stderr)
        return 2
    changes = {"towns": args.towns, "world_seed": args.world_seed, "steps": args.steps}
    recipe = dataclasses.replace(RECIPES[args.name], **{k: v for k, v in changes.items() if v is not None})
    folder = Path(args.into or f".owl/pocket/{recipe.name}")
    try:
        for _step, _parts, model, tokenizer in run(recipe, folder):
            last = (model, tokenizer)
    except KeyboardInterrupt:
        print(f"\nstopped; the same command goes on from {folder}/checkpoint.safetensors")
        return 130
    home = card.release(recipe, *last, folder=folder, outliers=Outliers())
    print(f"{recipe.name} is in {home}")
    if args.ship:
        shutil.copytree(home, WEIGHTS / recipe.name, dirs_exist_ok=True)
        card.record_checksums()
        print(f"and shipped to {WEIGHTS / recipe.name}: run `owl pocket verify --cards` next")
    return 0
