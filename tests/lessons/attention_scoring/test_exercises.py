"""Lesson 02: solutions pass, mistakes are told apart, its model, pictures and study say what the prose says of them."""

import json
import re
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
import torch

from course_lib import attention as library
from course_lib.corpora import capitals
from course_lib.lessons.attention_scoring import exercises as check
from course_lib.experiments import as_frame, attention_scores, get_study, load
from course_lib.experiments.attention_scores import ARMS, HELD_OUT, Config, additive_width, atlases, build, fit
from course_lib.models.lookup import Lookup, LookupConfig, inside, lookup_loss, right_cells, right_mass
from course_lib.models.word_vectors import count_vectors
from course_lib.training import History
from course_lib.viz import plots
from course_lib.lessons.attention_scoring.score_frame import (
    SCALES,
    plot_score_frame,
    plot_sweep,
    score_frame,
    softmax_gradient,
    sweep,
)
from course_lib.lessons.attention_scoring.weight_maps import plot_attention_steps, plot_weight_panels
from course_lib.lessons.attention_scoring.widgets import Atlas, atlas_explorer, atlas_maps, score_panel
from tests.conftest import ROOT, load_file
from tests.test_meta import NoCpu

SOLUTIONS = load_file(ROOT / "solutions" / "02_attention_scoring.py")
SIMPLE = ["scores", "masked_softmax", "attention", "softmax_backward", "scale", "additive_scores"]
NEG = -1e30


def soft(x, mask, axis=-1):
    return x.masked_fill(~mask, NEG).softmax(axis) * mask


def free(q, k, mask):
    return torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool) if mask is None else mask


def attend(change):
    """Attention with one part changed: change(logits, mask, d) gives the weights."""

    def fn(q, k, v, mask):
        return change(q @ k.mT, free(q, k, mask), q.shape[-1]) @ v

    return fn


