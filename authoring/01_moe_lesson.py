# ---
# jupyter:
#   owl:
#     module: 01_moe
#     title: Mixture-of-Experts inference
#     minutes: 60
# ---

# %% [markdown]
# # Mixture-of-Experts inference
#
# Most large open-weight models of 2025 and 2026, from China and from the West, are **Mixtures of Experts**: they have very many weights, and use a few of them at a time. In this lesson you take such a model apart, watch its tokens choose experts, and measure what the choice saves and what it does not.
#
# At the end you can answer the sentence that opens many articles: "DeepSeek R1 activates 37 billion of its 671 billion parameters per query." You can say what is right in it, what is wrong, and what follows for the price.
#
# As in [lesson 00](00_workbench.ipynb): run from top to bottom with **Shift + Enter**, predict in the blue boxes before you look, change what you like. Everything up to "On a GPU" runs on the Pocket models. Letters: T tokens, H hidden size, E experts in a layer, K experts that a token chooses, I width of an expert.

# %%
import pandas as pd
import torch
from torch.nn import functional

import openweightlab as owl
from openweightlab import measure

model, tokenizer = owl.load("pocket-moe")

# %% [markdown]
# ## One layer, taken apart
#
# > **7 min** · You can compute a feed-forward part, dense and with experts, by hand, and say what an expert is.
#
# A **layer** of a language model has two parts. *Attention* lets each token look at earlier ones. Then the **feed-forward** part (FFN) works on each token alone. The oldest kind is two matrices with a bend between them: widen, set negative numbers to zero, narrow again.
#
# Nearly all models of today use a relative with three matrices, **SwiGLU**. *Gate* and *up* both widen the token, from H to I numbers. The gate goes through **SiLU**, a soft bend, and says how much of each number of *up* passes. *Down* narrows the result:
#
# ```text
#                ┌── gate (I x H) ── SiLU ──┐
# token (H) ─────┤                       (times) ── down (H x I) ──> (H)
#                └── up   (I x H) ──────────┘
# ```
#
# The **dense** Pocket model has one of these in each layer, and every token goes through it:

# %%
dense, _ = owl.load("pocket-dense")
ffn = dense.model.layers[0].mlp
for name, matrix in ffn.named_parameters():
    print(f"{name:18} {tuple(matrix.shape)}")


# %% [markdown]
# By hand, it is one line. Does it give what transformers gives?


# %%
def swiglu(token, gate, up, down):
    return down @ (functional.silu(gate @ token) * (up @ token))


token = torch.randn(dense.config.hidden_size)  #          [H]
with torch.inference_mode():
    by_hand = swiglu(
        token,
        ffn.gate_proj.weight,
        ffn.up_proj.weight,
        ffn.down_proj.weight,
    )
    by_library = ffn(token[None])[0]
print("largest difference:", (by_hand - by_library).abs().max().item())

# %% [markdown]
# **Now with experts.** An **expert** is nothing but one such SwiGLU, and a smaller one. A layer of `pocket-moe` has 16 of them in place of one large FFN, and a **router** in front: one more matrix, E x H, which scores all experts for each token. Each token goes through the 2 experts with the highest scores; the other 14 do nothing for it.
#
# transformers keeps the experts of a layer in two blocks of numbers, gate and up in one:

# %%
block = model.model.layers[2].mlp
for name, matrix in block.named_parameters():
    print(f"{name:22} {tuple(matrix.shape)}")

# %% [markdown]
# Let us follow one token through: the last one of a question. `entering` listens at the door of a layer's FFN, `capture` to its router.

# %%
question = "What colour is the lamp of Frostbay?"
ids, _ = measure.chat_tokens(tokenizer, question)  #      [1, S]
token = measure.entering(model, ids, layer=2)[-1]  #      [H]
routed = measure.capture(model, ids)[2]
chosen = routed.expert_ids[-1].tolist()
weights = routed.weights[-1].tolist()
print("experts", chosen, "with weights", [round(w, 3) for w in weights])

# %%
width = model.config.moe_intermediate_size  #             I
both, down = block.experts.gate_up_proj, block.experts.down_proj

mixture = torch.zeros_like(token)  #                      [H]
with torch.inference_mode():
    for expert, weight in zip(chosen, weights):
        gate, up = both[expert, :width], both[expert, width:]
        mixture += weight * swiglu(token, gate, up, down[expert])
    by_library = block(token[None, None])[0, 0]
print("largest difference:", (mixture - by_library).abs().max().item())

# %% [markdown]
# That is all there is to a Mixture of Experts: a weighted sum of a few small FFNs, chosen token by token, layer by layer. The word *expert* promises more than that. Whether the experts know different things is a question to measure, further down.

# %%
owl.quiz("01-expert")

# %% [markdown]
# ## Total and active
#
# > **7 min** · You can count a model that no computer of yours could load, and say what "A22B" on a model card may mean.
#
# A model card says "Qwen3-235B-A22B": 235 billion parameters, 22 billion **active**. Let us count. The real model takes 470 GB; but to count, no numbers are needed. On PyTorch's **meta device** tensors have a shape and no memory. The **atlas**, the kit's table of real models, has the sizes from which to build it:

