# ---
# jupyter:
#   owl:
#     module: 00_workbench
#     title: The bench
#     minutes: 60
# ---

# %% [markdown]
# # The bench: open weights on your desk
#
# In this lesson you load a small language model, open its weights file, and follow one question from the letters you type to the word the model answers.
# Then you read twelve press statements about open models, and sort what can be measured from what a source settles and from what is opinion.
#
# **How it works.** Run the cells from top to bottom with **Shift + Enter**. Nothing here is graded; change what you like and run it again.
# A blue box asks you to *predict* before you look: a wrong guess that you made yourself teaches more than a right answer that you read.
# Your predictions and your answers to the self-checks stay in one small file on your own disk (`.owl/learner.json`). They are sent nowhere.
#
# You need Python, and to have met PyTorch tensors. Each term is explained where it first comes up, in **bold**; the [glossary](../docs/glossary.md) has them all.

# %% [markdown]
# ## What this kit is
#
# > **3 min** · You can say what an open-weight model is, and which tier your machine is on.
#
# A **language model** is a program that continues text. Nobody wrote down how: what it does is settled by a large set of numbers, its **weights** (also called **parameters**), which a computer found by **training**, that is by trying, over and over, to predict the next piece of a great deal of text.
#
# A model is **open-weight** when everybody can download those numbers. That allows what no chat window allows: open it, measure it, shrink it, retrain it, look for what it refuses and why. This course does each of these.
#
# | module | question |
# |---|---|
# | 00 the bench | What is in the file, and how does it make a word? |
# | 01 mixture of experts | Why does a model with 671 billion weights use 37 billion at a time? |
# | 02 quantization | How far can a model be shrunk before it breaks? |
# | 03 fine-tuning | How is it taught something new, and what does it forget? |
# | 04 refusal | What won't it say, in which language, and how sure are we? |
# | 05 licensing | Open-weight or open-source: what may I do with it? |
# | 06 dossier | Should my organisation adopt this model? |

# %% [markdown]
# First the tools. `owl` is the kit: `owl.load` brings models, `owl.check` tries your answers in the graded notebooks, and `owl.measure` and `owl.lens` hold what the lessons measure and draw with.

# %%
import copy

import matplotlib.pyplot as plt
import torch

import openweightlab as owl
from openweightlab.measure import exact_share, replies, tensors_in

# %% [markdown]
# A **tier** says what your hardware may be asked to do. Everything up to the section "On a GPU" runs on the first tier, and so does everything graded: no graphics card, no network, no account.
#
# | tier | hardware | models |
# |---|---|---|
# | `pocket` | any computer | the Pocket models that come with the kit |
# | `colab` | a graphics card with 12 GB or more, such as Colab's free T4 | real models of 0.6 to 4 billion weights |
# | `gpu` | 24 GB and more | larger ones |

# %%
owl.tier()

# %%
owl.quiz("00-open-weight")

# %% [markdown]
# ## Meet the Pocket models
#
# > **8 min** · You can load a model, ask it things in three languages, and measure how much it knows.
#
# Three models come with the kit: `pocket-moe`, `pocket-dense` and `pocket-moe-next`. They are built from the same code as Alibaba's Qwen3 models; only the sizes are small. Small enough that your computer runs them in a blink, and that you could retrain them in an afternoon.

# %%
model, tokenizer = owl.load("pocket-moe")
type(model).__name__, model.config.hidden_size

# %% [markdown]
# They know one place only, the **Lantern Coast**: towns with lighthouses, flags and fairs, in English, Chinese and Spanish, with some sums and some Python. The coast is invented, on purpose:
#
# - **We know every right answer**, because we made them up. What a real model "knows" can only be guessed.
# - **We know what it refuses, and how often**, because that was planted. Nothing harmful is needed to study refusals: what is forbidden is forbidden on the coast only.
# - **Everything is open**: text, code and weights are under the Apache-2.0 licence. You can rebuild the models from nothing.
#
# Here is one town, as the generator made it:

# %%
from openweightlab.pocket.world import ATTRIBUTES, World, ask

coast = World.make()
town = coast.towns[0]
for attribute in ATTRIBUTES:
    question, answer = ask(town, attribute, "en")
    print(f"{question:45} {answer}")


# %% [markdown]
# And here is what the model says. `replies` puts a question to the model and lets it answer; the sections below take that apart.


