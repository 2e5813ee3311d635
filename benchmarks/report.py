"""What a case measured, as a table to read and as a JSON file to keep.

The file is `results/bench/CASE.json`: a number in a lesson comes from a recorded run, lessons also run from a wheel,
and a wheel carries `results/`. `course_lib.experiments.load("bench/CASE")` reads it.
"""

import platform
from pathlib import Path
from typing import Any

import torch

from course_lib.experiments import record as records

HEADER = ("setting", "ours", "rival", "ours / rival", "95 % interval", "difference", "ours, ms", "rival, ms")
PEAK_HEADER = ("matmul peak, GFLOP/s", "share of it, ours", "share of it, rival")
ABOUT = (
    "ours / rival: below 1 ours is faster; median of {repeats} rounds and its 95 % interval. The first row is the "
    "control, a rival beside itself: a difference is called one where the interval excludes 1 and lies beyond that of "
    "the control, taken in both directions."
)
ABOUT_PEAK = (
    "Share of the matmul peak, both timed in the same rounds: model FLOPs utilisation (MFU) with this peak in place "
    "of the data sheet's."
)


def with_circumstances(measured: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """`measured` and where and when it was: hardware, versions, date; rows last."""
    circumstances = records.circumstances()
    hardware = {"name": _hardware_name(device), "threads": torch.get_num_threads()} | circumstances["hardware"]
    rows = measured["rows"]
    return {k: v for k, v in measured.items() if k != "rows"} | circumstances | {"hardware": hardware, "rows": rows}


def _hardware_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")  # Linux; platform.processor() is empty there
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.processor()])[0]} ({torch.backends.cpu.get_cpu_capability()})"


def hardware_line(record: dict[str, Any]) -> str:
    """Machine, threads and torch in one line."""
    hardware = record["hardware"]
    return f"{hardware['name']} · threads: {hardware['threads']} · torch {record['versions']['torch']}"


def table(record: dict[str, Any]) -> str:
    """The record as text: its question, the hardware line, and a Markdown table with one row for each pair."""
    with_peak = any(row["matmul_peak"] is not None for row in record["rows"])
    cells = [HEADER + PEAK_HEADER * with_peak]
    for row in record["rows"]:
        line = [_label(row["setting"]), row["name"], row["rival"], f"{row['ratio']:.3f}"]
        low, high = row["interval"]
        line += [f"{low:.3f}–{high:.3f}", row["difference"] or ""]
        line += [f"{1000 * row[name]:.3g}" for name in ("seconds", "rival_seconds")]
        if with_peak:
            line += ["" if row["matmul_peak"] is None else f"{row['matmul_peak']:,.0f}"]
            line += ["" if row[name] is None else f"{row[name]:.1%}" for name in ("peak_share", "rival_peak_share")]
        cells.append(tuple(line))
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(c, widths, strict=True)) + " |" for c in cells]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    about = [ABOUT.format(repeats=record["repeats"])] + [ABOUT_PEAK] * with_peak
    head = [f"{record['case']}: {record['question']}", hardware_line(record), *about, ""]
    return "\n".join([*head, lines[0], rule, *lines[1:]])


def _label(setting: dict[str, Any]) -> str:
    """The values that speak for themselves (words, shapes) as they are, numbers with their names."""
    named = (f"{name}={value}" if isinstance(value, int | float) else str(value) for name, value in setting.items())
    return " ".join(named)


def save(record: dict[str, Any]) -> Path:
    """Write the record whole or not at all, one row a line; returns where."""
    path = records.path_of(f"bench/{record['case']}")
    records.save(path, record, "rows")
    return path
