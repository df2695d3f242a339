"""Trusted side of module 01: hidden cases drawn from a seed, right results from library oracles.

`cases(seed)` draws the hidden cases, `public()` the fixed ones that ship with the package; both come from
the same recipes. Oracles: transformers (models on the meta device, the Qwen3-MoE router and experts, the
load-balancing loss, a forward pass), exact fractions, numpy in float64, scipy's entropy.
"""

from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import cache
from json import dumps, loads
from random import Random
from typing import Any

import numpy as np
import torch
from scipy.stats import entropy
from torch.nn import functional
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.models.qwen3_moe import modeling_qwen3_moe as qwen

from openweightlab.questions import Case, Plain
from openweightlab.questions.judging import close, same_values
from openweightlab.questions.tiny import build, byte_tokenizer, normal

PUBLIC_SEED = 2026
Config = dict[str, Any]


def cases(seed: int) -> dict[str, list[Case]]:
    """Hidden cases by question id; the same seed draws the same."""
    recipes: dict[str, Callable[[Random], list[Case]]] = {
        "Q1.1": count_cases,
        "Q1.2": route_cases,
        "Q1.3": forward_cases,
        "Q1.4": balance_cases,
        "Q1.5": bias_cases,
        "Q1.6": touched_cases,
        "Q1.7": decode_cases,
        "Q1.8": table_cases,
    }
    return {id: recipe(Random(f"{seed}/{id}")) for id, recipe in recipes.items()}


def public() -> dict[str, list[Case]]:
    """The cases that learners see: some of the same kinds, from a seed of their own."""
    shown = {
        "Q1.1": (0, 1, 2, 3, 4, 5, 6, 7, 9),
        "Q1.2": (0, 1, 2, 3, 5, 10),
        "Q1.3": (0, 1, 2, 4, 7),
        "Q1.4": (0, 1, 2, 3, 7),
        "Q1.5": (0, 1, 2, 4, 6, 7, 8),
        "Q1.6": (0, 1, 2, 3, 5),
        "Q1.7": (0, 1, 2, 3, 5, 6, 7, 9, 10),
        "Q1.8": (0, 1, 2, 4, 5, 7, 8, 9),
    }
    drawn = cases(PUBLIC_SEED)
    return {id: [drawn[id][index] for index in indices] for id, indices in shown.items()}


def other_than(right: Plain, mistakes: dict[str, Any], *, relative: float = 1e-3) -> dict[str, Any]:
    """The mistakes that a right result can't be taken for."""
    if isinstance(right, torch.Tensor):
        near = {name: same_values(right, v, relative=relative, absolute=1e-4) for name, v in mistakes.items()}
        return {name: value.float() for name, value in mistakes.items() if not near[name]}
    return {
        name: float(value)
        for name, value in mistakes.items()
        if not close(right, value, relative=relative, absolute=1e-9)
    }


# Q1.1 (and the parts that Q1.7 reads)


def qwen3_moe(random: Random, **changes: Any) -> Config:
    """A small Qwen3-MoE configuration in which every size is another one, untied, experts in every layer."""
    sizes = {
        "vocab_size": random.randrange(200, 900),
        "hidden_size": random.randrange(64, 160, 8),
        "intermediate_size": random.randrange(200, 400, 4),
        "moe_intermediate_size": random.randrange(20, 60, 2),
        "num_hidden_layers": random.choice((4, 5, 6)),
        "num_attention_heads": 4,
        "num_key_value_heads": random.choice((1, 2)),
        "head_dim": random.choice((40, 48, 56)),
        "num_experts": random.choice((8, 12, 16)),
        "num_experts_per_tok": random.choice((2, 3)),
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    }
    return sizes | changes


def count_cases(random: Random) -> list[Case]:
    """Each key alone, then each peculiarity of a configuration."""
    both, everything = ("total", "active_all_in"), KEYS
    draws: list[tuple[str, Config, tuple[str, ...]]] = [
        ("total of a model with experts in every layer", qwen3_moe(random), ("total",)),
        ("active, all in", qwen3_moe(random), ("active_all_in",)),
        ("active without the input table", qwen3_moe(random), ("active_without_input_table",)),
        ("active without embeddings", qwen3_moe(random), ("active_without_embeddings",)),
        ("a tied table is counted once", qwen3_moe(random, tie_word_embeddings=True), both),
        (
            "a tied table is the head too",
            qwen3_moe(random, tie_word_embeddings=True),
            ("active_without_input_table", "active_without_embeddings"),
        ),
        (
            "experts in every second layer",
            qwen3_moe(random, num_hidden_layers=random.choice((5, 7)), decoder_sparse_step=2),
            both,
        ),
        ("dense layers named in mlp_only_layers", qwen3_moe(random, mlp_only_layers=[0, 3]), both),
        (
            "both: every third layer, one of them dense",
            qwen3_moe(random, num_hidden_layers=8, decoder_sparse_step=3, mlp_only_layers=[5, 6]),
            both,
        ),
        ("heads wider than hidden_size / heads", qwen3_moe(random, head_dim=64, hidden_size=128), both),
        ("attention with biases", qwen3_moe(random, attention_bias=True), both),
        ("a larger model, all four counts", large(random), everything),
    ]
    return [
        Case(label, {"config": config}, counts_expected(config, keys), index < 2)
        for index, (label, config, keys) in enumerate(draws)
    ]


