"""Measure what a computation takes: bytes alive at one moment, seconds, and how they grow with the length."""

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from course_lib.checks import check_at_least

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
    check_at_least("repeats", repeats, 1)
    device = torch.device(device)
    run()
    return [timed(run, 1, device) for _ in range(repeats)]


def peak_bytes(run: Callable[[], object], device: torch.device | str) -> int:
    """The most bytes of tensors alive at one moment during a call of `run`, over what was alive before it.

    Counted by torch's own allocator, kernels' scratch memory included, on "cuda" or "cpu"; on the latter the profiler
    lists what was taken and given back. `run` is called twice, and what its first call leaves behind does not count: a
    run that computes gradients must remove them at its end. It must not give back what was there before: on a GPU that
    would make room, on a CPU it is not seen. A `run` may measure parts of itself with this function.
    Raises ValueError for another device.
    """
    device = torch.device(device)
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device={str(device)!r}; bytes are counted on 'cpu' and 'cuda'")
    run()
    if device.type == "cuda":
        return _cuda_peak(run, device)
    with _CPU.listed() as taken:
        run()
    alive = peak = 0
    for _, size in sorted(taken):  # by time; a size is negative where memory was given back
        alive += size
        peak = max(peak, alive)
    return peak


class _Profiled:
    """The memory that the CPU's allocator takes and gives back: (ns, bytes), for each measurement that is under way.

    There is one profiler in a process. Where a measurement begins inside another one, it stops and starts again, so
    that each part belongs to all that were under way.
    """

    def __init__(self) -> None:
        self.lists: list[list[tuple[int, int]]] = []
        self.profile: Any = None

    @contextmanager
    def listed(self) -> Iterator[list[tuple[int, int]]]:
        """All that happens in the block, complete after its end."""
        self._stop()
        own: list[tuple[int, int]] = []
        self.lists.append(own)
        self._start()
        try:
            yield own
        finally:
            self._stop()
            self.lists.pop()
            self._start()

    def _start(self) -> None:
        if self.lists:
            os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler writes two lines to stderr each time
            self.profile = torch.autograd.profiler.profile(profile_memory=True)
            self.profile.__enter__()

    def _stop(self) -> None:
        if self.profile is not None:
            self.profile.__exit__(None, None, None)
            events = [event for event in self.profile.kineto_results.events() if event.name() == "[memory]"]
            for one in self.lists:
                one += [(event.start_ns(), event.nbytes()) for event in events]
            self.profile = None


_CPU = _Profiled()
_CUDA: list[tuple[int, list[int]]] = []  # peaks of the measurements under way; one may begin inside another


def _cuda_peak(run: Callable[[], object], device: torch.device) -> int:
    index = torch.cuda.current_device() if device.index is None else device.index
    torch.cuda.synchronize(device)
    around = [peaks for other, peaks in _CUDA if other == index]
    for peaks in around:
        peaks.append(torch.cuda.max_memory_allocated(device))  # what the reset would forget
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    own: list[int] = []
    _CUDA.append((index, own))
    try:
        run()
        torch.cuda.synchronize(device)
    finally:
        _CUDA.pop()
        for peaks in (own, *around):
            peaks.append(torch.cuda.max_memory_allocated(device))
            peaks += own
    return max(own) - before


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
