"""How fast this computer reads memory and multiplies: the two roofs under which a model runs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


def fastest(function: Callable[..., Any], *arguments: Any, tries: int = 5) -> float:
    """Seconds that `function(*arguments)` takes at best, out of `tries`, after one that warms up.

    The best counts, and only time in which this thread had a processor: other programs can make it slower
    still, never faster. Other threads' work is not seen, so let torch use `one_core()`.
    """
    function(*arguments)
    took = []
    for _ in range(tries):
        start = time.thread_time()
        function(*arguments)
        took.append(time.thread_time() - start)
    return min(took)


def bandwidth(mib: int = 256) -> float:
    """Memory bandwidth as reached by reading `mib` MiB once, in GB/s (10**9 bytes)."""
    numbers = torch.ones(mib * 2**20 // 4)
    seconds = min(fastest(numbers.sum), fastest(torch.dot, numbers, numbers))
    return numbers.nbytes / seconds / 1e9


def peak(size: int = 1024) -> float:
    """Operations as reached by a product of two large matrices in float32, in GFLOP/s."""
    matrix = torch.ones(size, size)
    return 2 * size**3 / fastest(torch.mm, matrix, matrix) / 1e9


@contextmanager
def one_core() -> Iterator[None]:
    """Let torch use one core in a `with` block: slower, and steadier where other programs run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
