"""Lesson 04: maps are the kernels' own patterns, counts are exact, cones end where they must."""

import re

import numpy as np
import pytest
import torch

from course_lib.attention import Places
from course_lib.attention.blocks import attend
from course_lib.attention.masks import causal, window
from course_lib.attention.sdpa import attention
from course_lib.lessons.local_and_global_attention.complexity import (
    LONGEST,
    NAMES,
    Complexity,
    attention_of,
    exponent,
    measure_complexity,
    plot_complexity,
)
from course_lib.lessons.local_and_global_attention.pattern_choice import CATEGORIES, HEAD_DIM, HEADS, KINDS, Choice
from course_lib.lessons.local_and_global_attention.pattern_frame import FAR, TIMED, cost, pattern_frame, quick
from course_lib.lessons.local_and_global_attention.pattern_plots import COLORS, pattern_gallery, plot_pattern_frame
from course_lib.lessons.local_and_global_attention.pattern_widgets import (
    PLACES,
    PlacesPicker,
    complexity_widget,
    pattern_panel,
)
from course_lib.lessons.local_and_global_attention.reach import plot_reach, reach_frame
from course_lib.lessons.local_and_global_attention.study_plots import (
    plot_loss_against_seconds,
    plot_retrieval,
    plot_retrieval_curves,
    retrieval_lines,
)
from course_lib.models.sparse_bert import SparseBert, SparseBertConfig
from course_lib.viz import plots
from course_lib.viz.animate import png

CHOICES = [
    Choice("full"),
    Choice("window", 0),
    Choice("window", 16),
    Choice("window", 70),  # nearly all of a text of 100: no blocks
    Choice("window", 300),
    Choice("window + global", 8, places=()),
    Choice("window + global", 8, places=(0, 3, 4, 64, 99, 200)),
    Choice("BigBird", 8, n_random=0, places=(5,)),
    Choice("BigBird", 20, n_random=2, places=(0, 33)),
    Choice("BigBird", 5, n_random=9, places=()),
    Choice("dilated", 7, dilation=3),
    Choice("dilated", 60, dilation=2),
]
NAMED = [f"{c.kind} {c.radius} {len(c.places)}" for c in CHOICES]


@pytest.fixture(autouse=True)
def _style():
    plots.use_house_style()


def counted():
    """A clock that says 1, 2, 3, … ms, so that two frames can be compared."""
    calls = iter(range(1, 10_000))
    return lambda run: next(calls) / 1000


def fixed(run):
    """Every call takes 2 ms."""
    return 0.002


@pytest.mark.parametrize("choice", CHOICES, ids=NAMED)
@pytest.mark.parametrize("length", [17, 100, 256])
def test_the_map_is_the_pattern_and_the_count_is_the_maps(choice, length):
    places = torch.arange(length)
    codes = choice.map(length)
    allowed = (codes > 0) & (codes != CATEGORIES.index("computed in vain"))
    assert np.array_equal(allowed, choice.pattern(length).dense(places, places).numpy())
    assert choice.pairs(length) == allowed.sum() == choice.pattern(length).pairs(length)
    for name, pattern in choice.parts(length).items():  # where parts meet, a later one is drawn
        drawn = codes == CATEGORIES.index(name)
        assert not (drawn & ~pattern.dense(places, places).numpy()).any()
    is_global = np.isin(np.arange(length), choice.globals(length))
    assert np.array_equal(codes == CATEGORIES.index("global"), is_global[:, None] | is_global)


@pytest.mark.parametrize("choice", CHOICES, ids=NAMED)
def test_the_far_count_is_exact_too(choice):
    assert choice.pairs(1111) == choice.pattern(1111).pairs(1111)


def test_counts_have_closed_forms():
    length, radius = FAR, 8
    assert Choice("window", radius).pairs(length) == length * (2 * radius + 1) - radius * (radius + 1)
    assert Choice("full").pairs(length) == length**2
    globals_alone = Choice("window + global", 0, places=(0, 50, 100)).pairs(length)
    assert globals_alone == length + 3 * 2 * (length - 1) - 3 * 2  # each row and column once; the diagonal once
    assert Choice("BigBird", 16, n_random=2, places=()).pairs(length) == (
        Choice("window", 16).pairs(length) + length * 2 * 16
    )


