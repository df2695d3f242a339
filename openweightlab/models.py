"""Load models (Pocket models from the package, real checkpoints from the hub) and choose the tier."""

import os
from pathlib import Path
from typing import Any

WEIGHTS = Path(__file__).parent / "pocket" / "weights"
POCKET = ("pocket-moe", "pocket-dense", "pocket-moe-next")
TIERS = ("pocket", "colab", "gpu")
GPU_TIER_GIB = 22.0  # a "24 GB" card reports a little less than 24 GB, and under 23 GiB


def load(name: str, tier: str | None = None) -> tuple[Any, Any]:
    """Return (model, tokenizer), ready to run: a Pocket model by name, or a real checkpoint by its hub id.

    Pocket models come from the package, in fp32, on the CPU, in eval mode. A hub id such as
    "Qwen/Qwen3-0.6B" is downloaded by transformers (safetensors only, no code from the hub) on the tiers
    "colab" (fp16) and "gpu" (bf16).
    Raises ValueError for a name that is neither, or for a real checkpoint on tier "pocket".

    >>> model, tokenizer = load("pocket-dense")
    >>> model.training, next(model.parameters()).dtype
    (False, torch.float32)
    """
    if name in POCKET:
        return _load_pocket(WEIGHTS / name)
    if "/" not in name:
        raise ValueError(
            f'no model {name!r}: use one of {", ".join(POCKET)}, or a hub id such as "Qwen/Qwen3-0.6B"'
        )
    where = tier or globals()["tier"]()
    if where not in TIERS:
        raise ValueError(f"no tier {where!r}: use one of {', '.join(TIERS)}")
    if where == "pocket":
        raise ValueError(
            f"{name} is a real checkpoint, and this machine's tier is 'pocket' ({tier_reason()}). "
            'Use "pocket-moe" here, or pass tier="colab" or "gpu" to download and run it anyway.'
        )
    return _load_real(name, where)


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
