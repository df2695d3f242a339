"""What a feedback page, and formgrader's, shows of a student's own text and outputs."""

import re
from itertools import pairwise

import pytest
from bs4 import BeautifulSoup, Tag
from jinja2 import Environment
from nbformat import NotebookNode, v4
from test_normalise import MODULE, worked
from test_records import lab  # noqa: F401  (the fixture)
from test_report import contrast

from openweightlab import questions
from openweightlab.grading.feedback import SafeHTMLExporter, clean_html, clean_markdown, without_late_outputs
from openweightlab.grading.preprocessor import _verdict

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
    page, _ = SafeHTMLExporter().from_notebook_node(notebook())
    assert "<script" not in page and "hidden input" not in page
    assert "&lt;script&gt;" in page and "before" in page and "<strong>Q9.1: 1</strong>" in page
    head = page[page.index("<head>") :][:200]
    assert "Content-Security-Policy" in head and "default-src 'none'" in head


# What a student reads

HOSTILE = "<img src=x onerror=alert(1)>"
FAILS = {"label": f"empty list {HOSTILE}", "ok": False, "message": "It raised IndexError in `x[0]`."}
TWICE = {"label": "one layer used twice", "ok": False, "message": "It raised IndexError in `x[0]`."}
PASSES = {"label": "two layers", "ok": True, "message": ""}


def answered(*cases: dict, points: float = 1.0, error: str = "", **metadata: object) -> NotebookNode:
    """Module 00's first question with the judge's verdict, and a written one."""
    result = {"points": points, "max_points": 3.0, "error": error, "cases": list(cases)}
    heading = (
        "### Q0.1 · Count the parameters · 3 points\n\n"
        "<details><summary>Hint 1</summary>\n\nLook at `nn.Module`.\n\n</details>\n\n## Below"
    )
    answer = {"grade_id": "Q0.1-answer", "grade": False, "solution": True}
    check = {"grade_id": "Q0.1", "grade": True, "solution": False, "points": 3, "score": points}
    text = {"grade_id": "Q0.9", "grade": True, "solution": True, "points": 4, "score": 0.0}
    cells = [
        v4.new_markdown_cell("# The bench"),
        v4.new_markdown_cell(heading),
        v4.new_code_cell("# Q0.1 answer\nx = '<b>'", metadata={"nbgrader": {**answer, "comment": HOSTILE}}),
        v4.new_code_cell(
            "owl.check('Q0.1', f)", metadata={"nbgrader": check}, outputs=[_verdict("Q0.1", result)]
        ),
        v4.new_markdown_cell("### Q0.9 · Say why · 4 points"),
        v4.new_markdown_cell("Because *so*.", metadata={"nbgrader": {**text, "comment": "**Well** put."}}),
    ]
    return v4.new_notebook(cells=cells, metadata={"owl_grading": metadata})


def soup(nb: NotebookNode, **about: object) -> BeautifulSoup:
    found, _ = SafeHTMLExporter().from_notebook_node(nb, {"nbgrader": about})
    return BeautifulSoup(found, "html.parser")


def text_of(tag: Tag) -> str:
    return " ".join(tag.get_text().split())


def test_a_question_says_what_was_asked_what_came_and_what_to_look_at():
    page = soup(answered(PASSES, FAILS, TWICE))
    about = page.find(id="about-Q0.1")
    told = text_of(about)
    assert told.startswith("Q0.1 · Count the parameters · 1 of 3 points What was asked. ")
    assert questions.find("Q0.1").docs.split("\n\n")[1].split()[0] in told
    assert "What came. 1 of 3 kinds of case pass." in told and "✓ passes: two layers" in told
    assert (
        f"What to look at. It raised IndexError in x[0]. (empty list {HOSTILE}; one layer used twice)" in told
    )
    assert "Hint: Look at nn.Module." in told and about.find("code", string="x[0]") is not None
    assert page.find(id="answer-Q0.1") and about.find("a", href="#answer-Q0.1")


def test_a_right_answer_gets_no_hint():
    told = text_of(soup(answered(PASSES, points=3.0)).find(id="about-Q0.1"))
    assert "3 of 3 points" in told and "What to look at" not in told and "Hint" not in told


def test_an_answer_that_is_not_there_is_told_once():
    cases = [{"label": "two layers", "ok": False, "message": "Not answered yet."}] * 2
    told = text_of(soup(answered(*cases, points=0.0, error="Not answered yet.")).find(id="about-Q0.1"))
    assert told.count("Not answered yet.") == 1 and "What came. Not answered yet." in told and "Hint:" in told


def test_comments_and_points_by_hand_are_told():
    nb = answered(PASSES, FAILS)
    nb.cells[3].metadata.nbgrader["score"] = 2.5
    page = soup(nb, score=2.0, max_score=7.0, late_penalty=0.5)
    first, written = text_of(page.find(id="about-Q0.1")), page.find(id="about-Q0.9")
    assert "2.5 of 3 points" in first and "A person changed the points; the judge had given 1." in first
    assert "Q0.9 · Say why · 0 of 4 points" in text_of(written) and written.find("strong", string="Well")
    assert "2 of 7 points, after 0.5 points off for handing in late." in text_of(page.main)


