"""Answers to module 00, right and wrong, which the tests put through the judge and the whole grading path.

`VARIANTS[question][kind][name]` is the source of an answer cell (without its marker line). Kinds:
"reference"; "stub", the untouched cell; "rival", right answers written differently; "partial", wrong in some
cases; "worthless", wrong answers that must earn nothing.
"""

COUNT = {
    "reference": {
        "unique parameters": """
def count_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())
"""
    },
    "stub": {
        "untouched": """
def count_parameters(model) -> int:
    # YOUR CODE HERE
    raise NotImplementedError()
"""
    },
    "rival": {
        "loop with a set of ids": """
def count_parameters(model):
    seen, total = set(), 0
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is None or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            size = 1
            for length in parameter.shape:
                size *= length
            total += size
    return total
""",
        "numpy product over shapes": """
import numpy as np
def count_parameters(model):
    return np.sum([np.prod(p.shape, dtype=np.int64) for _, p in model.named_parameters()])
""",
        "by storage address": """
def count_parameters(model):
    by_address = {p.data_ptr(): p.numel() for _, p in model.named_parameters(remove_duplicate=False)}
    return sum(by_address.values())
""",
        "one long vector": """
import torch
def count_parameters(model):
    return torch.nn.utils.parameters_to_vector(model.parameters()).shape[0]
""",
        "a tensor as the sum": """
import torch
def count_parameters(model):
    return torch.tensor([p.nelement() for p in set(model.parameters())]).sum()
""",
    },
    "partial": {
        "state dict, tied twice": """
def count_parameters(model):
    buffers = dict(model.named_buffers())
    return sum(t.numel() for name, t in model.state_dict().items() if name not in buffers)
""",
        "whole state dict": """
def count_parameters(model):
    return sum(t.numel() for t in model.state_dict().values())
""",
        "trainable only": """
def count_parameters(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
""",
        "bf16 counted by size": """
def count_parameters(model):
    return sum(p.nbytes // 4 for p in model.parameters())
""",
        "transformers' own method only": """
def count_parameters(model):
    try:
        return model.num_parameters()
    except AttributeError:
        return sum(p.numel() for m in model for p in m.parameters())
""",
    },
    "worthless": {
        "with buffers": """
def count_parameters(model):
    return sum(t.numel() for t in [*model.parameters(), *model.buffers()])
""",
        "number of tensors": """
def count_parameters(model):
    return len(list(model.parameters()))
""",
        "bytes": """
def count_parameters(model):
    return sum(p.nbytes for p in model.parameters())
""",
        "linear layers only": """
import torch
def count_parameters(model):
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
""",
        "without embeddings": """
def count_parameters(model):
    return sum(p.numel() for n, p in model.named_parameters() if "embed" not in n)
""",
        "once per shape": """
def count_parameters(model):
    return sum({tuple(p.shape): p.numel() for p in model.parameters()}.values())
""",
        "a constant": """
def count_parameters(model):
    return 9296
""",
        "nothing": """
def count_parameters(model):
    print(sum(p.numel() for p in model.parameters()))
""",
        "a string": """
def count_parameters(model):
    return str(sum(p.numel() for p in model.parameters()))
""",
        "equal to everything": """
class Yes(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __sub__(self, other): return 0
    __rsub__ = __sub__
    def __abs__(self): return 0
    def __float__(self): return float("nan")
def count_parameters(model):
    return Yes()
""",
    },
}

