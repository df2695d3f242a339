"""Module 01, Mixture of Experts: counting, routing, computing, balancing, decoding, specialising.

A question with several aspects puts one in each case: only the keys that `expected` has are looked at.
Its `mistakes` are the results of common mistakes, recorded from the oracle's side too.
"""

from collections.abc import Callable
from typing import Any

from . import Plain, Question, Verdict
from .judging import OK, as_number, close, compare_number, is_tensor, no, same_values, show

Functions = tuple[Callable[..., Any], ...]


def _config(values: dict[str, Plain]) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model("qwen3_moe", **values)


# Q1.1


def _call_counts(functions: Functions, inputs: dict[str, Plain]) -> Any:
    return functions[0](_config(inputs["config"]))


COUNTS_CAUSES = {
    "all experts": "That counts every expert; a token is computed by num_experts_per_tok of them.",
    "one expert": "That counts one expert a layer; a token is computed by num_experts_per_tok of them.",
    "tied twice": "A tied table is one tensor with two names; it was counted twice.",
    "table and head": "The head was left out; this convention drops the lookup table only, and a tied "
    "table is the head as well, so it stays.",
    "input table": "The input table is still in; this convention drops it.",
    "head": "The output head is still in; this convention drops both tables.",
    "step ignored": "Every layer was given experts; with decoder_sparse_step n only every n-th one has them.",
    "step from zero": "The wrong layers have experts: layer i, counted from 0, has them where (i + 1) is a "
    "multiple of decoder_sparse_step.",
    "list ignored": "The layers in mlp_only_layers are dense, whatever decoder_sparse_step says.",
    "dense width": "Experts were given intermediate_size; theirs is moe_intermediate_size.",
    "expert width": "Dense layers were given moe_intermediate_size; theirs is intermediate_size.",
    "head_dim": "Heads are config.head_dim wide, which need not be hidden_size / num_attention_heads.",
    "equal heads": "Keys and values were given num_attention_heads heads; they have num_key_value_heads.",
    "no bias": "With attention_bias the four attention projections have biases.",
    "no router": "The router is missing: num_experts x hidden_size in each layer with experts.",
    "share of router": "The router works whole for every token; only experts are chosen.",
    "no head norms": "The norms of queries and keys are missing: head_dim numbers each, in every layer.",
    "no norms": "The norms are missing.",
    "two matrices": "An expert has three matrices: gate, up and down.",
}


def _compare_counts(expected: Plain, got: Plain) -> Verdict:
    if not isinstance(got, dict):
        return no(f"Expected a dict, got {show(got)}.", "The result is not a dict.")
    for key, right in expected["counts"].items():
        if key not in got:
            return no(f"The keys are {show(sorted(got))}.", f"The key {key!r} is missing.")
        verdict = _compare_count(key, right, got[key], expected["mistakes"])
        if not verdict.ok:
            return verdict
    return OK


def _compare_count(key: str, right: int, got: Plain, mistakes: dict[str, dict[str, int]]) -> Verdict:
    what = f"{key}: expected {show(right)}, got {show(got)}."
    number = as_number(got)
    if number is None:
        return no(what, f"{key} is not a number.")
    if number == right:
        return OK
    for mistake, counts in mistakes.items():
        if counts[key] == number:
            return no(what, f"{key}: {COUNTS_CAUSES[mistake]}")
    return no(what, f"{key} is wrong.")


# Q1.2 and Q1.5: which experts, and with what weight


def _call_route(functions: Functions, inputs: dict[str, Plain]) -> Any:
    tensors = (inputs["hidden"].clone(), inputs["router_weight"].clone())
    return functions[0](*tensors, inputs["top_k"], inputs["renormalise"])


def _call_bias(functions: Functions, inputs: dict[str, Plain]) -> Any:
    choose, update = functions
    if "scores" in inputs:
        return choose(inputs["scores"].clone(), inputs["bias"].clone(), inputs["top_k"])
    bias, load = inputs["bias"].clone(), inputs["load"].clone()
    return {"bias": update(bias, load, inputs["speed"])}