WRONG = {
    "scores": {
        "scale is missing": lambda q, k: q @ k.mT,
        "You divide by the width": lambda q, k: q @ k.mT / q.shape[-1],
        "multiply by the root": lambda q, k: q @ k.mT * q.shape[-1] ** 0.5,
        "number of heads": lambda q, k: q @ k.mT / q.shape[1] ** 0.5,
        "number of keys": lambda q, k: q @ k.mT / k.shape[-2] ** 0.5,
        "That is the cosine": lambda q, k: torch.nn.functional.cosine_similarity(
            q[..., None, :], k[..., None, :, :], -1
        ),
        "weights already": lambda q, k: (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1),
        "a row for each key": lambda q, k: k @ q.mT / q.shape[-1] ** 0.5,
        "RuntimeError": lambda q, k: q @ k,
        "no gradient reaches q": lambda q, k: SOLUTIONS.scores(q.detach(), k),
    },
    "masked_softmax": {
        "Your columns sum to 1": lambda x, m: soft(x, m, -2),
        "`allowed` is not used": lambda x, m: x.softmax(-1),
        "comes after the softmax": lambda x, m: x.softmax(-1) * m,
        "exp(0) is 1": lambda x, m: x.masked_fill(~m, 0).softmax(-1),
        "inverted": lambda x, m: soft(x, ~m),
        "0 · inf": lambda x, m: (x + (~m).float() * -torch.inf).softmax(-1),
        "or a sum of 0": lambda x, m: x.exp() * m / (x.exp() * m).sum(-1, keepdim=True),
        "nothing gives nan": lambda x, m: x.masked_fill(~m, -torch.inf).softmax(-1),
        "its row is even": lambda x, m: x.masked_fill(~m, -1e9).softmax(-1),
        "as if there were no mask": lambda x, m: soft(x, m | ~m.any(-1, keepdim=True)),
        "exp overflows": lambda x, m: x.exp() * m / (x.exp() * m).sum(-1, keepdim=True).clamp(min=1e-30),
        "no gradient reaches scores": lambda x, m: soft(x.detach(), m),
    },
    "attention": {
        "scale is missing": attend(lambda s, m, d: soft(s, m)),
        "Divide by its root": attend(lambda s, m, d: soft(s / d, m)),
        "width from v": lambda q, k, v, m: soft(q @ k.mT / v.shape[-1] ** 0.5, free(q, k, m)) @ v,
        "softmax runs over the queries": attend(lambda s, m, d: soft(s / d**0.5, m, -2)),
        "mask is not used": attend(lambda s, m, d: (s / d**0.5).softmax(-1)),
        "inverted": lambda q, k, v, m: SOLUTIONS.attention(q, k, v, None if m is None else ~m),
        "comes after the softmax": attend(lambda s, m, d: (s / d**0.5).softmax(-1) * m),
        "shape of the weights": lambda q, k, v, m: SOLUTIONS.scores(q, k).softmax(-1),
        "nothing gives nan": attend(lambda s, m, d: (s / d**0.5).masked_fill(~m, -torch.inf).softmax(-1)),
        "may look at nothing, the result": attend(lambda s, m, d: (s / d**0.5).masked_fill(~m, NEG).softmax(-1)),
        "no gradient reaches v": lambda q, k, v, m: SOLUTIONS.attention(q, k, v.detach(), m),
        "`allowed` may be None": lambda q, k, v, m: SOLUTIONS.masked_softmax(SOLUTIONS.scores(q, k), m + 0) @ v,
    },
    "softmax_backward": {
        "Only the direct path": lambda g, w: g * w,
        "the sum of the gradients": lambda g, w: w * (g - g.sum(-1, keepdim=True)),
        "the plain mean": lambda g, w: w * (g - g.mean(-1, keepdim=True)),
        "without an axis": lambda g, w: w * (g - (g * w).sum()),
        "diagonal of the Jacobian": lambda g, w: w * (1 - w) * g,
        "factor in front": lambda g, w: g - (g * w).sum(-1, keepdim=True),
        "sum over the queries": lambda g, w: w * (g - (g * w).sum(0)),
        "sign of the second": lambda g, w: w * (g + (g * w).sum(-1, keepdim=True)),
        "shape (2, 4, 6), the result differs": lambda g, w: w * (g - (g * w).sum(1, keepdim=True)),
    },
    "scale": {
        "if both spreads are 1": lambda a, b, d: d**-0.5,
        "the spread of the scores; asked": lambda a, b, d: a * b * d**0.5,
        "*variance*": lambda a, b, d: 1 / (a * a * b * b * d),
        "You divide by d.": lambda a, b, d: 1 / (a * b * d),
        "root of the spreads too": lambda a, b, d: (a * b * d) ** -0.5,
        "spreads are squared": lambda a, b, d: 1 / (a * a * b * b * d**0.5),
        "multiply the two spreads": lambda a, b, d: 1 / ((a + b) * d**0.5),
        "longer vectors need": lambda a, b, d: a * b * d**-0.5,
        "Return one number": lambda a, b, d: [a, b],
        "differs most": lambda a, b, d: 0.5,
    },
    "additive_scores": {
        "tanh is missing": lambda q, k, a, b, w: ((q @ a.mT)[:, None] + (k @ b.mT)[None]) @ w,
        "Two tanh": lambda q, k, a, b, w: ((q @ a.mT).tanh()[:, None] + (k @ b.mT).tanh()[None]) @ w,
        "multiply query and key": lambda q, k, a, b, w: ((q @ a.mT)[:, None] * (k @ b.mT)[None]).tanh() @ w,
        "matrices are swapped": lambda q, k, a, b, w: SOLUTIONS.additive_scores(q, k, b, a, w),
        "average over": lambda q, k, a, b, w: SOLUTIONS.additive_scores(q, k, a, b, w) / len(w),
        "weights already": lambda q, k, a, b, w: SOLUTIONS.additive_scores(q, k, a, b, w).softmax(-1),
        "a row for each key": lambda q, k, a, b, w: SOLUTIONS.additive_scores(q, k, a, b, w).mT,
        "no gradient reaches w_key": lambda q, k, a, b, w: SOLUTIONS.additive_scores(q, k, a, b.detach(), w),
    },
}


@pytest.fixture(autouse=True)
def _style():
    plots.use_house_style()


@pytest.mark.parametrize("name", SIMPLE)
def test_solutions_pass(name):
    result = getattr(check, name)(getattr(SOLUTIONS, name))
    assert result.ok is True, result
    assert repr(result).startswith("✓ Right")


@pytest.mark.parametrize(("name", "words"), [(name, words) for name in WRONG for words in WRONG[name]])
def test_mistakes_are_told_apart(name, words):
    result = getattr(check, name)(WRONG[name][words])
    assert result.ok is False
    assert words in result.message
    others = [fn for w, fn in WRONG[name].items() if w not in result.message]
    assert all(getattr(check, name)(fn).message != result.message for fn in others), "one message for two mistakes"


@pytest.mark.parametrize("name", SIMPLE)
def test_a_stub_is_not_an_error(name):
    for stub in (lambda *args: None, lambda *args: ...):
        assert getattr(check, name)(stub).ok is None
    assert getattr(check, name)(lambda *args: {}["no such key"]).ok is False


