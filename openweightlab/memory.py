"""Does a model fit a card, and how fast can it decode at best: `plan` answers both, for every atlas model."""

from dataclasses import dataclass
from typing import Any

from openweightlab.atlas import Card, Model, card, find

GIB = 2**30
STATE_BITS = 32  # linear attention's state: implementations compute and keep it in float32
LOOKED_UP = ("input_table", "positions")  # a token reads one row of these, not the table
Bits = float | dict[str, float]


@dataclass(frozen=True)
class Plan:
    """The answer of `plan`; sizes in GiB, rates in tokens per second of the whole batch."""

    model: str
    card: str
    cards: int
    fits: bool
    weights_gib: float
    cache_gib: float
    reserve_gib: float
    total_gib: float
    card_gib: float
    bytes_per_token: float
    ceiling_tokens_s: float

    def __str__(self) -> str:
        number = f"{self.cards} x " if self.cards > 1 else ""
        return (
            f"{self.model} on {number}{self.card}: {'fits' if self.fits else 'does not fit'}: "
            f"{self.total_gib:.1f} of {self.card_gib:.1f} GiB "
            f"(weights {self.weights_gib:.1f}, cache {self.cache_gib:.1f}, reserve {self.reserve_gib:.1f}); "
            f"at best {self.ceiling_tokens_s:,.0f} tokens/s"
        )


def plan(
    model: str | Model,
    on: str | Card,
    *,
    weight_bits: Bits,
    cache_bits: float = 16,
    context: int,
    batch: int = 1,
    cards: int = 1,
    reserve_gib: float = 1.0,
) -> Plan:
    """Say whether a model of the atlas fits a card, and how many tokens a second it decodes at best.

    memory   weights + cache + reserve, against the card's decimal GB as its data sheet has them
    weights  sum over parts of parameters x bits / 8; `weight_bits` is one number for all, or one for each
             part with the key "rest" for the others, such as a model's own `native_bits`. Scales count: a
             "4-bit" format stores 4.1 to 4.8 bits per weight.
    cache    batch x sum over layers of (tokens kept x values per token) x cache_bits / 8. Values per token:
             2 x key-value heads x head size (MHA, GQA, MQA alike), or the latent and its rotated part (MLA,
             kept compressed as in DeepSeek-V2, arXiv 2405.04434, section 2.1). A window keeps its last
             tokens only; linear attention has a state of fixed size in 32 bits instead.
    step     one token for each sequence in the batch moves: every weight that is multiplied, once for the
             whole batch (tables that are looked up don't count), and each sequence's own cache. Of routed
             experts it moves as many as the batch is expected to touch, if tokens choose evenly and
             independently; real routers are less even and touch fewer.
    ceiling  batch x bandwidth / bytes of a step. A bound for a step limited by memory: no operation, no
             network, no pause is counted. Several cards count as one with the sum of memory and bandwidth.
    reserve  what the runtime and the activations take: a rule of thumb (1 GiB), not a measurement.

    Raises ValueError for an unknown model or card, for a model without a count, and for sizes below 1.

    >>> plan("gpt-oss-120b", "h100", weight_bits={"routed_experts": 4.25, "rest": 16}, context=8192).fits
    True
    >>> print(plan("qwen3-0.6b", "T4", weight_bits=16, context=2048))
    Qwen3-0.6B on T4: fits: 2.3 of 14.9 GiB (weights 1.1, cache 0.2, reserve 1.0); at best 224 tokens/s
    """
    row, device = _asked(
        model, on, weight_bits, dict(cache_bits=cache_bits, context=context, batch=batch, cards=cards)
    )
    weights = sum(part_bytes(row, weight_bits).values())
    kept, read = cache_bytes(row, context, cache_bits)
    step = step_bytes(row, weight_bits, batch) + batch * read
    total = weights / GIB + batch * kept / GIB + reserve_gib
    room = cards * device.memory_gb * 1e9 / GIB
    return Plan(
        model=row.name,
        card=device.name,
        cards=cards,
        fits=total <= room,
        weights_gib=weights / GIB,
        cache_gib=batch * kept / GIB,
        reserve_gib=reserve_gib,
        total_gib=total,
        card_gib=room,
        bytes_per_token=step / batch,
        ceiling_tokens_s=batch * cards * device.bandwidth_gb_s * 1e9 / step,
    )


