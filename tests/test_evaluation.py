"""Losses of tokens and perplexity: by hand, with the shift in the right place, whatever the size of a batch."""

import math
import re

import pytest
import torch
from torch import nn

from course_lib.evaluation import future_leak, next_token_losses, perplexity
from course_lib.models.gpt2 import GPT2, GPT2Config

VOCABULARY = 7


class Table(nn.Module):
    """Logits that depend on the current token and on its position."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.by_token = nn.Parameter(torch.randn(VOCABULARY, VOCABULARY, dtype=dtype))
        self.by_position = nn.Parameter(torch.randn(20, VOCABULARY, dtype=dtype))

    def forward(self, ids):
        return self.by_token[ids] + self.by_position[: ids.shape[1]]


class Sure(nn.Module):
    """All of its probability on `guess(ids)`."""

    def __init__(self, guess):
        super().__init__()
        self.guess = guess

    def forward(self, ids):
        return 1e4 * nn.functional.one_hot(self.guess(ids), VOCABULARY).float()


def windows_of(n, length):
    return torch.randint(VOCABULARY, (n, length))


@pytest.mark.parametrize("length", [2, 3, 9])
def test_losses_are_those_by_hand(length):
    model, windows = Table(), windows_of(5, length)
    got = next_token_losses(model, windows)
    assert got.shape == (5, length - 1)
    assert not got.requires_grad
    for n, window in enumerate(windows.tolist()):
        for t in range(length - 1):
            logits = (model.by_token[window[t]] + model.by_position[t]).tolist()
            log_sum = math.log(sum(math.exp(x) for x in logits))
            assert got[n, t].item() == pytest.approx(log_sum - logits[window[t + 1]], abs=1e-5)


def test_a_copy_of_the_input_is_no_prediction():
    windows = torch.arange(24).reshape(4, 6) % VOCABULARY  # a token is followed by the next number
    assert next_token_losses(Sure(lambda ids: ids), windows).min() > 1000
    assert next_token_losses(Sure(lambda ids: (ids - 1) % VOCABULARY), windows).min() > 1000
    knows = next_token_losses(Sure(lambda ids: (ids + 1) % VOCABULARY), windows)
    assert torch.equal(knows, torch.zeros(4, 5))
    assert perplexity(knows) == 1


def test_the_model_never_sees_the_last_token_of_a_window():
    seen = []
    model = Sure(lambda ids: (seen.append(ids), ids)[1])
    windows = windows_of(5, 4)
    next_token_losses(model, windows, batch_size=2)
    assert [len(ids) for ids in seen] == [2, 2, 1]
    assert torch.equal(torch.cat(seen), windows[:, :-1])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 7, 100])
def test_the_size_of_a_batch_changes_nothing(batch_size):
    model, windows = Table(), windows_of(7, 6)
    assert torch.equal(next_token_losses(model, windows, batch_size), next_token_losses(model, windows))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_losses_are_float32_and_computed_so(dtype):
    model, windows = Table(dtype), windows_of(6, 9)
    got = next_token_losses(model, windows)
    assert got.dtype == torch.float32
    # Of the same, already rounded logits: a log-softmax in bfloat16 would be off by some 0.01.
    log_p = model(windows[:, :-1]).double().log_softmax(-1)
    want = -log_p.gather(-1, windows[:, 1:, None]).squeeze(-1)
    assert (got - want).abs().max() < 1e-5
    assert next_token_losses(model.to("meta"), windows.to("meta")).device.type == "meta"


def test_all_integers_that_are_ids_and_no_window_at_all():
    model, windows = Table(), windows_of(3, 4)
    assert torch.equal(next_token_losses(model, windows.int()), next_token_losses(model, windows))
    assert next_token_losses(model, windows[:0]).shape == (0, 3)


def test_the_model_is_used_as_it_is():
    model = nn.Sequential(Table(), nn.Dropout(0.5))
    windows = windows_of(3, 9)
    assert not torch.equal(next_token_losses(model, windows), next_token_losses(model, windows))
    assert model.training
    model.eval()
    assert torch.equal(next_token_losses(model, windows), next_token_losses(model, windows))


def test_perplexity_of_a_uniform_guess_is_the_vocabulary():
    for size in (2, 7, 4096):
        windows = torch.randint(size, (3, 8))
        losses = next_token_losses(lambda ids, size=size: torch.full((*ids.shape, size), 3.0), windows)
        assert perplexity(losses) == pytest.approx(size, rel=1e-6)


def test_perplexity_is_the_exponential_of_the_mean():
    assert perplexity(torch.tensor([[math.log(2), math.log(8)], [0.0, math.log(16)]])) == pytest.approx(4.0)
    assert isinstance(perplexity(torch.zeros(3)), float)
    assert perplexity(torch.full((100_000,), 3.0).bfloat16()) == pytest.approx(math.exp(3), rel=1e-9)
    assert math.isinf(perplexity(torch.tensor([1.0, math.inf])))


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: next_token_losses(Table(), windows_of(3, 1)), "windows has shape (3, 1); needed is (N, T)"),
        (lambda: next_token_losses(Table(), windows_of(1, 5)[0]), "windows has shape (5,)"),
        (lambda: next_token_losses(Table(), windows_of(2, 5)[None]), "windows has shape (1, 2, 5)"),
        (lambda: next_token_losses(Table(), windows_of(2, 5).float()), "windows is torch.float32 (2, 5); token"),
        (lambda: next_token_losses(Table(), windows_of(2, 5).byte()), "windows is torch.uint8 (2, 5)"),
        (lambda: next_token_losses(Table(), windows_of(2, 5), 0), "batch_size=0; it must be 1 or more, a whole number"),
        (lambda: next_token_losses(Table(), windows_of(2, 5), 2.0), "batch_size=2.0; it must be 1 or more"),
        (lambda: next_token_losses(Table(), torch.tensor([[0, 7]])), "windows goes from 7 to 7; with vocab_size=7"),
        (lambda: next_token_losses(Table(), torch.tensor([[0, -100]])), "windows goes from -100 to -100"),
        (lambda: next_token_losses(lambda ids: (ids,), windows_of(2, 5)), "model gives tuple; needed are logits (2, 4"),
        (lambda: next_token_losses(lambda ids: torch.ones(2, 7), windows_of(2, 5)), "model gives torch.float32 (2, 7)"),
        (lambda: next_token_losses(Table(), [[1, 2]]), "windows is list"),
        (lambda: perplexity([1.0]), "losses is list"),
        (lambda: perplexity(torch.ones(0, 3)), "losses is torch.float32 (0, 3)"),
        (lambda: future_leak(Table(), torch.zeros(1, dtype=torch.long)), "ids has shape (1,); needed is (T,)"),
        (lambda: future_leak(Table(), windows_of(2, 5)), "ids has shape (2, 5); needed is (T,)"),
        (lambda: future_leak(Table(), torch.zeros(5)), "ids is torch.float32 (5,)"),
    ],
)
def test_bad_input_names_itself(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()


class Reads(nn.Module):
    """Output t is the sum of `weight[t, s] * value(token s)`."""

    def __init__(self, weight, value=lambda ids: ids.double() + 1):
        super().__init__()
        self.weight, self.value, self.batches = weight, value, []

    def forward(self, ids):
        self.batches.append(ids)
        return (self.value(ids) @ self.weight.double().T)[..., None] * torch.tensor([0.5, 1, 0]).double()


@pytest.mark.parametrize("t", range(5))
@pytest.mark.parametrize("s", range(5))
def test_the_probe_finds_any_single_look_ahead(t, s):
    weight = torch.eye(5)
    weight[t, s] += 1e-9
    leak = future_leak(Reads(weight), torch.tensor([4, 0, 3, 3, 1]))
    assert ((leak > 0) == (torch.arange(5) == (s if s > t else -1))).all()


def test_the_leak_is_the_largest_difference_before_the_token():
    weight = torch.ones(4, 4).tril()
    weight[0, 2], weight[1, 2], weight[0, 3] = -2, 5, 1
    ids = torch.tensor([1, 5, 8, 2])  # token 2 becomes the one before it, 5; token 3 becomes 8
    assert future_leak(Reads(weight), ids).tolist() == [0, 0, 5 * 3, 6]
    assert future_leak(Reads(weight.tril()), ids.int()).tolist() == [0] * 4


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_outputs_of_any_shape_are_probed(shape):
    weight = torch.tensor([[1.0, 2.0], [1.0, 1.0]])
    model = Reads(weight)
    leak = future_leak(lambda ids: model(ids)[..., 1].view(*ids.shape, *[1] * len(shape)).expand(*ids.shape, *shape),
                       torch.tensor([3, 5]))  # fmt: skip
    assert leak.tolist() == [0, 2 * 2]


def test_each_token_is_changed_alone_and_to_one_of_the_vocabulary():
    for ids in (
        torch.zeros(4),
        torch.ones(4),
        torch.full((4,), 6),
        torch.tensor([0, 6, 6, 0]),
        torch.tensor([2, 2, 5, 5]),
    ):
        model = Reads(torch.ones(4, 4).tril())
        future_leak(model, ids.long())
        changed, same = model.batches
        assert torch.equal(same, ids.long().expand(4, 4))
        assert torch.equal(changed != same, torch.eye(4, dtype=torch.bool))
        assert changed.min() >= 0
        assert changed.max() <= max(1, int(ids.max()))


def test_a_leak_that_is_nan_is_no_zero():
    poisoned = Reads(torch.ones(3, 3).tril(), value=lambda ids: torch.where(ids == 2, torch.nan, 1.0).double())
    assert future_leak(poisoned, torch.tensor([0, 2, 1]))[2].isnan()


def test_a_model_with_dropout_in_training_mode_is_not_probed():
    net = GPT2(GPT2Config(vocab_size=9, max_positions=8, d_model=8, n_heads=2, n_layers=1, dropout=0.5))
    with pytest.raises(ValueError, match="training mode"):
        future_leak(net, torch.arange(5))
    assert future_leak(net.eval(), torch.arange(5)).max() == 0
