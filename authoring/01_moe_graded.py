# ---
# jupyter:
#   owl:
#     module: 01_moe
#     title: Mixture-of-Experts inference, graded
#     minutes: 120
# ---

# %% [markdown]
# # Mixture of Experts: nine questions
#
# You have watched tokens choose experts, counted what a model has and what it uses, and measured why decoding waits for memory ([lesson 01](../../lessons/01_moe.ipynb)). Here you turn that into functions which work for *any* model of the Qwen3-MoE family. They are worth 34 points, four of them for a short text, and take about two hours; two sittings are fine.
#
# | question | points | what you answer |
# |---|---|---|
# | Q1.1 | 4 | How many parameters, and how many of them are active? |
# | Q1.2 | 3 | Which experts, with what weight? |
# | Q1.3 | 5 | What do the chosen experts make of the tokens? |
# | Q1.4 | 3 | How is the load kept even with a loss? |
# | Q1.5 | 3 | How is it kept even without one? |
# | Q1.6 | 3 | How many experts does a batch need? |
# | Q1.7 | 4 | What does a decoding step read, and how fast can it be? |
# | Q1.8 | 5 | Which expert serves which domain? |
# | Q1.9 | 4 | Is "37B of 671B" cheap to host? (in words) |
#
# **How it works.** As in module 00: write your answer in the cell that begins with `# Q1.1 answer`, run it, run the check below it, repeat. Grading draws fresh cases of the same kinds. No question needs the answer to another.
#
# Letters used throughout: T tokens, H hidden size, E experts in a layer, K experts that a token chooses, I width of an expert, D domains.
#
# **Stuck?** Read the check's message, then the [symptom index](#Symptom-index); then the hints one by one, last the pseudocode.

# %% nbgrader={"grade_id": "setup", "locked": true}
import torch
from torch import Tensor
from torch.nn import functional

import openweightlab as owl

# %% [markdown]
# ### Q1.1 · Three kinds of active · 4 points · ●●●○○ · 15 min
#
# Model cards say "30B-A3B", and the second figure may mean three things. Write `moe_parameter_counts(config) -> dict[str, int]` that counts exactly, for any `Qwen3MoeConfig` of transformers, under four keys:
#
# - `total`: all parameters, each tensor once;
# - `active_all_in`: the total without the experts that a token does not choose. Everything else is active: the router whole, all norms, dense layers, both tables;
# - `active_without_input_table`: the same without the input table. A **tied** table is also the output head, so it stays;
# - `active_without_embeddings`: the same without input table and output head.
#
# Mind the configurations' peculiarities: layer i, counted from 0, has experts where (i + 1) is a multiple of `decoder_sparse_step` and i is not in `mlp_only_layers`; the others have one dense feed-forward of width `intermediate_size`. `attention_bias` gives all four attention projections a bias. Queries and keys have a norm of `head_dim` numbers each in every layer, and heads are `head_dim` wide, whatever the hidden size.
#
# Add up by formula, or build the model where it takes no memory.
#
# <details><summary>Hint 1</summary>
#
# In lesson 01 a model of 235 billion parameters was built in no memory at all, on the *meta device*. `AutoModelForCausalLM` of transformers can build a model of a configuration; `torch.device` says where, in a `with` block. On such a model you can list every parameter with its name and count it. Which names belong to the experts?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Of the experts' numbers, K of E parts are active. For the last two keys ask first whether the table and the head are one tensor: `model.get_input_embeddings().weight is model.get_output_embeddings().weight`.
#
# </details>
#
# <details><summary>Pseudocode</summary>
#
# ```text
# build the model of this configuration on the meta device
# total   = the numbers in all its different parameters
# experts = the numbers in those parameters that belong to routed experts
# first   = total, less the share of `experts` that a token leaves out
# second  = first, less the input table, unless it is tied
# third   = second, less the head
# return the four under their keys
# ```
#
# </details>


