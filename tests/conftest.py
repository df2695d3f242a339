"""What every test gets: no network, one thread, private state; skips by name what a machine lacks."""

import os
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOWHERE = "http://127.0.0.1:9"  # a port that nothing listens on
BROWSER_OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]

# Set before any test imports torch or starts a program: both pass it on to kernels and servers.
os.environ |= {
    **{"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
    **{name: NOWHERE for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")},
    **{name: "127.0.0.1,localhost,::1" for name in ("no_proxy", "NO_PROXY")},
    "OWL_TIER": "pocket",
}


@dataclass(frozen=True)
class Course:
    """The folders of this checkout."""

    root: Path = ROOT
    authoring: Path = ROOT / "authoring"
    lessons: Path = ROOT / "lessons"
    solutions: Path = ROOT / "solutions"
    exercises: Path = ROOT / "exercises"
    judges: Path = ROOT / "judges"


@pytest.fixture(scope="session")
def course() -> Course:
    """Where the course's notebooks and judges lie."""
    return Course()


@pytest.fixture(scope="session", autouse=True)
def private_state():
    """Predictions and answers that tests record go to a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["OWL_STATE"] = folder
        yield


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """A test that asks anything beyond this machine fails."""
    connect = socket.socket.connect

    def only_here(self, address):
        outward = self.family in (socket.AF_INET, socket.AF_INET6)
        if outward and address[0] not in ("127.0.0.1", "localhost", "::1"):
            raise OSError(f"tests use no network, and this one asked for {address}")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", only_here)
        yield


def browser_program() -> str | None:
    """The path of a Chromium or Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="session")
def browser():
    """A headless browser (Playwright's), for tests marked needs_browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser_program(), args=BROWSER_OPTIONS)
        yield started
        started.close()


def why_no_browser() -> str | None:
    """Why browser tests can't run here; None where they can."""
    return None if browser_program() else "no chromium or google-chrome here"


def why_no_bwrap() -> str | None:
    """Why sandbox tests can't run here; None where they can."""
    from openweightlab.grading.sandbox import probe

    best = probe()
    return None if best.isolated else best.name


NEEDS = {"needs_browser": why_no_browser, "browser": why_no_browser, "needs_bwrap": why_no_bwrap}


def pytest_configure(config):
    """Register the markers for what a machine may lack."""
    config.addinivalue_line("markers", "needs_browser: uses a headless browser; skipped where there is none")
    config.addinivalue_line("markers", "needs_bwrap: uses the bubblewrap sandbox; skipped where it can't run")


def pytest_runtest_setup(item):
    """Skip, with the reason, a test whose need this machine can't meet."""
    for marker in item.iter_markers():
        reason = NEEDS.get(marker.name, lambda: None)()
        if reason:
            pytest.skip(f"{item.name}: {reason}")


SECTIONS = {"notebook": "notebooks, top to bottom", "class": "one class through three doors"}


def pytest_terminal_summary(terminalreporter):
    """Print what tests have to tell: record_property("notebook" or "class", a line)."""
    done = [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]
    for wanted, title in SECTIONS.items():
        lines = [text for report in done for name, text in report.user_properties if name == wanted]
        if lines:
            terminalreporter.section(title)
            terminalreporter.write_line("\n".join(lines))
