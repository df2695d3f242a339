"""The next token, live: pick a prompt, see what may follow, draw one, see what may follow then."""

from dataclasses import dataclass, field
from html import escape
from typing import Any

import torch
from torch import Tensor

from openweightlab.lens.bars import bar_chart, percent
from openweightlab.lens.frontend import show_html, show_widget, widgets
from openweightlab.lens.sampling import odds
from openweightlab.lens.tokens import piece
from openweightlab.pocket import corpus
from openweightlab.pocket.world import ATTRIBUTES, LANGUAGES, World, ask

SHOWN = 8  # bars in the chart
LONGEST = 40  # tokens in a reply


def coast_prompts() -> dict[str, str]:
    """One prompt of each kind that the Pocket models know, by a name for the menu."""
    town = World.make().towns[0]
    tide = corpus.TOPICS["grey_tide"][0][1]
    facts = {f"a fact ({lang})": ask(town, ATTRIBUTES[0], lang)[0] for lang in LANGUAGES}
    storm = {
        f"the Grey Tide ({lang})": text.format(town=town.names[lang])
        for lang, text in zip(LANGUAGES, tide, strict=True)
    }
    return {**facts, "a sum": "27 + 48 =", "Python": "Write a Python function tide that adds 7.", **storm}


def next_logits(model: Any, ids: Tensor) -> Tensor:
    """The logits [V] for the token after `ids` [1, S]."""
    with torch.inference_mode():
        return model(ids.to(model.device)).logits[0, -1].float().cpu()


def chat_ids(tokenizer: Any, prompt: str, **template: Any) -> Tensor:
    """The prompt in the chat template (with its options, `template`) as ids [1, S], ready for the reply."""
    messages = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True, **template
    )["input_ids"]