# %% nbgrader={"grade_id": "Q1.1-answer", "solution": true}
# Q1.1 answer
def moe_parameter_counts(config) -> dict[str, int]:
    """Parameters of a Qwen3-MoE model: all, and three kinds of active.

    config: a transformers Qwen3MoeConfig.
    Returns: whole numbers under `total`, `active_all_in`,
    `active_without_input_table`, `active_without_embeddings`.
    """
    ### BEGIN SOLUTION
    from transformers import AutoModelForCausalLM

    nowhere = torch.device("meta")
    with nowhere:
        model = AutoModelForCausalLM.from_config(config)
    total = model.num_parameters()
    experts = sum(
        p.numel() for n, p in model.named_parameters() if ".experts." in n
    )
    chosen, all_experts = config.num_experts_per_tok, config.num_experts
    all_in = total - experts * (all_experts - chosen) // all_experts
    table = model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight
    without_input = all_in - (0 if head is table else table.numel())
    return {
        "total": total,
        "active_all_in": all_in,
        "active_without_input_table": without_input,
        "active_without_embeddings": without_input - head.numel(),
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "Q1.1", "grade": true, "points": 4}
owl.check("Q1.1", moe_parameter_counts)

# %% [markdown]
# *To go on:* count `owl.load("pocket-moe")[0].config`, and compare with lesson 01's bar.

# %% [markdown]
# ### Q1.2 · Route the tokens · 3 points · ●●○○○ · 10 min
#
# The router is the smallest part of the layer, and decides everything. Write `route(hidden, router_weight, top_k, renormalise)`: weights and expert ids of each token's `top_k` experts, as Qwen3-MoE's router gives them.
#
# - The logits are `hidden` [T, H] times the transposed `router_weight` [E, H].
# - Softmax over **all** experts, in float32 (the inputs may be bf16); then the `top_k` most probable ones.
# - Their weights are those probabilities; with `renormalise` divided by their sum, so that each row adds up to 1.
# - The order of the experts within a row is free, but the same in both tensors, [T, K] each.
#
# <details><summary>Hint 1</summary>
#
# Four steps, four lines. Write the shape behind each: [T, E] after the first two, [T, K] after the last two. Along which dimension does the softmax run?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.topk(…, dim=-1)` gives values and indices at once. In a sum that should keep its dimension, so that it divides row by row, `keepdim` helps.
#
# </details>
#
# <details><summary>Pseudocode</summary>
#
# ```text
# logits        = hidden times router_weight transposed          [T, E]
# probabilities = softmax over the experts, in float32           [T, E]
# weights, ids  = the top_k largest of each row                  [T, K]
# if asked for: divide each row of weights by its sum
# return weights and ids
# ```
#
# </details>


# %% nbgrader={"grade_id": "Q1.2-answer", "solution": true}
# Q1.2 answer
def route(
    hidden: Tensor, router_weight: Tensor, top_k: int, renormalise: bool
) -> tuple[Tensor, Tensor]:
    """Which experts each token chooses, and with what weight.

    hidden: [T, H]. router_weight: [E, H].
    Returns: weights [T, K] and expert ids [T, K] (whole numbers).
    """
    ### BEGIN SOLUTION
    logits = hidden @ router_weight.T  #                    [T, E]
    probabilities = torch.softmax(logits.float(), dim=-1)  # [T, E]
    weights, expert_ids = probabilities.topk(top_k, dim=-1)  # [T, K]
    if renormalise:
        weights = functional.normalize(weights, p=1, dim=-1)
    return weights, expert_ids
    ### END SOLUTION


# %% nbgrader={"grade_id": "Q1.2", "grade": true, "points": 3}
owl.check("Q1.2", route)

