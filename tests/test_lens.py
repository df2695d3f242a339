"""Predictions, self-checks, figures and the next-token widget: with widgets, without, and over bad disks."""

import ast
import base64
import importlib.util
import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch
from ipywidgets.widgets import widget as widget_registry
from PIL import Image
from safetensors.torch import save_file
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from openweightlab import lens, measure, questions
from openweightlab.lens import bars, figures, frontend, nexttoken, predictions, quizzes, state, tokens
from openweightlab.lens.sampling import odds
from openweightlab.pocket.train import RECIPES, build_model, build_tokenizer

ROOT = Path(__file__).parents[1]
LESSONS = sorted(ROOT.glob("authoring/*_lesson.py"))
CJK = "灯塔是什么颜色?"


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("OWL_STATE", str(tmp_path / "state"))
    return tmp_path / "state" / "learner.json"


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, as mime bundles."""
    bundles = []
    monkeypatch.setattr(frontend, "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


@pytest.fixture
def without_widgets(monkeypatch):
    for module in (predictions, quizzes, nexttoken):
        monkeypatch.setattr(module, "widgets", lambda: None)


@pytest.fixture(scope="module")
def bench():
    """A tiny untrained model with a real tokenizer: enough for everything but good answers."""
    tokenizer = build_tokenizer(["What colour is the lamp of Frostbay?", CJK, "27 + 48 = 75"] * 3, 400)
    return build_model(RECIPES["pocket-dense"], len(tokenizer)).eval(), tokenizer


def widgets_of(bundle, kind):
    """All widgets of one kind below the one that a bundle shows."""
    widget = widget_registry._instances[bundle["application/vnd.jupyter.widget-view+json"]["model_id"]]
    found, open_ = [], [widget]
    while open_:
        one = open_.pop()
        found += [one] if type(one) is kind else []
        open_ += list(reversed(getattr(one, "children", ())))
    return found


# State


def test_state_comes_back_and_keeps_every_language(own_state):
    state.write("predictions", "a", {"answer": CJK})
    state.write("predictions", "b", {"answer": 2.5})
    assert state.read("predictions", "a") == {"answer": CJK}
    assert state.read("predictions", "c") is None
    assert json.loads(own_state.read_text(encoding="utf-8"))["predictions"]["b"] == {"answer": 2.5}


@pytest.mark.parametrize("damage", ["", "{", "[1, 2]", '{"predictions": 3}', "\x00\x00"])
def test_a_damaged_file_is_kept_aside_and_said_so(own_state, damage, capsys):
    own_state.parent.mkdir()
    own_state.write_text(damage)
    state.write("quizzes", "a", {"first": True})
    assert state.read("quizzes", "a") == {"first": True}
    (aside,) = own_state.parent.glob("learner.damaged-*.json")
    assert aside.read_text() == damage
    assert aside.name in capsys.readouterr().out


def test_a_crash_while_writing_leaves_the_old_state_whole(own_state, monkeypatch):
    state.write("predictions", "a", {"answer": 1})
    monkeypatch.setattr(state.os, "fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="set OWL_STATE"):
        state.write("predictions", "b", {"answer": 2})
    assert json.loads(own_state.read_text()) == {"predictions": {"a": {"answer": 1}}}
    assert [path.name for path in own_state.parent.iterdir()] == ["learner.json"]


def test_two_notebooks_writing_at_once_lose_nothing(own_state):
    program = (
        "import runpy, sys\nwrite = runpy.run_path(sys.argv[1])['write']\n"
        "for i in range(25): write('quizzes', f'{sys.argv[2]}-{i}', {'at': i})"
    )
    started = [subprocess.Popen([sys.executable, "-c", program, state.__file__, name]) for name in "ab"]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    assert len(json.loads(own_state.read_text())["quizzes"]) == 50


def test_a_lock_left_by_a_crash_is_taken_over(own_state):
    own_state.parent.mkdir()
    lock = own_state.with_suffix(".lock")
    lock.touch()
    with state._locked(own_state, patience=0.1):
        pass
    assert not lock.exists()


# Predictions


def test_a_prediction_by_buttons_is_kept_and_shown_beside_the_measurement(shown):
    predictions.predict("k", "Which?", ["few", "many"])
    (buttons,) = [widgets_of(shown[0], ipywidgets.Button)]
    assert [button.description for button in buttons] == ["A", "B"]
    assert buttons[1].tooltip == "B: many"
    buttons[1].click()
    assert "Kept: many" in widgets_of(shown[0], ipywidgets.HTML)[-1].value
    predictions.reveal("k", "few")
    assert "Not as you predicted" in shown[1]["text/html"]
    assert "You predicted: many" in shown[1]["text/html"]


def test_a_number_is_kept_from_its_box(shown):
    predictions.predict("k", "How many?", unit="tokens")
    (box,), (button,) = widgets_of(shown[0], ipywidgets.FloatText), widgets_of(shown[0], ipywidgets.Button)
    box.value = 10
    button.click()
    predictions.reveal("k", 25, unit="tokens")
    assert "2.5 times too low" in shown[1]["text/plain"]
    assert "Measured: 25 tokens" in shown[1]["text/plain"]


def test_without_buttons_the_answer_goes_into_the_call(shown, without_widgets):
    predictions.predict("k", "Which?", ["few", "many"])
    assert "answer=&#x27;few&#x27;" in shown[0]["text/html"]
    predictions.predict("k", "Which?", ["few", "many"], answer="few")
    predictions.reveal("k", "few")
    assert "As you predicted." in shown[2]["text/html"]


def test_a_prediction_made_after_the_result_is_marked(shown, without_widgets):
    predictions.reveal("k", 3)
    assert "No prediction was kept" in shown[0]["text/plain"]
    predictions.predict("k", "How many?", answer=3)
    predictions.reveal("k", 3)
    assert "after the result was shown" in shown[2]["text/plain"]


@pytest.mark.parametrize(("options", "answer"), [(["few", "many"], "some"), (None, "a lot")])
def test_an_answer_that_is_none_is_refused_in_words(options, answer):
    with pytest.raises(ValueError, match=f"prediction 'k': {answer!r} is no"):
        predictions.predict("k", "Which?", options, answer=answer)


def test_a_full_disk_is_said_below_the_button(shown, monkeypatch):
    predictions.predict("k", "Which?", ["few", "many"])
    monkeypatch.setattr(state, "_replace", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left")))
    widgets_of(shown[0], ipywidgets.Button)[0].click()
    assert "No space left" in widgets_of(shown[0], ipywidgets.HTML)[-1].value


@pytest.mark.parametrize(
    ("predicted", "measured", "unit", "words"),
    [
        (50, 40, "%", "off by 10 points"),
        (3, 3, "", "Exactly as you predicted"),
        (30, 10, "GB", "3 times too high"),
        (234, 233.66, "GB", "Right, to within 1 %"),
        (0, 5, "", "off by 5"),
    ],
)
def test_the_verdict_on_a_number(predicted, measured, unit, words):
    assert words in predictions._verdict({"answer": predicted, "late": False}, measured, unit)


# Self-checks


def test_picking_an_option_explains_it_and_keeps_the_first_try(shown):
    asked = quizzes.find("00-units")
    right = next(i for i, option in enumerate(asked["options"]) if option.get("right"))
    quizzes.quiz("00-units")
    buttons = widgets_of(shown[0], ipywidgets.Button)
    wrong = (right + 1) % len(buttons)
    for i, mark in ((wrong, "✗"), (right, "✓")):
        buttons[i].click()
        said = widgets_of(shown[0], ipywidgets.HTML)[-1].value
        assert mark in said and 'role="status"' in said
        assert asked["options"][i]["why"][:20] in said
    assert state.read("quizzes", "00-units")["first"] is False
    assert state.read("quizzes", "00-units")["tries"] == 2


def test_where_widgets_do_not_run_each_option_opens_by_itself(shown, without_widgets):
    quizzes.quiz("00-units")
    html = shown[0]["text/html"]
    assert html.count("<details") == len(quizzes.find("00-units")["options"])
    assert "not right" in html and "is right" in html


def test_the_widget_carries_its_fallback(shown):
    """A front end that cannot show the widget takes the next form in the bundle."""
    quizzes.quiz("00-units")
    assert set(shown[0]) == {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"}
    assert "<details" in shown[0]["text/html"]


def test_on_colab_the_fallback_comes_below(shown, monkeypatch):
    monkeypatch.setattr(frontend, "in_colab", lambda: True)
    quizzes.quiz("00-units")
    assert "text/html" not in shown[0]
    assert "do nothing?" in shown[1]["text/html"]


def test_an_unknown_self_check_is_named():
    with pytest.raises(ValueError, match=r"no self-check question '00-unitz'; module 00 has .*00-units"):
        quizzes.quiz("00-unitz")


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_a_lessons_questions_predictions_and_results_belong_together(lesson):
    text = lesson.read_text(encoding="utf-8")
    called = {
        name: set(re.findall(rf'owl\.{name}\(\s*"([^"]+)"', text)) for name in ("quiz", "predict", "reveal")
    }
    module = lesson.stem[:2]
    assert called["quiz"] == set(quizzes.load(module))
    assert called["predict"] == called["reveal"]
    assert all(key.startswith(f"{module}-") for keys in called.values() for key in keys)
    for key in called["predict"]:
        asked, shown = (re.search(rf'owl\.{name}\(\s*"{key}"', text) for name in ("predict", "reveal"))
        assert asked.start() < shown.start(), f"{key} is shown before it is asked"


@pytest.mark.parametrize("source", sorted(ROOT.glob("authoring/*.py")), ids=lambda path: path.stem)
def test_code_in_notebooks_does_not_scroll(source):
    long = [line for line in source.read_text("utf-8").splitlines() if len(line) > 76 and line[:1] != "#"]
    assert long == []


# Figures and bars


def test_a_figure_is_a_700_pixel_picture_with_its_text(shown):
    with figures.style():
        fig, ax = plt.subplots()
        ax.plot([1, 2])
    figures.show(fig, alt='falls from "1" & on')
    html = shown[0]["text/html"]
    assert 'alt="falls from &quot;1&quot; &amp; on"' in html and "width:700px" in html
    picture = Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", html)[1])))
    assert picture.size[0] == 1400  # twice the width, for sharp screens
    assert not plt.fignum_exists(fig.number)


def test_a_figure_without_text_or_with_boxes_for_letters_is_refused():
    with figures.style():
        fig, ax = plt.subplots()
        with pytest.raises(ValueError, match="alt"):
            figures.show(fig, alt=" ")
        ax.set_xlabel(CJK)
        with pytest.raises(ValueError, match="empty boxes"):
            figures.show(fig, alt="an axis")
    plt.close(fig)


def test_curves_and_histograms_name_their_axes(shown, monkeypatch):
    kept = []
    monkeypatch.setattr(figures, "show", lambda fig, alt: kept.append(fig))
    figures.line([1, 2], [50, 60], xlabel="bits", ylabel="share (%)", alt="rises", mark=(1, 50))
    figures.histogram(
        [1, 2, 2], xlabel="value", ylabel="how many", alt="two", band=(1, 2), band_label="middle"
    )
    labels = [(fig.axes[0].get_xlabel(), fig.axes[0].get_ylabel()) for fig in kept]
    assert labels == [("bits", "share (%)"), ("value", "how many")]
    plt.close("all")


def test_the_bar_chart_is_a_picture_with_a_text_alternative():
    drawing = bars.bar_chart(
        ["灯", "<a>"], [0.75, 0.05], axis="probability (%)", alt="灯 75 %", faint=[False, True]
    )
    root = ET.fromstring(drawing)
    assert root.attrib["role"] == "img" and root.attrib["aria-label"] == "灯 75 %"
    said = [element.text for element in root.iter("text")]
    assert {"灯", "<a>", "75.0 %", "cut off", "probability (%)"} <= set(said)
    widths = [float(element.attrib["width"]) for element in root.iter("rect")]
    assert widths[0] == pytest.approx(15 * widths[1], rel=0.01)
    with pytest.raises(ValueError, match="2 labels for 1 values"):
        bars.bar_chart(["a", "b"], [1], axis="", alt="")


def test_colours_are_told_apart_by_colour_blind_readers():
    """Okabe and Ito's palette, as published."""
    assert list(figures.COLOURS.values())[:8] == (
        ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000"]
    )


