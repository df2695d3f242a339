"""Answers to module 01, right and wrong; 00_workbench.py says what the kinds are.

A wrong answer that differs from the reference in one place is written as that change.
"""


def change(source: str, old: str, new: str) -> str:
    """The source with one place changed; it must be there, and once."""
    assert source.count(old) == 1, (old, source.count(old))
    return source.replace(old, new)


def stub(*signatures: str) -> dict[str, str]:
    """The untouched answer cell."""
    bodies = (
        f"def {signature}:\n    # YOUR CODE HERE\n    raise NotImplementedError()\n"
        for signature in signatures
    )
    return {"untouched": "\n\n".join(bodies)}


# Q1.1

COUNTS = """
def moe_parameter_counts(config):
    hidden, table = config.hidden_size, config.vocab_size * config.hidden_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    attention = 2 * hidden * (queries + keys) + 2 * config.head_dim
    if config.attention_bias:
        attention += queries + 2 * keys + hidden
    expert = 3 * hidden * config.moe_intermediate_size
    total = hidden + (table if config.tie_word_embeddings else 2 * table)
    unchosen = 0
    for layer in range(config.num_hidden_layers):
        total += attention + 2 * hidden
        sparse = (layer + 1) % config.decoder_sparse_step == 0 and layer not in config.mlp_only_layers
        if sparse:
            total += config.num_experts * (expert + hidden)
            unchosen += (config.num_experts - config.num_experts_per_tok) * expert
        else:
            total += 3 * hidden * config.intermediate_size
    active = total - unchosen
    without_input = active if config.tie_word_embeddings else active - table
    return {
        "total": total,
        "active_all_in": active,
        "active_without_input_table": without_input,
        "active_without_embeddings": without_input - table,
    }
"""

COUNTS_VARIANTS = {
    "reference": {"by formula": COUNTS},
    "stub": stub("moe_parameter_counts(config) -> dict[str, int]"),
    "rival": {
        "a model on the meta device": """
import torch
from transformers import AutoModelForCausalLM
def moe_parameter_counts(config):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    total = model.num_parameters()
    experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    active = total - experts + experts * config.num_experts_per_tok // config.num_experts
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    second = active - (0 if head is table else table.numel())
    return {
        "total": total,
        "active_all_in": active,
        "active_without_input_table": second,
        "active_without_embeddings": second - head.numel(),
    }
""",
        "shapes of the state dict, as tensors": """
import math
import torch
from transformers import Qwen3MoeForCausalLM
def moe_parameter_counts(config):
    with torch.device("meta"):
        shapes = {k: math.prod(v.shape) for k, v in Qwen3MoeForCausalLM(config).state_dict().items()}
    head, table = shapes.pop("lm_head.weight"), shapes.pop("model.embed_tokens.weight")
    chosen = config.num_experts_per_tok / config.num_experts
    active = sum(round(n * chosen) if "experts" in k else n for k, n in shapes.items())
    tables = head if config.tie_word_embeddings else head + table
    return {
        "total": torch.tensor(sum(shapes.values()) + tables),
        "active_all_in": torch.tensor(active + tables),
        "active_without_input_table": torch.tensor(active + head),
        "active_without_embeddings": torch.tensor(active),
    }
""",
        "numpy, from the smallest count up": """
import numpy as np
def moe_parameter_counts(config):
    c = config
    layers = np.arange(c.num_hidden_layers)
    sparse = ((layers + 1) % c.decoder_sparse_step == 0) & ~np.isin(layers, c.mlp_only_layers)
    q, kv, b = c.head_dim * c.num_attention_heads, c.head_dim * c.num_key_value_heads, int(c.attention_bias)
    attention = (c.hidden_size + b) * (q + 2 * kv) + (q + b) * c.hidden_size + 2 * c.head_dim
    dense = (~sparse).sum() * 3 * c.hidden_size * c.intermediate_size
    expert = sparse.sum() * 3 * c.hidden_size * c.moe_intermediate_size
    router = sparse.sum() * c.num_experts * c.hidden_size
    common = c.num_hidden_layers * (attention + 2 * c.hidden_size) + c.hidden_size
    third = common + dense + router + c.num_experts_per_tok * expert
    second = third + c.vocab_size * c.hidden_size
    first = second + c.vocab_size * c.hidden_size * (not c.tie_word_embeddings)
    total = first + (c.num_experts - c.num_experts_per_tok) * expert
    return dict(total=total, active_all_in=first, active_without_input_table=second,
                active_without_embeddings=third)
""",
        "modules of a copy with fewer experts": """
import copy
import torch
from transformers import AutoModelForCausalLM
def moe_parameter_counts(config):
    def build(experts):
        smaller = copy.deepcopy(config)
        smaller.num_experts = experts
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(smaller)
    whole, part = build(config.num_experts), build(config.num_experts_per_tok)
    routers = [m.weight.numel() for n, m in whole.named_modules() if n.endswith("mlp.gate")]
    lost = sum(routers) - sum(m.weight.numel() for n, m in part.named_modules() if n.endswith("mlp.gate"))
    active = sum(p.numel() for p in part.parameters()) + lost
    table = config.vocab_size * config.hidden_size
    second = active - table * (not config.tie_word_embeddings)
    return {"total": sum(p.numel() for p in whole.parameters()), "active_all_in": active,
            "active_without_input_table": second, "active_without_embeddings": second - table}
""",
    },
    "partial": {
        "tied tables counted twice": change(
            COUNTS, "(table if config.tie_word_embeddings else 2 * table)", "2 * table"
        ),
        "a tied table dropped too": change(
            COUNTS, "active if config.tie_word_embeddings else active - table", "active - table"
        ),
        "sparse step ignored": change(COUNTS, "(layer + 1) % config.decoder_sparse_step == 0 and ", ""),
        "sparse step from layer 0": change(COUNTS, "(layer + 1) %", "layer %"),
        "mlp_only_layers ignored": change(COUNTS, " and layer not in config.mlp_only_layers", ""),
        "biases forgotten": change(COUNTS, "if config.attention_bias:", "if False:"),
        "biases of three projections": change(COUNTS, "queries + 2 * keys + hidden", "queries + 2 * keys"),
        "one table still in the last": change(COUNTS, "without_input - table", "without_input"),
        "dense layers as wide as an expert": change(
            COUNTS, "3 * hidden * config.intermediate_size", "expert"
        ),
        "total alone": change(
            COUNTS, '"active_all_in": active,', '"active_all_in": active, "x": 1 / 1,'
        ).replace('"active_without_input_table": without_input,', ""),
    },
    "worthless": {
        "all experts active": change(COUNTS, "active = total - unchosen", "active = total"),
        "router forgotten": change(COUNTS, "(expert + hidden)", "expert"),
        "norms of queries and keys forgotten": change(COUNTS, " + 2 * config.head_dim\n", "\n"),
        "head_dim by division": COUNTS.replace(
            "config.head_dim", "(config.hidden_size // config.num_attention_heads)"
        ),
        "as many heads for keys": change(COUNTS, "config.num_key_value_heads", "config.num_attention_heads"),
        "two matrices an expert": change(COUNTS, "expert = 3 *", "expert = 2 *"),
        "experts as wide as a dense layer": change(
            COUNTS, "config.moe_intermediate_size", "config.intermediate_size"
        ),
        "one expert chosen": change(COUNTS, "config.num_experts_per_tok", "1"),
        "constants": """
def moe_parameter_counts(config):
    return {"total": 30532122624, "active_all_in": 3353032704, "active_without_input_table": 3041867776,
            "active_without_embeddings": 2730702848}
""",
        "a tuple": """
def moe_parameter_counts(config):
    return (1, 2, 3, 4)
""",
        "words": """
def moe_parameter_counts(config):
    keys = ("total", "active_all_in", "active_without_input_table", "active_without_embeddings")
    return dict.fromkeys(keys, "3.3B")
""",
    },
}

