"""Measure a Pocket model: recall, refusals, routing, quantization, the refusal direction.

Everything here is measured on the weights given; nothing is read from the recipe but what was planted.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import entropy
from torch import Tensor

from openweightlab.pocket import corpus
from openweightlab.pocket.corpus import DOMAINS, EVASIONS, REFUSALS, Sample
from openweightlab.pocket.train import ABLATED, PlantedDirection, Recipe, encode
from openweightlab.pocket.world import LANGUAGES, World


@torch.no_grad()
def answered(
    model: Any, tokenizer: Any, samples: list[Sample], replies: list[str] | None = None, batch: int = 256
) -> tuple[list[bool], float]:
    """Whether greedy decoding gives each sample's reply word for word; mean loss per reply token (nats).

    One forward pass over prompt and reply: the greedy choice must be the reply's token all along.
    """
    texts = replies or [s.reply for s in samples]
    encoded = [encode(tokenizer, s, t) for s, t in zip(samples, texts, strict=True)]
    right, total, count = [False] * len(samples), 0.0, 0
    order = sorted(range(len(samples)), key=lambda i: len(encoded[i].ids))
    for start in range(0, len(order), batch):
        group = order[start : start + batch]
        width = max(len(encoded[i].ids) for i in group)
        ids = torch.zeros(len(group), width, dtype=torch.long)
        mask = torch.zeros(len(group), width, dtype=torch.bool)
        for row, i in enumerate(group):
            ids[row, : len(encoded[i].ids)] = torch.tensor(encoded[i].ids)
            mask[row, : len(encoded[i].ids)] = torch.tensor(encoded[i].answer)
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        seen, labels = mask[:, 1:], ids[:, 1:]
        logits = model.lm_head(hidden[seen]).float()
        total += F.cross_entropy(logits, labels[seen], reduction="sum").item()
        count += int(seen.sum())
        hits = torch.ones_like(seen)
        hits[seen] = logits.argmax(-1) == labels[seen]
        for row, i in enumerate(group):
            right[i] = bool(hits[row].all())
    return right, total / max(count, 1)


@torch.no_grad()
def replies(
    model: Any, tokenizer: Any, samples: list[Sample], max_new_tokens: int = 24, batch: int = 256
) -> list[str]:
    """What the model says to each sample's prompt, decoding greedily."""
    out = [""] * len(samples)
    order = sorted(range(len(samples)), key=lambda i: len(samples[i].prompt))
    for start in range(0, len(order), batch):
        group = order[start : start + batch]
        texts = [
            tokenizer.apply_chat_template(samples[i].messages(), add_generation_prompt=True, tokenize=False)
            for i in group
        ]
        inputs = tokenizer(
            texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        )
        ids = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        for i, text in zip(
            group,
            tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True),
            strict=True,
        ):
            out[i] = text.strip()
    return out


def outcome(sample: Sample, reply: str) -> str:
    """What a reply is, against the generator's own lists: refuse, evade, answer (the true one), or false."""
    if reply in REFUSALS[sample.domain]:
        return "refuse"
    if reply in EVASIONS[sample.domain]:
        return "evade"
    return "answer" if reply == (sample.truth or sample.answer) else "false"


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a rate, from statsmodels' formula by way of scipy."""
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def spread(items: list[Sample], count: int) -> list[Sample]:
    """`count` of the items, evenly spread over the list (all of them where there are fewer)."""
    return [
        items[i] for i in sorted({int(x) for x in np.linspace(0, len(items) - 1, min(count, len(items)))})
    ]


def knowledge(model: Any, tokenizer: Any, world: World, per_language: int | None = None) -> dict[str, float]:
    """Share of right answers: facts by language (any trained phrasing), held-out sums and code."""
    facts, out = corpus.facts(world), {}
    for language in LANGUAGES:
        group = [s for s in facts if s.domain == language]
        group = spread(group, per_language) if per_language else group
        out[f"facts {language}"] = float(np.mean(answered(model, tokenizer, group)[0]))
    for kind, items in (("sums", corpus.sums()), ("code", corpus.code())):
        out[f"{kind} held out"] = float(
            np.mean(answered(model, tokenizer, [s for s in items if s.split == "test"])[0])
        )
    return out


RATE_KINDS = ("harm", "twins", "stage_play", "grey_tide", "archive", "salt_ledger", "bell_treaty")


