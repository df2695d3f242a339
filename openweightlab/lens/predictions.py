"""Predict first, then look: a prediction is kept on disk and shown again beside the measurement."""

from collections.abc import Sequence
from typing import Any

from openweightlab.lens import cards, state
from openweightlab.lens.frontend import show_html, show_widget, widgets

Answer = str | float


def predict(
    key: str,
    question: str,
    options: Sequence[str] | None = None,
    *,
    unit: str = "",
    answer: Answer | None = None,
) -> None:
    """Ask for a prediction, one of `options` or a number (in `unit`), and keep it under `key`.

    Buttons record it; where there are none, `answer=` does: predict("tokens", "How many?", answer=12).
    Raises ValueError where the answer is none of the options, or no number.
    """
    choices = list(options) if options is not None else None
    if answer is not None:
        _record(key, question, _checked(answer, choices, key))
    kept = state.read("predictions", key)
    ask = cards.paragraph(question) + (cards.lettered(choices) if choices else "")
    done = _kept_line(kept, unit) if kept else ""
    title = "Predict, then run the next cell"
    example = repr(choices[0]) if choices else "12"
    by_code = cards.paragraph(f"No buttons here? Add answer={example} to the call above and run it again.")
    fallback = cards.card("predict", title, ask, cards.paragraph(done) if done else by_code)
    plain = f"{title}: {question} {' / '.join(choices) if choices else ''} {done}".strip()
    kit = widgets()
    if kit is None or answer is not None:
        show_html(fallback, plain)
        return
    header = kit.HTML(cards.card("predict", title, ask))
    show_widget(_form(kit, key, question, choices, unit, header, done), fallback, plain)


def reveal(key: str, measured: Answer, *, unit: str = "", label: str = "Measured") -> None:
    """Show the prediction kept under `key` beside what was measured; predictions made later are marked so.

    measured: one of the options as text, or a number in `unit`. label: what to call it.
    """
    kept = state.read("predictions", key)
    verdict = _verdict(kept, measured, unit)
    lines = [f"You predicted: {_text(kept['answer'], unit)}"] if kept else []
    lines += [f"{label}: {_text(measured, unit)}"]
    html = cards.card("result", verdict, *(cards.paragraph(line) for line in lines))
    show_html(html, f"{verdict} {'. '.join(lines)}.")
    if state.read("revealed", key) is None:
        state.write("revealed", key, {"at": state.now(), "measured": measured})


def _checked(answer: Answer, choices: list[str] | None, key: str) -> Answer:
    """The answer as it is kept, or a ValueError that says what would do."""
    if choices is not None:
        if answer not in choices:
            raise ValueError(f"prediction {key!r}: {answer!r} is none of {', '.join(map(repr, choices))}")
        return answer
    try:
        return float(answer)
    except (TypeError, ValueError):
        raise ValueError(f"prediction {key!r}: {answer!r} is not a number") from None


def _record(key: str, question: str, answer: Answer) -> state.Record:
    """Keep a prediction, marked late where the result was shown before."""
    late = state.read("revealed", key) is not None
    record = {"answer": answer, "question": question, "at": state.now(), "late": late}
    state.write("predictions", key, record)
    return record


def _kept_line(kept: state.Record, unit: str) -> str:
    late = ", after the result was shown" if kept["late"] else ""
    return f"Kept: {_text(kept['answer'], unit)} ({kept['at']}{late}). You may change it."


def _text(value: Answer, unit: str) -> str:
    """A value with its unit; numbers to three digits that say something.

    >>> _text(0.123456, "s"), _text(1600.0, "tokens"), _text("all of them", "")
    ('0.123 s', '1,600 tokens', 'all of them')
    """
    if not isinstance(value, str):
        value = f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.3g}"
    return f"{value} {unit}".strip()


def _verdict(kept: state.Record | None, measured: Answer, unit: str) -> str:
    """One line on how the prediction did."""
    if kept is None:
        return "No prediction was kept; try one before the next result."
    late = " (you predicted after the result was shown)" if kept["late"] else ""
    predicted = kept["answer"]
    if isinstance(measured, str) or isinstance(predicted, str):
        return ("As you predicted." if predicted == measured else "Not as you predicted.") + late
    if predicted == measured:
        return "Exactly as you predicted." + late
    low, high = sorted((float(predicted), float(measured)))
    if high - low <= 0.01 * abs(measured):
        return "Right, to within 1 %." + late
    if low > 0 and high / low >= 1.5:
        word = "high" if predicted > measured else "low"
        return f"Your prediction was {high / low:.3g} times too {word}." + late
    return f"Your prediction was off by {_text(high - low, _points(unit))}." + late


def _points(unit: str) -> str:
    """The unit of a difference: between two shares it is percentage points."""
    return "points" if unit == "%" else unit


def _form(
    kit: Any, key: str, question: str, choices: list[str] | None, unit: str, header: Any, done: str
) -> Any:
    """The question, its buttons or its number box, and a line that says what was kept."""
    status = kit.HTML(cards.paragraph(done) if done else "")

    def keep(answer: Answer) -> None:
        status.value = ""
        with cards.said(status):
            status.value = cards.status(_kept_line(_record(key, question, answer), unit))

    if choices is None:
        box = kit.FloatText(
            description="Prediction:", style={"description_width": "initial"}, layout={"width": "220px"}
        )
        button = kit.Button(description="Keep it", tooltip=f"Keep this prediction: {question}")
        button.on_click(lambda _: keep(box.value))
        controls = kit.HBox([box, kit.HTML(unit), button], layout={"flex_flow": "row wrap"})
    else:
        controls = cards.buttons(kit, choices, lambda i: keep(choices[i]))
    return kit.VBox([header, controls, status])
