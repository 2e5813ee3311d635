"""Each case compares like with like: norms, training steps, decoding."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.case import get_case
from benchmarks.cases import decoding, norms, training_step
from benchmarks.flops import count_flops
from benchmarks.measure import Disagreement, check_agreement
from course_lib.norms import LayerNorm, RMSNorm
from tests.benchmarks.small import small
from tests.conftest import randomise, relative_error

pytestmark = pytest.mark.slow  # every case is run

CPU = torch.device("cpu")


class Forgetful(LayerNorm):
    """A LayerNorm that uses neither gain nor bias, but has gradients for them."""

    def forward(self, x):
        return self.norm_fn(x, None, None, self.eps) + 0 * (self.weight + self.bias)


class WrongNorm(LayerNorm):
    """A LayerNorm that puts eps in the wrong place."""

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        return (centred / (centred.square().mean(-1, keepdim=True).sqrt() + 0.1)).to(x.dtype) * self.weight + self.bias


class GainOnly(RMSNorm):
    """An RMSNorm with the right output and a wrong gradient: the root is taken for a constant."""

    def forward(self, x):
        return x * torch.rsqrt(x.detach().square().mean(-1, keepdim=True) + self.eps) * self.weight


@pytest.mark.parametrize("setting", small("norms").settings, ids=lambda s: f"{s['norm']} {s['dtype']} {s['pass']}")
def test_a_wrong_norm_is_refused(setting, monkeypatch):
    monkeypatch.setattr(norms, "LayerNorm", WrongNorm)
    monkeypatch.setattr(norms, "RMSNorm", GainOnly)
    race = norms.race(setting, CPU)
    if setting["norm"] == "RMSNorm" and setting["pass"] == "forward":
        check_agreement(race)  # only the gradients tell
    else:
        with pytest.raises(Disagreement):
            check_agreement(race)


@pytest.mark.parametrize("setting", small("norms").settings, ids=lambda s: f"{s['norm']} {s['dtype']} {s['pass']}")
def test_what_the_norms_are_compared_in(setting, monkeypatch):
    race = norms.race(setting, CPU)
    for name, run in {**race.ours, **race.rivals}.items():
        tensors = run()
        assert {tensor.dtype for tensor in tensors.values()} == {race.dtype} == {run.args[0].weight.dtype}
        assert list(tensors)[:2] == ["output", "input"][: 1 + (setting["pass"] != "forward")]
        if setting["pass"] != "forward" and race.dtype == torch.float32:
            assert set(tensors) == {"output", "input", *dict(run.args[0].named_parameters())}
        if name in race.ours:
            assert run.args[0].norm_fn.__name__ == name
    monkeypatch.setattr(norms, "LayerNorm", Forgetful)
    if setting["norm"] == "LayerNorm":
        with pytest.raises(Disagreement, match="output"):
            check_agreement(norms.race(setting, CPU))


@pytest.mark.parametrize("norm", [LayerNorm, RMSNorm])
def test_gradients_that_the_case_leaves_out_are_exact(norm):
    """In bfloat16 the gradients of gain and bias are not compared with torch's; with exact ones they are."""
    ours = randomise(norm(24)).bfloat16()
    exact = norm(24).double()
    exact.load_state_dict(ours.state_dict())
    x, upstream = (torch.randn(3000, 24).bfloat16() + 1 for _ in range(2))
    ours(x).backward(upstream)
    exact(x.double()).backward(upstream.double())
    for name, parameter in ours.named_parameters():
        assert relative_error(parameter.grad, exact.get_parameter(name).grad) < 2**-7, name


def grad_norm(model):
    return sum(p.grad.double().square().sum() for p in model.parameters()).sqrt()


@pytest.mark.parametrize("setting", small("training_step").settings, ids=lambda s: s["dtype"])
def test_the_training_step_counts_its_products_and_moves(setting):
    race = training_step.race(setting, CPU)
    c, f, n, b, classes, d_in = 8, 12, 3, 6, 10, 784
    inner = 3 * 2 * b * (n * 2 * c * f + c * classes)
    first = 2 * 2 * b * d_in * c  # nobody needs the gradient of the pictures
    assert race.model_flops == inner + first
    for run in [*race.ours.values(), *race.rivals.values()]:
        assert count_flops(run.forward_backward) == race.model_flops
        norm = grad_norm(run.model)
        run.forward_backward()
        assert grad_norm(run.model) == norm > 1  # a second pass starts from zero
        dtypes = []
        with run.model.head.register_forward_hook(lambda *a, dtypes=dtypes: dtypes.append(a[-1].dtype)):
            compared = set(run())
        assert dtypes == [race.dtype]
        named = dict(run.model.named_parameters())
        assert compared == {"loss", *(n for n in named if race.dtype == torch.float32 or named[n].ndim > 1)}
        before = [p.detach().clone() for p in run.model.parameters()]
        losses = [run()["loss"].item() for _ in range(5)]
        assert losses[-1] < losses[0]
        assert grad_norm(run.model) <= 1.001  # clipped
        assert not any(torch.equal(p, q) for p, q in zip(run.model.parameters(), before, strict=True))
    fused = [m.norm_fn.__name__ for m in race.ours["ResidualMLP, fused norms"].model.modules() if hasattr(m, "norm_fn")]
    assert fused == ["fused_layer_norm"] * 4


@pytest.mark.parametrize("setting", small("training_step").settings, ids=lambda s: s["dtype"])
def test_another_network_is_refused(setting, monkeypatch):
    monkeypatch.setattr(training_step.TorchBlock, "forward", lambda self, x: x + self.norm(self.mlp(x)))
    with pytest.raises(Disagreement):
        check_agreement(training_step.race(setting, CPU))


