"""What a model replies, many prompts at a time."""

from collections.abc import Sequence
from typing import Any

import torch


def replies(
    model: Any, tokenizer: Any, prompts: Sequence[str], *, most: int = 40, batch: int = 64
) -> list[str]:
    """The likeliest reply to each prompt, put in the chat template, without special tokens.

    most: tokens per reply at most. The likeliest token is taken each time, so every run gives the same.
    """
    out: list[str] = []
    for start in range(0, len(prompts), batch):
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts[start : start + batch]]
        texts = [tokenizer.apply_chat_template(c, add_generation_prompt=True, tokenize=False) for c in chats]
        inputs = tokenizer(
            texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        ).to(model.device)
        with torch.inference_mode():
            ids = model.generate(**inputs, max_new_tokens=most, do_sample=False, pad_token_id=_pad(tokenizer))
        new = ids[:, inputs["input_ids"].shape[1] :]
        out += [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
    return out


def exact_share(got: Sequence[str], wanted: Sequence[str]) -> float:
    """The share of replies that are the wanted ones, letter by letter.

    >>> exact_share(["Amber.", "Red."], ["Amber.", "Blue."])
    0.5
    """
    if len(got) != len(wanted) or not got:
        raise ValueError(f"{len(got)} replies for {len(wanted)} wanted ones")
    return sum(a == b for a, b in zip(got, wanted, strict=True)) / len(got)


def _pad(tokenizer: Any) -> int:
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