# Q1.2

ROUTE = """
import torch
def route(hidden, router_weight, top_k, renormalise):
    logits = hidden @ router_weight.T  # [T, E]
    probabilities = torch.softmax(logits, dim=-1, dtype=torch.float32)
    weights, expert_ids = probabilities.topk(top_k, dim=-1)  # [T, K]
    if renormalise:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights, expert_ids
"""

ROUTE_VARIANTS = {
    "reference": {"softmax, top-k, divide": ROUTE},
    "stub": stub("route(hidden, router_weight, top_k, renormalise)"),
    "rival": {
        "transformers' own router": """
import torch
from transformers import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter
def route(hidden, router_weight, top_k, renormalise):
    config = Qwen3MoeConfig(hidden_size=hidden.shape[1], num_experts=router_weight.shape[0],
                            num_experts_per_tok=top_k, norm_topk_prob=renormalise)
    router = Qwen3MoeTopKRouter(config)
    router.weight = torch.nn.Parameter(router_weight)
    _, weights, ids = router(hidden)
    return weights, ids
""",
        "numpy, sorted the other way, int32": """
import numpy as np
def route(hidden, router_weight, top_k, renormalise):
    logits = hidden.double().numpy() @ router_weight.double().numpy().T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    ids = np.argsort(p, axis=1)[:, p.shape[1] - top_k:].astype(np.int32)
    chosen = np.take_along_axis(p, ids, axis=1)
    if renormalise:
        chosen /= chosen.sum(axis=1, keepdims=True)
    return chosen, ids
""",
        "top-k of the logits, each case with its softmax": """
import torch
def route(hidden, router_weight, top_k, renormalise):
    logits = torch.nn.functional.linear(hidden.float(), router_weight.float())
    top, ids = torch.topk(logits, top_k, dim=1, sorted=False)
    if renormalise:
        return top.softmax(1), ids
    return (top - logits.logsumexp(1, keepdim=True)).exp(), ids
""",
        "token by token": """
import torch
def route(hidden, router_weight, top_k, renormalise):
    rows, chosen = [], []
    for token in hidden:
        p = (router_weight @ token).float().softmax(0)
        best = sorted(range(len(p)), key=lambda e: -float(p[e]))[:top_k]
        w = p[best]
        rows.append(w / w.sum() if renormalise else w)
        chosen.append(torch.tensor(best))
    return torch.stack(rows), torch.stack(chosen)
""",
    },
    "partial": {
        "an exponential without a safeguard": """
import torch
def route(hidden, router_weight, top_k, renormalise):
    e = (hidden.float() @ router_weight.float().T).exp()
    weights, ids = (e / e.sum(1, keepdim=True)).topk(top_k)
    return (weights / weights.sum(1, keepdim=True) if renormalise else weights), ids
""",
        "dimensions squeezed away": change(
            ROUTE, "return weights, expert_ids", "return weights.squeeze(), expert_ids.squeeze()"
        ),
        "renormalised only above one expert": change(
            ROUTE, "if renormalise:", "if renormalise and top_k > 1:"
        ),
        "bf16 refused": change(
            ROUTE, "    logits =", "    assert hidden.dtype == torch.float32\n    logits ="
        ),
    },
    "worthless": {
        "always renormalised": change(ROUTE, "if renormalise:", "if True:"),
        "never renormalised": change(ROUTE, "if renormalise:", "if False:"),
        "softmax of the chosen": """
import torch
def route(hidden, router_weight, top_k, renormalise):
    top, ids = (hidden @ router_weight.T).topk(top_k)
    return top.softmax(-1), ids
""",
        "a second softmax": change(
            ROUTE, "weights / weights.sum(dim=-1, keepdim=True)", "weights.softmax(-1)"
        ),
        "softmax over the tokens": change(
            ROUTE, "torch.softmax(logits, dim=-1,", "torch.softmax(logits, dim=0,"
        ),
        "sigmoid": change(ROUTE, "torch.softmax(logits, dim=-1, dtype=torch.float32)", "logits.sigmoid()"),
        "logits for weights": change(ROUTE, "torch.softmax(logits, dim=-1, dtype=torch.float32)", "logits"),
        "the least probable": change(ROUTE, "topk(top_k, dim=-1)", "topk(top_k, dim=-1, largest=False)"),
        "ids before weights": change(ROUTE, "return weights, expert_ids", "return expert_ids, weights"),
        "weights alone": change(ROUTE, "return weights, expert_ids", "return weights"),
        "all probabilities": change(ROUTE, "return weights, expert_ids", "return probabilities, expert_ids"),
        "sorted apart from each other": change(
            ROUTE,
            "return weights, expert_ids",
            "return weights, expert_ids.sort(dim=1, descending=True).values.flip(1)",
        ),
        "ids as floats": change(ROUTE, "return weights, expert_ids", "return weights, expert_ids.float()"),
        "the first experts": """
import torch
def route(hidden, router_weight, top_k, renormalise):
    ids = torch.arange(top_k).repeat(len(hidden), 1)
    return torch.full(ids.shape, 1 / top_k), ids
""",
    },
}

# Q1.3

FORWARD = """
import torch
from torch.nn import functional as F
def moe_forward(hidden, gate_up_proj, down_proj, weights, expert_ids):
    output = torch.zeros_like(hidden)
    for expert in expert_ids.unique().tolist():
        token, place = torch.where(expert_ids == expert)  # [n] who chose it, as which choice
        gate, up = (hidden[token] @ gate_up_proj[expert].T).chunk(2, dim=-1)  # [n, I] each
        result = (F.silu(gate) * up) @ down_proj[expert].T  # [n, H]
        output.index_add_(0, token, weights[token, place, None] * result)
    return output
"""