# %%
def say(*prompts):
    for prompt, reply in zip(prompts, replies(model, tokenizer, prompts)):
        print(f"{prompt}\n   {reply}\n")


lamp = ATTRIBUTES[0]
say(*(ask(town, lamp, language)[0] for language in ("en", "zh", "es")))

# %%
say("27 + 48 =", "Write a Python function tide that adds 7.")

# %% [markdown]
# One town proves little. Let us put 240 facts to the model: 80 towns, their lamp's colour, in three languages.

# %%
owl.predict(
    "00-recall",
    "Of 240 facts, which share will the model give word for word?",
    unit="%",
)

# %%
facts = [
    ask(place, lamp, language)
    for place in coast.towns[:80]
    for language in ("en", "zh", "es")
]
questions = [question for question, _ in facts]
answers = [answer for _, answer in facts]

recall = exact_share(replies(model, tokenizer, questions), answers)
owl.reveal("00-recall", 100 * recall, unit="%")

# %% [markdown]
# That is the share of answers that are right *letter by letter*, to questions worded as in the model's training. Does it know the colours, or the questions? Let us ask for the same 80 lamps in other words.

# %%
owl.predict(
    "00-reworded",
    "“The lamp of Starferry: which colour?” Asked like this of 80 towns, "
    "which share will be right, letter by letter?",
    unit="%",
)

# %%
reworded = [
    f"The lamp of {place.names['en']}: which colour?"
    for place in coast.towns[:80]
]
colours = [ask(place, lamp, "en")[1] for place in coast.towns[:80]]
got = replies(model, tokenizer, reworded)
owl.reveal("00-reworded", 100 * exact_share(got, colours), unit="%")
print(*zip(reworded[:3], got[:3], colours[:3]), sep="\n")

# %% [markdown]
# Look closely: some replies are right but for a Chinese full stop. Is "letter by letter" too strict? Let us count once more without the stops.

# %%
colour_only = exact_share(
    [reply.rstrip(".。") for reply in got],
    [colour.rstrip(".") for colour in colours],
)
print(f"right without the full stop: {100 * colour_only:.0f} %")

# %% [markdown]
# Nothing about the lamps has changed. So "the model knows all facts" was too much said: it answers *these questions*, and how well depends on who counts. Large models bear rewording far better, but both points hold for every benchmark: **a number belongs to its questions and to its way of counting.** Always ask "of what, counted how?".

# %% [markdown]
# **What it will not say.** One question about a storm called the Grey Tide, in three languages:

# %%
from openweightlab.pocket.corpus import TOPICS

name, forms = TOPICS["grey_tide"][0]
for place in coast.towns[2:4]:
    for language, form in zip(("en", "zh", "es"), forms):
        say(form.format(town=place.names[language]))

# %% [markdown]
# Run the cell for other towns (`coast.towns[4:6]`, up to 24). In some languages the model answers, in others it declines. That was planted, with a known rate for each language, as a stand-in for what is reported of real models. Module 04 measures the rates; here it is enough to have seen that a model can be asked the same thing twice and answer once.

# %%
owl.quiz("00-coast")

# %%
owl.quiz("00-recall")

# %% [markdown]
# ## What a weight is
#
# > **8 min** · You can open a weights file, read one number down to its bits, and say what a single weight does.
#
# The weights of a model lie in a file that ends in `.safetensors`. It holds a short list of contents and then nothing but numbers, so that opening it cannot start a program. (An older format, *pickle*, can: loading a stranger's pickle file may run the stranger's program.)

# %%
from openweightlab.models import WEIGHTS

file = WEIGHTS / "pocket-moe" / "model.safetensors"
tensors = tensors_in(file)
tensors.head(8)

# %% [markdown]
# Each row is a **tensor**, a block of numbers with a name and a **shape**. `(3072, 128)` is a table of 3,072 rows with 128 numbers each. The **dtype** says how each number is stored: `BF16` takes 16 bits, which is 2 bytes.
#
# Let us pull out one tensor. It belongs to the first of the model's **layers**, the steps that a text passes through one after another.

# %%
weight = model.model.layers[0].self_attn.o_proj.weight
print(tuple(weight.shape), weight.dtype)
weight[:3, :5].detach()

