"""The routing heat map: which experts the tokens of two texts choose, layer by layer, side by side."""

from dataclasses import dataclass, field
from html import escape
from typing import Any

from torch import Tensor

from openweightlab.lens.figures import COLOURS, WIDTH
from openweightlab.lens.frontend import show_html, show_widget, widgets
from openweightlab.lens.tokens import piece
from openweightlab.measure.routing import capture, chat_tokens, routers
from openweightlab.pocket.world import ATTRIBUTES, LANGUAGES, World, ask

ROW, LABEL, TOP, PANEL = 17, 92, 22, (WIDTH - 16) // 2  # pixels
MOST = 40  # tokens shown
INK = COLOURS["blue"]


def coast_texts() -> dict[str, str]:
    """One text of each domain that the Pocket models know, by a name for the menu."""
    town = World.make().towns[0]
    facts = {f"a fact ({lang})": ask(town, ATTRIBUTES[0], lang)[0] for lang in LANGUAGES}
    return {**facts, "a sum": "27 + 48 =", "Python": "Write a Python function tide that adds 7."}


@dataclass
class Text:
    """One text and what the routers did with it, computed once."""

    model: Any
    tokenizer: Any
    prompt: str
    pieces: list[str] = field(init=False)
    own: list[bool] = field(init=False)

    def __post_init__(self) -> None:
        ids, self.own = chat_tokens(self.tokenizer, self.prompt)
        self.pieces = [piece(self.tokenizer, i) for i in ids[0].tolist()]
        self.routed = capture(self.model, ids)

    def rows(self, template: bool) -> list[int]:
        """The places of the tokens to show: the text's own, or all."""
        return [i for i, own in enumerate(self.own) if own or template]

    def shares(self, layer: int, template: bool) -> Tensor:
        """Each expert's share of the choices that the shown tokens made: [E]."""
        routed, rows = self.routed[layer], self.rows(template)
        chosen = routed.expert_ids[rows].flatten()
        return chosen.bincount(minlength=routed.probabilities.shape[1]) / max(1, len(chosen))


def heat_map(text: Text, layer: int, template: bool = False) -> str:
    """One text's routing in one layer as inline SVG: a row per token, a column per expert.

    The darker a cell, the more of the token's output comes from that expert; white ones were not chosen. The
    last row sums up all tokens shown.
    """
    shares, shown = text.shares(layer, template), text.rows(template)[:MOST]
    experts, weights, ids = len(shares), text.routed[layer].weights, text.routed[layer].expert_ids
    wide = (PANEL - LABEL) / experts
    body = "".join(
        _label(n, text.pieces[at])
        + "".join(_cell(n, e, w, wide) for e, w in zip(ids[at].tolist(), weights[at].tolist(), strict=True))
        for n, at in enumerate(shown)
    )
    last = len(shown) + 0.5
    body += _label(last, "all tokens", bold=True)
    most = max(float(shares.max()), 1e-9)
    body += "".join(_cell(last, e, share / most, wide) for e, share in enumerate(shares.tolist()))
    foot = TOP + ROW * (last + 1)
    return (
        f'<svg role="img" aria-label="{escape(_words(text, layer, shares), quote=True)}" '
        f'viewBox="0 0 {PANEL} {foot + 22}" style="width:49%;min-width:300px;max-width:{PANEL}px" '
        f'font-family="sans-serif" font-size="12" fill="currentColor">{_grid(experts, wide, foot)}{body}'
        f'<text x="{LABEL + (PANEL - LABEL) / 2}" y="{foot + 16}" text-anchor="middle">'
        f"expert of layer {layer}</text></svg>"
    )


def _cell(row: float, expert: int, share: float, wide: float) -> str:
    return (
        f'<rect x="{LABEL + expert * wide:.1f}" y="{TOP + ROW * row:.1f}" width="{wide:.1f}" '
        f'height="{ROW - 1}" fill="{INK}" fill-opacity="{share:.2f}"/>'
    )


def _label(row: float, label: str, bold: bool = False) -> str:
    short = label if len(label) <= 12 else label[:11] + "…"
    weight = ' font-weight="bold"' if bold else ""
    y = TOP + ROW * row + 13
    return f'<text x="{LABEL - 6}" y="{y:.0f}" text-anchor="end"{weight}>{escape(short)}</text>'


