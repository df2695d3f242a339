"""From logits to the odds a token is drawn with: temperature, top-k, top-p."""

import torch
from torch import Tensor


def odds(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Probabilities [V] that the next token is drawn with, from one position's logits [V].

    temperature: 0 takes the likeliest token, above 1 flattens. top_k: keep that many (0: all). top_p: keep
    the likeliest that together reach this share. Raises ValueError for settings outside of their range.

    >>> odds(torch.tensor([2.0, 1.0, 0.0]), top_k=2).tolist()[2], odds(torch.tensor([2.0, 1.0]), 0).tolist()
    (0.0, [1.0, 0.0])
    """
    if temperature < 0 or top_k < 0 or not 0 < top_p <= 1:
        got = f"got {temperature}, {top_k}, {top_p}"
        raise ValueError(f"want temperature >= 0, top_k >= 0 and 0 < top_p <= 1, {got}")
    logits = logits.float()
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(), len(logits)).float()
    ranked = torch.softmax(logits / temperature, dim=-1).sort(descending=True)
    keep = ranked.values.cumsum(0) - ranked.values < top_p  # the first token is always kept
    if top_k:
        keep[top_k:] = False
    kept = torch.zeros_like(ranked.values).scatter(0, ranked.indices, ranked.values * keep)
    return kept / kept.sum()
