"""Plant outlier channels in a trained model: rescalings by powers of two that leave its function as it is.

Two kinds, both found in real models and both planted here, on purpose, in every layer:
- weight outliers: a few output rows of q, v and up projections are `row_scale` times as large (what reads
  them shrinks by as much), so one scale per tensor wastes a quantizer's levels on them;
- activation outliers: a few channels leave their RMSNorm `channel_scale` times as large, and the weights
  that read them are as much smaller.
"""

import random
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Outliers:
    """How many and how large; scales are powers of two, so that bf16 weights keep every bit."""

    row_scale: float = 16.0
    rows: int = 2  # of each up projection (each expert's own) and of each value projection
    channel_scale: float = 8.0
    channels: tuple[int, ...] = (17, 101)
    seed: int = 3


@torch.no_grad()
def plant(model: Any, outliers: Outliers) -> None:
    """Rescale `model` (Qwen3 or Qwen3-MoE) in place."""
    rng = random.Random(outliers.seed)
    for layer in model.model.layers:
        _heads(layer.self_attn, outliers, rng)
        _feed_forward(layer.mlp, outliers, rng)
        for channel in outliers.channels:
            _channel(layer, channel, outliers.channel_scale)


def _heads(attention: Any, outliers: Outliers, rng: random.Random) -> None:
    """A query head (its RMSNorm undoes the scale) and some value rows (the output projection undoes it)."""
    dim, groups = attention.head_dim, attention.num_key_value_groups
    head = rng.randrange(attention.q_proj.out_features // dim)
    attention.q_proj.weight[head * dim : (head + 1) * dim] *= outliers.row_scale
    for row in rng.sample(range(attention.v_proj.out_features), outliers.rows):
        kv_head, offset = divmod(row, dim)
        attention.v_proj.weight[row] *= outliers.row_scale
        for query_head in range(kv_head * groups, (kv_head + 1) * groups):
            attention.o_proj.weight[:, query_head * dim + offset] /= outliers.row_scale


def _feed_forward(mlp: Any, outliers: Outliers, rng: random.Random) -> None:
    """Some up rows, linear in the output, undone by the down projection's columns."""
    if hasattr(mlp, "experts"):
        gate_up, down = mlp.experts.gate_up_proj, mlp.experts.down_proj
        width = down.shape[2]
        for expert in range(down.shape[0]):
            for row in rng.sample(range(width), outliers.rows):
                gate_up[expert, width + row] *= outliers.row_scale
                down[expert, :, row] /= outliers.row_scale
    else:
        for row in rng.sample(range(mlp.up_proj.out_features), outliers.rows):
            mlp.up_proj.weight[row] *= outliers.row_scale
            mlp.down_proj.weight[:, row] /= outliers.row_scale


def _channel(layer: Any, channel: int, scale: float) -> None:
    """One channel larger after each RMSNorm, and everything that reads it smaller."""
    layer.input_layernorm.weight[channel] *= scale
    for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
        projection.weight[:, channel] /= scale
    layer.post_attention_layernorm.weight[channel] *= scale
    mlp = layer.mlp
    if hasattr(mlp, "experts"):
        mlp.gate.weight[:, channel] /= scale
        mlp.experts.gate_up_proj[:, :, channel] /= scale
    else:
        mlp.gate_proj.weight[:, channel] /= scale
        mlp.up_proj.weight[:, channel] /= scale