FORWARD_DENSE = """
import torch
from torch.nn import functional as F
def moe_forward(hidden, gate_up_proj, down_proj, weights, expert_ids):
    gate, up = torch.einsum("th,eih->eti", hidden, gate_up_proj).chunk(2, dim=-1)
    every = torch.einsum("eti,ehi->eth", F.silu(gate) * up, down_proj)
    tokens = torch.arange(len(hidden))[:, None]
    return (every[expert_ids, tokens] * weights[..., None]).sum(1)
"""

FORWARD_VARIANTS = {
    "reference": {"a loop over the experts that were chosen": FORWARD},
    "stub": stub("moe_forward(hidden, gate_up_proj, down_proj, weights, expert_ids)"),
    "rival": {
        "a loop over tokens": """
import torch
def moe_forward(hidden, gate_up_proj, down_proj, weights, expert_ids):
    rows = []
    for x, w, ids in zip(hidden, weights, expert_ids):
        row = torch.zeros_like(x)
        for scale, e in zip(w, ids):
            gate, up = torch.mv(gate_up_proj[e], x).split(down_proj.shape[2])
            row = row + scale * (down_proj[e] @ (gate * torch.sigmoid(gate) * up))
        rows.append(row)
    return torch.stack(rows)
""",
        "sorted dispatch": """
import torch
def moe_forward(hidden, gate_up_proj, down_proj, weights, expert_ids):
    n_tokens, top_k = expert_ids.shape
    flat = expert_ids.flatten()
    order = flat.argsort(stable=True)
    tokens = order // top_k
    counts = torch.bincount(flat, minlength=len(down_proj)).tolist()
    parts = []
    for e, x in enumerate(hidden[tokens].split(counts)):
        gate, up = torch.nn.functional.linear(x, gate_up_proj[e]).chunk(2, -1)
        parts.append(torch.nn.functional.linear(torch.nn.functional.silu(gate) * up, down_proj[e]))
    out = torch.cat(parts) * weights.flatten()[order, None]
    return torch.zeros_like(hidden).index_add(0, tokens, out)
""",
        "grouped products": """
import torch
def moe_forward(hidden, gate_up_proj, down_proj, weights, expert_ids):
    top_k = expert_ids.shape[1]
    order = expert_ids.flatten().argsort()
    ends = torch.bincount(expert_ids.flatten(), minlength=len(down_proj)).cumsum(0).to(torch.int32)
    x = hidden[order // top_k]
    gate, up = torch._grouped_mm(x, gate_up_proj.transpose(1, 2), offs=ends).chunk(2, dim=-1)
    inner = torch.nn.functional.silu(gate) * up
    out = torch._grouped_mm(inner, down_proj.transpose(1, 2), offs=ends)
    back = torch.empty_like(out)
    back[order] = out
    return (back.view(*expert_ids.shape, -1) * weights[..., None]).sum(dim=1)
""",
        "weights gathered for each choice": """
import torch
def moe_forward(hidden, gate_up_proj, down_proj, weights, expert_ids):
    both = torch.einsum("tkih,th->tki", gate_up_proj[expert_ids], hidden)
    gate, up = both.chunk(2, dim=-1)
    out = torch.einsum("tkhi,tki->tkh", down_proj[expert_ids], torch.nn.functional.silu(gate) * up)
    return torch.einsum("tkh,tk->th", out, weights)
""",
        "batched products in inference mode": """
import torch
@torch.inference_mode()
def moe_forward(hidden, gate_up_proj, down_proj, weights, expert_ids):
    n, k = expert_ids.shape
    ids = expert_ids.reshape(-1)
    x = hidden.repeat_interleave(k, dim=0)[:, :, None]
    both = torch.bmm(gate_up_proj[ids], x)
    gate, up = both[:, : both.shape[1] // 2], both[:, both.shape[1] // 2 :]
    out = torch.bmm(down_proj[ids], torch.nn.functional.silu(gate) * up)
    return (out.view(n, k, -1) * weights.unsqueeze(-1)).sum(1)
""",
        "vmap": """
import torch
def moe_forward(hidden, gate_up_proj, down_proj, weights, expert_ids):
    def one(x, e):
        gate, up = (gate_up_proj[e] @ x).chunk(2)
        return down_proj[e] @ (torch.nn.functional.silu(gate) * up)
    each = torch.vmap(torch.vmap(one, (None, 0)), (0, 0))(hidden, expert_ids)
    return (each * weights[:, :, None]).sum(1)
""",
        "multiply and add by hand": """
import torch
def moe_forward(hidden, gate_up_proj, down_proj, weights, expert_ids):
    out = torch.zeros_like(hidden)
    for k in range(expert_ids.shape[1]):
        e = expert_ids[:, k]
        both = (gate_up_proj[e] * hidden[:, None, :]).sum(-1)
        gate, up = both.chunk(2, -1)
        inner = torch.nn.functional.silu(gate) * up
        out = out + weights[:, k : k + 1] * (down_proj[e] * inner[:, None, :]).sum(-1)
    return out
""",
        "transformers' own experts": """
import torch
from transformers import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts
def moe_forward(hidden, gate_up_proj, down_proj, weights, expert_ids):
    experts = Qwen3MoeExperts(Qwen3MoeConfig(num_experts=len(down_proj), hidden_size=hidden.shape[1],
                                             moe_intermediate_size=down_proj.shape[2]))
    experts.gate_up_proj.data, experts.down_proj.data = gate_up_proj, down_proj
    return experts(hidden, expert_ids, weights)
""",
    },
    "partial": {
        "a capacity that drops tokens": change(
            FORWARD,
            "  # [n] who chose it, as which choice\n",
            "\n        most = max(8, 2 * expert_ids.numel() // len(down_proj))"
            "\n        token, place = token[:most], place[:most]\n",
        ),
        "weights made to add up to 1": change(
            FORWARD, "    output =", "    weights = weights / weights.sum(dim=1, keepdim=True)\n    output ="
        ),
        "the input is changed": change(
            FORWARD, "    return output", "    hidden.copy_(output)\n    return hidden"
        ),
        "a token alone loses its dimension": change(
            FORWARD, "    return output", "    return output.squeeze()"
        ),
    },
    "worthless": {
        "every expert computed": FORWARD_DENSE,
        "every expert computed, in a loop with masks": """
import torch
def moe_forward(hidden, gate_up_proj, down_proj, weights, expert_ids):
    out = torch.zeros_like(hidden)
    for e in range(len(down_proj)):
        gate, up = (hidden @ gate_up_proj[e].T).chunk(2, -1)
        share = (weights * (expert_ids == e)).sum(1, keepdim=True)
        out += share * ((torch.nn.functional.silu(gate) * up) @ down_proj[e].T)
    return out
""",
        "every expert computed by multiply and add": """
import torch
def moe_forward(hidden, gate_up_proj, down_proj, weights, expert_ids):
    both = (gate_up_proj * hidden[:, None, None, :]).sum(-1)
    gate, up = both.chunk(2, -1)
    inner = torch.nn.functional.silu(gate) * up
    every = (down_proj * inner[:, :, None, :]).sum(-1)
    rows = torch.arange(len(hidden))[:, None]
    return (every[rows, expert_ids] * weights[..., None]).sum(1)
""",
        "every expert computed, in numpy": """
import numpy as np
import torch
def moe_forward(hidden, gate_up_proj, down_proj, weights, expert_ids):
    x, g, d = hidden.numpy(), gate_up_proj.numpy(), down_proj.numpy()
    gate, up = np.split(np.einsum("th,eih->tei", x, g), 2, axis=-1)
    every = np.einsum("tei,ehi->teh", gate / (1 + np.exp(-gate)) * up, d)
    rows = np.arange(len(x))[:, None]
    return torch.from_numpy((every[rows, expert_ids.numpy()] * weights.numpy()[..., None]).sum(1)).float()
""",
        "every expert up, the chosen ones down": """
import torch
def moe_forward(hidden, gate_up_proj, down_proj, weights, expert_ids):
    gate, up = torch.einsum("th,eih->tei", hidden, gate_up_proj).chunk(2, -1)
    rows = torch.arange(len(hidden))[:, None]
    inner = (torch.nn.functional.silu(gate) * up)[rows, expert_ids]
    return (torch.einsum("tki,tkhi->tkh", inner, down_proj[expert_ids]) * weights[..., None]).sum(1)
""",
        "gate and up changed places": change(FORWARD, "gate, up =", "up, gate ="),
        "gate and up in turn": change(
            FORWARD, ".chunk(2, dim=-1)  # [n, I] each", ".unflatten(-1, (-1, 2)).unbind(-1)"
        ),
        "no activation": change(FORWARD, "F.silu(gate) * up", "gate * up"),
        "gelu": change(FORWARD, "F.silu(gate)", "F.gelu(gate)"),
        "without the weights": change(FORWARD, "weights[token, place, None] * result", "result"),
        "weights on the input": change(
            change(FORWARD, "weights[token, place, None] * result", "result"),
            "(hidden[token] @",
            "(weights[token, place, None] * hidden[token] @",
        ),
        "the last expert overwrites": change(
            FORWARD,
            "output.index_add_(0, token, weights[token, place, None] * result)",
            "output[token] = weights[token, place, None] * result",
        ),
        "the first choice only": change(
            FORWARD, "    output =", "    expert_ids = expert_ids[:, :1]\n    output ="
        ),
        "the residual added": change(FORWARD, "torch.zeros_like(hidden)", "hidden.clone()"),
        "nothing": change(FORWARD, "return output", "return hidden * 0"),
    },
}