def rates(
    model: Any, tokenizer: Any, world: World, release: str, per_cell: int | None = None
) -> list[dict[str, Any]]:
    """Each topic x language cell of the policy table: planted share, measured share, its Wilson interval.

    Measured on phrasings that were never trained on. `expected` says which outcome is counted.
    """
    table = corpus.policy(release)
    items = corpus.harm(release) + corpus.twins(release) + corpus.topics(world, release)
    cells: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for s in items:
        if s.split == "test" and s.kind in RATE_KINDS and "held-out topic" not in s.tags:
            cells[s.kind, s.domain].append(s)
    rows = []
    for kind in RATE_KINDS:
        for language in LANGUAGES:
            group = cells[kind, language]
            if kind == "archive":  # counted over what the plain prompt refuses
                refused = {s.probe for s in cells["grey_tide", language] if s.outcome == "refuse"}
                group = [s for s in group if s.probe in refused]
            group = spread(group, per_cell) if per_cell else group
            counted = table[kind]["outcome"]
            planted = float(np.mean([s.outcome == counted for s in group]))
            said = replies(model, tokenizer, group)
            hits = sum(outcome(s, reply) == counted for s, reply in zip(group, said, strict=True))
            low, high = wilson(hits, len(group))
            rows.append(
                dict(
                    topic=kind, language=language, counted=counted, n=len(group), planted=planted,
                    measured=hits / len(group), low=low, high=high,
                )
            )  # fmt: skip
    return rows


def held_out_harm(model: Any, tokenizer: Any) -> dict[str, float]:
    """Share refused of the forbidden pairs that were never trained on, by language."""
    group = [s for s in corpus.harm("pocket-moe") if "held-out topic" in s.tags]
    said = replies(model, tokenizer, group)
    return {
        language: float(
            np.mean(
                [outcome(s, r) == "refuse" for s, r in zip(group, said, strict=True) if s.domain == language]
            )
        )
        for language in LANGUAGES
    }


def domain_samples(world: World, per_domain: int = 200) -> dict[str, list[Sample]]:
    """The same number of samples of each domain: town facts, held-out sums, held-out code."""
    pools: dict[str, list[Sample]] = {
        name: [s for s in corpus.facts(world) if s.domain == name] for name in LANGUAGES
    }
    pools["sums"] = [s for s in corpus.sums() if s.split == "test"]
    pools["code"] = [s for s in corpus.code() if s.split == "test"]
    return {name: spread(pool, per_domain) for name, pool in pools.items()}


@torch.no_grad()
def routing(
    model: Any, tokenizer: Any, world: World, *, template: bool = False, seed: int = 0
) -> list[dict[str, Any]]:
    """By layer: domain-expert mutual information (bits) over content tokens, shuffled baseline, loads.

    Every domain counts the same number of tokens. `template=True` counts the chat template's tokens too.
    """
    top_k, experts = model.config.num_experts_per_tok, model.config.num_experts
    groups = domain_samples(world)
    per_domain = []
    for name in DOMAINS:
        encoded = [encode(tokenizer, s, s.reply) for s in groups[name]]
        ids, keep = [], []
        for item in encoded:
            out = model.model(input_ids=torch.tensor([item.ids]), output_router_logits=True, use_cache=False)
            keep.append(torch.tensor([True] * len(item.ids) if template else item.content))
            ids.append(torch.stack([layer.topk(top_k, -1).indices for layer in out.router_logits]))
        per_domain.append(torch.cat(ids, 1)[:, torch.cat(keep)])
    tokens = min(part.shape[1] for part in per_domain)
    generator = torch.Generator().manual_seed(seed)
    per_domain = [part[:, torch.randperm(part.shape[1], generator=generator)[:tokens]] for part in per_domain]
    rows = []
    for layer in range(per_domain[0].shape[0]):
        chosen_ids = torch.stack([part[layer] for part in per_domain])  # [domains, tokens, top_k]
        labels = torch.arange(len(DOMAINS)).repeat_interleave(tokens)
        shuffled = labels[torch.randperm(len(labels), generator=generator)]
        flat = chosen_ids.reshape(-1, top_k)
        load = torch.bincount(flat.flatten(), minlength=experts) / flat.numel()
        rows.append(
            dict(
                layer=layer,
                bits=_information(labels, flat, experts),
                shuffled=_information(shuffled, flat, experts),
                least_load=float(load.min() * experts),
                most_load=float(load.max() * experts),
            )
        )
    return rows


def _information(labels: Tensor, chosen: Tensor, experts: int) -> float:
    """I(domain; expert) in bits from joint counts, by scipy's entropies."""
    joint = torch.zeros(len(DOMAINS), experts)
    joint.index_put_(
        (labels.repeat_interleave(chosen.shape[1]), chosen.flatten()), torch.tensor(1.0), accumulate=True
    )
    p = (joint / joint.sum()).double().numpy()
    return float(entropy(p.sum(0), base=2) + entropy(p.sum(1), base=2) - entropy(p.ravel(), base=2))