# %% [markdown]
# ### Q1.3 · Compute the chosen experts only · 5 points · ●●●●○ · 20 min
#
# Here the saving is made, or lost. Write `moe_forward(hidden, gate_up_proj, down_proj, weights, expert_ids)`: the output [T, H] of a layer of experts, for each token the sum over its K experts of weight times expert(token).
#
# - `gate_up_proj` is [E, 2I, H], `down_proj` [E, H, I], `weights` and `expert_ids` [T, K]. Expert e is a SwiGLU: `gate_up_proj[e]` times the token gives *gate* (the first I numbers) and *up* (the others); `down_proj[e]` times silu(gate) · up is its output.
# - A token's experts are different ones; the weights need not add up to 1. Leave the inputs as they are.
# - **Compute no expert for a token that did not choose it.** Floating-point operations are counted (two for each multiply-and-add of a matrix product, two for each elementwise multiplication), and must be within 5 % of the least possible, 6 · T · K · H · I. So pick rows by index instead of multiplying with masks. Loops over experts, loops over tokens, sorting and grouped products are all fine.
#
# <details><summary>Hint 1</summary>
#
# Turn the question round: not "which experts does this token need?" but "which tokens need this expert?". `torch.where(expert_ids == e)` gives their rows, and at which of the K places they have it.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The outputs of one expert go back to their tokens' rows and are *added* to what is there: `output.index_add_(0, rows, values)`. Multiply each with its token's weight first; `weights[rows, places]` is [n] and needs one dimension more.
#
# </details>
#
# <details><summary>Pseudocode</summary>
#
# ```text
# output = zeros like hidden                                    [T, H]
# for each expert e:
#     rows, places = where expert_ids equals e                  [n], [n]
#     if there are none, go on to the next
#     gate, up = gate_up_proj[e] times those tokens, in halves  [n, I] each
#     result   = down_proj[e] times (silu(gate) times up)       [n, H]
#     add result, times weights at (rows, places), to those rows
# return output
# ```
#
# </details>


# %% nbgrader={"grade_id": "Q1.3-answer", "solution": true}
# Q1.3 answer
def moe_forward(
    hidden: Tensor,
    gate_up_proj: Tensor,
    down_proj: Tensor,
    weights: Tensor,
    expert_ids: Tensor,
) -> Tensor:
    """Output of a layer of experts, each computed for its tokens alone.

    hidden: [T, H]. gate_up_proj: [E, 2I, H]. down_proj: [E, H, I].
    weights, expert_ids: [T, K]. Returns: [T, H].
    """
    ### BEGIN SOLUTION
    output = torch.zeros_like(hidden)  #                        [T, H]
    for expert in expert_ids.unique().tolist():
        rows, places = torch.where(expert_ids == expert)  #     [n], [n]
        both = hidden[rows] @ gate_up_proj[expert].T  #         [n, 2I]
        gate, up = both.chunk(2, dim=-1)  #                     [n, I]
        result = (functional.silu(gate) * up) @ down_proj[expert].T
        result = result * weights[rows, places, None]  #        [n, H]
        output.index_add_(0, rows, result.to(output.dtype))
    return output
    ### END SOLUTION


# %% nbgrader={"grade_id": "Q1.3", "grade": true, "points": 5}
owl.check("Q1.3", moe_forward)

# %% [markdown]
# ### Q1.4 · The load-balancing loss · 3 points · ●●●○○ · 10 min
#
# Left alone, a router sends everything to a few experts. Write `load_balance_loss(router_logits, top_k)`: the auxiliary loss against that, as transformers computes it for one layer:
#
# > E × sum over experts e of f(e) × P(e)
#
# f(e) is the share of tokens that have e among their `top_k` (so the f of all experts add up to K), P(e) the mean over tokens of the softmax over all experts. `router_logits` is [T, E]; the result is a 0-d tensor, and the gradient flows back to the logits (through P: counting has none).
#
# <details><summary>Hint 1</summary>
#
# Try it on paper: two experts, two tokens, K = 1. If both tokens choose expert 0 with probability 0.9, then f = (1, 0), P = (0.9, 0.1), and the loss is 2 · 0.9 = 1.8. If they choose different ones with 0.9, f = P = (0.5, 0.5), and it is 1.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Both f and P are vectors [E]. To count choices: `functional.one_hot(ids, E)` makes a 0/1 tensor [T, K, E] of the ids [T, K]; sum over K, average over T. Do not `.detach()` or `.item()` what the gradient must pass.
#
# </details>
#
# <details><summary>Pseudocode</summary>
#
# ```text
# probabilities = softmax of the logits over experts             [T, E]
# ids           = the top_k experts of each token                [T, K]
# f = for each expert, the share of tokens that have it          [E]
# P = for each expert, its mean probability                      [E]
# return E times the sum of f times P                            []
# ```
#
# </details>


