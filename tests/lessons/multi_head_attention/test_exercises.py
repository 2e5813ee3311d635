"""Lesson 03: solutions pass, natural mistakes are told apart, and the pictures hold what they are given."""

import re

import nbformat
import numpy as np
import pytest
import torch

from course_lib.lessons.multi_head_attention import exercises as check
from course_lib.experiments import as_frame, load
from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.tokenization import load as load_tokenizer
from course_lib.lessons.multi_head_attention import head_plots, next_token
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


def test_score_grids_hold_their_numbers():
    values = {"trained": np.array([[0.25, 0.5]]), "untrained": np.array([[0.1, 0.9]])}
    figure = pictures.plot_score_grids({"a": values, "b": values}, title="t", limits={"b": 5.0})
    texts = [[t.get_text() for t in ax.texts] for ax in figure.axes]  # row by row
    assert texts == [[".25", ".50"], ["0", "0"], [".10", ".90"], ["0", "1"]]
    assert figure.axes[0].images[0].get_clim() == (0, 1)
    assert figure.axes[1].images[0].get_clim() == (0, 5)
    with pytest.raises(ValueError, match="models are"):
        pictures.plot_score_grids({"a": values, "b": {}}, title="t")
    with pytest.raises(ValueError, match="limits: c unknown; the roles are a"):
        pictures.plot_score_grids({"a": values}, title="t", limits={"c": 1.0})
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


@pytest.fixture(scope="module")
def saved():
    """What the saved notebook printed, and its prose as one line."""
    notebook = nbformat.read(ROOT / "notebooks" / "03_multi_head_attention.ipynb", as_version=4)
    printed = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    prose = " ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return printed, re.sub(r"\s+", " ", prose)


def test_claims_about_training(saved):
    printed, prose = saved

    def score(name):
        return float(re.search(rf"{name} +perplexity +(\d+)", printed)[1])

    assert "Its perplexity on" in load("gpt2_tiny")["prediction"]
    shipped, bigram = score("shipped, after 20 minutes"), score("bigram, Kneser–Ney")
    live, unigram = score("yours, after 40 seconds"), score("unigram")
    assert shipped == 66
    assert shipped < 0.7 * bigram < bigram < live < 0.6 * unigram
    assert "A perplexity of 66" in prose
    (run,) = load("gpt2_tiny")["arms"]
    assert round(np.exp(run["metrics"]["validation_loss"])) == 67
    assert 1000 < run["seconds"] < 1300  # "20 minutes"
    assert round(run["config"]["steps"] * 1024 / 581_888) == 14  # "14 passes"


def test_claims_about_heads(saved):
    printed, prose = saved
    rows = dict(re.findall(r"^(\S.*?) +(\d+) heads; strongest", printed, re.M))
    assert rows == {
        "previous": "0", "same": "3", "first": "0", "sentence end": "0", "earlier copy": "0", "induction": "0",
        "local": "12",
    }  # fmt: skip
    found = re.findall(r"^(\S.*?) +\d+ heads; strongest.*?: ([\d.]+) \(unt", printed, re.M)
    best = {name: float(value) for name, value in found}
    assert (best["previous"], best["same"], best["earlier copy"]) == (0.24, 0.80, 0.22)
    assert best["induction"] == 0.02
    assert best["first"] < 0.1
    assert "none of these: 4 of 16 heads" in printed
    assert "**Four of the 16 heads have none of our roles**" in prose
    assert "5 of 16 heads cost less than 0.02 nats" in printed
    costs = [float(c) for c in re.findall(r"^layer \d head \d: \+([\d.]+) ±", printed, re.M)]
    total = float(re.search(r"one by one: ([\d.]+) nats", printed)[1])
    assert costs[0] > total - costs[0]  # "more than all the others together"
    assert re.search(r"layer 0 head 0: .* same, local", printed)
    assert re.search(r"^earlier copy .*: 0.22 \(untrained 0.02, shuffled 0.00\)", printed, re.M)
    assert re.search(r"visible keys that count: \[0.88, 0.5,", printed)
    assert re.search(r"reach by layer: \[7, 22, 6, 10\]", printed)


def test_claims_about_diagonals(saved):
    found = re.findall(r"head (\d): set to zero \+([\d.]+), a pure diagonal ([+-][\d.]+)", saved[0])
    zero, diagonal = ([float(row[i]) for row in found] for i in (1, 2))
    assert abs(diagonal[0]) < 0.005  # "Nothing."
    assert diagonal[3] < 0.1 * zero[3]  # "nearly true of head 0.3"
    assert all(diagonal[i] > zero[i] for i in (1, 2, 4))  # "as much as zero, or more"


def test_claims_about_places(saved):
    found = re.findall(r"tokens seen: +\{'GPT-2': (\d+), 'Kneser–Ney': (\d+)\}", saved[0])
    gpt2, table = ([int(row[i]) for row in found] for i in (0, 1))
    assert gpt2[0] > table[0]
    assert all(ours < theirs for ours, theirs in list(zip(gpt2, table, strict=True))[1:])
    assert gpt2[4] < 70 < gpt2[2]  # "after eight most of the gain is made"
    assert all(95 < theirs < 120 for theirs in table)
    assert float(re.search(r"without any head: (\d+)", saved[0])[1]) > 4000


def test_claims_about_key_heads(saved):
    frame = as_frame(load("kv_heads")).pivot(index="seed", columns="arm", values="validation_loss")
    gap = frame["MQA, 1 key head"] - frame["MHA, 8 key heads"]
    assert (gap < 0).all()
    assert (gap.mean().round(3), (4.303 * gap.std() / 3**0.5).round(3)) == (-0.030, 0.027)
    gqa = frame["GQA, 2 key heads"] - frame["MHA, 8 key heads"]
    assert (abs(gqa.mean()) < 0.02, (4.303 * gqa.std() / 3**0.5).round(2)) == (True, 0.10)
    held = as_frame(load("kv_heads")).groupby("arm").cache_bytes.mean()
    assert held["MHA, 8 key heads"] == 4 * held["GQA, 2 key heads"] == 8 * held["MQA, 1 key head"]
    assert "0.030 *lower* in three of three seeds" in saved[1]
    both = 2.776 * (((gap.var() + gqa.var()) / 2) / 3) ** 0.5  # t, 4 degrees of freedom
    assert both.round(2) == 0.05
    assert f"± {both:.3f}" in saved[0]
    assert frame.map(np.exp).stack().between(150, 162).all()  # "near a perplexity of 155"


def test_claims_about_norm_placement(saved):
    frame = as_frame(load("gpt2_norm_placement"))
    medians = frame.groupby(["placement", "lr"]).validation_loss.median()
    assert medians["post"].idxmin() == 3e-4
    assert medians["pre"].idxmin() in (3e-3, 1e-2)
    assert medians["post"].min() - medians["pre"].min() == pytest.approx(0.45, abs=5e-3)
    assert medians["post"].between(6.3, 6.4).all()
    assert "0.45 nats" in saved[1]


def test_claims_of_the_pitfalls(saved):
    printed, _ = saved
    assert float(re.search(r"perplexity ([\d,]+) instead of 66", printed)[1].replace(",", "")) > 1000
    assert re.search(r"right +perplexity at once (\d+), step by step \1; equal logits: True", printed)
    restarted = re.search(r"restarted perplexity at once (\d+), step by step (\d+); equal logits: False", printed)
    assert int(restarted[2]) > 1.5 * int(restarted[1])
    times = [float(t) for t in re.findall(r"key heads|at 2048 tokens: ([\d.]+) ms", printed) if t]
    assert times[0] > 1.4 * times[2]  # MHA against MQA