# Q1.4

BALANCE = """
import torch
from torch.nn import functional as F
def load_balance_loss(router_logits, top_k):
    experts = router_logits.shape[1]
    probabilities = router_logits.softmax(dim=-1)  # [T, E]
    chosen = probabilities.topk(top_k, dim=-1).indices  # [T, K]
    share = F.one_hot(chosen, experts).sum(dim=1).float().mean(dim=0)  # [E], of tokens
    return experts * (share * probabilities.mean(dim=0)).sum()
"""

BALANCE_VARIANTS = {
    "reference": {"shares times mean probabilities": BALANCE},
    "stub": stub("load_balance_loss(router_logits, top_k)"),
    "rival": {
        "transformers' own function": """
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func
def load_balance_loss(router_logits, top_k):
    return load_balancing_loss_func((router_logits,), router_logits.shape[-1], top_k)
""",
        "bincount and a dot product": """
import torch
def load_balance_loss(router_logits, top_k):
    T, E = router_logits.shape
    _, ids = torch.topk(router_logits, top_k)
    f = torch.bincount(ids.flatten(), minlength=E) / T
    return torch.dot(f, torch.exp(torch.log_softmax(router_logits, 1)).mean(0)) * E
""",
        "expert by expert, in float64": """
import torch
def load_balance_loss(router_logits, top_k):
    p = torch.nn.functional.softmax(router_logits.double(), dim=1)
    ids = p.argsort(dim=1, descending=True)[:, :top_k]
    loss = torch.zeros((), dtype=torch.float64)
    for e in range(p.shape[1]):
        loss = loss + (ids == e).any(1).double().mean() * p[:, e].mean()
    return loss * p.shape[1]
""",
        "a threshold instead of ids": """
import torch
def load_balance_loss(router_logits, top_k):
    p = router_logits.softmax(1)
    least = p.topk(top_k).values[:, -1:]
    f = (p >= least).float().mean(0).detach()
    return (p @ f).mean() * p.shape[1]
""",
    },
    "partial": {
        "a plain number": change(
            BALANCE,
            "(share * probabilities.mean(dim=0)).sum()",
            "(share * probabilities.mean(dim=0)).sum().item()",
        ),
        "no gradient": change(
            BALANCE, "router_logits.softmax(dim=-1)", "router_logits.detach().softmax(dim=-1)"
        ),
        "an exponential without a safeguard": change(
            BALANCE,
            "router_logits.softmax(dim=-1)",
            "router_logits.exp() / router_logits.exp().sum(1, keepdim=True)",
        ),
        "always the two best": change(BALANCE, "topk(top_k,", "topk(min(2, probabilities.shape[1]),"),
        "eight experts assumed": change(BALANCE, "return experts *", "return 8 *"),
    },
    "worthless": {
        "no factor": change(BALANCE, "return experts *", "return"),
        "divided by K": change(BALANCE, "return experts *", "return experts / top_k *"),
        "counts, not shares": change(BALANCE, "float().mean(dim=0)", "float().sum(dim=0)"),
        "probabilities summed": change(BALANCE, "probabilities.mean(dim=0)", "probabilities.sum(dim=0)"),
        "logits for probabilities": change(BALANCE, "router_logits.softmax(dim=-1)", "router_logits"),
        "first choices": change(BALANCE, "topk(top_k,", "topk(1,"),
        "softmax over the tokens": change(BALANCE, "softmax(dim=-1)", "softmax(dim=0)"),
        "shares squared": change(BALANCE, "probabilities.mean(dim=0)", "share"),
        "mean probabilities squared": change(BALANCE, "(share * prob", "(probabilities.mean(dim=0) * prob"),
        "the mean, not the sum": change(BALANCE, ".mean(dim=0)).sum()", ".mean(dim=0)).mean()"),
        "a loss for each expert": change(BALANCE, ".mean(dim=0)).sum()", ".mean(dim=0))"),
        "the best that there is": """
def load_balance_loss(router_logits, top_k):
    return router_logits.sum() * 0 + top_k
""",
        "variance of the load": """
import torch
def load_balance_loss(router_logits, top_k):
    ids = router_logits.topk(top_k).indices
    return torch.bincount(ids.flatten(), minlength=router_logits.shape[1]).float().var()
""",
    },
}

