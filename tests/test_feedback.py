"""What a feedback page, and formgrader's, shows of a student's own text and outputs."""

import re

import pytest
from jinja2 import Environment
from nbformat import NotebookNode, v4
from traitlets.config import Config

from openweightlab.grading.feedback import SafeHTMLExporter, clean_html, clean_markdown, without_late_outputs

MARKS = {"schema_version": 3, "task": False, "locked": True, "cell_type": "code", "points": 1}
CHECK = {"nbgrader": {**MARKS, "grade_id": "Q9.1", "grade": True, "solution": False}}


def render(source: str, **cell: object) -> str:
    environment = Environment()
    environment.filters["markdown2html"] = clean_markdown
    return environment.from_string("{{ source | markdown2html }}").render(source=source, cell=cell)


def test_ordinary_text_looks_as_it_was_written():
    html = render("## Heading & *more*\n\n1. one\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n`x < y` and $a_b < c$")
    assert "<em>more</em>" in html and "<td>1</td>" in html and "<code>x &lt; y</code>" in html
    assert re.search(r'<h2 id="[^"]+">', html)  # links within the page find it
    assert "<li>one</li>" in html and html.count("<a ") == html.count("</a>") == 1


def test_folded_help_stays_folded():
    html = render("<details><summary>Hint</summary>\n\nLook **here**.\n\n</details>")
    assert "<details>" in html and "<summary>Hint</summary>" in html and "<strong>here</strong>" in html


@pytest.mark.parametrize(
    "source",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<svg onload=alert(1)><a xlink:href='javascript:alert(1)'>x</a></svg>",
        "[x](javascript:alert(1))",
        "[x](java\tscript:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "<a href=' javascript:alert(1)'>x</a>",
        "<iframe src='https://example.org'></iframe>",
        "<form action='https://example.org'><input name=a></form>",
        "<base href='https://example.org/'>",
        "<meta http-equiv=refresh content='0;url=https://example.org'>",
        "<link rel=stylesheet href='https://example.org/a.css'>",
        "<style>@import 'https://example.org/a.css'</style>",
        "<div style='position:fixed;background:url(https://example.org/a.png)'>x</div>",
        "![x](https://example.org/a.png)",
        "<math><mi//xlink:href='data:x,<script>alert(4)</script>'>",
        "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    ],
)
def test_nothing_runs_loads_or_covers_the_page(source):
    html = render(source)
    tags = re.findall(r"<(\w+)([^>]*)>", html)
    names = {name for name, _ in tags}
    assert not names & {
        "script",
        "svg",
        "iframe",
        "form",
        "input",
        "base",
        "meta",
        "link",
        "style",
        "math",
        "noscript",
    }
    for _, attributes in tags:
        assert not re.search(r"\bon\w+=|javascript:|data:text|position|url\(|example\.org", attributes), html


def test_pictures_pasted_into_a_text_cell_are_shown():
    html = render("![mine](attachment:a.png)", attachments={"a.png": {"image/png": "iVBORw0KGgo="}})
    assert '<img src="data:image/png;base64,iVBORw0KGgo=" alt="mine"' in html


def test_an_attachment_that_is_no_picture_is_not():
    html = render("![x](attachment:a.svg)", attachments={"a.svg": {"image/svg+xml": "<svg onload=alert(1)>"}})
    assert "svg" not in html.replace("a.svg", "")


def test_links_to_pages_stay():
    assert clean_html('<a href="https://example.org">x</a>') == '<a href="https://example.org">x</a>'


def notebook() -> NotebookNode:
    result = v4.new_output(
        "execute_result", data={"text/plain": "1.0", "text/html": "<strong>Q9.1: 1</strong>"}
    )
    told = [v4.new_output("stream", text="hidden input")]
    return v4.new_notebook(
        cells=[
            v4.new_code_cell("print('before')", outputs=[v4.new_output("stream", text="before")]),
            v4.new_code_cell("owl.check('Q9.1', f)", metadata=CHECK, outputs=[result, *told]),
            v4.new_code_cell("print(seen)", outputs=told),
            v4.new_markdown_cell("after <script>alert(1)</script>"),
        ]
    )


def test_outputs_after_the_first_check_are_left_out():
    """By then a student's code has seen hidden inputs."""
    cells = without_late_outputs(notebook()).cells
    assert [len(cell.get("outputs", [])) for cell in cells] == [1, 1, 0, 0]
    assert len(notebook().cells[2].outputs) == 1


def test_a_page_has_no_script_and_a_policy_against_any():
    config = Config()
    config.HTMLExporter.sanitize_html = True
    config.HTMLExporter.filters = {"markdown2html": clean_markdown}
    config.HTMLExporter.template_name = "classic"  # nbgrader's own derives from it
    page, _ = SafeHTMLExporter(config=config).from_notebook_node(notebook())
    assert "<script" not in page and "hidden input" not in page
    assert "&lt;script&gt;" in page and "before" in page and "<strong>Q9.1: 1</strong>" in page
    head = page[page.index("<head>") :][:200]
    assert "Content-Security-Policy" in head and "default-src 'none'" in head