ROUTE_CAUSES = {
    "not renormalised": "The weights don't add up to 1: with `renormalise` divide them by their sum.",
    "renormalised": "The weights add up to 1, which was not asked for here.",
    "softmax of chosen": "The softmax ran over the chosen experts only; it belongs over all of them.",
    "softmax of probabilities": "A second softmax ran over the chosen probabilities; divide by their sum.",
    "over tokens": "The softmax ran over the tokens; it belongs over the experts, the last dimension.",
    "logits": "These are logits: the softmax is missing.",
    "sigmoid": "These are sigmoids of the logits; this router takes a softmax.",
    "lowest": "The K lowest were chosen; wanted are the K highest.",
    "biased weights": "The weights hold the bias: it chooses, and the plain score weighs.",
    "bias ignored": "The experts were chosen without the bias.",
    "bias subtracted": "The bias was subtracted; it is added to the scores.",
    "normalised": "The weights were divided by their sum; wanted are the plain scores.",
}


def _compare_routing(expected: Plain, got: Plain) -> Verdict:
    """Both tensors row by row, whatever the order of the experts within a row."""
    problem = _not_a_routing(expected["ids"], got)
    if problem:
        return no(*problem)
    weights, ids = got
    order = ids.argsort(dim=1)
    ids, weights = ids.gather(1, order).long(), weights.double().gather(1, order)
    if not bool((ids == expected["ids"]).all()):
        return _wrong_experts(expected, ids)
    if "weights" not in expected:
        return OK
    return _compare_weights(expected, weights)


def _not_a_routing(right: Any, got: Plain) -> tuple[str, str] | None:
    """What keeps a result from being weights and expert ids at all, in a sentence, and its cause."""
    if not isinstance(got, list) or len(got) != 2 or not all(is_tensor(part) for part in got):
        return f"Expected two tensors, got {show(got)}.", "The result is not a pair (weights, expert_ids)."
    weights, ids = got
    if ids.is_floating_point() and not weights.is_floating_point():
        return "", "The two results changed places: weights come first, then expert ids."
    if ids.is_floating_point() or str(ids.dtype) == "torch.bool" or not weights.is_floating_point():
        return "", f"Expert ids are whole numbers and weights are not; here {ids.dtype} and {weights.dtype}."
    for name, part in (("weights", weights), ("expert_ids", ids)):
        if part.shape != right.shape:
            what = f"{name}: expected shape {list(right.shape)}, got {list(part.shape)}."
            return what, f"{name} does not have one number for each token and chosen expert, [T, K]."
    return None


def _wrong_experts(expected: Plain, ids: Any) -> Verdict:
    rows = (ids != expected["ids"]).any(dim=1).nonzero().flatten().tolist()
    right, came = (part[rows[0]].tolist() for part in (expected["ids"], ids))
    what = f"Token {rows[0]}: expected the experts {right}, got {came}."
    for mistake, value in expected["wrong_ids"].items():
        if bool((ids == value).all()):
            return no(what, ROUTE_CAUSES[mistake])
    if bool((ids[:, 1:] == ids[:, :-1]).any()):
        return no(what, "An expert was chosen twice for one token.")
    return no(what, "The chosen experts are not the right ones.")


def _compare_weights(expected: Plain, weights: Any) -> Verdict:
    right = expected["weights"]
    tolerance: dict[str, float] = {"relative": expected["relative"], "absolute": 1e-6}
    if same_values(right, weights, **tolerance):
        return OK
    what = f"For token 0 expected the weights {_row(right)}, got {_row(weights)} (in order of expert id)."
    if not bool(weights.isfinite().all()):
        return no(what, "Some weights are not finite: the exponential of a large logit overflows.")
    if same_values(right.sort().values, weights.sort().values, **tolerance):
        return no(what, "The weights belong to other experts: both results must be in one order.")
    for mistake, value in expected["wrong_weights"].items():
        if same_values(value, weights, **tolerance):
            return no(what, ROUTE_CAUSES[mistake])
    return no(what, "The experts are right, their weights are not.")


def _row(weights: Any) -> list[float]:
    return [round(weight, 5) for weight in weights[0].tolist()]


UPDATE_CAUSES = {
    "wrong way": "The bias moved the wrong way: an expert with too much load must become less attractive.",
    "proportional": "The step grew with the difference; every bias moves by `speed`, or not at all.",
    "share": "The step grew with the difference; every bias moves by `speed`, or not at all.",
    "at the mean": "An expert whose load is exactly the mean keeps its bias: sign(0) is 0.",
    "below only": "Only one side was moved; experts with too much load go down, those with too little go up.",
    "above only": "Only one side was moved; experts with too much load go down, those with too little go up.",
    "no speed": "The step is not `speed`.",
    "step only": "That is the change; wanted is the new bias.",
    "unchanged": "The bias did not change.",
    "median": "Loads were compared with their median; wanted is the mean.",
}