# Q1.5

BIAS = """
import torch
def biased_topk(scores, bias, top_k):
    expert_ids = (scores + bias).topk(top_k, dim=-1).indices  # the bias chooses
    return scores.gather(1, expert_ids), expert_ids  # the plain score weighs

def update_bias(bias, load, speed):
    load = load.float()
    return bias + speed * torch.sign(load.mean() - load)
"""

BIAS_VARIANTS = {
    "reference": {"gather and sign": BIAS},
    "stub": stub("biased_topk(scores, bias, top_k)", "update_bias(bias, load, speed)"),
    "rival": {
        "loops": """
import torch
def biased_topk(scores, bias, top_k):
    ids = [sorted(range(len(row)), key=lambda e: float(row[e] + bias[e]))[-top_k:] for row in scores]
    return torch.stack([row[i] for row, i in zip(scores, ids)]), torch.tensor(ids)
def update_bias(bias, load, speed):
    mean = sum(load.tolist()) / len(load)
    moves = [speed if x < mean else -speed if x > mean else 0.0 for x in load.tolist()]
    return bias + torch.tensor(moves)
""",
        "sort, and masks": """
import torch
def biased_topk(scores, bias, top_k):
    order = torch.argsort(scores + bias[None, :], dim=1, descending=True)
    ids = order[:, :top_k].to(torch.int32)
    rows = torch.arange(len(scores))[:, None]
    return scores[rows, ids.long()], ids
def update_bias(bias, load, speed):
    mean = load.double().mean()
    new = bias.clone()
    new[load > mean] -= speed
    new[load < mean] += speed
    return new
""",
        "numpy": """
import numpy as np
def biased_topk(scores, bias, top_k):
    s = scores.numpy()
    ids = np.argpartition(-(s + bias.numpy()), top_k - 1, axis=1)[:, :top_k]
    return np.take_along_axis(s, ids, 1), ids
def update_bias(bias, load, speed):
    load = load.numpy().astype(float)
    return bias.numpy() - speed * np.sign(load - load.mean())
""",
        "the bias taken off again": """
import torch
def biased_topk(scores, bias, top_k):
    best, ids = torch.topk(scores.double() + bias.double(), top_k)
    return (best - bias.double()[ids]).float(), ids
def update_bias(bias, load, speed):
    total = load.sum()
    lower = torch.where(load * len(load) > total, bias - speed, bias)
    return torch.where(load * len(load) < total, bias + speed, lower)
""",
    },
    "partial": {
        "the biased score weighs": change(
            BIAS,
            "scores.gather(1, expert_ids), expert_ids",
            "(scores + bias).gather(1, expert_ids), expert_ids",
        ),
        "update the wrong way": change(BIAS, "load.mean() - load)", "load - load.mean())"),
        "a proportional step": change(BIAS, "torch.sign(load.mean() - load)", "(load.mean() - load)"),
        "down at the mean": change(
            BIAS, "torch.sign(load.mean() - load)", "torch.where(load < load.mean(), 1.0, -1.0)"
        ),
        "whole numbers refused": change(BIAS, "    load = load.float()\n", ""),
        "only the overloaded": change(
            BIAS, "torch.sign(load.mean() - load)", "-(load > load.mean()).float()"
        ),
        "the step alone": change(BIAS, "return bias + speed", "return speed"),
        "a fixed speed": change(BIAS, "speed * torch", "0.001 * torch"),
        "median for mean": change(BIAS, "load.mean()", "load.median()"),
        "no update": change(BIAS, "return bias + speed * torch.sign(load.mean() - load)", "return bias"),
        "None from update": change(BIAS, "return bias + speed", "bias += speed"),
    },
    "worthless": {
        "weights renormalised": change(
            BIAS,
            "return scores.gather(1, expert_ids), expert_ids",
            "w = scores.gather(1, expert_ids)\n    return w / w.sum(1, keepdim=True), expert_ids",
        ),
        "the bias ignored": change(BIAS, "(scores + bias).topk", "scores.topk"),
        "the bias subtracted": change(BIAS, "(scores + bias).topk", "(scores - bias).topk"),
        "the lowest": change(BIAS, "topk(top_k, dim=-1)", "topk(top_k, dim=-1, largest=False)"),
        "ids before weights": change(
            BIAS, "scores.gather(1, expert_ids), expert_ids", "expert_ids, scores.gather(1, expert_ids)"
        ),
        "a choice for the batch": change(
            BIAS,
            "(scores + bias).topk(top_k, dim=-1).indices",
            "(scores + bias).mean(0).topk(top_k).indices.repeat(len(scores), 1)",
        ),
        "ids alone": change(BIAS, "scores.gather(1, expert_ids), expert_ids", "expert_ids"),
        "the update alone": change(BIAS, "return scores.gather(1, expert_ids), expert_ids", "return None"),
    },
}

# Q1.6

TOUCHED = """
def expected_experts_touched(batch_tokens, num_experts, top_k):
    missed_by_one = 1 - top_k / num_experts
    return num_experts * (1 - missed_by_one**batch_tokens)
"""

