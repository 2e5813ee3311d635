"""MLPs against independent implementations, on random weights."""

import torch
from torch import nn
from transformers import LlamaConfig
from transformers.models.gpt2.configuration_gpt2 import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.models.llama.modeling_llama import LlamaMLP

from course_lib.mlp import MLP, GatedMLP
from tests.conftest import randomise, relative_error


def _same(ours: nn.Module, theirs: nn.Module, width: int) -> None:
    x = torch.randn(2, 5, width, requires_grad=True)
    x2 = x.detach().clone().requires_grad_()
    upstream = torch.randn(2, 5, width)
    got, want = ours(x), theirs(x2)
    got.backward(upstream)
    want.backward(upstream)
    assert relative_error(got, want) < 1e-5
    assert relative_error(x.grad, x2.grad) < 1e-5


def test_gated_mlp_equals_llamas():
    for activation in ("silu", "gelu"):
        theirs = LlamaMLP(
            LlamaConfig(
                hidden_size=12,
                intermediate_size=20,
                num_attention_heads=2,
                num_key_value_heads=2,
                hidden_act=activation,
            )
        )
        ours = randomise(GatedMLP(12, 20, activation))
        names = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
        state = {f"{names[k.split('.')[0]]}.weight": v for k, v in ours.state_dict().items()}
        theirs.load_state_dict(state, strict=True)
        _same(ours, theirs.eval(), 12)


def test_mlp_equals_gpt2s():
    theirs = GPT2MLP(20, GPT2Config(n_embd=12, activation_function="gelu_new", resid_pdrop=0.0)).eval()
    ours = randomise(MLP(12, 20, "gelu_tanh"))
    state = {
        "c_fc.weight": ours.up.weight.T, "c_fc.bias": ours.up.bias,
        "c_proj.weight": ours.down.weight.T, "c_proj.bias": ours.down.bias,
    }  # fmt: skip
    theirs.load_state_dict(state, strict=True)
    _same(ours, theirs, 12)


def test_mlp_equals_torchs_sequence():
    for name, act in {"relu": nn.ReLU(), "gelu": nn.GELU(), "silu": nn.SiLU()}.items():
        ours = randomise(MLP(6, 9, name))
        theirs = nn.Sequential(nn.Linear(6, 9), act, nn.Linear(9, 6))
        theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
        _same(ours, theirs, 6)
