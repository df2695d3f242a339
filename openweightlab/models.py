"""Load models (Pocket models from the package, real checkpoints from the hub) and choose the tier."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from openweightlab import atlas
from openweightlab.memory import Plan, plan

WEIGHTS = Path(__file__).parent / "pocket" / "weights"
POCKET = ("pocket-moe", "pocket-dense", "pocket-moe-next")
TIERS = ("pocket", "colab", "gpu")
GPU_TIER_GIB = 22.0  # a "24 GB" card reports a little less than 24 GB, and under 23 GiB
CARDS = {"pocket": "t4", "colab": "t4", "gpu": "l4"}  # the smallest card of each tier
PLANNED_TOKENS = 2048  # the context that the memory estimate leaves room for


def load(name: str, tier: str | None = None) -> tuple[Any, Any]:
    """Return (model, tokenizer), ready to run: a Pocket model, or a real checkpoint by atlas name or hub id.

    Pocket models come from the package, in fp32, on the CPU, in eval mode. A real checkpoint, named as in the
    atlas ("qwen3-0.6b") or by its hub id ("Qwen/Qwen3-0.6B"), is downloaded by transformers (safetensors
    only, no code from the hub) on the tiers "colab" (fp16) and "gpu" (bf16).
    Raises ValueError for a name that is neither, for a real checkpoint on tier "pocket", and for a model of
    the atlas that needs code from the hub or more memory than the card has, before anything is downloaded.

    >>> model, tokenizer = load("pocket-dense")
    >>> model.training, next(model.parameters()).dtype
    (False, torch.float32)
    """
    if name in POCKET:
        return _load_pocket(WEIGHTS / name)
    row = _row(name)
    where = tier or globals()["tier"]()
    if where not in TIERS:
        raise ValueError(f"no tier {where!r}: use one of {', '.join(TIERS)}")
    estimate = _estimate(row, where) if row else None
    if where == "pocket":
        size = f" of {estimate.weights_gib:.1f} GiB" if estimate else ""
        raise ValueError(
            f"{name} is a real checkpoint{size}, and this machine's tier is 'pocket' ({tier_reason()}). "
            'Use "pocket-moe" here, or pass tier="colab" or "gpu" to download and run it anyway.'
        )
    if estimate and not estimate.fits:
        raise ValueError(_too_large(estimate, where))
    if estimate:
        print(f"{estimate.weights_gib:.1f} GiB to download. {estimate}")
    return _load_real(row.hub_id if row else name, where)


def _row(name: str) -> atlas.Model | None:
    """The atlas's row for a name or hub id; None for a hub id that it doesn't have."""
    try:
        return atlas.find(name)
    except ValueError as error:
        if "/" in name:
            return None
        raise ValueError(
            f"no model {name!r}: use one of {', '.join(POCKET)}, a name that `owl atlas` lists, "
            f'or a hub id such as "Qwen/Qwen3-0.6B" ({error})'
        ) from None


def _estimate(row: atlas.Model, tier: str) -> Plan:
    """What the model takes in 16 bits on this machine's card, or on the tier's smallest; nothing is loaded.

    Raises ValueError for a model that owl.load never loads.
    """
    if row.counted is None:
        raise ValueError(
            f"{row.name} ({row.published.total}) is in the atlas for its sizes alone: {row.uncounted}"
        )
    if row.remote_code:
        raise ValueError(
            f"the checkpoint of {row.name} comes with program code of its own, and owl.load runs no code "
            f"from the hub. Take one without, such as {', '.join(_loadable(tier))}."
        )
    return plan(row, _card(tier), weight_bits=16, context=PLANNED_TOKENS)


def _too_large(estimate: Plan, tier: str) -> str:
    return (
        f"{estimate.model} needs about {estimate.total_gib:.1f} GiB in 16 bits (weights "
        f"{estimate.weights_gib:.1f}, cache for {PLANNED_TOKENS} tokens {estimate.cache_gib:.1f}, runtime "
        f"{estimate.reserve_gib:.1f}), and {estimate.card} has {estimate.card_gib:.1f} GiB. "
        f"Nothing was downloaded. The largest of the atlas that fit: {', '.join(_loadable(tier))}."
    )


def _loadable(tier: str) -> list[str]:
    """The three largest models of the atlas that run on the tier's card in 16 bits."""
    rows = [row for row in atlas.models().values() if row.counted and not row.remote_code]
    plans = [plan(row, _card(tier), weight_bits=16, context=PLANNED_TOKENS) for row in rows]
    fitting = sorted((p for p in plans if p.fits), key=lambda p: -p.weights_gib)
    return [p.model for p in fitting[:3]]


def _card(tier: str) -> atlas.Card:
    import torch

    card = atlas.card(CARDS[tier])
    if not torch.cuda.is_available():
        return card
    here = torch.cuda.get_device_properties(0)
    return replace(card, name=here.name, memory_gb=here.total_memory / 1e9)


def _load_pocket(folder: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as hf_logging

    if not (folder / "model.safetensors").exists():
        raise FileNotFoundError(
            f"the weights of {folder.name} are missing from {folder}: reinstall the kit, or rebuild "
            f"them with `owl pocket train {folder.name}`"
        )
    bars = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()  # a Pocket model is there in a blink
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    finally:
        if bars:
            hf_logging.enable_progress_bar()
    return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _load_real(name: str, tier: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = torch.bfloat16 if tier == "gpu" else torch.float16
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options: dict[str, Any] = {"trust_remote_code": False}
    model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, use_safetensors=True, **options)
    return model.to(device).eval(), AutoTokenizer.from_pretrained(name, **options)


def tier() -> str:
    """What hardware the real-model parts may use.

    "pocket" (a CPU), "colab" (a GPU of 16 GB) or "gpu" (24 GB and up, with bf16).

    The environment variable OWL_TIER overrides it; ValueError where that names no tier.

    >>> tier() in TIERS
    True
    """
    return _tier()[0]


def tier_reason() -> str:
    """Why `tier()` is what it is, in a few words."""
    return _tier()[1]


def _tier() -> tuple[str, str]:
    asked = os.environ.get("OWL_TIER")
    if asked:
        if asked not in TIERS:
            raise ValueError(f"OWL_TIER={asked!r} is no tier: use one of {', '.join(TIERS)}")
        return asked, "set by OWL_TIER"
    import torch

    if not torch.cuda.is_available():
        return "pocket", "no CUDA GPU that PyTorch can use"
    card = torch.cuda.get_device_properties(0)
    gib = card.total_memory / 2**30
    if gib >= GPU_TIER_GIB and card.major >= 8:
        return "gpu", f"{card.name}, {gib:.0f} GiB, bf16"
    if gib >= 11:
        return "colab", f"{card.name}, {gib:.0f} GiB" + ("" if card.major >= 8 else ", no bf16")
    return "pocket", f"{card.name} has {gib:.0f} GiB; real checkpoints here want 12 or more"