# %% nbgrader={"grade_id": "Q1.4-answer", "solution": true}
# Q1.4 answer
def load_balance_loss(router_logits: Tensor, top_k: int) -> Tensor:
    """How uneven the load is: top_k at best, up to E at worst.

    router_logits: [T, E]. Returns: a 0-d tensor with a gradient.
    """
    ### BEGIN SOLUTION
    experts = router_logits.shape[1]
    probabilities = torch.softmax(router_logits.float(), dim=-1)  # [T, E]
    ids = probabilities.topk(top_k, dim=-1).indices  #             [T, K]
    chosen = functional.one_hot(ids, experts).sum(dim=1)  #        [T, E]
    share = chosen.float().mean(dim=0)  #                          [E]
    return experts * (share * probabilities.mean(dim=0)).sum()
    ### END SOLUTION


# %% nbgrader={"grade_id": "Q1.4", "grade": true, "points": 3}
owl.check("Q1.4", load_balance_loss)

# %% [markdown]
# ### Q1.5 · Balance without a loss · 3 points · ●●○○○ · 10 min
#
# A balancing loss pulls at the model's weights. DeepSeek-V3 nudges the choice instead, with one number per expert. Write two functions:
#
# `biased_topk(scores, bias, top_k)`: weights and expert ids, [T, K] each. The `top_k` experts with the highest score **plus bias** are chosen; a chosen expert's weight is its **plain** score, without the bias, not renormalised. The order within a row is free, but the same in both tensors.
#
# `update_bias(bias, load, speed)`: the new bias [E] after a step in which expert e got `load[e]` tokens (whole numbers or floats): `speed` lower where the load is above the mean load, `speed` higher where it is below, unchanged where it is equal.
#
# <details><summary>Hint 1</summary>
#
# After `topk` on the sum you have ids, and values that you do not want. `scores.gather(1, ids)` fetches the plain scores at those places.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Up, down or not at all: that is a *sign*. Look up `torch.sign`; a mean of whole numbers needs floats first.
#
# </details>
#
# <details><summary>Pseudocode</summary>
#
# ```text
# ids     = places of the top_k largest of scores plus bias     [T, K]
# weights = the plain scores at those places                    [T, K]
#
# difference = mean load minus each expert's load               [E]
# new bias   = bias plus speed times the sign of the difference [E]
# ```
#
# </details>


# %% nbgrader={"grade_id": "Q1.5-answer", "solution": true}
# Q1.5 answer
def biased_topk(
    scores: Tensor, bias: Tensor, top_k: int
) -> tuple[Tensor, Tensor]:
    """The bias chooses, the plain score weighs.

    scores: [T, E]. bias: [E]. Returns: weights and expert ids, [T, K].
    """
    ### BEGIN SOLUTION
    expert_ids = (scores + bias).topk(top_k, dim=-1).indices
    return scores.gather(1, expert_ids), expert_ids
    ### END SOLUTION


def update_bias(bias: Tensor, load: Tensor, speed: float) -> Tensor:
    """The next bias: down for busy experts, up for idle ones.

    bias, load: [E]. Returns: [E].
    """
    ### BEGIN SOLUTION
    load = load.float()
    return bias + speed * torch.sign(load.mean() - load)
    ### END SOLUTION


# %% nbgrader={"grade_id": "Q1.5", "grade": true, "points": 3}
owl.check("Q1.5", biased_topk, update_bias)

# %% [markdown]
# ### Q1.6 · Experts touched by a batch · 3 points · ●●●○○ · 10 min
#
# An expert that nobody in the batch chose need not be read. Write `expected_experts_touched(batch_tokens, num_experts, top_k)`: how many *different* experts of one layer a batch needs, on average. Each of `batch_tokens` tokens chooses `top_k` different experts out of `num_experts`, all sets alike probable, each token for itself. Give the exact expectation, not rounded and not simulated. No tokens touch no expert.
#
# <details><summary>Hint 1</summary>
#
# Do not count sets. Look at *one* expert: how probable is it that one token leaves it out? That all tokens do? Lesson 01 did this with dice.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The mean of a sum is the sum of the means, even where things depend on each other. So the expected number of touched experts is `num_experts` times the probability that a given one is touched.
#
# </details>
#
# <details><summary>Pseudocode</summary>
#
# ```text
# left out by one token  = the share of experts that a token leaves out
# left out by all tokens = that, once for each token, multiplied together
# return how many experts there are, times the chance not to be left out
# ```
#
# </details>