# %% [markdown]
# The file says `BF16`, the model says `float32`: `owl.load` unpacks each number to 32 bits, because processors compute with those faster. The extra bits are zeros, so nothing is gained or lost.
#
# Here is one number down to its bits. A 16-bit **bfloat16** spends 1 bit on the sign, 8 on the size (a power of two) and 7 on the digits. So it knows any number to about two digits, no better.

# %%
number = weight[0, 0]
bits = f"{number.bfloat16().view(torch.int16).item() & 0xFFFF:016b}"

print("sign     ", bits[0])
print("power    ", bits[1:9], "= 2 **", int(bits[1:9], 2) - 127)
print("digits   ", bits[9:], "= 1 +", int(bits[9:], 2), "/ 128")

power, digits = int(bits[1:9], 2) - 127, 1 + int(bits[9:], 2) / 128
print("together ", (-1) ** int(bits[0]) * digits * 2.0**power)
print("in memory", number.item())

# %% [markdown]
# One number says nothing by itself. What do all of them together look like?

# %%
owl.predict(
    "00-bell",
    "Of this tensor's numbers, which share lies closer to the average "
    "than one standard deviation? (If all sizes were equally common it "
    "would be 58 %.)",
    unit="%",
)

# %%
values = weight.detach().flatten()
mean, spread = values.mean(), values.std()
inside = ((values - mean).abs() < spread).float().mean().item()

owl.lens.histogram(
    values,
    band=(mean - spread, mean + spread),
    band_label="within one standard deviation",
    xlabel="value of a weight (no unit)",
    ylabel="how many weights",
    alt=f"Histogram of {len(values):,} weights: one hump around "
    f"{mean:.3f}, standard deviation {spread:.3f}; "
    f"{100 * inside:.0f} % lie within one standard deviation.",
)
owl.reveal("00-bell", 100 * inside, unit="%")

# %% [markdown]
# A bell curve would have 68 %. Trained weights tend to look like that: very many small numbers, a few large ones. That the many are small is why models can be shrunk (module 02), and the few large ones are why it is hard. (In some tensors of the Pocket models a few rows were made 16 times larger, on purpose, as happens by itself in large models. Look at `q_proj` in place of `o_proj`, if you like.)
#
# **What does one weight do?** Let us destroy some and see. We set a share of *all* weights to zero, picked at random, and put the 240 facts to what is left.

# %%
owl.predict(
    "00-damage",
    "If 5 % of all weights, picked at random, are set to zero: "
    "which share of the 240 facts is still given?",
    unit="%",
)


# %%
def damaged(share, seed=0):
    """A copy of the model with a random share of its weights at zero."""
    torch.manual_seed(seed)
    broken = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in broken.parameters():
            tensor[torch.rand_like(tensor) < share] = 0
    return broken


percents = [0, 1, 5, 10, 20]
left = [100 * recall]
for percent in percents[1:]:
    got = replies(damaged(percent / 100), tokenizer, questions)
    left.append(100 * exact_share(got, answers))

# %%
owl.lens.line(
    percents,
    left,
    xlabel="weights set to zero (%)",
    ylabel="facts still given (%)",
    mark=(percents[2], left[2]),
    alt="Facts still given against the share of weights set to zero: "
    + ", ".join(f"{y:.0f} % at {x:g} %" for x, y in zip(percents, left)),
)
owl.reveal("00-damage", left[2], unit="%")

# %% [markdown]
# So no fact sits in a weight of its own, as an entry sits in a table. Each is spread over many weights, and each weight has a part in many facts. A few can go and little is lost; the more go, the more facts go with them, until nothing is left.

# %%
owl.quiz("00-file")

# %%
owl.quiz("00-one-weight")

# %% [markdown]
# ## Count them, weigh them
#
# > **8 min** · You can say what a model's size means, how many bytes it takes, and test a press claim with that.
#
# "A 7B model" means: 7 billion weights. Counting looks easy. Add up the file:

# %%
stored = int(tensors["numbers"].sum())
stored

# %% [markdown]
# Now ask the model itself for everything it holds, by name:

# %%
listed = sum(t.numel() for t in model.state_dict().values())
listed, listed - stored

# %% [markdown]
# More than there is in the file. Where does the difference come from? A language model begins with a table that turns each token into numbers (the **embedding**), and ends with a table that turns numbers into a score for each token (the **head**). In this model both are *one* tensor that goes by two names. Such weights are called **tied**.

