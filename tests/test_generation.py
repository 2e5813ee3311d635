"""Generation: which tokens may be drawn, how often, and that a seed and a cache change nothing but time."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.generation import generate, left_padded, next_token_probabilities
from course_lib.models.gpt2 import GPT2, GPT2Config
from tests.conftest import randomise

P = torch.tensor([0.1, 0.4, 0.05, 0.25, 0.2])


def logits(*probabilities):
    return torch.tensor(probabilities).log()


def kept(probabilities):
    return set(probabilities.nonzero().flatten().tolist())


def test_temperature_is_a_power_of_the_probabilities():
    assert torch.allclose(next_token_probabilities(P.log()), P, atol=1e-6)
    assert torch.allclose(next_token_probabilities(P.log() + 100), P, atol=1e-5)
    for temperature in (0.25, 0.5, 2.0, 10.0):
        want = P ** (1 / temperature)
        assert torch.allclose(next_token_probabilities(P.log(), temperature), want / want.sum(), atol=1e-6)
    assert torch.allclose(next_token_probabilities(P.log(), 1e9), torch.full((5,), 0.2), atol=1e-6)
    for tiny in (0.0, 1e-6, 1e-30, 1e-300):
        assert next_token_probabilities(P.log(), tiny).tolist() == [0, 1, 0, 0, 0]
        assert next_token_probabilities(P.log() + 100, tiny).tolist() == [0, 1, 0, 0, 0]
        assert next_token_probabilities(P.log() - 100, tiny).tolist() == [0, 1, 0, 0, 0]


def test_greedy_takes_the_first_of_equals():
    assert next_token_probabilities(torch.tensor([1.0, 3.0, 3.0]), 0).tolist() == [0, 1, 0]
    assert next_token_probabilities(torch.tensor([-1.0, -3.0, -3.0]), 0, top_k=1, top_p=0.1).tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("top_k", "wanted"),
    [(1, {1}), (2, {1, 3}), (3, {1, 3, 4}), (4, {0, 1, 3, 4}), (5, {0, 1, 2, 3, 4}), (99, {0, 1, 2, 3, 4})],
)
def test_top_k_keeps_the_largest(top_k, wanted):
    got = next_token_probabilities(P.log(), top_k=top_k)
    assert kept(got) == wanted
    want = torch.where(torch.tensor([i in wanted for i in range(5)]), P, 0)
    assert torch.allclose(got, want / want.sum(), atol=1e-6)


def test_top_k_keeps_ties_with_the_last():
    assert kept(next_token_probabilities(logits(0.2, 0.3, 0.1, 0.2, 0.2), top_k=2)) == {0, 1, 3, 4}
    assert kept(next_token_probabilities(torch.zeros(4), top_k=1)) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("top_p", "wanted"),
    [
        (1e-9, {1}),
        (0.39, {1}),
        (0.41, {1, 3}),
        (0.64, {1, 3}),
        (0.66, {1, 3, 4}),
        (0.84, {1, 3, 4}),
        (0.86, {0, 1, 3, 4}),
        (0.94, {0, 1, 3, 4}),
        (0.96, {0, 1, 2, 3, 4}),
        (1, {0, 1, 2, 3, 4}),
    ],
)
def test_top_p_keeps_the_smallest_set(top_p, wanted):
    got = next_token_probabilities(P.log(), top_p=top_p)
    assert kept(got) == wanted
    want = torch.where(torch.tensor([i in wanted for i in range(5)]), P, 0)
    assert torch.allclose(got, want / want.sum(), atol=1e-6)


def test_top_p_at_exactly_the_sum_needs_no_more():
    """Halves and quarters are exact: at least 0.5 is had by the first alone."""
    halves = logits(0.5, 0.25, 0.25)
    assert kept(next_token_probabilities(halves, top_p=0.5)) == {0}
    assert kept(next_token_probabilities(halves, top_p=0.75)) == {0, 1}  # of equals the first
    assert kept(next_token_probabilities(halves, top_p=0.76)) == {0, 1, 2}


def test_top_p_of_one_keeps_every_token():
    """A sum of many float32 numbers reaches 1 before the last of them."""
    many = 3 * torch.randn(50_000)
    assert torch.equal(next_token_probabilities(many, top_p=1.0), next_token_probabilities(many))
    assert (next_token_probabilities(many, top_p=1.0) > 0).all()


def test_top_p_counts_after_temperature_and_top_k():
    assert kept(next_token_probabilities(P.log(), 0.5, top_p=0.56)) == {1}  # 0.16 of 0.285 = 0.561
    assert kept(next_token_probabilities(P.log(), 1.0, top_p=0.56)) == {1, 3}
    assert kept(next_token_probabilities(P.log(), top_k=2, top_p=0.6)) == {1}  # 0.4 of 0.65 = 0.615
    assert kept(next_token_probabilities(P.log(), top_k=2, top_p=0.62)) == {1, 3}


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(-8, 8), min_size=1, max_size=9), st.floats(0.05, 5), st.none() | st.integers(1, 9),
    st.none() | st.floats(0.01, 1),
)  # fmt: skip
def test_a_distribution_whatever_is_asked(values, temperature, top_k, top_p):
    rows = torch.tensor([values, values[::-1]])
    got = next_token_probabilities(rows, temperature, top_k, top_p)
    assert got.dtype == torch.float32
    assert torch.allclose(got.sum(-1), torch.ones(2), atol=1e-5)
    for row, alone in zip(got, rows, strict=True):  # rows know nothing of each other
        assert torch.equal(row, next_token_probabilities(alone, temperature, top_k, top_p))
    plain = next_token_probabilities(rows, temperature)
    assert torch.equal(plain.where(got > 0, 0).amax(-1), plain.amax(-1))  # a most likely one is always kept
    assert (got[got > 0] >= plain[got > 0] - 1e-6).all()  # what is left grows
    if top_p is not None and top_k is None:
        assert (plain.where(got > 0, 0).sum(-1) >= top_p - 1e-5).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_half_logits_are_widened_first(dtype):
    values = torch.randn(3, 6).to(dtype)
    got = next_token_probabilities(values, 0.7, top_k=4, top_p=0.9)
    assert torch.equal(got, next_token_probabilities(values.float(), 0.7, top_k=4, top_p=0.9))


def test_tokens_that_are_impossible_stay_so():
    values = torch.tensor([-torch.inf, 0.0, -torch.inf, 1.0])
    for options in ({}, {"top_k": 3}, {"top_p": 0.999}, {"top_p": 1.0}, {"temperature": 1e6}):
        assert kept(next_token_probabilities(values, **options)) == {1, 3}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return randomise(GPT2(GPT2Config(vocab_size=13, max_positions=16, d_model=8, n_heads=2, n_layers=2))).eval()


IDS = torch.tensor([[3, 1, 4], [1, 5, 9]])


def test_greedy_is_the_argmax_of_the_whole_text(model):
    got = generate(model, IDS, 9, temperature=0)
    assert got.shape == (2, 12)
    assert torch.equal(got[:, :3], IDS)
    with torch.no_grad():
        assert torch.equal(got[:, 3:], model(got[:, :-1]).argmax(-1)[:, 2:])


@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"temperature": 2.0, "top_k": 5}, {"top_p": 0.8}])
@pytest.mark.parametrize("n_kv", [1, 2])
def test_a_cache_changes_nothing_but_time(n_kv, options):
    config = GPT2Config(vocab_size=13, max_positions=16, d_model=8, n_heads=2, n_kv_heads=n_kv, n_layers=2)
    model = randomise(GPT2(config)).eval()
    for seed in range(4):
        got = generate(model, IDS, 13, seed=seed, **options)
        assert torch.equal(got, generate(model, IDS, 13, seed=seed, use_cache=False, **options))


def test_with_a_cache_each_token_goes_through_the_model_once(model):
    seen = []

    class Counted(nn.Module):
        def forward(self, ids, caches=None):
            seen.append((ids.shape[1], caches is not None))
            return model(ids, caches)

        def new_caches(self):
            return model.new_caches()

    generate(Counted(), IDS, 4)
    assert seen == [(3, True), (1, True), (1, True), (1, True)]
    seen.clear()
    generate(Counted(), IDS, 3, use_cache=False)
    assert seen == [(3, False), (4, False), (5, False)]


def test_a_seed_gives_the_same_text_and_leaves_the_global_generator_alone(model):
    state = torch.random.get_rng_state()
    one, again, other = (generate(model, IDS, 10, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(generate(model, IDS, 10), generate(model, IDS, 10, seed=0))


class Dice(nn.Module):
    """Draws from P, whatever came before."""

    def forward(self, ids, caches=None):
        assert not torch.is_grad_enabled()
        return P.log().expand(*ids.shape, 5)

    def new_caches(self):
        return []


def test_tokens_come_as_often_as_they_are_likely():
    text = generate(Dice(), torch.ones(4000, 1, dtype=torch.long), 5)[:, 1:]
    for step in text.T:
        share = torch.bincount(step, minlength=5) / len(step)
        assert (share - P).abs().max() < 4 * (0.25 / len(step)) ** 0.5
    assert (text[:, 0] != text[:, 1]).any()
    few = generate(Dice(), torch.ones(500, 1, dtype=torch.long), 3, top_k=2)[:, 1:]
    assert set(few.flatten().tolist()) == {1, 3}
    few = generate(Dice(), torch.ones(500, 1, dtype=torch.long), 3, top_p=0.66)[:, 1:]
    assert set(few.flatten().tolist()) == {1, 3, 4}


def test_the_last_position_may_be_used_and_no_further(model):
    full = generate(model, IDS, 14, temperature=0)  # the 17th token is drawn from the 16th place, and has none itself
    assert full.shape == (2, 17)
    for use_cache in (True, False):
        with pytest.raises(ValueError, match="ids: a text of 17 tokens; max_positions=16"):
            generate(model, IDS, 15, use_cache=use_cache)


def test_nothing_to_add_and_other_integers(model):
    assert torch.equal(generate(model, IDS, 0), IDS)
    got = generate(model, IDS.int(), 4)
    assert got.dtype == torch.int32
    assert torch.equal(got.long(), generate(model, IDS, 4))


def test_the_model_is_used_as_it_is(model):
    model.train()
    generate(model, IDS, 2)
    assert model.training
    model.eval()
    generate(model, IDS, 2)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_an_endless_temperature_is_an_even_draw_from_what_is_allowed():
    assert next_token_probabilities(torch.tensor([1.0, -torch.inf, 2.0]), torch.inf).tolist() == [0.5, 0, 0.5]
    ties = next_token_probabilities(torch.tensor([1.0, 3.0, 2.0]), torch.inf, top_k=1)
    assert ties.tolist() == [pytest.approx(1 / 3)] * 3  # all tie with the first


PROMPTS = [[4], [1, 2, 3, 4, 1], [2, 2]]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 1.5, "top_k": 3}])
def test_prompts_of_any_length_in_one_batch(model, options, use_cache):
    """Each goes on as it would alone: greedily to the bit, and with the same probabilities."""
    ids = left_padded(PROMPTS)
    assert ids.tolist() == [[0, 0, 0, 0, 4], [1, 2, 3, 4, 1], [0, 0, 0, 2, 2]]
    got = generate(model, ids, 5, use_cache=use_cache, **options)
    assert torch.equal(got[:, :5], ids)
    if options["temperature"] == 0:
        for row, prompt in zip(got, PROMPTS, strict=True):
            alone = generate(model, torch.tensor([prompt]), 5, use_cache=use_cache, **options)
            assert torch.equal(row[5:], alone[0, len(prompt) :])
    assert torch.equal(got, generate(model, ids, 5, use_cache=not use_cache, **options))


def test_who_is_told_of_padding():
    """A decoder of one's own need not know of it; in a vocabulary of one's own no token need be padding."""
    told = []

    class Spy(Dice):
        def forward(self, ids, caches=None, **given):
            told.append({name: value.tolist() for name, value in given.items()})
            return super().forward(ids)

    for ids, pad in (([[0, 4]], None), ([[4, 0, 0]], 0), ([[0, 4], [1, 0]], 0), ([[4, 1], [1, 0]], 4)):
        generate(Spy(), torch.tensor(ids), 2, pad=pad)
    masks = [[[False, True], [True, True]], [[False, True, True], [True, True, True]]]
    assert told == [{}] * 4 + [{"key_mask": mask} for mask in masks] * 2


class Broken(Dice):
    def forward(self, ids, caches=None):
        return super().forward(ids).masked_fill(torch.tensor([True, False, False, False, False]), torch.nan)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda m: generate(m, IDS, -1), "n_tokens=-1; it must be 0 or more"),
        (lambda m: generate(m, 0 * IDS, 1), "ids: a row holds nothing but pad=0; needed is one token or more"),
        (lambda m: left_padded([]), "prompts have lengths []; needed is one token or more in each"),
        (lambda m: left_padded([[3], []]), "prompts have lengths [1, 0]"),
        (lambda m: generate(m, IDS[0], 1), "ids has shape (3,); needed is (B, T) with at least one token"),
        (lambda m: generate(m, IDS[:, :0], 1), "ids has shape (2, 0)"),
        (lambda m: generate(m, IDS.float(), 1), "ids is torch.float32 (2, 3); needed is int64 or int32"),
        (lambda m: generate(m, IDS, 1, temperature=-0.1), "temperature=-0.1; it must be 0 (greedy) or more"),
        (lambda m: generate(m, IDS, 1, temperature=float("nan")), "temperature=nan"),
        (lambda m: generate(m, IDS, 1, top_k=0), "top_k=0; it must be at least 1, or None for all tokens"),
        (lambda m: generate(m, IDS, 1, top_p=0.0), "top_p=0.0; allowed is above 0 to 1"),
        (lambda m: generate(m, IDS, 1, top_p=1.1), "top_p=1.1; allowed is above 0 to 1"),
        (lambda m: generate(m, IDS, 1, top_p=float("nan")), "top_p=nan"),
        (lambda m: generate(Broken(), IDS, 1, temperature=0), "model: its logits are NaN"),
        (lambda m: generate(Broken(), IDS, 1), "model: its logits are NaN"),
    ],
)
def test_bad_input_names_itself(action, words, model):
    with pytest.raises(ValueError, match=re.escape(words)):
        action(model)


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_without_a_largest_are_refused(bad, temperature):
    with pytest.raises(ValueError, match="logits: the largest is infinite or NaN"):
        next_token_probabilities(torch.tensor([1.0, bad, 2.0]), temperature)
    masked = next_token_probabilities(torch.tensor([1.0, -torch.inf, 2.0]), temperature)
    assert masked[1] == 0
