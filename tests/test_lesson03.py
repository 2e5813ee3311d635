"""Lesson 03: solutions pass, natural mistakes are told apart, and the pictures hold what they are given."""

import numpy as np
import pytest
import torch

from course_lib.exercises import lesson03 as check
from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.tokenization import load as load_tokenizer
from course_lib.viz import heads as pictures
from course_lib.viz import sampling
from tests.conftest import ROOT, load_file

SOLUTIONS = load_file(ROOT / "solutions" / "03_multi_head_attention.py")
NAMES = ["split_heads", "merge_heads", "multi_head", "repeat_heads", "cached_step", "top_p", "induction"]


def multi_head(split=SOLUTIONS.split_heads, merge=SOLUTIONS.merge_heads, scale=None, mask="causal", axis=-1, out=True):
    """A multi-head attention with one thing changed."""

    def fn(x, q_proj, k_proj, v_proj, out_proj, n_heads):
        q, k, v = (split(layer(x), n_heads) for layer in (q_proj, k_proj, v_proj))
        scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
        ones = torch.ones(scores.shape[-2:], dtype=torch.bool)
        hidden = {"causal": ones.triu(1), "none": ~ones, "turned": ones.tril(-1), "late": ~ones}[mask]
        weights = scores.masked_fill(hidden, -torch.inf).softmax(axis).nan_to_num()
        y = merge((weights.tril() if mask == "late" else weights) @ v)
        return out_proj(y) if out else y

    return fn


def step(change):
    """A cached step with one thing changed; `change(k, v, past)` gives keys, values and the new past."""

    def fn(q, k, v, past):
        k, v, past = change(k, v, past)
        return (q @ k.mT / 2).softmax(-1) @ v, past

    return fn


def joined(past, k, v):
    return (k, v) if past is None else (torch.cat([past[0], k], 2), torch.cat([past[1], v], 2))


def nucleus(keep, scaled=True):
    def fn(probabilities, p):
        ordered, order = probabilities.sort(descending=True, stable=True)
        kept = torch.zeros_like(probabilities)
        kept[order] = ordered * keep(ordered, ordered.cumsum(0), p)
        return kept / kept.sum() if scaled else kept

    return fn


def at(row, column, reduce=torch.mean):
    """Weights at (row(i), column(i)) for the tokens i of the first copy."""
    return lambda weights, n: reduce(torch.stack([weights[row(i, n), column(i, n)] for i in range(1, n + 1)]))