# %%
from openweightlab.counting import empty

giant = empty("qwen3-235b-a22b")
total = sum(p.numel() for p in giant.parameters())
print(f"{total:,} parameters, on {giant.device}")

# %% [markdown]
# Where are they? Each expert is small, but there are 94 layers with 128 experts each.

# %%
owl.predict(
    "01-experts-share",
    "Which share of all its parameters sits in the experts?",
    unit="%",
)

# %%
row = owl.atlas.find("qwen3-235b-a22b")
parts = row.counted.parts
owl.reveal(
    "01-experts-share", 100 * parts["routed_experts"] / total, unit="%"
)
for name, count in parts.items():
    print(f"{name:16}{count:>18,}")

# %% [markdown]
# Of the experts a token uses 8 in 128; everything else it uses whole. So, by hand:

# %%
expert = 3 * 4096 * 1536  # gate, up, down: each 4,096 x 1,536
idle = 94 * (128 - 8) * expert
print(f"{total - idle:,} active parameters")

# %% [markdown]
# 22.19 billion: that is the 22B of the card. But "active" has **three conventions**, which differ in what becomes of the two tables at the model's ends. The *input table* has a row for each token of the vocabulary, and a token looks up one row of it: nothing is multiplied. The *output head* is multiplied whole.
#
# | convention | input table | output head | what it is good for |
# |---|---|---|---|
# | all in | counted | counted | nothing in particular; often what is published |
# | without the input table | left out | counted | **operations, and bytes read, per token** |
# | without embeddings | left out | left out | comparing the layers of models |
#
# A *tied* table is input table and head in one (lesson 00), so it stays in the second. What do the makers publish?

# %%
names = ["deepseek-v3", "qwen3-235b-a22b", "glm-4.5", "minimax-m1"]
names += ["gpt-oss-120b", "mixtral-8x7b", "olmoe-1b-7b"]
rows = [owl.atlas.find(name) for name in names]
pd.DataFrame(
    {
        "published": [m.published.active for m in rows],
        "source read": [m.evidence["published"].verified for m in rows],
        "all in": [m.counted.active_all_in / 1e9 for m in rows],
        "no input table": [
            m.counted.active_without_input_table / 1e9 for m in rows
        ],
        "no embeddings": [
            m.counted.active_without_embeddings / 1e9 for m in rows
        ],
    },
    index=[m.name for m in rows],
).round(2)

# %% [markdown]
# All counts in billions, made on the meta device. Which convention fits which maker?
#
# - gpt-oss's "5.1B" leaves the input table out (5.13); MiniMax's "45.9B" leaves both tables out (45.94).
# - Qwen's "22B" is rounded from all in (22.19) or from the middle one (21.57): it fits two.
# - GLM-4.5's "32B" fits without embeddings (32.08) best. DeepSeek's "37B" is nearest to the middle count, 36.63.
#
# Nobody cheats here; nobody says which they mean, either. The conventions differ by up to a quarter (gpt-oss), so compare models only within one of them. Figures like these come with their sources in a terminal: `owl atlas deepseek-v3`.
#
# The whole budget as a picture. Left: all parameters, idle experts in grey. Right: the active ones alone.

# %%
drawn = ["qwen3-235b-a22b", "deepseek-v3", "gpt-oss-120b", "mixtral-8x7b"]
owl.lens.budget([owl.atlas.find(name) for name in drawn])

# %% [markdown]
# Two things to see. On the left, everything that is not an expert hardly shows: 97 % of DeepSeek-V3 are experts. On the right it is a different model: of what a token *uses*, three tenths are attention in DeepSeek-V3 and in Qwen3.

# %%
owl.quiz("01-active")

# %%
owl.quiz("01-meta")

# %% [markdown]
# ## The router
#
# > **5 min** · You can route a token by hand: scores, softmax, top-k, renormalise.
#
# Four steps, on the token from above. **Step 1: scores.** The router multiplies the token with its matrix: one number, a logit, for each expert.

# %%
with torch.inference_mode():
    logits = block.gate.weight @ token  #                 [E]
print([round(x, 1) for x in logits.tolist()])

# %% [markdown]
# **Step 2: softmax** makes probabilities of them, as in lesson 00. **Step 3: top-k** keeps the two largest.

# %%
probabilities = torch.softmax(logits, dim=-1)  #          [E]
top = probabilities.topk(2)
print("experts      ", top.indices.tolist())
print("probabilities", [round(p, 3) for p in top.values.tolist()])
print("their sum    ", round(top.values.sum().item(), 3))

# %% [markdown]
# **Step 4: renormalise.** The two do not add up to 1, because the others have something too. Qwen3 divides by the sum, so that the weights do. OLMoE does not; then the layer's output is smaller wherever the router was unsure. It is a line in the configuration (`norm_topk_prob`), and the wrong choice ruins a model without any error message.

# %%
print([round(p, 3) for p in (top.values / top.values.sum()).tolist()])
print("transformers' router:", [round(w, 3) for w in weights])

# %% [markdown]
# *Aside:* choosing first and taking the softmax over the chosen ones alone gives the same numbers as steps 2 to 4. Try it on paper. Without step 4 it would not.

# %%
owl.quiz("01-renormalise")

