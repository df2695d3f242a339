"""Self-check questions: multiple choice, with a word on every wrong option."""

import random
from collections.abc import Sequence
from typing import Any

from openweightlab.lens import cards, state
from openweightlab.lens.frontend import show_html, show_widget, widgets

Option = tuple[str, str]  # its text, and why it is right or wrong


def quiz(key: str, question: str, *, right: Option, wrong: Sequence[Option]) -> None:
    """Ask a self-check question; picking an option says whether it is right, and why.

    Options come in an order that depends on `key` alone. Where widgets do not run, each option opens on a click.
    Raises ValueError where an option has no explanation or there are fewer than two.
    """
    options = [(text, why, True) for text, why in [right]] + [(text, why, False) for text, why in wrong]
    if len(options) < 2 or not all(text and why for text, why, _ in options):
        raise ValueError(f"quiz {key!r} needs at least two options, each with its explanation")
    random.Random(key).shuffle(options)
    texts = [text for text, _, _ in options]
    answers = [
        _answer(letter, why, ok) for letter, (_, why, ok) in zip(cards.letters(9), options, strict=False)
    ]
    title = "Check yourself"
    opened = "".join(
        cards.folded(f"{letter}  {text}", cards.paragraph(answer))
        for letter, text, answer in zip(cards.letters(9), texts, answers, strict=False)
    )
    fallback = cards.card("quiz", title, cards.paragraph(question), opened)
    plain = f"{title}: {question} " + " / ".join(texts)
    kit = widgets()
    if kit is None:
        show_html(fallback, plain)
        return
    header = kit.HTML(cards.card("quiz", title, cards.paragraph(question), cards.lettered(texts)))
    show_widget(_form(kit, key, texts, answers, [ok for _, _, ok in options], header), fallback, plain)


def _answer(letter: str, why: str, ok: bool) -> str:
    return f"{'✓' if ok else '✗'} {letter} is {'right' if ok else 'not right'}. {why}"


def _form(kit: Any, key: str, texts: list[str], answers: list[str], right: list[bool], header: Any) -> Any:
    """The question, one button per option, and the explanation of the option picked last."""
    status = kit.HTML("")

    def pick(i: int) -> None:
        status.value = f'<div role="status" style="max-width:700px">{cards.paragraph(answers[i])}</div>'
        kept = state.read("quizzes", key) or {"first": right[i], "tries": 0}
        state.write("quizzes", key, {**kept, "tries": kept["tries"] + 1, "at": state.now()})

    buttons = []
    for i, text in enumerate(texts):
        letter = cards.letters(9)[i]
        button = kit.Button(description=letter, tooltip=f"{letter}: {text}", layout={"width": "56px"})
        button.on_click(lambda _, i=i: pick(i))
        buttons.append(button)
    return kit.VBox([header, kit.HBox(buttons, layout={"flex_flow": "row wrap"}), status])
