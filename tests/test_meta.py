"""No module makes a CPU tensor or asks the host in forward or backward: run on `meta`, with CPU operands refused."""

import pytest
import torch

from course_lib.attention import AdditiveAttention, MultiHeadAttention, attention, causal, window
from course_lib.evaluation import next_token_losses
from course_lib.mlp import MLP, GatedMLP
from course_lib.models.bigram import BigramConfig, BigramNetwork, CountedBigram, counted_loss
from course_lib.models.residual_mlp import ResidualMLP, ResidualMLPConfig
from course_lib.norms import LayerNorm, RMSNorm, fused_layer_norm
from course_lib.positions import SinusoidalPosition
from course_lib.transformer_block import TransformerBlock
from tests.on_meta import NoCpu, OneSequence
from tests.positions.toy import Toy


def small(**fields):
    return lambda: ResidualMLP(ResidualMLPConfig(d_in=8, d_model=8, d_ff=6, n_layers=2, n_classes=3, **fields))


class Embedded(torch.nn.Sequential):
    """A position's hook `embed` on x (T, C)."""

    def forward(self, x):
        return self[0].embed(x.unsqueeze(0), torch.arange(len(x), device=x.device)).squeeze(0)


def explicit(q, k, v, **arguments):
    return attention(q, k, v, **arguments, impl="explicit")


def block(placement):
    parts = MultiHeadAttention(8, 2, mask=causal), MLP(8, 12), (LayerNorm(8), LayerNorm(8))
    return TransformerBlock(*parts, placement=placement)


MODULES = {
    "LayerNorm": lambda: LayerNorm(8),
    "LayerNorm fused": lambda: LayerNorm(8, norm_fn=fused_layer_norm),
    "RMSNorm": lambda: RMSNorm(8),
    "MLP": lambda: MLP(8, 12),
    "GatedMLP": lambda: GatedMLP(8, 12),
    "ResidualMLP pre": small(),
    "ResidualMLP post": small(placement="post", norm="rmsnorm"),
    "ResidualMLP plain": small(norm="none", skip_scale=0.0),
    "attention": lambda: OneSequence(MultiHeadAttention(8, 2)),
    "attention causal": lambda: OneSequence(MultiHeadAttention(8, 2, mask=causal)),
    "attention explicit": lambda: OneSequence(MultiHeadAttention(8, 2, mask=causal, attention_fn=explicit)),
    "attention window GQA": lambda: OneSequence(MultiHeadAttention(8, 4, n_kv_heads=2, mask=causal & window(2))),
    "attention with position": lambda: OneSequence(MultiHeadAttention(8, 2, mask=causal, position=Toy(2, 4))),
    "attention additive": lambda: OneSequence(MultiHeadAttention(8, 2, attention_fn=AdditiveAttention(4, 3))),
    "SinusoidalPosition": lambda: Embedded(SinusoidalPosition(8)),
    "TransformerBlock pre": lambda: OneSequence(block("pre")),
    "TransformerBlock post": lambda: OneSequence(block("post")),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forward_and_backward_on_meta(name, dtype):
    module = MODULES[name]().to("meta", dtype)
    x = torch.empty(4, 8, device="meta", dtype=dtype, requires_grad=True)
    with NoCpu():
        y = module(x)
        y.sum().backward()
    assert y.device.type == "meta"
    assert y.dtype == dtype
    assert x.grad.shape == x.shape


LANGUAGE_MODELS = {
    "BigramNetwork": lambda: BigramNetwork(BigramConfig(vocab_size=9, d_model=8, d_ff=6, n_layers=2)),
    "CountedBigram": lambda: CountedBigram(torch.ones(9, 9)),
}


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_language_models_on_meta(name, dtype):
    model = LANGUAGE_MODELS[name]().to("meta", dtype)
    ids = torch.zeros(4, 8, device="meta", dtype=torch.long)
    counts = torch.ones(9, 9, device="meta")
    with NoCpu():
        logits, losses, (loss, _) = model(ids), next_token_losses(model, ids), counted_loss(model, counts)
        for result in (logits.sum(), loss):
            if result.requires_grad:  # a table has no parameters
                result.backward()
    assert logits.shape == (4, 8, 9)
    assert logits.dtype == dtype
    assert losses.shape == (4, 7)
    assert {logits.device.type, losses.device.type, loss.device.type} == {"meta"}
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_mode_catches_a_stray_cpu_tensor():
    with NoCpu(), pytest.raises(AssertionError, match="CPU tensor"):
        torch.empty(4, 8, device="meta") @ torch.ones(8, 2)
