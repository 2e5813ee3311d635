"""Each small model as people use it: pickled, saved whole, captured as one graph, with another default type."""

import io
import pickle

import pytest
import torch

from course_lib.init import init_weights
from course_lib.mlp import ACTIVATIONS, MLP, GatedMLP
from course_lib.models.bigram import BigramConfig, BigramNetwork, CountedBigram, KneserNeyBigram, count_bigrams
from course_lib.models.lookup import Lookup, LookupConfig
from course_lib.models.residual_mlp import ResidualMLP, ResidualMLPConfig
from course_lib.norms import LayerNorm, RMSNorm, fused_layer_norm
from tests.conftest import randomise

SMALL = {"d_in": 8, "d_model": 8, "d_ff": 6, "n_layers": 2}
STREAM = torch.arange(60).square() % 11 % 7
IDS = torch.tensor([[0, 3, 6, 1]])


def rows():
    return torch.randn(5, 8)


# How it is made, and what it is called with.
MODELS = {
    **{f"MLP {name}": (lambda name=name: init_weights(MLP(8, 12, name), 0), rows) for name in ACTIVATIONS},
    **{f"GatedMLP {name}": (lambda name=name: init_weights(GatedMLP(8, 12, name), 0), rows) for name in ACTIVATIONS},
    "LayerNorm": (lambda: LayerNorm(8), rows),
    "LayerNorm fused": (lambda: LayerNorm(8, norm_fn=fused_layer_norm), rows),
    "RMSNorm": (lambda: RMSNorm(8), rows),
    "ResidualMLP pre": (lambda: ResidualMLP(ResidualMLPConfig(**SMALL)), rows),
    "ResidualMLP post": (lambda: ResidualMLP(ResidualMLPConfig(**SMALL, norm="rmsnorm", placement="post")), rows),
    "ResidualMLP bare": (lambda: ResidualMLP(ResidualMLPConfig(**SMALL, norm="none")), rows),
    "BigramNetwork": (lambda: BigramNetwork(BigramConfig(7, 8, 12)), lambda: IDS),
    "CountedBigram": (lambda: CountedBigram(count_bigrams(STREAM, 7)), lambda: IDS),
    "KneserNeyBigram": (lambda: KneserNeyBigram(torch.tensor([[1, 2, 0], [0, 3, 1], [1, 0, 5]])), lambda: IDS % 3),
    "Lookup": (lambda: Lookup(LookupConfig(7, 7, 8, 8)), lambda: (IDS, IDS, IDS)),
}


@pytest.fixture(params=MODELS)
def made(request):
    make, inputs = MODELS[request.param]
    inputs = inputs()
    return randomise(make()), inputs if isinstance(inputs, tuple) else (inputs,)


def test_pickled_and_saved_whole(made):
    model, inputs = made
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for again in (pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        assert torch.equal(again(*inputs), model(*inputs))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_captured_as_one_graph(made):
    model, inputs = made
    torch.compiler.reset()
    got = torch.compile(model, backend="eager", fullgraph=True)(*inputs)
    assert torch.allclose(got, model(*inputs), atol=1e-6)
    assert torch.allclose(torch.export.export(model, inputs).module()(*inputs), got, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_made_and_called_under_another_default_type(name):
    """A model is of the default type, as torch's own; a float32 one gives the same whatever the default is."""
    make, inputs = MODELS[name]
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
