"""The study of scores: its atlases, its arms, what a run looks at and records."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from course_lib.corpora import capitals
from course_lib.experiments import attention_scores
from course_lib.experiments.attention_scores import ARMS, HELD_OUT, Config, additive_width, atlases, build
from course_lib.models.lookup import inside, right_cells
from course_lib.training import History


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