@pytest.mark.parametrize("choice", [c for c in CHOICES if c.has_kernel], ids=str)
@pytest.mark.parametrize("length", [40, 100, 130])
def test_the_cost_is_what_the_kernel_computes(choice, length, monkeypatch):
    """The kernel's own calls are watched: how many scores it makes, how many bytes its keys and values take."""
    seen, read = [], []

    def watched(text, block, groups, mask, scale):
        seen.append((groups[0].k.shape[1], block, sum(keys.k.shape[2] for keys in groups)))
        return attend(text, block, groups, mask, scale)

    def reading(q, k, v, **options):
        read.append(k.untyped_storage().nbytes() + v.untyped_storage().nbytes())
        return attention(q, k, v, **options)

    monkeypatch.setattr("course_lib.attention.blocks.attention", reading)
    for module in ("local", "global_local"):
        monkeypatch.setattr(f"course_lib.attention.{module}.attend", watched)
    runs, found = choice.runs(length), cost(choice, length)
    dense, blocked = runs["dense"](), runs["blocked"]()
    assert (dense - blocked).abs().max() < 1e-5
    assert bool(seen) == choice.is_blocked(length)
    if seen:
        ((n, block, n_keys),) = seen
        assert found.computed == n * block * n_keys + len(choice.globals(length)) * length
        assert [found.copied_bytes] == read
    else:
        assert (found.computed, found.copied_bytes) == (length**2, 0)
    assert found.weight_bytes == 4 * HEADS * length**2
    assert found.flops == 4 * HEADS * HEAD_DIM * found.computed
    assert found.computed >= found.pairs
    assert found.share == found.pairs / length**2


def test_pairs_computed_in_vain_are_the_rest_of_the_blocks():
    choice = Choice("window", 8)
    grey = choice.map(160) == CATEGORIES.index("computed in vain")
    assert (
        grey.sum() + choice.pairs(160) == (3 * 10 - 2) * 16**2
    )  # ten blocks with two neighbours, less two at the ends
    assert grey.sum() + choice.pairs(160) + 2 * 16**2 == cost(choice, 160).computed  # and padding at both ends
    dilated = Choice("dilated", 4, dilation=3)
    assert not (dilated.map(160) == 0).any()  # no kernel in blocks: all is computed
    assert not dilated.has_kernel
    assert cost(dilated, 160).computed == 160**2


def test_a_frame_holds_what_was_counted_and_measured():
    frame = pattern_frame("window + global", 128, 8, 1, 2, (0, 64), measure=counted())
    choice = Choice("window + global", 8, 1, 2, (0, 64))
    assert np.array_equal(frame.map, choice.map(128))
    assert (frame.here, frame.far) == (cost(choice, 128), cost(choice, FAR))
    assert frame.lengths == (64, 128, 256, 512, 1024)
    assert np.allclose(frame.seconds["dense"], np.arange(1, 6) / 1000)
    assert np.allclose(frame.seconds["blocked"], np.arange(6, 11) / 1000)
    assert frame.faster_from is None
    assert frame.text() == f"{frame.counts()}. Measured here at T = 128: dense 2 ms, blocked 7 ms"
    assert f"{choice.pairs(128):,} pairs" in frame.counts()
    assert set(pattern_frame("full", 64, 8, 1, 2, (), measure=fixed).seconds) == {"dense"}
    assert pattern_frame("full", 64, 8, 1, 2, (), measure=fixed).lengths == TIMED


def test_blocks_win_from_the_length_after_the_last_they_lost():
    times = iter([1, 2, 4, 8, 16, 2, 1, 5, 4, 4])  # dense at five lengths, then blocked
    frame = pattern_frame("window", 128, 8, 1, 2, (), measure=lambda run: next(times))
    assert frame.faster_from == 512
    assert "blocks win at T ≥ 512" in plot_pattern_frame(frame).axes[2].get_title(loc="left")


