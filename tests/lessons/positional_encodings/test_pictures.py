"""Lesson 05: turned vectors, biases and bins against brute force; what the widget shows is computed."""

import math
import re

import numpy as np
import pytest
import torch

from course_lib.experiments.seeds import interval
from course_lib.heads import previous_token
from course_lib.lessons.positional_encodings.bias_curves import (
    alibi_curves,
    bucket_view,
    mean_distance,
    plot_alibi,
    plot_buckets,
    plot_t5,
    t5_curves,
)
from course_lib.lessons.positional_encodings.distance_profile import distance_profile, plot_profiles
from course_lib.lessons.positional_encodings.extrapolation import (
    growth_by_position,
    perplexity_by_position,
    plot_by_position,
    plot_growth,
    position_edges,
)
from course_lib.lessons.positional_encodings.rope_frame import SPAN, example_vectors, plot_rope_frame, rope_frame
from course_lib.lessons.positional_encodings.rope_motion import plot_rope_step, rope_figures, rope_steps
from course_lib.lessons.positional_encodings.rope_widget import rope_panel
from course_lib.lessons.positional_encodings.scheme_dots import plot_relative, relative_perplexity
from course_lib.lessons.positional_encodings.sinusoids import (
    plot_position_similarity,
    plot_sinusoids,
    position_similarity,
    sinusoid_view,
)
from course_lib.lessons.positional_encodings.wavelengths import plot_wavelengths, wavelengths
from course_lib.positions import AlibiPosition, RotaryPosition, T5Position
from course_lib.positions.absolute import sinusoids
from course_lib.positions.relative import t5_buckets
from course_lib.positions.rope import rope_frequencies
from course_lib.viz import plots
from course_lib.viz.animate import gif, png

Q, K = example_vectors(16)


@pytest.fixture(autouse=True)
def _style():
    plots.use_house_style()


def is_labelled(figure):
    """Width as of the house, a title, and a name on each axis; maps in a row share the first one's rows."""
    assert figure.get_figwidth() <= plots.MAX_WIDTH
    for ax in figure.axes:
        named = any(re.search("[a-z]", tick.get_text()) for tick in ax.get_yticklabels())
        assert ax.get_xlabel() or ax.get_label() == "<colorbar>"
        assert ax.get_ylabel() or ax.images or named or not len(ax.get_yticks()) or ax.get_label() == "<colorbar>"
    assert figure.get_suptitle()
    assert png(figure)


def test_sinusoids_and_their_dots():
    view = sinusoid_view(32, 40, places=(3, 20))
    table = sinusoids(torch.arange(40), 32).numpy()
    assert np.allclose(view.table, table)
    for place, row in zip(view.places, view.dots, strict=True):
        for distance, dot in zip(view.distances, row, strict=True):
            inside = 0 <= place + distance < 40
            assert math.isnan(dot) != inside
            assert not inside or dot == pytest.approx(table[place] @ table[place + distance], rel=1e-5)
    both = np.isfinite(view.dots).all(0)
    assert np.allclose(view.dots[0, both], view.dots[1, both], atol=1e-4)  # the distance alone
    assert view.wavelengths[:2] == pytest.approx([2 * math.pi, 2 * math.pi * 10000 ** (2 / 32)])
    figure = plot_sinusoids(view)
    is_labelled(figure)
    assert np.allclose(figure.axes[0].images[0].get_array(), view.table)
    drawn = [line for line in figure.axes[1].lines if len(line.get_xdata()) == 40]
    for i, (line, channel) in enumerate(zip(drawn, view.waves, strict=True)):
        assert np.allclose(line.get_ydata() + 2.9 * i, view.table[:, channel])


