"""Judge 01 against what it does not use itself: published counts, DeepSeek-V3's router, simulation."""

import random
from pathlib import Path

import pytest
import torch

from openweightlab.grading.judge import load_judge
from openweightlab.questions.operations import count_operations

JUDGES = Path(__file__).parents[1] / "judges"


@pytest.fixture(scope="module")
def judge():
    return load_judge(JUDGES, "01_moe")


def test_counts_of_qwen3_30b_a3b(judge) -> None:
    config = {
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "tie_word_embeddings": False,
    }
    assert list(judge.counts(config).values()) == [30532122624, 3353032704, 3041867776, 2730702848]


def test_choice_under_a_bias_is_deepseek_v3s(judge) -> None:
    from transformers import DeepseekV3Config
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter

    sizes = {"hidden_size": 8, "n_routed_experts": 12, "num_experts_per_tok": 3}
    plain = {"n_group": 1, "topk_group": 1, "norm_topk_prob": False, "routed_scaling_factor": 1.0}
    router = DeepseekV3TopkRouter(DeepseekV3Config(**sizes, **plain))
    router.weight.data = judge.normal(1, 12, 8)
    router.e_score_correction_bias = bias = judge.normal(2, 12, scale=0.3)
    with torch.no_grad():
        logits, weights, ids = router(judge.normal(3, 20, 8))
    expected = judge.topk_expected(logits.sigmoid(), bias, 3)
    ids, order = ids.sort(dim=1)
    assert torch.equal(ids, expected["ids"])
    assert torch.allclose(weights.gather(1, order), expected["weights"])


@pytest.mark.parametrize(("tokens", "experts", "top_k"), [(1, 8, 2), (5, 16, 4), (12, 24, 3)])
def test_experts_touched_as_simulated(judge, tokens: int, experts: int, top_k: int) -> None:
    draws = random.Random(0)
    runs = [len({e for _ in range(tokens) for e in draws.sample(range(experts), top_k)}) for _ in range(4000)]
    assert float(judge.touched(tokens, experts, top_k)) == pytest.approx(sum(runs) / len(runs), abs=0.1)


def test_bytes_of_a_step_by_hand(judge) -> None:
    config = judge.qwen3_moe(random.Random(0), num_hidden_layers=1)
    parts = judge.modules_of(config)
    dense = parts["total"] - parts["experts"] - parts["table"]
    expert = 3 * config["hidden_size"] * config["moe_intermediate_size"]
    cache = 2 * 7 * config["num_key_value_heads"] * config["head_dim"]
    expected = 2 * dense + 2 * config["num_experts_per_tok"] * expert + cache
    assert judge.decode_expected(config, 1, 7, 16, 8)["value"] == expected


def products() -> dict:
    a, b = torch.ones(6, 4), torch.ones(4, 8)
    stacks = torch.ones(2, 3, 4), torch.ones(2, 4, 8)
    ends = torch.tensor([2, 6], dtype=torch.int32)
    return {
        "matrix": lambda: a @ b,
        "linear in inference mode": torch.inference_mode()(lambda: torch.nn.functional.linear(a, b.T)),
        "rows by hand": lambda: [row @ b for row in a],
        "dot products": lambda: [[torch.dot(row, column) for column in b.T] for row in a],
        "multiply and add": lambda: (a[:, :, None] * b).sum(1),
        "einsum": lambda: torch.einsum("ik,kj->ij", a, b),
        "batched": lambda: torch.bmm(*stacks),
        "vmap": lambda: torch.vmap(torch.matmul)(*stacks),
        "grouped": lambda: torch._grouped_mm(a, torch.ones(2, 4, 8), offs=ends),
    }


@pytest.mark.parametrize("name", products())
def test_a_product_counts_alike_however_it_is_written(name: str) -> None:
    assert count_operations(products()[name])[1] == 2 * 6 * 4 * 8