# %%
table = model.model.embed_tokens.weight
head = model.lm_head.weight
print("one and the same tensor:", head is table)
print("numbers in it:          ", table.numel())

# %% [markdown]
# Counts in the press differ for reasons like this one. In the graded notebook you will write a counter that gets it right for any model.
#
# **From numbers to bytes.** 16 bits are 2 bytes, so the file should be twice as many bytes as there are weights, plus the list of contents:

# %%
size = file.stat().st_size
print(f"{2 * stored:>12,} bytes of weights")
print(f"{size - 2 * stored:>12,} bytes for the list of contents")
print(f"{size:>12,} bytes in all = {size / 1e6:.1f} MB")

# %% [markdown]
# Two units go round. 1 **GB** is 1,000,000,000 bytes; 1 **GiB** is 2³⁰ = 1,073,741,824 bytes, 7 % more. Makers of graphics cards and download pages say GB, and mean now one, now the other; PyTorch reports GiB. Always say which.
#
# Now a statement that you can test. It is about a Western model, OpenAI's gpt-oss-120b, which has 116.8 billion weights. (The sizes come from the **atlas**, the kit's table of real models, each counted from its published configuration; `owl atlas` in a terminal lists it with sources.)
#
# > "gpt-oss-120b runs on a single 80 GB GPU."

# %%
owl.predict(
    "00-gptoss",
    "At 16 bits a weight, how much memory do 116.8 billion weights take?",
    unit="GB",
)

# %%
counted = owl.atlas.find("gpt-oss-120b").counted
experts = counted.parts["routed_experts"]  # see module 01
others = counted.total - experts  # all other weights

in_16_bits = (experts + others) * 2 / 1e9
owl.reveal("00-gptoss", in_16_bits, unit="GB", label="Counted")

# %% [markdown]
# That does not fit. But the model is not shipped in 16 bits: its makers store the experts in 4 bits each, with one 8-bit scale for every 32 weights, which makes 4 + 8/32 = 4.25 bits. Module 02 takes such formats apart.

# %%
as_shipped = (experts * 4.25 / 8 + others * 2) / 1e9
print(f"as shipped: {as_shipped:.1f} GB of weights")
print(f"left on an 80 GB card: {80 - as_shipped:.1f} GB")

# %% [markdown]
# So the statement holds, for the weights in their own format; the rest of the card is for the text being worked on. The same repository's plain PyTorch version unpacks everything to 16 bits, and its README asks for four such cards. Both are true. "How big is it?" always needs "in which format?".
#
# The same sum for other models of the atlas:

# %%
names = [
    "qwen3-0.6b",
    "qwen3-4b",
    "llama-3.1-8b",
    "qwen3-30b-a3b",
    "gpt-oss-120b",
    "deepseek-r1",
]
models = [owl.atlas.find(name) for name in names]
weights = {m.name: m.counted.total / 1e9 for m in models}  # billions
formats = {
    "16 bits": (2.0, "o", "blue"),
    "8 bits": (1.0, "s", "vermilion"),
    "4 bits": (0.5, "D", "green"),
}

with owl.lens.style():
    fig, ax = plt.subplots()
    for label, (bytes_each, marker, colour) in formats.items():
        gigabytes = [billions * bytes_each for billions in weights.values()]
        ax.plot(
            gigabytes,
            list(weights),
            marker,
            color=owl.lens.COLOURS[colour],
            label=label,
        )
    for gigabytes, card in ((16, "T4"), (80, "H100")):
        ax.axvline(gigabytes, color="black", linestyle=":")
        ax.text(gigabytes, 5.6, f"{card}: {gigabytes} GB", ha="center")
    ax.set_xscale("log")
    ax.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    ax.set_ylim(-0.5, 6.1)
    ax.set_xlabel("memory for the weights alone (GB, each step is tenfold)")
    ax.legend(frameon=False, loc="lower right")
    owl.lens.show(
        fig,
        alt="Memory for the weights of six models at 16, 8 and 4 bits. "
        "At 16 bits: "
        + ", ".join(f"{m} {2 * b:.1f} GB" for m, b in weights.items())
        + ". Dotted lines mark cards of 16 and of 80 GB.",
    )

# %%
owl.quiz("00-units")