def test_the_real_clock_measures_and_is_quick():
    calls = []
    assert 0 < quick(lambda: calls.append(0)) < 0.01
    assert len(calls) == 6  # one does not count
    frame = pattern_frame("window", 64, 4, 1, 2, (), timed=(64,))
    assert all((values > 0).all() for values in frame.seconds.values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_picture_shows_the_frame(kind):
    frame = pattern_frame(kind, 96, 8, 1, 2, (0, 32), measure=counted())
    figure = plot_pattern_frame(frame)
    picture, shares, times = figure.axes
    drawn = np.asarray(picture.images[0].get_array())
    palette = np.array([plots.mpl.colors.to_rgb(color) for color in COLORS.values()])
    assert np.allclose(drawn, palette[frame.map])
    points = [float(np.ravel(line.get_xdata())[0]) for line in shares.lines if line.get_marker() == "o"]
    assert points[:4] == pytest.approx(
        [frame.here.share, frame.far.share, frame.here.computed / 96**2, frame.far.computed / FAR**2]
    )
    for line, values in zip(times.lines[1:], frame.seconds.values(), strict=True):
        assert np.allclose(line.get_ydata(), 1000 * values)
    text = figure.get_suptitle()
    assert kind in text
    assert ("at T = 4,096" in text) == (kind != "full")


def test_the_gallery_is_computed():
    figure = pattern_gallery(96, 6)
    places = torch.arange(96)
    titles = {ax.get_title(loc="left").split("\n")[0]: ax for ax in figure.axes}
    assert len(titles) == 6
    ax = titles["causal window (Mistral)"]
    mask = (causal & window(6)).dense(places, places).numpy()
    assert np.array_equal(np.asarray(ax.images[0].get_array()).min(-1) < 1, mask)
    assert f"{100 * mask.mean():.2g} % of all pairs" in ax.get_title(loc="left")
    assert figure.get_figwidth() <= plots.MAX_WIDTH


@pytest.mark.slow
def test_what_the_pattern_panel_shows_is_what_is_computed():
    panel = pattern_panel(measure=fixed)
    params = {"kind": "window + global", "length": 128, "radius": 8, "n_random": 1, "dilation": 4, "places": (0,)}
    for change in ({}, {"kind": "BigBird", "n_random": 3, "places": (0, 96)}, {"kind": "full"}):
        for name, value in change.items():
            panel.controls[name].value = value
        params |= change
        assert panel.params == params
        expected = pattern_frame(**params, measure=fixed)
        assert panel.shown.text() == expected.text()
        assert panel.children[2].value == png(plot_pattern_frame(expected))
        assert "color" not in panel.children[1].value
    assert panel.children[2].value == png(panel.figure())
    assert [panel.controls[name].disabled for name in ("radius", "n_random", "dilation", "places")] == [True] * 4
    panel.controls["kind"].value = "BigBird"
    assert [panel.controls[name].disabled for name in ("radius", "n_random", "dilation", "places")] == [
        False, False, True, False,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_global_token_behind_the_end_is_refused_in_a_sentence():
    panel = pattern_panel(measure=fixed)
    picture = panel.children[2].value
    panel.controls["places"].buttons[224].value = True  # as a click does
    assert panel.params["places"] == (0, 224)
    assert "A global token at place 224 needs a text of 225 tokens; T=128." in panel.children[1].value
    assert panel.children[2].value == picture
    panel.controls["length"].value = 240
    assert panel.shown.choice.places == (0, 224)
    assert "color" not in panel.children[1].value


def test_a_strip_of_places():
    strip, heard = PlacesPicker(PLACES, (32,), "global tokens"), []
    strip.observe(lambda change: heard.append(change["new"]), names="value")
    assert [place for place, button in strip.buttons.items() if button.value] == [32]
    strip.buttons[0].value = True
    strip.buttons[32].value = False
    strip.value = (64, 96)
    assert heard == [(0, 32), (0,), (64, 96)]  # one message each
    assert [place for place, button in strip.buttons.items() if button.value] == [64, 96]
    with pytest.raises(ValueError, match="place 5 has no button"):
        strip.value = (5,)
    strip.disabled = True
    assert all(button.disabled for button in strip.buttons.values())


def encoder(pattern, **changes):
    config = {"vocab_size": 50, "max_positions": 64, "d_model": 16, "n_heads": 2, "n_layers": 3, "radius": 4}
    return SparseBert(SparseBertConfig(**(config | {"pattern": pattern} | changes))).eval()


@pytest.fixture
def ids():
    return torch.randint(0, 50, (64,))


def test_reach_is_zero_outside_the_cone(ids):
    frame = reach_frame(encoder("local"), ids, 30)
    far = np.abs(np.arange(64) - 30)
    for depth, row in enumerate(frame.strength):
        assert np.array_equal(row > 0, far <= 4 * (3 - depth))
    assert frame.arrives.sum() == 2 * 12 + 1
    assert frame.steps is None
    assert frame.text().endswith(": 1, 9, 17, 25")


def test_a_global_token_makes_it_two_steps(ids):
    frame = reach_frame(encoder("local_global"), ids, 30)
    assert frame.global_places == (0,)
    assert frame.steps == 2
    assert frame.strength[0, 63] > 0
    assert set(np.flatnonzero(frame.strength[2])) == {0, *range(26, 35)}  # one step: the window, and the global token
    assert (frame.strength[1] > 0).all()
    elsewhere = reach_frame(encoder("local_global"), ids, 30, torch.arange(64) == 60)
    assert elsewhere.global_places == (60,)
    assert set(np.flatnonzero(elsewhere.strength[2])) == {60, *range(26, 35)}
    assert reach_frame(encoder("full"), ids, 30).steps == 1
    assert reach_frame(encoder("full"), ids, 30).radius is None
    assert reach_frame(encoder("local_global", n_global=2), ids, 30).global_places == (0, 1)


def test_reach_is_the_norm_of_the_jacobian(ids):
    model = encoder("local_global")
    found = reach_frame(model, ids[:30], 20).strength

    def last_block(x):
        return model.blocks[2](x, Places(global_mask=torch.arange(30) == 0))[0, 20]

    with torch.no_grad():
        x = model.embedding_norm(model.position.embed(model.embedding(ids[:30])[None], torch.arange(30)))
        for block in model.blocks[:2]:
            x = block(x, Places(global_mask=torch.arange(30) == 0))
    jacobian = torch.autograd.functional.jacobian(last_block, x)[:, 0]  # (C, T, C)
    assert np.allclose(found[2], jacobian.square().sum((0, 2)).sqrt() / 4, rtol=1e-4, atol=1e-7)
    assert found[3, 20] == pytest.approx(1)  # a state is itself
    assert all(p.grad is None for p in model.parameters())
    assert not model.dropout._forward_hooks


@pytest.mark.slow
def test_the_cones_are_drawn(ids):
    frames = {"local": reach_frame(encoder("local"), ids, 30), "global": reach_frame(encoder("local_global"), ids, 30)}
    figure = plot_reach(frames, title="a title")
    for ax, frame in zip(figure.axes, frames.values(), strict=False):
        shown = ax.images[0].get_array()
        assert np.array_equal(np.ma.getmaskarray(shown), frame.strength == 0)
        edges = [patch.get_data() for patch in ax.patches]
        assert [e.values[0] for e in edges] == [30 - 12.5, 30 + 12.5]
        assert [e.values[-1] for e in edges] == [29.5, 30.5]
    assert figure.axes[0].images[0].norm.vmax == figure.axes[1].images[0].norm.vmax  # one scale
    assert figure.axes[0].get_title(loc="left") == "local\n25 of 64 tokens arrive"
    assert figure.axes[1].get_title(loc="left") == "global\nall tokens, in 2 steps"
    assert figure.get_suptitle() == "a title"
    assert png(figure)


def fake_rows(names=("window, blocked", "window, dense mask"), powers=(1, 2), lengths=(512, 1024, 2048, 4096)):
    return [
        Complexity(name, length, 1e-6 * length**p, int(10 * length**p))
        for name, p in zip(names, powers, strict=True)
        for length in lengths
    ]


def test_slopes_of_known_powers():
    assert exponent([512, 1024, 2048], [1, 4, 16]) == pytest.approx(2)
    assert exponent([4096, 64, 1024, 2048], [16, 9, 1, 4]) == pytest.approx(2)  # the shortest does not count
    figure = plot_complexity(fake_rows())
    for ax in figure.axes:
        assert {t.get_text() for t in ax.texts} == {
            "window, blocked: $T^{1.0}$",
            "window, dense mask: $T^{2.0}$",
        }
    assert figure.get_suptitle() == (
        "In blocks a window's time grows as $T^{1.0}$, with a mask over all pairs as $T^{2.0}$"
    )
    seconds, memory = figure.axes
    assert np.allclose(seconds.lines[0].get_ydata(), [0.512, 1.024, 2.048, 4.096])  # ms
    assert np.allclose(memory.lines[0].get_ydata(), np.array([512, 1024, 2048, 4096]) * 1e-5)  # MB
    one = plot_complexity([Complexity("window, blocked", 512, 1.0, 5)])
    assert [t.get_text() for t in one.axes[0].texts] == ["window, blocked"]


def test_recorded_lines_are_dashed_beside_measured_ones():
    figure = plot_complexity(fake_rows(powers=(1, 3)), fake_rows())
    styles = [line.get_linestyle() for line in figure.axes[0].lines]
    assert styles == ["--", "--", "-", "-"]
    assert "window, dense mask: $T^{3.0}$" in {t.get_text() for t in figure.axes[0].texts}
    assert "over all pairs as $T^{2.0}$" in figure.get_suptitle()  # recorded in peace
    some = plot_complexity(fake_rows(("window, blocked",), (1,)), fake_rows())
    assert len(some.axes[0].texts) == 2  # what was only recorded has its label too
    alone = plot_complexity((), fake_rows())
    assert [line.get_linestyle() for line in alone.axes[0].lines] == ["--", "--"]


def test_complexity_is_measured():
    seen = []
    rows = measure_complexity(
        NAMES, (64, 128), heads=1, head_dim=8, radius=4, progress=lambda *x: seen.append(x), repeats=1,
        longest={NAMES[0]: 64},
    )  # fmt: skip
    assert [(row.name, row.length) for row in rows] == [
        *((name, 64) for name in NAMES), *((name, 128) for name in NAMES[1:]),
    ]  # fmt: skip
    assert seen == [(done, 9) for done in range(10)]
    assert all(row.seconds > 0 and row.bytes > 0 for row in rows)
    stored = rows[0].bytes
    (both,) = measure_complexity(NAMES[:1], (64,), heads=1, head_dim=8, radius=4, backward=True, repeats=1)
    assert stored >= 4 * 64**2
    assert both.bytes > stored
    assert set(LONGEST) < set(NAMES)


def test_each_measured_attention_is_the_one_it_is_called():
    q, k, v = torch.randn(3, 1, 2, 100, 8)
    full, stored, dense, unfolded, blocked, hybrid = (
        attention_of(name, 5, 100)(q, k, v)
        for name in (NAMES[1], NAMES[0], NAMES[2], NAMES[3], NAMES[4], "window + global, blocked")
    )
    assert (full - stored).abs().max() < 1e-5
    assert (dense - unfolded).abs().max() < 1e-5
    assert (dense - blocked).abs().max() < 1e-5
    assert (dense - full).abs().max() > 0.1
    assert (hybrid[:, :, 0] - full[:, :, 0]).abs().max() < 1e-5


@pytest.mark.slow
def test_the_complexity_widget_measures_on_demand():
    inside = []

    def measure(progress):
        progress(0, 2)
        inside.append((widget._button.disabled, widget._progress.max, widget._caption.value))
        widget._button.click()  # a second click meanwhile
        progress(2, 2)
        return fake_rows(powers=(1, 3))

    widget = complexity_widget(fake_rows(), measure)
    assert png(plot_complexity((), fake_rows())) == widget._picture.value
    widget._button.click()
    assert len(inside) == 1
    assert inside[0][:2] == (True, 2)
    assert "Measuring" in inside[0][2]
    assert widget._progress.value == 2
    assert not widget._button.disabled
    assert widget.measured == tuple(fake_rows(powers=(1, 3)))
    assert png(plot_complexity(widget.measured, fake_rows())) == widget._picture.value


def test_the_complexity_widget_shows_an_error_as_a_sentence():
    answers = [ValueError("too <long>"), MemoryError("no room")]

    def measure(progress):
        raise answers.pop(0)

    widget = complexity_widget(fake_rows(), measure)
    picture = widget._picture.value
    widget._button.click()
    assert "too &lt;long&gt;" in widget._caption.value
    widget._button.click()
    assert "MemoryError: no room" in widget._caption.value
    assert (widget._picture.value, widget.measured, widget._button.disabled) == (picture, (), False)


def fake_record(seeds=(0, 1, 2)):
    config = {"n_layers": 3, "radius": 16}
    arms = []
    for name, far in (("full", 1.0), ("local", 0.03)):
        for seed in seeds:
            metrics = {"accuracy": 0.5, "accuracy_1_16": 1.0, "accuracy_17_32": 0.9 + 0.01 * seed}
            metrics |= {"accuracy_49_64": far, "accuracy_65_96": far}
            curve = {"step": [0, 10, 20], "loss": [8.0, 4.0 + seed, far]}
            arms.append({"name": name, "seed": seed, "config": config, "metrics": metrics, "curve": curve})
    return {"arms": arms}


def test_answers_by_distance():
    lines = retrieval_lines(fake_record())
    assert list(lines) == ["local", "full"]
    local = lines["local"]
    assert list(local.x) == [8.5, 24.5, 56.5, 80.5]
    assert local.y == pytest.approx([1, 0.91, 0.03, 0.03])
    assert (local.low[1], local.high[1]) == pytest.approx((0.9, 0.92))
    ax = plot_retrieval(fake_record()).axes[0]
    vertical = [line for line in ax.lines if list(line.get_xdata()) == [48, 48]]
    assert len(vertical) == 1
    assert any(np.allclose(line.get_ydata(), 100 / 32) for line in ax.lines)
    assert ax.figure.get_suptitle() == (
        "A window alone answers 96 % within its reach of 48 tokens, and 3 % beyond\n"
        "(all others 91 % or more at any distance; mean and range of 3 seeds)"
    )
    alone = {"arms": [run for run in fake_record()["arms"] if run["name"] == "full"]}
    assert plot_retrieval(alone).get_suptitle() == "Right answers by distance\n(full; mean and range of 3 seeds)"


def test_curves_of_losses():
    ax = plot_retrieval_curves(fake_record()).axes[0]
    drawn = [line.get_ydata() for line in ax.lines if len(line.get_ydata()) == 3]
    assert np.allclose(drawn, [[8, 5, 0.03], [8, 5, 1.0]])
    panels = {f"T = {n}": {"full": ([1, 2], [3, 2]), "hybrid": ([1, 3], [3, 1])} for n in (512, 1024)}
    figure = plot_loss_against_seconds(panels, title="t")
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(panels)
    assert [list(line.get_ydata()) for line in figure.axes[1].lines] == [[3, 2], [3, 1]]


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: Choice("random"), "kind='random'; allowed are 'full', 'window'"),
        (lambda: Choice("window", -1), "radius=-1"),
        (lambda: Choice("BigBird", 8, -1), "n_random=-1"),
        (lambda: Choice("dilated", 8, 1, 0), "dilation=0"),
        (lambda: Choice("window + global", places=(-2,)), "places=-2"),
        (lambda: pattern_frame("window", 257, 8, 1, 1, ()), "length=257; allowed is 2 to 256"),
        (lambda: pattern_frame("window", 1, 8, 1, 1, ()), "length=1;"),
        (lambda: pattern_frame("BigBird", 64, 8, 1, 1, (0, 64)), "place 64 needs a text of 65 tokens; T=64"),
        (lambda: reach_frame(encoder("local").train(), torch.zeros(9).long(), 0), "call model.eval() first"),
        (lambda: reach_frame(encoder("local"), torch.zeros(1, 9).long(), 0), "ids has shape (1, 9)"),
        (lambda: reach_frame(encoder("local"), torch.zeros(9).long(), 9), "place=9; allowed is 0 to 8"),
        (lambda: plot_reach({}), "frames is empty"),
        (lambda: attention_of("magic", 8, 64), "name='magic'; allowed are full, weights stored;"),
        (lambda: plot_complexity([]), "rows is empty"),
        (lambda: complexity_widget([]), "rows is empty"),
        (lambda: plot_retrieval({"arms": []}), "record has no runs"),
        (lambda: retrieval_lines({"arms": [{"name": "a", "metrics": {"loss": 1}}]}), "no metrics accuracy_LOW_HIGH"),
        (lambda: plot_loss_against_seconds({"p": {"full": ([1], [1, 2])}}), "'full' has x (1,)"),
        (lambda: plot_loss_against_seconds({}), "panels is empty"),
    ],
)
def test_bad_input_names_itself(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()