def test_similarity_of_positions():
    table = np.random.default_rng(0).normal(size=(9, 5))
    found = position_similarity(table)
    assert found.cosine[2, 7] == pytest.approx(
        table[2] @ table[7] / math.sqrt((table[2] ** 2).sum() * (table[7] ** 2).sum())
    )
    assert found.mean[3] == pytest.approx(np.mean([found.cosine[i, i + 3] for i in range(6)]))
    assert found.high[2] == pytest.approx(np.percentile([found.cosine[i, i + 2] for i in range(7)], 95))
    same = position_similarity(sinusoids(torch.arange(30), 16))
    assert np.allclose(same.low, same.high, atol=1e-5)  # no spread: the distance decides
    figure = plot_position_similarity({"learned": found, "sinusoids": same})
    is_labelled(figure)
    assert np.allclose(figure.axes[1].images[0].get_array(), same.cosine)


@pytest.mark.parametrize("causal", [True, False])
def test_buckets_and_learned_biases(causal):
    view = bucket_view(16, 64, causal=causal, length=100)
    far = torch.arange(100)
    assert np.array_equal(view.before, t5_buckets(-far, 16, 64, bidirectional=not causal))
    assert (view.after is None) == causal
    is_labelled(plot_buckets(view))
    position = T5Position(3, 16, 64, bidirectional=not causal)
    curves = t5_curves(position.embedding.weight.detach(), 64, causal=causal, length=50)
    bias = position.bias(torch.tensor([49]), torch.arange(50))[:, 0].flip(-1).detach().numpy()  # by distance
    assert curves.bias.shape == (1, 3, 50)
    assert np.allclose(curves.bias[0], bias - bias.mean(1, keepdims=True), atol=1e-6)
    weights = np.exp(bias) / np.exp(bias).sum(1, keepdims=True)
    assert np.allclose(mean_distance(curves)[0], weights @ np.arange(50))
    figure = plot_t5(curves, t5_curves(np.zeros((16, 3)), 64, length=50))
    is_labelled(figure)
    order = np.argsort(mean_distance(curves)[0])
    names = [text.get_text() for text in figure.axes[0].texts[1:]]
    assert {name.split(":")[0] for name in names} == {"head 0", "head 1", "head 2"}
    assert np.allclose(figure.axes[0].lines[-3].get_ydata(), curves.bias[0, order[0]])
    assert len(plot_t5(t5_curves(np.zeros((2, 16, 3)), 64)).axes) == 2


def test_alibi_is_a_line_and_a_factor():
    curves = alibi_curves(4, length=20)
    expected = AlibiPosition(4).bias(torch.tensor([19]), torch.arange(20))[:, 0].flip(-1)
    assert np.allclose(curves.bias[0], expected)
    assert alibi_curves(4, 1 / 16, 20).bias.shape == (1, 1, 20)
    figure = plot_alibi(4, 64)
    is_labelled(figure)
    left, right = figure.axes
    for line, factor in zip(left.lines, right.lines, strict=True):
        assert np.allclose(np.exp(line.get_ydata()), factor.get_ydata())
    assert "slope 1/16" in {text.get_text() for text in left.texts}
    assert "½ at 11.1 tokens" in {text.get_text() for text in right.texts}


def test_each_of_many_heads_has_a_line():
    assert [len(ax.lines) for ax in plot_alibi(32).axes] == [33, 33]


def rotated(x, place, theta):
    """x (head_dim,) turned by complex numbers, as pairs (D / 2, 2)."""
    half = len(x) // 2
    z = (x[:half] + 1j * x[half:]) * np.exp(1j * place * theta ** (-np.arange(half) / half))
    return np.stack([z.real, z.imag], -1)