def _compare_bias(expected: Plain, got: Plain) -> Verdict:
    if "ids" in expected:
        return _compare_routing(expected, got)
    right = expected["bias"]
    came: Plain = got.get("bias") if isinstance(got, dict) else got
    if not is_tensor(came) or came.shape != right.shape:
        what = f"Expected a tensor of shape {list(right.shape)}, got {show(came)}."
        return no(what, "update_bias must return the new bias, a tensor with one number for each expert.")
    if same_values(right, came, relative=1e-5, absolute=1e-6):
        return OK
    what = f"Expected {_numbers(right)}, got {_numbers(came)}."
    for mistake, value in expected["mistakes"].items():
        if same_values(value, came, relative=1e-5, absolute=1e-6):
            return no(what, UPDATE_CAUSES[mistake])
    return no(what, "The new bias is not the right one.")


def _numbers(values: Any) -> list[float]:
    return [round(value, 5) for value in values.tolist()]


# Q1.3


def _call_forward(functions: Functions, inputs: dict[str, Plain]) -> dict[str, Any]:
    """The output, the operations it took, and whether the inputs are as they were."""
    import torch

    from .operations import count_operations

    arguments = _expert_arguments(inputs)
    before = [argument.clone() for argument in arguments]
    with torch.no_grad():
        output, operations = count_operations(lambda: functions[0](*arguments))
    unchanged = all(torch.equal(a, b) for a, b in zip(arguments, before, strict=True))
    return {"output": output, "operations": operations, "unchanged": unchanged}


def _expert_arguments(inputs: dict[str, Plain]) -> list[Any]:
    """Hidden states and expert weights from the case's seed; weights and ids as they stand there."""
    from .tiny import normal

    tokens, (experts, width, size) = len(inputs["expert_ids"]), inputs["sizes"]
    seed = inputs["seed"]
    return [
        normal(seed, tokens, size),
        normal(seed + 1, experts, 2 * width, size, scale=size**-0.5),
        normal(seed + 2, experts, size, width, scale=width**-0.5),
        inputs["weights"].clone(),
        inputs["expert_ids"].clone(),
    ]


FORWARD_CAUSES = {
    "halves swapped": "Gate and up changed places: the first I rows are the gate, and SiLU is for it.",
    "interleaved": "Gate and up were taken in turn; the first I rows are the gate, the rest is up.",
    "no activation": "The activation is missing: SiLU of the gate.",
    "gelu": "That is GELU; these experts use SiLU.",
    "no gate": "The gate is missing: silu(gate) * up goes into down_proj.",
    "unweighted": "The experts' outputs were added up without their weights.",
    "weighted input": "The weight was applied to the input of the expert; it belongs on its output.",
    "first only": "Only the first of each token's experts arrived in the sum.",
    "last only": "Only the last of each token's experts arrived: add to the output, don't overwrite it.",
    "mean": "The experts' outputs were averaged; wanted is their weighted sum.",
    "weights by rank": "Weights went to the wrong experts: weights[t, k] belongs to expert_ids[t, k].",
    "residual": "The input was added; that residual is the decoder layer's business.",
}
SPARE = 0.05  # share of the sparse minimum by which the operations may differ


def _compare_forward(expected: Plain, got: Plain) -> Verdict:
    right = expected["output"]
    came: Plain = got.get("output") if isinstance(got, dict) else got
    if not is_tensor(came) or came.shape != right.shape:
        what = f"Expected a tensor of shape {list(right.shape)}, got {show(came)}."
        return no(what, "The result is not a tensor with one row for each token, [T, H].")
    if not same_values(right, came, relative=1e-3, absolute=1e-4):
        what = f"Expected {show(right)}, got {show(came)}."
        for mistake, value in expected["mistakes"].items():
            if same_values(value, came, relative=1e-3, absolute=1e-4):
                return no(what, FORWARD_CAUSES[mistake])
        return no(what, "The values are not the right ones.")
    if "unchanged" in expected and got.get("unchanged") is not True:
        return no("", "One of the tensors that came in was changed.")
    return _compare_operations(expected, got.get("operations"))


