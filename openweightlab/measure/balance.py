"""A router trained in seconds, with or without something that keeps its experts busy alike."""

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE, TOPICS, TOKENS, EVERY = 16, 8, 256, 5


def train_router(balance: float, *, experts: int = 8, steps: int = 400, seed: int = 0) -> Tensor:
    """The share of tokens that each expert got, every fifth step of training: [steps // 5, experts].

    Tokens come from 8 topics, each with a task of its own (a matrix to imitate); each token goes to one
    expert, which is a matrix too. balance: coefficient of transformers' load-balancing loss, 0 for none.
    """
    from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

    torch.manual_seed(seed)
    centres, tasks = torch.randn(TOPICS, SIZE), torch.randn(TOPICS, SIZE, SIZE) / SIZE**0.5
    router = nn.Parameter(torch.randn(experts, SIZE) / SIZE**0.5)
    matrices = nn.Parameter(torch.randn(experts, SIZE, SIZE) / SIZE)
    optimizer = torch.optim.Adam([router, matrices], lr=0.01)
    shares = []
    for step in range(steps):
        topic = torch.randint(TOPICS, (TOKENS,))
        token = centres[topic] + 0.3 * torch.randn(TOKENS, SIZE) + 1.0  # what all tokens have in common
        logits = token @ router.T
        chance, chosen = logits.softmax(-1).max(-1)
        output = chance[:, None] * torch.einsum("toi,ti->to", matrices[chosen], token)
        target = torch.einsum("toi,ti->to", tasks[topic], token)
        spread = load_balancing_loss_func((logits,), experts, 1)
        loss = functional.mse_loss(output, target) + balance * spread
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % EVERY == 0:
            shares.append(torch.bincount(chosen, minlength=experts) / TOKENS)
    return torch.stack(shares)