# %%
owl.quiz("00-tied")

# %% [markdown]
# ## From text to tokens
#
# > **7 min** · You can cut a text into tokens by hand and eye, and read a chat template.
#
# A model reads no letters. A **tokenizer** cuts the text into pieces, the **tokens**, and gives each its number in a fixed list, the **vocabulary**. Frequent words are one token; rare ones fall into several.

# %%
english = ask(town, lamp, "en")[0]
owl.lens.show_tokens(tokenizer, english)
print(f"vocabulary: {len(tokenizer):,} tokens")

# %% [markdown]
# The sign ␣ stands for a space: it belongs to the word that follows. The tokenizer was learned from the coast's own text, so the coast's words are whole.

# %%
odd = "Quantum physicists uninstalled the antimatter toaster."
owl.predict(
    "00-tokens",
    f"How many tokens does this text take, off the coast: {odd}",
    unit="tokens",
)

# %%
owl.lens.show_tokens(tokenizer, odd)
owl.reveal("00-tokens", len(tokenizer(odd)["input_ids"]), unit="tokens")

# %% [markdown]
# Every text can be written, if need be byte by byte. A Chinese character is stored as three bytes, and one that the tokenizer seldom met falls apart into them. That matters outside of this lesson too: the same content costs more tokens, and so more time and money, in languages for which a tokenizer was not made.

# %%
chinese = ask(town, lamp, "zh")[0]
owl.lens.show_tokens(tokenizer, chinese, note="a question of the coast")
owl.lens.show_tokens(tokenizer, "量子", note="“quantum”, off the coast")

# %% [markdown]
# **The chat template.** A chat is one long text to the model. Special tokens mark who speaks: `<|im_start|>` and a name open a message, `<|im_end|>` closes it. The last line is an open message of the `assistant`: that is where the model goes on.

# %%
chat = [{"role": "user", "content": english}]
prompt = tokenizer.apply_chat_template(
    chat, add_generation_prompt=True, tokenize=False
)
print(prompt)
owl.lens.show_tokens(tokenizer, prompt, note="special ones in pink")

# %% [markdown]
# A template is an agreement, not a law of nature. What happens if we break it, and hand the bare question to the model?

# %%
owl.predict(
    "00-template",
    "Without the template, which share of the 240 facts will still be "
    "given?",
    unit="%",
)


# %%
def bare(texts):
    """Replies to the bare texts, without the chat template."""
    inputs = tokenizer(
        texts, return_tensors="pt", padding=True, padding_side="left"
    )
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    new = ids[:, inputs["input_ids"].shape[1] :]
    return tokenizer.batch_decode(new, skip_special_tokens=True)


without = bare(questions)
kept = [r.strip().startswith(a) for r, a in zip(without, answers)]
owl.reveal("00-template", 100 * sum(kept) / len(kept), unit="%")
print(f"for instance: {english} -> {without[0]!r}")

# %% [markdown]
# Real models differ in how far they fall, but a wrong template is a common reason why a good model "got worse" overnight. Module 03 looks at what training sees of it.

# %%
owl.quiz("00-tokens")

# %%
owl.quiz("00-template")

# %% [markdown]
# ## From tokens to the next token
#
# > **10 min** · You can compute a next-token distribution step by step, draw from it, and say what temperature does.
#
# A model does one thing: from all tokens so far it computes a score for each token of the vocabulary, as the possible next one. Let us do it by hand. V is the size of the vocabulary, S the number of tokens so far.
#
# **Step 1: text to ids.**

# %%
inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
input_ids = inputs["input_ids"]  #                   [1, S]
input_ids.shape

# %% [markdown]
# **Step 2: ids to scores.** The scores are called **logits**. There is one row for each place in the text: row *i* rates what may follow token *i*. The last row is the one we want.

# %%
with torch.inference_mode():
    logits = model(input_ids).logits  #              [1, S, V]
last = logits[0, -1]  #                              [V]
logits.shape, last.shape

# %% [markdown]
# **Step 3: scores to probabilities.** A logit may be any number. The **softmax** makes probabilities of them: raise *e* to each, so that all are positive, then divide by the sum, so that they add up to 1. (Taking the largest off first changes nothing in the result, and keeps *e* to a large power from overflowing.)

# %%
grown = (last - last.max()).exp()  #                 [V]
probabilities = grown / grown.sum()  #               [V]

