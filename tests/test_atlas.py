"""The atlas: its data against its schema and its sources, every count taken again, the planner, the table."""

import copy
import json
import re
import warnings
from dataclasses import asdict

import pytest
import yaml

from openweightlab import atlas, atlas_table, cli, counting, memory, models
from openweightlab.atlas import find
from openweightlab.memory import cache_bytes, plan

ROWS = atlas.models()
COUNTED = [key for key, row in ROWS.items() if row.config]
FAMILIES = (
    "DeepSeek, Qwen, Kimi, GLM, MiniMax, Baichuan, Hunyuan, ERNIE, Aquila, MiniCPM, Llama, Mistral, Gemma, "
    "Phi, GPT-2, gpt-oss, OLMo, OLMoE, Pythia, Apertus, SmolLM3"
)
NO_SIZES = re.compile(  # numbers of a configuration that are no tensor's size, or worked out from the others
    ".*_token_id|.*max_position.*|max_window_layers|sliding_window|chunk_size_feed_forward|block_size|.*_factor|"
    "num_nextn_predict_layers|(qk_)?head_dim|num_local_experts|dim_model_base|query_pre_attn_scalar|"
    "no_rope_layer_interval|pretraining_tp|scale_emb|floor_scale|_sliding_window_pattern"
)


@pytest.fixture
def data():
    return copy.deepcopy(atlas._file())


# ---- the data


def test_the_file_keeps_to_its_schema(data):
    assert atlas.problems(data) == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda d: d["models"]["glm-4.5"].pop("licence"), "models.glm-4.5: 'licence' is a required property"),
        (lambda d: d["models"]["glm-4.5"]["published"].update(source=[]), "models.glm-4.5.published.source"),
        (
            lambda d: d["models"]["glm-4.5"]["published"].update(total="big"),
            "models.glm-4.5.published.total: 'big'",
        ),
        (lambda d: d["models"]["glm-4.5"].update(colour="blue"), "'colour' was unexpected"),
        (lambda d: d["models"]["glm-4.5"].update(uncounted="no"), "models.glm-4.5"),
        (lambda d: d["models"]["glm-4.5"]["licence"].update(id="mitt"), "no licence 'mitt'"),
        (lambda d: d["models"]["glm-4.6"].update(hub="zai-org/GLM-4.5"), "zai-org/GLM-4.5 stands twice"),
        (lambda d: d["cards"]["t4"].update(memory_gb=0), "cards.t4.memory_gb"),
    ],
)
def test_a_broken_entry_is_named_with_its_place(data, spoil, said):
    spoil(data)
    assert said in "\n".join(atlas.problems(data))


def test_an_unreadable_file_says_what_is_wrong(data, monkeypatch):
    del data["models"]["phi-4"]["precision"]
    monkeypatch.setattr(atlas, "_file", lambda: data)
    atlas._models.cache_clear()
    with pytest.raises(ValueError, match=r"atlas.yaml: models.phi-4: 'precision' is a required property"):
        atlas.models()
    atlas._models.cache_clear()


def test_every_family_of_the_press_has_its_row():
    assert len(ROWS) >= 57
    assert {row.family for row in ROWS.values()} == set(FAMILIES.split(", "))


def test_every_figure_has_a_source_or_is_marked():
    for key, row in ROWS.items():
        wanted = {"published", "precision", "licence", "released"} | ({"config"} if row.config else set())
        assert wanted | ({"context"} if row.context_length else set()) == set(row.evidence), key
        for figure, evidence in row.evidence.items():
            assert evidence.source or figure in row.unverified, (key, figure)
    for card in atlas.cards().values():
        assert card.verified and card.source


def test_sources_are_public_addresses():
    text = json.dumps(atlas._file())
    for word in ("/work", "find_string", "read_file", "site-packages"):
        assert word not in text
    assert len(re.findall(r"https?://", text)) > 150


def test_what_is_not_counted_says_why():
    uncounted = [row for row in ROWS.values() if row.counted is None]
    assert [row.id for row in uncounted] == ["qwen3.8-2.4t-a95b", "kimi-k3"]
    assert all(row.uncounted and row.config is None for row in uncounted)
    with pytest.raises(ValueError, match=r"Kimi-K3 can't be counted: no configuration"):
        counting.recount("kimi-k3")


