"""Fixtures of the browser tests: a server, a Chromium, and a page that may not leave the machine."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright

from .lab import Lab

VIEWPORT = {"width": 1280, "height": 900}
ARGUMENTS = [
    "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--no-first-run",
    "--disable-features=Translate,OptimizationHints,MediaRouter",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # there is no other machine
]  # fmt: skip
HARMLESS: tuple[str, ...] = ()  # regular expressions of console errors that are not ours


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test in this folder is a browser test."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


# The scope is the package, not the session: while Playwright's loop runs, no later test could call asyncio.run().
@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab server over an empty folder; it may still be starting."""
    server = Lab(tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("home"))
    yield server
    server.stop()


@pytest.fixture(scope="package")
def chromium() -> Iterator[BrowserContext]:
    """Headless Chromium: COURSE_CHROMIUM, else the system's."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("COURSE_CHROMIUM") or next(filter(None, map(shutil.which, names)), "")
    if not os.access(path, os.X_OK):
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say(f"no browser at {path or names}: install Debian's chromium or set COURSE_CHROMIUM=/path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        # One context for all pages, so that JupyterLab's code is loaded and compiled once.
        yield browser.new_context(viewport=VIEWPORT, reduced_motion="reduce", service_workers="block")
        browser.close()


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Folder for screenshots: COURSE_SCREENSHOTS, else a temporary one."""
    folder = Path(os.environ.get("COURSE_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def complaints() -> list[str]:
    """What the page asked of other machines, and the errors that it printed."""
    return []


@pytest.fixture
def page(
    lab: Lab, chromium: BrowserContext, shots: Path, complaints: list[str], request: pytest.FixtureRequest
) -> Iterator[Page]:
    """A fresh page that reaches only the server; at the end there must be no complaints."""
    lab.wait()
    page = chromium.new_page()

    def reached(url: str) -> None:
        if not url.startswith((f"{lab.url}/", f"{lab.url}/".replace("http", "ws"), "data:", "blob:")):
            complaints.append(f"another machine: {url}")

    def note(text: str) -> None:
        if not any(re.search(pattern, text) for pattern in HARMLESS):
            complaints.append(f"console: {text}")

    page.on("request", lambda asked: reached(asked.url))
    page.on("websocket", lambda socket: reached(socket.url))
    page.on("console", lambda message: note(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: note(str(error)))
    yield page
    page.screenshot(path=shots / f"{request.node.originalname}.png")
    page.close()
    lab.end_kernels()
    assert not complaints, "\n".join(complaints)
