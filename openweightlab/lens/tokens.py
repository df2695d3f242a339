"""Tokens made visible: the pieces of a text, with the spaces and line ends that one does not see."""

from html import escape
from typing import Any

from openweightlab.lens import cards
from openweightlab.lens.frontend import show_html

FILL = ("#56B4E955", "#E69F0055")  # two colours in turn, so that borders between tokens show
SPECIAL = "#CC79A777"
BOX = "display:inline-block;text-align:center;margin:2px 1px;padding:1px 5px;border-radius:3px"


def piece(tokenizer: Any, token: int) -> str:
    """One token as text: a space as ␣, a line end as ↵; a part of a letter as its byte, in hexadecimal.

    A Chinese character is three bytes in UTF-8; a rare one may be spread over several tokens.
    """
    text = tokenizer.decode([token])
    if "�" not in text:
        return visible(text) or "(empty)"
    raw = tokenizer.convert_ids_to_tokens(token)
    codes = [_BYTES[c] for c in raw if c in _BYTES]
    return "byte " + " ".join(f"{code:02X}" for code in codes) if codes else visible(raw)


def visible(text: str) -> str:
    """Text with its spaces, tabs and line ends drawn.

    >>> visible("a b\\n")
    'a␣b↵'
    """
    return text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")


def show_tokens(tokenizer: Any, text: str, *, note: str = "") -> None:
    """Show how `text` is cut into tokens: each piece over its id, special tokens in a colour of their own."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    fills = [SPECIAL if i in special else FILL[n % 2] for n, i in enumerate(ids)]
    boxes = "".join(
        f'<span style="{BOX};background:{fill}">{escape(piece(tokenizer, i))}'
        f'<br><small style="opacity:.75">{i}</small></span>'
        for i, fill in zip(ids, fills, strict=True)
    )
    title = f"{len(ids)} tokens" + (f": {note}" if note else "")
    pieces = " | ".join(piece(tokenizer, i) for i in ids)
    show_html(cards.card("note", title, f"<div>{boxes}</div>"), f"{title}: {pieces}")


def _byte_alphabet() -> dict[str, int]:
    """The letters that byte-level BPE (GPT-2's, Qwen's) writes bytes with, back to the bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + n): b for n, b in enumerate(rest)}


_BYTES = _byte_alphabet()