LANGUAGE_STEPS = [
    pytest.param(name, setting, id=f"{name} {setting['dtype']}")
    for name in ("gpt2_step", "pythia_step")
    for setting in small(name).settings
]


@pytest.mark.parametrize(("name", "setting"), LANGUAGE_STEPS)
def test_a_step_of_a_language_model_counts_its_products_and_moves(name, setting):
    race = get_case(name).race(setting, CPU)
    (ours,) = race.ours.values()
    c, n, b, t, v = setting["d_model"], 2, 3, 5, 11
    assert race.model_flops == 3 * 2 * (b * t * (n * 12 * c * c + c * v) + n * 2 * b * t * t * c)
    for run in [*race.rivals.values(), ours]:
        assert run.model.training
        assert [m.p for m in run.model.modules() if isinstance(m, nn.Dropout) and m.p > 0] == []
        run.forward_backward()
        norm = grad_norm(run.model)
        run.forward_backward()
        assert grad_norm(run.model) == norm > 0  # a second pass starts from zero
        compared = set(run())
        wanted = {key for key, p in ours.model.named_parameters() if race.dtype == torch.float32 or p.ndim > 1}
        assert compared == {"loss"} | {key for key in wanted if not key.endswith("k_proj.bias")}
        losses = [run()["loss"].item() for _ in range(5)]
        assert losses[-1] < losses[0]
    implementations = [race.rivals[rival].model.model.config._attn_implementation for rival in race.rivals]
    assert implementations == ["sdpa", "eager"]
    assert list(race.rivals) == ["transformers, sdpa", "transformers, eager"]


@pytest.mark.parametrize("wrong", ["", "window", "halves", "theta"])
def test_a_step_of_another_modernbert_is_refused(wrong):
    case = small("modernbert_step")
    race = case.race(case.settings[0] | {"length": 150}, CPU)
    (ours,) = race.ours.values()
    assert list(race.rivals) == ["transformers, sdpa"]
    assert race.rivals["transformers, sdpa"].model.model.config._attn_implementation == "sdpa"
    block = ours.model.encoder.blocks[1]  # a local one
    if wrong == "window":
        block.attention.attention_fn.keywords["radius"] += 1
    if wrong == "halves":
        block.mlp.gate, block.mlp.up = block.mlp.up, block.mlp.gate
    if wrong == "theta":
        block.attention.position.theta = 160_000.0
    if not wrong:
        check_agreement(race)
        return
    with pytest.raises(Disagreement):
        check_agreement(race)


@pytest.mark.parametrize(("name", "setting"), LANGUAGE_STEPS)
@pytest.mark.parametrize("wrong", ["no mask", "another activation", "no position", "another placement"])
def test_another_language_model_is_refused(wrong, name, setting):
    race = get_case(name).race(setting | {"length": 30}, CPU)
    model = next(iter(race.ours.values())).model
    for block in model.blocks:
        if wrong == "no mask":
            block.attention.mask = None
        if wrong == "another activation":
            block.mlp.act = torch.relu
        if wrong == "no position":
            block.attention.position = None
        if wrong == "another placement":
            block.placement = {"pre": "parallel", "parallel": "pre"}[block.placement]
    if wrong == "no position" and name == "gpt2_step":
        model.position.embedding.weight.data.zero_()
    with pytest.raises(Disagreement):
        check_agreement(race)


@pytest.mark.parametrize("setting", small("decoding").settings, ids=lambda s: f"{s['n_kv_heads']} {s['dtype']}")
def test_a_decoding_step_is_the_last_token_of_the_text(setting):
    race = decoding.race(setting, CPU)
    step = race.ours["MultiHeadAttention"]
    module, length = step.module, setting["length"]
    for run in race.runs.values():
        assert torch.equal(run()["output"], run()["output"])  # no call is a token further than the one before
    assert step.cache.length == length
    assert step.cache.bytes() == 2 * 2 * setting["n_kv_heads"] * length * 4 * race.dtype.itemsize
    # The cache is as if the tokens before had gone through the module; nothing of its mask is left out.
    k, v, _ = (x[:, :, :-1] if x.ndim > 1 else x for x in (step.cache._k, step.cache._v, torch.arange(length)))
    projected = [p(step.last).unflatten(-1, (-1, 4)).transpose(1, 2) for p in (module.k_proj, module.v_proj)]
    keys, values = (torch.cat([old, new], 2) for old, new in zip((k, v), projected, strict=True))
    query = module.q_proj(step.last).unflatten(-1, (16, 4)).transpose(1, 2)
    y = F.scaled_dot_product_attention(query, keys, values, enable_gqa=True)
    assert relative_error(step()["output"], module.out_proj(y.transpose(1, 2).flatten(2))) < 0.02
    heads = {name: run.module.n_kv_heads for name, run in race.rivals.items() if hasattr(run, "module")}
    assert heads == ({} if setting["n_kv_heads"] == 16 else {"MultiHeadAttention, all key heads": 16})
    # All positions but the last are seen, too: a key that is changed changes the output.
    before = step()["output"].clone()
    step.cache._v[:, :, 0] += 100
    assert not torch.allclose(step()["output"], before)


def test_copied_heads_in_another_order_are_refused(monkeypatch):
    setting = next(s for s in small("decoding").settings if (s["n_kv_heads"], s["dtype"]) == (4, "float32"))
    monkeypatch.setattr(decoding, "repeat_heads", lambda x, n: x.repeat(1, n // x.shape[1], 1, 1))
    with pytest.raises(Disagreement, match="all key heads"):
        check_agreement(decoding.race(setting, CPU))
