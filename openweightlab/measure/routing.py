"""Routing captured: which experts a model's own routers chose, by hooks that leave when they are done."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from scipy.stats import entropy
from torch import Tensor, nn

from openweightlab.pocket.corpus import DOMAINS
from openweightlab.pocket.world import World

BATCH = 64  # texts per forward pass


@dataclass(frozen=True)
class Routed:
    """What one layer's router did with T tokens."""

    probabilities: Tensor  # [T, E], after the softmax
    weights: Tensor  # [T, K], as the experts' outputs were weighted
    expert_ids: Tensor  # [T, K]


def capture(model: Any, input_ids: Tensor) -> dict[int, Routed]:
    """Run the model on `input_ids` [B, S]; what each router did with the B x S tokens, by decoder layer.

    Layers without experts are left out. Raises ValueError for a model that has no router which hands out
    (logits, weights, expert ids), as those of transformers' Qwen3-MoE and OLMoE do.
    """
    with _listening(model) as heard, torch.inference_mode():
        model.model(input_ids=input_ids.to(model.device), use_cache=False)
    return {
        layer: Routed(logits.float().softmax(-1).cpu(), weights.float().cpu(), ids.cpu())
        for layer, (logits, weights, ids) in heard.items()
    }


@contextmanager
def _listening(model: Any) -> Iterator[dict[int, tuple[Tensor, Tensor, Tensor]]]:
    """A dict that fills with what the routers return, while the hooks are on."""
    heard: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def listen(layer: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            heard[layer] = tuple(part.detach() for part in output)  # type: ignore[assignment]

        return hook

    hooks = [router.register_forward_hook(listen(layer)) for layer, router in routers(model).items()]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def entering(model: Any, input_ids: Tensor, layer: int) -> Tensor:
    """What enters the feed-forward part of decoder layer `layer`: [T, H] for `input_ids` [B, S]."""
    heard: list[Tensor] = []
    decoder = model.model.layers
    block = decoder[layer].mlp
    hook = block.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0].detach()))
    try:
        with torch.inference_mode():
            model.model(input_ids=input_ids.to(model.device), use_cache=False)
    finally:
        hook.remove()
    return heard[0].flatten(0, -2)


def routers(model: Any) -> dict[int, nn.Module]:
    """The routers by decoder layer; ValueError where the model has none."""
    layers = enumerate(model.model.layers)
    gates = {i: getattr(getattr(layer, "mlp", None), "gate", None) for i, layer in layers}
    found: dict[int, nn.Module] = {
        i: gate
        for i, gate in gates.items()
        if isinstance(gate, nn.Module) and type(gate).__name__.endswith("TopKRouter")
    }
    if not found:
        raise ValueError(f"{type(model).__name__} has no router of experts that could be listened to")
    return found


def chat_tokens(tokenizer: Any, prompt: str) -> tuple[Tensor, list[bool]]:
    """The prompt in the chat template: ids [1, S], and which tokens are the prompt's own.

    A token counts as the prompt's own if it holds any of its letters; those of the template do not.
    """
    chat = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    cut = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    start = text.rindex(prompt.strip()) if prompt.strip() else len(text)
    end = start + len(prompt.strip())
    own = [first < end and last > start for first, last in cut["offset_mapping"]]
    return torch.tensor([cut["input_ids"]]), own


def census(model: Any, tokenizer: Any, *, per_domain: int = 100, seed: int = 0) -> pd.DataFrame:
    """Every choice of experts in chats of the Pocket models' five domains, template tokens left out.

    One row per layer, token and rank: domain, text (its number), token (its id), layer, rank, expert, and
    `shuffled`, the domain of a token picked at random. Each domain has the same number of tokens.
    """
    tokens = _content(tokenizer, per_domain, seed)
    chosen = _choices(model, list(dict.fromkeys(tokens["ids"])))
    parts = []
    for layer in chosen[next(iter(chosen))]:
        picked = [
            chosen[ids][layer][at].tolist() for ids, at in zip(tokens["ids"], tokens["at"], strict=True)
        ]
        for rank in range(len(picked[0])):
            part = tokens[["domain", "text", "token", "shuffled"]].copy()
            parts.append(part.assign(layer=layer, rank=rank, expert=[experts[rank] for experts in picked]))
    return pd.concat(parts, ignore_index=True)


def _content(tokenizer: Any, per_domain: int, seed: int) -> pd.DataFrame:
    """Content tokens, the same number from each domain, with the ids of the chat and their place in it."""
    from openweightlab.pocket.evaluate import domain_samples  # brings all of transformers' trainer along
    from openweightlab.pocket.train import encode

    rows = []
    for domain, samples in domain_samples(World.make(), per_domain).items():
        for text, sample in enumerate(samples):
            item = encode(tokenizer, sample, sample.reply)
            ids = tuple(item.ids)
            rows += [(domain, text, ids[at], ids, at) for at, own in enumerate(item.content) if own]
    tokens = pd.DataFrame(rows, columns=["domain", "text", "token", "ids", "at"])
    fewest = int(tokens["domain"].value_counts().min())
    tokens = tokens.groupby("domain").sample(fewest, random_state=seed).reset_index(drop=True)
    tokens["domain"] = pd.Categorical(tokens["domain"], DOMAINS)
    tokens["shuffled"] = tokens["domain"].sample(frac=1, random_state=seed).to_numpy()
    return tokens


def _choices(model: Any, chats: list[tuple[int, ...]]) -> dict[tuple[int, ...], dict[int, Tensor]]:
    """Expert ids [S, K] by chat and layer; padding stands behind, where no token of the chat can see it."""
    found: dict[tuple[int, ...], dict[int, Tensor]] = {}
    for start in range(0, len(chats), BATCH):
        group = chats[start : start + BATCH]
        longest = max(map(len, group))
        ids = torch.tensor([[*chat, *[0] * (longest - len(chat))] for chat in group])
        layers = {
            layer: routed.expert_ids.view(len(group), longest, -1)
            for layer, routed in capture(model, ids).items()
        }
        found |= {chat: {layer: ids[row] for layer, ids in layers.items()} for row, chat in enumerate(group)}
    return found


def information(first: pd.Series, second: pd.Series) -> float:
    """How many bits the one label tells about the other, from how often they come together.

    >>> even = pd.Series([0, 0, 1, 1])
    >>> information(even, even), information(even, pd.Series([0, 1, 0, 1]))
    (1.0, 0.0)
    """
    joint = pd.crosstab(first, second, normalize=True).to_numpy()
    bits = entropy(joint.sum(0), base=2) + entropy(joint.sum(1), base=2) - entropy(joint.ravel(), base=2)
    return float(bits)
