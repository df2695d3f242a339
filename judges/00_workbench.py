"""Trusted side of module 00: hidden cases drawn from a seed, right results from library oracles.

`cases(seed)` draws the hidden cases, `public()` the fixed ones that ship with the package; both come from
the same recipes. Oracles: transformers (`num_parameters`, the model's own forward pass), exact fractions,
torch in float64.
"""

from fractions import Fraction
from random import Random
from typing import Any

import torch

from openweightlab.questions import Case, Plain
from openweightlab.questions.judging import close, same_values
from openweightlab.questions.tiny import build

PUBLIC_SEED = 2026
Description = dict[str, Any]


def cases(seed: int) -> dict[str, list[Case]]:
    """Hidden cases by question id; the same seed draws the same."""
    recipes = {"Q0.1": count_cases, "Q0.2": gib_cases, "Q0.3": next_token_cases, "Q0.4": sort_cases}
    return {id: recipe(Random(f"{seed}/{id}")) for id, recipe in recipes.items()}


def public() -> dict[str, list[Case]]:
    """The cases that learners see: some of the same kinds, from a seed of their own."""
    shown = {
        "Q0.1": (0, 1, 2, 3, 4, 5, 6),
        "Q0.2": (0, 1, 2, 3, 4),
        "Q0.3": (0, 3, 4, 6, 7),
        "Q0.4": (0, 1, 2, 3, 4),
    }
    drawn = cases(PUBLIC_SEED)
    return {id: [drawn[id][index] for index in indices] for id, indices in shown.items()}


# Models


def qwen3(random: Random, **changes: Any) -> Description:
    """A tiny Qwen3: 1-2 layers, 2 heads, 40-90 tokens."""
    config = {
        "vocab_size": random.randrange(40, 90),
        "hidden_size": random.choice((16, 24, 32)),
        "intermediate_size": random.randrange(20, 60, 4),
        "num_hidden_layers": random.choice((1, 2)),
        "num_attention_heads": 2,
        "num_key_value_heads": random.choice((1, 2)),
        "head_dim": 8,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
    }
    return {"family": "qwen3", "config": config | changes, "seed": random.randrange(10**6)}


def qwen3_moe(random: Random) -> Description:
    """A tiny Qwen3-MoE: 4-8 experts, top-2."""
    experts = random.choice((4, 6, 8))
    dense = qwen3(random, num_experts=experts, num_experts_per_tok=2, moe_intermediate_size=12)
    return dense | {"family": "qwen3_moe"}