def large(random: Random) -> Config:
    """About 50 to 120 million parameters."""
    sizes = {"hidden_size": 512, "moe_intermediate_size": 256, "num_experts": 32}
    return qwen3_moe(random, vocab_size=random.randrange(20_000, 30_000), **sizes)


KEYS = ("total", "active_all_in", "active_without_input_table", "active_without_embeddings")


def counts_expected(config: Config, keys: Iterable[str]) -> Plain:
    """The counts under these keys; and all four as common mistakes give them."""
    right = counts(config)
    wrong = {name: result for name, result in count_mistakes(config).items() if result != right}
    return {"counts": {key: right[key] for key in keys}, "mistakes": wrong}


def counts(config: Config) -> dict[str, int]:
    """The four counts of a model on the meta device."""
    return four_counts(modules_of(config))


def four_counts(parts: dict[str, int], **changes: int) -> dict[str, int]:
    """The four counts from the parameters of each kind of module; `changes` puts in what is wrong."""
    parts = parts | changes
    inactive = parts["experts"] * (parts["E"] - parts["K"]) // parts["E"]
    active = parts["total"] - inactive
    lookup = 0 if parts["tied"] else parts["table"]
    tables = (parts["total"], active, active - lookup, active - lookup - parts["table"])
    return dict(zip(KEYS, tables, strict=True))


def modules_of(config: Config) -> dict[str, int]:
    """Numbers of parameters by kind of module, of a model on the meta device."""
    return _modules_of(dumps(config, sort_keys=True))


@cache
def _modules_of(text: str) -> dict[str, int]:
    with torch.device("meta"):
        model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**loads(text)))
    modules = list(model.modules())
    experts = [m for m in modules if isinstance(m, qwen.Qwen3MoeExperts)]
    norms = [m for m in modules if isinstance(m, qwen.Qwen3MoeRMSNorm)]
    head_dim = model.config.head_dim
    return {
        "total": model.num_parameters(),
        "experts": numel(experts),
        "dense": numel(m for m in modules if isinstance(m, qwen.Qwen3MoeMLP)),
        "biases": sum(p.numel() for name, p in model.named_parameters() if name.endswith("bias")),
        "layers": len(experts),
        "router": numel(m for m in modules if isinstance(m, qwen.Qwen3MoeTopKRouter)),
        "norms": numel(norms),
        "head norms": numel(m for m in norms if m.weight.numel() == head_dim),
        "table": model.get_input_embeddings().weight.numel(),
        "tied": int(model.lm_head.weight is model.model.embed_tokens.weight),
        "E": model.config.num_experts,
        "K": model.config.num_experts_per_tok,
    }