def test_a_float64_answer_or_a_list_is_named():
    assert "dtype torch.float64" in check.scores(lambda q, k: SOLUTIONS.scores(q.double(), k.double())).message
    assert "is a list" in check.masked_softmax(lambda x, m: [x]).message
    assert check.masked_softmax(lambda x, m: x.masked_fill(~m, -torch.inf).softmax(-1).nan_to_num()).ok  # another way
    late = check.masked_softmax(lambda x, m: x.softmax(-1) * m / (x.softmax(-1) * m).sum(-1, True).clamp(min=1e-30))
    assert late.ok is False
    assert "vanishes beside a forbidden score of 1,000" in late.message


@pytest.fixture(scope="module")
def trained():
    """The head of section 6."""
    config = Config(**ARMS["scaled"], width=64, lr=3e-3)
    model = build(config, 0)
    fit(model, config, 0, progress=False)
    return model


def test_injection_runs_in_the_trained_head(trained):
    batch = HELD_OUT(batch_size=20, n_pairs=16)(1)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    result = check.injected(SOLUTIONS.attention, trained, batch)
    assert result.ok, result
    assert "answers 320 questions" in result.message
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    assert check.injected(lambda *args: None, trained, batch).ok is None
    for words, wrong in {
        "other answers": WRONG["attention"]["Divide by its root"],
        "the result of your function has shape": WRONG["attention"]["shape of the weights"],
        "the gradient with respect to lookup.word.weight differs": WRONG["attention"]["no gradient reaches v"],
    }.items():
        result = check.injected(wrong, trained, batch)
        assert result.ok is False
        assert words in result.message


def test_the_adapter_passes_masks_on_and_refuses_what_it_cannot():
    fn = check.as_attention_fn(SOLUTIONS.attention)
    q, k, v = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 5, 4), torch.randn(2, 1, 5, 4)
    padded = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    mask = torch.rand(3, 5) < 0.6
    want = library.attention(q, k, v, mask=mask, key_mask=padded)
    torch.testing.assert_close(fn(q, k, v, mask=mask, key_mask=padded), want)
    with pytest.raises(ValueError, match="scale=1"):
        fn(q, k, v, scale=1.0)


def test_lookup_and_its_right_cells():
    model = Lookup(LookupConfig(9, 7, d_model=8, head_dim=4))
    questions, words, answers = torch.tensor([[2, 5]]), torch.tensor([[5, 1, 2]]), torch.tensor([[0, 3, 6]])
    assert model(questions, words, answers).shape == (1, 2, 7)
    assert right_cells(questions, words).tolist() == [[[False, False, True], [True, False, False]]]
    weights = torch.tensor([[[[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]]]])
    assert right_mass(weights, questions, words).item() == pytest.approx(0.6)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(  # a set of pairs: their order says nothing
        model(questions, words, answers), model(questions, words[:, order], answers[:, order])
    )
    for bad in (
        (questions[0], words, answers),
        (questions, words, answers[:, :2]),
        (questions.repeat(2, 1), words, answers),
    ):
        with pytest.raises(ValueError, match="questions, words, answers have shapes"):
            model(*bad)
    for name, value in (("n_words", 0), ("head_dim", 0), ("start", 0.0)):
        with pytest.raises(ValueError, match=f"{name}={value}"):
            LookupConfig(**{"n_words": 3, "n_answers": 3, name: value})


@pytest.mark.parametrize("scale", [None, 1.0])
def test_inside_shows_what_the_head_computes(scale):
    batch = HELD_OUT(batch_size=3, n_pairs=5)(0)
    model = Lookup(LookupConfig(221, 221), partial(library.attention, scale=scale))
    q, k, v, weights = inside(model, *batch[:3])
    assert weights.shape == (3, 1, 5, 5)
    torch.testing.assert_close(weights, (q @ k.mT * (scale or 1 / 8)).softmax(-1))
    output = model.unembedding(model.attention.out_proj((weights @ v)[:, 0]))
    torch.testing.assert_close(output, model(*batch[:3]))
    additive = Lookup(LookupConfig(221, 221), library.AdditiveAttention(64, 8))
    q, k, v, weights = inside(additive, *batch[:3])
    torch.testing.assert_close(
        additive.unembedding(additive.attention.out_proj((weights @ v)[:, 0])), additive(*batch[:3])
    )


