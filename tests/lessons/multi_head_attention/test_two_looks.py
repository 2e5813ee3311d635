"""The task of two looks: equal parameters, the right targets, and that one head cannot do it."""

import pytest
import torch

from course_lib.heads import attention_maps
from course_lib.lessons.multi_head_attention.two_looks import (
    LOOKS,
    VOCAB,
    TwoLooks,
    plot_two_looks,
    train_two_looks,
    two_looks_batch,
    two_looks_loss,
)
from course_lib.training import History


class Knows(torch.nn.Module):
    """Copies the tokens `backs` places before."""

    def __init__(self, backs):
        super().__init__()
        self.backs = backs

    def forward(self, ids):
        rows = [torch.nn.functional.one_hot(ids.roll(back, 1), VOCAB) for back in self.backs]
        return 50.0 * torch.stack(rows, 2)


def test_parameters_do_not_depend_on_the_heads():
    assert {sum(p.numel() for p in TwoLooks(n).parameters()) for n in (1, 2, 4)} == {29_056}


@pytest.mark.parametrize(("backs", "right"), [(LOOKS, (1, 1)), ((4, 4), (0, 1)), ((1, 5), (1, 0))])
def test_what_is_wanted_stands_one_and_four_places_before(backs, right):
    loss, metrics = two_looks_loss(Knows(backs), two_looks_batch(3))
    assert [metrics[f"right at -{back}"].item() for back in LOOKS] == pytest.approx(right, abs=0.03)
    assert (loss < 1e-6) == (right == (1, 1))


def test_batches_follow_from_step_and_seed():
    (one,), (same,), (other,) = two_looks_batch(1), two_looks_batch(1), two_looks_batch(2)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert set(one.unique().tolist()) == set(range(VOCAB))


@pytest.mark.slow
def test_one_head_deals_out_one_look_and_two_heads_have_two():
    models = {name: TwoLooks(n) for name, n in (("one", 1), ("two", 2))}
    histories = {name: train_two_looks(model, 200) for name, model in models.items()}
    right = {name: [sum(h.column(f"right at -{back}")[-20:]) / 20 for back in LOOKS] for name, h in histories.items()}
    assert 0.7 < sum(right["one"]) < 1.2
    assert min(right["two"]) > 0.9
    maps = attention_maps(models["two"], two_looks_batch(0, seed=5)[0])[0]  # (B, H, T, T)
    backs = torch.stack([maps.diagonal(-back, -2, -1).mean((0, 2)) for back in LOOKS])  # (2, H)
    assert backs.argmax(1).unique().numel() == 2  # each head has a place of its own
    figure = plot_two_looks(models, histories, "t")
    titles = [ax.get_title(loc="center") for ax in figure.axes]
    assert titles == ["one: head 0", "two: head 0", "two: head 1", "share right"]
    lines = [line for line in figure.axes[-1].lines if len(line.get_ydata()) == 200]
    far = [line for line in lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[-1] for line in far] == [h.column("right at -4")[-1] for h in histories.values()]


def test_pictures_need_the_same_names():
    with pytest.raises(ValueError, match="models are"):
        plot_two_looks({"a": TwoLooks(1)}, {"b": History([])}, "t")
