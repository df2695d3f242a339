"""Module 01's measures and figures: routing captured, specialists, load, speed, budgets, the heat map."""

import re
import xml.etree.ElementTree as ET

import ipywidgets
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from ipywidgets.widgets import widget as widget_registry

import openweightlab as owl
from openweightlab import atlas, measure
from openweightlab.lens import board, experts, frontend, routingmap
from openweightlab.measure import routing
from openweightlab.pocket.corpus import DOMAINS

PROMPT = "What colour is the lamp of Frostbay?"


@pytest.fixture(scope="module")
def moe():
    return owl.load("pocket-moe")


@pytest.fixture(scope="module")
def census(moe):
    return measure.census(*moe, per_domain=12)


@pytest.fixture
def shown(monkeypatch):
    bundles = []
    monkeypatch.setattr(frontend, "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


@pytest.fixture
def drawn(monkeypatch):
    """Figures with their texts, as they are about to be shown."""
    kept = []
    monkeypatch.setattr(experts, "show", lambda fig, alt: kept.append((fig, alt)))
    yield kept
    plt.close("all")


# Capturing


def test_captured_routing_is_what_transformers_routers_say(moe):
    model, tokenizer = moe
    ids, _ = measure.chat_tokens(tokenizer, PROMPT)
    heard = measure.capture(model, ids)
    with torch.no_grad():
        logits = model.model(input_ids=ids, output_router_logits=True).router_logits
    assert list(heard) == list(range(len(logits))) == list(range(model.config.num_hidden_layers))
    for layer, routed in heard.items():
        probabilities = logits[layer].softmax(-1)
        assert torch.allclose(routed.probabilities, probabilities, atol=1e-6)
        top = probabilities.topk(model.config.num_experts_per_tok)
        assert torch.equal(routed.expert_ids, top.indices)
        assert torch.allclose(routed.weights.sum(-1), torch.ones(ids.shape[1]))


def test_what_enters_a_layer_gives_its_output_again(moe):
    model, tokenizer = moe
    ids, _ = measure.chat_tokens(tokenizer, PROMPT)
    hidden = measure.entering(model, ids, 2)
    assert hidden.shape == (ids.shape[1], model.config.hidden_size)
    with torch.no_grad():
        _, weights, chosen = model.model.layers[2].mlp.gate(hidden)
    heard = measure.capture(model, ids)[2]
    assert torch.equal(chosen, heard.expert_ids) and torch.allclose(weights, heard.weights)


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_hooks_are_gone_afterwards_also_after_an_error(moe):
    model = moe[0]
    before = hooks(model)
    measure.capture(model, torch.tensor([[5, 6]]))
    measure.entering(model, torch.tensor([[5, 6]]), 1)
    for call in (
        lambda: measure.capture(model, torch.tensor([[10**6]])),
        lambda: measure.entering(model, torch.tensor([[10**6]]), 1),
    ):
        with pytest.raises(IndexError):
            call()
    assert hooks(model) == before


def test_a_dense_model_is_refused_in_words():
    dense, tokenizer = owl.load("pocket-dense")
    with pytest.raises(ValueError, match="Qwen3ForCausalLM has no router of experts"):
        measure.capture(dense, torch.tensor([[5]]))
    with pytest.raises(ValueError, match="no router"):
        owl.routing_map(dense, tokenizer)


@pytest.mark.parametrize("prompt", [PROMPT, "霜湾的灯塔是什么颜色?", "27 + 48 =", "user", "鬱"])
def test_a_prompts_own_tokens_spell_it(moe, prompt):
    _, tokenizer = moe
    ids, own = measure.chat_tokens(tokenizer, prompt)
    kept = [i for i, mine in zip(ids[0].tolist(), own, strict=True) if mine]
    assert tokenizer.decode(kept).strip() == prompt


def test_an_empty_prompt_has_no_tokens_of_its_own(moe):
    assert not any(measure.chat_tokens(moe[1], "")[1])


# Specialists


def test_the_census_has_as_many_tokens_of_each_domain_and_no_template(moe, census):
    first = census[(census.layer == 0) & (census["rank"] == 0)]
    assert list(first.domain.cat.categories) == list(DOMAINS)
    assert first.domain.value_counts().nunique() == 1
    assert sorted(first.domain) == sorted(first.shuffled) and (first.domain != first.shuffled).any()
    special = {i for i, token in moe[1].added_tokens_decoder.items() if token.special}
    assert not special & set(first.token)
    pairs = census[census["rank"] == 0].expert.to_numpy() != census[census["rank"] == 1].expert.to_numpy()
    assert pairs.all()


def test_padding_changes_no_choice(moe):
    model, tokenizer = moe
    chats = [tuple(measure.chat_tokens(tokenizer, text)[0][0].tolist()) for text in (PROMPT, "27 + 48 =")]
    together = routing._choices(model, chats)
    for chat in chats:
        alone = measure.capture(model, torch.tensor([chat]))
        assert all(torch.equal(together[chat][layer], alone[layer].expert_ids) for layer in alone)


def test_planted_layers_tell_the_domain_and_shuffled_ones_do_not(census):
    bits = {
        layer: (
            measure.information(part.domain, part.expert),
            measure.information(part.shuffled, part.expert),
        )
        for layer, part in census.groupby("layer")
    }
    assert all(bits[layer][0] > 0.8 for layer in (1, 2, 3))
    assert all(0.15 < bits[layer][0] < 0.7 for layer in (0, 4))
    assert all(luck < 0.08 for _, luck in bits.values())


def test_information_is_scipys_by_another_way():
    from scipy.stats import entropy

    first = pd.Series([0] * 4 + [1] * 4)
    second = pd.Series([0, 0, 0, 1, 1, 1, 1, 0])
    assert measure.information(first, second) == pytest.approx(1 - entropy([0.75, 0.25], base=2))


# Load and speed


def test_without_balancing_experts_die_and_with_it_they_live():
    alone, balanced = (measure.train_router(b, seed=1, steps=300)[-5:].mean(0) for b in (0.0, 0.1))
    assert (alone > 0.01).sum() <= 5 and alone.max() > 0.3
    assert (balanced > 0.01).sum() >= 7 and balanced.max() < 0.3
    assert float(alone.sum()) == pytest.approx(1)


def test_the_best_try_counts_after_one_to_warm_up():
    calls = []
    assert 0 <= measure.fastest(calls.append, 1, tries=3) < 1
    assert calls == [1] * 4
    assert measure.bandwidth(1) > 0 and measure.peak(16) > 0


def test_one_core_is_given_back():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), measure.one_core():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before