@pytest.mark.parametrize("arm", ["scaled", "additive"])
def test_lookup_on_meta(arm):
    model = build(Config(**ARMS[arm], width=16, lr=0), 0).to("meta")
    ids = torch.zeros(2, 4, device="meta", dtype=torch.long)
    with NoCpu():
        loss, _ = lookup_loss(model, (ids, ids, ids, ids))
        loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_atlases_are_dealt_anew():
    questions, countries, towns, right = atlases(3, 50, 16)(7)
    cells = right_cells(questions, countries)
    assert (cells.sum(-1) == 1).all()
    assert (cells.sum(-2) == 1).all()  # each country is asked for once
    assert torch.equal((cells * towns.unsqueeze(1)).sum(-1), right)
    assert countries.max() < 200
    assert all(len(row.unique()) == 16 for row in torch.cat([countries, towns]))
    assert torch.equal(atlases(3, 50, 16)(7)[2], towns)
    assert not torch.equal(atlases(4, 50, 16)(7)[2], towns)
    by_country = {}  # over atlases a country has many capitals
    for step in range(20):
        _, c, t, _ = atlases(3, 50, 16)(step)
        for country, town in zip(c.flatten().tolist(), t.flatten().tolist(), strict=True):
            by_country.setdefault(country, set()).add(town)
    assert np.mean([len(towns) for towns in by_country.values()]) > 50
    assert HELD_OUT(batch_size=2, n_pairs=4, words=(200, 221))(0)[1].min() >= 200
    with pytest.raises(ValueError, match="n_pairs=22; there are 21"):
        HELD_OUT(batch_size=2, n_pairs=22, words=(200, 221))
    assert len(capitals()) == attention_scores.COUNTRIES == 221


def test_arms_are_what_they_say():
    batch = HELD_OUT(batch_size=20, n_pairs=16)(0)
    looks = {}
    for width in (16, 256):
        models = {name: build(Config(**fields, width=width, lr=0), 0) for name, fields in ARMS.items()}
        params = [sum(p.numel() for p in model.parameters()) for model in models.values()]
        assert max(params) / min(params) < 1.003
        torch.testing.assert_close(models["scaled"](*batch[:3]), models["dot, small start"](*batch[:3]))
        heads = [sum(p.numel() for p in models[name].attention.parameters()) for name in ("dot", "additive")]
        assert 1 / 1.027 < heads[1] / heads[0] < 1.027  # "those of the head by 2.6 % at most"
        looks[width] = {
            n: attention_scores.look(m, Config(**ARMS[n], width=width, lr=0), batch) for n, m in models.items()
        }
    assert looks[256]["dot"]["score_std"] == pytest.approx(16, rel=0.1)
    assert looks[16]["dot"]["score_std"] == pytest.approx(4, rel=0.1)
    assert looks[256]["scaled"]["score_std"] == pytest.approx(1, rel=0.1)
    assert looks[256]["1/d"]["score_std"] == pytest.approx(1 / 16, rel=0.1)
    assert 0.1 < looks[256]["additive"]["score_std"] < 2
    assert [additive_width(w, 64) for w in (16, 64, 256)] == [14, 47, 128]
    with pytest.raises(ValueError, match="scoring='cosine'"):
        build(Config("cosine", 16, 0.1), 0)
    assert attention_scores.entropy(torch.full((2, 3, 4), 0.25)).item() == pytest.approx(np.log(4))
    assert attention_scores.entropy(torch.eye(4)).item() == 0


@pytest.mark.parametrize("name", ["1/d", "additive"])
def test_a_look_at_scores_and_hits(name):
    config, batch = Config(**ARMS[name], width=16, lr=0), HELD_OUT(batch_size=6, n_pairs=5)(0)
    model = build(config, 0)
    seen, right = inside(model, *batch[:3]), right_cells(*batch[:2])
    scores = attention_scores.scores_of(model, seen.q, seen.k, attention_scores.scale_of(config))
    torch.testing.assert_close(scores.softmax(-1), seen.weights[:, 0])
    found = attention_scores.look(model, config, batch)
    assert found["hit"] == pytest.approx((scores.argmax(-1) == right.float().argmax(-1)).float().mean().item())
    assert found["gap"] == pytest.approx((scores[right].mean() - scores[~right].mean()).item())
    with torch.no_grad():
        model.word.weight[200:] *= 0.1
    before = model.word.weight.clone()
    longer = attention_scores.lengthened(model).word.weight
    assert torch.equal(model.word.weight, before)
    assert torch.equal(longer[:200], before[:200])
    assert longer[200:].norm(dim=1).mean().item() == pytest.approx(before[:200].norm(dim=1).mean().item(), rel=1e-5)
    assert attention_scores.look_at_unseen(model, config)["unseen_length"] == pytest.approx(0.1, rel=0.05)