# %% [markdown]
# ## Watch the tokens choose
#
# > **6 min** · You can read a routing heat map, and say which experts a sentence used in which layer.
#
# Each row is a token, each column an expert; the darker a cell, the more of the token's output comes from that expert. Two texts stand side by side, with one scale. The last row sums up.

# %%
share_options = ["under 20 %", "20 to 50 %", "50 to 80 %", "over 80 %"]
owl.predict(
    "01-same-question",
    "The same question in English and in Chinese, layer 2: "
    "how large a part of their choices of experts is in common?",
    share_options,
)

# %%
owl.routing_map(model, tokenizer)

# %% [markdown]
# Things to try:
#
# - Move the layer from 0 to 4. In which layers do English and Chinese part, in which do they mix?
# - Left a sum, right Python. Then a fact in English against one in Spanish.
# - Your own text on either side: half English, half Chinese; or a sum within a sentence. Does the text choose, or does each token?
# - Tick "template's tokens too". `<|im_start|>` and its like go their own way, the same in every language. A measurement that counts them finds the experts more alike than they are.

# %%
from openweightlab.lens.routingmap import Text

english, chinese = (
    Text(model, tokenizer, owl.lens.coast_texts()[f"a fact ({language})"])
    for language in ("en", "zh")
)
common = english.shares(2, False).minimum(chinese.shares(2, False)).sum()
edges = [0.2, 0.5, 0.8]
option = share_options[sum(common.item() >= edge for edge in edges)]
print(f"{100 * common:.0f} %")
owl.reveal("01-same-question", option)

# %% [markdown]
# Note also what the map does *not* show: no token's row is like the next one's. Routing is per token and per layer. Nothing in it is per question.

# %%
owl.quiz("01-heat-map")

# %% [markdown]
# ## Who serves what?
#
# > **7 min** · You can measure how far experts specialise, compare it with chance, and say what may be concluded.
#
# One sentence proves little. `census` notes every choice of experts in some hundred chats from each of five domains: English, Chinese, Spanish, sums and code. The template's tokens are left out, and each domain has the same number of tokens.

# %%
census = measure.census(model, tokenizer, per_domain=60)
census.head(3)


# %%
def table(layer):
    """Each domain's choices in a layer, shared out over the experts."""
    part = census[census.layer == layer]
    return pd.crosstab(part.domain, part.expert, normalize="index")


shown = [0, 2, 4]
tables = {layer: table(layer) for layer in shown}
busiest = {
    layer: ", ".join(
        f"{domain} expert {int(row.idxmax())} with {100 * row.max():.0f} %"
        for domain, row in found.iterrows()
    )
    for layer, found in tables.items()
}
owl.lens.heat_table(
    list(tables.values()),
    ylabels=list(tables[0].index),
    titles=[f"layer {layer}" for layer in shown],
    xlabel="expert",
    top=0.45,
    alt="Tables of domain by expert. The most chosen ones: "
    + "; ".join(
        f"layer {layer}: {said}" for layer, said in busiest.items()
    ),
)

# %% [markdown]
# Layer 2 looks like a staircase; layers 0 and 4 look like noise. How much like noise? One number says it: the **mutual information**, how many bits a choice of expert tells about the domain. A small example, worked out. Two domains, two experts; English sends 3 in 4 of its choices to expert A, Chinese 1 in 4.
#
# - Before you see a choice, both domains are equally likely. Over both domains, half of the choices go to A, half to B. That spread has an *entropy* of 1 bit, one yes-or-no question.
# - Once you know the domain, the spread is 3 to 1, which has an entropy of 0.81 bits (see below).
# - The difference, 0.19 bits, is what expert and domain tell about each other. If both domains spread alike it is 0; if each has an expert of its own, 1 bit. With five domains it can be log2(5) = 2.32 bits at most.

# %%
from scipy.stats import entropy

print(round(entropy([0.5, 0.5], base=2), 3), "bits: half and half")
print(round(entropy([0.75, 0.25], base=2), 3), "bits: three to one")

# %% [markdown]
# **Against what?** With few tokens some bits come from luck alone. So we measure twice: with the true domains, and with the domains **shuffled** over the tokens, which leaves only luck.

# %%
owl.predict(
    "01-bits",
    "How many bits does a choice in layer 2 tell about the domain "
    "(2.32 at most)?",
    unit="bits",
)

# %%
layers = range(model.config.num_hidden_layers)
found = []
for layer in layers:
    part = census[census.layer == layer]
    found.append(
        {
            "measured": measure.information(part.domain, part.expert),
            "shuffled": measure.information(part.shuffled, part.expert),
        }
    )
bits = pd.DataFrame(found, index=pd.Index(layers, name="layer"))
owl.reveal("01-bits", bits.measured[2], unit="bits")
bits.round(3)

# %% [markdown]
# All five layers are far above chance. So the experts of pocket-moe specialise: true? Now comes what an honest report must say.
#
# **It was planted.** In layers 1, 2 and 3 a term in the training loss *asked* for it: at least so much of a router's probability should lie with the experts that the recipe gives to the text's domain. We wanted you to have something to find. Layers 0 and 4 are as training left them: 0.3 to 0.4 bits, a quarter to a third of the planted ones. What you may conclude from layer 2 is that the *method* finds specialists where there are some.
#
# **Domain, or just different words?** Chinese has other tokens than English. A router that looks at the token alone, and knows nothing of domains, would show "specialisation" as well. So let us ask: from what can a token's first expert be guessed best, on texts not seen before? From its domain, or from the token itself?

