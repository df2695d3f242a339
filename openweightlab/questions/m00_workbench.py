"""Module 00, the bench: counting parameters, memory for weights, the next token, sorting claims.

Each `expected` carries, besides the right result, the results of common mistakes (`mistakes`), recorded
from the oracle's side too, so that a failing check can name the likeliest cause. A question with several
aspects puts one in each case: only the keys that `expected` has are looked at.
"""

import copy
from collections.abc import Callable
from typing import Any

from . import Plain, Question, Verdict
from .judging import OK, compare_number, is_tensor, no, same_values, show

Functions = tuple[Callable[..., Any], ...]


# Q0.1


def _call_count(functions: Functions, inputs: dict[str, Plain]) -> Any:
    from .tiny import build

    return functions[0](build(inputs["model"]))


def _describe_count(inputs: dict[str, Plain]) -> str:
    from .tiny import describe

    return f"count_parameters of {describe(inputs['model'])}"


COUNT_CAUSES = {
    "tied twice": "A tensor that stands in two places was counted twice.",
    "trainable only": "Only parameters that need a gradient were counted; frozen ones are parameters too.",
    "with buffers": "Buffers were counted too; they are kept with the model, but they are not learned.",
    "tensors": "That is the number of tensors, not of the numbers in them.",
    "bytes": "That is the size in bytes; each number takes several.",
    "matrices only": "Only weight matrices were counted; biases and norms are parameters too.",
    "no embeddings": "The embedding was left out; its numbers are parameters too.",
    "no experts": "The experts were left out: here they are 3-D parameters, not nn.Linear layers.",
}


def _compare_count(expected: Plain, got: Plain) -> Verdict:
    return compare_number(expected, got, 0.0, COUNT_CAUSES)


# Q0.2


def _call_gib(functions: Functions, inputs: dict[str, Plain]) -> Any:
    return functions[0](inputs["n_parameters"], inputs["bits"])


def _describe_gib(inputs: dict[str, Plain]) -> str:
    return f"weight_gib({inputs['n_parameters']}, {inputs['bits']})"


GIB_CAUSES = {
    "gb": "That is in GB of 10**9 bytes; a GiB has 2**30.",
    "mib": "That is in MiB; a GiB has 1,024 of them.",
    "bytes": "That is in bytes; divide by 2**30.",
    "no division by 8": "Bits were taken for bytes; a byte has 8 bits.",
    "gibibits": "Bits were taken for bytes; a byte has 8 bits.",
    "whole bits": "The fraction of `bits` got lost.",
    "rounded": "The result was rounded; return it as it comes.",
    "floor": "Whole-number division (//) drops the fraction; divide with /.",
}


def _compare_gib(expected: Plain, got: Plain) -> Verdict:
    return compare_number(expected, got, 1e-6, GIB_CAUSES)  # a right answer in float32 is off by 2e-7


# Q0.3


def _call_next_token(functions: Functions, inputs: dict[str, Plain]) -> dict[str, Any]:
    from .tiny import build

    model: Any = build(inputs["model"])
    model.train(inputs["training"])
    graphs: list[bool] = []
    hook = model.get_output_embeddings().register_forward_hook(lambda *a: graphs.append(a[2].requires_grad))
    first, second = (functions[0](model, inputs["input_ids"].clone()) for _ in range(2))
    hook.remove()
    return {
        "probabilities": first,
        "repeats": _equal(first, second),
        "graph": any(graphs) or bool(getattr(first, "requires_grad", False)),
        "dropout_after": _dropout_is_on(model, inputs["input_ids"]),
        "weights_after": str(next(model.parameters()).dtype),
    }


def _describe_next_token(inputs: dict[str, Plain]) -> str:
    from .tiny import describe

    mode = "train" if inputs["training"] else "eval"
    return f"input_ids {inputs['input_ids'].tolist()}, a model in {mode} mode: {describe(inputs['model'])}"


def _equal(first: Any, second: Any) -> bool:
    import torch

    return isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor) and torch.equal(first, second)


def _dropout_is_on(model: Any, input_ids: Any) -> bool:
    """What the model does, not what its flag says: with dropout on, two runs differ."""
    import torch

    with torch.no_grad():
        return not torch.equal(model(input_ids).logits, model(input_ids).logits)


PROBABILITY_CAUSES = {
    "logits": "These are logits: the softmax is missing.",
    "log": "These are log-probabilities; wanted are the probabilities themselves.",
    "first": "That is the distribution after the first token; wanted is the one after the last.",
    "before": "That is the distribution after the last token but one; take position -1.",
    "positions": "The softmax ran over the positions; it belongs over the vocabulary, the last dimension.",
    "mean": "That is a mean over all positions; only the last one predicts the next token.",
}
ASPECT_CAUSES = {
    "graph": "A gradient graph was built while the model ran; run it inside torch.no_grad().",
    "weights_after": "The model's weights were converted; convert the logits and leave the model alone.",
}


def _compare_next_token(expected: Plain, got: Plain) -> Verdict:
    if not isinstance(got, dict) or not is_tensor(got.get("probabilities")):
        came = got.get("probabilities") if isinstance(got, dict) else got
        return no(f"Expected a tensor, got {show(came)}.", "The result is not a tensor.")
    if "probabilities" in expected:
        verdict = _compare_probabilities(expected, got)
        if not verdict.ok:
            return verdict
    if "dropout_after" in expected and got.get("dropout_after") is not expected["dropout_after"]:
        return _mode_left_wrong(expected["dropout_after"])
    for aspect, cause in ASPECT_CAUSES.items():
        if aspect in expected and got.get(aspect) != expected[aspect]:
            return no("", cause)
    return OK


