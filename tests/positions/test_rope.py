"""RoPE: which way it turns, what it keeps, precision, frequencies for longer texts, and what is refused."""

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.positions import RotaryPosition
from course_lib.positions.rope import EXTENSIONS, change_layout, rope_frequencies, rotate_pairs
from tests.conftest import relative_error
from tests.positions.test_positions import SCHEMES, D, H, heads, logits, scheme

ROPES = [name for name in SCHEMES if name.startswith("rope")]


@pytest.mark.parametrize("name", ROPES)
def test_turning_keeps_norms_and_the_channels_that_do_not_turn(name):
    position, (q, k) = scheme(name), heads(6, 9)
    q_pos, k_pos = torch.randint(0, 10**5, (2, 6)), torch.randint(0, 10**5, (9,))
    for before, after in zip((q, k), position.rotate(q, k, q_pos, k_pos), strict=True):
        pairs = position.rotary_dim // 2
        assert torch.equal(after[..., 2 * pairs :], before[..., 2 * pairs :])
        assert not torch.isclose(after[..., : 2 * pairs], before[..., : 2 * pairs]).all(-1).any()
        split = (lambda x: (x[..., 0::2], x[..., 1::2])) if "interleaved" in name else (lambda x: x.chunk(2, -1))
        lengths = [torch.hypot(*split(x[..., : 2 * pairs])) for x in (before, after)]
        assert relative_error(lengths[1], lengths[0]) < 1e-6
    assert torch.equal(position.rotate(q, k, 0 * q_pos, 0 * k_pos)[0], q)


@pytest.mark.parametrize("layout", ["half_split", "interleaved"])
def test_a_pair_turns_by_its_place_times_its_frequency(layout):
    """As a complex number, times exp(i p f): which way, and which channels."""
    q, k = heads(4, 4)
    pos = torch.tensor([0, 1, 7, 300])
    channels = torch.arange(6).view(2, 3) if layout == "half_split" else torch.arange(6).view(3, 2).T
    got = RotaryPosition(6, 50.0, layout=layout).rotate(q, k, pos, pos.flip(0))
    for x, y, places in zip((q, k), got, (pos, pos.flip(0)), strict=True):
        for i in range(3):
            turn = torch.polar(torch.ones(4).double(), places.double() * 50.0 ** (-2 * i / 6))
            want = torch.complex(x[..., channels[0, i]], x[..., channels[1, i]]) * turn
            assert torch.allclose(y[..., channels[0, i]], want.real, atol=1e-4)
            assert torch.allclose(y[..., channels[1, i]], want.imag, atol=1e-4)


@given(st.integers(1, 64), st.floats(1.5, 1e6), st.sampled_from(EXTENSIONS), st.floats(1.0, 50.0))
def test_higher_pairs_turn_slower(pairs, theta, extension, factor):
    factor = 1.0 if extension == "none" else factor
    frequencies = rope_frequencies(2 * pairs, theta, extension=extension, factor=factor)
    assert frequencies.shape == (pairs,)
    assert (frequencies.diff() < 0).all()
    plain = rope_frequencies(2 * pairs, theta)
    assert plain[0] == 1
    if extension == "interpolate":
        assert torch.equal(frequencies, plain / factor)
    if extension == "ntk":  # the first unchanged, the last slowed by the factor, geometric steps between
        assert frequencies[0] == 1
        steps = factor ** (-torch.arange(pairs) / max(pairs - 1, 1))
        assert torch.allclose(frequencies, plain * steps, rtol=1e-4)


def test_a_single_pair_is_the_first_one():
    assert rope_frequencies(2, extension="ntk", factor=4.0).tolist() == [1.0]
    assert rope_frequencies(2, extension="interpolate", factor=4.0).tolist() == [0.25]


@pytest.mark.parametrize("factor", [2.0, 4.0, 10.0])
def test_interpolated_angles_are_those_of_nearer_places(factor):
    pos, q = torch.arange(0, 50), heads(50, 50)[0]
    plain = RotaryPosition(D)
    stretched = RotaryPosition(D, extension="interpolate", factor=factor)
    assert torch.allclose(stretched.angles((pos * factor).long()), plain.angles(pos), rtol=1e-6)
    far = stretched.rotate(q, q, (pos * factor).long(), pos)[0]
    assert torch.allclose(far, plain.rotate(q, q, pos, pos)[0], atol=1e-5)


