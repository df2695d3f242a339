"""Parameters counted, not believed: each model of the atlas is built on torch's meta device and measured.

A tensor on the meta device has a shape and no memory, so that a model of a trillion parameters is built in
a tenth of a second on any machine.
"""

import re
from typing import Any

from openweightlab.atlas import CONVENTIONS, Counted, Model, find

ROLES = (  # the first pattern that a tensor's name fits says what it is for
    ("positions", r"\.wpe\."),
    ("shared_experts", r"shared_(expert|mlp)"),
    ("routed_experts", r"\.experts\."),
    ("attention", r"\.(self_attn|linear_attn|attn|attention)\."),
    ("router", r"\.(router|gate)\.|\.moe_statics\.|\.e_score_correction_bias"),
    ("dense_ffn", r"\.(mlp|feed_forward)\."),
    ("norms", r""),
)


def recount(name: str) -> Counted:
    """Count an atlas model's parameters afresh: by building it, or by formula where no class exists.

    Raises ValueError where the atlas has no configuration of it, or this transformers no such class.

    >>> recount("olmoe-1b-7b").total
    6919161856
    """
    model = find(name)
    if model.config is None:
        raise ValueError(f"{model.name} can't be counted: {model.uncounted}")
    if model.config["model_type"] == "hunyuan_large":
        return summed("formula", _hunyuan_large(model.config), model)
    return summed("transformers", _measured(empty(name)), model)


def empty(name: str) -> Any:
    """Build an atlas model on the meta device: every tensor has its shape and none has any memory.

    For a model that reads images too it is the text part (`Model.part`).

    >>> empty("deepseek-v3").model.layers[60].mlp.experts.down_proj.shape
    torch.Size([256, 7168, 2048])
    """
    import torch
    from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

    model = find(name)
    if model.config is None:
        raise ValueError(f"{model.name} can't be built: {model.uncounted}")
    if model.config["model_type"] not in CONFIG_MAPPING:
        raise ValueError(f"this transformers has no class {model.config['model_type']!r} for {model.name}")
    config = AutoConfig.for_model(**model.config, pad_token_id=None)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def summed(by: str, parts: dict[str, int], model: Model) -> Counted:
    """Total and the three conventions of "active" from the parts."""
    chosen, experts = model.experts or (1, 1)
    total, routed = sum(parts.values()), parts.get("routed_experts", 0)
    active = total - routed * (experts - chosen) // experts
    lookup = parts.get("input_table", 0)
    tables = lookup + parts.get("head", 0) + parts.get("positions", 0)
    counts = (active, active - lookup, active - tables)
    return Counted(by=by, total=total, parts=parts, **dict(zip(CONVENTIONS, counts, strict=True)))


def _measured(module: Any) -> dict[str, int]:
    """Parameters by role; a tied table stands as the head, because that is where all of it is read."""
    table, head = module.get_input_embeddings().weight, module.get_output_embeddings().weight
    parts = {"head": head.numel()} if head is table else {"input_table": table.numel(), "head": head.numel()}
    for name, tensor in module.named_parameters():
        if tensor is not table and tensor is not head:
            role = next(role for role, pattern in ROLES if re.search(pattern, name))
            parts[role] = parts.get(role, 0) + tensor.numel()
    return parts


def _hunyuan_large(config: dict[str, Any]) -> dict[str, int]:
    """Hunyuan-Large from its configuration; transformers has no class for it.

    Every second layer uses the keys and values of the one before it, so that only half of the layers project
    them (cross-layer attention; an assumption that gives the published 389B and 52B).
    """
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    queries = config["num_attention_heads"] * config["head_dim"]
    values = config["num_key_value_heads"] * config["head_dim"]
    cached = layers // config["cla_share_factor"]
    expert = 3 * width * config["intermediate_size"]
    return {
        "head": config["vocab_size"] * width,
        "attention": layers * (2 * width * queries + config["head_dim"])
        + cached * (2 * width * values + config["head_dim"]),
        "router": layers * width * config["num_experts"],
        "routed_experts": layers * config["num_experts"] * expert,
        "shared_experts": layers * config["num_shared_expert"] * expert,
        "norms": (2 * layers + 1) * width,
    }