def _compare_operations(expected: Plain, operations: Plain) -> Verdict:
    """Within the spare share of the least possible: three products for each token and chosen expert."""
    if "operations" not in expected:
        return OK
    least = expected["operations"]
    count = as_number(operations)
    if count is None or count < least * (1 - SPARE):
        what = f"{show(operations)} operations were counted, and it takes {show(least)}."
        return no(
            what, "The values are right, but not multiplied in torch, where the operations are counted."
        )
    if count <= least * (1 + SPARE):
        return OK
    what = f"The values are right, but took {count / least:.3g} times the operations needed: {show(count)}."
    if close(expected["all_experts"], count / least, relative=0.1):
        return no(what, "Every expert was computed for every token; compute the chosen ones only.")
    return no(what, "The values are right, but took more operations than the chosen experts need.")


# Q1.4


def _call_balance(functions: Functions, inputs: dict[str, Plain]) -> dict[str, Any]:
    """The loss, and its gradient where one can flow."""
    import torch

    logits = inputs["router_logits"].clone().requires_grad_()
    loss = functions[0](logits, inputs["top_k"])
    gradient = None
    if isinstance(loss, torch.Tensor) and loss.requires_grad and loss.numel() == 1:
        (gradient,) = torch.autograd.grad(loss.sum(), logits, allow_unused=True)
    return {"loss": loss, "gradient": gradient}


BALANCE_CAUSES = {
    "no factor": "The factor E, the number of experts, is missing.",
    "divided by K": "That is K times too small: shares are of tokens, so those of all experts add up to K.",
    "sums": "A sum over tokens was not divided by their number; f and P are both means.",
    "logits": "The mean was taken of the logits; softmax over the experts comes first.",
    "first choice": "Only each token's first choice was counted; all K count.",
    "over tokens": "The softmax ran over the tokens; it belongs over the experts, the last dimension.",
    "masked": "Probabilities were averaged over the choices only; take the mean over all tokens.",
    "squares": "Shares were squared; one factor is the mean probability.",
    "probabilities twice": "Mean probabilities were squared; one factor is the share of choices.",
    "renormalised": "The chosen probabilities were renormalised; take the mean of the softmax as it is.",
}


def _compare_balance(expected: Plain, got: Plain) -> Verdict:
    loss: Plain = got.get("loss") if isinstance(got, dict) else got
    if is_tensor(loss) and loss.numel() == 1 and loss.ndim:
        return no(
            f"Expected a 0-d tensor, got {show(loss)}.", "The loss has dimensions; wanted is one number."
        )
    verdict = compare_number(expected, loss, 1e-4, BALANCE_CAUSES)
    if not verdict.ok or "gradient" not in expected:
        return verdict
    if not is_tensor(got.get("gradient")):
        return no("", "No gradient reaches the logits: stay with tensors, and outside of no_grad.")
    if not same_values(expected["gradient"], got["gradient"], relative=1e-3, absolute=1e-6):
        return no("", "The loss is right, but its gradient is not.")
    return OK


# Q1.6


def _call_touched(functions: Functions, inputs: dict[str, Plain]) -> Any:
    return functions[0](inputs["batch_tokens"], inputs["num_experts"], inputs["top_k"])


TOUCHED_CAUSES = {
    "as many as choices": "That is batch_tokens x top_k, limited by E: tokens often choose the same expert.",
    "choices": "That is batch_tokens x top_k: tokens often choose the same expert.",
    "untouched": "That is the number of experts that no token chooses.",
    "with replacement": "A token's K experts are different ones, so the chance to miss an expert is 1 - K/E.",
    "top one": "K is missing: one token misses an expert with chance 1 - K/E.",
    "share": "That is a share of the experts; wanted is their number.",
    "rounded": "The result was rounded; return it as it comes.",
    "one token": "That is the number for one token.",
}


def _compare_touched(expected: Plain, got: Plain) -> Verdict:
    return compare_number(expected, got, 1e-5, TOUCHED_CAUSES)


# Q1.7


def _call_decode(functions: Functions, inputs: dict[str, Plain]) -> Any:
    count, ceiling = functions
    if "n_bytes" in inputs:
        return ceiling(inputs["n_bytes"], inputs["bandwidth_gb_s"], inputs["batch"])
    rest = ("batch", "context", "weight_bits", "cache_bits")
    return count(_config(inputs["config"]), *(inputs[name] for name in rest))