def numel(modules: Iterable[torch.nn.Module]) -> int:
    """How many parameters these modules have together."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def count_mistakes(config: Config) -> dict[str, dict[str, int]]:
    """All four counts as common mistakes give them: a part left out or too large, another configuration."""
    parts, right = modules_of(config), counts(config)
    wide, narrow = config["intermediate_size"], config["moe_intermediate_size"]
    total, experts, dense, table = (parts[name] for name in ("total", "experts", "dense", "table"))
    share = parts["router"] * (parts["E"] - parts["K"]) // parts["E"]
    without_tables = right["active_without_embeddings"]
    wide_experts = experts * wide // narrow
    left_out = {
        "no router": parts["router"],
        "no head norms": parts["head norms"],
        "no norms": parts["norms"],
        "no bias": parts["biases"],
        "expert width": dense - dense * narrow // wide,
    }
    changed = {
        "head_dim": {"head_dim": config["hidden_size"] // config["num_attention_heads"]},
        "equal heads": {"num_key_value_heads": config["num_attention_heads"]},
        "step ignored": {"decoder_sparse_step": 1},
        "list ignored": {"mlp_only_layers": []},
        "step from zero": {"decoder_sparse_step": 1, "mlp_only_layers": dense_from_zero(config)},
    }
    return {
        "all experts": four_counts(parts, K=parts["E"]),
        "one expert": four_counts(parts, K=1),
        "tied twice": four_counts(parts, total=total + parts["tied"] * table, tied=0),
        "two matrices": four_counts(parts, total=total - experts // 3, experts=experts * 2 // 3),
        "dense width": four_counts(parts, total=total - experts + wide_experts, experts=wide_experts),
        "share of router": right | {key: right[key] - share for key in KEYS[1:]},
        "table and head": dict.fromkeys(KEYS, without_tables),
        "head": dict.fromkeys(KEYS, without_tables + table),
        "input table": dict.fromkeys(KEYS, right["active_all_in"]),
        **{name: four_counts(parts, total=total - numbers) for name, numbers in left_out.items()},
        **{name: counts(changed_config(config, change)) for name, change in changed.items()},
    }


def changed_config(config: Config, change: Config) -> Config:
    """The configuration with a change, and the very same one where it changes nothing (models are cached)."""
    settings = {"decoder_sparse_step": 1, "mlp_only_layers": []} | config
    return config | {key: value for key, value in change.items() if settings[key] != value}


def dense_from_zero(config: Config) -> list[int]:
    """The dense layers of a reader who counts layers from 0 and takes each that the step divides."""
    step = config.get("decoder_sparse_step", 1)
    listed = config.get("mlp_only_layers", [])
    return [layer for layer in range(config["num_hidden_layers"]) if layer % step or layer in listed]


# Q1.2


def route_cases(random: Random) -> list[Case]:
    """Both settings, the edges of T and K, large logits, bf16; no ties, not even near ones."""
    wide = random.randrange(20, 40)
    return [
        route_case("renormalised", random, 9, 8, 2, True, core=True),
        route_case("not renormalised", random, 9, 8, 2, False, core=True),
        route_case("a single token", random, 1, 8, 3, True),
        route_case("one expert a token, not renormalised", random, 7, 6, 1, False),
        route_case("one expert a token, renormalised", random, 7, 6, 1, True),
        route_case("every expert chosen", random, 5, 4, 4, False),
        route_case("logits in the hundreds", random, 6, 8, 2, False, shift=18.0),
        route_case("logits far below zero", random, 6, 8, 2, True, shift=-18.0),
        route_case("many experts", random, 40, 64, 8, True),
        route_case("many experts, not renormalised", random, wide, 48, 6, False),
        route_case("hidden states and router in bf16", random, 8, 8, 2, True, dtype=torch.bfloat16),
    ]


def route_case(
    label: str,
    random: Random,
    tokens: int,
    experts: int,
    top_k: int,
    renormalise: bool,
    *,
    core: bool = False,
    shift: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Case:
    """A case in which the last expert chosen is clearly ahead of the first one left out."""
    size, gap = 16, 0.3 if dtype == torch.bfloat16 else 0.02
    weight = normal(random.randrange(10**6), experts, size, scale=1.5 / 4)
    pool = normal(random.randrange(10**6), 40 * tokens, size)
    weight[:, 0], pool[:, 0] = abs(shift), shift  # their product is in every logit
    weight, pool = weight.to(dtype), pool.to(dtype)
    logits = (pool.double() @ weight.double().T).sort(descending=True).values
    clear = (logits[:, top_k - 1 : top_k] - logits[:, top_k : top_k + 1] > gap).all(dim=1)
    hidden = pool[clear][:tokens]
    assert len(hidden) == tokens
    inputs = {"hidden": hidden, "router_weight": weight, "top_k": top_k, "renormalise": renormalise}
    relative = 0.03 if dtype == torch.bfloat16 else 1e-3
    return Case(label, inputs, routed(**inputs) | {"relative": relative}, core)


def routed(hidden: torch.Tensor, router_weight: torch.Tensor, top_k: int, renormalise: bool) -> Plain:
    """What transformers' router chooses, in order of expert id; and what common mistakes give."""
    hidden, router_weight = hidden.float(), router_weight.float()
    config = Qwen3MoeConfig(
        hidden_size=hidden.shape[1],
        num_experts=len(router_weight),
        num_experts_per_tok=top_k,
        norm_topk_prob=renormalise,
    )
    router = qwen.Qwen3MoeTopKRouter(config)
    router.weight.data = router_weight
    with torch.no_grad():
        logits, weights, ids = router(hidden)
    ids, order = ids.sort(dim=1)
    probabilities, chosen = logits.softmax(1).gather(1, ids), logits.gather(1, ids)
    others = {"logits": chosen, "sigmoid": chosen.sigmoid()}
    wrong = {
        "not renormalised": probabilities,
        "renormalised": probabilities / probabilities.sum(1, keepdim=True),
        "softmax of chosen": chosen.softmax(1),
        "softmax of probabilities": probabilities.softmax(1),
        "over tokens": logits.softmax(0).gather(1, ids),
        **{n: v / v.sum(1, keepdim=True) if renormalise else v for n, v in others.items()},
    }
    wrong_ids = {
        "lowest": (-logits).topk(top_k).indices,
        "over tokens": logits.softmax(0).topk(top_k).indices,
    }
    right = weights.gather(1, order)
    return routing(ids, right, wrong, wrong_ids)


def routing(ids: Any, weights: Any, wrong: dict[str, Any], wrong_ids: dict[str, Any]) -> Plain:
    """A routing as questions compare it: rows in order of expert id, mistakes that differ from it."""
    in_order = {name: value.sort(dim=1).values for name, value in wrong_ids.items()}
    return {
        "ids": ids,
        "weights": weights,
        "wrong_weights": other_than(weights, wrong),
        "wrong_ids": {name: value for name, value in in_order.items() if not torch.equal(value, ids)},
    }


# Q1.3


def forward_cases(random: Random) -> list[Case]:
    """Few and many experts, the edges of T and K, crowding; operations are counted in each case."""
    some = random.randrange(20, 30)
    alone = torch.tensor([sorted(random.sample(range(8), 2))]).expand(11, 2)
    many = choices(random, 12, 16, 2)
    half = choices(random, some, 4, 2) * 2 + random.randrange(2)  # only even or only odd ones
    return [
        forward_case("more tokens than experts", random, 4, choices(random, some, 4, 2), core=True),
        forward_case("many experts, two chosen: operations", random, 16, many, core=True),
        forward_case("a single token", random, 8, choices(random, 1, 8, 2)),
        forward_case("one expert a token", random, 8, choices(random, 13, 8, 1)),
        forward_case("experts that no token chose", random, 8, half),
        forward_case("all tokens choose the same experts", random, 8, alone.clone()),
        forward_case("every expert chosen by every token", random, 4, choices(random, 9, 4, 4)),
        forward_case("weights that don't add up to 1", random, 8, choices(random, some, 8, 3), total=2.5),
        forward_case("many tokens, four of 32 experts", random, 32, choices(random, 60, 32, 4)),
        forward_case("inputs left as they were", random, 6, choices(random, 10, 6, 2), unchanged=True),
    ]


def choices(random: Random, tokens: int, experts: int, top_k: int) -> torch.Tensor:
    """Different experts for each token, in any order."""
    return torch.tensor([random.sample(range(experts), top_k) for _ in range(tokens)])


