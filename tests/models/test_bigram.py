"""Bigrams, counted and learned: against plain Python, and what a model of one token can and cannot know."""

import math
import re
from collections import Counter
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.models.bigram import (
    BigramConfig,
    BigramNetwork,
    CountedBigram,
    KneserNeyBigram,
    TwoSidedBigram,
    count_bigrams,
    counted_loss,
)
from tests.conftest import randomise

VOCABULARY = 6
WEIGHTS = (0, 0.0, 0.3, 1, None)
STREAMS = st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=60)
SMALL = {"vocab_size": VOCABULARY, "d_model": 8, "d_ff": 12, "n_layers": 2}
# 4 is only ever the last token, 5 is never seen: two rows without counts
STREAM = torch.tensor([0, 1, 0, 2, 0, 1, 1, 3, 0, 1, 2, 2, 0, 4])


@settings(deadline=None, max_examples=100)
@given(STREAMS, st.sampled_from([torch.int64, torch.int32]))
def test_counts_are_those_of_a_counter(stream, dtype):
    counts = count_bigrams(torch.tensor(stream, dtype=dtype), VOCABULARY)
    assert counts.shape == (VOCABULARY, VOCABULARY)
    assert counts.dtype == torch.float32
    pairs = Counter(pairwise(stream))
    for current in range(VOCABULARY):
        for following in range(VOCABULARY):
            assert counts[current, following] == pairs[current, following]


def test_a_row_is_the_current_token_and_a_column_the_next():
    assert count_bigrams(torch.tensor([1, 2, 0]), 3).nonzero().tolist() == [[1, 2], [2, 0]]


@settings(deadline=None, max_examples=100)
@given(STREAMS, st.sampled_from(WEIGHTS))
def test_every_row_is_a_distribution(stream, weight):
    counts = count_bigrams(torch.tensor(stream), VOCABULARY)
    log_p = CountedBigram(counts, weight)(torch.arange(VOCABULARY))
    assert torch.allclose(log_p.exp().sum(-1), torch.ones(VOCABULARY), atol=1e-6)
    assert not log_p.isnan().any()
    # Only a table that is trusted to the full calls anything impossible, and only after a token that it has seen.
    impossible = (counts == 0) & (counts.sum(1, keepdim=True) > 0) & (weight == 1)
    assert torch.equal(log_p.isneginf(), impossible)
    assert torch.allclose(log_p.softmax(-1), log_p.exp(), atol=1e-6)


def by_hand(stream, weight):
    """p(next | current) of every pair, in plain Python."""
    pairs, frequency = Counter(pairwise(stream)), Counter(stream[1:])
    total = len(stream) - 1 + VOCABULARY
    table = []
    for current in range(VOCABULARY):
        row = [pairs[current, following] for following in range(VOCABULARY)]
        n, k = sum(row), sum(count > 0 for count in row)
        w = 0 if n == 0 else n / (n + k) if weight is None else weight
        unigram = [(frequency[following] + 1) / total for following in range(VOCABULARY)]
        table.append([w * (c / n if n else 0) + (1 - w) * u for c, u in zip(row, unigram, strict=True)])
    return torch.tensor(table, dtype=torch.float64)


@settings(deadline=None, max_examples=100)
@given(STREAMS, st.sampled_from(WEIGHTS))
def test_probabilities_are_those_by_hand(stream, weight):
    model = CountedBigram(count_bigrams(torch.tensor(stream), VOCABULARY), weight)
    got = model(torch.arange(VOCABULARY)).exp()
    assert torch.allclose(got.double(), by_hand(stream, weight), atol=1e-6)


def test_witten_bell_on_numbers_small_enough_to_check():
    """Row 0: n = 4 times, k = 2 followers, so 4 / 6; next = 1 in 3 of 4, and (3 + 1) / (5 + 3) at all."""
    model = CountedBigram(torch.tensor([[0.0, 3, 1], [1, 0, 0], [0, 0, 0]]))
    assert model.trust.tolist() == pytest.approx([4 / 6, 1 / 2, 0])
    assert model.frequency.tolist() == pytest.approx([2 / 8, 4 / 8, 2 / 8])
    assert model(torch.tensor([0]))[0, 1].exp().item() == pytest.approx(4 / 6 * 3 / 4 + 2 / 6 * 4 / 8)
    assert model(torch.tensor([2])).exp().tolist()[0] == pytest.approx([2 / 8, 4 / 8, 2 / 8])