def _mode_left_wrong(was_training: bool) -> Verdict:
    came, left = ("train", "eval") if was_training else ("eval", "train")
    return no(
        "",
        f"The model came in {came} mode and was left in {left} mode; remember model.training and restore it.",
    )


def _compare_probabilities(expected: Plain, got: Plain) -> Verdict:
    right, came = expected["probabilities"], got["probabilities"]
    tolerance: dict[str, float] = {"relative": expected["relative"], "absolute": 1e-6}
    what = f"Expected {show(right)}, got {show(came)}."
    if came.shape != right.shape:
        return no(what, _shape_cause(list(came.shape), right.shape[0]))
    for mistake, value in expected["mistakes"].items():
        if same_values(value, came, **tolerance):
            return no(what, PROBABILITY_CAUSES[mistake])
    if not same_values(right, came, **tolerance):
        dropout = (
            ""
            if got.get("repeats") is True
            else "Two calls gave two results: dropout was on. Call model.eval() first."
        )
        return no(what, dropout)
    if expected.get("float32") and bool((came.bfloat16().double() == came.double()).all()):
        return no(
            what, "The softmax ran in bf16, which keeps 8 bits; convert the logits with .float() first."
        )
    return OK


def _shape_cause(shape: list[int], vocabulary: int) -> str:
    if shape == [1, vocabulary]:
        return "The batch dimension is still there; take the first (and only) row."
    if shape[-1:] == [vocabulary]:
        return "That is a distribution for every position; wanted is the last one's."
    return "The result must have one number for each token of the vocabulary."


# Q0.4


def _call_sort(functions: Functions, inputs: dict[str, Plain]) -> dict[str, Any]:
    claims = copy.deepcopy(inputs["claims"])
    return {"groups": functions[0](claims), "unchanged": claims == inputs["claims"]}


def _describe_sort(inputs: dict[str, Plain]) -> str:
    fields = ("id", "measurable_here", "primary_source")
    short = [{key: claim[key] for key in fields if key in claim} for claim in inputs["claims"]]
    return f"sort_claims({short}), each with a text and a press_source"


KEYS = ("measurable", "sourced", "opinion")
SORT_CAUSES = {
    "sourced first": "A claim that the course can measure is measurable, also when it has a primary source.",
    "press": "A press report is no primary source; only the field `primary_source` counts.",
    "empty source": "An empty string is no source.",
    "texts": "Those are the claims' texts; wanted are their ids.",
    "sorted": "The ids must stay in the order of the input.",
}


def _compare_sort(expected: Plain, got: Plain) -> Verdict:
    groups = got.get("groups") if isinstance(got, dict) else got
    what = f"Expected {show(expected.get('groups'))}, got {show(groups)}."
    if not isinstance(groups, dict):
        return no(what, "The result is not a dict.")
    if sorted(groups) != sorted(KEYS):
        return no(what, f"The keys must be {', '.join(KEYS)}: always all three, and no other.")
    if "groups" in expected and groups != expected["groups"]:
        for mistake, value in expected["mistakes"].items():
            if groups == value:
                return no(what, SORT_CAUSES[mistake])
        return no(what, "")
    if "unchanged" in expected and got.get("unchanged") is not True:
        return no("", "The list that came in, or a claim in it, was changed.")
    return OK


QUESTIONS = (
    Question(
        id="Q0.1",
        title="Count the parameters",
        points=3,
        functions=("count_parameters",),
        docs="""`count_parameters(model) -> int`

How many numbers does `model` (any `torch.nn.Module`) learn? Count every parameter, frozen ones too, and
count a tensor that stands in two places (a tied embedding, a layer used twice) once. Buffers, such as a
batch norm's running mean, are not parameters.""",
        call=_call_count,
        compare=_compare_count,
        describe=_describe_count,
    ),
    Question(
        id="Q0.2",
        title="Memory for the weights",
        points=2,
        functions=("weight_gib",),
        docs="""`weight_gib(n_parameters: int, bits: float) -> float`

Memory in GiB (1 GiB = 2**30 bytes) for `n_parameters` weights of `bits` bits each. `bits` may be a
fraction: a 4-bit format that also stores a 16-bit scale for every 64 weights needs 4.25. Do not round.""",
        call=_call_gib,
        compare=_compare_gib,
        describe=_describe_gib,
    ),
    Question(
        id="Q0.3",
        title="The next token's probabilities",
        points=3,
        functions=("next_token_probabilities",),
        docs="""`next_token_probabilities(model, input_ids: Tensor[1, S]) -> Tensor[V]`

The model's distribution over the token that follows the last one of `input_ids`: V numbers that add up
to 1. Run the model in eval mode (no dropout) and without building a gradient graph, then leave it in
the mode, train or eval, in which it came. The weights may be bf16: take the softmax in float32, and
leave the model's weights as they are.""",
        call=_call_next_token,
        compare=_compare_next_token,
        describe=_describe_next_token,
    ),
    Question(
        id="Q0.4",
        title="Sort the claims",
        points=2,
        functions=("sort_claims",),
        docs="""`sort_claims(claims: list[dict]) -> dict[str, list[str]]`

Sort the claims' `id`s under the three keys `"measurable"`, `"sourced"` and `"opinion"`, always all
three, each list in the order of the input. A claim is a dict with `id` (str), `text` (str), and perhaps
these two, among other fields:

- `measurable_here` (bool): this course has the means to measure it;
- `primary_source` (str): address of a paper, licence, model card or filing that settles it.

A claim with `measurable_here` is measurable, whatever else it has; any other with a primary source is
sourced; the rest is opinion. A key that is missing or None, and an empty string, count as no. Leave
`claims` as you found it.""",
        call=_call_sort,
        compare=_compare_sort,
        describe=_describe_sort,
    ),
)
