"""Feedback pages, and formgrader's, without anything that a submission could run in a reader's browser.

A page says first, for each question, what was asked, what came and what to look at; then comes the notebook.
"""

import re
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import bleach
from bleach.css_sanitizer import CSSSanitizer
from bs4 import BeautifulSoup
from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape
from nbconvert.exporters import Exporter
from nbconvert.filters.ansi import strip_ansi
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from .. import questions
from .pages import templates
from .results import heading
from .selfcheck import first_hint

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
NOTICED = {
    "several-notebooks": "You handed in several notebooks; the one with the most answers counts.",
    "duplicate-answer": "There were several copies of an answer; the last one counts.",
    "tampered": "A check was changed; the one that was handed out was used in its place.",
    "oversized-output": "Your notebook printed more than is kept; that costs no points.",
}


def _allowed(tag: str, name: str, value: str) -> bool:
    """Which attributes stay: no handlers; links to pages only; pictures only if they are inside the page."""
    if tag == "a" and name == "href":
        return re.match(r"https?:|mailto:|#", value) is not None
    if tag == "img" and name == "src":
        return re.match(r"data:image/(png|jpeg|gif);base64,[A-Za-z0-9+/=\s]*$", value) is not None
    return name in ANYWHERE or (tag == "img" and name in ("alt", "width", "height"))


def clean_html(source: str) -> str:
    """HTML reduced to harmless tags; anything else becomes visible text.

    >>> clean_html('<b onclick="f()">fine</b><script>alert(1)</script>')
    '<b>fine</b>&lt;script&gt;alert(1)&lt;/script&gt;'
    """
    protocols = ["http", "https", "mailto", "data"]
    return str(bleach.clean(source, TAGS, _allowed, protocols=protocols, css_sanitizer=CSSSanitizer()))


def markdown(source: str, pictures: dict[str, Any] | None = None) -> str:
    """A text cell as harmless HTML, with the pictures pasted into it."""
    renderer = IPythonRenderer(escape=False, attachments=pictures or {}, anchor_link_text=" ")
    return clean_html(MarkdownWithMath(renderer=renderer).render(source))


@pass_context
def clean_markdown(context: Context, source: str) -> str:
    """`markdown` as a filter that replaces nbconvert's own."""
    return markdown(source, context.get("cell", {}).get("attachments", {}))


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


@dataclass
class Told:
    """What a page says about one question; `judged` are the judge's points, `points` the final ones."""

    id: str
    title: str
    most: float
    points: float = 0.0
    asked: str = ""
    judged: float | None = None
    pending: bool = False
    error: str = ""
    cases: list[dict[str, Any]] = field(default_factory=list)
    hint: str = ""
    comment: Markup | None = None

    @property
    def passed(self) -> int:
        return sum(case["ok"] for case in self.cases)

    @property
    def by_hand(self) -> bool:
        """Whether a person gave other points than the judge."""
        return self.judged is not None and self.judged != self.points

    @property
    def causes(self) -> dict[str, list[str]]:
        """What the judge says of failing cases, and of which."""
        found: dict[str, list[str]] = {}
        for case in self.cases:
            if not case["ok"] and case["message"]:
                found.setdefault(case["message"], []).append(case["label"])
        return {} if self.error else found


