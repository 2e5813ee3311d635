"""A JupyterLab server of our own, and short copies of notebooks for it to show."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

DONE = "ALL-CELLS-DONE"
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # else cells far off-screen are not in the page
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
}
FOLDERS = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "run",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    "IPYTHONDIR": "ipython",
}


class Lab:
    """JupyterLab on 127.0.0.1 that serves the folder `root` and keeps all its own files in `home`."""

    def __init__(self, root: Path, home: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.root, self.token, self.url = root, secrets.token_hex(16), f"http://127.0.0.1:{port}"
        for name, values in SETTINGS.items():
            path = home / "settings/@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values), "utf-8")
        env = os.environ | {name: str(home / folder) for name, folder in FOLDERS.items()}
        env.pop("MPLBACKEND", None)  # an inherited Agg would hide figures
        options = [
            "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
            f"--IdentityProvider.token={self.token}", f"--ServerApp.root_dir={root}",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=",
            "--LabApp.extension_manager=readonly", "--LabApp.expose_app_in_browser=True",
            # Should the tests be killed, the server ends by itself.
            "--MappingKernelManager.cull_idle_timeout=600", "--ServerApp.shutdown_no_activity_timeout=600",
        ]  # fmt: skip
        self.log = home / "lab.log"
        with open(self.log, "w", encoding="utf-8") as log:
            command = [sys.executable, "-m", "jupyterlab", *options]
            self.process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)

    def wait(self, seconds: float = 60) -> None:
        """Wait until the server answers; RuntimeError with its log where it does not."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                self.ask("api/status")
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"JupyterLab did not start:\n{self.log.read_text('utf-8')[-3000:]}")

    def ask(self, path: str, method: str = "GET") -> str:
        """Answer of the server's REST interface."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}/{path}", headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.read().decode()

    def end_kernels(self) -> None:
        """Shut down every notebook's kernel."""
        for session in json.loads(self.ask("api/sessions")):
            self.ask(f"api/sessions/{session['id']}", "DELETE")

    def stop(self) -> None:
        """End the server, which ends its kernels; no other process is touched."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                os.killpg(self.process.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(15)


def write_notebook(path: Path, sources: Iterable[str]) -> Path:
    """Write a notebook of code cells; a last one prints that all have run."""
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
        for i, source in enumerate([*sources, f"print('{DONE}')"])
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": kernel, "cells": cells}
    path.write_text(json.dumps(notebook), "utf-8")
    return path


def browser_copy(notebook: Path, folder: Path, extra_cells: Sequence[str] = ()) -> Path:
    """Copy of `notebook` in `folder` with only its code cells tagged "browser", then `extra_cells`."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    tagged = [c for c in cells if c["cell_type"] == "code" and "browser" in c["metadata"].get("tags", ())]
    if not tagged:
        raise ValueError(f"{notebook.name} has no code cell with the tag 'browser'")
    return write_notebook(folder / notebook.name, ["".join(c["source"]) for c in tagged] + list(extra_cells))
