"""The study of positional schemes: what is read, and that its bug is one."""

from dataclasses import replace

import pytest
import torch

from course_lib import corpora, tokenization
from course_lib.attention import with_attention
from course_lib.evaluation import future_leak, next_token_losses
from course_lib.experiments import load, load_tensors, positions
from course_lib.models.pythia import Pythia, PythiaConfig
from course_lib.positions import POSITIONS

TINY = positions.Config(steps=3, warmup=1, d_model=16, n_heads=2, n_layers=1, length=32)


def test_all_schemes_have_an_arm_with_the_same_budget():
    arms = [positions.Config(**config) for config in positions.STUDY.arms.values()]
    assert {arm.position for arm in arms} == set(POSITIONS)
    same = {replace(arm, position="", alibi_slopes="", max_distance=0, swapped=False) for arm in arms}
    assert len(same) == 1


def test_held_out_texts_are_whole_and_of_one_speech():
    texts = positions.held_out_texts(1024)
    speeches = [tokenization.load("english-4k").encode(text) for text in corpora.speeches("validation")["text"]]
    assert texts[0].tolist() == speeches[0][:1025]
    assert len(texts) == sum((len(speech) - 1) // 1024 for speech in speeches)
    streams = [",".join(map(str, speech)) for speech in speeches]
    for row in texts[::7].tolist():
        assert any(",".join(map(str, row)) in stream for stream in streams)
    assert not (texts == tokenization.END).any()


def test_sliding_windows_predict_the_same_tokens():
    """A model that is surprised by a token as much as its id says, and by how far it stands in its window."""

    class Surprised(torch.nn.Module):
        embedding = torch.nn.Embedding(1, 1)

        def forward(self, ids):
            place = torch.arange(ids.shape[1]).expand(ids.shape)
            logits = torch.zeros(*ids.shape, 600)
            return logits.scatter(-1, (ids + 1).unsqueeze(-1), -(ids + place / 1000).unsqueeze(-1).double().float())

    texts = torch.arange(257).expand(3, -1)
    found = positions.sliding_losses(Surprised(), texts, 32)
    place = torch.cat([torch.arange(32), (torch.arange(224) % 16) + 16])
    want = torch.arange(256) + place / 1000
    assert found.shape == (256,)
    assert torch.allclose((found - torch.log(torch.tensor(599.0)))[64:], want[64:], atol=2e-3)


@pytest.mark.parametrize("scheme", ["learned", "rope", "t5"])
def test_what_is_read(scheme, monkeypatch):
    monkeypatch.setattr(positions, "held_out_texts", lambda length=64: positions._held_out_texts(64)[:2])
    monkeypatch.setattr(positions, "READ", 64)
    model = positions.model_of(replace(TINY, position=scheme), seed=0).eval()
    found = positions.read(model, 32)
    extensions = {"loss_interpolate", "loss_ntk"} if scheme == "rope" else set()
    assert set(found) == {"loss_by_position", "loss_sliding"} | extensions
    texts = positions.held_out_texts()
    n = 32 if scheme == "learned" else 64
    want = next_token_losses(model, texts[:, : n + 1]).mean(0)
    assert torch.allclose(found["loss_by_position"], want)
    assert torch.allclose(found["loss_sliding"][:32], want[:32], atol=1e-5)
    assert torch.allclose(
        found["loss_sliding"][48:64], next_token_losses(model, texts[:, 32:])[:, 16:].mean(0), atol=1e-5
    )
    if scheme == "learned":
        with pytest.raises(ValueError, match="max_positions=32"):
            model(texts[:, :33])


def test_extensions_keep_the_weights_and_turn_more_slowly():
    model = positions.model_of(replace(TINY, rotary_pct=1.0), seed=3)
    for name, slower in (("interpolate", [8] * 4), ("ntk", [1, 2, 4, 8])):
        longer = positions.extended(model, name, 8.0)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), longer.parameters(), strict=True))
        one = torch.tensor([1])
        ours, theirs = (m.blocks[0].attention.position.angles(one)[0] for m in (model, longer))
        assert torch.allclose(ours / theirs, torch.tensor(slower).float())


def test_means_over_ranges():
    means = positions.means(torch.arange(1.0, 129), "loss")
    assert means == {"loss_65_128": 96.5, "loss_129_256": None, "loss_257_512": None, "loss_513_1024": None}


def test_the_swapped_matrix_leaks_and_the_right_one_is_alibi():
    torch.manual_seed(0)
    ids = torch.randint(50, (20,))
    config = PythiaConfig(vocab_size=50, d_model=16, n_heads=2, n_layers=2, position="none")
    fused, swapped = (
        with_attention(Pythia(config).eval(), mask=None, position=positions.FusedAlibi(config.n_heads, swap))
        for swap in (False, True)
    )
    honest = Pythia(replace(config, position="alibi")).eval()
    assert future_leak(fused, ids).max() == 0
    assert (future_leak(swapped, ids) > 0)[1:].all()
    assert torch.allclose(fused(ids[None]), honest(ids[None]), atol=1e-5)


def test_a_run_that_is_stopped_early_reads_nothing():
    _, outcome = positions.train_arm(vars(TINY), 0, 2)
    assert outcome.curve["step"] == [0, 1]
    assert outcome.metrics["validation_loss"] is None
    assert not outcome.tensors


@pytest.mark.parametrize("name", positions.STUDY.arms)
def test_the_record_agrees_with_its_tensors(name):
    for run in (a for a in load("positions")["arms"] if a["name"] == name):
        tensors, metrics = load_tensors("positions", name, run["seed"]), run["metrics"]
        assert metrics["diverged"] == 0
        assert len(tensors["loss_by_position"]) == (128 if run["config"]["position"] == "learned" else 1024)
        for key, value in positions.means(tensors["loss_by_position"], "loss").items():
            assert metrics[key] == (value if value is None else pytest.approx(value, rel=1e-6))


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: positions.held_out_texts(0), "length=0"),
        (lambda: positions.held_out_texts(100_000), "length=100000"),
        (lambda: positions.sliding_losses(positions.model_of(TINY, 0), torch.zeros(1, 65).long(), 31), "length=31"),
        (lambda: positions.sliding_losses(positions.model_of(TINY, 0), torch.zeros(1, 60).long(), 32), "length=32"),
        (lambda: positions.extended(positions.model_of(replace(TINY, position="alibi"), 0), "ntk", 8.0), "'alibi'"),
    ],
)
def test_bad_input_names_itself(action, words):
    with pytest.raises(ValueError, match=words):
        action()
