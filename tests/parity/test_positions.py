"""Absolute positions against `transformers` and by formula."""

import math

import pytest
import torch
from torch import nn
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

from course_lib.positions import LearnedPosition, SinusoidalPosition
from course_lib.positions.absolute import sinusoids
from tests.conftest import randomise


@pytest.mark.parametrize("d_model", [2, 4, 6, 64])
@pytest.mark.parametrize("offset", [0, 5])
def test_sinusoids_against_marian(d_model, offset):
    theirs = MarianSinusoidalPositionalEmbedding(40, d_model)
    with torch.no_grad():
        theirs.weight.copy_(theirs.create_weight())
    want = theirs((1, 30), past_key_values_length=offset)
    pos = torch.arange(offset, offset + 30)
    assert torch.allclose(sinusoids(pos, d_model), want, atol=1e-5)
    x = torch.randn(2, 30, d_model)
    assert torch.allclose(SinusoidalPosition(d_model).embed(x, pos), x + want, atol=1e-5)


def test_sinusoids_by_formula_far_out_and_by_row():
    pos, d_model = torch.tensor([[0, 3, 100_000], [7, 7, 2]]), 8
    got = sinusoids(pos, d_model)
    assert got.dtype == torch.float32
    for b in range(2):
        for t in range(3):
            for i in range(d_model // 2):
                angle = pos[b, t].item() / 10000 ** (2 * i / d_model)
                assert got[b, t, i].item() == pytest.approx(math.sin(angle), abs=0.01)
                assert got[b, t, d_model // 2 + i].item() == pytest.approx(math.cos(angle), abs=0.01)
    x = torch.zeros(2, 3, d_model, dtype=torch.bfloat16)
    y = SinusoidalPosition(d_model).embed(x, pos)
    assert torch.equal(y, got.bfloat16())  # angles are float32 whatever the stream is: in bfloat16 257 is 256


@pytest.mark.parametrize("by_row", [False, True])
def test_learned_against_an_embedding(by_row):
    ours = randomise(LearnedPosition(9, 4)).double()
    theirs = nn.Embedding.from_pretrained(ours.embedding.weight.detach().clone(), freeze=False)
    x, pos = torch.randn(2, 3, 4).double(), torch.tensor([[4, 0, 8], [1, 1, 2]])
    pos = pos if by_row else pos[0]
    got, want = ours.embed(x, pos), x + theirs(pos)
    assert torch.equal(got, want)
    got.square().sum().backward()
    want.square().sum().backward()
    assert torch.equal(ours.embedding.weight.grad, theirs.weight.grad)
    assert set(ours.state_dict()) == {"embedding.weight"}