def part_bytes(model: Model, weight_bits: Bits) -> dict[str, float]:
    """Bytes of each part of a counted model (attention, routed_experts, …) at these bits per weight."""
    assert model.counted is not None
    bits = weight_bits if isinstance(weight_bits, dict) else {"rest": weight_bits}
    return {part: n * bits.get(part, bits["rest"]) / 8 for part, n in model.counted.parts.items()}


def step_bytes(model: Model, weight_bits: Bits, batch: int) -> float:
    """Bytes of weights that one decoding step of `batch` tokens moves; see `plan`."""
    chosen, experts = model.experts or (1, 1)
    untouched = (1 - chosen / experts) ** batch  # the share of experts that no token of the batch chose
    parts = {part: n for part, n in part_bytes(model, weight_bits).items() if part not in LOOKED_UP}
    return sum(parts.values()) - untouched * parts.get("routed_experts", 0)


def cache_bytes(model: Model, context: int, cache_bits: float = 16) -> tuple[float, float]:
    """(bytes kept, bytes read for one more token) of one sequence of `context` tokens, over all layers.

    The two differ where an index picks the tokens to attend to (DeepSeek-V3.2, GLM-5), and where layers share
    one cache (Hunyuan-Large).

    >>> kept, read = cache_bytes(find("deepseek-v3"), context=1)
    >>> kept == 61 * (512 + 64) * 2
    True
    """
    config = model.config or {}
    shared = config.get("cla_share_factor", 1)
    kept = read = state = 0.0
    for letter in model.layers:
        if letter == "l":
            state += linear_state(config)
            continue
        tokens = min(context, _reach(config, letter))
        kept += tokens * values_per_token(config) / shared + context * config.get("index_head_dim", 0)
        picked = min(tokens, config.get("index_topk", tokens))
        read += picked * values_per_token(config) + context * config.get("index_head_dim", 0)
    fixed = state * STATE_BITS / 8
    return kept * cache_bits / 8 + fixed, read * cache_bits / 8 + fixed


def values_per_token(config: dict[str, Any]) -> int:
    """Numbers that one attention layer keeps for one token.

    >>> values_per_token(find("llama-2-7b").config), values_per_token(find("llama-3.1-8b").config)
    (8192, 2048)
    """
    if "kv_lora_rank" in config:
        return config["kv_lora_rank"] + config["qk_rope_head_dim"]
    heads = config.get("num_attention_heads") or config["n_head"]
    size = config.get("head_dim") or (config.get("hidden_size") or config["n_embd"]) // heads
    return 2 * config.get("num_key_value_heads", heads) * size


def linear_state(config: dict[str, Any]) -> int:
    """Numbers that one layer of linear attention keeps for a sequence, however long it is.

    The gated delta rule (Qwen3-Next) keeps a matrix for each value head and its convolution's last inputs,
    lightning attention (MiniMax) a square matrix for each head.
    """
    if "linear_num_value_heads" not in config:
        return config["num_attention_heads"] * config["head_dim"] ** 2
    keys = config["linear_num_key_heads"] * config["linear_key_head_dim"]
    values = config["linear_num_value_heads"] * config["linear_value_head_dim"]
    return values * config["linear_key_head_dim"] + config["linear_conv_kernel_dim"] * (2 * keys + values)


def _reach(config: dict[str, Any], letter: str) -> float:
    """How many tokens back a layer of this kind can see."""
    windows = {"s": config.get("sliding_window"), "c": config.get("attention_chunk_size")}
    return windows.get(letter) or float("inf")


def _asked(model: str | Model, on: str | Card, bits: Bits, sizes: dict[str, float]) -> tuple[Model, Card]:
    """The row and the card, once everything asked makes sense."""
    row = find(model) if isinstance(model, str) else model
    if row.counted is None:
        raise ValueError(f"{row.name} can't be planned: {row.uncounted}")
    if isinstance(bits, dict):
        unknown = sorted(set(bits) - set(row.counted.parts) - {"rest"})
        if unknown or "rest" not in bits:
            known = ", ".join(row.counted.parts)
            raise ValueError(
                f"weight_bits has the key 'rest', and else parts of {row.name} ({known}); got {bits}"
            )
    sizes = sizes | {"weight_bits": min(bits.values()) if isinstance(bits, dict) else bits}
    small = [f"{name}={value}" for name, value in sizes.items() if not value > 0]
    if small:
        raise ValueError(f"must be above zero: {', '.join(small)}")
    return row, card(on) if isinstance(on, str) else on