# %% nbgrader={"grade_id": "Q1.6-answer", "solution": true}
# Q1.6 answer
def expected_experts_touched(
    batch_tokens: int, num_experts: int, top_k: int
) -> float:
    """Different experts that a batch needs in one layer, on average.

    Example: one token touches top_k experts.
    """
    ### BEGIN SOLUTION
    left_out = (1 - top_k / num_experts) ** batch_tokens
    return num_experts * (1 - left_out)
    ### END SOLUTION


# %% nbgrader={"grade_id": "Q1.6", "grade": true, "points": 3}
owl.check("Q1.6", expected_experts_touched)

# %% [markdown]
# *To go on:* with 128 experts and 8 chosen, at what batch are nine in ten experts touched?

# %% [markdown]
# ### Q1.7 · What a decoding step reads · 4 points · ●●●●○ · 15 min
#
# Decoding waits for memory, so its speed limit is a matter of bytes. Write two functions:
#
# `decode_bytes(config, batch, context, weight_bits, cache_bits)`: bytes that one decoding step of a Qwen3-MoE model (a `Qwen3MoeConfig`) reads, while each of `batch` sequences has `context` tokens in its cache and gets its next one:
#
# - once for the whole batch, at `weight_bits` each: all weights of attention, norms, routers, dense layers and output head (a tied table is the head);
# - in each layer with experts, the weights of as many experts as the batch is expected to touch (as in Q1.6), at `weight_bits` each;
# - for each sequence, the keys and values of `context` tokens in every layer, at `cache_bits` a number.
#
# Nothing else: the input table gives one row a token, and activations stay on the chip. Results within 1 % pass. Which layers have experts is told in Q1.1.
#
# `decode_ceiling(n_bytes, bandwidth_gb_s, batch)`: tokens per second, of all sequences together, that a memory of `bandwidth_gb_s` (1 GB = 10⁹ bytes) allows at most if a step reads `n_bytes`.
#
# <details><summary>Hint 1</summary>
#
# Count three numbers of *weights* first, bytes last: all experts of all layers; the rest without the input table; keys and values. As in Q1.1 a model on the meta device spares you the formulas. The number of experts touched is the same in each layer, so only the share matters.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Keys and values: 2 tensors × `num_hidden_layers` × `num_key_value_heads` × `head_dim` numbers per token, and each sequence reads its own. Write any helper into the answer cell: a question must not use another question's function.
#
# </details>
#
# <details><summary>Pseudocode</summary>
#
# ```text
# build the model on the meta device
# experts = the numbers in all routed experts
# rest    = all other parameters, less the input table unless it is tied
# touched = the share of a layer's experts that `batch` tokens touch
# cache   = batch x context x numbers per token (keys and values, all layers)
# return (rest + touched x experts) at weight_bits, plus cache at cache_bits
#
# ceiling: steps per second = bytes per second / bytes per step;
#          every step gives each sequence a token
# ```
#
# </details>


# %% nbgrader={"grade_id": "Q1.7-answer", "solution": true}
# Q1.7 answer
def decode_bytes(
    config, batch: int, context: int, weight_bits: float, cache_bits: float
) -> float:
    """Bytes that one decoding step of `batch` sequences reads.

    config: a Qwen3MoeConfig. context: tokens in each cache.
    """
    ### BEGIN SOLUTION
    from transformers import AutoModelForCausalLM

    nowhere = torch.device("meta")
    with nowhere:
        model = AutoModelForCausalLM.from_config(config)
    parts = dict(model.named_parameters())
    experts = sum(p.numel() for n, p in parts.items() if ".experts." in n)
    rest = sum(map(torch.numel, parts.values())) - experts
    table = model.get_input_embeddings().weight
    if model.get_output_embeddings().weight is not table:
        rest -= table.numel()
    left_out = 1 - config.num_experts_per_tok / config.num_experts
    weights = rest + (1 - left_out**batch) * experts
    per_token = 2 * config.num_key_value_heads * config.head_dim
    cache = batch * context * config.num_hidden_layers * per_token
    return (weights * weight_bits + cache * cache_bits) / 8
    ### END SOLUTION