DECODE_CAUSES = {
    "all experts": "Every expert was read; a step reads those that the batch touches.",
    "as for one": "The experts of one token were read; a batch touches more (Q1.6).",
    "once each": "Experts were read again for every token; one that several tokens chose is read once.",
    "input table": "The input table was read whole; a step looks up one row for each token.",
    "no head": "The output head is missing; a tied table is the head, and read whole.",
    "no cache": "The KV cache is missing.",
    "one cache": "The cache of one sequence was read; every sequence has its own.",
    "keys only": "The cache holds keys and values: two tensors a layer.",
    "one layer": "The cache of one layer was read; every layer has its own.",
    "all heads": "The cache was given num_attention_heads heads; keys and values have num_key_value_heads.",
    "head_dim": "Heads in the cache are config.head_dim wide.",
    "one token": "One token's keys and values were read; the cache holds `context` of them.",
    "cache at weight bits": "The cache was counted at weight_bits; its own are cache_bits.",
    "step ignored": "Every layer was given experts; with decoder_sparse_step n only every n-th one has them.",
    "list ignored": "The layers in mlp_only_layers are dense, whatever decoder_sparse_step says.",
    "bits": "These are bits; a byte has 8.",
    "16 bits": "Weights were counted at 16 bits; theirs are weight_bits.",
    "weights per sequence": "Weights were read for each sequence; a step reads them once for all.",
    "per token": "The bytes were divided by the batch; wanted are those of the whole step.",
    "gib": "A GB/s is 10**9 bytes per second.",
    "no batch": "These are steps per second; each step makes one token for every sequence.",
    "seconds": "That is the time of one step; wanted are tokens per second.",
    "batch divided": "The batch was divided by; each step makes one token for every sequence.",
    "no giga": "The bandwidth is in GB/s, of 10**9 bytes.",
}


def _compare_decode(expected: Plain, got: Plain) -> Verdict:
    return compare_number(expected, got, 0.01, DECODE_CAUSES, mistaken=1e-4)


# Q1.8


def _call_table(functions: Functions, inputs: dict[str, Plain]) -> Any:
    from .tiny import build, byte_tokenizer

    table, information = functions
    if "table" in inputs:
        return information(inputs["table"].clone())
    texts = {domain: list(lines) for domain, lines in inputs["texts"].items()}
    return table(build(inputs["model"]), byte_tokenizer(inputs["adds_start"]), texts, inputs["layer"])


TABLE_CAUSES = {
    "counts": "These are counts; divide each row by its sum.",
    "columns": "The columns add up to 1; wanted are rows that do.",
    "whole": "The table as a whole adds up to 1; wanted is each row.",
    "per token": "Rows add up to K: divide by the number of choices, not of tokens.",
    "weighted": "Choices were weighed by the router; each counts as one.",
    "first choice": "Only each token's first choice was counted; all K count.",
    "probabilities": "These are mean probabilities of the router; wanted are shares of choices.",
    "texts alike": "Each text was given the same say; each token's choices count, so long texts count more.",
    "first text": "Only the first text of each domain was counted.",
    "special tokens": "A special token was counted: tokenize with add_special_tokens=False.",
    "another layer": "That is another layer's table. Layers are counted from 0, dense ones too.",
    "last token": "Only each text's last token was counted.",
}
INFORMATION_CAUSES = {
    "nats": "That is in nats; use the logarithm to base 2.",
    "sum": "That is D times too much: each domain has the weight 1 / D.",
    "marginal": "That is the entropy of the mean row; the rows' own entropy is still to be taken off.",
    "rows": "That is the mean entropy of the rows; take it off the entropy of their mean.",
    "sign": "The sign is wrong.",
    "normalised": "The result was divided by an entropy; wanted are bits.",
    "decimal": "That is to base 10; use the logarithm to base 2.",
}


