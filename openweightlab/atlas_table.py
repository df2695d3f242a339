"""`owl atlas`: the atlas as a table, one model with all that is known of it, or everything as JSON."""

import argparse
import json
import os
import sys
from dataclasses import asdict
from typing import Any

import yaml

from openweightlab.atlas import CONVENTIONS, Model, cards, checked, find, licences, models
from openweightlab.memory import GIB

FORMATS = (16, 8, 4)  # bits per weight
COLUMNS = (  # heading, width; a negative width aligns left
    ("model", -24),
    ("total", 6),
    ("active", 6),
    ("total", 7),
    ("all in", 6),
    ("-input", 6),
    ("-embed", 6),
    *((f"{bits} bit", 6) for bits in FORMATS),
    ("stored as", -11),
    ("licence", -14),
    ("src", 3),
)
GROUPS = f"{'':24} {'as published':>13} {'parameters counted, billions':>28} {'GiB of weights':>20}"
LEGEND = """\
? no source was read for this figure; beside a count: for the sizes it was counted from.  t text part only.
~ counted by formula; every other count comes from building the model on the meta device.  - nothing to count.
all in: active parameters of one token with both embedding tables.  -input: without the input table, which is
what is multiplied and read for a token (a tied table is also the head, and stays).  -embed: without either.
Published figures mix the three.  GiB: parameters x bits / 8 / 2^30; real 8- and 4-bit formats add scales.
`owl atlas NAME` shows one model with all its sources, `owl atlas --json` everything."""


def main(args: argparse.Namespace) -> int:
    """Print the table, the named models in full, or JSON; 2 for a name that the atlas doesn't have."""
    try:
        chosen = [find(name) for name in args.names] or list(models().values())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if args.json:
        text = json.dumps(everything(chosen), indent=1, ensure_ascii=False)
    else:
        text = "\n".join(map(detail, chosen) if args.names else table(chosen))
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `owl atlas | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def everything(chosen: list[Model]) -> dict[str, Any]:
    """The atlas as plain data: each model with its memory by format and what in it is unverified."""
    return {
        "checked": checked(),
        "legend": LEGEND,
        "cards": {key: asdict(card) for key, card in cards().items()},
        "licences": {key: asdict(licence) for key, licence in licences().items()},
        "models": {model.id: plain(model) for model in chosen},
    }


def plain(model: Model) -> dict[str, Any]:
    """One model as plain data."""
    return asdict(model) | {
        "licence": model.licence.id,
        "experts": dict(zip(("chosen", "of"), model.experts, strict=True)) if model.experts else None,
        "weights_gib": {str(bits): gib(model, bits) for bits in FORMATS} if model.counted else None,
        "unverified": list(model.unverified),
    }


def gib(model: Model, bits: float) -> float | None:
    """GiB of a counted model's weights at so many bits each, scales left out."""
    return round(model.counted.total * bits / 8 / GIB, 3) if model.counted else None


def table(chosen: list[Model]) -> list[str]:
    """The table, at most 120 columns wide, its legend and the sources of the published sizes, by line."""
    addresses: dict[str, int] = {}
    rows = [cells(model, addresses) for model in chosen]
    counted = sum(model.counted is not None for model in chosen)
    return [
        GROUPS,
        line([heading for heading, _ in COLUMNS]),
        *(line(row) for row in rows),
        "",
        f"{len(chosen)} models, {counted} of them counted to the last parameter; checked {checked()}.",
        LEGEND,
        "",
        "Sources of the published sizes:",
        *(f"{number:3} {address}" for address, number in addresses.items()),
    ]


def cells(model: Model, addresses: dict[str, int]) -> list[str]:
    """A model's cells; the source of its published size gets a number in `addresses`."""
    doubt = {key: "?" for key in model.unverified}
    size, stored, licence = (doubt.get(key, "") for key in ("published", "precision", "licence"))
    active = model.published.active
    source = model.evidence["published"].source[:1]
    return [
        model.name,
        model.published.total + size,
        active + size if active else "",
        *counts(model, doubt.get("config", "")),
        *(gibs(model, bits) for bits in FORMATS),
        model.native_precision + stored,
        model.licence.short + licence,
        str(addresses.setdefault(source[0], len(addresses) + 1)) if source else "",
    ]


def counts(model: Model, doubt: str) -> list[str]:
    """The counted cells: total, and active in the three conventions."""
    if model.counted is None:
        return ["-"] * 4
    mark = ("t" if model.part == "text" else "") + ("~" if model.counted.by == "formula" else "") + doubt
    active = [getattr(model.counted, convention) for convention in CONVENTIONS]
    return [billions(model.counted.total) + mark, *(billions(n) for n in active)]


def billions(n: int) -> str:
    """
    >>> billions(671026404352), billions(37552282624), billions(124439808)
    ('671.0', '37.55', '0.124')
    """
    return f"{n / 1e9:.{1 if n >= 1e11 else 2 if n >= 1e9 else 3}f}"


def gibs(model: Model, bits: float) -> str:
    """
    >>> gibs(find("kimi-k2"), 16), gibs(find("gpt-2"), 16)
    ('1,912', '0.2')
    """
    value = gib(model, bits)
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def line(values: list[str]) -> str:
    """Cells side by side in their columns' widths."""
    padded = (
        f"{value:<{-width}}" if width < 0 else f"{value:>{width}}"
        for value, (_, width) in zip(values, COLUMNS, strict=True)
    )
    return " ".join(padded).rstrip()


def detail(model: Model) -> str:
    """All that the atlas knows of one model, as YAML; what rests on no source is listed first."""
    row = plain(model)
    row["licence"] = asdict(model.licence)
    row["config"] = {key: value for key, value in (model.config or {}).items() if key != "layer_types"}
    row = {"unverified": row.pop("unverified"), **row}
    text = json.loads(json.dumps(row))  # tuples to lists
    return yaml.safe_dump({model.name: text}, sort_keys=False, allow_unicode=True, width=116)
