"""Showing things wherever the notebook is open: with widgets, without them, or with no screen at all."""

import sys
from typing import Any

from IPython.display import display


def show_html(html: str, plain: str) -> None:
    """Show HTML, with a plain text for terminals and for tools that read notebooks."""
    display({"text/html": html, "text/plain": plain}, raw=True)


def show_widget(widget: Any, fallback: str, plain: str) -> None:
    """Show a widget; where widgets do not run, the notebook shows `fallback` (HTML) in its place.

    Colab picks differently between the two, so there the fallback comes below the widget, folded away.
    """
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    bundle: dict[str, Any] = {"application/vnd.jupyter.widget-view+json": view, "text/plain": plain}
    if not in_colab():
        bundle["text/html"] = fallback
    display(bundle, raw=True)
    if in_colab():
        show_html(f"<details><summary>The buttons above do nothing?</summary>{fallback}</details>", plain)


def in_colab() -> bool:
    """Whether this kernel runs on Google Colab."""
    return "google.colab" in sys.modules


def widgets() -> Any | None:
    """The module ipywidgets (7.7 and 8 alike), or None where it is not installed."""
    try:
        import ipywidgets
    except ImportError:
        return None
    return ipywidgets
