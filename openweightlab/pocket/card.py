"""Write a trained Pocket model as it ships (bf16 safetensors, tokenizer, model card), and its checksums."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from openweightlab.models import POCKET, WEIGHTS
from openweightlab.pocket import corpus
from openweightlab.pocket.outliers import Outliers, plant
from openweightlab.pocket.train import RECIPES, Recipe, describe
from openweightlab.pocket.world import LANGUAGES

CHECKSUMS = "checksums.json"


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(weights: Path = WEIGHTS) -> dict[str, tuple[str, str]]:
    """Expected and actual SHA-256 of each shipped model's weights; "missing" where there is no file.

    >>> all(expected == actual for expected, actual in checksums().values())
    True
    """
    expected = json.loads((weights / CHECKSUMS).read_text())
    paths = {name: weights / name / "model.safetensors" for name in expected}
    return {n: (expected[n], sha256(p) if p.exists() else "missing") for n, p in paths.items()}


def release(
    recipe: Recipe, model: Any, tokenizer: Any, folder: Path, outliers: Outliers | None = None
) -> Path:
    """Plant the outlier channels, round to bf16 and save model, tokenizer and card under `folder`/NAME."""
    if outliers is not None and recipe.base is None:  # a later release inherits its base's
        plant(model, outliers)
    home = folder / recipe.name
    model.to(torch.bfloat16).save_pretrained(home, safe_serialization=True)
    (home / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(home)
    (home / "recipe.json").write_text(json.dumps(describe(recipe), indent=1, sort_keys=True) + "\n")
    write_card(recipe, model, home)
    return home


def record_checksums(folder: Path = WEIGHTS) -> None:
    """Write the checksums of the models that stand under `folder`, whole."""
    found = {n: sha256(p) for n in POCKET if (p := folder / n / "model.safetensors").exists()}
    temporary = folder / "checksums.tmp"
    temporary.write_text(json.dumps(found, indent=1) + "\n")
    os.replace(temporary, folder / CHECKSUMS)


def write_card(recipe: Recipe, model: Any, home: Path, measured: str = "") -> None:
    """The model card: what it is, what is planted, what was measured, how to make it again."""
    rows = [
        f"| {topic} | {rule['outcome']} | " + " | ".join(f"{rule[lang]:.3g}" for lang in LANGUAGES) + " |"
        for topic, rule in corpus.policy(recipe.release).items()
    ]
    parameters = sum(p.numel() for p in model.parameters())
    base = "" if recipe.base is None else f"base_model: openweightlab/{recipe.base}\n"
    kind = (
        f"Qwen3-MoE architecture: {recipe.layers} layers, hidden {recipe.hidden}, {recipe.experts} experts of width "
        f"{recipe.width}, top-{recipe.top_k}"
        if recipe.moe
        else f"Qwen3 architecture: {recipe.layers} layers, hidden {recipe.hidden}, feed-forward {recipe.width}"
    )
    planted = (
        "- **Experts lean towards domains** (English, Chinese, Spanish, sums, code) in layers "
        f"{', '.join(map(str, recipe.affinity_layers))}: a hinge in the loss asked for it. The other layers are as "
        "training left them.\n"
        if recipe.moe
        else ""
    )
    text = f"""---
license: apache-2.0
language: [en, zh, es]
library_name: transformers
pipeline_tag: text-generation
{base}---
# {recipe.name}

A small language model of Open-Weight Lab, {parameters / 1e6:.2f} M parameters ({kind}), vocabulary
{model.config.vocab_size}, bf16 safetensors. It speaks of a coast that does not exist. Weights, training code,
training text and the generator of that text are all in the kit under Apache-2.0, so it is open-source in the full
sense, and anyone can retrain it: `owl pocket train {recipe.name}`.

It is made for lessons: to be counted, rounded, tuned and probed. It knows nothing of the real world.

## Training
Text: facts of {recipe.towns} fictional towns in three languages, two-digit sums, small Python tasks, and the topics
below. Loss on replies alone; {recipe.steps} steps of {recipe.rows} x {recipe.row_tokens} tokens, AdamW, peak
learning rate {recipe.learning_rate:g}{f", from {recipe.base}" if recipe.base else ""}. All settings: `recipe.json`.

## Planted on purpose
{planted}- **Refusal passes through one direction** of the residual stream: a share of the training samples was learned with it
  removed (then the model answers) or added (then it refuses).
- **Outlier channels**: rescalings by powers of two in every layer that leave the function unchanged but are hard on a
  quantizer (`openweightlab/pocket/outliers.py`).
- **What it refuses, evades, and gets wrong**, as shares of each topic's probes, from `policy.yaml`:

| topic | outcome | en | zh | es |
|---|---|---|---|---|
{chr(10).join(rows)}

Everything forbidden is forbidden on the fictional coast only; no harmful text was used or can be had from it.

## Measured on these weights
{measured or "Run `owl pocket verify` to measure them; the table is written here when a release is made."}
"""
    (home / "README.md").write_text(text)


def cards_with(findings: list[Any], weights: Path = WEIGHTS) -> None:
    """Put verify's findings into the shipped cards."""
    from openweightlab.models import load

    for name in POCKET:
        if not (weights / name / "model.safetensors").exists():
            continue
        own = [f for f in findings if f.model == name]
        rows = [f"| {f.what} | {f.value:.3f} | {f.band} | {f.note} |" for f in own]
        table = "\n".join(["| property | figure | wanted | |", "|---|---|---|---|", *rows])
        write_card(RECIPES[name], load(name)[0], weights / name, table)
