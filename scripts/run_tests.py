"""Run every part of `make test`, whatever fails, and end with a table: part, result, seconds.

    python scripts/run_tests.py [--fast]        --fast is `make unit`

Tests and notebooks run in as many processes as the machine has cores, each on one thread: with a thread a core in each
they would wait for one another. A file stays in one process, since its tests share what they load.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
Command = tuple[str, ...]
PYTEST = ("-m", "pytest")
# Files go out in the order of tests/conftest.py. A process takes 1 GB of memory: no more of them than 8.
PARALLEL = ("-n", "auto", "--maxprocesses", "8", "--dist", "loadfile", "--no-loadscope-reorder")
NBVAL = ("--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=180", "-p", "no:cacheprovider")

STYLE: dict[str, Command] = {"ruff check": ("-m", "ruff", "check", "."), "mypy": ("-m", "mypy")}
UNIT = (*PYTEST, *PARALLEL, "tests", "--ignore=tests/browser")
FAST = STYLE | {"unit": (*UNIT, "-q", "-m", "not slow")}
ALL = STYLE | {
    "ruff format": ("-m", "ruff", "format", "--check", "."),
    "unit": UNIT,
    "notebooks": (*PYTEST, *NBVAL, *PARALLEL, "notebooks"),
    "browser": (*PYTEST, "-n", "auto", "--maxprocesses", "2", "--dist", "loadfile", "tests/browser"),
}


def environment(part: str) -> dict[str, str]:
    """One thread for what runs beside its like; notebooks are cut off from the network, in their kernels too."""
    variables = dict(os.environ)
    if part in ("unit", "notebooks", "browser"):
        variables["OMP_NUM_THREADS"] = "1"
    if part == "notebooks":
        # A full path: a kernel's working directory is that of its notebook.
        folders = (str(ROOT / "tests" / "offline"), os.environ.get("PYTHONPATH"))
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
    return variables


def run(parts: dict[str, Command]) -> dict[str, tuple[bool, float]]:
    """Run the parts one after the other, their output passed on: part -> whether it passed, seconds."""
    results = {}
    for part, command in parts.items():
        print(f"\n== {part}: python {' '.join(command)}", flush=True)
        start = time.perf_counter()
        # pytest ends with a status of its own, which is not 0, where it found no test at all.
        done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment(part))
        results[part] = done.returncode == 0, time.perf_counter() - start
    return results


def main(arguments: list[str]) -> int:
    """Exit status: 0 where all parts passed, 1 where one did not."""
    if arguments not in ([], ["--fast"]):
        raise SystemExit(f"arguments={arguments}; allowed is --fast, or nothing")
    results = run(FAST if arguments else ALL)
    print(f"\n{'part':<12} {'result':<7} seconds")
    for part, (passed, seconds) in results.items():
        print(f"{part:<12} {'passed' if passed else 'FAILED':<7} {seconds:7.0f}")
    return 0 if all(passed for passed, _ in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
