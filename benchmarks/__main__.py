"""Time the course's modules beside named rivals: `python -m benchmarks [CASE ...]`.

Prints a table of ratios and writes results/bench/CASE.json for each case. Ratios, and shares of the matmul peak (model
FLOPs utilisation, MFU), bear a busy machine; seconds want a quiet one. Threads are torch's choice: set OMP_NUM_THREADS
for another number.
"""

import argparse

from benchmarks.case import CASES, get_case
from benchmarks.measure import measure
from benchmarks.report import save, table, with_circumstances
from benchmarks.timing import MIN_REPEATS
from course_lib.runtime import processes


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)} (default: all)")
    parser.add_argument("--repeats", type=int, default=11, help="rounds; the medians are over them (default: 11)")
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Measure, print and save each case; SystemExit with one line for a case that is not there, or too few repeats."""
    args = parse(argv)
    if args.repeats < MIN_REPEATS:
        words = f"it must be at least {MIN_REPEATS}, or the median has no 95 % interval"
        raise SystemExit(f"--repeats {args.repeats}: {words}")
    try:
        cases = [get_case(name) for name in args.cases or CASES]
    except ValueError as error:
        raise SystemExit(str(error)) from None
    if args.list:
        print("\n".join(f"{case.name}: {case.question}" for case in cases))
        return
    device = processes().device
    for case in cases:
        record = with_circumstances(measure(case, args.repeats, device), device)
        print(table(record))
        print(f"written: results/bench/{save(record).name}\n", flush=True)


if __name__ == "__main__":
    main()
