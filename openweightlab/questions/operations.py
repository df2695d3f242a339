"""Counting the floating-point operations of an answer, whichever way it multiplies."""

import math
from collections.abc import Callable
from typing import Any


def count_operations(function: Callable[[], Any]) -> tuple[Any, int]:
    """What `function()` returns, and the operations that torch did for it on this thread.

    Two for each multiply-and-add of a matrix product (plain, batched, grouped, with a vector), and two for
    each elementwise multiplication, so that a product written as `(a * b).sum()` counts alike.

    >>> import torch
    >>> count_operations(lambda: torch.ones(2, 3) @ torch.ones(3, 4))[1]
    48
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False, custom_mapping=_formulas()) as counter:
        result = function()
    return result, counter.get_total_flops()


def _formulas() -> dict[Any, Callable[..., int]]:
    """Formulas, from shapes, of what torch's own counter leaves out."""
    from torch import ops

    aten = ops.aten
    return {
        aten.mul: lambda *_, out_shape=None, **__: 2 * math.prod(out_shape),
        aten.addcmul: lambda *_, out_shape=None, **__: 2 * math.prod(out_shape),
        aten.dot: lambda vector, *_, **__: 2 * math.prod(vector),
        aten.mv: lambda matrix, *_, **__: 2 * math.prod(matrix),
        aten.addmv: lambda _, matrix, *__, **___: 2 * math.prod(matrix),
        aten.addbmm: lambda _, a, b, **__: 2 * math.prod(a) * b[-1],
        aten._grouped_mm: lambda a, *_, out_shape=None, **__: 2 * math.prod(out_shape) * a[-1],
    }
