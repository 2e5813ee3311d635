"""What a case measured, as a table to read and as a JSON file to keep.

The file is `results/bench/CASE.json`: a number in a lesson comes from a recorded run, lessons also run from a wheel,
and a wheel carries `results/`. `course_lib.experiments.load("bench/CASE")` reads it.
"""

import platform
from pathlib import Path
from typing import Any

import torch

from course_lib.experiments import record as records

HEADER = ("setting", "ours", "rival", "ours / rival", "95 % interval", "ours, ms", "rival, ms")
MFU_HEADER = ("MFU ours", "MFU rival")


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
    """Machine, threads, torch and the measured matmul peaks in one line."""
    hardware = record["hardware"]
    peaks = ", ".join(f"{dtype} {peak:,.0f} GFLOP/s" for dtype, peak in record["matmul_peak"].items())
    torch_version = record["versions"]["torch"]
    return f"{hardware['name']} · threads: {hardware['threads']} · torch {torch_version} · matmul peak: {peaks}"


def table(record: dict[str, Any]) -> str:
    """The record as text: its question, the hardware line, and a Markdown table with one row for each pair."""
    with_mfu = any(row["mfu"] is not None for row in record["rows"])
    cells = [HEADER + MFU_HEADER * with_mfu]
    for row in record["rows"]:
        low, high = row["interval"]
        line = [_label(row["setting"]), row["name"], row["rival"], f"{row['ratio']:.2f}", f"{low:.2f}–{high:.2f}"]
        line += [f"{1000 * row[name]:.3g}" for name in ("seconds", "rival_seconds")]
        if with_mfu:
            line += ["" if row[name] is None else f"{row[name]:.1%}" for name in ("mfu", "rival_mfu")]
        cells.append(tuple(line))
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(c, widths, strict=True)) + " |" for c in cells]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    about = f"ours / rival: below 1 ours is faster; median of {record['repeats']} rounds and its 95 % interval."
    return "\n".join(
        [f"{record['case']}: {record['question']}", hardware_line(record), about, "", lines[0], rule, *lines[1:]]
    )


def _label(setting: dict[str, Any]) -> str:
    """The values that speak for themselves (words, shapes) as they are, numbers with their names."""
    named = (f"{name}={value}" if isinstance(value, int | float) else str(value) for name, value in setting.items())
    return " ".join(named)


def save(record: dict[str, Any]) -> Path:
    """Write the record whole or not at all, one row a line; returns where."""
    path = records.path_of(f"bench/{record['case']}")
    records.save(path, record, "rows")
    return path
