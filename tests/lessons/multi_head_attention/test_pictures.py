"""Lesson 03: its pictures hold the numbers that they are given."""

import numpy as np
import pytest
import torch

from course_lib.lessons.multi_head_attention.head_plots import plot_ablation
from course_lib.lessons.multi_head_attention.next_token import next_token, plot_next_token
from course_lib.lessons.multi_head_attention.sharing import plot_sharing
from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.tokenization import load as load_tokenizer
from course_lib.viz.head_grids import plot_score_grids


def test_score_grids_hold_their_numbers():
    values = {"trained": np.array([[0.3, 0.5]]), "untrained": np.array([[0.1, 0.9]])}
    figure = plot_score_grids({"a": values, "b": values}, title="t", limits={"b": 5.0})
    texts = [[t.get_text() for t in ax.texts] for ax in figure.axes]  # row by row
    assert texts == [[".30", ".50"], ["0", "0"], [".90"], ["0", "1"]]  # below 0.3 a colour is enough
    assert figure.axes[0].images[0].get_clim() == (0, 1)
    assert figure.axes[1].images[0].get_clim() == (0, 5)
    with pytest.raises(ValueError, match="models are"):
        plot_score_grids({"a": values, "b": {}}, title="t")
    with pytest.raises(ValueError, match="limits: c unknown; the roles are a"):
        plot_score_grids({"a": values}, title="t", limits={"c": 1.0})
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        plot_score_grids({"a": {"x": np.zeros(2)}}, title="t")


def test_ablation_picture_is_in_order():
    costs, errors = np.array([[0.1, -0.2], [0.5, 0.0]]), np.full((2, 2), 0.01)
    figure = plot_ablation(costs, errors, title="t")
    labels = [t.get_text() for t in figure.axes[1].get_xticklabels()]
    assert labels == ["1.0", "0.0", "1.1", "0.1"]
    assert figure.axes[0].images[0].get_clim() == (-0.5, 0.5)
    with pytest.raises(ValueError, match="costs has shape"):
        plot_ablation(costs, errors[0], title="t")


def test_next_token_view():
    tokenizer = load_tokenizer("prose-4k")
    model = GPT2(GPT2Config(max_positions=16, d_model=12, n_heads=3, n_layers=1)).eval()
    view = next_token(model, tokenizer, "We the people", 1.0, 0, 1.0, longest=16)
    ids = torch.tensor([tokenizer.encode("We the people", start=True)])
    want = model(ids)[0, -1].softmax(-1)
    assert view.n_kept == 4000
    assert view.model == pytest.approx(want.sort(descending=True).values[:20].detach().numpy(), rel=1e-5)
    assert view.drawn == pytest.approx(view.model)
    assert view.pieces[0] == tokenizer.piece(int(want.argmax()))
    assert view.entropy == pytest.approx(-(want * want.log()).sum().item(), rel=1e-4)
    three = next_token(model, tokenizer, "We the people " * 30, 0.5, 3, 1.0, longest=16)
    assert three.n_kept == 3
    assert three.unread == len(tokenizer.encode("We the people " * 30)) + 1 - 16  # with <s>
    assert three.drawn[:3].sum() == pytest.approx(1)
    assert "3 tokens can be drawn" in three.text()
    assert plot_next_token(three).axes
    with pytest.raises(ValueError, match="text is empty"):
        next_token(model, tokenizer, "", 1.0, 0, 1.0, longest=16)


def test_sharing_shows_the_gaps_and_the_caches():
    losses, cache = {"8": (4.0, 4.1, 4.2), "1": (4.1, 4.3, 4.3)}, {"8": 800.0, "1": 100.0}
    runs = [
        {"name": name, "seed": seed, "metrics": {"validation_loss": loss, "cache_bytes": cache[name]}}
        for name in losses
        for seed, loss in enumerate(losses[name])
    ]
    figure = plot_sharing({"arms": runs}, "8", title="t")
    loss, bytes_ = figure.axes
    assert [t.get_text() for t in loss.get_yticklabels()] == ["8", "1"]
    dots = [line.get_xdata()[0] for line in loss.lines if line.get_marker() == "o"]
    assert dots == pytest.approx([0, 0.4 / 3])
    assert [bar.get_width() for bar in bytes_.patches] == [1, 0.125]
    with pytest.raises(ValueError, match="reference='2'"):
        plot_sharing({"arms": runs}, "2", title="t")
