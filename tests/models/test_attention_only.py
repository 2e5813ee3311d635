"""Attention alone: a GPT-NeoX whose MLPs are silent is the same, nothing leaks, and small writes are what it needs."""

import pytest
import torch

from course_lib.evaluation import future_leak
from course_lib.interop import oracle
from course_lib.models.attention_only import AttentionOnly, AttentionOnlyConfig
from course_lib.models.pythia import Pythia, PythiaConfig
from tests.conftest import randomise, relative_error
from tests.on_meta import NoCpu
from tests.parity.compare import assert_same_gradients, gradients

SIZES = {"vocab_size": 13, "d_model": 16, "n_heads": 2, "n_layers": 3}


def with_silent_mlps(model: AttentionOnly) -> Pythia:
    """The same network with MLPs between the attentions that write nothing."""
    other = Pythia(PythiaConfig(**SIZES, max_positions=20, rotary_pct=1.0, placement="pre")).to(torch.float64)
    for block, norm, attention in zip(other.blocks, model.norms, model.attentions, strict=True):
        block.attention_norm.load_state_dict(norm.state_dict())
        block.attention.load_state_dict(attention.state_dict())
        for parameter in block.mlp.down.parameters():
            torch.nn.init.zeros_(parameter)
    for name in ("embedding", "final_norm", "unembedding"):
        getattr(other, name).load_state_dict(getattr(model, name).state_dict())
    return other.eval()


def test_it_is_a_gpt_neox_whose_mlps_are_silent():
    model, ids = randomise(AttentionOnly(AttentionOnlyConfig(**SIZES))).double(), torch.randint(13, (2, 20))
    other = with_silent_mlps(model)
    theirs = oracle(other)
    assert relative_error(model(ids), theirs(ids).logits) < 1e-10
    for network in (model(ids), other(ids)):
        network.square().mean().backward()
    kept = {"embedding", "final_norm", "unembedding"}
    same = {n: g for n, g in gradients(other).items() if n.split(".")[0] in kept or ".attention" in n}
    renamed = {
        n.replace("blocks.", "").replace("attention_norm", "norms").replace("attention.", "attentions."): g
        for n, g in same.items()
    }
    ours = {
        ".".join([n.split(".")[1], n.split(".")[0], *n.split(".")[2:]])
        if n.startswith(("norms", "attentions"))
        else n: g
        for n, g in gradients(model).items()
    }
    assert_same_gradients(ours, renamed, 1e-10)


def test_no_future_token_changes_an_earlier_output():
    model = randomise(AttentionOnly(AttentionOnlyConfig(**SIZES)))
    assert future_leak(model, torch.randint(13, (20,))).tolist() == [0.0] * 20


def test_only_distances_count():
    """RoPE on all channels and nothing learned about places: two layers see the same a place later."""
    model = randomise(AttentionOnly(AttentionOnlyConfig(**SIZES))).double()
    ids = torch.randint(13, (1, 9))
    pos = torch.arange(9) + 100
    from course_lib.attention import Places

    x, moved = (model.embedding(ids) for _ in range(2))
    for norm, attention in zip(model.norms, model.attentions, strict=True):
        x, moved = x + attention(norm(x)), moved + attention(norm(moved), Places(pos=pos))
    assert relative_error(moved, x) < 1e-5  # RoPE's angles are float32


def test_the_stream_begins_as_the_tokens_alone():
    model, ids = AttentionOnly(AttentionOnlyConfig(n_layers=1)), torch.randint(64, (4, 30))
    x = model.embedding(ids)
    written = model.attentions[0](model.norms[0](x))
    assert x.std().item() == pytest.approx(1, abs=0.1)
    assert written.std() < 0.02 * x.std()
    assert sum(p.numel() for p in AttentionOnly(AttentionOnlyConfig()).parameters()) == 41_856


def test_on_meta():
    model = AttentionOnly(AttentionOnlyConfig(**SIZES)).to("meta")
    with NoCpu():
        model(torch.zeros(2, 9, device="meta", dtype=torch.long)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("sizes", "said"),
    [({"n_layers": 0}, "n_layers=0"), ({"n_heads": 3}, "n_heads=3"), ({"d_model": 18, "n_heads": 6}, "head_dim=3")],
)
def test_sizes_that_cannot_be(sizes, said):
    with pytest.raises(ValueError, match=said):
        AttentionOnlyConfig(**SIZES | sizes)


def test_ids_that_are_no_tokens():
    with pytest.raises(ValueError, match="ids"):
        AttentionOnly(AttentionOnlyConfig(**SIZES))(torch.randn(2, 3))
