"""What is measured: bytes against tensors of known size, seconds of known waits, exponents of known powers."""

import re
import time
from functools import partial

import pytest
import torch
from torch import nn

from course_lib import measure
from course_lib.measure import peak_bytes, seconds, slope, timed

MB = 1_000_000
GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]


def chain(n, device):
    """Three products of n x n matrices; at most three are alive: both factors and the product."""
    x = torch.ones(n, n, device=device)
    for _ in range(3):
        x = x @ torch.eye(n, device=device)
    return x.sum()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("run", "want"),
    [
        (lambda device: torch.empty(10, MB // 40, device=device), 1),
        (lambda device: [torch.empty(MB // 4, device=device) for _ in range(7)], 7),  # all kept
        (lambda device: [torch.empty(MB // 4, device=device).sum() for _ in range(7)], 1),  # one after the other
        (lambda device: torch.empty(MB // 4, device=device) + torch.empty(MB // 4, device=device), 3),
        (lambda device: chain(500, device), 3),
        (lambda device: (torch.randn(1000, 4, device=device) @ torch.randn(4, 1000, device=device)).softmax(-1), 8),
        (lambda device: torch.empty(MB // 8, dtype=torch.bfloat16, device=device), 0.25),
        (lambda device: None, 0),
    ],
)
def test_peak_bytes_of_known_tensors(run, want, device):
    assert peak_bytes(lambda: run(device), device) == pytest.approx(want * MB, rel=0.03, abs=5000)


def test_what_was_there_before_does_not_count():
    held = [torch.empty(MB // 4), torch.empty(MB // 4)]
    assert peak_bytes(lambda: held[0].add_(1), "cpu") < 1000
    assert peak_bytes(lambda: held[0] + 1, torch.device("cpu")) == pytest.approx(MB, rel=0.01)


def test_what_the_first_call_makes_to_keep_does_not_count():
    kept = {}
    assert peak_bytes(lambda: kept.setdefault("x", torch.empty(MB)) if not kept else None, "cpu") == 0


def test_gradients_count_where_the_run_removes_them():
    layer, x = nn.Linear(500, 500, bias=False), torch.randn(2, 500)

    def train():
        layer(x).sum().backward()
        layer.weight.grad = None

    assert peak_bytes(train, "cpu") == pytest.approx(MB, rel=0.02)


def test_a_saved_matrix_lives_until_the_backward_pass():
    x = torch.randn(500, 500, requires_grad=True)  # 1 MB; so is each of three exponentials

    def run(grad):
        with torch.set_grad_enabled(grad):
            return x.exp().exp().exp()

    assert peak_bytes(lambda: run(True), "cpu") == pytest.approx(3 * MB, rel=0.01)
    assert peak_bytes(lambda: run(False), "cpu") == pytest.approx(2 * MB, rel=0.01)


@pytest.mark.parametrize("device", DEVICES)
def test_a_measurement_inside_another_one(device):
    """Each counts its own part: what was alive before the inner one counts in the outer one alone."""
    found = []

    def new(size):
        return torch.empty(size * MB // 4, device=device)

    def inner():
        found.append(peak_bytes(lambda: new(2), device))
        return new(4)

    def outer():
        held, _ = new(3), new(8)
        del _
        found.append(peak_bytes(lambda: [new(1), inner()], device))
        found.append(peak_bytes(lambda: new(5), device))
        return held

    total = peak_bytes(outer, device)
    assert total == pytest.approx(11 * MB, rel=0.01)
    inside = [2, 2, 5, 5]  # both calls of inner by the middle one; the middle one, the last one
    assert found == pytest.approx([size * MB for size in inside * 2], rel=0.01)
    assert peak_bytes(lambda: [new(3), peak_bytes(lambda: new(8), device)], device) == pytest.approx(11 * MB, rel=0.01)
    assert peak_bytes(lambda: (new(6), None)[1], device) == pytest.approx(6 * MB, rel=0.01)


class Allocator:
    """Stands in for torch.cuda's: bytes alive now, and the most since the last reset."""

    def __init__(self, monkeypatch):
        self.alive = self.peak = 100
        for name, function in {
            "synchronize": lambda device: None,
            "current_device": lambda: 0,
            "memory_allocated": lambda device: self.alive,
            "max_memory_allocated": lambda device: self.peak,
            "reset_peak_memory_stats": lambda device: setattr(self, "peak", self.alive),
        }.items():
            monkeypatch.setattr(torch.cuda, name, function)

    def use(self, size, inside=lambda: None):
        self.alive += size
        self.peak = max(self.peak, self.alive)
        inside()
        self.alive -= size


def test_a_measurement_inside_another_one_on_a_gpu(monkeypatch):
    cuda, found = Allocator(monkeypatch), []

    def early():
        cuda.use(50)
        cuda.use(5, lambda: found.append(peak_bytes(lambda: cuda.use(20), "cuda:0")))

    def late():
        cuda.use(5, lambda: found.append(peak_bytes(lambda: cuda.use(50), "cuda")))
        cuda.use(20)

    assert peak_bytes(early, "cuda") == 50
    assert peak_bytes(late, "cuda") == 55
    assert found == [20, 20, 50, 50]

    def failing():
        cuda.use(70)
        with pytest.raises(ZeroDivisionError):
            peak_bytes(lambda: cuda.use(1, lambda: 1 / 0), "cuda")
        cuda.alive = 100

    assert peak_bytes(failing, "cuda") == 70


def test_an_error_inside_a_measurement_ends_it():
    with pytest.raises(ZeroDivisionError):
        peak_bytes(lambda: 1 / 0, "cpu")
    calls = iter([0, 1])
    with pytest.raises(ZeroDivisionError):
        peak_bytes(lambda: peak_bytes(lambda: 1 / (1 - next(calls)), "cpu"), "cpu")
    assert peak_bytes(lambda: torch.empty(MB // 4), "cpu") == pytest.approx(MB, rel=0.01)


def test_the_profiler_writes_nothing(capfd):
    peak_bytes(lambda: torch.empty(10), "cpu")
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_seconds_are_those_of_single_calls_after_a_warm_up(monkeypatch):
    """By a clock of its own: that of the machine runs on while other programs work."""
    now = [0.0]

    def run():
        now.append(now[-1] + len(now))

    monkeypatch.setattr(measure, "timed", partial(timed, clock=lambda: now[-1]))
    assert seconds(run, "cpu", 3) == [2.0, 3.0, 4.0]


def test_seconds_are_seconds():
    assert seconds(lambda: time.sleep(0.02), "cpu", 1)[0] >= 0.02


def test_the_device_is_waited_for_on_both_sides(monkeypatch):
    order = []
    monkeypatch.setattr(measure, "synchronise", lambda device: order.append(device))
    ticks = iter([10.0, 17.0])
    assert timed(lambda: order.append("run"), 2, torch.device("cpu"), lambda: next(ticks)) == 7
    assert order == [torch.device("cpu"), "run", "run", torch.device("cpu")]


@pytest.mark.parametrize("power", [-1.0, 0.0, 1.0, 2.0])
def test_slope_of_a_power_is_its_exponent(power):
    lengths = [128, 256, 1024, 3000]
    assert slope(lengths, [7 * n**power for n in lengths]) == pytest.approx(power, abs=1e-9)


def test_slope_is_the_least_squares_line():
    assert slope([1, 10, 100], [1, 100, 100]) == pytest.approx(1.0)
    assert slope([2, 4], [3, 24]) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: peak_bytes(lambda: None, "meta"), "device='meta'; bytes are counted on 'cpu' and 'cuda'"),
        (lambda: seconds(lambda: None, "cpu", 0), "repeats=0; it must be 1 or more, a whole number"),
        (lambda: seconds(lambda: None, "cpu", 2.0), "repeats=2.0; it must be 1 or more, a whole number"),
        (lambda: slope([1, 2], [1]), "lengths has 2 numbers, values 1; they must be pairs"),
        (lambda: slope([1, 1], [1, 2]), "lengths is [1, 1]; needed are two different ones"),
        (lambda: slope([], []), "lengths is []; needed are two"),
        (lambda: slope([1, 2], [0, 2]), "values is [0, 2]; all must be finite and above 0"),
        (lambda: slope([-1, 2], [1, 2]), "lengths is [-1, 2]; all must be finite and above 0"),
        (lambda: slope([1, 2], [1, float("nan")]), "values is [1, nan]; all must be finite"),
    ],
)
def test_bad_input_names_itself(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()