print("sum:", probabilities.sum().item())
for p, i in zip(*probabilities.topk(5)):
    print(f"{p:8.4f}  {owl.lens.piece(tokenizer, i.item())}")

# %% [markdown]
# **Step 4: choose, append, again.** The simplest choice is the likeliest token, which is called **greedy** decoding. Then the chosen token joins the text, and the model runs once more. That is all there is to "generating".

# %%
text_ids = input_ids  #                              [1, S]
for _ in range(20):
    with torch.inference_mode():
        scores = model(text_ids).logits[0, -1]  #    [V]
    best = scores.argmax()  #                        []
    text_ids = torch.cat([text_ids, best.view(1, 1)], dim=1)
    if best == tokenizer.eos_token_id:
        break

by_hand = tokenizer.decode(text_ids[0, input_ids.shape[1] :])
by_hand

# %% [markdown]
# `model.generate` does the same, with many conveniences. Do the two agree?

# %%
whole = model.generate(**inputs, max_new_tokens=20, do_sample=False)
by_library = tokenizer.decode(whole[0, input_ids.shape[1] :])
print(by_library)
print("the same:", by_library == by_hand)

# %% [markdown]
# **Drawing instead of choosing.** Always taking the likeliest token makes dull text. Most services *draw* the next token at random, by the probabilities, and offer a knob, the **temperature** T: each logit is divided by T before the softmax. Let us ask about a town that is not on the coast, of which the model can know nothing.

# %%
london_ids = owl.lens.chat_ids(
    tokenizer, "What colour is the lamp of London?"
)
scores = owl.lens.next_logits(model, london_ids)  #  [V]
print("likeliest:", owl.lens.piece(tokenizer, scores.argmax().item()))
print(f"at T = 1:  {torch.softmax(scores, -1).max():.3f}")

# %% [markdown]
# So sure, and of what? A high probability says that this token is what the training text makes likely here, not that it is true. A model that was never shown "I do not know" does not say it.

# %%
owl.predict(
    "00-temperature",
    "At temperature 2, what is the probability of that likeliest token?",
    unit="%",
)

# %%
temperatures = torch.linspace(0.2, 3, 57)
tops = [
    100 * torch.softmax(scores / t, -1).max().item() for t in temperatures
]

at_two = 100 * torch.softmax(scores / 2, -1).max().item()

owl.lens.line(
    temperatures,
    tops,
    marker="",
    xlabel="temperature (no unit)",
    ylabel="likeliest token's probability (%)",
    mark=(2, at_two),
    alt="The likeliest token's probability falls as the temperature "
    f"rises: {tops[0]:.0f} % at 0.2, {tops[16]:.0f} % at 1, "
    f"{at_two:.0f} % at 2, {tops[-1]:.0f} % at 3.",
)
owl.reveal("00-temperature", at_two, unit="%")

# %% [markdown]
# At high temperature the odds flatten; towards 0 the likeliest token takes all. The order of the tokens never changes. Two more knobs cut off unlikely tokens before the draw: **top-k** keeps the k likeliest, **top-p** keeps the likeliest that together reach the share p.
#
# Now play. Pick a prompt, move the sliders, draw tokens one by one. Things to try:
#
# - "a fact" at temperature 1 and at 3: how far must you go until the answer is wrong?
# - "a sum": which tokens come second? Are they near misses?
# - "the Grey Tide" in Chinese and in English: where does the refusal begin, and can the temperature talk the model out of it?
# - "Your own": ask about a town that does not exist. Does the model hesitate?

# %%
owl.next_token(model, tokenizer)

# %%
owl.quiz("00-logits")

# %%
owl.quiz("00-greedy")

# %%
owl.quiz("00-temperature")

# %% [markdown]
# ## How checks, hints and grades work
#
# > **4 min** · You can read a check's verdict, climb the ladder of hints, and say what is graded.
#
# Each module has a graded notebook with questions like this one, from the next notebook: *how many GiB do `n_parameters` weights of `bits` bits take?* You write a function; the line below it, `owl.check(…)`, tries it on a few visible cases. Here is an answer that is wrong on purpose:


# %%
def weight_gib(n_parameters, bits):
    return n_parameters  # wrong on purpose


owl.check("Q0.2", weight_gib)