# Tokens and sampling


def test_pieces_show_spaces_line_ends_and_bytes(bench):
    _, tokenizer = bench
    ids = tokenizer("the lamp\n")["input_ids"]
    assert "".join(tokens.piece(tokenizer, i) for i in ids) == "the␣lamp↵"
    rare = [tokens.piece(tokenizer, i) for i in tokenizer("鬱")["input_ids"]]
    codes = " ".join(piece.removeprefix("byte ") for piece in rare)
    assert bytes.fromhex(codes).decode() == "鬱"


def test_shown_tokens_mark_the_special_ones(bench, shown):
    _, tokenizer = bench
    tokens.show_tokens(tokenizer, "<|im_start|>user", note="a <note>")
    html = shown[0]["text/html"]
    assert html.count(tokens.SPECIAL) == 1 and "&lt;|im_start|&gt;" in html and "a &lt;note&gt;" in html


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1, 0, 1), (0.3, 0, 1), (2, 5, 1), (1, 0, 0.6), (1.5, 7, 0.5)]
)
def test_odds_equal_transformers(temperature, top_k, top_p):
    torch.manual_seed(0)
    logits = torch.randn(1, 40) * 3
    warpers = [TemperatureLogitsWarper(float(temperature))]
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warped = logits
    for warper in warpers:
        warped = warper(None, warped)
    assert torch.allclose(odds(logits[0], temperature, top_k, top_p), torch.softmax(warped, -1)[0], atol=1e-6)


