"""How time and memory of attention grow with the length of the text: `python -m benchmarks.scaling`.

Prints the fitted exponents and writes results/bench/scaling.json, which lesson 04 draws. Wants a quiet machine, and
memory that is kept from call to call: glibc gives blocks of 32 MB and more back to the system, and what is then timed
is pages being handed out again. So on Linux call it with

    MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=16000000000 python -m benchmarks.scaling
"""

from typing import Any

import torch

from benchmarks.report import hardware_line, save, with_circumstances
from course_lib.lessons.local_and_global_attention.complexity import NAMES, exponent, measure_complexity
from course_lib.runtime import processes

LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
QUESTION = "How do time and memory of one attention layer grow with the text (8 heads of 64, radius 64, float32)?"
# Longer texts would take minutes or more memory than a laptop has: unfolded, 32,768 tokens need 17 GB.
LONGEST = {"full, weights stored": 4096, "full, fused": 8192, "window, dense mask": 8192, "window, unfolded": 4096}
MEASURED = (*NAMES, "window + global, blocked")


def measure(device: torch.device, repeats: int = 5) -> dict[str, Any]:
    """The record: one row for each attention, length and direction; seconds are of the fastest of `repeats` calls."""
    rows = []
    for backward in (False, True):
        for row in measure_complexity(
            MEASURED, LENGTHS, backward=backward, device=device, repeats=repeats, longest=LONGEST
        ):
            rows.append(row._asdict() | {"backward": backward})
            print(rows[-1], flush=True)
    return {"case": "scaling", "question": QUESTION, "repeats": repeats, "rows": rows}


def main() -> None:
    """Measure, print the exponents over the longest three lengths of each, save."""
    device = processes().device
    record = with_circumstances(measure(device), device)
    print(hardware_line(record))
    for backward in (False, True):
        for name in MEASURED:
            rows = [r for r in record["rows"] if r["name"] == name and r["backward"] == backward]
            slopes = [exponent([r["length"] for r in rows], [r[what] for r in rows]) for what in ("seconds", "bytes")]
            print(f"{name}, backward={backward}: time T^{slopes[0]:.2f}, memory T^{slopes[1]:.2f}")
    print(f"written: results/bench/{save(record).name}")


if __name__ == "__main__":
    main()
