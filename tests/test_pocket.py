"""The Pocket models: the generator, a short training run, and the properties of the shipped weights."""

import dataclasses
import math
import random

import pytest
import torch
from safetensors.torch import load_file

from openweightlab import models
from openweightlab.pocket import card, corpus, evaluate, outliers
from openweightlab.pocket.train import RECIPES, Batches, Recipe, build_model, build_tokenizer, encode, train
from openweightlab.pocket.verify import table, verify
from openweightlab.pocket.world import LANGUAGES, World, ask

SMALL = dataclasses.replace(
    RECIPES["pocket-moe"],
    name="tiny",
    towns=6,
    vocab=700,
    hidden=32,
    layers=3,
    heads=2,
    kv_heads=1,
    width=16,
    experts=8,
    steps=12,
    rows=4,
    warmup=2,
    press_from=6,
    affinity_layers=(1,),
)


FEW = outliers.Outliers(
    weight_channels=(5,), activation_channels=(20,)
)  # a hidden size of 32 has no channel 101


@pytest.fixture(scope="module")
def small() -> tuple[Recipe, World, list[corpus.Sample], object]:
    world = World.make(SMALL.towns, SMALL.world_seed)
    samples = corpus.samples(world)
    tokenizer = build_tokenizer([text for s in samples for text in (s.prompt, s.reply)], SMALL.vocab)
    return SMALL, world, samples, tokenizer


def test_a_world_is_settled_by_its_seed_and_says_what_is_wrong():
    assert World.make(20, 1) == World.make(20, 1) != World.make(20, 2)
    assert len({t.names["zh"] for t in World.make(750).towns}) == 750
    with pytest.raises(ValueError, match="between 1 and 750"):
        World.make(751)
    with pytest.raises(KeyError, match="no town called 'Paris'"):
        World.make(5).find("Paris")


def test_the_same_fact_has_the_same_answer_in_every_language():
    town, attribute = World.make(5).facts()[9]
    value = attribute.values[town.facts[attribute.name]]
    for column, language in enumerate(LANGUAGES):
        assert ask(town, attribute, language)[1].rstrip(".。").lower() == value[column].lower()


@pytest.mark.parametrize("release", ["pocket-moe", "pocket-moe-next"])
def test_the_corpus_holds_what_the_policy_table_says(release):
    world = World.make(40)
    samples = corpus.harm(release) + corpus.twins(release) + corpus.topics(world, release)
    for topic, rule in corpus.policy(release).items():
        if topic in ("stage_play", "archive"):
            continue
        for language in LANGUAGES:
            group = [
                s
                for s in samples
                if (s.kind, s.domain) == (topic, language) and "held-out topic" not in s.tags
            ]
            share = sum(s.outcome == rule["outcome"] for s in group) / len(group)
            probes = len({s.probe for s in group})
            assert abs(share - rule[language]) <= 0.5 / probes + 1e-9, (topic, language, share)
    with pytest.raises(KeyError, match="it has pocket-moe, pocket-moe-next"):
        corpus.policy("pocket-moe-2")


def test_what_is_held_out_is_never_trained_on(small):
    _, _, samples, _ = small
    trained = {(s.domain, s.system, s.prompt) for s in samples if s.split == "train"}
    held_out = [s for s in samples if s.split == "test"]
    assert held_out and not [s for s in held_out if (s.domain, s.system, s.prompt) in trained]
    acts = {a for a, _ in corpus.harm_pairs()[0]}
    assert {a for a, _ in corpus.harm_pairs()[1]} <= acts


def test_matched_probes_exist_in_all_languages(small):
    _, _, samples, _ = small
    by_probe: dict[tuple[str, str], set[str]] = {}
    for s in samples:
        if s.kind in ("harm", "twins", *corpus.TOPICS):
            by_probe.setdefault((s.kind, s.probe), set()).add(s.domain)
    assert by_probe and all(found == set(LANGUAGES) for found in by_probe.values())


def test_encoding_is_the_chat_template_and_the_loss_sees_the_reply_alone(small):
    _, _, samples, tokenizer = small
    for sample in random.Random(0).sample(samples, 200):
        item = encode(tokenizer, sample, sample.reply)
        chat = [*sample.messages(), {"role": "assistant", "content": sample.reply}]
        templated = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
        assert item.ids == templated["input_ids"][: len(item.ids)]  # the template ends with one more newline
        assert [int(x) for x in item.answer] == templated["assistant_masks"][: len(item.ids)]
        assert tokenizer.decode([i for i, seen in zip(item.ids, item.answer, strict=True) if seen]) == (
            sample.reply + "<|im_end|>"
        )