WRONG = {
    "split_heads": {
        "cuts the sequence": lambda x, h: x.reshape(x.shape[0], h, x.shape[1], -1),
        "neighbouring": lambda x, h: x.unflatten(-1, (-1, h)).permute(0, 3, 1, 2),
        "That is (B, T, H, D)": lambda x, h: x.unflatten(-1, (h, -1)),
        "shape (2, 5, 12); needed": lambda x, h: x,
    },
    "merge_heads": {
        "mixed up": lambda y: y.reshape(y.shape[0], y.shape[2], -1),
        "alternate": lambda y: y.permute(0, 2, 3, 1).flatten(2),
    },
    "multi_head": {
        "mask is missing": multi_head(mask="none"),
        "the wrong way round": multi_head(mask="turned"),
        "after the softmax": multi_head(mask="late"),
        "1/sqrt(C)": multi_head(scale=12**-0.5),
        "1/sqrt(D) is missing": multi_head(scale=1.0),
        "wrong axis": multi_head(axis=-2),
        "joined with a reshape": multi_head(merge=lambda y: y.reshape(2, 5, 12)),
        "cut with a view": multi_head(split=lambda x, h: x.reshape(2, h, 5, -1)),
        "out_proj is missing": multi_head(out=False),
        "one head of width C": lambda x, q, k, v, o, h: multi_head()(x, q, k, v, o, 1),
        "swapped": lambda x, q, k, v, o, h: multi_head()(x, k, q, v, o, h),
        "over the heads": lambda x, q, k, v, o, h: o(
            (
                (q(x).unflatten(-1, (h, -1)) @ k(x).unflatten(-1, (h, -1)).mT / 2).softmax(-1)
                @ v(x).unflatten(-1, (h, -1))
            ).flatten(2)
        ),
        "gradient with respect to x differs": lambda x, q, k, v, o, h: multi_head()(
            x, lambda t: q(t).detach(), k, v, o, h
        ),
        "stopped with": lambda x, q, k, v, o, h: o(q),
    },
    "repeat_heads": {"repeat_interleave": lambda k, h: k.repeat(1, h // k.shape[1], 1, 1)},
    "cached_step": {
        "only its own key": step(lambda k, v, past: (k, v, None)),
        "own key is missing": step(lambda k, v, past: (*(past or (k, v)), joined(past, k, v))),
        "different orders": step(
            lambda k, v, past: (
                (k, v, (k, v))
                if past is None
                else (a := torch.cat([past[0], k], 2), b := torch.cat([v, past[1]], 2), (a, b))
            )
        ),
        "Return two things": lambda q, k, v, past: q,
    },
    "top_p": {
        "too small": nucleus(lambda ordered, total, p: total <= p),
        "sum to 1": nucleus(lambda ordered, total, p: total - ordered < p, scaled=False),
        "about the *sum* of the largest": nucleus(lambda ordered, total, p: ordered >= p),
    },
    "induction": {
        "the earlier copy of the token itself": at(lambda i, n: n + i, lambda i, n: i),
        "the token before": at(lambda i, n: n + i, lambda i, n: i - 1),
        "rows are queries": at(lambda i, n: i + 1, lambda i, n: n + i),
        "first copy too": lambda w, n: w.diagonal(1 - n).mean(),
        "one query too many": lambda w, n: w.diagonal(1 - n)[1:].mean(),
        "divide by": at(lambda i, n: n + i, lambda i, n: i + 1, torch.sum),
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_solution_passes_and_stub_is_no_error(name):
    result = getattr(check, name)(getattr(SOLUTIONS, name))
    assert result.ok, result
    assert getattr(check, name)(lambda *arguments: None).ok is None


@pytest.mark.parametrize(("name", "words"), [(name, words) for name in WRONG for words in WRONG[name]])
def test_mistake_has_its_message(name, words):
    result = getattr(check, name)(WRONG[name][words])
    assert result.ok is False
    assert words in result.message


@pytest.fixture(scope="module")
def model():
    return GPT2(GPT2Config(vocab_size=60, max_positions=32, d_model=24, n_heads=3, n_layers=2)).eval()


def test_injected(model):
    windows = torch.randint(60, (4, 20))
    before = {name: p.clone() for name, p in model.named_parameters()}
    result = check.injected(SOLUTIONS.multi_head, model, windows)
    assert result.ok, result
    assert "all 2 layers" in result.message
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    wrong = check.injected(multi_head(mask="none"), model, windows)
    assert wrong.ok is False
    assert "loss is" in wrong.message
    assert check.injected(lambda *a: None, model, windows).ok is None
    detached = check.injected(lambda x, q, k, v, o, h: SOLUTIONS.multi_head(x, q, k, v, o, h).detach(), model, windows)
    assert detached.ok is False
    assert "gradient" in detached.message
    assert check.injected(lambda x, *a: [x], model, windows).ok is False


def test_score_grids_hold_their_numbers():
    values = {"trained": np.array([[0.25, 0.5]]), "untrained": np.array([[0.1, 0.9]])}
    figure = pictures.plot_score_grids({"a": values, "b": values}, title="t", limits={"b": 5.0})
    texts = [[t.get_text() for t in ax.texts] for ax in figure.axes]  # row by row
    assert texts == [[".25", ".50"], ["0", "0"], [".10", ".90"], ["0", "1"]]
    assert figure.axes[0].images[0].get_clim() == (0, 1)
    assert figure.axes[1].images[0].get_clim() == (0, 5)
    with pytest.raises(ValueError, match="models are"):
        pictures.plot_score_grids({"a": values, "b": {}}, title="t")
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        pictures.plot_score_grids({"a": {"x": np.zeros(2)}}, title="t")


def test_ablation_picture_is_in_order():
    costs, errors = np.array([[0.1, -0.2], [0.5, 0.0]]), np.full((2, 2), 0.01)
    figure = pictures.plot_ablation(costs, errors, title="t")
    labels = [t.get_text() for t in figure.axes[1].get_xticklabels()]
    assert labels == ["1.0", "0.0", "1.1", "0.1"]
    assert figure.axes[0].images[0].get_clim() == (-0.5, 0.5)
    with pytest.raises(ValueError, match="costs has shape"):
        pictures.plot_ablation(costs, errors[0], title="t")


def test_next_token_view():
    tokenizer = load_tokenizer("english-4k")
    model = GPT2(GPT2Config(max_positions=16, d_model=12, n_heads=3, n_layers=1)).eval()
    view = sampling.next_token(model, tokenizer, "We the people", 1.0, 0, 1.0, longest=16)
    ids = torch.tensor([tokenizer.encode("We the people")])
    want = model(ids)[0, -1].softmax(-1)
    assert view.n_kept == 4000
    assert view.model == pytest.approx(want.sort(descending=True).values[:20].detach().numpy(), rel=1e-5)
    assert view.drawn == pytest.approx(view.model)
    assert view.pieces[0] == tokenizer.piece(int(want.argmax()))
    assert view.entropy == pytest.approx(-(want * want.log()).sum().item(), rel=1e-4)
    three = sampling.next_token(model, tokenizer, "We the people " * 30, 0.5, 3, 1.0, longest=16)
    assert three.n_kept == 3
    assert three.drawn[:3].sum() == pytest.approx(1)
    assert "3 tokens can be drawn" in three.text()
    assert sampling.plot_next_token(three).axes
    with pytest.raises(ValueError, match="text is empty"):
        sampling.next_token(model, tokenizer, "", 1.0, 0, 1.0, longest=16)