GIB = {
    "reference": {
        "bits to bytes to GiB": """
def weight_gib(n_parameters, bits):
    return n_parameters * bits / 8 / 2**30
"""
    },
    "stub": {
        "untouched": """
def weight_gib(n_parameters: int, bits: float) -> float:
    # YOUR CODE HERE
    raise NotImplementedError()
"""
    },
    "rival": {
        "repeated division": """
def weight_gib(n_parameters, bits):
    size = bits * n_parameters / 8
    for _ in range(3):
        size /= 1024
    return size
""",
        "one constant": """
BITS_IN_A_GIB = 8_589_934_592
def weight_gib(n_parameters, bits):
    return (bits / BITS_IN_A_GIB) * n_parameters
""",
        "numpy": """
import numpy as np
def weight_gib(n_parameters, bits):
    return np.float64(n_parameters) * np.float64(bits) / np.float64(8 * 1024**3)
""",
        "exact fractions": """
from fractions import Fraction
def weight_gib(n_parameters, bits):
    return float(Fraction(bits) * n_parameters / (8 << 30))
""",
        "a float32 tensor": """
import torch
def weight_gib(n_parameters, bits):
    return torch.tensor(float(n_parameters)) * bits / 8 / 1024**3
""",
    },
    "partial": {
        "whole bits": """
def weight_gib(n_parameters, bits):
    return n_parameters * int(bits) / 8 / 2**30
""",
        "whole bits, rounded up": """
import math
def weight_gib(n_parameters, bits):
    return n_parameters * math.ceil(bits) / 8 / 2**30
""",
        "never less than one byte": """
def weight_gib(n_parameters, bits):
    return max(n_parameters * bits / 8, 1) / 2**30
""",
        "whole bytes a weight": """
def weight_gib(n_parameters, bits):
    return n_parameters * max(bits, 8) / 8 / 2**30
""",
        "fractions refused": """
def weight_gib(n_parameters, bits):
    if bits not in (2, 4, 8, 16, 32):
        raise ValueError("bits must be a power of two")
    return n_parameters * bits / 8 / 2**30
""",
    },
    "worthless": {
        "GB of 10**9 bytes": """
def weight_gib(n_parameters, bits):
    return n_parameters * bits / 8 / 10**9
""",
        "bits for bytes": """
def weight_gib(n_parameters, bits):
    return n_parameters * bits / 2**30
""",
        "bytes": """
def weight_gib(n_parameters, bits):
    return n_parameters * bits / 8
""",
        "MiB": """
def weight_gib(n_parameters, bits):
    return n_parameters * bits / 8 / 2**20
""",
        "whole-number division": """
def weight_gib(n_parameters, bits):
    return n_parameters * bits // 8 // 2**30
""",
        "rounded": """
def weight_gib(n_parameters, bits):
    return round(n_parameters * bits / 8 / 2**30, 2)
""",
        "zero": """
def weight_gib(n_parameters, bits):
    return 0.0
""",
        "true": """
def weight_gib(n_parameters, bits):
    return True
""",
        "not a number": """
def weight_gib(n_parameters, bits):
    return float("nan")
""",
        "a string": """
def weight_gib(n_parameters, bits):
    return f"{n_parameters * bits / 8 / 2**30} GiB"
""",
    },
}

NEXT_TOKEN = {
    "reference": {
        "no_grad, eval, restore": """
import torch
def next_token_probabilities(model, input_ids):
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(input_ids).logits[0, -1]
    model.train(was_training)
    return logits.float().softmax(dim=-1)
"""
    },
    "stub": {
        "untouched": """
def next_token_probabilities(model, input_ids):
    # YOUR CODE HERE
    raise NotImplementedError()
"""
    },
    "rival": {
        "inference mode and a finally": """
import torch
@torch.inference_mode()
def next_token_probabilities(model, input_ids):
    mode = model.training
    try:
        output = model.eval()(input_ids=input_ids, use_cache=False)
        return torch.nn.functional.softmax(output.logits[0, -1, :], dim=0, dtype=torch.float32)
    finally:
        model.train(mode)
""",
        "exponentials by hand, in float64": """
import torch
def next_token_probabilities(model, input_ids):
    modes = {module: module.training for module in model.modules()}
    model.eval()
    with torch.no_grad():
        logits = model(input_ids)[0].squeeze(0)[-1].double()
    for module, mode in modes.items():
        module.training = mode
    shifted = torch.exp(logits - logits.max())
    return shifted / shifted.sum()
""",
        "all positions, then the last": """
import torch
def next_token_probabilities(model, input_ids):
    training = model.training
    model.eval()
    with torch.set_grad_enabled(False):
        everywhere = torch.log_softmax(model(input_ids).logits.to(torch.float32), dim=2).exp()
    if training:
        model.train()
    return everywhere[0, input_ids.shape[1] - 1]
""",
        "numpy softmax": """
import numpy as np
import torch
def next_token_probabilities(model, input_ids):
    before = model.training
    model.eval()
    with torch.no_grad():
        logits = model(input_ids).logits[0, -1].float().numpy()
    model.train(before)
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()
""",
        "on a copy of the model": """
import copy
import torch
def next_token_probabilities(model, input_ids):
    twin = copy.deepcopy(model).eval().requires_grad_(False).float()
    return twin(input_ids).logits[0, -1].softmax(-1).detach()
""",
    },
    "partial": {
        "dropout stays on": """
import torch
def next_token_probabilities(model, input_ids):
    with torch.no_grad():
        return model(input_ids).logits[0, -1].float().softmax(-1)
""",
        "mode not restored": """
import torch
def next_token_probabilities(model, input_ids):
    model.eval()
    with torch.no_grad():
        return model(input_ids).logits[0, -1].float().softmax(-1)
""",
        "always left in train mode": """
import torch
def next_token_probabilities(model, input_ids):
    model.eval()
    with torch.no_grad():
        result = model(input_ids).logits[0, -1].float().softmax(-1)
    model.train()
    return result
""",
        "with a gradient": """
def next_token_probabilities(model, input_ids):
    mode = model.training
    model.eval()
    result = model(input_ids).logits[0, -1].float().softmax(-1)
    model.train(mode)
    return result
""",
        "detached at the end": """
def next_token_probabilities(model, input_ids):
    mode = model.training
    model.eval()
    result = model(input_ids).logits[0, -1].float().softmax(-1).detach()
    model.train(mode)
    return result
""",
        "softmax in bf16": """
import torch
def next_token_probabilities(model, input_ids):
    mode = model.training
    model.eval()
    with torch.no_grad():
        result = model(input_ids).logits[0, -1].softmax(-1).float()
    model.train(mode)
    return result
""",
        "model converted to float32": """
import torch
def next_token_probabilities(model, input_ids):
    mode = model.training
    model.eval().float()
    with torch.no_grad():
        result = model(input_ids).logits[0, -1].softmax(-1)
    model.train(mode)
    return result
""",
    },
    "worthless": {
        "logits": """
import torch
def next_token_probabilities(model, input_ids):
    with torch.no_grad():
        return model(input_ids).logits[0, -1].float()
""",
        "log-probabilities": """
import torch
def next_token_probabilities(model, input_ids):
    with torch.no_grad():
        return model(input_ids).logits[0, -1].float().log_softmax(-1)
""",
        "first position": """
import torch
def next_token_probabilities(model, input_ids):
    with torch.no_grad():
        return model(input_ids).logits[0, 0].float().softmax(-1)
""",
        "softmax over positions": """
import torch
def next_token_probabilities(model, input_ids):
    with torch.no_grad():
        return model(input_ids).logits.float().softmax(1)[0, -1]
""",
        "batch dimension kept": """
import torch
def next_token_probabilities(model, input_ids):
    with torch.no_grad():
        return model(input_ids).logits[:, -1].float().softmax(-1)
""",
        "every position": """
import torch
def next_token_probabilities(model, input_ids):
    with torch.no_grad():
        return model(input_ids).logits[0].float().softmax(-1)
""",
        "mean over positions": """
import torch
def next_token_probabilities(model, input_ids):
    with torch.no_grad():
        return model(input_ids).logits[0].float().softmax(-1).mean(0)
""",
        "uniform": """
import torch
def next_token_probabilities(model, input_ids):
    return torch.ones(model.config.vocab_size) / model.config.vocab_size
""",
        "the likeliest token alone": """
import torch
def next_token_probabilities(model, input_ids):
    with torch.no_grad():
        logits = model(input_ids).logits[0, -1]
    return torch.nn.functional.one_hot(logits.argmax(), logits.shape[0]).float()
""",
        "too warm": """
import torch
def next_token_probabilities(model, input_ids):
    with torch.no_grad():
        return (model(input_ids).logits[0, -1].float() / 1.1).softmax(-1)
""",
    },
}