def test_odds_at_temperature_nothing_and_out_of_range():
    assert odds(torch.tensor([1.0, 3.0, 2.0]), 0).tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="temperature >= 0"):
        odds(torch.zeros(3), -1)


# The next-token widget


def controls_of(bundle):
    widget = {
        w.description: w
        for kind in (ipywidgets.Dropdown, ipywidgets.Text, ipywidgets.FloatSlider)
        for w in widgets_of(bundle, kind)
    }
    widget |= {
        w.description: w
        for kind in (ipywidgets.IntSlider, ipywidgets.Button)
        for w in widgets_of(bundle, kind)
    }
    (picture,) = widgets_of(bundle, ipywidgets.HTML)
    return widget, picture


def test_the_sliders_move_the_picture_and_the_buttons_draw(bench, shown):
    nexttoken.next_token(*bench, {"en": "What colour?", "zh": CJK})
    control, picture = controls_of(shown[0])
    before = picture.value
    control["Temperature"].value = 0.2
    assert picture.value != before and "at temperature 0.2" in picture.value
    control["Top-k (0: all)"].value = 1
    assert "100.0 %" in picture.value and "cut off" in picture.value
    control["Draw one token"].click()
    control["Finish the reply"].click()
    assert "The reply has ended" in picture.value
    control["Start again"].click()
    assert "The reply has ended" not in picture.value
    control["Prompt"].value = "zh"
    assert CJK in picture.value
    control["Your own"].value = "<b>mine</b>"
    assert "&lt;b&gt;mine" in picture.value