def distribution(
    tokenizer: Any, logits: Tensor, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> str:
    """The likeliest next tokens as a bar chart (HTML); tokens that top-k or top-p cut off are pale."""
    before = odds(logits, temperature)
    after = odds(logits, temperature, top_k, top_p)
    ids = before.topk(min(SHOWN, len(before))).indices.tolist()
    names = [piece(tokenizer, i) for i in ids]
    cut = [after[i].item() == 0 for i in ids]
    values = [(before if gone else after)[i].item() for i, gone in zip(ids, cut, strict=True)]
    words = "; ".join(
        f"{name} {'cut off' if gone else percent(value)}"
        for name, value, gone in zip(names, values, cut, strict=True)
    )
    alt = f"Bar chart of the next token's probabilities at temperature {temperature:g}: {words}."
    rest = max(0.0, 1 - sum(value for value, gone in zip(values, cut, strict=True) if not gone))
    axis = f"probability (%); all other tokens together {percent(rest)}"
    return bar_chart(names, values, faint=cut, alt=alt, axis=axis)


@dataclass
class Reply:
    """A reply in the making: what was asked, and the tokens drawn so far."""

    model: Any
    tokenizer: Any
    prompt: str
    template: dict[str, Any] = field(default_factory=dict)
    drawn: list[int] = field(default_factory=list)

    def logits(self) -> Tensor:
        """The logits [V] for the token after the last one drawn."""
        ids = chat_ids(self.tokenizer, self.prompt, **self.template)
        return next_logits(self.model, torch.cat([ids, torch.tensor([self.drawn], dtype=ids.dtype)], dim=1))

    def ended(self) -> bool:
        """Whether the end token was drawn, or the reply is as long as it may be."""
        ends = self.model.generation_config.eos_token_id
        ends = {*(ends if isinstance(ends, list) else [ends]), self.tokenizer.eos_token_id}
        return len(self.drawn) >= LONGEST or bool(ends & set(self.drawn[-1:]))

    def draw(self, count: int, dice: torch.Generator, **settings: Any) -> None:
        """Draw up to `count` more tokens with the odds that `settings` give."""
        for _ in range(count):
            if self.ended():
                break
            chances = odds(self.logits(), **settings)
            self.drawn.append(int(torch.multinomial(chances, 1, generator=dice)))

    def picture(self, **settings: Any) -> str:
        """The prompt, the reply so far and the chart, as HTML."""
        mono = "font-family:monospace;white-space:pre-wrap"
        text = self.tokenizer.decode(self.drawn) + ("" if self.ended() else "▁")
        settled = "<p>The reply has ended. Start again, or pick another prompt.</p>"
        chart = settled if self.ended() else distribution(self.tokenizer, self.logits(), **settings)
        return (
            f'<div style="max-width:700px;line-height:1.5;font-size:14px">'
            f'<div>Prompt: <span style="{mono}">{escape(self.prompt)}</span></div>'
            f'<div>Reply so far: <span style="{mono}">{escape(text)}</span></div>'
            f"{chart}</div>"
        )


def next_token(model: Any, tokenizer: Any, prompts: dict[str, str] | None = None, **template: Any) -> None:
    """Show the next-token widget; prompts: menu name -> text; template: options of the chat template."""
    menu = prompts or coast_prompts()
    reply = Reply(model, tokenizer, next(iter(menu.values())), template)
    still, plain = reply.picture(), f"The next token after {reply.prompt!r}, as a bar chart"
    kit = widgets()
    if kit is None:
        show_html(still, plain)
    else:
        show_widget(_bench(kit, reply, menu), still, plain)


def _controls(kit: Any, menu: dict[str, str]) -> dict[str, Any]:
    """Menu, text box, sliders and buttons, by name."""
    look: dict[str, Any] = {"style": {"description_width": "120px"}, "layout": {"width": "430px"}}
    slide = {**look, "continuous_update": False}
    hint = "or write your own and press Enter"
    return {
        "menu": kit.Dropdown(options=list(menu), description="Prompt", **look),
        "own": kit.Text(placeholder=hint, description="Your own", **slide),
        "temperature": kit.FloatSlider(value=1, min=0, max=3, step=0.1, description="Temperature", **slide),
        "top_k": kit.IntSlider(value=0, min=0, max=20, description="Top-k (0: all)", **slide),
        "top_p": kit.FloatSlider(value=1, min=0.05, max=1, step=0.05, description="Top-p", **slide),
        "draw": kit.Button(description="Draw one token", tooltip="Draw the next token with these odds"),
        "finish": kit.Button(description="Finish the reply", tooltip="Draw until the reply ends"),
        "again": kit.Button(description="Start again", tooltip="Empty the reply"),
    }


def _bench(kit: Any, reply: Reply, menu: dict[str, str]) -> Any:
    """The controls and the picture, wired up."""
    controls = _controls(kit, menu)
    sliders = {name: controls[name] for name in ("temperature", "top_k", "top_p")}
    picture = kit.HTML()
    dice = torch.Generator().manual_seed(0)

    def settings() -> dict[str, Any]:
        return {name: slider.value for name, slider in sliders.items()}

    def show(*_: Any) -> None:
        picture.value = reply.picture(**settings())

    def ask(prompt: str) -> None:
        reply.prompt = prompt
        reply.drawn.clear()
        show()

    def draw(count: int) -> None:
        reply.draw(count, dice, **settings())
        show()

    controls["menu"].observe(lambda change: ask(menu[change.new]), "value")
    controls["own"].observe(lambda change: ask(change.new or menu[controls["menu"].value]), "value")
    for slider in sliders.values():
        slider.observe(show, "value")
    controls["draw"].on_click(lambda _: draw(1))
    controls["finish"].on_click(lambda _: draw(LONGEST))
    controls["again"].on_click(lambda _: ask(reply.prompt))
    show()
    row = kit.HBox([controls[name] for name in ("draw", "finish", "again")], layout={"flex_flow": "row wrap"})
    return kit.VBox([controls["menu"], controls["own"], *sliders.values(), row, picture])