def forward_case(
    label: str,
    random: Random,
    experts: int,
    ids: torch.Tensor,
    *,
    total: float = 1.0,
    core: bool = False,
    unchanged: bool = False,
) -> Case:
    """A case whose large tensors come from a seed, so that it stays small."""
    width, size = random.choice((32, 40)), random.choice((64, 72))
    weights = normal(random.randrange(10**6), *ids.shape).softmax(1) * total
    inputs = {
        "expert_ids": ids,
        "weights": weights,
        "sizes": [experts, width, size],
        "seed": random.randrange(10**6),
    }
    expected = forward_expected(inputs)
    return Case(label, inputs, expected | {"unchanged": True} if unchanged else expected, core)


def forward_expected(inputs: Plain) -> Plain:
    """The output of transformers' experts in float64, the fewest operations, and common mistakes."""
    ids, weights, (experts, width, size) = inputs["expert_ids"], inputs["weights"], inputs["sizes"]
    tokens, top_k = ids.shape
    hidden = normal(inputs["seed"], tokens, size).double()
    gate_up = normal(inputs["seed"] + 1, experts, 2 * width, size, scale=size**-0.5).double()
    down = normal(inputs["seed"] + 2, experts, size, width, scale=width**-0.5).double()
    right = library_experts(hidden, gate_up, down, weights.double(), ids)
    return {
        "output": right.float(),
        "operations": 6 * tokens * top_k * size * width,
        "all_experts": experts / top_k,
        "mistakes": other_than(right, forward_mistakes(hidden, gate_up, down, weights.double(), ids)),
    }


def library_experts(hidden: Any, gate_up: Any, down: Any, weights: Any, ids: Any) -> torch.Tensor:
    """transformers' Qwen3MoeExperts with these weights."""
    config = Qwen3MoeConfig(
        num_experts=len(down),
        hidden_size=hidden.shape[1],
        moe_intermediate_size=down.shape[2],
        experts_implementation="eager",
    )
    module = qwen.Qwen3MoeExperts(config)
    module.gate_up_proj.data, module.down_proj.data = gate_up, down
    with torch.no_grad():
        return module(hidden, ids, weights)


def forward_mistakes(hidden: Any, gate_up: Any, down: Any, weights: Any, ids: Any) -> dict[str, torch.Tensor]:
    """Outputs with one thing wrong, computed for all experts at once: both halves, then [T, K, H]."""
    silu = functional.silu
    both = torch.einsum("eih,th->tei", gate_up, hidden)
    gate, up = both.chunk(2, dim=-1)
    every = torch.arange(len(hidden))[:, None]

    def out(inner: torch.Tensor, by: torch.Tensor = weights) -> torch.Tensor:
        return (torch.einsum("ehi,tei->teh", down, inner)[every, ids] * by[..., None]).sum(1)

    right = torch.einsum("ehi,tei->teh", down, silu(gate) * up)[every, ids]
    scaled = torch.einsum("tkih,tkh->tki", gate_up[ids], hidden[:, None] * weights[..., None])
    scaled_gate, scaled_up = scaled.chunk(2, dim=-1)
    return {
        "halves swapped": out(gate * silu(up)),
        "interleaved": out(silu(both[..., ::2]) * both[..., 1::2]),
        "no activation": out(gate * up),
        "gelu": out(functional.gelu(gate) * up),
        "no gate": out(silu(up)),
        "unweighted": out(silu(gate) * up, torch.ones_like(weights)),
        "mean": right.mean(1),
        "weighted input": torch.einsum("tkhi,tki->th", down[ids], silu(scaled_gate) * scaled_up),
        "first only": right[:, 0] * weights[:, :1],
        "last only": right[:, -1] * weights[:, -1:],
        "weights by rank": out(silu(gate) * up, weights.gather(1, ids.argsort(1).argsort(1))),
        "residual": out(silu(gate) * up) + hidden,
    }


# Q1.4


def balance_cases(random: Random) -> list[Case]:
    """From even to collapsed routing, the edges of T and K, and the gradient."""
    shape = (random.randrange(20, 40), 8)
    lean = torch.linspace(4.0, -4.0, 8)
    return [
        balance_case("random logits", random, shape, 2, core=True),
        balance_case("routing that collapsed onto a few experts", random, shape, 2, lean=lean, core=True),
        balance_case("one expert a token", random, shape, 1),
        balance_case("four of 32 experts", random, (60, 32), 4),
        balance_case("every expert chosen", random, (12, 4), 4),
        balance_case("a single token", random, (1, 8), 2),
        balance_case("logits in the hundreds", random, shape, 2, lean=torch.full((8,), 300.0)),
        balance_case("the gradient reaches the logits", random, shape, 2, gradient=True),
        balance_case("almost even routing", random, (500, 6), 2, scale=0.1),
    ]


def balance_case(
    label: str,
    random: Random,
    shape: tuple[int, int],
    top_k: int,
    *,
    lean: torch.Tensor | float = 0.0,
    scale: float = 1.5,
    core: bool = False,
    gradient: bool = False,
) -> Case:
    """A case with normal logits that lean towards some experts."""
    logits = normal(random.randrange(10**6), *shape, scale=scale) + lean
    expected = balance_expected(logits, top_k)
    if gradient:
        inputs = logits.clone().requires_grad_()
        loss = qwen.load_balancing_loss_func((inputs,), shape[1], top_k)
        (expected["gradient"],) = torch.autograd.grad(loss, inputs)
    return Case(label, {"router_logits": logits, "top_k": top_k}, expected, core)