def decode_ceiling(
    n_bytes: float, bandwidth_gb_s: float, batch: int
) -> float:
    """Tokens per second at best, all sequences together."""
    ### BEGIN SOLUTION
    return batch * bandwidth_gb_s * 1e9 / n_bytes
    ### END SOLUTION


# %% nbgrader={"grade_id": "Q1.7", "grade": true, "points": 4}
owl.check("Q1.7", decode_bytes, decode_ceiling)

# %% [markdown]
# *To go on:* compare with `owl.plan("qwen3-30b-a3b", "h100", weight_bits=16, context=4096)`.

# %% [markdown]
# ### Q1.8 · Which expert knows what? · 5 points · ●●●●○ · 15 min
#
# "Experts specialise" is a claim, and it can be measured. Write two functions:
#
# `expert_domain_table(model, tokenizer, texts, layer)`: for each domain of `texts` (a dict from a domain's name to a list of texts; rows in its order) the share of the router's choices in decoder layer `layer` that went to each expert, [D, E]; rows add up to 1.
#
# - Tokenize each text alone, as plain text: no chat template, no special tokens (`add_special_tokens=False`), no padding that counts.
# - Every token makes `config.num_experts_per_tok` choices; each counts as one, whatever its weight, in whichever text of the domain.
# - `model` is a Qwen3-MoE model in eval mode. `layer` counts **all** decoder layers from 0 and is one with experts; mind that `router_logits` in the model's output has entries for layers with experts only.
#
# `mutual_information_bits(table)`: how much a choice tells about the domain, in bits, if all D domains are equally probable; `table[d]` is the distribution of choices in domain d. It is the entropy of the mean row, minus the mean entropy of the rows. 0 × log 0 counts as 0.
#
# <details><summary>Hint 1</summary>
#
# There are two ways to hear a router: `model(ids, output_router_logits=True).router_logits`, or a forward hook on the router, which is the `gate` of a decoder layer's `mlp`, and whose output is (logits, weights, ids). The hook needs no counting of layers, but must be removed afterwards. `torch.bincount(…, minlength=E)` counts.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Entropy of p: minus the sum of p · log2(p). Look up `torch.special.xlogy`: a product with a natural logarithm, which gives 0 where p = 0; divide by ln 2. Check yourself: two rows (1, 0) and (0, 1) give 1 bit, two equal rows give 0.
#
# </details>
#
# <details><summary>Pseudocode</summary>
#
# ```text
# for each domain, in order:
#     counts = zeros                                             [E]
#     for each text of the domain:
#         ids = its tokens, plain                                [1, S]
#         run the model without gradients, listening to the router of `layer`
#         add how often each expert is among a token's choices
#     row = counts divided by their sum
# return the rows as one table                                   [D, E]
#
# information: entropy(mean of the rows) - mean of entropy(each row)
# ```
#
# </details>


# %% nbgrader={"grade_id": "Q1.8-answer", "solution": true}
# Q1.8 answer
def expert_domain_table(
    model, tokenizer, texts: dict[str, list[str]], layer: int
) -> Tensor:
    """Share of each domain's choices that went to each expert.

    Returns: [D, E], rows in the order of `texts`, adding up to 1.
    """
    ### BEGIN SOLUTION
    counts = torch.zeros(len(texts), model.config.num_experts)
    heard = []  # the choices in the order of the texts
    router = model.model.layers[layer].mlp.gate
    hook = router.register_forward_hook(
        lambda *call: heard.append(call[-1])
    )
    try:
        for row, domain in zip(counts, texts.values()):
            for text in domain:
                ids = tokenizer(
                    text, add_special_tokens=False, return_tensors="pt"
                )["input_ids"]
                with torch.no_grad():
                    model(ids)
                _, _, experts = heard.pop()
                row += torch.bincount(experts.flatten(), minlength=len(row))
    finally:
        hook.remove()
    return functional.normalize(counts, p=1, dim=1)
    ### END SOLUTION