def test_word_vectors_follow_the_counts():
    sentences = ["The cat, the dog", "cat dog", "bus train", "Bus train!", "train bus cat"]
    words, vectors = count_vectors(sentences, 4, 4)
    assert set(words) == {"cat", "bus", "train", "dog"}
    n = {word: i for i, word in enumerate(words)}
    pairs = [
        (a, b)
        for s in sentences
        for a in set(re.findall("[a-z]+", s.lower()))
        for b in set(re.findall("[a-z]+", s.lower()))
    ]
    pairs = [(a, b) for a, b in pairs if a != b and a in n and b in n]
    p = np.zeros((4, 4))
    for a, b in pairs:
        p[n[a], n[b]] += 1 / len(pairs)
    with np.errstate(divide="ignore"):
        above = np.maximum(0, np.log(p / p.sum(1)[:, None] / p.sum(0)))
    values, directions = np.linalg.eigh(above)
    best = (directions * np.maximum(values, 0)) @ directions.T
    np.testing.assert_allclose(vectors @ vectors.T, best, atol=1e-5)
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(vectors[n["cat"]], vectors[n["dog"]], 0) > cosine(vectors[n["cat"]], vectors[n["bus"]], 0)
    for arguments, words in {(9, 2): "n_words=9", (4, 5): "dim=5", (4, 0): "dim=0"}.items():
        with pytest.raises(ValueError, match=words):
            count_vectors(sentences, *arguments)


def test_a_score_frame_is_a_softmax_and_its_jacobian():
    frame = score_frame(64, 2.0, "none")
    logits = torch.tensor(frame.logits)
    np.testing.assert_allclose(frame.weights, logits.softmax(-1))
    want = torch.autograd.functional.jacobian(lambda x: x.softmax(-1), logits)
    np.testing.assert_allclose(frame.jacobian, want)
    assert softmax_gradient(logits.softmax(-1)).item() == pytest.approx(want.norm().item())
    assert frame.expected == pytest.approx(4)
    np.testing.assert_allclose(score_frame(64, 1.0, "1/√d").logits, score_frame(64, 8.0, "none").logits)  # "Try this" 3
    np.testing.assert_allclose(score_frame(64, 1.0, "1/d").logits, score_frame(64, 64.0, "none").logits)
    assert frame.text() in score_frame(64, 2.0, "none").text()
    for d, temperature, scale in (
        (0, 1, "none"),
        (1025, 1, "none"),
        (4, 0, "none"),
        (4, float("nan"), "none"),
        (4, 1, "2"),
    ):
        with pytest.raises(ValueError, match=r"d=|temperature=|scale="):
            score_frame(d, temperature, scale)
    assert plot_score_frame(frame).axes[1].get_ylim() == (0, 1)
    assert plot_score_frame(score_frame(1, 100.0, "none"))
    assert plot_score_frame(score_frame(1024, 0.1, "none"))


def test_the_sweep_says_what_section_4_says():
    found = sweep()
    d = np.array(found.widths)
    np.testing.assert_allclose(found.spread["q·k"], np.sqrt(d), rtol=0.06)
    np.testing.assert_allclose(found.spread["q·k/√d"], 1, rtol=0.06)
    last, first = (dict(zip(found.widths, np.median(found.entropy["q·k"], 1), strict=True))[w] for w in (1024, 1))
    assert (last, first) == (pytest.approx(0, abs=0.01), pytest.approx(2.6, abs=0.1))
    assert np.median(found.entropy["q·k/√d"], 1).min() > 2.3
    typical, mean = np.median(found.gradient["q·k"], 1), found.gradient["q·k"].mean(1)
    assert 1e-6 < typical[-1] < 1e-4  # "falls by four powers of ten"
    assert 1e3 < typical[0] / typical[-1] < 1e5
    assert mean[-1] > 0.05  # "but the mean falls slowly"
    assert plot_sweep(found).axes[0].get_yscale() == "log"
    for wrong in ({"n_keys": 0}, {"n_draws": 0}, {"widths": ()}, {"widths": (0, 2)}):
        with pytest.raises(ValueError, match="must be at least 1"):
            sweep(**wrong)


