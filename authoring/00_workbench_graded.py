# ---
# jupyter:
#   owl:
#     module: 00_workbench
#     title: The bench, graded
#     minutes: 60
# ---

# %% [markdown]
# # The bench: four functions
#
# You have opened a weights file and made a model's next word by hand ([lesson 00](../../lessons/00_workbench.ipynb)). Now turn four of those steps into functions that work for *any* model. They are worth 10 points and take about an hour.
#
# | question | points | what your function answers |
# |---|---|---|
# | Q0.1 | 3 | How many numbers did this model learn? |
# | Q0.2 | 2 | How much memory do they take? |
# | Q0.3 | 3 | What may come next? |
# | Q0.4 | 2 | What would settle this claim? |
#
# **How it works.** Write your answer in the cell that begins with `# Q0.1 answer`, in place of the line that raises an error. Run it, then run the check below it; repeat as often as you like. The check's cases are examples: grading draws fresh ones of the same kinds, so the text of the question is what counts. The questions do not build on each other: do them in any order.
#
# **Stuck?** Read the check's message, then the [symptom index](#Symptom-index) below; then open the hints, one by one, and last the pseudocode. You may add cells to try things out.

# %% nbgrader={"grade_id": "setup", "locked": true}
import torch
from torch import Tensor, nn

import openweightlab as owl

# %% [markdown]
# ### Q0.1 · Count the parameters · 3 points · ●●○○○ · 15 min
#
# "A 7B model": somebody counted. It decides what the model costs to store and to run, so the count had better be right. You have seen how it goes wrong: pocket-moe's embedding and its head are *one* tensor with two names, and whoever adds up the names counts it twice.
#
# Write `count_parameters(model) -> int`: how many numbers has `model` learned? `model` may be any `torch.nn.Module`.
#
# - Count every **parameter**, also those that are *frozen* (`requires_grad` is False): they are part of the model all the same.
# - Count a tensor that stands in two places **once**: a tied embedding, or a layer that is used twice.
# - Do not count **buffers**, such as the running mean of a batch norm: the model carries them along, but did not learn them.
#
# <details><summary>Hint 1</summary>
#
# PyTorch can list a module's parameters for you. Look at the methods of `nn.Module` whose names begin with `parameters`, `named_parameters`, `buffers` and `state_dict`: which of them lists learned tensors only, each of them once?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A tensor of shape (3, 4) is one tensor and twelve numbers. You want the numbers: look up `Tensor.numel`.
#
# </details>
#
# <details><summary>Pseudocode</summary>
#
# ```text
# total = 0
# for each different parameter tensor of the model:
#     total = total + how many numbers it holds
# return total
# ```
#
# </details>


# %% nbgrader={"grade_id": "Q0.1-answer", "solution": true}
# Q0.1 answer
def count_parameters(model: nn.Module) -> int:
    """How many numbers the model has learned.

    model: any PyTorch module.
    Returns: a whole number; tied tensors count once, buffers not at all.
    """
    ### BEGIN SOLUTION
    return sum(parameter.numel() for parameter in model.parameters())
    ### END SOLUTION


# %% nbgrader={"grade_id": "Q0.1", "grade": true, "points": 3}
owl.check("Q0.1", count_parameters)

# %% [markdown]
# *To go on:* in a new cell, count `owl.load("pocket-moe")[0]`, and compare with the numbers in its file (lesson 00, "Count them, weigh them").

# %% [markdown]
# ### Q0.2 · Memory for the weights · 2 points · ●○○○○ · 10 min
#
# Will it fit? Before anybody downloads 60 GB, they should do this sum. Graphics cards and PyTorch reckon in GiB (2³⁰ bytes), and formats for large models spend odd numbers of bits: a 4-bit format that also stores a 16-bit scale for every 64 weights needs 4 + 16/64 = 4.25 bits a weight.
#
# Write `weight_gib(n_parameters, bits) -> float`: the memory in **GiB** for `n_parameters` weights of `bits` bits each. `bits` may be a fraction. Do not round.
#
# <details><summary>Hint 1</summary>
#
# There are two steps: from bits to bytes, and from bytes to GiB. How many bits has a byte? How many bytes has a GiB?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Check yourself with a number that you can do in your head: 2³⁰ weights of 8 bits each are exactly 1 GiB. And `/` keeps fractions where `//` drops them.
#
# </details>
#
# <details><summary>Pseudocode</summary>
#
# ```text
# all bits  = how many weights, times the bits of each
# all bytes = all bits, shared out over the bits of a byte
# return all bytes, shared out over the bytes of a GiB
# ```
#
# </details>