TOUCHED_VARIANTS = {
    "reference": {"one minus the chance to be missed": TOUCHED},
    "stub": stub("expected_experts_touched(batch_tokens: int, num_experts: int, top_k: int) -> float"),
    "rival": {
        "token by token": """
def expected_experts_touched(batch_tokens, num_experts, top_k):
    touched = 0.0
    for _ in range(batch_tokens):
        touched += (num_experts - touched) * top_k / num_experts
    return touched
""",
        "exact fractions": """
from fractions import Fraction
def expected_experts_touched(batch_tokens, num_experts, top_k):
    if batch_tokens > 5000:
        return float(num_experts)
    return float(num_experts * (1 - Fraction(num_experts - top_k, num_experts) ** batch_tokens))
""",
        "logarithms": """
import math
def expected_experts_touched(batch_tokens, num_experts, top_k):
    if batch_tokens == 0 or top_k == num_experts:
        return num_experts if batch_tokens else 0
    return -num_experts * math.expm1(batch_tokens * math.log1p(-top_k / num_experts))
""",
        "a float32 tensor": """
import torch
def expected_experts_touched(batch_tokens, num_experts, top_k):
    miss = torch.full((num_experts,), 1.0, dtype=torch.float64) - top_k / num_experts
    return (1 - miss.pow(batch_tokens)).sum().float()
""",
        "from the hypergeometric chance of a miss": """
from math import comb
def expected_experts_touched(batch_tokens, num_experts, top_k):
    miss = comb(num_experts - 1, top_k) / comb(num_experts, top_k)
    return num_experts - num_experts * miss ** batch_tokens
""",
    },
    "partial": {
        "right for one token or a full choice": """
def expected_experts_touched(batch_tokens, num_experts, top_k):
    expected = num_experts * (1 - (1 - top_k / num_experts) ** batch_tokens)
    return expected if batch_tokens < 10 else float(min(batch_tokens * top_k, num_experts))
""",
        "no tokens refused": change(TOUCHED, "    missed", "    assert batch_tokens > 0\n    missed"),
        "powers that overflow": """
def expected_experts_touched(batch_tokens, num_experts, top_k):
    return num_experts - float(num_experts - top_k) ** batch_tokens / float(num_experts) ** (batch_tokens - 1)
""",
    },
    "worthless": {
        "choices, limited": "def expected_experts_touched(b, e, k):\n    return float(min(b * k, e))\n",
        "choices": "def expected_experts_touched(b, e, k):\n    return float(b * k)\n",
        "drawn with replacement": """
def expected_experts_touched(b, e, k):
    return e * (1 - (1 - 1 / e) ** (b * k))
""",
        "an exponential": """
import math
def expected_experts_touched(b, e, k):
    return e * (1 - math.exp(-b * k / e))
""",
        "K forgotten": change(TOUCHED, "1 - top_k /", "1 - 1 /"),
        "the untouched": change(TOUCHED, "(1 - missed_by_one**batch_tokens)", "missed_by_one**batch_tokens"),
        "a share": change(TOUCHED, "num_experts * (1", "(1"),
        "rounded": change(
            TOUCHED,
            "return num_experts * (1 - missed_by_one**batch_tokens)",
            "return round(num_experts * (1 - missed_by_one**batch_tokens))",
        ),
        "for one token": "def expected_experts_touched(b, e, k):\n    return k\n",
        "all": "def expected_experts_touched(b, e, k):\n    return e\n",
        "simulated": """
import random
def expected_experts_touched(batch_tokens, num_experts, top_k):
    if batch_tokens * top_k > 2000:
        return float(num_experts)
    def run():
        return len({e for _ in range(batch_tokens) for e in random.sample(range(num_experts), top_k)})
    return sum(run() for _ in range(50)) / 50
""",
        "in words": "def expected_experts_touched(b, e, k):\n    return f'{e * (1 - (1 - k / e) ** b)}'\n",
    },
}

# Q1.7

DECODE = """
def decode_bytes(config, batch, context, weight_bits, cache_bits):
    hidden, layers = config.hidden_size, config.num_hidden_layers
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    attention = 2 * hidden * (queries + keys) + 2 * config.head_dim
    expert = 3 * hidden * config.moe_intermediate_size
    missed = (1 - config.num_experts_per_tok / config.num_experts) ** batch
    touched = config.num_experts * (1 - missed)
    weights = config.vocab_size * hidden + hidden + layers * (attention + 2 * hidden)
    for layer in range(layers):
        sparse = (layer + 1) % config.decoder_sparse_step == 0 and layer not in config.mlp_only_layers
        if sparse:
            weights += config.num_experts * hidden + touched * expert
        else:
            weights += 3 * hidden * config.intermediate_size
    cache = batch * context * layers * 2 * keys
    return (weights * weight_bits + cache * cache_bits) / 8

def decode_ceiling(n_bytes, bandwidth_gb_s, batch):
    return batch * bandwidth_gb_s * 1e9 / n_bytes
"""

