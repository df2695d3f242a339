"""Three doors, the same marks: owl grade, nbgrader's command line, formgrader's button in a real browser.

Each grades the class for itself, in its own course folder, with its own runs; only the seed is the same.
"""

import functools
import json
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from html import unescape

import pytest
from class_of_submissions import (
    MODULE,
    MOST_VARIANTS,
    POINTS,
    RELEASE,
    ROOT,
    SEED,
    Grading,
    environment,
    expected,
    make_course,
    program,
    started,
    through_every_door,
    variant,
    wait_for,
)
from test_honest_mistakes import graded as by_owl  # noqa: F401  (the fixture)

CLASS = through_every_door()
NAMES = [student.name for student in CLASS]
pytestmark = pytest.mark.timeout(3000)


@pytest.fixture(scope="module")
def by_nbgrader() -> Grading:
    """The class, and all variants of all answers, after `nbgrader autograde`."""
    door = started()["nbgrader"]
    assert door.finish() == 0, door.log.read_text()[-3000:]
    return door


@pytest.fixture(scope="module")
def feedback(by_nbgrader: Grading) -> Grading:
    """The same with feedback pages."""
    done = run(by_nbgrader, program("nbgrader"), "generate_feedback", MODULE)
    assert done.returncode == 0, done.stderr[-3000:]
    return by_nbgrader


def run(door: Grading, *command: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=door.root, env=environment(), capture_output=True, text=True)


# Every variant of every answer, through the real path


@pytest.mark.parametrize("number", range(MOST_VARIANTS))
def test_every_variant_through_nbgrader(by_nbgrader: Grading, number: int):
    student = variant(number)
    marks = by_nbgrader.gradebook()[student.name]
    right = {id: expected(student.marks[id], marks[id], most) for id, most in POINTS.items()}
    assert right == dict.fromkeys(POINTS, True), marks
    assert by_nbgrader.outcome(student.name) == ("graded", [])


# The doors agree


def test_owl_grade_and_nbgrader_autograde_agree(by_owl: Grading, by_nbgrader: Grading):  # noqa: F811
    assert [by_owl.gradebook()[name] for name in NAMES] == [by_nbgrader.gradebook()[name] for name in NAMES]
    assert [by_owl.outcome(name) for name in NAMES] == [by_nbgrader.outcome(name) for name in NAMES]


def test_both_ran_everything_themselves(by_owl: Grading, by_nbgrader: Grading):  # noqa: F811
    """The doors share no record: times differ, keys don't."""
    for name in ("v00", "h07 noisy"):
        mine, theirs = (
            next((d.root / ".owl/records" / MODULE / name).iterdir()) for d in (by_owl, by_nbgrader)
        )
        assert mine.name == theirs.name and mine.read_bytes() != theirs.read_bytes()


def test_nobody_is_skipped_and_reasons_are_logged(by_nbgrader: Grading):
    log = by_nbgrader.log.read_text()
    assert re.search(r"WARNING\] h04 cut off: unreadable, 0 points, flags: none\. .*damaged or cut off", log)
    assert re.search(r"WARNING\] h02 kernel killed: crashed, 8 points", log)
    assert "Traceback" not in log


def test_nbgrader_again_without_force_grades_only_a_resubmission(by_nbgrader: Grading):
    """nbgrader alone says "skipping existing assignment" and keeps the old mark."""
    student = next(student for student in CLASS if student.name == "h04 cut off")
    folder = by_nbgrader.submissions / student.name / MODULE
    before = (folder / f"{MODULE}.ipynb").read_bytes()
    (folder / f"{MODULE}.ipynb").write_text(json.dumps(RELEASE))
    try:
        done = run(by_nbgrader, *by_nbgrader.command)
        assert done.returncode == 0
        assert done.stderr.count("Autograding ") == 1 and "v00 is graded already" in done.stderr
        assert by_nbgrader.outcome(student.name) == ("graded", [])
    finally:
        (folder / f"{MODULE}.ipynb").write_bytes(before)
        assert run(by_nbgrader, *by_nbgrader.command).returncode == 0
    assert by_nbgrader.outcome(student.name)[0] == "unreadable"