def balance_expected(logits: torch.Tensor, top_k: int) -> Plain:
    """The loss of transformers' own function; and common mistakes."""
    tokens, experts = logits.shape
    value = float(qwen.load_balancing_loss_func((logits,), experts, top_k))
    probabilities = logits.double().softmax(1)
    chosen = functional.one_hot(probabilities.topk(top_k).indices, experts).double().sum(1)
    first = functional.one_hot(probabilities.argmax(1), experts).double()
    mean, share = probabilities.mean(0), chosen.mean(0)
    kept = probabilities * chosen
    mistakes = {
        "no factor": (share * mean).sum(),
        "divided by K": experts * (share * mean).sum() / top_k,
        "sums": experts * (share * mean).sum() * tokens,
        "logits": experts * (share * logits.double().mean(0)).sum(),
        "first choice": experts * (first.mean(0) * mean).sum(),
        "over tokens": experts * (share * logits.double().softmax(0).mean(0)).sum(),
        "masked": experts * (share * kept.mean(0)).sum(),
        "squares": experts * (share * share).sum(),
        "probabilities twice": experts * (mean * mean).sum(),
        "renormalised": experts * (share * (kept / kept.sum(1, keepdim=True)).mean(0)).sum(),
    }
    return {"value": value, "mistakes": other_than(value, mistakes)}


# Q1.5


def bias_cases(random: Random) -> list[Case]:
    """Choosing under a bias, then updating it."""
    loads = [random.randrange(5, 60) for _ in range(8)]
    lone = [0.0, 0, random.randrange(9, 99), 0]
    even = [10, 10, 10, 10, 10 + (step := random.randrange(1, 9)), 10 - step]
    return [
        topk_case("a bias of zero", random, 8, 2, spread=0.0, core=True),
        topk_case("the bias chooses", random, 8, 2, only_ids=True, core=True),
        topk_case("the plain score weighs", random, 8, 2),
        topk_case("four of 32 experts", random, 32, 4),
        topk_case("a bias that outweighs every score", random, 8, 3, spread=8.0),
        topk_case("one expert a token, negative scores too", random, 8, 1, signed=True),
        update_case("loads above and below the mean", random, torch.tensor(loads).float()),
        update_case("whole-number loads", random, torch.tensor([*loads, 7])),
        update_case("loads equal to the mean", random, torch.tensor(even).float()),
        update_case("an expert that got all the tokens", random, torch.tensor(lone)),
        update_case("another speed", random, torch.tensor(loads[:6]).float(), speed=0.05),
    ]


def topk_case(
    label: str,
    random: Random,
    experts: int,
    top_k: int,
    *,
    spread: float = 0.3,
    signed: bool = False,
    only_ids: bool = False,
    core: bool = False,
) -> Case:
    """A case with a clear choice; the bias changes most rows unless its spread is 0."""
    tokens = random.randrange(9, 15)
    bias = normal(random.randrange(10**6), experts, scale=spread)
    raw = normal(random.randrange(10**6), 40 * tokens, experts)
    pool = raw if signed else raw.sigmoid()
    ranked = (pool + bias).sort(descending=True).values
    scores = pool[ranked[:, top_k - 1] - ranked[:, top_k] > 0.01][:tokens]
    expected = topk_expected(scores, bias, top_k) | {"relative": 1e-4}
    if only_ids:
        del expected["weights"]
    return Case(label, {"scores": scores, "bias": bias, "top_k": top_k}, expected, core)


def topk_expected(scores: torch.Tensor, bias: torch.Tensor, top_k: int) -> Plain:
    """The choice by numpy's sort of scores + bias in float64; and common mistakes."""

    def highest(values: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.sort(np.argsort(-values.double().numpy(), axis=1)[:, :top_k], axis=1))

    ids = highest(scores + bias)
    plain, biased = scores.gather(1, ids), (scores + bias).gather(1, ids)
    wrong = {
        "biased weights": biased,
        "normalised": plain / plain.sum(1, keepdim=True),
        "softmax of chosen": plain.softmax(1),
    }
    wrong_ids = {
        "bias ignored": highest(scores),
        "bias subtracted": highest(scores - bias),
        "lowest": highest(-(scores + bias)),
    }
    return routing(ids, plain, wrong, wrong_ids)


def update_case(label: str, random: Random, load: torch.Tensor, *, speed: float = 0.001) -> Case:
    """The new bias by exact fractions of the loads; and common mistakes."""
    bias = normal(random.randrange(10**6), len(load), scale=0.01)
    mean = Fraction(sum(int(x) for x in load), len(load))
    sign = torch.tensor([(x < mean) - (x > mean) for x in load.tolist()])
    apart = float(mean) - load.double()
    middle = (load.double().median() - load.double()).sign()
    wrong = {
        "wrong way": bias - speed * sign,
        "proportional": bias + speed * apart,
        "share": bias + speed * apart / load.sum(),
        "at the mean": bias + speed * torch.where(sign == 0, -1, sign),
        "below only": bias + speed * sign.clamp(min=0),
        "above only": bias + speed * sign.clamp(max=0),
        "no speed": bias + sign,
        "step only": speed * sign,
        "unchanged": bias,
        "median": bias + speed * middle,
    }
    right = bias.double() + speed * sign.double()
    mistakes = {
        name: value.float()
        for name, value in wrong.items()
        if not same_values(right, value, relative=1e-5, absolute=1e-6)
    }
    return Case(
        label, {"bias": bias, "load": load, "speed": speed}, {"bias": right.float(), "mistakes": mistakes}
    )