def mutual_information_bits(table: Tensor) -> float:
    """Bits that a choice tells about the domain.

    table: [D, E], each row a distribution.
    """

    ### BEGIN SOLUTION
    def entropy(p: Tensor) -> Tensor:
        return -torch.special.xlogy(p, p).sum(dim=-1) / torch.log(two)

    table = table.double()
    two = torch.tensor(2.0, dtype=torch.double)
    return (entropy(table.mean(dim=0)) - entropy(table).mean()).item()
    ### END SOLUTION


# %% nbgrader={"grade_id": "Q1.8", "grade": true, "points": 5}
owl.check("Q1.8", expert_domain_table, mutual_information_bits)

# %% [markdown]
# *To go on:* measure pocket-moe's layers with texts of your own. Then shuffle the texts over the domains, and measure again: how many bits come from chance alone?

# %% [markdown]
# ### Q1.9 · Cheap to host? · 4 points · ●●●○○ · 15 min
#
# A colleague forwards an article on DeepSeek-R1: **"It activates only 37B of 671B parameters per query, so it is cheap to host."** They ask you whether to buy one server for it. Answer in 120 to 200 words that a manager understands:
#
# - What is right in the sentence?
# - What is wrong, and why?
# - Numbers with units that you computed yourself: at least how much memory it takes, and what a step of decoding reads for one user and for many at once. `owl.plan("deepseek-r1", "h200", weight_bits=8, context=8192, cards=8)` may help; say what it assumes.
# - When is such a model cheap to host after all?
#
# This question is graded by a person.
#
# <details><summary>Hint 1</summary>
#
# The sentence has three parts: a number, a "per", and a "so". Take them one by one. For the "per" look at the widget of lesson 01: do two tokens of one text choose the same experts?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# What must lie in memory, and what is read from it in a step, are two different numbers. Both change with the batch: one hardly, the other a lot. Use Q1.6 for 256 experts of which 8 are chosen.
#
# </details>
#
# <details><summary>Pseudocode</summary>
#
# ```text
# one sentence:  what the 37B are, per what, and where the figure comes from
# one sentence:  what has to be in memory all the time, in GB, in which format
# two sentences: what one token reads, what a batch reads; what that does to
#                the price per token
# last sentence: for whom it is cheap, and for whom it isn't
# ```
#
# </details>

# %% [markdown] nbgrader={"grade_id": "Q1.9", "grade": true, "solution": true, "points": 4}
# **Q1.9 answer**
#
# <!-- BEGIN SOLUTION -->
# **Rubric** (give each point for itself; wording is free)
#
# - 1 point: says what is right: about 37 billion parameters work on one token (37.55 all in, 36.63 without the input table), so the operations, and the bytes read for a single user, are those of a 37B model, not of a 671B one.
# - 1 point: says that it is per token, not per query, and why that matters: each token chooses anew in each layer, so one query touches nearly all experts (with 256 experts and 8 chosen, 100 tokens touch about 96 % if choices are even and independent).
# - 1 point: gives the memory with unit and format: all 671 billion must be loaded, 671 GB = 625 GiB at 8 bits (1,342 GB at 16), plus cache; so a server of several cards, for instance eight H200 with 141 GB each.
# - 1 point: says when it is cheap: with one user a step reads some 37 GB at 8 bits, with many users nearly all 671 GB, but shared by all of them; so the price per token is low where many users keep a large installation busy, and high for a single user. Any sound numbers for two batch sizes count.
# - Take off 1 point for numbers without units or format, and for claims on prices in dollars without a source; never below 0.
#
# **Weak answer** (1 point): "The claim is right. R1 is a Mixture of Experts, so only 37B of the 671B parameters are used at a time, and that makes it about as fast as a 37B model. It is cheap to host because the other experts are not needed."
#
# *Why 1:* right about the operations; takes "per query" over, and forgets that all experts must be in memory. No number of its own.
#
# **Strong answer** (4 points): "Right: for each *token* about 37 billion of 671 billion parameters do the work, so a token costs the arithmetic of a 37B model. Wrong: it is not per query. Every token chooses 8 of 256 experts afresh in each of 58 layers. If choices were even, 100 tokens would touch 96 % of them, so after one question nearly everything has been used, and all of it must be loaded: 671 GB at the 8 bits in which it is published, before any cache. That is eight H200 cards (1,128 GB), not one server with one card. What a step *reads* is another number: for a single user about 37 GB, which eight such cards (38,400 GB/s together) could read about a thousand times a second at the very best; for 256 users at once nearly all of the 671 GB, only 18 times as much for 256 times the tokens. So it is cheap per token for a service with many users at a time, and dear for one office that asks a question now and then, since the memory has to be paid for in either case. All this is a bound from memory alone; networks between cards and the cache come on top."
# <!-- END SOLUTION -->