def test_a_reason_is_told_once_and_what_was_put_right_too():
    why = "Cell 4 ended the kernel."
    nb = answered(points=0.0, error=why, reason=why, flags=["tampered", "renamed-file"])
    nb.cells[2].metadata.nbgrader["comment"] = "Cell 4 ended the kernel."
    page = soup(nb)
    told = text_of(page.main)
    assert "Not everything could be graded: Cell 4" in told and "A check was changed" in told
    assert why not in text_of(page.find(id="about-Q0.1")) and "Hint" not in text_of(
        page.find(id="about-Q0.1")
    )


def test_a_submission_that_could_not_be_read_is_told_so():
    told = text_of(soup(answered(points=0.0, reason="It is empty.", status="unreadable")).main)
    assert "This could not be graded: It is empty." in told and "as it was handed out" in told


def test_what_waits_for_a_person_is_no_zero(lab):  # noqa: F811
    lab.submit("ada", worked())
    lab.grade()
    about = {"notebook": MODULE, "assignment": MODULE, "student": "ada"}
    where = f"sqlite:///{lab.root}/gradebook.db"
    page = soup(lab.autograded("ada"), db_url=where, **about)
    assert "Q9.3 · Say why · not marked yet" in text_of(page.find(id="about-Q9.3"))
    assert "4 points wait for a person" in text_of(page.main) and "not marked yet" in text_of(page.nav)
    lab.sql("update grade set manual_score = 3")
    assert "not marked yet" not in text_of(soup(lab.autograded("ada"), db_url=where, **about).main)


def test_nothing_of_a_student_or_a_case_is_markup():
    nb = answered(FAILS, reason=HOSTILE, flags=[HOSTILE])
    nb.cells[0].source = f"# {HOSTILE}"
    nb.cells.append(v4.new_code_cell(HOSTILE))
    nb.cells[2].outputs = [
        v4.new_output("stream", text=HOSTILE),
        v4.new_output("error", ename="E", evalue="x", traceback=[f"\x1b[31m{HOSTILE}\x1b[0m"]),
        v4.new_output("display_data", data={"image/png": '"><script>', "text/plain": '" onload="alert(1)'}),
        v4.new_output("display_data", data={"text/plain": HOSTILE}),
        v4.new_output("display_data", data={"text/html": f"{HOSTILE}<b>kept</b>"}),
    ]
    page = soup(nb)
    assert not page.find_all(["script", "iframe", "object", "embed", "form", "base", "link"])
    assert {image.get("src") for image in page.find_all("img")} <= {None}
    assert not [name for tag in page.find_all(True) for name in tag.attrs if name.startswith("on")]
    assert page.find("b", string="kept") and "\x1b" not in str(page)


def test_pictures_and_text_outputs_are_shown():
    nb = answered(PASSES)
    picture = {"image/png": "iVBORw0KGgo=\n", "text/plain": "<Figure size 640x480>"}
    nb.cells[2].outputs = [v4.new_output("display_data", data=picture)]
    (image,) = soup(nb).find_all("img", src=True)
    assert image["src"] == "data:image/png;base64,iVBORw0KGgo=" and image["alt"] == "<Figure size 640x480>"


def test_headings_go_down_one_at_a_time_and_ids_are_used_once():
    page = soup(answered(PASSES, FAILS))
    levels = [int(tag.name[1]) for tag in page.find_all(re.compile("^h[1-6]$"))]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [tag["id"] for tag in page.find_all(id=True)]
    assert len(ids) == len(set(ids))
    targets = {link["href"][1:] for link in page.find_all("a", href=re.compile("^#(about|answer)"))}
    assert targets and targets <= set(ids)


def test_a_notebook_without_questions_is_shown_as_it_is():
    page = soup(
        v4.new_notebook(cells=[v4.new_markdown_cell("hello"), v4.new_raw_cell("raw")]), notebook="mine"
    )
    assert "Feedback on mine" in text_of(page.main) and "hello" in text_of(page.main) and page.nav is None


@pytest.mark.needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_is_readable_at_700_pixels(browser, tmp_path, scheme):
    page, _ = SafeHTMLExporter().from_notebook_node(answered(PASSES, FAILS, TWICE))
    (tmp_path / "page.html").write_text(page)
    shown = browser.new_page(viewport={"width": 700, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    shown.on("console", lambda message: said.append(message.text))
    shown.goto((tmp_path / "page.html").as_uri())
    assert shown.evaluate("document.documentElement.scrollWidth") <= 700 and said == []
    for place in ("body", ".ok", ".no", ".aside", "a", ".source .c1", ".source .s1", ".comment"):
        assert contrast(*shown.evaluate(COLOURS, place)) > 4.5, place
    shown.close()


COLOURS = """place => {
    let tag = document.querySelector(place), paper = tag;
    while (getComputedStyle(paper).backgroundColor == "rgba(0, 0, 0, 0)") paper = paper.parentElement;
    return [getComputedStyle(tag).color, getComputedStyle(paper).backgroundColor];
}"""
