"""Drive a notebook in JupyterLab's page: open it, Run All, wait, look for errors, read what is displayed."""

import base64
import re
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from playwright.sync_api import Locator, Page, expect

from course_lib.viz.animate import png
from course_lib.viz.plots import use_house_style
from course_lib.viz.widgets import Described

from .lab import DONE, Lab

TRACEBACK = "Traceback (most recent call last)"
SESSION = "window.jupyterapp.shell.currentWidget.context.sessionContext"


def open_notebook(page: Page, lab: Lab, path: Path) -> Locator:
    """Open a notebook below the server's root; return its panel when the kernel is idle."""
    page.goto(f"{lab.url}/lab/tree/{path.relative_to(lab.root).as_posix()}?reset&token={lab.token}")
    page.locator("#jupyterlab-splash").wait_for(state="detached", timeout=60_000)
    notebook = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    notebook.locator(".jp-Cell").first.wait_for(timeout=60_000)
    # The toolbar's indicator says idle before there is a kernel, so ask the session.
    idle = f"""async () => {{
        if (!window.jupyterapp?.shell.currentWidget?.context) return false;
        await {SESSION}.ready;
        return {SESSION}.session?.kernel?.status === "idle";
    }}"""
    page.wait_for_function(idle, timeout=60_000)
    # An error in a widget's callback belongs to no cell and may be displayed nowhere: listen to the kernel itself.
    # A message was dealt with when the status idle that names it arrives; other replies may overtake it.
    page.evaluate(f"""() => {{
        window.kernelErrors = [];
        window.unanswered = new Set();
        {SESSION}.session.kernel.anyMessage.connect((_, {{ msg, direction }}) => {{
            if (direction === "send" && msg.channel === "shell") window.unanswered.add(msg.header.msg_id);
            if (msg.channel !== "iopub") return;
            if (msg.content.execution_state === "idle") window.unanswered.delete(msg.parent_header.msg_id);
            const text = msg.content.traceback?.join("\\n") ?? msg.content.text ?? "";
            if (msg.header.msg_type === "error" || text.includes("{TRACEBACK}")) window.kernelErrors.push(text);
        }});
    }}""")
    return notebook


def settle(place: Locator, seconds: float = 30) -> None:
    """Wait until the kernel of the notebook around `place` has answered everything and no output changes any more."""
    state = """place => {
        const outputs = place.closest(".jp-NotebookPanel").querySelectorAll(".jp-OutputArea");
        return window.unanswered.size ? null : [...outputs].map(output => output.innerHTML).join();
    }"""
    before, same, end = None, 0, time.monotonic() + seconds
    while same < 4:
        assert time.monotonic() < end, f"the kernel or the outputs are still busy after {seconds} s"
        now = place.evaluate(state)
        same = same + 1 if now is not None and now == before else 0
        before = now
        place.page.wait_for_timeout(50)


def errors(notebook: Locator) -> list[str]:
    """All that went wrong in the notebook so far: in cells, in callbacks of widgets, in displaying them."""
    outputs = notebook.locator(".jp-OutputArea-output")
    shown = outputs.filter(has_text=TRACEBACK).or_(outputs.filter(has_text="Error displaying widget"))
    heard = [re.sub("\x1b\\[[0-9;]*m", "", text) for text in notebook.page.evaluate("window.kernelErrors")]
    return heard or shown.all_inner_texts()


def run_all(notebook: Locator, seconds: float = 120) -> None:
    """Run every cell from the menu; fails on any error."""
    page = notebook.page
    page.get_by_role("menubar").get_by_text("Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    done = notebook.locator(".jp-OutputArea-output").get_by_text(DONE, exact=True)
    end = time.monotonic() + seconds
    while not done.count() and not errors(notebook) and time.monotonic() < end:
        page.wait_for_timeout(100)
    settle(notebook)
    assert not errors(notebook), "\n".join(errors(notebook))
    expect(done).to_be_visible()


def picture(image: Locator) -> bytes:
    """The bytes of a displayed image, whatever its address is."""
    encoded = image.evaluate("""async (image) => {
        await image.decode();
        const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
        return btoa(Array.from(bytes, byte => String.fromCharCode(byte)).join(""));
    }""")
    return base64.b64decode(encoded)


def shown(panel: Locator) -> tuple[str, str]:
    """Caption and SHA-256 of the picture of a `course_lib.viz.widgets.ControlPanel`, once it has come to rest."""
    settle(panel)
    digest = sha256(picture(panel.locator("img"))).hexdigest()
    return panel.locator(".course-caption").text_content() or "", digest


def to_be_shown(view: Described, plot: Callable[[Any], Figure]) -> tuple[str, str]:
    """What `shown` must read when a panel displays `view`: its caption, and the SHA-256 of its picture."""
    with mpl.rc_context():
        use_house_style()
        return view.text(), sha256(png(plot(view))).hexdigest()


def press(control: Locator, *keys: str) -> None:
    """Focus a control and press keys as fast as they go."""
    control.focus()
    for key in keys:
        control.page.keyboard.press(key)


def choose(menu: Locator, *keys: str) -> None:
    """Open a drop-down menu, press keys, take what they reached. While it is closed Lab moves to another cell."""
    press(menu, "Space", *keys, "Enter")