def test_the_four_pictures_show_the_four_matrices():
    x = torch.randn(3, 2)
    scores = x @ x.T
    weights = scores.softmax(-1)
    names = ["a", "b", "c"]
    figure = plot_attention_steps(x, scores, weights, weights @ x, queries=names, keys=names, channels=["p", "q"])
    for ax, matrix in zip(figure.axes, (x, scores, weights, weights @ x), strict=True):
        np.testing.assert_allclose(ax.images[0].get_array(), matrix)
    assert figure.axes[2].images[0].get_clim() == (0, 1)
    low, high = figure.axes[1].images[0].get_clim()
    assert low == -high
    with pytest.raises(ValueError, match="needed for 2 queries and 3 keys"):
        plot_attention_steps(x, scores, weights, weights @ x, queries=names[:2], keys=names)
    panels = plot_weight_panels({"one": weights, "two": weights.T}, names, names)
    assert {ax.images[0].get_clim() for ax in panels.axes[:2]} == {(0, 1)}
    assert plot_weight_panels({"one": weights}, names, names, title="Found").get_suptitle() == "Found"
    assert len({figure.axes[i].images[0].get_clim() for i in (0, 3)}) == 1  # embeddings and outputs are compared
    wide = plot_attention_steps(torch.randn(3, 9), scores, weights, weights, queries=names, keys=names, answers=names)
    assert len(wide.axes) == 5  # what has no numbers has a colour bar
    with pytest.raises(ValueError, match="panels is empty"):
        plot_weight_panels({}, names, names)
    with pytest.raises(ValueError, match=r"'one' has shape \(3, 3\)"):
        plot_weight_panels({"one": weights}, names[:2], names)


def test_widgets_show_what_is_computed(trained):
    explorer = score_panel()
    assert explorer.shown.text() == score_frame(**explorer.params).text()
    for scale in SCALES:
        explorer.controls["scale"].value = scale
        for d in (1, 1024):
            explorer.controls["d"].value = d
            for temperature in (0.1, 100.0):
                explorer.controls["temperature"].value = temperature
                assert explorer.shown.text() == score_frame(**explorer.params).text()
    table = capitals()
    atlas = Atlas(table["country"], table["capital"], [(3, 50), (120, 7), (150, 90)])
    names = [table["country"][i] for i in (150, 3)]
    maps = atlas_maps(trained, atlas, f" {names[0].upper()} \n{names[1]},")
    want = inside(trained, *(torch.tensor([ids]) for ids in ((150, 3), (3, 120, 150), (50, 7, 90)))).weights
    np.testing.assert_allclose(maps.weights, want)
    assert list(maps.queries) == names
    assert f"{names[0]}: {table['capital'][90]}" in maps.note
    widget = atlas_explorer(trained, atlas, names[0])
    widget.text = "Narnia"
    assert "'Narnia' is not one of the 221 countries" in widget.error
    for text, words in {"": "0 countries", ", ,": "0 countries", "Japan," * 65: "65 countries"}.items():
        with pytest.raises(ValueError, match=words):
            atlas_maps(trained, atlas, text)


def table():
    """Per width and way of scoring: the medians at the best learning rate, as the lesson computes them."""
    frame = as_frame(load("attention_scores"))
    frame["scoring"] = frame["arm"].str.split(" width=").str[0]
    frame["steps"] = frame["steps_to_90"].astype(float).fillna(np.inf)
    rows = {}
    for (width, name), runs in frame.groupby(["width", "scoring"]):
        medians = runs.groupby("lr")["final_loss"].median()
        best = runs[runs.lr == medians.idxmin()].median(numeric_only=True)
        best["lr"], best["usable"] = medians.idxmin(), medians.index[medians < 0.5].max()
        best["fastest"] = runs.groupby("lr")["steps"].median().min()
        rows[width, name] = best
    return frame, rows


def test_claims_about_the_study():
    """The predictions one by one, in the order of the prose."""
    frame, best = table()
    assert len(frame) == 375
    assert not frame.diverged.any()
    loss = {key: row.final_loss for key, row in best.items()}
    assert loss[16, "dot"] / loss[16, "scaled"] == pytest.approx(3.2, abs=0.05)
    assert loss[256, "dot"] / loss[256, "scaled"] == pytest.approx(13, abs=0.5)
    assert [best[256, name].steps for name in ("dot", "scaled")] == [74, 54]
    assert [best[256, name].fastest for name in ("dot", "scaled")] == [63, 19]
    widths = (16, 64, 256)
    assert [best[w, "dot"].usable for w in widths] == [0.03, 0.03, 0.01]
    assert [best[w, "scaled"].usable for w in widths] == [0.03] * 3
    assert [round(loss[256, n], 4) for n in ("dot", "dot, small start", "scaled")] == [0.0611, 0.0085, 0.0046]
    share = {(w, n): loss[w, n] / loss[w, "scaled"] for w in widths for n in ("additive", "1/d")}
    assert [round(share[w, "additive"], 2) for w in widths] == [0.55, 0.22, 0.50]
    assert [round(share[w, "1/d"], 2) for w in widths] == [0.37, 0.30, 0.17]
    assert [loss[w, "1/d"] < loss[w, "additive"] for w in widths] == [True, False, True]
    assert loss[16, "additive"] < loss[16, "dot"] / 5  # "less than a fifth of dot's loss"
    closed = [(loss[w, "dot"] - loss[w, "dot, small start"]) / (loss[w, "dot"] - loss[w, "scaled"]) for w in widths]
    assert [round(c, 2) for c in closed] == [0.62, 0.81, 0.93]
    for w in widths:
        assert 0.785 < best[w, "additive"].test_mass < 0.87
        assert best[w, "additive"].test_accuracy > 0.999
        assert best[w, "additive"].unseen_mass == pytest.approx(0.065, abs=1e-3)
        assert best[w, "additive"].lengthened_mass < 0.08  # "near an even spread, whatever the length"
        assert min(best[w, n].test_mass for n in ("dot", "scaled", "dot, small start")) > 0.95
        assert best[w, "additive"].fastest > best[w, "scaled"].fastest
        assert best[w, "1/d"].usable == best[w, "additive"].usable == 0.03
    assert [round(best[w, "1/d"].test_mass, 2) for w in widths] == [0.96, 0.94, 0.88]
    assert min(best[w, "1/d"].test_accuracy for w in widths) > 0.999
    assert best[256, "dot, small start"].lr == best[256, "scaled"].lr == 1e-3
    at = frame[(frame.width == 256) & (frame.lr == 0.03)].groupby("scoring").final_loss.median()
    assert at["dot, small start"] > 10 * at["scaled"]  # "higher rates hurt it much more"