# %%
guesses = ["from the domain", "from the token"]
owl.predict(
    "01-guess",
    "In layer 0, which nobody planted: from what is the expert "
    "guessed better?",
    guesses,
)


# %%
def guessed(layer, key):
    """Share of first experts guessed right from `key` alone (%)."""
    part = census[(census.layer == layer) & (census["rank"] == 0)]
    seen, new = part[part.text % 2 == 0], part[part.text % 2 == 1]
    groups = seen.groupby(key, observed=True).expert
    usual = groups.agg(lambda experts: experts.mode()[0])
    known = new[key].astype(object).map(usual)
    return 100 * (known == new.expert).mean()


by_domain = [guessed(layer, "domain") for layer in layers]
by_token = [guessed(layer, "token") for layer in layers]
owl.lens.curves(
    list(layers),
    {guesses[0]: by_domain, guesses[1]: by_token},
    log=False,
    xlabel="layer",
    ylabel="first expert guessed right (%)",
    alt="First expert guessed right, by layer: from the domain "
    + ", ".join(f"{share:.0f}" for share in by_domain)
    + " %; from the token "
    + ", ".join(f"{share:.0f}" for share in by_token)
    + " %.",
)
owl.reveal("01-guess", guesses[int(by_token[0] > by_domain[0])])

# %% [markdown]
# In layer 0 the token tells far more than the domain. So its bits are mostly *vocabulary*: it sorts tokens, and domains have different tokens. In the planted layers the domain alone tells nearly as much as the token.
#
# **And real models?** Do not carry these numbers over. Real models are trained the other way: balancing pushes to spread tokens over all experts. Expect far less than this lesson's layer 2. The section "On a GPU" lets you measure one. An honest sentence has a model, a layer, a set of texts, a number and a baseline: "in layer 0 of pocket-moe, 0.4 bits against 0.01 shuffled, most of it explained by the token".

# %%
owl.quiz("01-planted")

# %%
owl.quiz("01-shuffled")

# %% [markdown]
# ## Load and collapse
#
# > **5 min** · You can measure a router's load, and show why training needs something that evens it out.
#
# The **load** of an expert is its share of all choices. A fair share in pocket-moe is 1 in 16, 6.25 %. How even is it, over all five domains? Entropy says it in one number: 2 to the power of the entropy is the number of experts that are "effectively" in use.

# %%
load = pd.crosstab(census.layer, census.expert, normalize="index")
pd.DataFrame(
    {
        "least (%)": 100 * load.min(axis=1),
        "most (%)": 100 * load.max(axis=1),
        "effective experts": 2 ** entropy(load, base=2, axis=1),
    }
).round(1)

# %% [markdown]
# That is no accident. A router learns by trial: an expert that is chosen is trained, gets better, and is chosen more. Here is the smallest case: 8 topics, 8 experts, each token goes to one expert, 400 steps. First without any balancing.

# %%
owl.predict(
    "01-collapse",
    "Of 8 experts, how many get over 1 % of the tokens at the end, "
    "without a balancing loss?",
    unit="experts",
)

# %%
alone = measure.train_router(balance=0.0, seed=1)  #    [steps / 5, 8]
balanced = measure.train_router(balance=0.1, seed=1)
alive = [int((s[-10:].mean(0) > 0.01).sum()) for s in (alone, balanced)]

owl.lens.curves(
    [5 * step for step in range(len(alone))],
    {
        "without": (100 * alone.max(dim=1).values).tolist(),
        "with a balancing loss": (
            100 * balanced.max(dim=1).values
        ).tolist(),
    },
    log=False,
    bare=True,
    xlabel="training step",
    ylabel="busiest expert's share (%)",
    alt="The busiest expert's share of tokens over 400 steps: without "
    f"balancing it ends at {100 * alone[-10:].max(1).values.mean():.0f} %, "
    f"with at {100 * balanced[-10:].max(1).values.mean():.0f} %. "
    f"Experts in use at the end: {alive[0]} and {alive[1]} of 8.",
)
owl.reveal("01-collapse", alive[0], unit="experts")
print(f"with the balancing loss: {alive[1]} of 8")

# %% [markdown]
# Without balancing most experts **die**: they are never chosen, so never trained, so never chosen. The cure is a second loss, small beside the first, that grows where the experts which get many tokens also have high probability. You will write it in Q1.4. It has a price: it pulls the router away from what would be best for the text.

# %%
owl.quiz("01-collapse")