# ---- the counts


@pytest.mark.parametrize("key", COUNTED)
def test_counting_again_gives_what_the_atlas_says(key):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert asdict(counting.recount(key)) == asdict(ROWS[key].counted)


def test_fifty_five_are_counted_and_one_by_formula():
    assert len(COUNTED) >= 55
    assert [key for key in COUNTED if ROWS[key].counted.by == "formula"] == ["hunyuan-large"]


def test_no_size_is_left_to_the_default_of_a_class():
    from transformers import AutoConfig

    for key in COUNTED:
        config = dict(ROWS[key].config)
        if config["model_type"] == "hunyuan_large":
            continue
        known = AutoConfig.for_model(**config, pad_token_id=None).to_dict()
        left = {
            name
            for name, value in known.items()
            if name not in config and isinstance(value, int) and not isinstance(value, bool)
        }
        assert not {n for n in left if not NO_SIZES.fullmatch(n)}, key
        assert "num_experts" in config or config["model_type"] not in ("qwen3_moe", "olmoe"), key


def test_the_parts_make_the_total_and_the_conventions_are_ordered():
    for key in COUNTED:
        c = ROWS[key].counted
        assert sum(c.parts.values()) == c.total
        assert c.total >= c.active_all_in >= c.active_without_input_table > c.active_without_embeddings
        tied = ROWS[key].config["tie_word_embeddings"]
        assert tied == ("input_table" not in c.parts) == (c.active_all_in == c.active_without_input_table)
        assert (ROWS[key].experts is None) == (c.active_all_in == c.total)


@pytest.mark.parametrize(  # the makers' own words, each in the convention that gives them
    ("key", "convention", "billions"),
    [
        ("minimax-m1", "active_without_embeddings", 45.9),
        ("gpt-oss-120b", "active_without_input_table", 5.1),
        ("mixtral-8x7b", "active_all_in", 12.9),
        ("olmoe-1b-7b", "active_all_in", 1.3),
        ("mixtral-8x7b", "total", 46.7),
        ("ministral-8b", "total", 8.019808256),
    ],
)
def test_published_figures_are_met_in_one_convention(key, convention, billions):
    n = getattr(ROWS[key].counted, convention) / 1e9
    assert round(n, len(str(billions).split(".")[1])) == billions


# ---- memory and speed


def held(key: str, context: int) -> int:
    """Numbers in the cache that transformers itself keeps, from a forward pass on the meta device."""
    import torch

    model = counting.empty(key)
    ids = torch.zeros((1, context), dtype=torch.long, device="meta")
    with torch.no_grad():
        cache = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
    return sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)


@pytest.mark.parametrize(
    "key",
    [
        "gpt-2",
        "pythia-160m",
        "llama-2-7b",
        "llama-3.1-8b",
        "qwen3-0.6b",
        "phi-4",
        "minicpm3-4b",
        "gemma-3-1b-it",
    ],
)
def test_the_cache_is_as_large_as_the_one_that_transformers_keeps(key):
    kept, read = cache_bytes(find(key), context=64, cache_bits=8)
    assert kept == read == held(key, 64)


@pytest.mark.parametrize("key", ["gemma-2-2b", "gemma-3-1b-it", "mistral-7b-v0.1"])
def test_windows_bound_the_cache(key):
    row = find(key)
    window = row.config["sliding_window"]
    per_token = memory.values_per_token(row.config)
    short, long = (cache_bytes(row, n, cache_bits=8)[0] for n in (window, 3 * window))
    assert short == len(row.layers) * window * per_token
    assert long - short == row.layers.count("f") * 2 * window * per_token


def test_latents_states_indices_and_shared_caches():
    assert cache_bytes(find("deepseek-v3"), 1000)[0] == 61 * 1000 * 576 * 2
    full = (
        61 * 1000 * 2 * 128 * 192 * 2
    )  # the same attention with keys and values written out, value heads padded
    assert full / cache_bytes(find("deepseek-v3"), 1000)[0] > 80
    kept, read = cache_bytes(find("deepseek-v3.2-exp"), 100_000)
    assert kept == 61 * 100_000 * (576 + 128) * 2 and read == 61 * (2048 * 576 + 100_000 * 128) * 2
    kept, read = cache_bytes(find("hunyuan-large"), 1000)
    assert read == 2 * kept == 64 * 1000 * 2 * 8 * 80 * 2
    m1 = [cache_bytes(find("minimax-m1"), n)[0] for n in (0, 1000)]
    assert m1[0] == 70 * 64 * 128 * 128 * 4 and m1[1] - m1[0] == 10 * 1000 * 2 * 8 * 128 * 2
    next_80b = [cache_bytes(find("qwen3-next-80b-a3b"), n)[0] for n in (0, 1000)]
    assert next_80b[1] - next_80b[0] == 12 * 1000 * 2 * 2 * 256 * 2 and next_80b[0] > 36 * 32 * 128 * 128 * 4