def test_angles_are_float32_in_a_bfloat16_model():
    """Far out, q·k is what it is near the start; with angles, cosines and sums in bfloat16 it is something else."""
    q, k = heads(64, 64, torch.bfloat16)
    pos, rope = torch.arange(64), RotaryPosition(D).to(torch.bfloat16)
    assert rope.angles(pos).dtype == torch.float32
    exact = logits(RotaryPosition(D), q.double(), k.double(), pos, pos)
    for shift in (0, 1000, 100_000):
        turned = rope.rotate(q, k, pos + shift, pos + shift)
        got = turned[0].double() @ turned[1].double().mT / math.sqrt(D)  # rounded once: the turned vectors
        assert relative_error(got, exact) < 0.02, shift
    far = (pos + 100_000).bfloat16().unsqueeze(-1)  # 256 places to a number: nothing turns against anything
    wrong = [rotate_pairs(x, far * rope_frequencies(D)).double() for x in (q, k)]
    assert relative_error(wrong[0] @ wrong[1].mT / math.sqrt(D), exact) > 0.2


def test_sums_of_a_rotation_are_float32():
    """A bfloat16 result is the exact one rounded once, but for ties."""
    x, angles = heads(500, 1, torch.bfloat16)[0], torch.arange(500)[:, None] * rope_frequencies(D)
    got, exact = rotate_pairs(x, angles), rotate_pairs(x.double(), angles)
    assert ((got.double() - exact).abs() <= 2**-8 * exact.abs() + 1e-6).all()


Q, POS = torch.zeros(2, H, 5, D), torch.arange(5)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: rope_frequencies(0), "rotary_dim=0; it must be even and at least 2"),
        (lambda: RotaryPosition(5), "rotary_dim=5"),
        (lambda: RotaryPosition(4, 1.0), "theta=1.0; it must be above 1"),
        (lambda: RotaryPosition(4, math.nan), "theta=nan"),
        (lambda: RotaryPosition(4, extension="yarn"), "extension='yarn'; allowed are 'none', 'interpolate', 'ntk'"),
        (lambda: RotaryPosition(4, extension="ntk", factor=0.5), "factor=0.5 with extension='ntk'; needed is 1 or"),
        (lambda: RotaryPosition(4, factor=2.0), "factor=2.0 with extension='none'"),
        (lambda: RotaryPosition(4, extension="ntk", factor=math.nan), "factor=nan"),
        (lambda: RotaryPosition(4, layout="halves"), "layout='halves'; allowed are 'half_split', 'interleaved'"),
        (lambda: rotate_pairs(Q, torch.zeros(5, 2), "halves"), "layout='halves'"),
        (lambda: rotate_pairs(Q, torch.zeros(5, 5)), "angles: 5 pairs need 10 channels; x has 8"),
        (lambda: RotaryPosition(10).rotate(Q, Q, POS, POS), "angles: 5 pairs need 10 channels; x has 8"),
        (lambda: RotaryPosition(4).rotate(Q, Q, POS[:1], POS), "q_pos has shape (1,); needed is (5,) or (2, 5)"),
        (lambda: RotaryPosition(4).rotate(Q, Q, POS, POS[:4]), "k_pos has shape (4,)"),
        (lambda: RotaryPosition(4).rotate(Q, Q, POS, POS.expand(3, 5)), "k_pos has shape (3, 5)"),
        (lambda: RotaryPosition(4).angles(POS.float()), "pos is torch.float32; needed is an int64 or int32 tensor"),
        (lambda: change_layout(torch.zeros(8, 3), 2, 4, "halves"), "to='halves'; allowed are 'half_split', 'inter"),
        (lambda: change_layout(torch.zeros(8, 3), 3, 4, "interleaved"), "n_heads=3 does not divide the 8 rows"),
        (lambda: change_layout(torch.zeros(8, 3), 0, 4, "interleaved"), "n_heads=0"),
        (lambda: change_layout(torch.zeros(8, 3), 2, 3, "interleaved"), "rotary_dim=3; it must be even, from 2 to the"),
        (lambda: change_layout(torch.zeros(8, 3), 2, 6, "interleaved"), "rotary_dim=6"),
    ],
)  # fmt: skip
def test_bad_input_names_itself(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()