@pytest.mark.parametrize(("m", "n", "theta"), [(12, 7, 1e4), (3, 60, 100.0), (128, 128, 1e6)])
def test_a_rope_frame_is_two_rotations(m, n, theta):
    frame = rope_frame(m, n, 2, theta, q=Q, k=K)
    q, k = rotated(Q, m, theta), rotated(K, n, theta)
    assert np.allclose(frame.q_turned, q, atol=1e-4)
    assert np.allclose(frame.k_turned, k, atol=1e-4)
    assert np.allclose(frame.scores, (q * k).sum(1), atol=1e-4)
    assert np.allclose(frame.by_distance[SPAN + n - m], frame.scores, atol=1e-4)  # whatever the positions
    position = RotaryPosition(16, theta)
    a, b = (torch.from_numpy(x)[None, None, None] for x in (Q, K))
    a, b = position.rotate(a, b, torch.tensor([m]), torch.tensor([n]))
    assert frame.scores.sum() == pytest.approx((a * b).sum().item(), abs=1e-4)
    assert f"pair score {frame.scores[2]:.2f}, of all pairs {frame.scores.sum():.2f}" in frame.text()
    figure = plot_rope_frame(frame)
    is_labelled(figure)
    _, one, every, strip = figure.axes
    assert np.allclose(one.lines[1].get_ydata(), frame.by_distance[:, 2])
    assert np.allclose(every.lines[1].get_ydata(), frame.by_distance.sum(1))
    assert (every.lines[2].get_xdata()[0], every.lines[2].get_ydata()[0]) == (n - m, frame.scores.sum())
    assert np.allclose([line.get_xdata()[0] for line in strip.lines], frame.wavelengths)


@pytest.mark.slow
def test_what_the_rope_panel_shows_is_what_is_computed():
    panel = rope_panel()
    params = {"q_pos": 12, "k_pos": 7, "shift": 0, "pair": 1, "theta": 10_000.0}
    before = panel.shown.scores
    for change in ({"shift": 30}, {"pair": 5, "theta": 100.0}):
        for name, value in change.items():
            panel.controls[name].value = value
        params |= change
        assert panel.params == params
        expected = rope_frame(12 + params["shift"], 7 + params["shift"], params["pair"], params["theta"], q=Q, k=K)
        assert panel.shown.text() == expected.text()
        assert panel.children[2].value == png(plot_rope_frame(expected))
        assert expected.text() in panel.children[1].value
        if params["theta"] == 10_000:
            assert np.allclose(panel.shown.scores, before, atol=1e-5)  # both moved: the scores stay
    assert panel.children[2].value == png(panel.figure())
    own = rope_panel([1.0, 0.0], [0.0, 1.0], thetas=(50.0,))
    assert own.shown.scores[0] == pytest.approx(math.cos(math.pi / 2 - 5), abs=1e-5)


@pytest.mark.slow
def test_rope_in_motion(tmp_path):
    steps = rope_steps(Q, K, length=8, back=3)
    assert [(s.frame.q_pos, s.frame.k_pos) for s in steps] == [(m, m - 3) for m in range(3, 8)]
    scores = steps[0].scores
    for m in range(8):
        for n in range(8):
            expected = (rotated(Q, m, 1e4) * rotated(K, n, 1e4)).sum() if n <= m else math.nan
            assert scores[m, n] == pytest.approx(expected, abs=1e-4, nan_ok=True)
    assert np.allclose(steps[-1].along, steps[0].frame.scores.sum(), atol=1e-4)
    assert len(steps[2].along) == 3
    figure = plot_rope_step(steps[2])
    shown = next(ax.images[0].get_array() for ax in figure.axes if ax.images)
    assert np.isfinite(shown.filled(np.nan)).any(1).tolist() == [True] * 6 + [False] * 2
    assert steps[2].frame.scores.sum() == pytest.approx(float(figure.subfigs[2].get_suptitle().split()[-1]), abs=0.01)
    gif(rope_figures(steps[:2]), tmp_path / "rope.gif")
    assert (tmp_path / "rope.gif").stat().st_size > 1000


@pytest.mark.slow
def test_wavelengths_and_extensions():
    view = wavelengths(16, trained=128, factor=8)
    for name in ("none", "interpolate", "ntk"):
        frequencies = rope_frequencies(16, extension=name, factor=1 if name == "none" else 8)
        assert np.allclose(view.turns[name], 2 * math.pi / frequencies)
    assert view.incomplete.tolist() == [False] * 3 + [True] * 5
    assert np.allclose(view.angle_growth("none"), 8)
    assert np.allclose(view.angle_growth("interpolate"), 1)
    assert view.angle_growth("ntk")[[0, -1]] == pytest.approx([8, 1], rel=1e-4)
    figure = plot_wavelengths(view)
    is_labelled(figure)
    assert figure.get_suptitle() == "5 of 8 pairs never complete a turn in 128 tokens of training"
    is_labelled(plot_wavelengths(wavelengths(4, 1.5)))  # all turn


