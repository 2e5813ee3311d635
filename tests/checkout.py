"""A copy of the course, for tests that build or change it."""

import shutil
import subprocess
from pathlib import Path

from tests.conftest import ROOT


def copy_checkout(target: Path) -> Path:
    """Copy to `target` what git tracks or would track: what a learner clones, without leftovers of a build."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True).stdout
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file():  # else it is removed, not yet committed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target