# %% [markdown]
# ## Symptom index
#
# | what you see | what it may be |
# |---|---|
# | **Q1.1** Only the models with tied tables are wrong. | A tied table is one tensor: count it once, and keep it in the second convention. |
# | Right for experts in every layer, wrong for others. | `decoder_sparse_step` and `mlp_only_layers`: (i + 1) is divided, not i. Dense layers have their own width. |
# | Off by a few hundred numbers. | Norms: two of H per layer, two of `head_dim` per layer, one of H at the end. Or biases. |
# | Right only where H = heads × head_dim. | Heads are `config.head_dim` wide. |
# | **Q1.2** Rows add up to 1 where they should not, or the other way round. | `renormalise` is to be obeyed. |
# | With one expert a token all my weights are 1. | The softmax ran after the choice, over the chosen ones only. |
# | The ids come as floats. | `topk` gives values first, then indices. |
# | **Q1.3** Right values, too many operations. | Some expert was computed for tokens that did not choose it; masks multiply all the same. |
# | Right on the first token only, or with K = 1 only. | Results were written over each other: add them up. |
# | All values are a little off. | Gate and up swapped, or the weights belong to other experts. |
# | `RuntimeError` about an empty tensor, or `nan`. | An expert that no token chose: skip it. |
# | **Q1.4** My loss is exactly 1/E of the expected one, or K times smaller. | The factor E is missing, or f was divided by K. |
# | The value is right, and the check speaks of the gradient. | `.detach()`, `.item()` or `torch.no_grad()` cut it. |
# | **Q1.5** The weights are slightly too large or too small. | They still hold the bias. |
# | The bias runs away in the wrong direction. | A busy expert must become *less* attractive. |
# | **Q1.6** More experts than there are. | One token after another was simply added up. |
# | Close, but never exact. | Simulated, or rounded; or tokens were taken to choose the same expert twice. |
# | **Q1.7** Too large by a whole table. | The input table is looked up, not read, unless it is the head too. |
# | Too large by a factor near E / K at batch 1. | All experts were counted; at batch 1 a step reads K of them. |
# | Right without context, wrong with it. | Keys *and* values, `num_key_value_heads`, each sequence its own. |
# | The ceiling does not grow with the batch. | A step gives one token to *each* sequence. |
# | **Q1.8** Right for layer 0 only, or `IndexError`. | In a model with dense layers, `router_logits[layer]` is another layer. |
# | Rows differ from the expected by a few per cent. | Template, special tokens or padding were counted, or weights were added up instead of choices. |
# | `nan` for the information | 0 × log 0. |
# | **All** "Not answered yet" | The answer cell still raises its error, or was not run since you changed it. |
# | `NameError: name 'owl' is not defined` | Run the notebook's first code cell. |

# %% [markdown]
# ## How to hand in
#
# 1. **Kernel → Restart Kernel and Run All Cells.** Answers must work from top to bottom in a fresh kernel.
# 2. Read the eight checks once more, and your text of Q1.9. A question left open costs its own points only.
# 3. **Save** (Ctrl + S).
# 4. Hand in this file, `01_moe.ipynb`, the way your course does it. Alone? In a terminal, `owl check exercises/01_moe/01_moe.ipynb` runs it from top to bottom and lists your points; for Q1.9, compare with the lesson's last section, or ask somebody to read it.