# %% nbgrader={"grade_id": "Q0.2-answer", "solution": true}
# Q0.2 answer
def weight_gib(n_parameters: int, bits: float) -> float:
    """Memory for a model's weights, in GiB (2**30 bytes).

    n_parameters: how many weights. bits: bits per weight, maybe 4.25.
    Returns: GiB, not rounded.
    """
    ### BEGIN SOLUTION
    return n_parameters * bits / 8 / 2**30
    ### END SOLUTION


# %% nbgrader={"grade_id": "Q0.2", "grade": true, "points": 2}
owl.check("Q0.2", weight_gib)

# %% [markdown]
# *To go on:* how many GiB does DeepSeek-R1 take, with 671,026,404,352 weights of 8 bits each? How many cards of 80 GB is that, for the weights alone?

# %% [markdown]
# ### Q0.3 · The next token's probabilities · 3 points · ●●●○○ · 20 min
#
# Nearly everything that this course measures of a model begins here: how sure it is of an answer, where a refusal starts, what quantizing changed. So this function should be one to rely on, also when somebody else's code has left the model in an odd state.
#
# Write `next_token_probabilities(model, input_ids) -> Tensor`: the probabilities of each token of the vocabulary to follow the last token of `input_ids`.
#
# - `input_ids` has shape [1, S]; the result has shape [V] and adds up to 1.
# - While it runs, the model is in **eval mode** (in training mode, *dropout* switches off random parts of it, and each call would give something else). Afterwards it is **in the mode in which it came**: train or eval.
# - No **gradient graph** is built: it costs memory, and nobody learns here.
# - The weights may be **bf16**, which keeps some two digits: take the softmax in **float32**. The weights themselves stay as they are.
#
# <details><summary>Hint 1</summary>
#
# `model(input_ids)` returns an object; its `.logits` have shape [1, S, V]. Row *i* rates what may follow token *i*. Which row do you need, and what becomes of the dimension of size 1?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `model.training` says which mode the model is in; `model.eval()` and `model.train(flag)` change it. `with torch.no_grad():` keeps gradients away. `tensor.float()` gives a float32 copy of a tensor and leaves the tensor alone.
#
# </details>
#
# <details><summary>Hint 3</summary>
#
# If the model raises an error half-way, its mode should still be put back: `try: … finally: …` does that. And mind over what the softmax runs: a whole vocabulary at one place of the text.
#
# </details>
#
# <details><summary>Pseudocode</summary>
#
# ```text
# remember the mode
# switch to eval mode
# without gradients: run the model, take the logits at the last place    [V]
# put the mode back, whatever happened
# turn these logits into float32
# return their softmax over the vocabulary                              [V]
# ```
#
# </details>


# %% nbgrader={"grade_id": "Q0.3-answer", "solution": true}
# Q0.3 answer
def next_token_probabilities(model: nn.Module, input_ids: Tensor) -> Tensor:
    """Probabilities of the token that follows the last one.

    model: returns an object whose `logits` are [1, S, V].
    input_ids: token ids [1, S].
    Returns: [V], float32, adds up to 1; the model's mode is as before.
    """
    ### BEGIN SOLUTION
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits = model(input_ids).logits[0, -1]  # [V]
    finally:
        model.train(was_training)
    return torch.softmax(logits.float(), dim=-1)  #    [V]
    ### END SOLUTION


# %% nbgrader={"grade_id": "Q0.3", "grade": true, "points": 3}
owl.check("Q0.3", next_token_probabilities)

# %% [markdown]
# *To go on:* take a prompt from lesson 00, `owl.lens.chat_ids(tokenizer, "…")`, and look at the five likeliest tokens with `.topk(5)`. Do they agree with the widget?

# %% [markdown]
# ### Q0.4 · Sort the claims · 2 points · ●●○○○ · 15 min
#
# A claim is worth as much as what settles it. Sorting comes before checking: it tells you whether to measure, to look something up, or to stop arguing.
#
# Write `sort_claims(claims) -> dict`: the claims' `id`s under the three keys `"measurable"`, `"sourced"` and `"opinion"`. All three keys are always there, and each list keeps the order of the input.
#
# A claim is a dict with `id` and `text`, perhaps these two, and perhaps other fields that do not matter here:
#
# - `measurable_here` (a bool): this course has the means to measure it;
# - `primary_source` (a string): the address of a paper, licence, model card or filing that settles it.
#
# The rule: a claim with `measurable_here` is *measurable*, whatever else it has. Any other with a primary source is *sourced*. The rest is *opinion*. A key that is missing, `None` and an empty string count as no. Leave `claims` as you found it.
#
# <details><summary>Hint 1</summary>
#
# `claim["primary_source"]` raises a KeyError where the key is missing. The `get` method of a dict does not: look up what it gives in that case, and what `if` makes of that, of `None` and of an empty string.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Begin with the finished dict, its three lists empty; then no key can be missing at the end, not even for an empty list of claims. The order of your questions matters: ask first what wins.
#
# </details>
#
# <details><summary>Pseudocode</summary>
#
# ```text
# result = the three keys, each with an empty list
# for each claim, in order:
#     if it can be measured here:       put its id under "measurable"
#     else, if it has a primary source: put its id under "sourced"
#     else:                             put its id under "opinion"
# return result
# ```
#
# </details>


