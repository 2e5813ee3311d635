"""Masked language modelling: how many tokens are hidden, how, which never are, and what the losses are of."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.masking import NOT_ASKED, Masked, hide, masked_batches, masked_loss, masked_losses
from course_lib.models.sparse_bert import SparseBert, SparseBertConfig
from course_lib.tokenization import END, MASK, PAD, SPECIAL, START

V = 50
WINDOWS = torch.randint(len(SPECIAL), V, (400, 64), generator=torch.Generator().manual_seed(7))
WINDOWS[:, 0] = 2


class Table(nn.Module):
    """Logits from a table, by id and place; counts the calls."""

    def __init__(self):
        super().__init__()
        self.table, self.calls = nn.Embedding(V, V), 0

    def forward(self, ids, *, at):
        self.calls += 1
        return self.table(ids.gather(1, at)) + 0.01 * at.unsqueeze(-1) * torch.arange(V)


@pytest.mark.parametrize(("rate", "count"), [(0.15, 10), (0.3, 19), (0.02, 1), (0.98, 63)])
def test_as_many_in_each_window_in_order_and_never_the_first(rate, count):
    hidden = hide(WINDOWS, V, rate, seed=3)
    assert isinstance(hidden, Masked)
    assert hidden.ids.shape == WINDOWS.shape
    assert hidden.at.shape == hidden.targets.shape == (400, count)
    assert (hidden.at >= 1).all()
    assert (hidden.at < 64).all()
    assert (hidden.at.diff() > 0).all()
    assert torch.equal(hidden.targets, WINDOWS.gather(1, hidden.at))
    untouched = torch.ones_like(WINDOWS).bool().scatter(1, hidden.at, False)
    assert torch.equal(hidden.ids[untouched], WINDOWS[untouched])
    assert (hidden.ids[:, 0] == 2).all()
    assert {x.dtype for x in hidden[:3]} == {torch.int64}
    assert hidden.key_mask is None


def test_four_of_five_become_the_mask_one_of_ten_another_one_of_ten_stays():
    hidden = hide(WINDOWS, V, 0.3, seed=5)  # 7,600 tokens: a standard deviation of 0.35 to 0.5 %
    shown = hidden.ids.gather(1, hidden.at)
    same, masked = shown == hidden.targets, shown == MASK
    by_chance = 0.1 / (V - len(SPECIAL))  # the random token is the old one
    assert masked.float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert same.float().mean().item() == pytest.approx(0.1 + by_chance, abs=0.015)
    other = shown[~same & ~masked]
    assert (other >= len(SPECIAL)).all()  # never a special token, and all others
    assert other.unique().tolist() == list(range(len(SPECIAL), V))


def test_places_are_chosen_evenly():
    counts = torch.zeros(64)
    for seed in range(20):
        counts += torch.bincount(hide(WINDOWS, V, 0.15, seed).at.flatten(), minlength=64)
    assert counts[0] == 0
    expected = 20 * 400 * 10 / 63
    assert ((counts[1:] - expected).abs() < 5 * math.sqrt(expected)).all()


def test_everything_follows_from_the_seed():
    before, state = WINDOWS.clone(), torch.random.get_rng_state()
    first, again, other = (hide(WINDOWS, V, 0.15, seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first[:3], again[:3], strict=True))
    assert not torch.equal(first.at, other.at)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(WINDOWS, before)  # a copy is changed
    assert not torch.equal(first.at[0], first.at[1])


def test_batches_are_a_pure_function_of_seed_and_step():
    batches = masked_batches(WINDOWS, 8, V, 0.15, seed=4)
    steps = [batches(step) for step in (0, 1, 50)]
    fresh = masked_batches(WINDOWS, 8, V, 0.15, seed=4)
    for step, batch in zip((50, 1, 0), steps[::-1], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(fresh(step)[:3], batch[:3], strict=True))
    assert steps[0].ids.shape == (8, 64)
    assert not torch.equal(steps[0].at, steps[1].at)
    assert not torch.equal(steps[0].at, masked_batches(WINDOWS, 8, V, 0.15, seed=5)(0).at)
    restored = steps[0].ids.scatter(1, steps[0].at, steps[0].targets)
    assert all((row == WINDOWS).all(1).any() for row in restored)
    later = fresh(50)  # step 50 is the first of the second epoch: the same windows, hidden anew
    seen = torch.cat([fresh(step).ids.scatter(1, fresh(step).at, fresh(step).targets) for step in range(50)])
    assert torch.equal(seen.unique(dim=0), WINDOWS.unique(dim=0))
    row = later.ids.scatter(1, later.at, later.targets)[0]
    places = [fresh(step).at[i] for step in range(50) for i in range(8) if torch.equal(seen[8 * step + i], row)]
    assert not torch.equal(places[0], later.at[0])


def test_the_loss_is_of_the_hidden_tokens_alone():
    model, batch = Table(), hide(WINDOWS[:6], V, 0.15, 0)
    loss, metrics = masked_loss(model, batch)
    logits = model(batch.ids, at=batch.at)
    total, right = 0.0, 0
    for b in range(6):
        for m in range(10):
            log_shares = logits[b, m].log_softmax(-1)
            total -= log_shares[batch.targets[b, m]].item()
            right += int(log_shares.argmax() == batch.targets[b, m])
    assert loss.item() == pytest.approx(total / 60, rel=1e-5)
    assert metrics["accuracy"].item() == pytest.approx(right / 60)
    loss.backward()
    shown = batch.ids.gather(1, batch.at).unique()
    assert model.table.weight.grad.abs().sum(1).nonzero().flatten().tolist() == shown.tolist()


def test_a_batch_that_asks_for_nothing_has_loss_zero_and_no_gradient():
    batch = hide(WINDOWS[:6], V, 0.15, 0)
    model, nothing = Table(), batch._replace(targets=torch.full_like(batch.targets, NOT_ASKED))
    loss, metrics = masked_loss(model, nothing)
    loss.backward()
    assert (loss.item(), metrics["accuracy"].item()) == (0.0, 0.0)
    assert not model.table.weight.grad.any()
    half = batch._replace(targets=batch.targets.where(batch.at < 40, NOT_ASKED))
    asked = model(batch.ids, at=batch.at)[batch.at < 40]
    want = F.cross_entropy(asked, batch.targets[batch.at < 40])
    assert masked_loss(model, half)[0].item() == pytest.approx(want.item(), rel=1e-5)


def test_both_rates_are_judged_on_the_same_hidden_tokens():
    """A run at 15 % and one at 30 % learn from other tokens; `masked_losses` hides by the rate that it is told."""
    low, high = (masked_batches(WINDOWS, 8, V, rate, seed=4)(0) for rate in (0.15, 0.3))
    assert torch.equal(low.ids.scatter(1, low.at, low.targets), high.ids.scatter(1, high.at, high.targets))
    assert (low.at.shape[1], high.at.shape[1]) == (10, 19)
    first, second = Table(), Table()
    second.load_state_dict(first.state_dict())
    got = [masked_losses(model, WINDOWS[:6], V, 0.15, seed=9) for model in (first, second)]
    assert torch.equal(*got)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_losses_token_by_token(batch_size):
    model = Table()
    got = masked_losses(model, WINDOWS[:6], V, 0.15, seed=9, batch_size=batch_size)
    assert model.calls == -(-6 // batch_size)
    assert got.shape == (6, 10)
    assert not got.requires_grad
    hidden = hide(WINDOWS[:6], V, 0.15, 9)
    logits = model(hidden.ids, at=hidden.at)
    for b in range(6):
        for m in range(10):
            assert got[b, m].item() == pytest.approx(
                F.cross_entropy(logits[b, m], hidden.targets[b, m]).item(), rel=1e-5
            )
    assert got.mean().item() == pytest.approx(masked_loss(model, hidden)[0].item(), rel=1e-5)


# <s> and 8 to 38 tokens, then padding; the last window is full.
PADDED = WINDOWS[:31, :40].clone()
for row, n in enumerate(range(9, 40)):
    PADDED[row, n:] = PAD
PADDED = torch.cat([PADDED, WINDOWS[31:32, :40]])


def left(windows):
    """The same windows with their padding before them."""
    return torch.stack([row.roll(int((row == PAD).sum())) for row in windows])


@pytest.mark.parametrize("windows", [PADDED, left(PADDED)], ids=["right", "left"])
@pytest.mark.parametrize("rate", [0.15, 0.5, 0.02])
def test_padding_is_not_hidden(windows, rate):
    """A share of what is there, one token at least; never a special token, at either end of the padding."""
    hidden, there = hide(windows, V, rate, seed=1), (windows != PAD).sum(1)
    asked = hidden.at > 0
    assert torch.equal(asked.sum(1), (rate * there.double()).round().clamp(min=1).long())
    assert (hidden.targets[asked] >= len(SPECIAL)).all()
    assert torch.equal(hidden.targets[asked], windows.gather(1, hidden.at)[asked])
    assert (hidden.targets[~asked] == NOT_ASKED).all()
    assert torch.equal(hidden.key_mask, windows != PAD)
    assert torch.equal(hidden.ids == PAD, windows == PAD)
    assert torch.equal(hidden.ids == START, windows == START)
    assert (hidden.at.diff()[asked[:, :-1]] > 0).all()


def test_the_end_of_a_document_is_asked_for():
    windows = WINDOWS.clone()
    windows[:, 20:40] = END
    assert (hide(windows, V, 0.3, 0).targets == END).float().mean().item() == pytest.approx(20 / 63, abs=0.02)


def test_a_window_without_padding_is_hidden_as_if_it_stood_alone():
    """So that no number of a run without padding depends on this."""
    for seed in range(3):
        short = WINDOWS[5:6].index_fill(1, torch.arange(9, 64), PAD)
        both = hide(torch.cat([WINDOWS[:5], short]), V, 0.15, seed)
        alone = hide(torch.cat([WINDOWS[:5], WINDOWS[:1]]), V, 0.15, seed)
        assert all(torch.equal(a[:5], b[:5]) for a, b in zip(both[:3], alone[:3], strict=True))
    first = hide(WINDOWS[:1], V, 0.15, 0)
    assert first.at.tolist() == [[8, 22, 24, 27, 32, 38, 47, 51, 52, 55]]  # as ever since the first recorded run
    torch.set_default_dtype(torch.float64)
    try:
        again = hide(WINDOWS[:1], V, 0.15, 0)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(first[:3], again[:3], strict=True))


@pytest.mark.parametrize("windows", [PADDED, left(PADDED)], ids=["right", "left"])
def test_padding_does_not_count(windows):
    """The loss of a padded batch is that of its windows one by one; the model is told what is padding."""
    sizes = {"vocab_size": V, "d_model": 16, "n_heads": 2, "n_layers": 2}
    model = SparseBert(SparseBertConfig(position="none", pattern="full", **sizes)).double().eval()
    hidden = hide(windows, V, 0.3, seed=2)
    got, want, right = masked_losses(model, windows, V, 0.3, 2, batch_size=5), [], []
    for row, ids in enumerate(hidden.ids):
        there, asked = windows[row] != PAD, hidden.at[row] > 0
        logits = model(ids[None, there])[0]
        at = hidden.at[row, asked] - there.int().argmax()
        want.append(F.cross_entropy(logits[at], hidden.targets[row, asked], reduction="none"))
        right.append(logits[at].argmax(-1) == hidden.targets[row, asked])
        assert torch.allclose(got[row, asked].double(), want[-1], atol=1e-5)
        assert got[row, ~asked].isnan().all()
    loss, metrics = masked_loss(model, hidden)
    assert loss.item() == pytest.approx(torch.cat(want).mean().item(), rel=1e-5)
    assert got.nanmean().item() == pytest.approx(loss.item(), rel=1e-5)
    assert metrics["accuracy"].item() == pytest.approx(torch.cat(right).float().mean().item())


def test_half_precision_logits_are_summed_in_float32():
    model = Table().bfloat16()
    assert masked_losses(model, WINDOWS[:2], V, 0.15, 0).dtype == torch.float32
    assert masked_loss(model, hide(WINDOWS[:2], V, 0.15, 0))[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("windows", "rate", "words"),
    [
        (WINDOWS[0], 0.15, "windows is torch.int64 (64,); needed is int64 (B, T)"),
        (WINDOWS.int(), 0.15, "windows is torch.int32 (400, 64); needed is int64 (B, T)"),
        (WINDOWS.float(), 0.15, "windows is torch.float32 (400, 64)"),
        (WINDOWS, 0.0, "rate=0.0 hides 0 of 64 tokens; needed is at least one, and not all"),
        (WINDOWS, 0.005, "rate=0.005 hides 0 of 64 tokens"),
        (WINDOWS, 1.0, "rate=1.0 hides 64 of 64 tokens"),
        (WINDOWS, -0.5, "rate=-0.5 hides -32 of 64"),
        (WINDOWS[:, :1], 0.5, "rate=0.5 hides 0 of 1 tokens"),
        (WINDOWS + 1, 0.15, "windows goes from 3 to 50; with vocab_size=50 the last is 49"),
        (-WINDOWS, 0.15, "windows goes from -49 to -2; with vocab_size=50"),
        (WINDOWS * 0 + PAD, 0.15, "windows: no token that could be hidden"),
        (WINDOWS.tolist(), 0.15, "windows is list; needed is int64 (B, T)"),
    ],
)
def test_bad_input_names_itself(windows, rate, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        hide(windows, V, rate, 0)