# Q1.6


def touched_cases(random: Random) -> list[Case]:
    """From no token to very many."""
    experts, several = random.randrange(40, 400), random.randrange(3, 9)
    draws = {
        "one token": (1, experts, random.randrange(2, 9)),
        "a batch of several tokens": (several, random.randrange(32, 200), random.randrange(3, 9)),
        "one expert a token": (random.randrange(10, 40), random.randrange(100, 900), 1),
        "every expert chosen by each token": (random.randrange(2, 99), experts, experts),
        "more choices than experts": (random.randrange(50, 90), random.randrange(100, 200), 4),
        "no tokens": (0, random.randrange(10, 900), random.randrange(1, 9)),
        "so many tokens that all are touched": (10**5 + random.randrange(99), random.randrange(9, 99), 2),
        "two experts": (random.randrange(2, 9), 2, 1),
        "a large model": (random.randrange(20, 64), random.randrange(256, 600), 8),
    }
    core = ("one token", "a batch of several tokens")
    return [
        Case(
            label,
            {"batch_tokens": tokens, "num_experts": experts, "top_k": top_k},
            touched_expected(tokens, experts, top_k),
            label in core,
        )
        for label, (tokens, experts, top_k) in draws.items()
    ]


def touched(tokens: int, experts: int, top_k: int) -> Fraction:
    """The exact expectation: each expert is missed by all tokens with chance (1 - K/E)^tokens."""
    if tokens > 10**4:  # exact powers get long, and all experts are touched
        return Fraction(experts * (1 - (1 - top_k / experts) ** tokens))
    return experts * (1 - (1 - Fraction(top_k, experts)) ** tokens)


def touched_expected(tokens: int, experts: int, top_k: int) -> Plain:
    """The expectation; and common mistakes."""
    value = float(touched(tokens, experts, top_k))
    mistakes = {
        "as many as choices": min(tokens * top_k, experts),
        "choices": tokens * top_k,
        "untouched": experts - value,
        "with replacement": experts * (1 - (1 - 1 / experts) ** (tokens * top_k)),
        "top one": experts * (1 - (1 - 1 / experts) ** tokens),
        "share": value / experts,
        "rounded": round(value),
        "one token": top_k,
    }
    return {"value": value, "mistakes": other_than(value, mistakes, relative=2e-5)}


# Q1.7