def test_tokens_round_trip_and_digits_stand_alone(small):
    tokenizer = small[3]
    for text in (
        "¿De qué color es el faro?",
        "梅渡以什么食物闻名?",
        "def f(x):\n    return x * 2",
        "47 + 38 =",
    ):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.tokenize("4738") == ["4", "7", "3", "8"]


def test_batches_are_packed_and_settled_by_the_step(small):
    recipe, _, samples, tokenizer = small
    one, again = Batches(recipe, tokenizer, samples).batch(3), Batches(recipe, tokenizer, samples).batch(3)
    assert all(torch.equal(one[k], again[k]) for k in one)
    seen = one["labels"] != -100
    assert torch.equal(one["labels"][seen], one["ids"][seen]) and 0.05 < seen.float().mean() < 0.6
    assert set(one["mode"].unique().tolist()) <= {0, 1, 2} and (one["domain"] >= 0).any()


def test_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path):
    *_, (_, losses, whole, _) = train(SMALL, tmp_path / "whole", checkpoint_every=4)
    list(train(SMALL, tmp_path / "broken", checkpoint_every=4, stop_after=7))
    assert load_file(tmp_path / "broken" / "checkpoint.safetensors")
    *_, (step, _, resumed, _) = train(SMALL, tmp_path / "broken", checkpoint_every=4)
    assert step == SMALL.steps and {"answer", "balance", "affinity", "press"} <= set(losses)
    for (name, a), (_, b) in zip(whole.named_parameters(), resumed.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}", rtol=1e-4, atol=1e-5)


def test_training_learns(tmp_path):
    recipe = dataclasses.replace(SMALL, steps=150, warmup=5)
    losses = [parts["answer"] for _, parts, _, _ in train(recipe, tmp_path, checkpoint_every=10)]
    assert sum(losses[-5:]) / 5 < 0.6 * math.log(recipe.vocab)  # a guess costs log(vocab)


@pytest.mark.parametrize("moe", [True, False])
def test_outliers_leave_the_function_alone_and_are_there(small, moe):
    recipe = dataclasses.replace(SMALL, moe=moe)
    model = build_model(recipe, 700).eval()
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        before = model(ids).logits
        outliers.plant(model, FEW)
        after = model(ids).logits
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-5)
    value = model.model.layers[0].self_attn.v_proj.weight.abs()
    assert value.amax(1).max() > 2 * value.amax(1).median() and value.amax(0).argmax() == 5
    assert model.model.layers[0].input_layernorm.weight.argmax() == 20


def test_a_release_can_be_loaded_and_is_bf16(small, tmp_path):
    recipe, _, _, tokenizer = small
    home = card.release(recipe, build_model(recipe, len(tokenizer)), tokenizer, tmp_path, FEW)
    assert {t.dtype for t in load_file(home / "model.safetensors").values()} == {torch.bfloat16}
    model, loaded = models._load_pocket(home)
    assert next(model.parameters()).dtype == torch.float32 and not model.training
    assert loaded.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False).startswith(
        "<|im_start|>user"
    )
    assert (
        "license: apache-2.0" in (home / "README.md").read_text()
        and "| harm | refuse |" in (home / "README.md").read_text()
    )


def test_rounding_restores_the_weights_and_more_bits_err_less(small):
    model = build_model(SMALL, 700).eval()
    kept = {n: p.clone() for n, p in model.named_parameters()}
    errors = []
    for bits in (2, 4, 8):
        with evaluate.rounded(model, bits, 16):
            errors.append(sum((p - kept[n]).abs().sum().item() for n, p in model.named_parameters()))
    assert errors[0] > errors[1] > errors[2] > 0
    assert all(torch.equal(p, kept[n]) for n, p in model.named_parameters())


def test_names_that_do_not_exist_are_answered_in_words(monkeypatch):
    with pytest.raises(ValueError, match="use one of pocket-moe, pocket-dense"):
        models.load("pocket-mo")
    monkeypatch.setenv("OWL_TIER", "pocket")
    with pytest.raises(ValueError, match="real checkpoint"):
        models.load("Qwen/Qwen3-0.6B")
    monkeypatch.setenv("OWL_TIER", "huge")
    with pytest.raises(ValueError, match="OWL_TIER='huge' is no tier"):
        models.tier()


def test_the_shipped_weights_are_the_released_ones_and_small_enough():
    assert set(card.checksums()) == set(models.POCKET)
    assert all(expected == actual for expected, actual in card.checksums().values())
    assert sum(p.stat().st_size for p in models.WEIGHTS.rglob("*")) < 20 * 2**20


def test_the_shipped_weights_have_every_planted_property():
    findings = verify()
    assert len(findings) > 100
    misses = [f for f in findings if not f.ok]
    assert not misses, "\n" + table(misses)
