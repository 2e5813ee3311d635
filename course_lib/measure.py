"""Measure what a computation takes: bytes alive at one moment, seconds, and how they grow with the length."""

import math
import os
import statistics
import time
from collections.abc import Callable, Sequence

import torch

Clock = Callable[[], float]


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was told to; a CPU has done it already."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def timed(run: Callable[[], object], calls: int, device: torch.device, clock: Clock = time.perf_counter) -> float:
    """Seconds that `calls` calls of `run` take on `device`, together."""
    synchronise(device)
    start = clock()
    for _ in range(calls):
        run()
    synchronise(device)
    return clock() - start


def seconds(run: Callable[[], object], device: torch.device | str, repeats: int) -> list[float]:
    """Seconds of each of `repeats` calls of `run`, after one that does not count: it pays for what is made once.

    Raises ValueError for fewer than 1 repeat. To compare two runs, let them take turns: `benchmarks.timing`.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats}; it must be 1 or more")
    device = torch.device(device)
    run()
    return [timed(run, 1, device) for _ in range(repeats)]


def peak_bytes(run: Callable[[], object], device: torch.device | str) -> int:
    """The most bytes of tensors alive at one moment during a call of `run`, over what was alive before it.

    Counted by torch's own allocator, kernels' scratch memory included, on "cuda" or "cpu"; on the latter the profiler
    lists what was taken and given back. `run` is called twice, and what its first call leaves behind does not count: a
    run that computes gradients must remove them at its end. It must not give back what was there before: on a GPU that
    would make room, on a CPU it is not seen.
    Raises ValueError for another device.
    """
    device = torch.device(device)
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device={str(device)!r}; bytes are counted on 'cpu' and 'cuda'")
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler writes two lines to stderr each time
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        run()
    taken = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(taken, key=lambda event: event.start_ns()):
        alive += event.nbytes()  # negative where memory was given back
        peak = max(peak, alive)
    return peak


def slope(lengths: Sequence[float], values: Sequence[float]) -> float:
    """The exponent p of values = c lengths^p, fitted by least squares on logarithms: 1 is linear, 2 quadratic.

    Raises ValueError when the numbers of lengths and values differ, for numbers that are not above 0, and for fewer
    than two different lengths.
    """
    if len(lengths) != len(values):
        raise ValueError(f"lengths has {len(lengths)} numbers, values {len(values)}; they must be pairs")
    for name, numbers in (("lengths", lengths), ("values", values)):
        if not all(0 < number < math.inf for number in numbers):
            raise ValueError(f"{name} is {list(numbers)}; all must be finite and above 0")
    if len(set(lengths)) < 2:
        raise ValueError(f"lengths is {list(lengths)}; needed are two different ones or more")
    return statistics.linear_regression([math.log(n) for n in lengths], [math.log(n) for n in values]).slope