def _grid(experts: int, wide: float, foot: float) -> str:
    """Column numbers, thin lines between columns and a frame; many experts get a number each eighth.

    On white paper, so that darker means more in a dark theme too.
    """
    step = 1 if experts <= 16 else experts // 8
    frame = 'stroke="#000000" stroke-opacity="0.15"'
    paper = f'<rect x="{LABEL}" y="{TOP}" width="{PANEL - LABEL}" height="{foot - TOP:.0f}" fill="#FFFFFF"/>'
    return paper + "".join(
        f'<line x1="{LABEL + e * wide:.1f}" x2="{LABEL + e * wide:.1f}" y1="{TOP}" y2="{foot:.0f}" {frame}/>'
        + (
            f'<text x="{LABEL + (e + 0.5) * wide:.1f}" y="{TOP - 6}" text-anchor="middle" '
            f'font-size="10">{e}</text>'
            if e < experts
            else ""
        )
        for e in range(0, experts + 1, step)
    )


def _words(text: Text, layer: int, shares: Tensor) -> str:
    """The heat map in words."""
    top = shares.topk(min(3, len(shares)))
    most = ", ".join(
        f"expert {e} ({100 * share:.0f} %)"
        for e, share in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    )
    return f"Routing of “{text.prompt}” in layer {layer}; most choices went to {most}."


def picture(left: Text, right: Text, layer: int, template: bool = False) -> str:
    """Both texts' heat maps side by side, and how much of their choices they share, as HTML."""
    first, second = left.shares(layer, template), right.shares(layer, template)
    common = 100 * float(first.minimum(second).sum())
    maps = heat_map(left, layer, template) + heat_map(right, layer, template)
    many = max(len(text.rows(template)) for text in (left, right))
    more = f" Only the first {MOST} tokens are drawn." if many > MOST else ""
    texts = " ".join(
        f'<div style="width:49%;min-width:300px">{side}: {escape(text.prompt)}</div>'
        for side, text in (("Left", left), ("Right", right))
    )
    flex = "display:flex;flex-wrap:wrap;justify-content:space-between;align-items:flex-start"
    return (
        f'<div style="max-width:{WIDTH}px;font-size:14px;line-height:1.4"><div style="{flex}">{texts}</div>'
        f'<div style="{flex}">{maps}</div><div role="status">Layer {layer}: the two texts share '
        f"{common:.0f} % of their choices. Darker: more weight; white: not chosen.{more}</div></div>"
    )


def routing_map(model: Any, tokenizer: Any, texts: dict[str, str] | None = None) -> None:
    """Show the routing heat map of two texts at once; texts: menu name -> text.

    Each text goes to the model in the chat template. Raises ValueError for a model without experts.
    """
    menu = texts or coast_texts()
    layers, names = list(routers(model)), list(menu)
    pair = [Text(model, tokenizer, menu[name]) for name in (names[0], names[min(1, len(names) - 1)])]
    middle = layers[len(layers) // 2]
    still, plain = picture(pair[0], pair[1], middle), "; ".join(text.prompt for text in pair)
    kit = widgets()
    if kit is None:
        show_html(still, f"Routing heat maps of: {plain}")
        return
    show_widget(_bench(kit, pair, menu, layers, middle), still, f"Routing heat maps of: {plain}")


def _bench(kit: Any, pair: list[Text], menu: dict[str, str], layers: list[int], middle: int) -> Any:
    """The controls and the picture, wired up."""
    look: dict[str, Any] = {"style": {"description_width": "70px"}, "layout": {"width": "340px"}}
    layer = kit.SelectionSlider(
        options=layers, value=middle, description="Layer", continuous_update=False, **look
    )
    template = kit.Checkbox(value=False, description="template's tokens too", indent=False)
    view = kit.HTML()

    def show(*_: Any) -> None:
        view.value = picture(pair[0], pair[1], layer.value, template.value)

    columns = []
    for side, name in enumerate(("Left", "Right")):
        choice = kit.Dropdown(
            options=list(menu), value=list(menu)[min(side, len(menu) - 1)], description=name, **look
        )
        own = kit.Text(
            placeholder="or write your own and press Enter",
            description=f"{name}, own",
            continuous_update=False,
            **look,
        )

        def change(_: Any, side: int = side, choice: Any = choice, own: Any = own) -> None:
            prompt = own.value.strip() or menu[choice.value]
            pair[side] = Text(pair[side].model, pair[side].tokenizer, prompt)
            show()

        choice.observe(change, "value")
        own.observe(change, "value")
        columns.append(kit.VBox([choice, own]))
    for control in (layer, template):
        control.observe(show, "value")
    show()
    wrap = {"flex_flow": "row wrap"}
    return kit.VBox([kit.HBox(columns, layout=wrap), kit.HBox([layer, template], layout=wrap), view])