def test_weights_by_part_give_the_size_of_the_released_files():
    p = plan("gpt-oss-120b", "h100", weight_bits=find("gpt-oss-120b").native_bits, context=1)
    assert round(p.weights_gib, 1) == 60.7
    assert p.weights_gib == pytest.approx((114_701_598_720 * 4.25 / 8 + 2_127_557_952 * 2) / 2**30)


def test_a_dense_model_reads_all_but_its_input_table_once_for_the_whole_batch():
    row = find("llama-3.1-8b")
    one, many = (plan(row, "a100", weight_bits=16, context=1024, batch=b) for b in (1, 16))
    cache = 1024 * 32 * 2 * 8 * 128 * 2
    assert one.bytes_per_token == row.counted.active_without_input_table * 2 + cache
    assert many.bytes_per_token == pytest.approx(row.counted.active_without_input_table * 2 / 16 + cache)
    assert one.ceiling_tokens_s == pytest.approx(2e12 / one.bytes_per_token)
    assert many.cache_gib == 16 * one.cache_gib and many.weights_gib == one.weights_gib


def test_a_mixture_of_experts_reads_the_experts_that_its_batch_touches():
    import torch

    row = find("qwen3-30b-a3b")
    rest = row.counted.total - row.counted.parts["routed_experts"] - row.counted.parts["input_table"]
    read = {b: memory.step_bytes(row, 8, b) for b in (1, 8, 10_000)}
    assert read[1] == row.counted.active_without_input_table
    assert read[10_000] == pytest.approx(rest + row.counted.parts["routed_experts"])
    torch.manual_seed(0)
    draws = torch.rand(2000, 8, 128).topk(8, dim=-1).indices.flatten(1)  # eight tokens, two thousand times
    touched = torch.zeros(2000, 128).scatter(1, draws, 1.0).mean().item()
    assert (read[8] - rest) / row.counted.parts["routed_experts"] == pytest.approx(touched, rel=0.01)


def test_what_fits_a_t4():
    assert plan("qwen3-4b", "T4", weight_bits=16, context=4096).fits
    assert not plan("deepseek-r1-distill-llama-8b", "T4", weight_bits=16, context=4096).fits
    assert plan("deepseek-r1-distill-llama-8b", "T4", weight_bits=4.5, context=4096).fits
    assert not plan("deepseek-v3", "h200", weight_bits=8.002, context=4096, cards=4).fits
    assert plan("deepseek-v3", "h200", weight_bits=8.002, context=4096, cards=8).fits


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (dict(model="qwen3-235b"), "did you mean qwen3-235b-a22b"),
        (dict(on="rtx"), "no card 'rtx': use one of t4"),
        (dict(model="kimi-k3"), "Kimi-K3 can't be planned: no configuration"),
        (dict(context=0), "must be above zero: context=0"),
        (dict(weight_bits=0), "must be above zero: weight_bits=0"),
        (dict(weight_bits={"rest": 16, "experts": 4}), "parts of Qwen3-0.6B"),
        (dict(weight_bits={"head": 16}), "has the key 'rest'"),
    ],
)
def test_bad_questions_are_answered_in_words(asked, said):
    usual = dict(model="qwen3-0.6b", on="t4", weight_bits=16, context=2048)
    with pytest.raises(ValueError, match=re.escape(said)):
        plan(**(usual | asked))


# ---- finding and loading


@pytest.mark.parametrize("name", ["qwen3-0.6b", "Qwen3-0.6B", "Qwen/Qwen3-0.6B", "QWEN/qwen3-0.6b"])
def test_a_model_has_three_names(name):
    assert find(name).hub_id == "Qwen/Qwen3-0.6B"