def test_claims_about_unseen_countries():
    frame, best = table()
    widths = (16, 64, 256)
    assert [round(best[w, "dot"].unseen_accuracy, 2) for w in widths] == [0.42, 0.62, 0.77]
    assert [round(best[w, "scaled"].unseen_accuracy, 2) for w in widths] == [0.19, 0.64, 0.81]
    assert all(best[w, "dot"].unseen_mass > best[w, "scaled"].unseen_mass for w in widths)
    rates = frame[(frame.scoring == "scaled") & (frame.width == 16)].groupby("lr").unseen_accuracy.median()
    assert rates[0.03] < rates[0.01] < rates[0.003]  # "high rates cost it the unseen"
    assert best[256, "scaled"].unseen_mass == pytest.approx(0.54, abs=5e-3)
    assert best[256, "dot, small start"].unseen_mass == pytest.approx(0.96, abs=5e-3)
    assert best[256, "1/d"].unseen_mass == pytest.approx(0.18, abs=5e-3)
    assert best[256, "1/d"].unseen_hit == pytest.approx(0.865, abs=1e-3)
    assert best[256, "dot, small start"].unseen_accuracy == pytest.approx(0.99, abs=5e-3)
    assert best[256, "1/d"].lengthened_hit == pytest.approx(0.998, abs=1e-3)
    assert best[256, "1/d"].lengthened_mass == pytest.approx(0.28, abs=5e-3)
    assert (best[16, "scaled"].unseen_mass, best[16, "scaled"].lengthened_mass) == pytest.approx((0.17, 0.69), abs=5e-3)
    assert best[256, "scaled"].unseen_length == pytest.approx(0.96, abs=5e-3)
    like_ours = frame[(frame.scoring == "scaled") & (frame.lr == 0.003) & (frame.width == 64)]
    assert like_ours.unseen_mass.median() == pytest.approx(0.44, abs=5e-3)  # section 6


def test_claims_about_the_start_and_the_end():
    frame, _ = table()
    means = frame[frame.lr == 0.003].groupby(["width", "scoring"]).mean(numeric_only=True)
    for width, spread in ((16, 4), (64, 8), (256, 16)):
        assert means.loc[width, "dot"].start_score_std == pytest.approx(spread, rel=0.03)
        assert means.loc[width, "scaled"].start_score_std == pytest.approx(1, rel=0.03)
        assert 13.5 < means.loc[width, "scaled"].test_gap < 16.5
    ratio = means.loc[256, "dot"].start_gradient / means.loc[256, "scaled"].start_gradient
    assert ratio == pytest.approx(9, abs=0.5)
    assert get_study("attention_scores").seeds == 5
    runs = {run["name"]: run for run in load("attention_scores")["arms"] if run["seed"] == 0}
    dot, scaled = (runs[f"{name} width=256 lr=0.003"] for name in ("dot", "scaled"))
    assert 8 < dot["metrics"]["final_loss"] / scaled["metrics"]["final_loss"] < 13  # "about ten times higher"

    def below_a_guess(run):
        return next(s for s, loss in zip(run["curve"]["step"], run["curve"]["loss"], strict=True) if loss < np.log(16))

    assert below_a_guess(dot) > 2 * below_a_guess(scaled)


