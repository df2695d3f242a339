"""Module 00, the bench: counting parameters, memory for weights, the next token's distribution, sorting claims."""

from collections.abc import Callable
from typing import Any

from . import Plain, Question, Verdict

Functions = tuple[Callable[..., Any], ...]


def _later(*_: Any) -> Any:
    raise RuntimeError("This question is being written.")


QUESTIONS = (
    Question(
        id="Q0.1",
        title="Count the parameters",
        points=3,
        functions=("count_parameters",),
        docs="""`count_parameters(model) -> int`

How many numbers does `model` (any `torch.nn.Module`) learn? Count every parameter, frozen ones too, and count a tensor
that stands in two places (a tied embedding, a layer used twice) once. Buffers, such as a batch norm's running mean, are not parameters.""",
        call=_later,
        compare=_later,
    ),
    Question(
        id="Q0.2",
        title="Memory for the weights",
        points=2,
        functions=("weight_gib",),
        docs="""`weight_gib(n_parameters: int, bits: float) -> float`

Memory in GiB (1 GiB = 2**30 bytes) for `n_parameters` weights of `bits` bits each. `bits` may be a fraction:
a 4-bit format that also stores a 16-bit scale for every 64 weights needs 4.25. Do not round.""",
        call=_later,
        compare=_later,
    ),
    Question(
        id="Q0.3",
        title="The next token's probabilities",
        points=3,
        functions=("next_token_probabilities",),
        docs="""`next_token_probabilities(model, input_ids: Tensor[1, S]) -> Tensor[V]`

The model's distribution over the token that follows the last one of `input_ids`: V numbers that add up to 1.
Run the model in eval mode (no dropout) and without building a gradient graph, then leave it in the mode, train or eval,
in which it came. The weights may be bf16: take the softmax in float32, and leave the model's weights as they are.""",
        call=_later,
        compare=_later,
    ),
    Question(
        id="Q0.4",
        title="Sort the claims",
        points=2,
        functions=("sort_claims",),
        docs="""`sort_claims(claims: list[dict]) -> dict[str, list[str]]`

Sort the claims' `id`s under the three keys `"measurable"`, `"sourced"` and `"opinion"`, always all three, each list in the
order of the input. A claim is a dict with `id` (str), `text` (str), and perhaps these two, among other fields:

- `measurable_here` (bool): this course has the means to measure it;
- `primary_source` (str): address of a paper, licence, model card or filing that settles it.

A claim with `measurable_here` is measurable, whatever else it has; any other with a primary source is sourced; the rest is opinion.
A key that is missing or None, and an empty string, count as no. Leave `claims` as you found it.""",
        call=_later,
        compare=_later,
    ),
)
