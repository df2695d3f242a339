"""Tiny models built from a plain description, which questions hand to a learner's function.

Weights are filled from the parameter's name and a seed by a generator whose stream never changes, not by
the library's own initialisation: a description gives the same weights under every version of torch and
transformers.
"""

from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import nn


def build(description: dict[str, Any]) -> nn.Module:
    """A small CPU model, in eval mode, from its description.

    Two forms: `{"family": "qwen3", "config": {...}, "seed": 1}` makes a transformers causal language
    model, and `{"layers": [["Linear", 8, 16], ["same", 0]], "tie": [[2, 0]], "seed": 1}` a plain stack of
    `torch.nn` layers, where "same" repeats an earlier layer and "tie" gives one layer another's weight.
    Both may have `"dtype"` (default "float32") and `"frozen"`, the beginnings of the names of the
    parameters that need no gradient.

    >>> model = build({"layers": [["Embedding", 5, 2], ["Linear", 2, 5]], "tie": [[1, 0]], "seed": 1})
    >>> model[0].weight is model[1].weight
    True
    """
    model = _layers(**description) if "layers" in description else _language_model(**description)
    fill(model, description["seed"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(description.get("frozen", ()))))
    return model.to(getattr(torch, description.get("dtype", "float32"))).eval()


def describe(description: dict[str, Any]) -> str:
    """A description in a line, as a learner would write the model.

    >>> describe({"layers": [["Linear", 3, 4], ["ReLU"], ["same", 0]], "seed": 1})
    'Sequential(Linear(3, 4), ReLU(), layer 0 again)'
    """
    if "layers" in description:
        words = [
            f"layer {arguments[0]} again" if kind == "same" else f"{kind}({', '.join(map(str, arguments))})"
            for kind, *arguments in description["layers"]
        ]
        tied = "".join(f", weight of {to} tied to {source}" for to, source in description.get("tie", ()))
        return f"Sequential({', '.join(words)}){tied}"
    sizes = ", ".join(f"{name}={value}" for name, value in description["config"].items())
    frozen = f", frozen: {', '.join(description['frozen'])}" if description.get("frozen") else ""
    return f"{description['family']} in {description.get('dtype', 'float32')} ({sizes}{frozen})"


def fill(model: nn.Module, seed: int) -> None:
    """Set each parameter from its name and the seed: matrices normal / sqrt(columns), vectors near 1."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            stream = np.random.RandomState((crc32(name.encode()) + seed) % 2**32)
            noise = torch.from_numpy(stream.standard_normal(tuple(parameter.shape)))
            is_matrix = parameter.ndim > 1
            parameter.copy_(noise / parameter.shape[-1] ** 0.5 if is_matrix else 1 + 0.1 * noise)


def normal(seed: int, *shape: int, scale: float = 1.0) -> torch.Tensor:
    """Normal numbers in float32 from a seed, the same everywhere.

    >>> normal(1, 2, 3).shape
    torch.Size([2, 3])
    """
    return torch.from_numpy(scale * np.random.RandomState(seed).standard_normal(shape)).float()


def byte_tokenizer(adds_start: bool = False) -> Any:
    """A tokenizer of 258 tokens, one for each byte; with `adds_start` it puts "<s>" before each text.

    >>> byte_tokenizer()("Hi").input_ids, byte_tokenizer(True)("Hi").input_ids
    ([39, 72], [256, 39, 72])
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    symbols = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<s>", "<pad>"]
    core = Tokenizer(models.BPE(vocab={symbol: id for id, symbol in enumerate(symbols)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if adds_start:
        core.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 256)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", pad_token="<pad>")


def _language_model(*, family: str, config: dict[str, Any], **_: Any) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **config))


def _layers(*, layers: list[list[Any]], tie: list[list[int]] | None = None, **_: Any) -> nn.Module:
    made: list[Any] = []
    for kind, *arguments in layers:
        made.append(made[arguments[0]] if kind == "same" else getattr(nn, kind)(*arguments))
    for to, source in tie or []:
        made[to].weight = made[source].weight
    return nn.Sequential(*made)