def _compare_table(expected: Plain, got: Plain) -> Verdict:
    if "value" in expected:
        return _compare_information(expected, got)
    right = expected["table"]
    what = f"Expected {show(right)}, got {show(got)}."
    if not is_tensor(got) or got.shape != right.shape:
        return no(
            what, "The result is not a tensor with one row for each domain, one column for each expert."
        )
    if same_values(right, got, relative=1e-4, absolute=1e-5):
        return OK
    for mistake, value in expected["mistakes"].items():
        if same_values(value, got, relative=1e-4, absolute=1e-5):
            return no(what, TABLE_CAUSES[mistake])
    if not bool(((got.double().sum(dim=1) - 1).abs() < 1e-3).all()):
        return no(what, "The rows don't add up to 1.")
    return no(what, "The shares are not the right ones.")


def _compare_information(expected: Plain, got: Plain) -> Verdict:
    if is_tensor(got) and got.ndim == 0 and bool(got.isnan()):
        return no("The result is NaN.", "0 x log 0 was computed, which is NaN; it counts as 0.")
    if isinstance(got, float) and got != got:
        return no("The result is NaN.", "0 x log 0 was computed, which is NaN; it counts as 0.")
    number = as_number(got)
    if number is not None and close(expected["value"], number, relative=1e-3, absolute=1e-5):
        return OK
    return compare_number(expected, got, 1e-3, INFORMATION_CAUSES)


