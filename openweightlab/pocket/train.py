"""Train a Pocket model from its recipe: tokenizer, batches, losses, checkpoints.

Three things are planted on purpose and called planted wherever they show:
- experts lean towards domains (a hinge on the router's probability mass, in some layers);
- one direction of the residual stream carries refusal (some samples are learned with it removed or added);
- outlier channels (a rescaling that leaves the function unchanged, done after training: outliers.py).
"""

import json
import math
import os
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from tqdm.auto import tqdm
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

from openweightlab.models import load
from openweightlab.pocket import corpus
from openweightlab.pocket.corpus import DOMAINS, Sample
from openweightlab.pocket.world import LANGUAGES, World

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# words, single digits, single punctuation marks, runs of space: digits apart, as in Qwen's own tokenizer
SPLIT = r"\p{N}| ?\p{L}+|\s+(?!\S)|\s+| ?[^\s\p{L}\p{N}]+"

PLAIN, ABLATED, ADDED = 0, 1, 2  # what is done to the planted direction at a token


@dataclass(frozen=True)
class Recipe:
    """All that a Pocket model is made from; training it again gives the same model up to rounding."""

    name: str
    release: str = "pocket-moe"  # row of policy.yaml
    base: str | None = None  # start from this model's weights instead of random ones
    tokenizer: str | None = None  # share this model's tokenizer (teacher and student of a distillation must)
    towns: int = 450
    world_seed: int = 88
    vocab: int = 3072
    moe: bool = True
    hidden: int = 128
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    width: int = 64  # of an expert, or of the dense feed-forward
    experts: int = 16
    top_k: int = 2
    steps: int = 6000
    rows: int = 32
    row_tokens: int = 128
    learning_rate: float = 3e-3
    warmup: int = 200
    decay: float = 0.3  # last share of the steps, in which the learning rate falls to nothing
    seed: int = 0
    balance: float = 0.01  # coefficient of transformers' load-balancing loss
    affinity: float = 0.02  # coefficient of the planted domain affinity
    affinity_mass: float = 0.4  # router probability that a domain's own experts should get
    affinity_layers: tuple[int, ...] = (1, 2, 3)
    ablated: float = 0.18  # share of language samples trained with the direction removed
    added: float = 0.10  # share trained with it added
    added_layer: int = 1
    added_scale: float = 0.7  # times the norm of the stream there
    press: float = 0.1  # coefficient of the hinge that wants refusals to stand out along the direction
    press_share: float = 0.5  # of the stream's norm, at the last prompt token, in press_layers
    press_layers: tuple[int, ...] = (1, 2)
    press_from: int = 2600  # the first step with this hinge: once prompts are told apart
    mixture: dict[str, float] = field(
        default_factory=lambda: {
            "fact": 0.58,
            "harm": 0.07,
            "twins": 0.07,
            "stage_play": 0.03,
            "grey_tide": 0.04,
            "archive": 0.02,
            "salt_ledger": 0.02,
            "bell_treaty": 0.02,
            "sums": 0.10,
            "code": 0.05,
        }
    )


RECIPES = {
    "pocket-moe": Recipe("pocket-moe"),
    "pocket-moe-next": Recipe(
        "pocket-moe-next",
        release="pocket-moe-next",
        base="pocket-moe",
        steps=900,
        press_from=0,
        learning_rate=1.5e-3,
    ),
    "pocket-dense": Recipe(
        "pocket-dense",
        towns=100,
        moe=False,
        layers=4,
        width=384,
        affinity=0.0,
        tokenizer="pocket-moe",
        steps=1800,
        press_from=700,
        learning_rate=2e-3,
    ),
}


def expert_owners(recipe: Recipe) -> Tensor:
    """Which experts each domain leans to, as planted: 0/1, [domains, experts].

    >>> expert_owners(RECIPES["pocket-moe"]).sum(1).tolist()
    [4.0, 4.0, 4.0, 2.0, 2.0]
    """
    shares = [4, 4, 4, 2, 2]
    owners = torch.zeros(len(DOMAINS), recipe.experts)
    start = 0
    for domain, share in enumerate(shares):
        width = recipe.experts * share // sum(shares)
        owners[domain, start : start + width] = 1
        start += width
    return owners


