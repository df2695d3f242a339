"""Plant outlier channels in a trained model: rescalings by powers of two that leave its function as it is.

Three kinds, all met in real models, all planted here on purpose, in every layer:
- weight rows: a few output rows of the query, value and up projections are `row_scale` times as large (what
  reads them is as much smaller), so one scale for a whole tensor wastes a quantizer's levels;
- weight columns: the weights that read `weight_channels` are `weight_scale` times as large (the RMSNorm
  before is as much smaller), so a group of inputs that holds such a column is rounded coarsely too;
- activations: `activation_channels` leave their RMSNorm `activation_scale` times as large (the weights that
  read them are as much smaller), so one scale for all activations wastes levels.
"""

import random
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Outliers:
    """How many and how large; scales are powers of two, so that bf16 weights keep every bit."""

    row_scale: float = 4.0
    rows: int = 2  # of each up projection (each expert's own) and of each value projection
    weight_scale: float = 8.0
    weight_channels: tuple[int, ...] = (5, 37, 69, 101)
    activation_scale: float = 8.0
    activation_channels: tuple[int, ...] = (17, 110)
    seed: int = 3


@torch.no_grad()
def plant(model: Any, outliers: Outliers) -> None:
    """Rescale `model` (Qwen3 or Qwen3-MoE) in place."""
    rng = random.Random(outliers.seed)
    for layer in model.model.layers:
        _heads(layer.self_attn, outliers, rng)
        _feed_forward(layer.mlp, outliers, rng)
        for channel in outliers.weight_channels:
            _channel(layer, channel, 1 / outliers.weight_scale)
        for channel in outliers.activation_channels:
            _channel(layer, channel, outliers.activation_scale)


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
    """One channel `scale` times as large after each RMSNorm, and everything that reads it as much smaller."""
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