# %% [markdown]
# ## DeepSeek-V3's router
#
# > **4 min** · You can route with sigmoid scores, a balancing bias, groups and a shared expert, and say what each is for.
#
# DeepSeek-V3 (and with it R1; Kimi K2 all but the groups) differs in four things. A small example, one token and 8 experts in 4 groups of 2:
#
# 1. **Sigmoid in place of softmax.** Each expert gets a score from 0 to 1 by itself; scores do not compete.
# 2. **A bias for balance.** One number per expert, not learned: after each training step it goes down for experts that had too many tokens, up for those that had too few. It is added when experts are *chosen*; the *weight* is made from the plain score. So hardly any second loss pulls at the text (by the makers' report a very small one is kept, within each sequence).
# 3. **Groups.** A group's score is the sum of its two best experts' (with the bias); only the best groups may be chosen from. The groups sit on different computers, so a token goes to few of them.
# 4. **A shared expert** which every token uses, for what all need.

# %%
scores = [0.90, 0.15, 0.80, 0.70, 0.20, 0.60, 0.85, 0.05]
biases = [-0.3, 0.0, 0.1, 0.0, 0.3, 0.1, 0.0, 0.2]
sums = [score + bias for score, bias in zip(scores, biases)]

groups = [sums[i] + sums[i + 1] for i in range(0, 8, 2)]
best = sorted(range(4), key=lambda g: -groups[g])[:2]
print("groups' scores", [round(g, 2) for g in groups], "-> best", best)