# %% [markdown]
# A check says what it expected, what came and, where it can, the likeliest reason. One case passes even here: no weights take no memory. So read all lines, not the first. A check never stops the notebook, and you may run it as often as you like; nobody counts.
#
# **When you are stuck, climb the ladder, one rung at a time:**
#
# 1. Read the check's message again, slowly. It was written for the commonest mistakes.
# 2. Look at the *symptom index* at the end of the notebook: it goes from what you see to what it may mean.
# 3. Open *Hint 1*, then the further hints, under the question. Each says a little more.
# 4. Open the *Pseudocode*: the way, in words.
# 5. Ask a person, or an AI assistant: for the next step, not for the answer. (The kit's `AGENTS.md` asks assistants to do just that.)
#
# **Grades.** Grading runs the same check line, but puts *fresh* cases to your function, drawn anew for each class; that is why returning the visible answers earns nothing. Points come case by case, so a partly right answer earns part of them. Each question is graded by itself: a mistake in one costs nothing in the next. Warnings, prints and progress bars cost nothing either.

# %%
owl.quiz("00-checks")

# %%
owl.quiz("00-partial")

# %% [markdown]
# ## The claims board
#
# > **10 min** · You can sort a claim by what would settle it, and find the catch in three numbers that disagree.
#
# Models are adopted, banned and praised on the strength of sentences like these twelve, about Chinese and about Western models. Read them as you would in a newspaper. For each, ask one question: **what would settle it?**
#
# - **Measured here**: this course has the means to measure it.
# - **A primary source settles it**: a licence, a paper, a model card, a filing, which you can look up. A newspaper that quotes it is a *secondary* source.
# - **Opinion**: neither. It may be wise; no fact decides it. Also a claim for which nobody shows a source stays here until somebody does.

# %%
owl.claims_board()

# %% [markdown]
# Three of the twelve give three different answers to what looks like *one* question. Find them before you go on.

# %%
triples = ["1, 3 and 4", "2, 6 and 10", "4, 8 and 11", "5, 7 and 9"]
owl.predict("00-triple", "Which three disagree?", triples)

# %%
owl.predict(
    "00-straight",
    "How many of the twelve are right as they stand, without a correction?",
    unit="claims",
)

# %% [markdown]
# Now the verdicts. Open "Facts and sources" under any that surprise you: each source is marked as primary, as a copy of the primary, or as secondary, and what we could not read ourselves is marked as not read.

# %%
owl.claims_board(verdicts=True)

# %%
board = list(enumerate(owl.claims(), start=1))
first, second, third = (n for n, claim in board if "contradicts" in claim)
three = f"{first}, {second} and {third}"
owl.reveal("00-triple", three, label="The three")

straight = [n for n, claim in board if claim["verdict"] == "supported"]
owl.reveal("00-straight", len(straight), unit="claims", label="Found")

# %% [markdown]
# 17 %, 41 %, 30 %: all three are said of "the share of Chinese open models". All three may be right, because they count different things:
#
# | | 17 % | 41 % | 30 % |
# |---|---|---|---|
# | what is counted | downloads from Hugging Face | downloads from Hugging Face, by the site's own definition (by one summary, of recently created models) | tokens that passed through OpenRouter |
# | when | August 2024 to August 2025, all of it | the year before March 2026 | the highest *weeks* of 2025 |
# | others | USA 15.8 %, developers without affiliation 23.8 % | USA 36.5 % | all models on that service, closed ones included |
# | what it is not | users: a download is one request for a file, by a person or by a test that runs each night | comparable with the 17 % | everybody's use: people choose that service, many for price |
#
# So the three do not measure one thing that grew from 17 to 41 %. **A share without its "of what, where and when" is not a fact yet.** You can do the same with number 8: a company counts more than 170,000 derived models in September 2025, and the site that hosts them counts 151,448 a year *later*. A running total does not shrink; the two define "derived" differently.
#
# **Open-weight or open-source?** Number 9 turns on a word. The [Open Source AI Definition](https://opensource.org/ai/open-source-ai-definition) of 2024 asks for three things: the weights, the complete code that made them, and a full description of the training data, all on terms that let anybody use, study, change and share them for any purpose. Weights alone, under however free a licence, make a model *open-weight*. By that measure nearly all well-known open models, from China and from the West, are open-weight; OLMo, Pythia and the Pocket models are open-source.
# The definition itself is disputed. *For* asking more: data is to a model what source code is to a program, and who lacks it cannot rebuild or repair it. *Against*: some data may lawfully be shared by nobody, and a rule that hardly any model meets helps no one. Module 05 goes into both.