# Figures


@pytest.mark.parametrize("name", ["deepseek-v3", "gpt-oss-120b", "qwen3-4b"])
def test_a_budget_is_the_whole_model_and_its_active_part(name):
    model = atlas.find(name)
    parts = experts.budget_parts(model)
    assert sum(parts.values()) == model.counted.total
    assert sum(parts.values()) - parts["idle experts"] == model.counted.active_all_in


def test_a_model_without_a_count_has_no_budget():
    with pytest.raises(ValueError, match="no count in the atlas"):
        experts.budget_parts(atlas.find("kimi-k3"))


def test_figures_name_axes_units_and_numbers(drawn):
    experts.budget([atlas.find("deepseek-v3"), atlas.find("mixtral-8x7b")])
    experts.roofline(10, 40, [(1, 0.5, 4.0), (64, 30.0, 35.0)])
    experts.heat_table([[[0.5, 0.5]]], ylabels=["en"], titles=["x"], xlabel="expert", alt="even", top=1)
    experts.curves([1, 2], {"a": [1, 2], "b": [2, 3]}, xlabel="n", ylabel="ms", alt="up", lines=["a"])
    (_, words), (roof, said), *_ = drawn
    assert "DeepSeek-V3" in words and "idle experts 633.47" in words
    assert "ridge lies at 4 operations per byte" in said and "64 tokens 35.0" in said
    assert "(FLOP/byte)" in roof.axes[0].get_xlabel() and "(GFLOP/s)" in roof.axes[0].get_ylabel()
    assert len(drawn[3][0].axes[0].lines) == 2


def test_some_claims_keep_the_boards_numbers(shown):
    board.claims_board("v3_cost", verdicts=True)
    number = next(n for n, claim in enumerate(owl.claims(), 1) if claim["id"] == "v3_cost")
    assert shown[0]["text/plain"].startswith(f"{number}. ")
    assert shown[0]["text/html"].count("Facts and sources") == 1


# The heat map


def test_the_heat_map_draws_what_was_captured(moe):
    text = routingmap.Text(*moe, PROMPT)
    root = ET.fromstring(routingmap.heat_map(text, 2))
    assert root.attrib["role"] == "img" and PROMPT in root.attrib["aria-label"]
    cells = [e for e in root.iter("rect") if "fill-opacity" in e.attrib]
    own, number = sum(text.own), moe[0].config.num_experts
    assert len(cells) == own * 2 + number
    drawn = sorted(float(cell.attrib["fill-opacity"]) for cell in cells[: own * 2])
    rows = [i for i, mine in enumerate(text.own) if mine]
    right = text.routed[2].weights[rows].flatten().sort().values.tolist()
    assert drawn == pytest.approx(right, abs=0.006)
    assert float(text.shares(2, False).sum()) == pytest.approx(1)


def widgets_of(bundle, kind):
    widget = widget_registry._instances[bundle["application/vnd.jupyter.widget-view+json"]["model_id"]]
    found, open_ = [], [widget]
    while open_:
        one = open_.pop(0)
        found += [one] if type(one) is kind else []
        open_ += list(getattr(one, "children", ()))
    return found


def common(html):
    return int(re.search(r"share (\d+) %", html)[1])


def test_the_heat_maps_controls_move_the_picture(moe, shown):
    owl.routing_map(*moe)
    (view,) = widgets_of(shown[0], ipywidgets.HTML)
    (layer,) = widgets_of(shown[0], ipywidgets.SelectionSlider)
    (template,) = widgets_of(shown[0], ipywidgets.Checkbox)
    left, right = widgets_of(shown[0], ipywidgets.Dropdown)
    own, _ = widgets_of(shown[0], ipywidgets.Text)
    assert layer.value == 2 and common(view.value) < 40
    layer.value = 4
    assert "Layer 4" in view.value
    right.value = left.value
    assert common(view.value) == 100
    template.value = True
    assert "&lt;|im_start|" in view.value or "im_start" in view.value
    own.value = "<b>mine</b>"
    assert "&lt;b&gt;mine" in view.value and "<b>mine" not in view.value
    own.value = "word " * 80
    assert f"first {routingmap.MOST} tokens" in view.value


def test_the_still_heat_map_has_both_texts(moe, shown, monkeypatch):
    monkeypatch.setattr(routingmap, "widgets", lambda: None)
    owl.routing_map(*moe, {"one": PROMPT, "two": "27 + 48 ="})
    assert shown[0]["text/html"].count("<svg") == 2 == shown[0]["text/html"].count("aria-label=")
    assert "27 + 48 =" in shown[0]["text/plain"]


def test_the_widget_carries_its_fallback(moe, shown):
    owl.routing_map(*moe)
    assert set(shown[0]) == {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"}
