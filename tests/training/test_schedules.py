"""Schedules of the learning rate: their shapes, and that training uses them."""

import math

import pytest
import torch

from course_lib.training import constant, cosine, linear
from tests.training.toy import fit, network, same


def test_schedules():
    assert [constant(3)(s) for s in (0, 1, 2, 3, 99)] == [0.25, 0.5, 0.75, 1, 1]
    assert constant()(0) == 1
    for make in (cosine, linear):
        curve = [make(20, 4)(s) for s in range(20)]
        assert curve[4] == 1 == max(curve)
        assert curve[:5] == sorted(curve[:5])
        assert curve[4:] == sorted(curve[4:], reverse=True)
        assert curve[12] == pytest.approx(0.5)  # half-way down
        assert make(20, 4, floor=0.1)(20) == pytest.approx(0.1) == make(20, 4, floor=0.1)(40)
        with pytest.raises(ValueError, match="warmup=20, steps=20"):
            make(20, 20)
    with pytest.raises(ValueError, match="warmup=-1"):
        constant(-1)


def test_the_schedule_is_used_and_the_optimizer_given_back_as_it_was():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    history = fit(model, optimizer=optimizer)
    assert history.column("lr") == pytest.approx([0.02 * cosine(30, 5)(s) for s in range(30)])
    assert optimizer.param_groups[0]["lr"] == 0.02


def test_the_schedule_moves_the_weights():
    """With factor 0 nothing moves, with half the factor SGD's first step is half as long."""
    moves = []
    for factor in (0.0, 0.5, 1.0):
        model, before = network(), network()
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        fit(model, optimizer=sgd, steps=1, schedule=lambda step, factor=factor: factor, clip_norm=None)
        moves.append(model[0].weight.detach() - before[0].weight.detach())
    assert moves[0].abs().max() == 0
    assert torch.allclose(2 * moves[1], moves[2], atol=1e-7)
    assert cosine(20, 4, floor=0.1)(4) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, None, "fast", torch.ones(2), constant])
def test_a_schedule_that_gives_no_rate_is_refused_before_the_first_step(value):
    model, asked = network(), []
    with pytest.raises(ValueError, match=r"schedule\(3\) is .*; needed is a finite number, 0 or more"):
        fit(model, schedule=lambda step: asked.append(step) or (value if step == 3 else 1.0))
    assert asked == [0, 1, 2, 3]
    assert same(model, network())


def test_a_scheduler_of_torch_is_refused_in_words():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    with pytest.raises(ValueError, match=r"schedule is a CosineAnnealingLR; needed is a function schedule\(step\)"):
        fit(model, optimizer=optimizer, schedule=theirs)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: constant(2.5), "warmup=2.5; it must be 0 or more, a whole number"),
        (lambda: cosine(20, 2.0), "warmup=2.0; it must be 0 or more, a whole number"),
        (lambda: linear(20.0, 2), "steps=20.0; it must be 1 or more, a whole number"),
        (lambda: cosine(20, 2, floor=1.5), "floor=1.5; allowed is 0 to 1"),
        (lambda: linear(20, 2, floor=math.nan), "floor=nan; allowed is 0 to 1"),
    ],
)
def test_sizes_of_another_type_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