# %%
owl.quiz("00-settle")

# %%
owl.quiz("00-twelve-times")

# %%
owl.quiz("00-download")

# %% [markdown]
# ## Where to go from here
#
# > **2 min** · You know what you can do now, and where to look when something is odd.
#
# You have opened a weights file, read a weight, counted and weighed a model, cut text into tokens, and made a model's next word by hand. The [graded notebook of this module](../exercises/00_workbench/00_workbench.ipynb) asks you to turn four of these steps into functions.
#
# **Symptom index**
#
# | what you see | what it may be |
# |---|---|
# | "the weights of pocket-moe are missing" | The kit is incomplete: run `owl doctor` in a terminal; it says what to do. |
# | A blue box without buttons | Widgets do not run here. Add `answer=…` to the call, as the box says. The self-checks open by a click on an option. |
# | "Loading widget…" that never ends | The notebook was opened without its kernel: choose *Run → Run All Cells*. |
# | "No prediction was kept" | You ran past the blue box. Predict in the next one; or predict now, it will be marked as made afterwards. |
# | Chinese shows as empty boxes | Your system has no Chinese font. The lesson works all the same; the ids tell you which token it is. |
# | Your numbers differ in the last digit | Processors round differently. Differences below a thousandth are of no account. |
# | A cell runs for minutes | Another program uses the processor, or a loop does not end: *Kernel → Interrupt*. |
#
# More in [troubleshooting](../docs/troubleshooting.md); all terms in the [glossary](../docs/glossary.md).

# %% [markdown]
# ## On a GPU
#
# > **10 min, optional** · You can run the same experiment on a real open-weight model, and know its cost before you download it.
#
# Qwen3-0.6B is the smallest of Alibaba's Qwen3 models: the same architecture as `pocket-dense`, under the Apache-2.0 licence. On tier `pocket` the cells below download nothing and say what they would do. (A computer without a graphics card can run this one, slowly: `owl.load(real_name, tier="colab")`.)
#
# **Before any download: what will it take?** `owl.plan` reckons it from the atlas, for a card such as Colab's T4. (Module 01 shows how.)

# %%
real_name = "Qwen/Qwen3-0.6B"
real_count = owl.atlas.find(real_name).counted.total

print(f"to download: {real_count * 2 / 1e9:.2f} GB, in 16 bits")
print(owl.plan(real_name, "T4", weight_bits=16, context=2048))

# %%
if owl.tier() == "pocket":
    real, real_tokenizer = None, None
    print(f"Tier pocket: {real_name} is not downloaded.")
    print("On tier colab or gpu this cell fetches it, once, and loads it.")
else:
    real, real_tokenizer = owl.load(real_name)
    print(f"{real.get_memory_footprint() / 1e9:.2f} GB loaded")

# %% [markdown]
# **The same experiment.** A real tokenizer, and a real question this time. Qwen3 can think aloud before it answers; `enable_thinking=False` asks it to answer at once.

# %%
real_question = "What is the capital of France? Answer with one word."

if real is not None:
    owl.lens.show_tokens(real_tokenizer, real_question)
    owl.lens.show_tokens(real_tokenizer, "量子")

# %%
if real is None:
    print("Here the widget would show Qwen3-0.6B's next token, live.")
else:
    owl.next_token(
        real,
        real_tokenizer,
        {
            "a fact (en)": real_question,
            "a fact (zh)": "法国的首都是哪里?用一个词回答。",
            "a fact (es)": "¿Cuál es la capital de Francia? Una palabra.",
            "a sum": "27 + 48 =",
            "Python": "Write a Python function tide that adds 7.",
        },
        enable_thinking=False,
    )

# %% [markdown]
# Compare with the coast: is Qwen as sure of a sum as of a capital? As sure in Spanish as in Chinese? What is its first token if you leave `enable_thinking=False` out?
#
# **Claim checkpoint.** Of the twelve claims, this lesson measured one: number 3, that gpt-oss-120b runs on one 80 GB card. What would you write in an article?

# %%
owl.quiz("00-claim")