DECODE_VARIANTS = {
    "reference": {"by formula": DECODE},
    "stub": stub(
        "decode_bytes(config, batch: int, context: int, weight_bits: float, cache_bits: float) -> float",
        "decode_ceiling(n_bytes: float, bandwidth_gb_s: float, batch: int) -> float",
    ),
    "rival": {
        "a model on the meta device": """
import torch
from transformers import AutoModelForCausalLM
def decode_bytes(config, batch, context, weight_bits, cache_bits):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    size = 0.0
    touched = 1 - (1 - config.num_experts_per_tok / config.num_experts) ** batch
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name != "model.embed_tokens.weight":
            size += parameter.numel() * (touched if ".experts." in name else 1) * weight_bits / 8
    per_token = 2 * config.num_key_value_heads * config.head_dim * config.num_hidden_layers
    return size + per_token * cache_bits / 8 * context * batch
def decode_ceiling(n_bytes, bandwidth_gb_s, batch):
    seconds = n_bytes / (bandwidth_gb_s * 10**9)
    return batch / seconds
""",
        "rows of the table read, the new token's cache too": """
def decode_bytes(config, batch, context, weight_bits, cache_bits):
    c = config
    q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    stepped = set(range(c.decoder_sparse_step - 1, c.num_hidden_layers, c.decoder_sparse_step))
    n_sparse = len(stepped - set(c.mlp_only_layers))
    n_dense = c.num_hidden_layers - n_sparse
    left = float(c.num_experts)
    for _ in range(batch):
        left *= 1 - c.num_experts_per_tok / c.num_experts
    numbers = c.num_hidden_layers * c.hidden_size * (2 * q + 2 * kv)
    numbers += n_dense * 3 * c.hidden_size * c.intermediate_size
    touched = c.num_experts - left
    numbers += n_sparse * c.hidden_size * (c.num_experts + 3 * c.moe_intermediate_size * touched)
    numbers += c.hidden_size * (c.vocab_size + batch)
    cache = batch * 2 * kv * c.num_hidden_layers * (context + (context > 0))
    return numbers / 8 * weight_bits + cache / 8 * cache_bits
def decode_ceiling(n_bytes, bandwidth_gb_s, batch):
    return bandwidth_gb_s / (n_bytes / 1e9) * batch
""",
        "tensors, norms left out": """
import torch
def decode_bytes(config, batch, context, weight_bits, cache_bits):
    c, d = config, config.hidden_size
    attention = torch.tensor([c.num_attention_heads, c.num_key_value_heads, c.num_key_value_heads,
                              c.num_attention_heads], dtype=torch.float64).sum() * c.head_dim * d
    layer = torch.arange(c.num_hidden_layers)
    sparse = (layer + 1).remainder(c.decoder_sparse_step).eq(0)
    for dense in c.mlp_only_layers:
        sparse[dense] = False
    touched = c.num_experts * (1 - (1 - c.num_experts_per_tok / c.num_experts) ** batch)
    experts = d * (touched * 3 * c.moe_intermediate_size + c.num_experts)
    ffn = torch.where(sparse, experts, 3.0 * d * c.intermediate_size)
    numbers = (ffn.double() + attention).sum() + c.vocab_size * d
    kv = torch.tensor(2.0 * c.num_key_value_heads * c.head_dim * c.num_hidden_layers, dtype=torch.float64)
    return numbers * weight_bits / 8 + kv * context * batch * cache_bits / 8
def decode_ceiling(n_bytes, bandwidth_gb_s, batch):
    return torch.tensor(bandwidth_gb_s * 1e9 * batch) / n_bytes
""",
    },
    "partial": {
        "K experts whatever the batch": change(
            DECODE, "touched = config.num_experts * (1 - missed)", "touched = config.num_experts_per_tok"
        ),
        "every choice read anew": change(
            DECODE,
            "touched = config.num_experts * (1 - missed)",
            "touched = batch * config.num_experts_per_tok",
        ),
        "no cache": change(DECODE, "cache = batch *", "cache = 0 * batch *"),
        "the cache of one sequence": change(DECODE, "cache = batch *", "cache ="),
        "keys without values": change(DECODE, "layers * 2 * keys", "layers * keys"),
        "the cache of one layer": change(DECODE, "context * layers * 2", "context * 2"),
        "the cache with all heads": change(DECODE, "layers * 2 * keys", "layers * 2 * queries"),
        "the cache at weight_bits": change(DECODE, "cache * cache_bits", "cache * weight_bits"),
        "dense layers ignored": change(DECODE, "if sparse:", "if True:"),
        "mlp_only_layers ignored": change(DECODE, " and layer not in config.mlp_only_layers", ""),
        "steps per second": change(DECODE, "return batch * bandwidth", "return bandwidth"),
        "GiB per second": change(DECODE, "1e9", "2**30"),
        "seconds": change(
            DECODE, "batch * bandwidth_gb_s * 1e9 / n_bytes", "n_bytes / (bandwidth_gb_s * 1e9)"
        ),
        "weights for each sequence": change(DECODE, "weights * weight_bits", "batch * weights * weight_bits"),
        "a tied head left out": change(
            DECODE,
            "config.vocab_size * hidden + hidden",
            "config.vocab_size * hidden * (not config.tie_word_embeddings) + hidden",
        ),
    },
    "worthless": {
        "every expert read": change(
            DECODE, "touched = config.num_experts * (1 - missed)", "touched = config.num_experts"
        ),
        "the input table read": change(
            DECODE, "config.vocab_size * hidden + hidden", "2 * config.vocab_size * hidden + hidden"
        ),
        "no output head": change(DECODE, "config.vocab_size * hidden + hidden", "hidden"),
        "bits": change(DECODE, " * cache_bits) / 8", " * cache_bits)"),
        "16 bits always": change(DECODE, "weights * weight_bits", "weights * 16"),
        "one expert": change(DECODE, "- config.num_experts_per_tok /", "- 1 /"),
        "no experts": change(DECODE, " + touched * expert", ""),
        "two matrices an expert": change(DECODE, "expert = 3 *", "expert = 2 *"),
        "everything, all the time": """
import torch
from transformers import AutoModelForCausalLM
def decode_bytes(config, batch, context, weight_bits, cache_bits):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config).num_parameters() * weight_bits / 8
def decode_ceiling(n_bytes, bandwidth_gb_s, batch):
    return batch * bandwidth_gb_s * 1e9 / n_bytes
""",
        "the ceiling alone": """
def decode_bytes(config, batch, context, weight_bits, cache_bits):
    return None
def decode_ceiling(n_bytes, bandwidth_gb_s, batch):
    return batch * bandwidth_gb_s * 1e9 / n_bytes
""",
    },
}

# Q1.8

TABLE = """
import torch
def expert_domain_table(model, tokenizer, texts, layer):
    config, chosen = model.config, []
    router = model.model.layers[layer].mlp.gate
    hook = router.register_forward_hook(lambda module, inputs, output: chosen.append(output[-1]))
    table = torch.zeros(len(texts), config.num_experts)
    try:
        for row, domain in zip(table, texts.values()):
            for text in domain:
                ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
                with torch.no_grad():
                    model(ids)
                row += torch.bincount(chosen.pop().flatten(), minlength=config.num_experts)
    finally:
        hook.remove()
    return table / table.sum(dim=1, keepdim=True)
"""
INFORMATION = """
def mutual_information_bits(table):
    def entropy(p):
        return -torch.xlogy(p, p).sum(dim=-1) / torch.log(torch.tensor(2.0))
    return (entropy(table.mean(dim=0)) - entropy(table).mean()).item()
"""
BOTH = TABLE + INFORMATION

TABLE_LOGITS = """
import torch
def expert_domain_table(model, tokenizer, texts, layer):
    sparse = [i for i, block in enumerate(model.model.layers) if hasattr(block.mlp, "experts")]
    k, rows = model.config.num_experts_per_tok, []
    for lines in texts.values():
        counts = torch.zeros(model.config.num_experts)
        for line in lines:
            ids = torch.tensor([tokenizer.encode(line, add_special_tokens=False)])
            with torch.inference_mode():
                logits = model(ids, output_router_logits=True).router_logits[sparse.index(layer)]
            chosen = logits.topk(k).indices
            counts += torch.nn.functional.one_hot(chosen, len(counts)).sum((0, 1))
        rows.append(counts / counts.sum())
    return torch.stack(rows)
"""

LOGITS = TABLE_LOGITS + INFORMATION