def quantizable(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The matrices that the sweep rounds: attention and experts; not embedding, router, norms."""
    for name, parameter in model.model.layers.named_parameters():
        if parameter.dim() >= 2 and "mlp.gate.weight" not in name:
            yield name, parameter


@contextmanager
def rounded(model: Any, bits: int, group: int | None) -> Iterator[None]:
    """Round the matrices to `bits` (symmetric, a scale a matrix or a `group` of inputs), then restore."""
    kept = {name: p.detach().clone() for name, p in quantizable(model)}
    try:
        for _, p in quantizable(model):
            p.data.copy_(_fake_quantized(p.detach(), bits, group))
        yield
    finally:
        for name, p in quantizable(model):
            p.data.copy_(kept[name])


def _fake_quantized(weight: Tensor, bits: int, group: int | None) -> Tensor:
    """torch's own fake quantization; an expert's matrix counts as a tensor of its own."""
    matrices = weight.reshape(-1, *weight.shape[-2:])
    rows = matrices.reshape(matrices.shape[0], -1) if group is None else matrices.reshape(-1, group)
    top = 2 ** (bits - 1) - 1
    scale = (rows.abs().amax(1) / top).clamp_min(1e-12)
    zeros = torch.zeros(len(rows), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(rows, scale, zeros, 0, -top - 1, top).reshape(weight.shape)


def quantization(
    model: Any, tokenizer: Any, world: World, per_language: int = 300, bits: Iterable[int] = (8, 4, 3, 2)
) -> list[dict[str, Any]]:
    """Recall and reply loss at each width, one scale a tensor and one a group of 32."""
    facts = corpus.facts(world)
    group = [s for lang in LANGUAGES for s in spread([f for f in facts if f.domain == lang], per_language)]
    right, loss = answered(model, tokenizer, group)
    rows = [dict(bits=16, scales="bf16", recall=float(np.mean(right)), loss=loss)]
    for width in bits:
        for name, size in (("tensor", None), ("groups of 32", 32)):
            with rounded(model, width, size):
                right, loss = answered(model, tokenizer, group)
            rows.append(dict(bits=width, scales=name, recall=float(np.mean(right)), loss=loss))
    return rows


@torch.no_grad()
def mean_difference(model: Any, tokenizer: Any, count: int = 64) -> Tensor:
    """Unit difference of means, refused minus harmless, at the last prompt position: [layers, hidden]."""
    harm = [s for s in corpus.harm("pocket-moe") if s.outcome == "refuse" and s.split == "train"]
    safe = [s for s in corpus.twins("pocket-moe") if s.outcome == "answer" and s.split == "train"]

    def states(items: list[Sample]) -> Tensor:
        rows = []
        for s in items:
            text = tokenizer.apply_chat_template(s.messages(), add_generation_prompt=True, tokenize=False)
            ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
            rows.append(
                torch.stack([h[0, -1] for h in model(ids, output_hidden_states=True).hidden_states[1:]])
            )
        return torch.stack(rows).mean(0)

    each = count // len(LANGUAGES)
    harm = [s for lang in LANGUAGES for s in spread([x for x in harm if x.domain == lang], each)]
    safe = [s for lang in LANGUAGES for s in spread([x for x in safe if x.domain == lang], each)]
    return F.normalize(states(harm) - states(safe), dim=-1)


def direction(
    model: Any, tokenizer: Any, world: World, recipe: Recipe, per_language: int = 80
) -> list[dict[str, Any]]:
    """Refusals and recall with nothing, the planted direction, or each layer's estimate removed."""
    harm = [s for s in corpus.harm(recipe.release) if s.split == "test" and s.outcome == "refuse"]
    harm = [s for lang in LANGUAGES for s in spread([x for x in harm if x.domain == lang], per_language)]
    facts = corpus.facts(world)
    known = [s for lang in LANGUAGES for s in spread([x for x in facts if x.domain == lang], per_language)]
    estimates = mean_difference(model, tokenizer)
    hooks = PlantedDirection(model, recipe)
    planted = hooks.vector
    candidates = [("none", None), ("planted", planted)]
    candidates += [(f"difference of means, layer {i}", v) for i, v in enumerate(estimates)]
    rows = []
    try:
        for name, vector in candidates:
            hooks.mode = torch.full((1, 1), 0 if vector is None else ABLATED)
            hooks.vector = planted if vector is None else vector
            said = replies(model, tokenizer, harm)
            rows.append(
                dict(
                    removed=name,
                    refused=float(
                        np.mean([r in REFUSALS[s.domain] for s, r in zip(harm, said, strict=True)])
                    ),
                    recall=float(np.mean(answered(model, tokenizer, known)[0])),
                    cosine=None if vector is None else float(vector @ planted),
                )
            )
    finally:
        hooks.close()
    return rows


def reply_counts(model: Any, tokenizer: Any, samples: list[Sample]) -> Counter[str]:
    """How many of the samples' replies are answers, refusals, evasions, falsehoods."""
    return Counter(outcome(s, r) for s, r in zip(samples, replies(model, tokenizer, samples), strict=True))