def gpt2(random: Random, dropout: float) -> Description:
    """A tiny GPT-2, which has dropout everywhere and ties its head to the embedding."""
    config = {
        "vocab_size": random.randrange(40, 90),
        "n_positions": 64,
        "n_embd": 16,
        "n_layer": random.choice((1, 2)),
        "n_head": 2,
        "attn_pdrop": dropout,
        "embd_pdrop": dropout,
        "resid_pdrop": dropout,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    return {"family": "gpt2", "config": config, "seed": random.randrange(10**6)}


def layers(random: Random, *stack: list[Any], **more: Any) -> Description:
    """A plain stack of torch layers."""
    return {"layers": [list(layer) for layer in stack], "seed": random.randrange(10**6)} | more


# Q0.1


def count_cases(random: Random) -> list[Case]:
    """Ten kinds of model; counting is right when it is right on each."""
    a, b, c = (random.randrange(5, 40) for _ in range(3))
    mlp = (["Linear", a, b], ["ReLU"], ["Linear", b, c])
    models = {
        "a Qwen3 model": qwen3(random),
        "a plain stack of two linear layers": layers(random, *mlp),
        "output head tied to the embedding": qwen3(random, tie_word_embeddings=True),
        "experts kept as 3-D parameters (Qwen3-MoE)": qwen3_moe(random),
        "a frozen embedding": qwen3(random) | {"frozen": ["model.embed_tokens"]},
        "one layer used twice": layers(random, ["Linear", a, a], ["Tanh"], ["same", 0], ["Linear", a, b]),
        "buffers of a batch norm": layers(random, ["Linear", a, b], ["BatchNorm1d", b]),
        "weights in bf16": qwen3(random) | {"dtype": "bfloat16"},
        "two layers of one shape that are not tied": layers(random, ["Linear", a, a], ["Linear", a, a]),
        "tied by hand in a plain stack": layers(random, ["Embedding", a, b], ["Linear", b, a], tie=[[1, 0]]),
    }
    core = ("a Qwen3 model", "a plain stack of two linear layers")
    return [Case(label, {"model": model}, counted(model), label in core) for label, model in models.items()]


def counted(description: Description) -> Plain:
    """The count, by transformers where it can, else from the layers' sizes; and common wrong counts."""
    model: Any = build(description)
    value = model.num_parameters() if hasattr(model, "num_parameters") else by_hand(description)
    unique = list(model.parameters())
    everywhere = list(dict(model.named_parameters(remove_duplicate=False)).values())
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    mistakes = {
        "tied twice": numel(everywhere),
        "trainable only": numel(p for p in unique if p.requires_grad),
        "with buffers": numel([*unique, *model.buffers()]),
        "tensors": len(unique),
        "bytes": sum(p.nbytes for p in unique),
        "no embeddings": numel(p for p in unique if id(p) not in tables),
        "no experts": numel(p for p in unique if p.ndim < 3),
        "matrices only": numel(p for p in unique if p.ndim > 1),
    }
    return {"value": value, "mistakes": {name: count for name, count in mistakes.items() if count != value}}


def numel(tensors: Any) -> int:
    """How many numbers these tensors have together."""
    return sum(tensor.numel() for tensor in tensors)


def by_hand(description: Description) -> int:
    """Parameters of a plain stack from its layers' sizes alone."""
    sizes = {
        "Linear": lambda inputs, outputs: inputs * outputs + outputs,
        "Embedding": lambda rows, columns: rows * columns,
        "BatchNorm1d": lambda width: 2 * width,
    }
    total = sum(sizes[kind](*arguments) for kind, *arguments in description["layers"] if kind in sizes)
    tied = [description["layers"][to] for to, _ in description.get("tie", ())]
    return total - sum(arguments[0] * arguments[1] for _, *arguments in tied)


# Q0.2


def gib_cases(random: Random) -> list[Case]:
    """Whole and broken numbers of bits, none and very many weights."""
    billions = random.randrange(10**9, 10**11)
    draws = {
        "billions of weights in 16 bits": (billions + 7, 16),
        "billions of weights in 8 bits": (random.randrange(10**9, 10**11), 8),
        "4 bits and a share of the scales: 4.25": (random.randrange(10**9, 10**11), 4.25),
        "no weights at all": (0, 16),
        "a small model, well under one GiB": (random.randrange(10**5, 10**7), 32),
        "more weights than any model has": (random.randrange(10**15, 10**16), 4),
        "fewer than two bits a weight": (random.randrange(10**9, 10**11), 1.5 + random.random() / 4),
        "bits with a long fraction": (random.randrange(10**8, 10**10), 3 + random.random()),
        "exactly one GiB": (2**30, 8),
    }
    core = ("billions of weights in 16 bits", "billions of weights in 8 bits")
    return [
        Case(label, {"n_parameters": n, "bits": bits}, gib(n, bits), label in core)
        for label, (n, bits) in draws.items()
    ]


def gib(n_parameters: int, bits: float) -> Plain:
    """The size in exact fractions, rounded once at the end; and common wrong ones."""
    exact = n_parameters * Fraction(bits) / 8
    value = float(exact / 2**30)
    mistakes = {
        "gb": float(exact / 10**9),
        "mib": float(exact / 2**20),
        "bytes": float(exact),
        "no division by 8": float(exact),
        "gibibits": float(exact * 8 / 2**30),
        "whole bits": n_parameters * int(bits) / 8 / 2**30,
        "rounded": round(value, 2),
        "floor": float(exact // 2**30),
    }
    wrong = {name: size for name, size in mistakes.items() if not close(value, size, relative=1e-6)}
    return {"value": value, "mistakes": wrong}


# Q0.3


def next_token_cases(random: Random) -> list[Case]:
    """Values in two families, then one aspect a case: dropout, mode, gradient, bf16."""
    drop = 0.5
    bf16 = {"dtype": "bfloat16"}
    return [
        next_token("a Qwen3 model in eval mode", random, qwen3(random), core=True),
        next_token("a Qwen3-MoE model", random, qwen3_moe(random), core=True),
        next_token("an input of a single token", random, qwen3(random), length=1),
        next_token("dropout is off while the model runs", random, gpt2(random, drop), training=True),
        observed(
            "train mode is restored afterwards", random, gpt2(random, drop), True, {"dropout_after": True}
        ),
        observed("eval mode stays eval mode", random, gpt2(random, drop), False, {"dropout_after": False}),
        observed("no gradient graph is built", random, qwen3(random), False, {"graph": False}),
        next_token("bf16 weights, probabilities in float32", random, qwen3(random) | bf16, relative=0.08),
        observed(
            "the weights stay bf16", random, qwen3(random) | bf16, False, {"weights_after": "torch.bfloat16"}
        ),
        next_token("a longer input", random, qwen3(random, tie_word_embeddings=True), length=40),
    ]


def tokens(random: Random, description: Description, length: int) -> torch.Tensor:
    """Random token ids, [1, length]."""
    return torch.tensor([[random.randrange(description["config"]["vocab_size"]) for _ in range(length)]])


def next_token(
    label: str,
    random: Random,
    description: Description,
    *,
    core: bool = False,
    training: bool = False,
    length: int = 9,
    relative: float = 1e-4,
) -> Case:
    """A case on the values; fp32 forward passes differ by about 1e-6, bf16 ones by a few percent."""
    input_ids = tokens(random, description, length)
    expected = distribution(description, input_ids)
    if description.get("dtype") == "bfloat16":
        expected["float32"] = True
    inputs = {"model": description, "input_ids": input_ids, "training": training}
    return Case(label, inputs, expected | {"relative": relative}, core)


def observed(label: str, random: Random, description: Description, training: bool, expected: Plain) -> Case:
    """A case on what the call did to the model, whatever the values."""
    inputs = {"model": description, "input_ids": tokens(random, description, 9), "training": training}
    return Case(label, inputs, expected)


def distribution(description: Description, input_ids: torch.Tensor) -> Plain:
    """The softmax in float64 of the model's own logits; and common wrong results."""
    model: Any = build(description)
    with torch.no_grad():
        logits = model(input_ids).logits[0].double()
    everywhere = logits.softmax(-1)
    right = everywhere[-1]
    mistakes = {
        "logits": logits[-1],
        "log": right.log(),
        "first": everywhere[0],
        "before": everywhere[-2:][0],
        "positions": logits.softmax(0)[-1],
        "mean": everywhere.mean(0),
    }
    wrong = {
        name: value.float()
        for name, value in mistakes.items()
        if not same_values(right, value, relative=0.2, absolute=1e-6)
    }
    return {"probabilities": right.float(), "mistakes": wrong}


# Q0.4


SUBJECTS = (
    "downloads",
    "training cost",
    "active parameters",
    "licence",
    "refusals",
    "context length",
    "benchmark rank",
)
PRESS = {"press_source": "https://news.example/story", "press_date": "2025-03-01"}


def claim(random: Random, **fields: Any) -> dict[str, Any]:
    """One claim with a fresh id, some press source, and these fields."""
    name = f"claim-{random.randrange(10**6):06d}"
    return {"id": name, "text": f"A statement about {random.choice(SUBJECTS)} ({name})."} | PRESS | fields


def sort_cases(random: Random) -> list[Case]:
    """Each rule alone, then mixed."""
    source = "https://example.org/paper"
    measured = {"measurable_here": True, "primary_source": None}
    sourced = {"measurable_here": False, "primary_source": source}
    opinion = {"measurable_here": False, "primary_source": None}
    both = {"measurable_here": True, "primary_source": source}
    empty = {"measurable_here": False, "primary_source": ""}

    def some(*kinds: dict[str, Any], times: int = 3) -> list[dict[str, Any]]:
        drawn = [claim(random, **kind) for kind in kinds for _ in range(times)]
        random.shuffle(drawn)
        return drawn

    lists = {
        "one of each": some(measured, sourced, opinion, times=1),
        "several of each, in the order of the input": some(measured, sourced, opinion),
        "measurable and sourced at once": some(both, sourced, opinion, times=2),
        "fields that are missing": some({}, {"measurable_here": True}, {"primary_source": source}, times=2),
        "a source that is an empty string": some(empty, sourced, times=2),
        "no claims at all": [],
        "only opinions": some(opinion),
        "a longer list of every kind": some(measured, sourced, opinion, both, empty, {}),
    }
    core = ("one of each", "several of each, in the order of the input")
    drawn = [
        Case(label, {"claims": claims}, sorted_claims(claims), label in core)
        for label, claims in lists.items()
    ]
    untouched = Case(
        "the input is left as it was", {"claims": some(measured, opinion, {})}, {"unchanged": True}
    )
    return [*drawn, untouched]


def sorted_claims(claims: list[dict[str, Any]]) -> Plain:
    """The groups by the rule, and what common misreadings of the rule give."""
    right = grouped(claims, kind_of)
    by_id = {key: sorted(ids) for key, ids in right.items()}
    mistakes = {
        "sourced first": grouped(claims, lambda c: "sourced" if c.get("primary_source") else kind_of(c)),
        "empty source": grouped(claims, lambda c: "sourced" if c.get("primary_source") == "" else kind_of(c)),
        "press": grouped(
            claims, lambda c: "sourced" if kind_of(c) == "opinion" and "press_source" in c else kind_of(c)
        ),
        "texts": grouped(claims, kind_of, "text"),
        "sorted": by_id,
    }
    return {"groups": right, "mistakes": {name: value for name, value in mistakes.items() if value != right}}


def kind_of(claim: dict[str, Any]) -> str:
    """The rule of the question, as a table of two truth values."""
    table = {(True, True): "measurable", (True, False): "measurable", (False, True): "sourced"}
    return table.get((bool(claim.get("measurable_here")), bool(claim.get("primary_source"))), "opinion")


def grouped(claims: list[dict[str, Any]], kind: Any, field: str = "id") -> dict[str, list[str]]:
    """One field of each claim, by kind, in the order of the input."""
    keys = ("measurable", "sourced", "opinion")
    return {key: [claim[field] for claim in claims if kind(claim) == key] for key in keys}