SORT = {
    "reference": {
        "first rule that applies": """
def sort_claims(claims):
    groups = {"measurable": [], "sourced": [], "opinion": []}
    for claim in claims:
        if claim.get("measurable_here"):
            kind = "measurable"
        elif claim.get("primary_source"):
            kind = "sourced"
        else:
            kind = "opinion"
        groups[kind].append(claim["id"])
    return groups
"""
    },
    "stub": {
        "untouched": """
def sort_claims(claims: list[dict]) -> dict[str, list[str]]:
    # YOUR CODE HERE
    raise NotImplementedError()
"""
    },
    "rival": {
        "three comprehensions": """
def sort_claims(claims):
    def can(claim, key):
        return bool(claim.get(key))
    return {
        "opinion": [c["id"] for c in claims if not (can(c, "measurable_here") or can(c, "primary_source"))],
        "sourced": [c["id"] for c in claims if can(c, "primary_source") and not can(c, "measurable_here")],
        "measurable": [c["id"] for c in claims if can(c, "measurable_here")],
    }
""",
        "defaultdict of tuples": """
from collections import defaultdict
def sort_claims(claims):
    groups = defaultdict(tuple)
    for key in ("measurable", "sourced", "opinion"):
        groups[key]
    for claim in claims:
        sourced = claim.get("primary_source") not in (None, "")
        key = "measurable" if claim.get("measurable_here") is True else ("opinion", "sourced")[sourced]
        groups[key] += (claim["id"],)
    return groups
""",
        "pandas": """
import pandas as pd
def sort_claims(claims):
    table = pd.DataFrame(claims, columns=["id", "measurable_here", "primary_source"])
    measurable = table.measurable_here.apply(lambda value: value is True)
    sourced = ~measurable & table.primary_source.apply(lambda value: isinstance(value, str) and value != "")
    picks = {"measurable": measurable, "sourced": sourced, "opinion": ~measurable & ~sourced}
    return {key: [id for id, wanted in zip(table.id, pick) if wanted] for key, pick in picks.items()}
""",
        "try and except": """
def sort_claims(claims):
    groups = dict(measurable=[], sourced=[], opinion=[])
    for claim in claims:
        try:
            yes = claim["measurable_here"]
        except KeyError:
            yes = None
        if yes:
            groups["measurable"] += [claim["id"]]
            continue
        try:
            groups["sourced" if len(claim["primary_source"]) > 0 else "opinion"] += [claim["id"]]
        except (KeyError, TypeError):
            groups["opinion"] += [claim["id"]]
    return groups
""",
    },
    "partial": {
        "source goes first": """
def sort_claims(claims):
    groups = {"measurable": [], "sourced": [], "opinion": []}
    for claim in claims:
        kind = "measurable" if claim.get("measurable_here") else "opinion"
        kind = "sourced" if claim.get("primary_source") else kind
        groups[kind].append(claim["id"])
    return groups
""",
        "keys taken for granted": """
def sort_claims(claims):
    groups = {"measurable": [], "sourced": [], "opinion": []}
    for claim in claims:
        kind = "sourced" if claim["primary_source"] else "opinion"
        kind = "measurable" if claim["measurable_here"] else kind
        groups[kind].append(claim["id"])
    return groups
""",
        "an empty source counts": """
def sort_claims(claims):
    groups = {"measurable": [], "sourced": [], "opinion": []}
    for claim in claims:
        sourced = claim.get("primary_source") is not None
        kind = "measurable" if claim.get("measurable_here") else "sourced" if sourced else "opinion"
        groups[kind].append(claim["id"])
    return groups
""",
        "only the keys in use": """
def sort_claims(claims):
    groups = {}
    for claim in claims:
        kind = "sourced" if claim.get("primary_source") else "opinion"
        kind = "measurable" if claim.get("measurable_here") else kind
        groups.setdefault(kind, []).append(claim["id"])
    return groups
""",
        "input changed": """
def sort_claims(claims):
    groups = {"measurable": [], "sourced": [], "opinion": []}
    for claim in claims:
        claim.setdefault("measurable_here", False)
        claim.setdefault("primary_source", None)
        kind = "sourced" if claim["primary_source"] else "opinion"
        kind = "measurable" if claim["measurable_here"] else kind
        groups[kind].append(claim["id"])
    return groups
""",
        "in both groups": """
def sort_claims(claims):
    measurable = [c["id"] for c in claims if c.get("measurable_here")]
    sourced = [c["id"] for c in claims if c.get("primary_source")]
    rest = [c["id"] for c in claims if c["id"] not in measurable + sourced]
    return {"measurable": measurable, "sourced": sourced, "opinion": rest}
""",
    },
    "worthless": {
        "a press report as a source": """
def sort_claims(claims):
    groups = {"measurable": [], "sourced": [], "opinion": []}
    for claim in claims:
        sourced = claim.get("primary_source") or claim.get("press_source")
        kind = "measurable" if claim.get("measurable_here") else "sourced" if sourced else "opinion"
        groups[kind].append(claim["id"])
    return groups
""",
        "texts": """
def sort_claims(claims):
    groups = {"measurable": [], "sourced": [], "opinion": []}
    for claim in claims:
        kind = "sourced" if claim.get("primary_source") else "opinion"
        kind = "measurable" if claim.get("measurable_here") else kind
        groups[kind].append(claim["text"])
    return groups
""",
        "reversed": """
def sort_claims(claims):
    groups = {"measurable": [], "sourced": [], "opinion": []}
    for claim in claims:
        kind = "sourced" if claim.get("primary_source") else "opinion"
        kind = "measurable" if claim.get("measurable_here") else kind
        groups[kind].insert(0, claim["id"])
    return groups
""",
        "sets": """
def sort_claims(claims):
    groups = {"measurable": set(), "sourced": set(), "opinion": set()}
    for claim in claims:
        kind = "sourced" if claim.get("primary_source") else "opinion"
        kind = "measurable" if claim.get("measurable_here") else kind
        groups[kind].add(claim["id"])
    return groups
""",
        "kind by id": """
def sort_claims(claims):
    def kind(claim):
        if claim.get("measurable_here"):
            return "measurable"
        return "sourced" if claim.get("primary_source") else "opinion"
    return {claim["id"]: kind(claim) for claim in claims}
""",
        "all of them opinions": """
def sort_claims(claims):
    return {"measurable": [], "sourced": [], "opinion": [claim["id"] for claim in claims]}
""",
        "nothing in any": """
def sort_claims(claims):
    return {"measurable": [], "sourced": [], "opinion": []}
""",
        "equal to everything": """
class Same(dict):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
def sort_claims(claims):
    return Same(measurable=[], sourced=[], opinion=[])
""",
    },
}

VARIANTS = {"Q0.1": COUNT, "Q0.2": GIB, "Q0.3": NEXT_TOKEN, "Q0.4": SORT}