# Killed on the way


def test_a_killed_call_s_file_is_as_if_it_had_not_been_killed(by_owl: Grading):  # noqa: F811
    """The same records through an undisturbed call, into a new gradebook and file: the same bytes."""
    assert by_owl.was_killed
    other = make_course("undisturbed", [])
    shutil.copytree(by_owl.submissions, other.submissions, symlinks=True)
    shutil.copytree(by_owl.root / ".owl" / "records", other.root / ".owl" / "records")
    order = ["grade", MODULE, "--submissions", str(other.submissions), "--json", str(other.file)]
    assert run(other, program("owl"), *order).returncode == 0
    assert other.file.read_bytes() == by_owl.file.read_bytes()
    assert other.gradebook() == by_owl.gradebook()


# Feedback


def pages(door: Grading) -> dict[str, str]:
    return {path.parts[-3]: path.read_text() for path in (door.root / "feedback").rglob(f"{MODULE}.html")}


def test_feedback_says_what_was_asked_and_what_came(feedback: Grading):
    found = pages(feedback)
    assert set(found) == {student.name for student in feedback.students}
    for name, page in found.items():
        for question, most in POINTS.items():
            mark = feedback.gradebook()[name][question]
            assert f"{question}: {mark:g} of {most:g} points" in page
    part = found["v07"]
    assert part.count("✓") > 4 and part.count("✗") > 1
    assert "damaged or cut off" in found["h04 cut off"]