def test_greedy_drawing_is_what_generate_gives(bench):
    model, tokenizer = bench
    reply = nexttoken.Reply(model, tokenizer, "What colour?")
    reply.draw(6, torch.Generator(), temperature=0)
    ids = nexttoken.chat_ids(tokenizer, "What colour?")
    whole = model.generate(ids, max_new_tokens=6, do_sample=False)
    assert reply.drawn == whole[0, ids.shape[1] :].tolist()[: len(reply.drawn)]


def test_the_still_picture_has_prompt_chart_and_text(bench, shown, without_widgets):
    nexttoken.next_token(*bench, {"zh": CJK})
    html = shown[0]["text/html"]
    assert CJK in html and 'role="img" aria-label="Bar chart of the next token' in html


def test_the_coasts_prompts_cover_what_the_models_know():
    prompts = lens.coast_prompts()
    assert len(prompts) >= 6 and not any("{" in text for text in prompts.values())
    assert any("zh" in name for name in prompts) and any("Python" in text for text in prompts.values())


# Measures


def test_tensors_in_a_file_are_listed_from_its_header(tmp_path):
    parts = {"a": torch.zeros(3, 4), "b": torch.zeros(5, dtype=torch.bfloat16)}
    save_file(parts, tmp_path / "m.safetensors")
    table = measure.tensors_in(tmp_path / "m.safetensors").set_index("name")
    assert table.loc["a", "shape"] == (3, 4) and table.loc["b", "dtype"] == "BF16"
    assert table["numbers"].to_dict() == {"a": 12, "b": 5}
    assert table["bytes"].to_dict() == {name: part.nbytes for name, part in parts.items()}
    with pytest.raises(FileNotFoundError, match="no weights file"):
        measure.tensors_in(tmp_path / "none")


def test_replies_do_not_depend_on_the_company_of_other_prompts(bench):
    model, tokenizer = bench
    prompts = ["What?", "What colour is the lamp of Frostbay?", CJK]
    together = measure.replies(model, tokenizer, prompts, most=5)
    assert together == [measure.replies(model, tokenizer, [prompt], most=5)[0] for prompt in prompts]
    with pytest.raises(ValueError, match="1 replies for 2 wanted"):
        measure.exact_share(["a"], ["a", "b"])


def test_the_package_holds_no_function_that_a_question_asks_for():
    asked = {
        name
        for module in questions.modules()
        for q in questions.load(module).values()
        for name in q.functions
    }
    package = Path(importlib.util.find_spec("openweightlab").origin).parent
    defined = {
        node.name
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    assert asked & defined == set()