QUESTIONS = (
    Question(
        id="Q1.1",
        title="Three kinds of active",
        points=4,
        functions=("moe_parameter_counts",),
        docs="""`moe_parameter_counts(config) -> dict[str, int]`

How many parameters has a Qwen3-MoE model with this configuration (a transformers `Qwen3MoeConfig`), and
how many of them work on one token? Exact whole numbers under four keys:

- `total`: all of them, each tensor once;
- `active_all_in`: the total without the experts that a token does not choose. Everything else is
  active: the router whole, all norms, dense layers, both tables;
- `active_without_input_table`: the same without the input table. A tied table is also the output
  head, so it stays;
- `active_without_embeddings`: the same without input table and output head.

Layer i, counted from 0, has experts where (i + 1) is a multiple of `decoder_sparse_step` and i is not in
`mlp_only_layers`; the others have one dense feed-forward of `intermediate_size`. `attention_bias` gives
all four attention projections a bias; queries and keys have a norm of `head_dim` numbers in every layer.
Add up by formula, or build the model on the meta device, where it takes no memory.""",
        call=_call_counts,
        compare=_compare_counts,
    ),
    Question(
        id="Q1.2",
        title="Route the tokens",
        points=3,
        functions=("route",),
        docs="""`route(hidden: Tensor[T, H], router_weight: Tensor[E, H], top_k: int, renormalise: bool)
-> tuple[Tensor[T, K], Tensor[T, K]]`

Weights and expert ids (whole numbers) of each token's `top_k` experts, as Qwen3-MoE's router gives them:
logits are `hidden` times the transposed `router_weight`; a softmax in float32 over all experts; the
`top_k` most probable ones. Their weights are those probabilities, with `renormalise` divided by their sum,
so that each row adds up to 1. The order of the experts within a row is free, but the same in both
tensors. `hidden` and `router_weight` may be bf16.""",
        call=_call_route,
        compare=_compare_routing,
    ),
    Question(
        id="Q1.3",
        title="Compute the chosen experts only",
        points=5,
        functions=("moe_forward",),
        docs="""`moe_forward(hidden: Tensor[T, H], gate_up_proj: Tensor[E, 2I, H], down_proj: Tensor[E, H, I],
weights: Tensor[T, K], expert_ids: Tensor[T, K]) -> Tensor[T, H]`

The output of a layer of experts: for each token the sum over its K experts of weight times expert(token).
Expert e is a SwiGLU: `gate_up_proj[e]` times the token gives gate (the first I numbers) and up (the
others), and `down_proj[e]` times silu(gate) * up is its output. `expert_ids` are int64, and a token's are
different ones; the weights need not add up to 1. Leave the inputs as they are.

**Compute no expert for a token that did not choose it.** The floating-point operations that torch does
(two for each multiply-and-add of a matrix product, two for each elementwise multiplication) must be within
5 % of the least possible, 6 x T x K x H x I. So pick rows by index instead of multiplying with masks; loops
over experts, loops over tokens, sorting and grouped products are all fine.""",
        call=_call_forward,
        compare=_compare_forward,
    ),
    Question(
        id="Q1.4",
        title="The load-balancing loss",
        points=3,
        functions=("load_balance_loss",),
        docs="""`load_balance_loss(router_logits: Tensor[T, E], top_k: int) -> Tensor[]`

The auxiliary loss that keeps experts busy alike, as transformers computes it for one layer:

    E x sum over experts e of  f(e) x P(e)

f(e) is the share of tokens that have e among their `top_k` (so the f of all experts add up to K), P(e)
the mean over tokens of the softmax over all experts. A 0-d tensor, through which the gradient flows back
to the logits (through P; counting has none).""",
        call=_call_balance,
        compare=_compare_balance,
    ),
    Question(
        id="Q1.5",
        title="Balance without a loss",
        points=3,
        functions=("biased_topk", "update_bias"),
        docs="""`biased_topk(scores: Tensor[T, E], bias: Tensor[E], top_k: int)
-> tuple[Tensor[T, K], Tensor[T, K]]`

Weights and expert ids as in DeepSeek-V3's balancing: the `top_k` experts with the highest score plus bias
are chosen; a chosen expert's weight is its plain score, without the bias and not renormalised. The order
within a row is free, but the same in both tensors.

`update_bias(bias: Tensor[E], load: Tensor[E], speed: float) -> Tensor[E]`

The new bias after a step in which expert e got `load[e]` tokens (whole numbers or floats): `speed` lower
where the load is above the mean load, `speed` higher where it is below, unchanged where it is equal.""",
        call=_call_bias,
        compare=_compare_bias,
    ),
    Question(
        id="Q1.6",
        title="Experts touched by a batch",
        points=3,
        functions=("expected_experts_touched",),
        docs="""`expected_experts_touched(batch_tokens: int, num_experts: int, top_k: int) -> float`

How many different experts of one layer does a batch need, on average? Each of `batch_tokens` tokens
chooses `top_k` different experts out of `num_experts`, all sets alike probable, each token for itself. The
exact expectation, not rounded, not simulated; no tokens touch no expert.""",
        call=_call_touched,
        compare=_compare_touched,
    ),
    Question(
        id="Q1.7",
        title="What a decoding step reads",
        points=4,
        functions=("decode_bytes", "decode_ceiling"),
        docs="""`decode_bytes(config, batch: int, context: int, weight_bits: float, cache_bits: float)
-> float`

Bytes that one decoding step of a Qwen3-MoE model (a transformers `Qwen3MoeConfig`) reads from memory, while
each of `batch` sequences has `context` tokens in its cache and gets its next one:

- once for the whole batch, at `weight_bits` each: all weights of attention, norms, routers, dense layers
  and output head (a tied table is the head);
- in each layer with experts, the weights of as many experts as the batch is expected to touch (Q1.6), at
  `weight_bits` each;
- for each sequence, the keys and values of `context` tokens in every layer, at `cache_bits` a number.

Nothing else: the input table gives one row a token, activations stay on the chip. Results within 1 % pass.
Which layers have experts is told in Q1.1.

`decode_ceiling(n_bytes: float, bandwidth_gb_s: float, batch: int) -> float`

Tokens per second, of all sequences together, that a memory of `bandwidth_gb_s` (1 GB = 10**9 bytes) allows
at most, if a step reads `n_bytes`.""",
        call=_call_decode,
        compare=_compare_decode,
    ),
    Question(
        id="Q1.8",
        title="Which expert knows what?",
        points=5,
        functions=("expert_domain_table", "mutual_information_bits"),
        docs="""`expert_domain_table(model, tokenizer, texts: dict[str, list[str]], layer: int)
-> Tensor[D, E]`

For each domain of `texts` (in the dict's order) the share of the router's choices in decoder layer `layer`
that went to each expert; rows add up to 1. Tokenize each text alone, as plain text: no chat template, no
special tokens (`add_special_tokens=False`), no padding that counts. Every token makes
`config.num_experts_per_tok` choices, each counts as one, whatever its weight, in whichever text of the
domain. `model` is a Qwen3-MoE model in eval mode. `layer` counts all decoder layers from 0 and is one with
experts; mind that `router_logits` in the model's output has entries for layers with experts only.

`mutual_information_bits(table: Tensor[D, E]) -> float`

How much does a choice tell about the domain, in bits, if all D domains are equally probable? `table[d]` is
the distribution of choices in domain d. The entropy of the mean row minus the mean entropy of the rows;
0 x log 0 counts as 0.""",
        call=_call_table,
        compare=_compare_table,
    ),
)
