"""Lesson 03: solutions of its exercises pass, natural mistakes are told apart, stubs are no errors."""

import pytest
import torch

from course_lib.lessons.multi_head_attention import exercises as check
from course_lib.models.gpt2 import GPT2, GPT2Config
from tests.conftest import ROOT, load_file

SOLUTIONS = load_file(ROOT / "solutions" / "03_multi_head_attention.py")
NAMES = ["split_heads", "merge_heads", "multi_head", "grouped_weight", "cached_step", "top_p", "induction"]


def multi_head(split=SOLUTIONS.split_heads, merge=SOLUTIONS.merge_heads, scale=None, mask="causal", axis=-1, out=True):
    """A multi-head attention with one thing changed."""

    def fn(x, q_proj, k_proj, v_proj, out_proj, n_heads):
        q, k, v = (split(layer(x), n_heads) for layer in (q_proj, k_proj, v_proj))
        scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
        ones = torch.ones(scores.shape[-2:], dtype=torch.bool)
        if mask == "zeroed":
            scores = scores.tril()
        hidden = {"causal": ones.triu(1), "turned": ones.tril(-1), "triu(0)": ones.triu()}.get(mask, ~ones)
        weights = scores.masked_fill(hidden, -torch.inf).softmax(axis)
        weights = weights if mask == "triu(0)" else weights.nan_to_num()
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
        "exp(0) = 1": multi_head(mask="zeroed"),
        "triu(1)": multi_head(mask="triu(0)"),
        "You divide by D": multi_head(scale=1 / 4),
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
    "grouped_weight": {
        "heads 0, 2, 4 and": lambda w, h, n: w.unflatten(0, (h // n, n, -1)).mean(0).flatten(0, 1),
        "That is the sum": lambda w, h, n: w.unflatten(0, (n, h // n, -1)).sum(1).flatten(0, 1),
        "keep one head": lambda w, h, n: w.unflatten(0, (n, h // n, -1))[:, 0].flatten(0, 1),
        "across the width": lambda w, h, n: w.view(n * len(w) // h, -1, w.shape[1]).mean(1),
    },
    "cached_step": {
        "only its own key": step(lambda k, v, past: (k, v, None)),
        "scale 1/sqrt(D) is missing": lambda q, k, v, past: (
            (q @ joined(past, k, v)[0].mT).softmax(-1) @ joined(past, k, v)[1],
            joined(past, k, v),
        ),
        "no mask is needed": lambda q, k, v, past: (joined(past, k, v)[1][:, :, :1], joined(past, k, v)),
        "holds the last token only": step(lambda k, v, past: (*joined(past, k, v), (k, v))),
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
        "compare with <": nucleus(lambda ordered, total, p: total - ordered <= p),
        "sorted order": lambda probabilities, p: SOLUTIONS.top_p(probabilities, p)[
            probabilities.argsort(descending=True, stable=True)
        ],
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
    assert "other answers: logits differ" in wrong.message
    assert check.injected(lambda *a: None, model, windows).ok is None
    detached = check.injected(lambda x, q, k, v, o, h: SOLUTIONS.multi_head(x, q, k, v, o, h).detach(), model, windows)
    assert detached.ok is False
    assert "gradient" in detached.message
    assert check.injected(lambda x, *a: [x], model, windows).ok is False
