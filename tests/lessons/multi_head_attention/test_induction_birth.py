"""The birth of an induction head: rows that repeat, what is measured, the film, its picture and its panel."""

import numpy as np
import pytest
import torch

from course_lib import heads
from course_lib.lessons.multi_head_attention.birth_widget import birth_panel, live_picture
from course_lib.lessons.multi_head_attention.induction_birth import (
    COPY,
    LENGTH,
    PERIODS,
    SHOWN,
    START,
    Film,
    birth_frame,
    measured,
    plot_birth,
    repeating_batch,
    train_on_repeats,
    without_note,
)
from course_lib.models.attention_only import AttentionOnly, AttentionOnlyConfig


def test_rows_repeat_each_with_a_period_of_its_own():
    (ids,) = repeating_batch(64, 5, 0)
    assert ids.shape == (64, 1 + LENGTH)
    assert (ids[:, 0] == START).all()
    assert (ids[:, 1:] != START).all()
    periods = set()
    for row in ids[:, 1:]:
        fits = [p for p in range(PERIODS[0], PERIODS[1] + 1) if torch.equal(row[p:], row[:-p])]
        assert fits
        periods.add(fits[0])
    assert len(periods) > 8
    assert torch.equal(ids, repeating_batch(64, 5, 0)[0])
    assert not torch.equal(ids, repeating_batch(64, 6, 0)[0])


class Continues(torch.nn.Module):
    """Knows what came after the earlier copy of each token: what an induction head does."""

    def __init__(self):
        super().__init__()
        self.stand_in = AttentionOnly(AttentionOnlyConfig())

    def forward(self, ids):
        if ids.shape[1] == 1 + 2 * COPY:
            return self.stand_in(ids)  # of which maps are recorded
        logits = torch.zeros(*ids.shape, 64)
        for row, text in enumerate(ids.tolist()):
            for place, token in enumerate(text):
                if token in text[:place]:
                    logits[row, place, text[text.index(token) + 1]] = 50.0
        return logits


def test_who_continues_what_repeats_is_right_there_alone():
    now = measured(Continues(), 64)
    assert now.right == 1
    assert now.loss_repeated < 1e-6
    assert now.loss_new == pytest.approx(np.log(64), abs=1e-5)
    assert now.previous.shape == now.induction.shape == (2, 1)


@pytest.fixture(scope="module")
def grown():
    """A film of 260 steps and the model that it shows."""
    model, seen = AttentionOnly(AttentionOnlyConfig()), []
    film = Film(every=20, show=lambda film: seen.append(len(film.frames)))
    train_on_repeats(model, 280, film)
    assert seen == list(range(1, 16))
    return model, film


@pytest.mark.slow
def test_two_layers_learn_it_all_at_once(grown):
    model, film = grown
    right = film.column("right")
    assert film.steps == list(range(0, 281, 20))
    assert right[5] < 0.25  # step 100
    assert right[-1] > 0.9
    assert film.frames[-1].previous[0].max() > 0.5
    assert film.frames[-1].induction[1].max() > 0.8
    with heads.without_head(model, 0, 0):
        assert measured(model, 64).right < 0.25


@pytest.mark.slow
def test_only_the_keys_of_layer_1_need_the_note(grown):
    """K-composition."""
    model, _ = grown
    right = {}
    for name in ("q_proj", "k_proj", "v_proj"):
        with without_note(model, name):
            right[name] = measured(model, 64).right
    assert right["k_proj"] < 0.25
    assert min(right["q_proj"], right["v_proj"]) > 0.7
    assert measured(model, 64).right > 0.9
    with pytest.raises(ValueError, match="name='out_proj'"), without_note(model, "out_proj"):
        pass


@pytest.mark.slow
def test_one_layer_does_not_with_as_many_heads_and_parameters():
    model = AttentionOnly(AttentionOnlyConfig(n_layers=1, n_heads=2, d_model=88))
    assert sum(p.numel() for p in model.parameters()) > 41_856
    train_on_repeats(model, 280)
    assert measured(model, 64).right < 0.3


@pytest.mark.slow
def test_the_picture_shows_one_moment(grown):
    _, film = grown
    frame = birth_frame(film, 105)
    assert (film.steps[frame.index], frame.now) == (100, film.frames[5])
    figure = plot_birth(frame)
    axes = {ax.get_label(): ax for ax in figure.axes}
    for layer, (name, role) in enumerate((("previous token", "previous"), ("induction", "induction"))):
        ax = axes[role]
        assert np.array_equal(ax.images[0].get_array(), film.maps[5][layer, 0])
        assert ax.images[0].get_clim() == (0, 1)
        assert ax.get_title(loc="center") == f"layer {layer}: {name} {getattr(film.frames[5], role)[layer, 0]:.2f}"
    rings = axes["induction"].collections[0].get_offsets()
    assert rings[0].tolist() == [2, 1 + SHOWN]  # the first repeated token looks at the one after its first copy
    assert len(rings) == SHOWN
    whole, so_far, *_ = axes["loss"].lines
    assert whole.get_ydata() == pytest.approx(film.column("loss_repeated"))
    assert len(so_far.get_ydata()) == 6
    assert f"Step 100: {film.frames[5].right:.0%} of the repeated" in figure.get_suptitle()


@pytest.mark.slow
def test_the_panel_opens_before_the_cliff_and_shows_what_it_says(grown):
    _, film = grown
    panel = birth_panel(film)
    opened = panel.shown.index
    assert film.frames[opened].right <= 0.5 < film.frames[opened + 1].right
    panel.controls["step"].value = 280
    assert panel.shown == birth_frame(film, 280)
    assert "Step 280" in panel.shown.text()
    picture, show = live_picture(every=1)
    show(film)
    assert bytes(picture.value).startswith(b"\x89PNG")


def test_what_cannot_be_shown():
    with pytest.raises(ValueError, match="every=0"):
        Film(every=0)
    with pytest.raises(ValueError, match="step=3"):
        birth_frame(Film(), 3)
    film, model = Film(), AttentionOnly(AttentionOnlyConfig(n_layers=1))
    film(0, model)
    film(3, model)
    assert film.steps == [0]
    with pytest.raises(ValueError, match="1 layers"):
        plot_birth(birth_frame(film, 0))
