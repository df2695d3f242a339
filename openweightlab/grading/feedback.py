"""Feedback pages, and formgrader's, without anything that a submission could run in a reader's browser."""

import re
from copy import deepcopy
from typing import Any

import bleach
from bleach.css_sanitizer import CSSSanitizer
from bs4 import BeautifulSoup
from jinja2 import pass_context
from jinja2.runtime import Context
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

TAGS = {
    *bleach.ALLOWED_TAGS,
    *(
        "p",
        "br",
        "hr",
        "div",
        "span",
        "pre",
        "details",
        "summary",
        "del",
        "s",
        "sub",
        "sup",
        "u",
        "kbd",
        "img",
    ),
    *("h1", "h2", "h3", "h4", "h5", "h6", "dl", "dt", "dd", "figure", "figcaption"),
    *("table", "thead", "tbody", "tr", "th", "td", "caption"),
}
ANYWHERE = {"class", "id", "style", "title", "role", "colspan", "rowspan"}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:"


def _allowed(tag: str, name: str, value: str) -> bool:
    """Which attributes stay: no handlers; links to pages only; pictures only if they are inside the page."""
    if tag == "a" and name == "href":
        return re.match(r"https?:|mailto:|#", value) is not None
    if tag == "img" and name == "src":
        return re.match(r"data:image/(png|jpeg|gif);base64,", value) is not None
    return name in ANYWHERE or (tag == "img" and name in ("alt", "width", "height"))


def clean_html(source: str) -> str:
    """HTML reduced to harmless tags; anything else becomes visible text.

    >>> clean_html('<b onclick="f()">fine</b><script>alert(1)</script>')
    '<b>fine</b>&lt;script&gt;alert(1)&lt;/script&gt;'
    """
    protocols = ["http", "https", "mailto", "data"]
    return str(bleach.clean(source, TAGS, _allowed, protocols=protocols, css_sanitizer=CSSSanitizer()))


@pass_context
def clean_markdown(context: Context, source: str) -> str:
    """A text cell as harmless HTML, with the pictures pasted into it; replaces nbconvert's own filter."""
    pictures = context.get("cell", {}).get("attachments", {})
    renderer = IPythonRenderer(escape=False, attachments=pictures, anchor_link_text=" ")
    return clean_html(MarkdownWithMath(renderer=renderer).render(source))


def without_late_outputs(nb: NotebookNode) -> NotebookNode:
    """A copy in which, from the first check on, only checks have outputs.

    A student's code has seen hidden inputs by then and may print them; formgrader still shows its outputs.
    """
    copy, checked = deepcopy(nb), False
    for cell in copy.cells:
        marks = cell.metadata.get("nbgrader", {})
        check = bool(marks.get("grade")) and not marks.get("solution")
        checked = checked or check
        if checked and not check and cell.cell_type == "code":
            cell.outputs = []
        elif check:
            cell.outputs = cell.outputs[:1]
    return copy


class SafeHTMLExporter(HTMLExporter):
    """HTMLExporter for feedback: no script is in the page, and the browser is told to run and load none."""

    def from_notebook_node(  # type: ignore[override]
        self, nb: NotebookNode, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[str, dict[str, Any]]:
        """The notebook as HTML, its scripts taken out and a content security policy put in."""
        page, resources = super().from_notebook_node(without_late_outputs(nb), resources, **kw)
        soup = BeautifulSoup(page, features="html.parser")
        for script in soup.find_all(["script", "base"]):
            script.decompose()
        if soup.head:
            policy = {"http-equiv": "Content-Security-Policy", "content": POLICY}
            soup.head.insert(0, soup.new_tag("meta", attrs=policy))
        return str(soup), resources