def test_weight_zero_is_the_unigram_for_every_token_and_one_is_the_table():
    counts = count_bigrams(STREAM, VOCABULARY)
    unigram = (counts.sum(0) + 1) / (len(STREAM) - 1 + VOCABULARY)
    flat = CountedBigram(counts, weight=0)(torch.arange(VOCABULARY)).exp()
    assert torch.allclose(flat, unigram.expand(VOCABULARY, -1))
    table = CountedBigram(counts, weight=1)(torch.arange(VOCABULARY)).exp()
    assert torch.allclose(table[:4], counts[:4] / counts[:4].sum(1, keepdim=True))
    assert torch.allclose(table[4:], unigram.expand(2, -1))


def test_the_kind_of_number_that_counts_are_changes_nothing():
    counts = count_bigrams(STREAM, VOCABULARY)
    for weight in WEIGHTS:
        want = CountedBigram(counts, weight)(STREAM)
        for dtype in (torch.int64, torch.int32, torch.bfloat16):
            assert torch.equal(CountedBigram(counts.to(dtype), weight)(STREAM), want)
        exact = CountedBigram(counts.double(), weight)(torch.arange(VOCABULARY)).exp()
        assert (exact - by_hand(STREAM.tolist(), weight)).abs().max() < 1e-12
        half = CountedBigram(counts / 8, weight)(torch.arange(VOCABULARY)).exp()  # counts may be weighted: rows below 1
        assert torch.allclose(half.sum(-1), torch.ones(VOCABULARY), atol=1e-6)


@pytest.mark.parametrize(
    "model", [CountedBigram(count_bigrams(STREAM, VOCABULARY)), randomise(BigramNetwork(BigramConfig(**SMALL)))]
)
def test_shapes(model):
    ids = torch.randint(VOCABULARY, (3, 4))
    assert model(ids).shape == (3, 4, VOCABULARY)
    assert model(ids[0]).shape == (4, VOCABULARY)
    assert model(ids[None]).shape == (1, 3, 4, VOCABULARY)
    assert torch.allclose(model(ids)[1], model(ids[1]), atol=1e-6)
    assert torch.equal(model(ids.int()), model(ids))


def test_state_dicts_restore_both_models():
    ids = torch.arange(VOCABULARY)
    one, other = (CountedBigram(count_bigrams(s, VOCABULARY), w) for s, w in ((STREAM, None), (STREAM.flip(0), 0.5)))
    assert not torch.equal(one(ids), other(ids))
    other.load_state_dict(one.state_dict(), strict=True)
    assert set(one.state_dict()) == {"row", "trust", "frequency"}
    assert torch.equal(one(ids), other(ids))
    network, again = randomise(BigramNetwork(BigramConfig(**SMALL))), BigramNetwork(BigramConfig(**SMALL))
    again.load_state_dict(network.state_dict(), strict=True)
    assert torch.equal(network(ids), again(ids))


def test_a_position_knows_its_own_token_alone():
    model = randomise(BigramNetwork(BigramConfig(**SMALL)))
    ids = torch.randint(VOCABULARY, (2, 7))
    before = model(ids)
    for t in range(7):
        changed = ids.clone()
        changed[0, t] = (ids[0, t] + 1) % VOCABULARY
        after = model(changed)
        same = torch.ones(2, 7, dtype=torch.bool)
        same[0, t] = False
        assert torch.equal(after[same], before[same])
        assert not torch.equal(after[0, t], before[0, t])
    assert torch.equal(model(torch.full((5,), 3)), model(torch.full((5,), 3)).roll(1, 0))  # nor its position


def test_the_network_is_its_parts():
    model = randomise(BigramNetwork(BigramConfig(**SMALL)))
    assert [block.mlp.up.weight.shape for block in model.blocks] == [(12, 8), (12, 8)]
    x = model.embedding(STREAM)
    for block in model.blocks:
        x = x + block.mlp(block.norm(x))
    assert torch.equal(model(STREAM), model.unembedding(model.norm(x)))