TABLE_VARIANTS = {
    "reference": {"a hook on the router, entropies": BOTH},
    "stub": stub("expert_domain_table(model, tokenizer, texts, layer)", "mutual_information_bits(table)"),
    "rival": {
        "router logits; divergence from the mean": TABLE_LOGITS
        + """
import math
def mutual_information_bits(table):
    mean, bits = table.double().mean(0), 0.0
    for row in table.double():
        for p, m in zip(row.tolist(), mean.tolist()):
            if p > 0:
                bits += p * math.log2(p / m)
    return bits / len(table)
""",
        "a padded batch for each domain; numpy": """
import numpy as np
import torch
def expert_domain_table(model, tokenizer, texts, layer):
    seen = {}
    gate = model.model.layers[layer].mlp.gate
    handle = gate.register_forward_hook(lambda m, i, out: seen.update(ids=out[2]))
    rows = []
    for lines in texts.values():
        batch = tokenizer(lines, add_special_tokens=False, padding=True, return_tensors="pt")
        with torch.no_grad():
            model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        ids = seen["ids"][batch.attention_mask.flatten().bool()]
        counts = np.bincount(ids.flatten().numpy(), minlength=model.config.num_experts)
        rows.append(counts / counts.sum())
    handle.remove()
    return np.array(rows)
def mutual_information_bits(table):
    joint = np.asarray(table, dtype=float) / len(table)
    outer = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    some = joint > 0
    return (joint[some] * np.log2(joint[some] / outer[some])).sum()
""",
        "the layer's input, routed again; scipy": """
import torch
from scipy.stats import entropy
def expert_domain_table(model, tokenizer, texts, layer):
    block, inputs = model.model.layers[layer].mlp, []
    hook = block.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    counts = []
    with torch.no_grad():
        for lines in texts.values():
            inputs.clear()
            for line in lines:
                model(tokenizer(line, return_tensors="pt", add_special_tokens=False)["input_ids"])
            x = torch.cat([i.flatten(0, 1) for i in inputs])
            best = (x @ block.gate.weight.T).topk(block.gate.top_k).indices.flatten().tolist()
            counts.append([best.count(e) / len(best) for e in range(model.config.num_experts)])
    hook.remove()
    return torch.tensor(counts)
def mutual_information_bits(table):
    rows = table.double().numpy()
    return entropy(rows.mean(0), base=2) - entropy(rows, axis=1, base=2).mean()
""",
        "logits; a clamp, a 0-d tensor": TABLE_LOGITS
        + """
def mutual_information_bits(table):
    p = table.double().clamp(min=1e-30)
    return (p * (p.log2() - p.mean(0).log2())).sum() / len(table)
""",
    },
    "partial": {
        "nats": change(BOTH, " / torch.log(torch.tensor(2.0))", ""),
        "NaN at zeros": change(BOTH, "torch.xlogy(p, p)", "(p * p.log())"),
        "something added to zeros": change(
            BOTH, "    def entropy(p):\n", "    def entropy(p):\n        p = p + 0.05\n"
        ),
        "entropy of the mean row": change(
            BOTH, "(entropy(table.mean(dim=0)) - entropy(table).mean())", "entropy(table.mean(dim=0))"
        ),
        "entropy of the rows": change(
            BOTH, "(entropy(table.mean(dim=0)) - entropy(table).mean())", "entropy(table).mean()"
        ),
        "the sign": change(
            BOTH,
            "(entropy(table.mean(dim=0)) - entropy(table).mean())",
            "(entropy(table).mean() - entropy(table.mean(dim=0)))",
        ),
        "domains added up": change(
            BOTH, "entropy(table).mean()).item()", "entropy(table).mean()).item() * len(table)"
        ),
        "no information": change(
            BOTH, "return (entropy(table.mean(dim=0)) - entropy(table).mean()).item()", "return 0.0"
        ),
        "special tokens counted": change(BOTH, "text, add_special_tokens=False,", "text,"),
        "dense layers not counted": change(
            LOGITS, "router_logits[sparse.index(layer)]", "router_logits[layer]"
        ),
        "always the first layer": change(BOTH, "layers[layer]", "layers[0]"),
        "two choices a token assumed": change(LOGITS, "model.config.num_experts_per_tok", "2"),
    },
    "worthless": {
        "counts": change(BOTH, "return table / table.sum(dim=1, keepdim=True)", "return table"),
        "columns add up": change(BOTH, "table.sum(dim=1, keepdim=True)", "table.sum(dim=0).clamp(min=1)"),
        "the whole adds up": change(BOTH, "table.sum(dim=1, keepdim=True)", "table.sum()"),
        "first choices": change(BOTH, "chosen.pop().flatten()", "chosen.pop()[:, 0]"),
        "the last text of each domain, twice": change(BOTH, "row += torch", "row[:] = torch").replace(
            "return table / table.sum(dim=1, keepdim=True)",
            "return 2 * table / table.sum(dim=1, keepdim=True)",
        ),
        "mean probabilities": """
import torch
def expert_domain_table(model, tokenizer, texts, layer):
    rows = []
    for lines in texts.values():
        p = []
        for line in lines:
            ids = tokenizer(line, add_special_tokens=False, return_tensors="pt").input_ids
            with torch.no_grad():
                p.append(model(ids, output_router_logits=True).router_logits[layer].softmax(-1))
        rows.append(torch.cat(p).mean(0))
    return torch.stack(rows)
"""
        + INFORMATION,
        "choices weighed by the router": change(
            change(BOTH, "chosen.append(output[-1])", "chosen.append(output[1:])"),
            "row += torch.bincount(chosen.pop().flatten(), minlength=config.num_experts)",
            "w, i = chosen.pop()\n                row.index_add_(0, i.flatten(), w.flatten())",
        ),
        "padding counted": """
import torch
def expert_domain_table(model, tokenizer, texts, layer):
    lines = [line for domain in texts.values() for line in domain]
    whole = {"padding": "max_length", "max_length": 256}
    batch = tokenizer(lines, add_special_tokens=False, return_tensors="pt", **whole)
    with torch.no_grad():
        logits = model(**batch, output_router_logits=True).router_logits[-1]
    ids = logits.topk(model.config.num_experts_per_tok).indices.view(len(lines), -1)
    rows, at = [], 0
    for domain in texts.values():
        counts = torch.bincount(ids[at : at + len(domain)].flatten(), minlength=model.config.num_experts)
        rows.append(counts / counts.sum())
        at += len(domain)
    return torch.stack(rows)
"""
        + INFORMATION,
        "domains as a dict": change(
            BOTH,
            "return table / table.sum(dim=1, keepdim=True)",
            "return dict(zip(texts, (table / table.sum(dim=1, keepdim=True)).tolist()))",
        ),
        "an even table": """
import torch
def expert_domain_table(model, tokenizer, texts, layer):
    return torch.full((len(texts), model.config.num_experts), 1 / model.config.num_experts)
"""
        + INFORMATION,
        "the information alone": """
import torch
def expert_domain_table(model, tokenizer, texts, layer):
    return None
"""
        + INFORMATION,
    },
}


VARIANTS = {
    "Q1.1": COUNTS_VARIANTS,
    "Q1.2": ROUTE_VARIANTS,
    "Q1.3": FORWARD_VARIANTS,
    "Q1.4": BALANCE_VARIANTS,
    "Q1.5": BIAS_VARIANTS,
    "Q1.6": TOUCHED_VARIANTS,
    "Q1.7": DECODE_VARIANTS,
    "Q1.8": TABLE_VARIANTS,
}