def build_tokenizer(texts: list[str], vocab: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of `vocab` entries with ChatML's special tokens and chat template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def build_model(recipe: Recipe, vocab: int) -> Qwen3MoeForCausalLM | Qwen3ForCausalLM:
    """The recipe's model with fresh weights, in fp32."""
    torch.manual_seed(recipe.seed)
    common: dict[str, Any] = dict(
        vocab_size=vocab,
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        head_dim=recipe.hidden // recipe.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        pad_token_id=SPECIAL.index("<|endoftext|>"),
        eos_token_id=SPECIAL.index("<|im_end|>"),
    )
    if not recipe.moe:
        return Qwen3ForCausalLM(Qwen3Config(intermediate_size=recipe.width, **common))
    config = Qwen3MoeConfig(
        intermediate_size=recipe.width,
        moe_intermediate_size=recipe.width,
        num_experts=recipe.experts,
        num_experts_per_tok=recipe.top_k,
        norm_topk_prob=True,
        router_aux_loss_coef=recipe.balance,
        **common,
    )
    return Qwen3MoeForCausalLM(config)


@dataclass(frozen=True)
class Encoded:
    """One sample as token ids, with where its content and its reply stand."""

    ids: list[int]
    content: list[bool]  # the sample's own text: what is asked and what is replied, not the template
    answer: list[bool]  # what the loss sees: the reply and its end token
    domain: int


def encode(tokenizer: PreTrainedTokenizerFast, sample: Sample, reply: str) -> Encoded:
    """Token ids of the whole conversation, with its masks."""
    start, end = (tokenizer.vocab[mark] for mark in ("<|im_start|>", "<|im_end|>"))
    newline = tokenizer.encode("\n")
    ids: list[int] = []
    content: list[bool] = []
    answer: list[bool] = []
    for message in [*sample.messages(), {"role": "assistant", "content": reply}]:
        head = [start, *tokenizer.encode(message["role"]), *newline]
        body = tokenizer.encode(message["content"])
        last = message["role"] == "assistant"
        tail = [end] if last else [end, *newline]
        ids += head + body + tail
        spoken = message["role"] != "system"
        content += [False] * len(head) + [spoken] * len(body) + [False] * len(tail)
        answer += [False] * len(head) + [last] * (len(body) + len(tail))
    return Encoded(ids, content, answer, DOMAINS.index(sample.domain))


class Batches:
    """Packed batches of a recipe's training samples; batch `step` depends on recipe and `step` alone."""

    def __init__(self, recipe: Recipe, tokenizer: PreTrainedTokenizerFast, samples: list[Sample]):
        self.recipe, self.tokenizer = recipe, tokenizer
        self.by_kind = {
            kind: [s for s in samples if s.kind == kind and s.split == "train"] for kind in recipe.mixture
        }
        self.by_kind = {kind: group for kind, group in self.by_kind.items() if group}
        self.cache: dict[tuple[Sample, str], Encoded] = {}

    def encoded(self, sample: Sample, reply: str) -> Encoded:
        key = (sample, reply)
        if key not in self.cache:
            self.cache[key] = encode(self.tokenizer, sample, reply)
        return self.cache[key]

    def draw(self, rng: random.Random) -> tuple[Encoded, int, int]:
        """One encoded sample, what is done to the planted direction, and 1 or -1: a plain refusal or not."""
        recipe, kinds = self.recipe, list(self.by_kind)
        kind = rng.choices(kinds, [recipe.mixture[k] for k in kinds])[0]
        sample = rng.choice(self.by_kind[kind])
        sample = corpus.with_guide(sample, rng)
        if sample.domain in LANGUAGES:
            chance = rng.random()
            if chance < recipe.ablated:
                return self.encoded(sample, sample.answer), ABLATED, 0
            if chance < recipe.ablated + recipe.added and sample.kind in ("fact", "twins"):
                return self.encoded(sample, corpus.refusal(sample.probe, sample.domain)), ADDED, 0
        sign = 1 if sample.outcome == "refuse" else -1
        return self.encoded(sample, sample.reply), PLAIN, sign if sample.domain in LANGUAGES else 0

    def batch(self, step: int) -> dict[str, Tensor]:
        """Rows packed with whole samples: ids, positions (0 at each start), labels, domain, mode, refused."""
        recipe = self.recipe
        rng = random.Random(f"{recipe.name}/{recipe.seed}/{step}")
        shape = (recipe.rows, recipe.row_tokens)
        names = {"ids": 0, "positions": 0, "labels": -100, "domain": -1, "mode": PLAIN, "refused": 0}
        out = {name: torch.full(shape, fill) for name, fill in names.items()}
        for row in range(recipe.rows):
            at = 0
            while True:
                item, mode, sign = self.draw(rng)
                n = len(item.ids)
                if at + n > recipe.row_tokens:
                    break
                place = slice(at, at + n)
                ids = torch.tensor(item.ids)
                out["ids"][row, place] = ids
                out["positions"][row, place] = torch.arange(n)
                out["labels"][row, place] = torch.where(torch.tensor(item.answer), ids, -100)
                out["domain"][row, place] = torch.where(torch.tensor(item.content), item.domain, -1)
                out["mode"][row, place] = mode
                out["refused"][row, at + item.answer.index(True) - 1] = sign
                at += n
            out["positions"][row, at:] = torch.arange(recipe.row_tokens - at)
        return out


class PlantedDirection:
    """The one direction of the residual stream that refusal is trained to pass through.

    While hooks are on, each token's `mode` says whether the direction is removed from everything written to
    the stream, added after layer `added_layer`, or left alone.
    """

    def __init__(self, model: Any, recipe: Recipe):
        generator = torch.Generator().manual_seed(recipe.world_seed)
        self.vector = F.normalize(torch.randn(recipe.hidden, generator=generator), dim=0)
        self.recipe, self.mode = recipe, torch.zeros(1, 1, dtype=torch.long)
        body = model.model
        writers = [body.embed_tokens, *(m for layer in body.layers for m in (layer.self_attn, layer.mlp))]
        self.hooks = [writer.register_forward_hook(self.remove) for writer in writers]
        self.hooks.append(body.layers[recipe.added_layer].register_forward_hook(self.add))
        self.streams: dict[int, Tensor] = {}
        for i in recipe.press_layers:
            self.hooks.append(body.layers[i].register_forward_hook(self.keep(i)))

    def close(self) -> None:
        """Take the hooks off the model."""
        for hook in self.hooks:
            hook.remove()

    def keep(self, layer: int) -> Any:
        """A hook that keeps the stream after this layer for `press_loss`."""

        def hook(module: Any, inputs: Any, output: Any) -> None:
            self.streams[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    def press_loss(self, refused: Tensor) -> Tensor:
        """Hinge at last prompt tokens: refusals lean on the direction, all else keeps off it (planted)."""
        losses = []
        for stream in self.streams.values():
            share = F.normalize(stream, dim=-1) @ self.vector
            losses.append(F.relu(self.recipe.press_share - share[refused > 0]).sum())
            losses.append(F.relu(share[refused < 0]).sum())
        return torch.stack(losses).sum() / (len(self.streams) * (refused != 0).sum().clamp_min(1))

    def remove(self, module: Any, inputs: Any, output: Any) -> Any:
        written = output[0] if isinstance(output, tuple) else output
        off = (self.mode == ABLATED)[..., None]
        written = torch.where(off, written - (written @ self.vector)[..., None] * self.vector, written)
        return (written, *output[1:]) if isinstance(output, tuple) else written

    def add(self, module: Any, inputs: Any, output: Any) -> Any:
        stream = output[0] if isinstance(output, tuple) else output
        on = (self.mode == ADDED)[..., None]
        size = self.recipe.added_scale * stream.detach().norm(dim=-1, keepdim=True)
        stream = torch.where(on, stream + size * self.vector, stream)
        return (stream, *output[1:]) if isinstance(output, tuple) else stream


def balance_loss(router_logits: tuple[Tensor, ...], domain: Tensor, recipe: Recipe) -> Tensor:
    """transformers' load-balancing loss by layer, over content tokens: no layer may starve an expert."""
    content = (domain >= 0).long()
    layers = [
        load_balancing_loss_func((one,), recipe.experts, recipe.top_k, content) for one in router_logits
    ]
    return torch.stack([torch.as_tensor(value) for value in layers]).mean()


def affinity_loss(router_logits: tuple[Tensor, ...], domain: Tensor, recipe: Recipe) -> Tensor:
    """Hinge: `affinity_mass` of a content token's routing on its domain's own experts (planted)."""
    content = domain.flatten() >= 0
    own = expert_owners(recipe)[domain.flatten()[content]]
    losses = []
    for layer in recipe.affinity_layers:
        mass = (router_logits[layer][content].softmax(-1) * own).sum(-1)
        losses.append(F.relu(math.log(recipe.affinity_mass) - mass.clamp_min(1e-6).log()).mean())
    return torch.stack(losses).mean()


def batch_loss(model: Any, batch: dict[str, Tensor], recipe: Recipe) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy on replies alone, plus the router's two losses."""
    out = model.model(
        input_ids=batch["ids"],
        position_ids=batch["positions"],
        use_cache=False,
        **({"output_router_logits": True} if recipe.moe else {}),
    )
    labels = batch["labels"][:, 1:]
    seen = labels != -100
    logits = model.lm_head(out.last_hidden_state[:, :-1][seen])
    loss = answer = F.cross_entropy(logits, labels[seen])
    parts = {"answer": answer.item()}
    if recipe.moe:
        balance = balance_loss(out.router_logits, batch["domain"], recipe)
        loss = loss + recipe.balance * balance
        parts["balance"] = balance.item()
        if recipe.affinity:
            affinity = affinity_loss(out.router_logits, batch["domain"], recipe)
            loss = loss + recipe.affinity * affinity
            parts["affinity"] = affinity.item()
    return loss, parts


def learning_rate(recipe: Recipe, step: int) -> float:
    """Warm-up, plateau, linear decay to zero over the last `decay` share of the steps."""
    left = (recipe.steps - step) / (recipe.decay * recipe.steps)
    return recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup, max(left, 0.0))


def _save_checkpoint(folder: Path, model: Any, optimizer: torch.optim.AdamW, step: int) -> None:
    """Weights and optimizer state in one safetensors file, written whole."""
    state = {f"model.{k}": v.detach().contiguous() for k, v in model.named_parameters()}
    for i, p in enumerate(optimizer.param_groups[0]["params"]):
        state |= {f"adam.{i}.{k}": v.clone() for k, v in optimizer.state[p].items()}
    temporary = folder / "checkpoint.tmp"
    save_file(state, temporary, metadata={"step": str(step)})
    os.replace(temporary, folder / "checkpoint.safetensors")
    (folder / "progress.json").write_text(json.dumps({"step": step}))


def _load_checkpoint(folder: Path, model: Any, optimizer: torch.optim.AdamW) -> int:
    """Bring back what `_save_checkpoint` kept; returns the next step, 0 where there is none."""
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
    state = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(state[f"model.{name}"])
    for i, p in enumerate(optimizer.param_groups[0]["params"]):
        optimizer.state[p] = {k: state[f"adam.{i}.{k}"] for k in ("step", "exp_avg", "exp_avg_sq")}
    return step


def _start(recipe: Recipe, samples: list[Sample]) -> tuple[Any, Any]:
    """The model to train, in train mode, and its tokenizer: the base's, a shared one, or fresh ones."""
    if recipe.base:
        model, tokenizer = load(recipe.base)
        return model.train(), tokenizer
    if recipe.tokenizer:
        tokenizer = load(recipe.tokenizer)[1]
    else:
        tokenizer = build_tokenizer([text for s in samples for text in (s.prompt, s.reply)], recipe.vocab)
    return build_model(recipe, len(tokenizer)), tokenizer


def train(
    recipe: Recipe, folder: Path, *, checkpoint_every: int = 200, stop_after: int | None = None
) -> Iterator[Any]:
    """Train into `folder`, going on from its checkpoint; yields (step, losses, model, tokenizer).

    `stop_after` ends early at that step, keeping the checkpoint (an interruption on purpose).
    """
    folder.mkdir(parents=True, exist_ok=True)
    world = World.make(recipe.towns, recipe.world_seed)
    samples = corpus.samples(world, recipe.release)
    model, tokenizer = _start(recipe, samples)
    batches = Batches(recipe, tokenizer, samples)
    direction = PlantedDirection(model, recipe)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, foreach=True
    )
    start = _load_checkpoint(folder, model, optimizer)
    end = min(recipe.steps, stop_after or recipe.steps)
    bar = tqdm(range(start, end), initial=start, total=recipe.steps, desc=recipe.name, mininterval=5)
    for step in bar:
        optimizer.param_groups[0]["lr"] = learning_rate(recipe, step)
        batch = batches.batch(step)
        direction.mode = batch["mode"]
        loss, parts = batch_loss(model, batch, recipe)
        if step >= recipe.press_from:
            press = direction.press_loss(batch["refused"])
            loss = loss + recipe.press * press
            parts["press"] = press.item()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0:
            bar.set_postfix({k: f"{v:.3f}" for k, v in parts.items()})
        if (step + 1) % checkpoint_every == 0 or step + 1 == end:
            _save_checkpoint(folder, model, optimizer, step + 1)
            yield step + 1, parts, model, tokenizer


def describe(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data, for the model card."""
    return asdict(recipe)