def test_every_parameter_gets_a_gradient():
    model = BigramNetwork(BigramConfig(**SMALL))
    F.cross_entropy(model(torch.arange(VOCABULARY)), torch.arange(VOCABULARY).roll(1)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert (model.embedding.weight.grad.abs().sum(1) > 0).all()


def test_weights_depend_on_the_seed_alone():
    one, same, other = (BigramNetwork(BigramConfig(**SMALL, seed=seed)).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    for name in ("embedding.weight", "blocks.1.mlp.up.weight", "unembedding.weight"):
        assert not torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("make", [lambda v: BigramNetwork(BigramConfig(v, 8, 12)), lambda v: torch.nn.Embedding(v, v)])
def test_counted_loss_is_cross_entropy_over_the_stream(make):
    """Value and gradients, in float64; tokens never seen included."""
    model = randomise(make(VOCABULARY)).double()
    loss, metrics = counted_loss(model, count_bigrams(STREAM, VOCABULARY))
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    want = F.cross_entropy(model(STREAM[:-1]), STREAM[1:])
    assert loss.dtype == torch.float64
    assert abs(loss - want).item() < 1e-10
    assert metrics == {}
    for got, other in zip(gradients, torch.autograd.grad(want, list(model.parameters())), strict=True):
        assert (got - other).abs().max() < 1e-10
        assert other.abs().max() > 1e-3


def test_counted_loss_of_half_types_is_float32():
    model = randomise(BigramNetwork(BigramConfig(**SMALL))).bfloat16()
    loss, _ = counted_loss(model, count_bigrams(STREAM, VOCABULARY))
    assert loss.dtype == torch.float32
    want = F.cross_entropy(model(torch.arange(VOCABULARY)).double()[STREAM[:-1]], STREAM[1:])
    assert abs(loss - want) < 1e-5


def test_the_network_learns_more_than_the_unigram():
    stream = torch.randint(VOCABULARY, (400,))
    stream[1::2] = (stream[::2] + 1) % VOCABULARY  # every other token is the one before it, plus 1
    counts = count_bigrams(stream, VOCABULARY)
    unigram, table = (counted_loss(CountedBigram(counts, w), counts)[0].item() for w in (0, 1))
    model = BigramNetwork(BigramConfig(**SMALL))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    begin = counted_loss(model, counts)[0].item()
    for _ in range(60):
        loss, _ = counted_loss(model, counts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert begin > unigram - 0.05
    assert table - 1e-4 < loss.item() < unigram - 0.3  # no bigram is below the counts themselves


COUNTS = torch.ones(3, 3)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: count_bigrams(torch.tensor([1]), 3), "stream has shape (1,); needed is (N,)"),
        (lambda: count_bigrams(torch.ones(2, 3, dtype=torch.long), 3), "stream has shape (2, 3)"),
        (lambda: count_bigrams(torch.tensor([0, 3]), 3), "stream goes from 0 to 3; with vocab_size=3"),
        (lambda: count_bigrams(torch.tensor([2, -1]), 3), "stream goes from -1 to 2; with vocab_size=3 the last is 2"),
        (lambda: count_bigrams(torch.tensor([0, 1]), 0), "vocab_size=0; it must be 1 or more, a whole number"),
        (lambda: count_bigrams(torch.tensor([0.0, 1.0]), 3), "stream is torch.float32 (2,); token ids are int64"),
        (lambda: count_bigrams(torch.tensor([0, 1], dtype=torch.uint8), 3), "stream is torch.uint8 (2,)"),
        (lambda: CountedBigram(torch.ones(3)), "counts is torch.float32 (3,); needed is (V, V)"),
        (lambda: CountedBigram(torch.ones(3, 2)), "counts is torch.float32 (3, 2)"),
        (lambda: CountedBigram(-COUNTS), "counts has -1.0 as its smallest"),
        (lambda: CountedBigram(COUNTS * math.nan), "counts has nan"),
        (lambda: CountedBigram(COUNTS, weight=1.01), "weight=1.01"),
        (lambda: CountedBigram(COUNTS, weight=-0.01), "weight=-0.01"),
        (lambda: CountedBigram(COUNTS, weight=math.nan), "weight=nan"),
        (lambda: CountedBigram(COUNTS)(torch.tensor([1, 0], dtype=torch.uint8)), "ids is torch.uint8 (2,)"),
        (lambda: CountedBigram(COUNTS)(torch.tensor([1, 3])), "ids goes from 1 to 3; with vocab_size=3 the last is 2"),
        (lambda: KneserNeyBigram(COUNTS)(torch.tensor([-1])), "ids goes from -1 to -1; with vocab_size=3"),
        (lambda: BigramNetwork(BigramConfig(5))(torch.tensor([[0, 5]])), "ids goes from 0 to 5; with vocab_size=5"),
        (lambda: BigramNetwork(BigramConfig(**SMALL))(torch.ones(2)), "ids is torch.float32 (2,)"),
        (
            lambda: counted_loss(CountedBigram(COUNTS), torch.ones(2, 2)),
            "counts has shape (2, 2); the model's logits need",
        ),
        (lambda: counted_loss(CountedBigram(COUNTS), torch.ones(3)), "counts is torch.float32 (3,)"),
        (lambda: counted_loss(CountedBigram(COUNTS), torch.ones(4, 4)), "counts has shape (4, 4); the model refuses"),
    ],
)
def test_bad_input_names_itself(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()


def test_kneser_ney_by_hand():
    """a b a b a c b a d: against the formula written out with plain numbers."""
    stream = torch.tensor([0, 1, 0, 1, 0, 2, 1, 0, 3])
    pairs = Counter(pairwise(stream.tolist()))
    once, twice = (sum(n == k for n in pairs.values()) for k in (1, 2))
    discount = once / (once + 2 * twice)
    before = [1 + len({a for a, b in pairs if b == token}) for token in range(5)]
    got = KneserNeyBigram(count_bigrams(stream, 5))(torch.arange(5)).exp()
    for a in range(5):
        seen = sum(n for (x, _), n in pairs.items() if x == a)
        followers = sum(x == a for x, _ in pairs)
        for b in range(5):
            rest = before[b] / sum(before)
            want = rest if seen == 0 else max(pairs[a, b] - discount, 0) / seen + discount * followers / seen * rest
            assert got[a, b].item() == pytest.approx(want, rel=1e-5), (a, b)
    assert torch.allclose(got.sum(1), torch.ones(5))


def test_kneser_ney_asks_what_a_token_follows():
    """Token 2 comes ten times, always after 1; token 3 five times, each after another token."""
    stream = torch.tensor([1, 2] * 10 + [4, 3, 5, 3, 6, 3, 7, 3, 8, 3, 4, 9])
    counts = count_bigrams(stream, 10)
    unseen = torch.tensor([0])  # a row without counts
    kneser_ney, plain = KneserNeyBigram(counts)(unseen)[0], CountedBigram(counts)(unseen)[0]
    assert kneser_ney[3] > kneser_ney[2]
    assert plain[3] < plain[2]
    with pytest.raises(ValueError, match="no pair that was seen once"):
        KneserNeyBigram(torch.full((3, 3), 2.0))


def test_both_neighbours_say_what_stands_between():
    counts = count_bigrams(STREAM, VOCABULARY)
    follows = KneserNeyBigram(counts)(torch.arange(VOCABULARY))  # row: the current token
    ids, at = torch.tensor([[0, 5, 1, 2]]), torch.tensor([[0, 1, 3]])
    logits = TwoSidedBigram(counts)(ids, at=at)[0]
    torch.testing.assert_close(logits[0], follows[:, 5])  # nothing stands before it
    torch.testing.assert_close(logits[1], follows[0] + follows[:, 1])
    torch.testing.assert_close(logits[2], follows[1])  # nothing stands after it
    changed = ids.clone()
    changed[0, 1] = 3
    assert torch.equal(TwoSidedBigram(counts)(changed, at=at)[0, 1], logits[1])  # the gap's own token is not looked at
    with pytest.raises(ValueError, match="6"):
        TwoSidedBigram(counts)(torch.tensor([[6]]), at=torch.tensor([[0]]))