def decode_cases(random: Random) -> list[Case]:
    """Weights alone, cache alone as far as that goes, batches, layouts; then tokens per second."""
    sparse = {"decoder_sparse_step": 2, "mlp_only_layers": [3]}
    batch, context = random.randrange(8, 40), random.randrange(10_000, 40_000)
    return [
        bytes_case("one sequence, nothing cached", random, 1, 0, core=True),
        bytes_case("one sequence, nothing cached, 4-bit weights", random, 1, 0, weight_bits=4.5, core=True),
        bytes_case("one sequence, a long context", random, 1, context),
        bytes_case("a batch, nothing cached", random, batch, 0),
        bytes_case("a batch with long contexts", random, batch, context // 4, weight_bits=8),
        bytes_case("the table tied to the head", random, 1, 0, tie_word_embeddings=True),
        bytes_case("a cache of fewer bits than the weights", random, 1, 4 * context, cache_bits=8),
        bytes_case("dense layers between those with experts", random, 1, 0, **sparse),
        bytes_case("a large batch of short contexts", random, 200 + batch, 50, weight_bits=4),
        ceiling_case("tokens per second, one sequence", random, 1),
        ceiling_case("tokens per second, a batch", random, batch),
        ceiling_case("tokens per second, few bytes", random, random.randrange(2, 9), scale=10**6),
    ]


def bytes_case(
    label: str,
    random: Random,
    batch: int,
    context: int,
    *,
    weight_bits: float = 16,
    cache_bits: float = 16,
    core: bool = False,
    **changes: Any,
) -> Case:
    """A case on a model with the proportions of Qwen3-30B-A3B, but fewer layers and tokens."""
    config = qwen3_moe(
        random,
        vocab_size=random.randrange(20_000, 40_000),
        hidden_size=random.choice((1024, 1536, 2048)),
        intermediate_size=random.choice((9216, 12_288)),
        moe_intermediate_size=random.choice((384, 512, 768)),
        num_attention_heads=32,
        num_key_value_heads=4,
        head_dim=128,
        num_experts=random.choice((64, 96, 128)),
        num_experts_per_tok=random.choice((4, 6, 8)),
        **changes,
    )
    inputs: Plain = {
        "config": config,
        "batch": batch,
        "context": context,
        "weight_bits": weight_bits,
        "cache_bits": cache_bits,
    }
    return Case(label, inputs, decode_expected(**inputs), core)


def decode_expected(config: Config, batch: int, context: int, weight_bits: float, cache_bits: float) -> Plain:
    """The bytes from the modules of a model on the meta device, in exact fractions; and common mistakes."""
    plan = {
        "batch": batch,
        "cached": context * batch * config["num_hidden_layers"],
        "heads": config["num_key_value_heads"],
        "head_dim": config["head_dim"],
        "weight_bits": weight_bits,
        "cache_bits": cache_bits,
    }
    parts = modules_of(config)
    value = float(decode_bytes_of(parts, plan))
    cache = Fraction(cache_bits) / 8 * 2 * plan["cached"] * plan["heads"] * plan["head_dim"]
    top_k, table, bytes_each = parts["K"], parts["table"], Fraction(weight_bits) / 8

    def planned(**changes: Any) -> Fraction:
        return decode_bytes_of(parts, plan | changes)

    def layered(**changes: Any) -> Fraction:
        return decode_bytes_of(modules_of(changed_config(config, changes)), plan)

    mistakes = {
        "all experts": planned(touched=parts["E"]),
        "as for one": planned(touched=top_k),
        "once each": planned(touched=top_k * batch),
        "input table": value + (1 - parts["tied"]) * float(table * bytes_each),
        "no head": value - float(table * bytes_each),
        "no cache": value - float(cache),
        "one cache": planned(cached=plan["cached"] // batch),
        "keys only": value - float(cache / 2),
        "one layer": planned(cached=context * batch),
        "all heads": planned(heads=config["num_attention_heads"]),
        "head_dim": planned(head_dim=config["hidden_size"] // config["num_attention_heads"]),
        "one token": planned(cached=plan["cached"] // max(context, 1)),
        "cache at weight bits": planned(cache_bits=weight_bits),
        "step ignored": layered(decoder_sparse_step=1),
        "list ignored": layered(mlp_only_layers=[]),
        "bits": 8 * value,
        "16 bits": planned(weight_bits=16),
        "weights per sequence": batch * planned(cached=plan["cached"] // batch),
        "per token": value / batch,
    }
    return {"value": value, "mistakes": other_than(value, mistakes, relative=0.02)}


def decode_bytes_of(parts: dict[str, int], plan: dict[str, Any]) -> Fraction:
    """Everything but experts and an untied input table, the experts touched, the cache."""
    dense = parts["total"] - parts["experts"] - (0 if parts["tied"] else parts["table"])
    number = plan.get("touched", touched(plan["batch"], parts["E"], parts["K"]))
    experts = Fraction(parts["experts"], parts["E"]) * number
    cache = 2 * plan["cached"] * plan["heads"] * plan["head_dim"]
    return (dense + experts) * Fraction(plan["weight_bits"]) / 8 + cache * Fraction(plan["cache_bits"]) / 8


def ceiling_case(label: str, random: Random, batch: int, *, scale: int = 10**9) -> Case:
    """Tokens per second; and common mistakes."""
    n_bytes = float(random.randrange(20, 400) * scale // 10)
    bandwidth = float(random.choice((300, 320, 936, 1008, 2039, 3350, 4800)))
    value = batch * bandwidth * 10**9 / n_bytes
    mistakes = {
        "gib": batch * bandwidth * 2**30 / n_bytes,
        "no batch": value / batch,
        "seconds": n_bytes / (bandwidth * 10**9),
        "batch divided": value / batch**2,
        "no giga": value / 10**9,
        "bits": value / 8,
    }
    inputs = {"n_bytes": n_bytes, "bandwidth_gb_s": bandwidth, "batch": batch}
    return Case(label, inputs, {"value": value, "mistakes": other_than(value, mistakes, relative=0.02)})


# Q1.8


WORDS = {
    "English": "the lamp of a harbour sails north by night and every ship keeps its own log",
    "Chinese": "港口 的 灯 在 夜里 亮 着 每 条 船 都 记 下 自己 航程",
    "Spanish": "el faro del puerto brilla de noche y cada barco lleva su propio cuaderno",
    "arithmetic": "1 + 2 = 3 ; 14 - 5 9 6 * 7 42 80 / 10 8",
    "Python": "def f(x): return x + 1 for i in range(3): print(i) if y else None",
}


def table_cases(random: Random) -> list[Case]:
    """Tables of tiny models, then the information in given tables."""
    dense_first = {"num_hidden_layers": 3, "mlp_only_layers": [0]}
    return [
        table_case("two domains of one text each", random, 2, (1,), core=True),
        table_case("several texts, long and short", random, 2, (1, 3, 2), core=True),
        table_case("five domains", random, 5, (2, 1)),
        table_case("one expert a token", random, 2, (2,), num_experts_per_tok=1),
        table_case("a layer other than the first", random, 3, (2,), layer=1),
        table_case("a model whose first layer is dense", random, 2, (2, 1), layer=1, **dense_first),
        table_case("a tokenizer that would put a special token first", random, 3, (3,), adds_start=True),
        information_case("information in a random table", random, 3, 8),
        information_case("information with zeros in the table", random, 4, 16, zeros=True),
        information_case("information if each domain has its own experts", random, 3, 6, blocks=True),
        information_case("information in rows that are almost alike", random, 2, 4, alike=True),
        information_case("information of many domains", random, 8, 64, zeros=True),
    ]


def table_case(
    label: str,
    random: Random,
    domains: int,
    lengths: tuple[int, ...],
    *,
    layer: int = 0,
    adds_start: bool = False,
    core: bool = False,
    **changes: Any,
) -> Case:
    """A case in which no choice of the router is a close one, so that rounding can't turn it."""
    texts = {
        domain: [" ".join(random.choices(WORDS[domain].split(), k=4 * length)) for length in lengths]
        for domain in random.sample(list(WORDS), domains)
    }
    while True:
        model = tiny_model(random, **changes)
        routes = routes_of(model, texts, adds_start)
        if all(route["gap"] > 1e-4 for by_text in routes.values() for route in by_text):
            break
    inputs = {"model": model, "texts": texts, "layer": layer, "adds_start": adds_start}
    return Case(label, inputs, table_expected(routes, layer, adds_start), core)


def tiny_model(random: Random, **changes: Any) -> Plain:
    """A Qwen3-MoE of two layers for the byte tokenizer's 258 tokens."""
    config = {
        "vocab_size": 258,
        "hidden_size": 16,
        "intermediate_size": 20,
        "moe_intermediate_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "num_experts": random.choice((5, 6, 8)),
        "num_experts_per_tok": 2,
        "max_position_embeddings": 512,
    }
    return {"family": "qwen3_moe", "config": config | changes, "seed": random.randrange(10**6)}


def routes_of(model: Plain, texts: dict[str, list[str]], adds_start: bool) -> dict[str, list[Any]]:
    """For each text the router's probabilities by layer, as plain text and with a special token before it."""
    network: Any = build(model)
    tokenizer = byte_tokenizer(adds_start)
    top_k = model["config"]["num_experts_per_tok"]
    dense = model["config"].get("mlp_only_layers", [])
    layers = [n for n in range(model["config"]["num_hidden_layers"]) if n not in dense]

    def logits(text: str, special: bool) -> dict[int, torch.Tensor]:
        ids = tokenizer(text, add_special_tokens=special, return_tensors="pt").input_ids
        with torch.no_grad():
            return dict(zip(layers, network(ids, output_router_logits=True).router_logits, strict=True))

    def route(text: str) -> dict[str, Any]:
        plain = logits(text, False)
        ranked = torch.cat([layer.sort(descending=True).values for layer in plain.values()])
        return {
            "gap": float((ranked[:, top_k - 1] - ranked[:, top_k]).min()),
            "plain": {n: layer.softmax(1) for n, layer in plain.items()},
            "special": {n: layer.softmax(1) for n, layer in logits(text, True).items()},
            "top_k": top_k,
        }

    return {domain: [route(text) for text in lines] for domain, lines in texts.items()}


def table_expected(routes: dict[str, list[Any]], layer: int, adds_start: bool) -> Plain:
    """Shares of choices, counted; and common mistakes."""
    top_k = next(iter(routes.values()))[0]["top_k"]

    def table(count: Callable[[torch.Tensor], Any], at: int = layer, kind: str = "plain") -> torch.Tensor:
        rows = [sum(count(r[kind][at]) for r in by_text) for by_text in routes.values()]
        return torch.stack([torch.as_tensor(row) for row in rows]).double()

    def chosen(probabilities: torch.Tensor, k: int = top_k) -> torch.Tensor:
        mask = torch.zeros_like(probabilities).scatter(1, probabilities.topk(k).indices, 1.0)
        return mask.sum(0)

    def weighed(p: torch.Tensor) -> torch.Tensor:
        kept = p * torch.zeros_like(p).scatter(1, p.topk(top_k).indices, 1.0)
        return (kept / kept.sum(1, keepdim=True)).sum(0)

    counted = table(chosen)
    right = shares(counted)
    mistakes = {
        "counts": counted,
        "columns": counted / counted.sum(0).clamp(min=1),
        "whole": counted / counted.sum(),
        "per token": right * top_k,
        "weighted": shares(table(weighed)),
        "first choice": shares(table(lambda p: chosen(p, 1))),
        "probabilities": shares(table(lambda p: p.sum(0))),
        "texts alike": shares(table(lambda p: chosen(p) / len(p))),
        "last token": shares(table(lambda p: chosen(p[-1:]))),
    }
    if any(len(by_text) > 1 for by_text in routes.values()):
        only = [chosen(by_text[0]["plain"][layer]) for by_text in routes.values()]
        mistakes["first text"] = shares(torch.stack(only).double())
    if adds_start:
        mistakes["special tokens"] = shares(table(chosen, kind="special"))
    for at in next(iter(routes.values()))[0]["plain"]:
        if at != layer:
            mistakes["another layer"] = shares(table(chosen, at=at))
    return {"table": right.float(), "mistakes": other_than(right, mistakes)}


def shares(table: torch.Tensor) -> torch.Tensor:
    """Rows that add up to 1."""
    return table / table.sum(1, keepdim=True)


def information_case(
    label: str,
    random: Random,
    domains: int,
    experts: int,
    *,
    zeros: bool = False,
    blocks: bool = False,
    alike: bool = False,
) -> Case:
    """A random table of distributions; `blocks` gives each domain experts of its own."""
    drawn = normal(random.randrange(10**6), domains, experts, scale=0.05 if alike else 1.0).double().exp()
    if zeros:
        drawn[normal(random.randrange(10**6), domains, experts) < -0.5] = 0.0
        drawn[:, 0], drawn[0, -1] = 0.5, 0.0
    if blocks:
        own = torch.arange(experts) // (experts // domains) == torch.arange(domains)[:, None]
        drawn = torch.where(own, drawn.clamp(min=0.1), 0.0)
    table = shares(drawn).float()
    return Case(label, {"table": table}, information_expected(table))


def information_expected(table: torch.Tensor) -> Plain:
    """By scipy's entropy in float64; and common mistakes."""
    rows = table.double().numpy()
    rows /= rows.sum(axis=1, keepdims=True)
    mean, each = entropy(rows.mean(axis=0), base=2), entropy(rows, axis=1, base=2).mean()
    value = float(mean - each)
    mistakes = {
        "nats": value * np.log(2),
        "decimal": value * np.log10(2),
        "sum": value * len(rows),
        "marginal": mean,
        "rows": each,
        "sign": -value,
        "normalised": value / np.log2(len(rows)),
    }
    return {"value": value, "mistakes": other_than(value, mistakes)}
