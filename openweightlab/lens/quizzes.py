"""Self-check questions: multiple choice, with a word on every wrong option.

The questions of module NN stand in data/quizzes_NN.yaml, so that a notebook does not show the answers.
"""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from openweightlab.lens import cards, state
from openweightlab.lens.frontend import show_html, show_widget, widgets

Quiz = dict[str, Any]  # question: str, options: list of {text, why, right}


def quiz(key: str) -> None:
    """Ask one self-check question, e.g. `owl.quiz("00-units")`; picking an option says whether it is right.

    Where widgets do not run, each option opens on a click. Raises ValueError where there is no such question.
    """
    asked = find(key)
    texts = [option["text"] for option in asked["options"]]
    answers = [
        _answer(letter, option) for letter, option in zip(cards.LETTERS, asked["options"], strict=False)
    ]
    folded = "".join(
        cards.folded(f"{letter}  {text}", cards.paragraph(answer))
        for letter, text, answer in zip(cards.LETTERS, texts, answers, strict=False)
    )
    title, question = "Check yourself", cards.paragraph(asked["question"])
    fallback = cards.card("quiz", title, question, folded)
    plain = f"{title}: {asked['question']} {' / '.join(texts)}"
    kit = widgets()
    if kit is None:
        show_html(fallback, plain)
        return
    header = kit.HTML(cards.card("quiz", title, question, cards.lettered(texts)))
    show_widget(_form(kit, key, asked, answers, header), fallback, plain)


def find(key: str) -> Quiz:
    """The question of this key; raises ValueError that names those there are."""
    known = load(key[:2])
    if key not in known:
        raise ValueError(f"no self-check question {key!r}; module {key[:2]} has {', '.join(known) or 'none'}")
    return known[key]


@cache
def load(module: str) -> dict[str, Quiz]:
    """All self-check questions of one module ("00") by key; raises ValueError where one is malformed."""
    path = files("openweightlab.data").joinpath(f"quizzes_{module}.yaml")
    found: dict[str, Quiz] = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for key, asked in found.items():
        options = asked["options"]
        if sum(bool(option.get("right")) for option in options) != 1 or len(options) < 3:
            raise ValueError(f"self-check {key}: want three options or more, exactly one of them right")
        if not all(option.get("text") and option.get("why") for option in options):
            raise ValueError(f"self-check {key}: every option needs a text and a why")
    return found


def _answer(letter: str, option: dict[str, Any]) -> str:
    mark, word = ("✓", "right") if option.get("right") else ("✗", "not right")
    return f"{mark} {letter} is {word}. {option['why']}"


def _form(kit: Any, key: str, asked: Quiz, answers: list[str], header: Any) -> Any:
    """The question, one button per option, and the explanation of the option picked last."""
    status = kit.HTML("")

    def pick(i: int) -> None:
        status.value = cards.status(answers[i])
        first = {"first": bool(asked["options"][i].get("right")), "tries": 0}
        kept = state.read("quizzes", key) or first
        with cards.said(status):
            state.write("quizzes", key, {**kept, "tries": kept["tries"] + 1, "at": state.now()})

    texts = [option["text"] for option in asked["options"]]
    return kit.VBox([header, cards.buttons(kit, texts, pick), status])