# %% nbgrader={"grade_id": "Q0.4-answer", "solution": true}
# Q0.4 answer
def sort_claims(claims: list[dict]) -> dict[str, list[str]]:
    """The claims' ids, sorted by what would settle them.

    claims: dicts with `id`, maybe `measurable_here`, `primary_source`.
    Returns: {"measurable": ids, "sourced": ids, "opinion": ids}.
    """
    ### BEGIN SOLUTION
    groups: dict[str, list[str]] = {
        "measurable": [],
        "sourced": [],
        "opinion": [],
    }
    for claim in claims:
        if claim.get("measurable_here"):
            group = "measurable"
        elif claim.get("primary_source"):
            group = "sourced"
        else:
            group = "opinion"
        groups[group].append(claim["id"])
    return groups
    ### END SOLUTION


# %% nbgrader={"grade_id": "Q0.4", "grade": true, "points": 2}
owl.check("Q0.4", sort_claims)

# %% [markdown]
# *To go on:* sort the board of lesson 00, `sort_claims(owl.claims())`, and compare with how the board says each claim is settled.

# %% [markdown]
# ## Symptom index
#
# | what you see | what it may be |
# |---|---|
# | **Q0.1** My count is too large by exactly vocabulary × hidden size. | The tied table was counted under both of its names. `state_dict()` lists names; you want different tensors. |
# | My count is far too small, a few dozen at most. | You counted tensors, not the numbers in them. |
# | Four times too large, or twice. | Those are bytes. |
# | Right for one model, too large for the one with a batch norm. | Buffers were counted. |
# | Too small where the embedding is frozen. | Frozen parameters were left out; they are parameters too. |
# | Too small for the model with experts. | You counted `nn.Linear` layers. Experts are kept as parameters of three dimensions, in no such layer. |
# | **Q0.2** Too large by a factor of 8. | Bits were taken for bytes. |
# | Too large by 7 %. | That is GB (10⁹ bytes). Wanted is GiB (2³⁰). |
# | Right for 16 and 8 bits, wrong for 4.25. | The fraction got lost: `//`, `int(…)` or `round(…)`. |
# | **Q0.3** "Expected a tensor of shape [V]", mine has one dimension more. | The batch dimension of size 1, or all places of the text, are still there. |
# | My numbers do not add up to 1, and some are negative. | These are logits; the softmax is missing. |
# | They are all negative. | These are logarithms of probabilities. |
# | Two calls give two results. | Dropout is on: the model ran in training mode. |
# | All numbers right, and yet a case fails. | Look at the mode afterwards, at gradients, and at the precision of the softmax: its message says which. |
# | Right, but only to two digits. | The softmax ran in bf16. |
# | **Q0.4** `KeyError: 'primary_source'` | Some claims lack the key. |
# | A claim sits under "sourced" that should be "measurable". | It has both; measuring wins. |
# | The check speaks of a missing key. | All three keys must be there, also for an empty list. |
# | **All** "Not answered yet" | The answer cell still raises its error, or you have not run it since you changed it. |
# | `NameError: name 'owl' is not defined` | Run the notebook's first code cell. |
# | Everything was right yesterday. | Restart and run all (below): a name may have been left over from a cell that is gone. |

# %% [markdown]
# ## How to hand in
#
# 1. **Kernel → Restart Kernel and Run All Cells.** Answers must work from top to bottom in a fresh kernel, as they will be graded.
# 2. Read the four checks once more. A question left open costs its own points only.
# 3. **Save** (Ctrl + S).
# 4. Hand in this file, `00_workbench.ipynb`, the way your course does it: upload it, or leave it where it is to be collected. Alone? In a terminal, `owl check exercises/00_workbench/00_workbench.ipynb` runs it from top to bottom and lists your points.
#
# Cells that you added, prints and warnings do no harm. Leave the cells `# Q0.1 answer` to `# Q0.4 answer` and the checks where they are; if one was lost, it is found again by its first line where that is possible.