@functools.cache
def hidden_values() -> frozenset[str]:
    """Numbers and texts of this class's hidden cases that nothing else would contain."""
    code = (
        "import json, sys; from pathlib import Path; from openweightlab.grading.judge import load_judge; "
        f"cases = load_judge(Path('judges'), '{MODULE}').cases({SEED}); "
        "print(json.dumps([[repr(c.inputs), repr(c.expected)] for q in cases.values() for c in q]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    texts = " ".join(text for pair in json.loads(done.stdout) for text in pair)
    numbers = set(re.findall(r"\d+\.\d{3,}|\d{5,}", texts))
    words = {word for word in re.findall(r"'([\w.-]{4,})'", texts) if re.search(r"\d", word)}
    public = json.dumps(RELEASE) + "".join(p.read_text() for p in (ROOT / "openweightlab").rglob("m00*.py"))
    return frozenset(value for value in numbers | words if value not in public)


def test_no_hidden_case_is_in_a_feedback_page(feedback: Grading):
    """Not even where a submission prints every input that it is given."""
    secrets = hidden_values()
    assert len(secrets) > 50
    for name, page in pages(feedback).items():
        text = unescape(re.sub(r"<style.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL))
        shown = set(re.findall(r"[\w.-]+", text))
        code = {
            word for cell in feedback.autograded(name).cells for word in re.findall(r"[\w.-]+", cell.source)
        }
        assert not (shown - code) & secrets, name
    autograded = json.dumps(feedback.autograded("h07 noisy"))
    assert "inputs:" in autograded or "seen:" in autograded  # it did print them


def test_feedback_has_no_scripts(feedback: Grading):
    for name, page in pages(feedback).items():
        html = re.sub(r"<style.*?</style>", "", page, flags=re.DOTALL)
        assert not re.search(r"<(script|iframe|object|embed|form|base)\b", html), name
        assert not re.search(r"<[^>]+\s(on\w+\s*=|(href|src)\s*=\s*.?javascript:)", html), name
        assert "Content-Security-Policy" in html and "default-src 'none'" in html
    assert "&lt;script&gt;window.pwned" in pages(feedback)["h05 own cells"]


# Formgrader


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def formgrader(by_owl: Grading, by_nbgrader: Grading):  # noqa: F811  (it waits until the machine is free)
    """A Jupyter server with formgrader, on a course whose class nobody has graded yet."""
    door, port = make_course("formgrader", CLASS), free_port()
    command = [sys.executable, "-m", "jupyter", "server", "--no-browser", "--allow-root", f"--port={port}"]
    options = {
        "ServerApp.root_dir": str(door.root),
        "IdentityProvider.token": "key",
        "ServerApp.jpserver_extensions": "{'nbgrader.server_extensions.formgrader': True}",
    }
    with open(door.log, "wb") as log:
        arguments = [f"--{key}={value}" for key, value in options.items()]
        server = subprocess.Popen(
            [*command, *arguments], cwd=door.root, env=environment(), stdout=log, stderr=log
        )
    try:
        wait_for(lambda: answers(port), 120, "Jupyter server")
        yield door, f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token=key", timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


@pytest.mark.needs_browser
def test_formgrader_s_button_gives_the_same_marks(
    formgrader,
    browser,
    by_owl: Grading,  # noqa: F811
    by_nbgrader: Grading,
    record_property,
):
    door, url = formgrader
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(f"{url}/login?token=key")
    page.goto(f"{url}/formgrader/manage_submissions/{MODULE}")
    page.wait_for_selector("td.student-id")
    for name in NAMES:
        row = page.locator("tr", has=page.locator("td.student-id", has_text=re.compile(f"^{name}$")))
        row.locator("td.autograde a").click()
        modal = page.locator(".modal.in")
        modal.wait_for(timeout=300_000)
        assert "Success" in modal.locator(".modal-title").inner_text()
        modal.locator("[data-dismiss=modal]").first.click()
        page.locator(".modal").wait_for(state="detached")
        total = sum(by_nbgrader.gradebook()[name].values())
        assert row.locator("td.score").inner_text() == f"{total:g} / {sum(POINTS.values()):g}"
        assert row.locator("td.status").inner_text() == "graded"
    page.close()
    for student in CLASS:
        totals = [sum(one.gradebook()[student.name].values()) for one in (by_owl, by_nbgrader, door)]
        marks = ", ".join(f"{id} {mark}" for id, mark in student.marks.items())
        told = "".join(f"{total:>8g}" for total in totals)
        record_property("class", f"{student.name:<22}{marks:<48}{told}  {by_owl.outcome(student.name)[0]}")
    assert door.gradebook() == {name: by_nbgrader.gradebook()[name] for name in sorted(NAMES)}
    assert [door.outcome(name) for name in NAMES] == [by_nbgrader.outcome(name) for name in NAMES]


@pytest.mark.needs_browser
def test_formgrader_shows_a_submission_without_running_anything_of_it(formgrader, browser):
    """Looks at what the test before it has graded."""
    door, url = formgrader
    page = browser.new_page()
    page.goto(f"{url}/login?token=key")
    page.goto(f"{url}/formgrader/submissions/{submission_id(door, 'h05 own cells')}")
    page.get_by_text("My notes").wait_for()
    time.sleep(1)
    assert page.evaluate("window.pwned") is None
    assert "Q0.2: 2 of 2 points" in page.content()
    page.close()


@pytest.mark.needs_browser
def test_a_feedback_page_runs_nothing_in_a_browser(feedback: Grading, browser):
    page = browser.new_page()
    page.goto((feedback.root / "feedback" / "h05 own cells" / MODULE / f"{MODULE}.html").as_uri())
    page.get_by_text("My notes").wait_for()
    assert page.evaluate("window.pwned") is None
    page.close()


def submission_id(door: Grading, student: str) -> str:
    with sqlite3.connect(door.root / "gradebook.db") as database:
        query = (
            "select n.id from submitted_notebook n join submitted_assignment a on a.id = n.assignment_id "
            "where a.student_id = ?"
        )
        return str(next(database.execute(query, (student,)))[0])