def fake_losses(length=64, seeds=3):
    r = np.random.default_rng(1)
    place = np.arange(1, length + 1)
    far = np.maximum(0, np.log(place / 16))
    noise = r.normal(size=(seeds, length)) * 0.01
    base = 4 + 1 / place + noise
    losses = {
        "rope": base + 0.5 * far,
        "alibi": base + 0.02,
        "alibi uniform": base + 0.03,
        "learned": base[:, :16] + 0.2,
    }
    return losses, {name: base + (0.02 if "alibi" in name else 0.0) for name in losses}


def test_perplexity_in_bins():
    losses, windows = fake_losses()
    edges = position_edges(64, 16)
    assert edges.tolist() == [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64]
    assert position_edges(100, 128 // 2)[-2:].tolist() == [91, 100]
    found = perplexity_by_position(losses, 16)
    assert found.edges.tolist() == edges.tolist()
    by_seed = losses["rope"][:, 32:45].mean(1)  # positions 33 to 45
    assert found.mean["rope"][-2] == pytest.approx(math.exp(by_seed.mean()))
    assert found.low["rope"][-2] == pytest.approx(math.exp(by_seed.min()))
    assert found.high["rope"][-2] == pytest.approx(math.exp(by_seed.max()))
    assert np.isnan(found.mean["learned"]).tolist() == [False] * 8 + [True] * 4
    figure = plot_by_position(found, first=4)
    is_labelled(figure)
    ax = figure.axes[0]
    assert {"rope", "alibi", "alibi uniform", "learned (■ ends at 16)"} <= {text.get_text() for text in ax.texts}
    vertical, rope, alibi, uniform = ax.lines[:4]
    assert list(vertical.get_xdata()) == [16, 16]
    assert np.allclose(rope.get_ydata(), found.mean["rope"][3:])
    assert (alibi.get_color(), alibi.get_linestyle()) == (uniform.get_color(), "-")  # one family
    assert uniform.get_linestyle() == "--"

    growth = growth_by_position(losses, windows, 16)
    ratio = (losses["rope"] - windows["rope"])[:, 45:].mean()
    assert growth.mean["rope"][-1] == pytest.approx(math.exp(ratio))
    figure = plot_growth(growth)
    is_labelled(figure)
    assert figure.get_suptitle() == (
        "Perplexity at 46 to 64 against windows of 16:\n"
        f"alibi, alibi uniform within 10 %; the others {math.exp(ratio):.2f} times as high\n(mean and range of 3 seeds)"
    )


def test_schemes_against_one_of_them():
    losses, _ = fake_losses()
    rows = relative_perplexity(losses, "alibi", 5, 16)
    assert [row.name for row in rows] == ["rope", "alibi uniform", "learned"]
    gap = losses["learned"][:, 4:16].mean(1) - losses["alibi"][:, 4:16].mean(1)
    learned = next(row for row in rows if row.name == "learned")
    expected = [100 * (math.exp(x) - 1) for x in interval(gap)]
    assert (learned.mean, learned.low, learned.high) == pytest.approx(expected)
    figure = plot_relative(rows, "alibi", {"learned": 9.7}, where="positions 5 to 16")
    is_labelled(figure)
    ax = figure.axes[0]
    hollow = [line for line in ax.lines if line.get_marker() == "D"]
    assert [line.get_xdata()[0] for line in hollow] == [9.7]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [row.name for row in rows]
    assert f"{learned.mean:+.1f} %" in {text.get_text() for text in ax.texts}


def test_heads_by_distance():
    maps = torch.rand(2, 3, 9, 9).tril()
    maps = maps / maps.sum(-1, keepdim=True)
    maps[1, 2] = torch.eye(9).roll(-1, 1).tril()  # looks at the token before; the first at itself
    maps[1, 2, 0, 0] = 1
    profile = distance_profile(maps.numpy(), threshold=0.9)
    for d in range(9):
        expected = np.mean([maps[0, 1, i, i - d].item() for i in range(d, 9)])
        assert profile.by_distance[0, 1, d] == pytest.approx(expected)
    assert np.allclose(profile.by_distance[..., 1], previous_token(maps[:, None]))
    assert profile.previous == [(1, 2)]
    assert profile.strongest(2)[0] == (1, 2)
    figure = plot_profiles({"absolute": distance_profile(maps[:1].numpy(), 0.9), "rotary": profile})
    is_labelled(figure)
    assert np.allclose(figure.axes[3].images[0].get_array(), maps[1, 2])
    assert figure.get_suptitle().endswith("0 in absolute, 1 in rotary")


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: sinusoid_view(7), "d_model=7"),
        (lambda: sinusoid_view(8, 4), "length=4"),
        (lambda: sinusoid_view(8, 16, (16,)), "places=(16,)"),
        (lambda: position_similarity(np.zeros(3)), "table has shape (3,)"),
        (lambda: position_similarity(np.eye(3) * [1, 0, 1]), "the vector of position 1 is 0"),
        (lambda: plot_position_similarity({}), "tables has 0 entries"),
        (lambda: bucket_view(length=1), "length=1"),
        (lambda: bucket_view(1), "n_buckets=1"),
        (lambda: t5_curves(np.zeros(4)), "embedding has shape (4,)"),
        (lambda: plot_t5(t5_curves(np.zeros((5, 32, 2)))), "curves has 5 seeds"),
        (lambda: alibi_curves(0), "n_heads=0"),
        (lambda: example_vectors(3), "head_dim=3"),
        (lambda: rope_frame(-1, 0, 0, q=Q, k=K), "q_pos=-1"),
        (lambda: rope_frame(0, 0, 8, q=Q, k=K), "pair=8; allowed is 0 to 7"),
        (lambda: rope_frame(0, 0, 0, q=Q, k=K[:4]), "q has shape (16,), k (4,)"),
        (lambda: rope_frame(0, 0, 0, 1.0, q=Q, k=K), "theta=1.0"),
        (lambda: rope_panel(Q), "q and k: one of them is None"),
        (lambda: rope_panel(Q[:3], K[:3]), "rotary_dim=3"),
        (lambda: rope_panel(thetas=(1.0,)), "thetas=(1.0,)"),
        (lambda: rope_steps(Q, K, length=4, back=3), "back=3; allowed is 1 to 2"),
        (lambda: rope_steps(Q, K, pairs=(0, 8, 1, 2)), "pairs=(0, 8, 1, 2)"),
        (lambda: wavelengths(16, trained=0), "trained=0"),
        (lambda: wavelengths(16, factor=0.5), "factor=0.5"),
        (lambda: position_edges(10, 11), "trained=11; allowed is 1 to 10, a whole number"),
        (lambda: perplexity_by_position({}), "losses is empty"),
        (lambda: perplexity_by_position({"rope": [1.0]}), "'rope' has shape (1,)"),
        (lambda: growth_by_position({"rope": [[1.0] * 9]}, {}, 4), "windows: 'rope' has shape ()"),
        (lambda: relative_perplexity({"rope": [[1.0]]}, "none"), "reference='none'"),
        (lambda: relative_perplexity({"rope": [[1.0]]}, "rope"), "needed are the positions 65 to 128"),
        (lambda: plot_relative([], "rope"), "rows is empty"),
        (lambda: distance_profile(np.zeros((2, 4, 4))), "maps has shape (2, 4, 4)"),
        (lambda: distance_profile(np.ones((1, 1, 4, 4))), "keys after the query"),
        (lambda: plot_profiles({}), "models is empty"),
    ],
)
def test_bad_input_names_itself(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()