@pytest.mark.parametrize(
    ("name", "close"),
    [("deepseekv3", "deepseek-v3"), ("gpt-oss", "gpt-oss-20b"), ("olmoe", "olmoe-1b-7b"), ("zzz", "")],
)
def test_near_misses_are_named(name, close):
    with pytest.raises(ValueError, match=f"has no '{name}'") as error:
        find(name)
    assert (f"{close}" in str(error.value)) and ("did you mean" in str(error.value)) == bool(close)


@pytest.fixture
def downloads(monkeypatch):
    """What owl.load would download, instead of the download."""
    asked = []
    monkeypatch.setattr(models, "_load_real", lambda hub_id, tier: asked.append((hub_id, tier)))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return asked


def test_load_knows_the_atlas_and_gives_an_estimate_first(downloads, capsys):
    models.load("qwen3-0.6b", tier="colab")
    models.load("someone/their-model", tier="colab")
    assert downloads == [("Qwen/Qwen3-0.6B", "colab"), ("someone/their-model", "colab")]
    assert "1.1 GiB to download. Qwen3-0.6B on T4: fits: 2.3 of 14.9 GiB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "tier", "said"),
    [
        ("llama-3.1-8b", "colab", "needs about 16.2 GiB in 16 bits"),
        ("deepseek-ai/DeepSeek-V3", "gpu", "and L4 has 22.4 GiB. Nothing was downloaded"),
        ("chatglm3-6b", "gpu", "owl.load runs no code from the hub. Take one without, such as"),
        ("kimi-k3", "gpu", "for its sizes alone"),
        ("qwen3-4b", "pocket", "a real checkpoint of 7.5 GiB, and this machine's tier is 'pocket'"),
        ("qwen3-4", "colab", "did you mean qwen3-4b"),
    ],
)
def test_load_refuses_before_any_download(downloads, name, tier, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        models.load(name, tier=tier)
    assert downloads == []


# ---- the table


def owl_atlas(capsys, *args: str) -> str:
    assert cli.main(["atlas", *args]) == 0
    return capsys.readouterr().out


def test_the_table_has_every_model_and_fits_120_columns(capsys):
    lines = owl_atlas(capsys).splitlines()
    assert max(map(len, lines)) <= 120
    for row in ROWS.values():
        assert any(line.startswith(row.name) for line in lines)
    assert "57 models, 55 of them counted to the last parameter" in "\n".join(lines)


def test_whatever_rests_on_no_source_carries_its_mark(capsys):
    text = owl_atlas(capsys)
    for row in ROWS.values():
        marked = next(line for line in text.splitlines() if line.startswith(row.name + " "))
        assert (row.published.total + "?" in marked) == ("published" in row.unverified), row.id
        assert (row.native_precision + "?" in marked) == ("precision" in row.unverified), row.id
        assert (row.licence.short + "?" in marked) == ("licence" in row.unverified), row.id
        if row.counted:
            doubtful = atlas_table.counts(row, "?")[0]
            assert (doubtful in marked) == ("config" in row.unverified), row.id
    assert "34.66t" in text and "388.7~" in text and text.count("?") > 20


def test_json_holds_everything(capsys):
    told = json.loads(owl_atlas(capsys, "--json"))
    assert list(told["models"]) == list(ROWS)
    row = told["models"]["qwen3-235b-a22b"]
    assert row["counted"]["total"] == 235_093_634_560 and row["weights_gib"]["16"] == 437.896
    assert row["experts"] == {"chosen": 8, "of": 128} and row["evidence"]["published"]["source"]
    assert told["licences"][row["licence"]]["spdx"] == "Apache-2.0" and told["cards"]["t4"]["memory_gb"] == 16


def test_one_model_in_full(capsys):
    told = yaml.safe_load(owl_atlas(capsys, "gpt-oss-20b"))["gpt-oss-20b"]
    assert (
        "config" in told["unverified"] and told["licence"]["duties"] and told["evidence"]["config"]["source"]
    )
    assert cli.main(["atlas", "gpt-oss-2b"]) == 2
    assert "did you mean gpt-oss-20b" in capsys.readouterr().err


def test_owl_atlas_needs_no_torch():
    import subprocess
    import sys

    program = "import sys; from openweightlab import cli; cli.main(['atlas']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
