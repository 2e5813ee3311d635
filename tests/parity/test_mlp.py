"""MLPs against independent implementations, on random weights."""

import torch
from torch import nn
from transformers import LlamaConfig
from transformers.models.gpt2.configuration_gpt2 import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.models.llama.modeling_llama import LlamaMLP

from course_lib.mlp import MLP, GatedMLP
from tests.conftest import randomise, relative_error
from tests.parity.compare import assert_same_gradients, gradients


def _assert_same(ours: nn.Module, theirs: nn.Module, names: dict[str, str], turned: bool = False) -> None:
    """Outputs and all gradients, with our weights in theirs; `names` are theirs of our layers.

    `turned`: their matrices are (in, out), those of a Linear (out, in).
    """

    def other(tensor):
        return tensor.T if turned and tensor.ndim == 2 else tensor

    there = {f"{layer}.{kind}": f"{name}.{kind}" for layer, name in names.items() for kind in ("weight", "bias")}
    there = {name: there[name] for name in ours.state_dict()}  # a gated MLP has no biases
    theirs.load_state_dict({there[name]: other(tensor) for name, tensor in ours.state_dict().items()}, strict=True)
    x = torch.randn(2, 5, ours.up.in_features, requires_grad=True)
    x2 = x.detach().clone().requires_grad_()
    upstream = torch.randn_like(x)
    got, want = ours(x), theirs(x2)
    got.backward(upstream)
    want.backward(upstream)
    assert relative_error(got, want) < 1e-5
    want_gradients = {name: other(gradients(theirs)[there[name]]) for name in there}
    assert_same_gradients(gradients(ours) | {"x": x.grad}, want_gradients | {"x": x2.grad}, 1e-5)


def test_gated_mlp_equals_llamas():
    for activation in ("silu", "gelu"):
        sizes = {"hidden_size": 12, "intermediate_size": 20, "num_attention_heads": 2, "num_key_value_heads": 2}
        theirs = LlamaMLP(LlamaConfig(**sizes, hidden_act=activation))
        names = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
        _assert_same(randomise(GatedMLP(12, 20, activation)), theirs.eval(), names)


def test_mlp_equals_gpt2s():
    theirs = GPT2MLP(20, GPT2Config(n_embd=12, activation_function="gelu_new", resid_pdrop=0.0)).eval()
    _assert_same(randomise(MLP(12, 20, "gelu_tanh")), theirs, {"up": "c_fc", "down": "c_proj"}, turned=True)


def test_mlp_equals_torchs_sequence():
    for name, act in {"relu": nn.ReLU(), "gelu": nn.GELU(), "silu": nn.SiLU()}.items():
        theirs = nn.Sequential(nn.Linear(6, 9), act, nn.Linear(9, 6))
        _assert_same(randomise(MLP(6, 9, name)), theirs, {"up": "0", "down": "2"})