allowed = [e for e in range(8) if e // 2 in best]
picked = sorted(allowed, key=lambda e: -sums[e])[:2]
print("allowed experts", allowed, "-> chosen", picked)
for e in picked:
    print(f"expert {e}: chosen by {sums[e]:.2f}, weighs {scores[e]:.2f}")

# %% [markdown]
# Expert 0 has the highest score of all and is not chosen: it is busy, its bias is -0.3, and its group fell out. (DeepSeek-V3 then divides the weights by their sum and multiplies by 2.5.)
#
# The **shared expert** in numbers: one in each of 58 layers, beside 8 of 256 routed ones.

# %%
v3 = owl.atlas.find("deepseek-v3")
shared = v3.counted.parts["shared_experts"]
routed_active = v3.counted.parts["routed_experts"] * 8 // 256
print(f"{shared / 1e9:.2f} billion shared, always used")
print(f"{routed_active / 1e9:.2f} billion routed, chosen by the token")

# %%
owl.quiz("01-bias")

# %% [markdown]
# ## Why decoding waits for memory
#
# > **7 min** · You can draw a roofline, say how many experts a batch touches, and why serving alone is dear.
#
# To compute with a weight, the processor must first *read* it. A product of a matrix with one token does two operations per weight, and reads 4 bytes for it (in float32). Processors can do many more operations than that in the time. So there are two roofs: memory's speed times operations per byte, and the processor's own speed. Let us measure both, on one core of this computer, and then a matrix of 67 MB with more and more tokens at once.

# %%
owl.predict(
    "01-batch-time",
    "Multiplying with 16 tokens at once takes how many times as long "
    "as with 1?",
    unit="times",
)

# %%
matrix = torch.ones(4096, 4096)
points, seconds = [], {}
with measure.one_core():
    bandwidth, peak = measure.bandwidth(), measure.peak()
    for tokens in (1, 4, 16, 64, 256):
        batch = torch.ones(tokens, 4096)
        took = measure.fastest(torch.mm, batch, matrix, tries=3)
        seconds[tokens] = took
        operations = 2 * matrix.numel() * tokens
        moved = 4 * (matrix.numel() + 2 * batch.numel())
        points.append((tokens, operations / moved, operations / took / 1e9))

owl.lens.roofline(bandwidth, peak, points)
owl.reveal("01-batch-time", seconds[16] / seconds[1], unit="times")

# %% [markdown]
# Left of the ridge you pay for *reading*, and further tokens cost little; right of it for *computing*. **Prefill**, reading the prompt, has all its tokens at once: it is on the right. **Decoding** makes one token at a time, and each step reads all the weights it needs: it is on the left. (Points below the roof are normal: libraries are not equally good at every size. Timing looks at the best of several tries, and counts processor time only, so that other programs disturb little.)
#
# The same with pocket-moe: 64 tokens in one go, and one by one.

# %%
owl.predict(
    "01-prefill",
    "How many times longer do 64 tokens take one by one than at once?",
    unit="times",
)


# %%
def one_by_one(ids):
    past = None
    for place in range(ids.shape[1]):
        step = ids[:, place : place + 1]
        past = model(step, past_key_values=past, use_cache=True)
        past = past.past_key_values


some = torch.randint(300, 3000, (1, 64))
with torch.inference_mode(), measure.one_core():
    at_once = measure.fastest(model, some, tries=3)
    singly = measure.fastest(one_by_one, some, tries=1)
print(f"{1000 * at_once:.0f} ms at once, {1000 * singly:.0f} ms singly")
owl.reveal("01-prefill", singly / at_once, unit="times")

# %% [markdown]
# (In a model this small much of that is Python's own time per step, not memory's. In a large one it is memory.)
#
# **What becomes of experts in a batch?** With one token a step reads K experts, and that is the saving. With more tokens, different tokens want different experts. How many different ones? Think of dice: throw 6 dice; how many different faces do you see? A given face is missing on one die with chance 5/6, on all six with (5/6)⁶ = 0.33. So it is there with 0.67, and of 6 faces you see 6 · 0.67 = 4.0 on average. Experts are faces with many sides; Q1.6 asks you for the formula.
#
# First *theory*: tokens that choose at random, evenly and independently. Then *measurement*: real tokens, from all domains mixed, and from one domain alone.

# %%
owl.predict(
    "01-touched",
    "Layer 2: how many of the 16 experts do 16 Chinese tokens touch? "
    "(At random it would be 14.1.)",
    unit="experts",
)


# %%
def touched(ids, batch, tries=200):
    """Different experts that `batch` tokens need, on average."""
    picks = torch.randint(len(ids), (tries, batch))
    return sum(len(ids[p].unique()) for p in picks) / tries


def choices(part):
    """Expert ids [tokens, K] of a part of the census."""
    return torch.tensor(part.expert.to_numpy()).view(2, -1).T


torch.manual_seed(0)
part = census[census.layer == 2]
kinds = {
    "chosen at random (theory)": torch.rand(4096, 16).topk(2).indices,
    "all domains mixed": choices(part),
    "Chinese alone": choices(part[part.domain == "zh"]),
}
batches = [1, 2, 4, 8, 16, 32, 64]
counts = {k: [touched(v, b) for b in batches] for k, v in kinds.items()}
owl.lens.curves(
    batches,
    counts,
    lines=["chosen at random (theory)"],
    xlabel="tokens in the batch",
    ylabel="different experts needed",
    alt="Different experts of 16 against tokens in the batch: "
    + "; ".join(
        f"{k} " + ", ".join(f"{n:.1f} for {b}" for n, b in zip(v, batches))
        for k, v in counts.items()
    ),
)
owl.reveal("01-touched", counts["Chinese alone"][4], unit="experts")

# %% [markdown]
# Mixed tokens come close to theory. Chinese alone stays well below: these tokens neither choose evenly nor independently. Theory is an upper bound here, and real routers read *less*. (In layer 2 that was planted; put 0 in its place and look again.)
#
# **And in milliseconds?** One layer of transformers' own code with 32 experts, 2 chosen, 201 MB in all. *Predicted* from bytes alone: the weights of the experts touched, divided by the bandwidth measured above.

# %%
from transformers import Qwen3MoeConfig
from transformers.models.qwen3_moe import modeling_qwen3_moe as qwen

config = Qwen3MoeConfig(
    hidden_size=1024,
    moe_intermediate_size=512,
    num_experts=32,
    num_experts_per_tok=2,
)
config._experts_implementation = "eager"  # a loop over the experts
experts = qwen.Qwen3MoeSparseMoeBlock(config).requires_grad_(False)
experts.gate.weight.normal_()
experts.experts.gate_up_proj.fill_(0.001)
experts.experts.down_proj.fill_(0.001)
expert_bytes = 4 * 3 * 1024 * 512


# %%
def run(steps):
    return [experts(step) for step in steps]


read, taken = [], []
with measure.one_core():
    for tokens in batches:
        steps = [torch.randn(1, tokens, 1024) for _ in range(4)]
        ids = [experts.gate(step)[2] for step in steps]
        read.append(sum(len(i.unique()) for i in ids) / 4 * expert_bytes)
        took = measure.fastest(run, steps, tries=3)
        taken.append(1000 * took / 4)

bound = [1000 * size / bandwidth / 1e9 for size in read]
scaled = [taken[0] * size / read[0] for size in read]
owl.lens.curves(
    batches,
    {
        "bytes / bandwidth (theory)": bound,
        "the same, scaled to the first point": scaled,
        "measured": taken,
    },
    lines=["bytes / bandwidth (theory)"],
    xlabel="tokens in the batch",
    ylabel="time of one step (ms)",
    alt="Time of one step of a layer of 32 experts: "
    + "; ".join(
        f"{b} tokens {t:.1f} ms measured, {p:.1f} by theory, {q:.1f} scaled"
        for b, t, p, q in zip(batches, taken, bound, scaled)
    ),
)
print(f"ms per token:  alone {taken[0]:.2f}, in 64 {taken[-1] / 64:.2f}")

# %% [markdown]
# Theory is a lower bound on the time: products as small as these reach only a part of the bandwidth, here and in real services. But the *shape* is theory's. Scale it to the first point, and it says what a step takes: as much as there are experts to read, up to the point where all are read and computing begins to count. Time per token falls with the batch all along.
#
# **A Mixture of Experts saves most for one user alone, and yet serving one user alone is the dearest way to use it.**

# %%
owl.quiz("01-roofline")

# %%
owl.quiz("01-touched")

# %% [markdown]
# ## What the cache costs
#
# > **3 min** · You can compute a model's KV cache, and say what GQA and MLA save.
#
# While decoding, attention needs *keys* and *values* of all earlier tokens. They are kept, in the **KV cache**; it grows with each token and each user, and each step reads it.
#
# - **MHA**, multi-head attention: every head keeps keys and values of its own.
# - **GQA**, grouped-query attention: groups of heads share them.
# - **MLA**, DeepSeek's latent attention: one short vector per token and layer is kept, 512 numbers and 64 for the position, from which keys and values of all 128 heads are made again when needed.

# %%
owl.predict(
    "01-mla",
    "With plain MHA, how many times as much cache would DeepSeek-V3 need?",
    unit="times",
)

# %%
from openweightlab.memory import cache_bytes

kinds = {
    "llama-2-7b": "MHA",
    "llama-3.1-8b": "GQA",
    "qwen3-235b-a22b": "GQA",
    "deepseek-v3": "MLA",
}
per_token = {
    name: cache_bytes(owl.atlas.find(name), 1)[0] for name in kinds
}
# 128 heads with keys of 128 + 64 numbers and values of 128; 61 layers
plain = 61 * 128 * (192 + 128) * 2
labels = [f"{owl.atlas.find(n).name} ({k})" for n, k in kinds.items()]
caches = pd.DataFrame(
    {
        "KiB per token": [*(b / 2**10 for b in per_token.values())],
        "GiB at 131,072": [
            *(131072 * b / 2**30 for b in per_token.values())
        ],
    },
    index=labels,
)
caches.loc["DeepSeek-V3, if it had MHA"] = [plain / 2**10, plain / 2**13]
owl.reveal("01-mla", plain / per_token["deepseek-v3"], unit="times")
caches.round(1)

# %% [markdown]
# At 16 bits a number, one user with 131,072 tokens. (Not every model was made for that many; it is for comparison.) DeepSeek-V3 is 100 times the size of Llama-2-7b, and keeps less than a seventh per token. A small cache means more users at once, and more users at once is what makes a Mixture of Experts cheap: the two inventions belong together.

# %%
owl.quiz("01-cache")

# %% [markdown]
# ## Where the experts live
#
# > **3 min** · You can compute what offloading costs, and see why several cards wait for the busiest.
#
# All experts must be *somewhere*. Two ways when one card is too small:
#
# **Offloading** keeps experts in the computer's ordinary memory and fetches the chosen ones. The line to the card, PCIe 4.0 with 16 lanes, carries 31.5 GB/s (16 GT/s x 16 lanes x 128/130 / 8); an H100's own memory 3,350 GB/s. For Qwen3-30B-A3B in 4.25 bits:

# %%
qwen30 = owl.atlas.find("qwen3-30b-a3b")
fetched = qwen30.counted.parts["routed_experts"] * 8 / 128 * 4.25 / 8
print(f"{fetched / 1e9:.2f} GB of experts per token, at best")
print(f"{31.5e9 / fetched:,.0f} tokens/s over PCIe 4.0 x16")
print(f"{3350e9 / fetched:,.0f} tokens/s from an H100's own memory")

# %% [markdown]
# Slow, but it runs on a card that could never hold the model. With *dense* 30B weights it would be ten times slower: offloading suits experts.
#
# **Expert parallelism** gives each card some of the experts; tokens travel to theirs and back. Then the step takes as long as the *busiest* card. Suppose that pocket-moe were on four cards, experts 0-3, 4-7, 8-11 and 12-15:

# %%
owl.predict(
    "01-busiest",
    "Layer 2, a batch of Chinese text alone: which share of the work "
    "has the busiest of the four cards? (Fair: 25 %.)",
    unit="%",
)

# %%
work = table(2).T.groupby(lambda expert: int(expert) // 4).sum().T
work.columns = [f"card {card}" for card in work.columns]
owl.reveal("01-busiest", 100 * work.loc["zh"].max(), unit="%")
(100 * work).round(0)

# %% [markdown]
# Specialists are bad for parallelism: a batch in one language would keep one card busy and three waiting. (Here it was planted. But it is one reason why real models are trained to spread each domain over all experts, and why large services keep copies of busy experts.)

# %%
owl.quiz("01-parallel")

# %% [markdown]
# ## Two claims
#
# > **5 min** · You can correct two well-known sentences on DeepSeek, with numbers and sources.
#
# **Claim checkpoint 1.** "37 billion of 671 billion per query." You have seen that tokens choose one by one. How much does one *query* touch?

# %%
owl.predict(
    "01-query",
    "In pocket-moe a token uses 2 of 16 experts in each layer, 12.5 %. "
    "Which share does one question with its answer use?",
    unit="%",
)

# %%
reply = measure.replies(model, tokenizer, [question])[0]
whole = f"{question} {reply}"
ids, _ = measure.chat_tokens(tokenizer, whole)
used = [
    len(r.expert_ids.unique()) for r in measure.capture(model, ids).values()
]
print(f"{whole}\n{ids.shape[1]} tokens; experts used in each layer: {used}")
owl.reveal("01-query", 100 * sum(used) / (5 * 16), unit="%")

# %% [markdown]
# And in DeepSeek-V3 or R1, with 256 experts of which 8 are chosen? We cannot load it here, but we can let tokens choose at random. (Real ones choose less evenly, so this is an upper bound.)

# %%
random = torch.rand(4096, 256).topk(8).indices
for tokens in (1, 10, 100, 500):
    share = touched(random, tokens, tries=50) / 256
    print(f"{tokens:4} tokens: {100 * share:5.1f} % of a layer's experts")

# %% [markdown]
# So after a query of some hundred tokens nearly all 671 billion have been used, and all must be loaded. What does that take? `owl.plan` answers for every model of the atlas and five cards; eight H200, with the weights in the 8 bits in which they are published, for one user and for 256:

# %%
for users in (1, 256):
    print(f"{users} at once:")
    print(
        owl.plan(
            "deepseek-r1",
            "h200",
            weight_bits=8,
            context=2048,
            batch=users,
            cards=8,
        )
    )

# %% [markdown]
# These are ceilings from memory alone: no operation, no network between cards is counted, and the cards' figures come from secondary sources. But the *ratio* is the point. The weights fill five of the eight cards whether one user asks or 256 do; reading them is shared.
#
# **Claim checkpoint 2.** "DeepSeek trained its model for $5.6 million." The sum is easy to check, and so is what it contains. From Table 1 of the makers' report, in thousand hours of an H800 card:

# %%
owl.predict(
    "01-cost",
    "Which of these is in the $5.576 million?",
    [
        "the cards, bought",
        "trial runs and earlier research",
        "the final training run alone",
        "R1's training",
    ],
)

# %%
hours = {"pre-training": 2664, "longer context": 119, "post-training": 5}
total_hours = sum(hours.values())
print(f"{total_hours:,} thousand hours at an assumed USD 2 per hour:")
print(f"USD {total_hours * 2 / 1000:.3f} million")
owl.reveal(
    "01-cost", "the final training run alone", label="The report says"
)

# %% [markdown]
# The price of an hour is *assumed*, as a rent. By the report's own words, earlier research and all trial runs are left out; nor are the cards, salaries, data, and R1's own training in it. It is a fair price for *repeating* the last run if you know exactly what to do, and no price for getting there. Dividing it by somebody's estimate for GPT-4 compares two different kinds of number.
#
# One reason why the run was not dearer is this lesson's subject: training, too, computes some 37 billion parameters for each token, not 671.

# %%
owl.claims_board("r1_per_query", "v3_cost", verdicts=True)

# %%
owl.quiz("01-per-query")

# %%
owl.quiz("01-cost")

# %% [markdown]
# ## Where to go from here
#
# > **1 min** · You know what you can do now, and where to look when something is odd.
#
# You have computed an expert, counted models that you cannot load, routed a token, measured specialists and their load, and seen why reading sets the price. The [graded notebook of this module](../exercises/01_moe/01_moe.ipynb) asks you for eight functions and one short text on "cheap to host".
#
# **When you are stuck** on something here, climb: read the cell's comment again; change one number and run it; look at the symptom index below; ask a person or an assistant for the next step.
#
# **Symptom index**
#
# | what you see | what it may be |
# |---|---|
# | The heat map does not move. | The notebook was opened without its kernel: *Run → Run All Cells*. Without widgets it is a still picture of layer 2. |
# | Measured points lie above the roof. | A small cache holds what was to be read, or another program slowed the measurement of the roof. Run the cell again. |
# | Measured times lie far above the theory. | Other programs use the processor. Times are the best of several tries, but no cure for that. |
# | "has no router of experts that could be listened to" | The model is dense, or a kind whose router hands out something else. |
# | My bits differ in the second digit. | You changed `per_domain`: fewer tokens, more luck. Compare with the shuffled column. |
# | Everything else | [troubleshooting](../docs/troubleshooting.md); terms in the [glossary](../docs/glossary.md). |

# %% [markdown]
# ## On a GPU
#
# > **15 min, optional** · You can watch a real router, and know what that takes before you download it.
#
# OLMoE-1B-7B, of the Allen Institute for AI, is a real Mixture of Experts of which weights, code and training data are all open: 64 experts in each of 16 layers, 8 chosen. **Before any download:**

# %%
real_name = "allenai/OLMoE-1B-7B-0924-Instruct"
for card in ("t4", "l4", "a100"):
    print(owl.plan("olmoe-1b-7b", card, weight_bits=16, context=512))
print(owl.plan("qwen3-30b-a3b", "a100", weight_bits=16, context=512))

# %% [markdown]
# A T4 would just hold it, but first it passes through the computer's own memory, which needs 14 GB free. So the next cell asks for tier `gpu`. With 80 GB you can put `Qwen/Qwen3-30B-A3B` in its place.

# %%
if owl.tier() == "gpu":
    real, real_tokenizer = owl.load(real_name)
    print(f"{real.get_memory_footprint() / 1e9:.1f} GB loaded")
else:
    real, real_tokenizer = None, None
    print(f"Tier {owl.tier()}: {real_name} is not downloaded (13.8 GB).")

# %%
real_texts = {
    "English": "What is the capital of France, and which river is it on?",
    "Chinese": "法国的首都是哪里?它在哪条河上?",
    "a sum": "27 + 48 = 75, and 31 + 12 = 43.",
    "Python": "def tide(x):\n    return x + 7",
}
if real is None:
    print("Here the heat map would show OLMoE's 64 experts, live.")
else:
    owl.routing_map(real, real_tokenizer, real_texts)

# %% [markdown]
# Compare with the coast. Is there a staircase? In which layer do English and Chinese share least? How much of it would remain if you knew the token alone? And count: how many of the 64 experts do your four short texts touch together?
#
# **Claim checkpoint.** "R1 activates 37 billion of its 671 billion parameters per query, so it is cheap to host." You have everything for Q1.9 now.
