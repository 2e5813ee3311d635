"""Models as people use them: pickled, captured as one graph, made on `meta`, under another default type."""

import io
import pickle
from functools import partial

import pytest
import torch

from course_lib.attention import attention, with_attention
from course_lib.init import init_weights
from course_lib.mlp import ACTIVATIONS, MLP, GatedMLP
from course_lib.models.attention_only import AttentionOnly, AttentionOnlyConfig
from course_lib.models.bigram import BigramConfig, BigramNetwork, CountedBigram, KneserNeyBigram, count_bigrams
from course_lib.models.lookup import Lookup, LookupConfig
from course_lib.models.residual_mlp import ResidualMLP, ResidualMLPConfig
from course_lib.norms import LayerNorm, RMSNorm, fused_layer_norm
from course_lib.positions import POSITIONS
from tests.conftest import randomise
from tests.models import cases

SMALL = {"d_in": 8, "d_model": 8, "d_ff": 6, "n_layers": 2}
STREAM = torch.arange(60).square() % 11 % 7
IDS = torch.tensor([[0, 3, 6, 1]])


def rows():
    return torch.randn(5, 8)


# How it is made, and what it is called with.
PARTS = {
    **{f"MLP {name}": (lambda name=name: init_weights(MLP(8, 12, name), 0), rows) for name in ACTIVATIONS},
    **{f"GatedMLP {name}": (lambda name=name: init_weights(GatedMLP(8, 12, name), 0), rows) for name in ACTIVATIONS},
    "LayerNorm": (lambda: LayerNorm(8), rows),
    "LayerNorm fused": (lambda: LayerNorm(8, norm_fn=fused_layer_norm), rows),
    "RMSNorm": (lambda: RMSNorm(8), rows),
    "ResidualMLP pre": (lambda: ResidualMLP(ResidualMLPConfig(**SMALL)), rows),
    "ResidualMLP post": (lambda: ResidualMLP(ResidualMLPConfig(**SMALL, norm="rmsnorm", placement="post")), rows),
    "ResidualMLP bare": (lambda: ResidualMLP(ResidualMLPConfig(**SMALL, norm="none")), rows),
    "AttentionOnly": (lambda: AttentionOnly(AttentionOnlyConfig(7, 8, 2, 2)), lambda: IDS),
    "BigramNetwork": (lambda: BigramNetwork(BigramConfig(7, 8, 12)), lambda: IDS),
    "CountedBigram": (lambda: CountedBigram(count_bigrams(STREAM, 7)), lambda: IDS),
    "KneserNeyBigram": (lambda: KneserNeyBigram(torch.tensor([[1, 2, 0], [0, 3, 1], [1, 0, 5]])), lambda: IDS % 3),
    "Lookup": (lambda: Lookup(LookupConfig(7, 7, 8, 8)), lambda: (IDS, IDS, IDS)),
}


# Language models with random weights, on a text of several blocks.
TEXT = torch.randint(13, (2, 60), generator=torch.Generator().manual_seed(0))
CAPTURED = ["gpt2", "gpt2 mqa", *POSITIONS, "full", "local", "local_global", "bigbird", "local_global with rope"]


def whole(name):
    return cases.small(name, max_positions=64, n_layers=2)


def made(name):
    if name not in PARTS:
        return whole(name), (TEXT,)
    make, inputs = PARTS[name]
    inputs = inputs()
    return randomise(make()), inputs if isinstance(inputs, tuple) else (inputs,)


@pytest.mark.parametrize("name", [*PARTS, *cases.MODELS])
def test_pickled_and_saved_whole(name):
    model, inputs = made(name)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for again in (pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        assert torch.equal(again(*inputs), model(*inputs))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*PARTS, *CAPTURED])
def test_captured_as_one_graph(name):
    """No look at a tensor's values breaks it. The backend runs torch's own kernels: what is tried is the capture."""
    model, inputs = made(name)
    torch.compiler.reset()
    got = torch.compile(model, backend="eager", fullgraph=True)(*inputs)
    want, atol = model(*inputs), 1e-6 if name in PARTS else 1e-4
    assert torch.allclose(got, want, atol=atol)
    assert torch.allclose(torch.export.export(model, inputs).module()(*inputs), want, atol=atol)


@pytest.mark.parametrize("name", PARTS)
def test_made_and_called_under_another_default_type(name):
    """A model is of the default type, as torch's own; a float32 one gives the same whatever the default is."""
    make, inputs = PARTS[name]
    model, given = make(), inputs()
    given = given if isinstance(given, tuple) else (given,)
    want = model(*given)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(model(*given), want)
        assert model(*given).dtype == torch.float32
        wide, given = make(), [x.double() if x.is_floating_point() else x for x in given]
        assert torch.allclose(wide(*given).float(), want, atol=1e-5)
        assert len({x.dtype for x in wide.state_dict().values()}) == 1
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", cases.ENCODERS)
@pytest.mark.parametrize("way", ["to_empty", "assign"])
def test_a_model_made_on_meta_is_filled(name, way):
    """Random blocks are no weights: they are drawn again when the weights come."""
    model = whole(name)
    other = cases.make(name, max_positions=64, n_layers=2).to("meta").eval()
    if way == "to_empty":
        other.to_empty(device="cpu")
    other.load_state_dict(model.state_dict(), assign=way == "assign")
    assert torch.equal(other(TEXT), model(TEXT))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own forward mode uses it
@pytest.mark.parametrize("name", ["gpt2", "rope", "alibi"])
def test_second_derivatives_and_forward_mode_need_the_explicit_path(name):
    model = with_attention(whole(name), attention_fn=partial(attention, impl="explicit"))
    parameters = {n: p.detach() for n, p in model.named_parameters()}

    def loss(p):
        return torch.func.functional_call(model, p, (TEXT[:1, :9],)).square().mean()

    tangent = {n: torch.ones_like(p) for n, p in parameters.items()}
    _, slope = torch.func.jvp(loss, (parameters,), (tangent,))
    gradients = torch.func.grad(loss)(parameters)
    assert slope.item() == pytest.approx(sum(g.sum() for g in gradients.values()).item(), rel=1e-3)
    twice = torch.autograd.grad(loss(dict(model.named_parameters())), list(model.parameters()), create_graph=True)
    sum(g.square().sum() for g in twice).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