PARTS = ("keys", "values", "scores")
ORDER = (r"median question ([\d.]+)", r"mean question ([\d.]+)")


def test_claims_of_the_saved_notebook():
    """What the prose says of the lesson's own numbers."""
    cells = json.loads((ROOT / "notebooks" / "02_attention_scoring.ipynb").read_text("utf-8"))["cells"]
    printed = "".join("".join(o.get("text", "")) for c in cells for o in c.get("outputs", []))

    def number(pattern):
        return float(re.search(pattern, printed)[1])

    assert number(r"price of tea: ([\d.]+)") == 4.34
    assert number(r"trained +([\d.]+)%\n") == pytest.approx(99.3, abs=0.3)
    assert number(r" untrained +([\d.]+)%") == pytest.approx(6.7, abs=0.3)
    assert number(r"countries shuffled +([\d.]+)%") == pytest.approx(6.25, abs=1)
    assert number(r"capitals shuffled +([\d.]+)%") > 99
    assert re.search(r"Vietnam: Oslo", printed)
    assert not re.search(r"Uruguay: Lima", printed)  # "one is confused with another"
    assert number(r"Japan: \w+ \((\d+)%\)") == pytest.approx(98, abs=1)
    shares = {n: (number(rf"{n} +country (\d+)%"), number(rf"{n} +country \d+%, capital (\d+)%")) for n in PARTS}
    assert 25 < shares["keys"][1] < shares["keys"][0] < 75  # "the keys still hold the capital"
    assert shares["values"][1] > 70  # "mostly the capital"
    assert shares["scores"][0] > 75  # "the queries mostly do not ask for it"
    assert number(r"d = 1024: .* top tenth holds (\d+)%") > 60  # "few queries get nearly all of the gradient"
    assert number(r"d = 1024: .* below 0.01: (\d+)%") > 60  # "most get almost none"
    question = {n: [number(rf"{n} +gradient.* {p}") for p in ORDER] for n in ("dot", "scaled")}
    assert question["dot"][0] < question["scaled"][0] / 2  # "the typical question gives less"
    assert question["dot"][1] > question["scaled"][1]
    assert number(r"dot +gradient.* the questions holds (\d+)%") > 50  # "a tenth of them gives most of it"
    assert 3 > number(r"no scale: .* loss ([\d.]+)") / number(r"right: .* loss ([\d.]+)\nno scale") > 1.7  # "doubles"
    assert number(r"1 question .* wrong axis: ([\d.]+)%") < 5
    assert number(r"forbidden after softmax: +100.0% right, loss ([\d.]+)") > 100 * number(
        r"old ones forbidden: +100.0% right, loss ([\d.]+)"
    )
    assert number(r"no scale: +([\d.]+)% right") > 99.5


def test_what_a_run_records(monkeypatch):
    """On a training that does nothing and gives this history."""
    accuracy = [0.0] * 30 + [1.0] * 30
    records = [
        {"step": i, "loss": float(i), "grad_norm": 1.0, "lr": 0.1, "accuracy": a} for i, a in enumerate(accuracy)
    ]
    monkeypatch.setattr(attention_scores, "fit", lambda *args, **options: History(records))
    config = asdict(Config(**ARMS["scaled"], width=16, lr=0.1, n_pairs=30))  # more pairs than unseen countries
    metrics = attention_scores.run(config, 0, None).metrics
    assert metrics["steps_to_90"] == 39  # nine of the last ten are right
    assert metrics["final_loss"] == pytest.approx(np.mean(range(40, 60)))
    assert metrics["start_mass"] == metrics["test_mass"] == pytest.approx(1 / 30, rel=0.2)
    assert metrics["unseen_mass"] == pytest.approx(1 / 21, rel=0.2)
    assert metrics["start_gradient"] > 0
    records[:] = records[:15]
    records[-1] = records[-1] | {"loss": float("nan")}
    metrics = attention_scores.run(config, 0, None).metrics
    assert (metrics["diverged"], metrics["final_loss"], metrics["steps_to_90"]) == (1, None, None)


def test_three_answers_that_look_right():
    shallow = check.masked_softmax(lambda s, allowed: s.masked_fill(~allowed, -100.0).softmax(-1) * allowed)
    assert shallow.ok is False
    assert "lower than *any* allowed one" in shallow.message
    nan = check.softmax_backward(lambda g, w: w * g - w**2 * (g * w).sum(-1, keepdim=True) / w)
    assert nan.ok is False
    assert "For weights 1, 0, 0, 0" in nan.message
    unknown = check.attention(lambda q, k, v, allowed: undefinedNone)  # noqa: F821
    assert "may be None" not in unknown.message