class SafeHTMLExporter(Exporter):
    """nbgrader's exporter for feedback: without any script, and with a word to browsers to run none."""

    file_extension = ".html"
    output_mimetype = "text/html"

    def from_notebook_node(  # type: ignore[override]
        self, nb: NotebookNode, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[str, dict[str, Any]]:
        """The notebook as a page, after preprocessors such as the one that fetches marks and comments."""
        done, resources = super().from_notebook_node(nb, resources, **kw)
        return page(without_late_outputs(done), resources), resources


def page(nb: NotebookNode, resources: dict[str, Any]) -> str:
    """The whole page; marks and comments are in the cells' metadata, where nbgrader's GetGrades puts them."""
    about, seen = resources.get("nbgrader", {}), nb.metadata.get("owl_grading", {})
    reason = seen.get("reason", "")
    found = _told(nb, _waiting(nb, about), reason)
    return (
        templates()
        .get_template("feedback.html.j2")
        .render(
            title=_title(nb) or about.get("notebook", ""),
            points=about.get("score", sum(one.points for one in found)),
            most=about.get("max_score", sum(one.most for one in found)),
            late=about.get("late_penalty", 0.0),
            pending=sum(one.most for one in found if one.pending),
            reason=reason,
            ran=seen.get("status") not in ("missing", "unreadable"),
            noticed=[NOTICED[flag] for flag in seen.get("flags", ()) if flag in NOTICED],
            questions=found,
            cells=[_cell(cell) for cell in nb.cells],
        )
    )


def _title(nb: NotebookNode) -> str:
    return next((cell.source[2:].split("\n")[0] for cell in nb.cells if cell.source.startswith("# ")), "")


def _waiting(nb: NotebookNode, about: dict[str, Any]) -> set[str]:
    """Answers that a person has yet to mark: nbgrader's preprocessor does not tell."""
    written = {mark["grade_id"] for mark in map(_marks, nb.cells) if _is_written(mark)}
    if not written or "db_url" not in about:
        return set()
    with Gradebook(about["db_url"]) as book:
        grades = book.find_submission_notebook(
            about["notebook"], about["assignment"], about["student"]
        ).grades
        waiting = {grade.name for grade in grades if grade.needs_manual_grade and grade.manual_score is None}
    return written & waiting


def _marks(cell: NotebookNode) -> dict[str, Any]:
    return dict(cell.metadata.get("nbgrader", {}))


def _is_written(mark: dict[str, Any]) -> bool:
    return bool((mark.get("grade") and mark.get("solution")) or mark.get("task"))


def _told(nb: NotebookNode, waiting: set[str], reason: str) -> list[Told]:
    """Everything that gives points, in the notebook's order."""
    comments = {mark["grade_id"]: mark.get("comment") for mark in map(_marks, nb.cells) if "comment" in mark}
    found = []
    for cell in nb.cells:
        mark = _marks(cell)
        if not (mark.get("grade") or mark.get("task")):
            continue
        id = mark["grade_id"]
        told = Told(id, heading(nb, id), float(mark.get("points") or 0.0), pending=id in waiting)
        if not _is_written(mark):
            _add_verdict(told, cell)
        told.points = float(mark.get("score", told.judged or 0.0))
        told.asked = _asked(id)
        told.error = "" if told.error == reason else told.error
        told.hint = first_hint(nb, id) if told.cases and told.points < told.most else ""
        comment = comments.get(id) or comments.get(f"{id}-answer")
        told.comment = Markup(markdown(comment)) if comment and comment != reason else None
        found.append(told)
    return found


def _asked(id: str) -> str:
    """A question in a sentence or two, its text's first paragraph; "" if it is not the kit's."""
    try:
        paragraphs = questions.find(id).docs.split("\n\n")
    except ValueError:
        return ""
    asked = " ".join(paragraphs[1].split()) if len(paragraphs) > 1 else ""
    return re.sub(r":$", ".", asked)


def _add_verdict(told: Told, cell: NotebookNode) -> None:
    """Read points and cases off a check's output, which is `preprocessor.explain`'s."""
    data = cell.outputs[0].get("data", {}) if cell.outputs else {}
    try:
        told.judged = float(data.get("text/plain", ""))
    except ValueError:
        return
    soup = BeautifulSoup(data.get("text/html", ""), "html.parser")
    told.error = " ".join(div.get_text() for div in soup.find_all("div", recursive=False) if not div.em)
    for entry in soup.find_all("li"):
        message = entry.div.extract().get_text() if entry.div else ""
        sign, _, label = entry.get_text().partition(" ")
        told.cases.append({"ok": sign == "✓", "label": label, "message": message})


def _cell(cell: NotebookNode) -> dict[str, Any]:
    """One cell of the notebook for the page."""
    mark = _marks(cell)
    answer = str(mark.get("grade_id", "")).removesuffix("-answer") if mark.get("solution") else ""
    if cell.cell_type != "code":
        text = markdown(cell.source, cell.get("attachments")) if cell.cell_type == "markdown" else ""
        return {"answer": answer, "source": "", "text": Markup(_lower(text)), "outputs": []}
    code = highlight(cell.source, PythonLexer(), HtmlFormatter(nowrap=True))
    outputs = [Markup(_output(output)) for output in cell.outputs]
    return {"answer": answer, "source": Markup(f"<pre>{code}</pre>"), "text": "", "outputs": outputs}


def _lower(text: str) -> str:
    """HTML with its headings under the page's own: h1 and h2 become h3, h3 becomes h4, and so on."""
    return re.sub(r"<(/?)h([1-6])\b", lambda found: f"<{found[1]}h{min(6, max(3, int(found[2]) + 1))}", text)


def _output(output: NotebookNode) -> str:
    """One output as harmless HTML: what is richest among HTML, a picture and text."""
    if output.output_type == "stream":
        return f"<pre>{escape(strip_ansi(output.text))}</pre>"
    if output.output_type == "error":
        lines = output.get("traceback") or [f"{output.ename}: {output.evalue}"]
        return f"<pre>{escape(strip_ansi(chr(10).join(lines)))}</pre>"
    data = output.get("data", {})
    if "text/html" in data:
        return clean_html(data["text/html"])
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            text = escape(data.get("text/plain", "a picture"))
            return clean_html(f'<img src="data:{kind};base64,{escape(data[kind].strip())}" alt="{text}">')
    return f"<pre>{escape(data.get('text/plain', ''))}</pre>"
