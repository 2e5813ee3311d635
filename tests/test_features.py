"""The recorder: what it keeps, that it leaves no trace, what it refuses."""

from functools import partial

import pytest
import torch
from torch import nn

from course_lib.attention import AdditiveAttention, KVCache, MultiHeadAttention, Places, attention, causal
from course_lib.dynamics import EDGES, NormTrace, distinct_rows, norm_names, snapshot
from course_lib.features import gradient_norms, record, record_attention, select, spread_by_depth
from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.models.residual_mlp import ResidualMLP, ResidualMLPConfig
from course_lib.norms import rms_norm
from tests.conftest import randomise, relative_error


def model(**fields):
    return randomise(ResidualMLP(ResidualMLPConfig(d_in=6, d_model=8, d_ff=8, n_layers=3, **fields)))


def test_select_works_level_by_level():
    names = ["", "blocks", "blocks.0", "blocks.0.mlp", "blocks.10", "head"]
    assert select("blocks.*", names) == ["blocks.0", "blocks.10"]
    assert select(["head", "blocks.0"], names) == ["blocks.0", "head"]
    with pytest.raises(ValueError, match=r"'block\.\*' matches nothing; there are blocks, blocks\.0"):
        select(["head", "block.*"], names)


def test_record_keeps_outputs_and_inputs_and_leaves_no_hook():
    net, x = model(), torch.randn(4, 6)
    with record(net, "blocks.*") as outputs:
        net(x)
    with record(net, ["blocks.*", "head"], inputs=True) as inputs:
        net(x)
    stream = net.embed(x)
    for i, block in enumerate(net.blocks):
        assert torch.equal(inputs[f"blocks.{i}"], stream)
        stream = block(stream)
        assert torch.equal(outputs[f"blocks.{i}"], stream)
    assert list(outputs) == ["blocks.0", "blocks.1", "blocks.2"]
    assert torch.equal(inputs["head"], net.final_norm(stream))
    assert not outputs["blocks.0"].requires_grad
    assert not any(module._forward_hooks for module in net.modules())


def test_hooks_go_after_an_error_too():
    net = model()
    with pytest.raises(ValueError, match="images has shape"), record(net, "blocks.*"):
        net(torch.randn(4, 5))
    assert not any(module._forward_hooks for module in net.modules())


def test_the_record_is_a_copy():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True))
    x = torch.randn(5, 3)
    with record(net, "0") as seen:
        net(x)
    assert torch.equal(seen["0"], net[0](x))
    assert (seen["0"] < 0).any()


def test_a_module_without_tensor_output_is_refused():
    class Two(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(ValueError, match="'0' gives tuple"), record(net := nn.Sequential(Two()), "0"):
        net(torch.ones(1))


def test_spread_and_gradients():
    net, x = model(), torch.randn(64, 6)
    with record(net, "blocks.*") as seen:
        loss = net(x).square().sum()
    assert spread_by_depth(net, "blocks.*", x) == pytest.approx([v.std().item() for v in seen.values()])
    with pytest.raises(ValueError, match=r"'blocks\.0\.mlp\.down\.weight' has no gradient"):
        gradient_norms(net, "blocks.*.mlp.down.weight")
    loss.backward()
    want = [block.mlp.down.weight.grad.norm().item() for block in net.blocks]
    assert gradient_norms(net, "blocks.*.mlp.down.weight") == pytest.approx(want)


def test_snapshot_holds_what_the_norms_do():
    net, x = model(), torch.randn(200, 6)
    seen = snapshot(net, x)
    assert norm_names(net) == ["blocks.0.norm", "blocks.1.norm", "blocks.2.norm", "final_norm"]
    assert seen["gain"].shape == seen["bias"].shape == (4, 8)
    width = (EDGES[1] - EDGES[0]).item()
    assert torch.allclose(seen["density"].sum(-1) * width, torch.ones(4), atol=1e-5)
    centres = (EDGES[1:] + EDGES[:-1]) / 2
    assert (seen["density"] * centres).sum(-1).mul(width).abs().max() < 0.02  # mean 0
    assert (seen["density"] * centres**2).sum(-1).mul(width).sub(1).abs().max() < 0.05  # variance 1, before the gain
    assert torch.equal(seen["gain"][1], net.blocks[1].norm.weight.detach())
    assert seen["input_std"][0].item() == pytest.approx(net.embed(x).std().item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_snapshot_of_a_model_of_another_type(dtype):
    """Pictures are float32; what is seen is that of the float32 model, as near as its type allows."""
    net, x = model(), torch.randn(200, 6)
    want, got = snapshot(net, x), snapshot(net.to(dtype), x)
    assert {tensor.dtype for tensor in got.values()} == {torch.float32}
    assert torch.allclose(got["gain"], want["gain"], atol=0.01)
    assert torch.allclose(got["input_std"], want["input_std"], rtol=0.02)


def test_distinct_rows_counts_what_differs():
    rows = torch.randn(5, 16) * 4
    assert distinct_rows(rows) == 5
    assert distinct_rows(rows.repeat(20, 1)) == 5
    assert distinct_rows(rows + 0.01 * torch.randn(100, 5, 16)[0]) == 5
    assert distinct_rows(torch.zeros(7, 3)) == 1
    assert distinct_rows(torch.arange(6.0)[:, None], distance=1.5) == 3  # 0 covers 1, 2 covers 3, 4 covers 5
    assert distinct_rows(torch.full((7, 3), torch.nan)) == 0  # an exploded network does not look healthy
    partly = torch.tensor([[0.0, 0.0], [9.0, torch.nan], [torch.inf, 9.0], [9.0, 9.0]])
    assert distinct_rows(partly) == 2  # one entry that is not finite is enough
    assert distinct_rows(torch.tensor([[1.0], [1.0], [2.0]]), distance=0.0) == 2
    with pytest.raises(ValueError, match="rows has shape"):
        distinct_rows(torch.ones(3))
    for distance in (-1.0, float("nan")):
        with pytest.raises(ValueError, match=f"distance={distance}"):
            distinct_rows(rows, distance)


def test_trace_takes_the_wanted_steps_alone():
    net = model(norm="rmsnorm", placement="post")
    trace = NormTrace(torch.randn(20, 6), (0, 2))
    with pytest.raises(ValueError, match="no snapshot"):
        trace.tensors()
    for step in range(4):
        trace(step, net)
    tensors = trace.tensors()
    assert tensors["steps"].tolist() == [0, 2]
    assert tensors["gain"].shape == (2, 3, 8)
    assert tensors["bias"].isnan().all()  # an RMSNorm has none
    with pytest.raises(ValueError, match="no LayerNorm"):
        norm_names(model(norm="none"))


def test_a_snapshot_is_a_copy_and_counts_what_lies_outside():
    net, x = model(), torch.randn(50, 6)
    seen = snapshot(net, x)
    gain = seen["gain"].clone()
    assert torch.equal(seen["bias"][1], net.blocks[1].norm.bias.detach())
    with torch.no_grad():
        net.blocks[0].norm.weight.add_(1)
    assert torch.equal(seen["gain"], gain)
    assert (EDGES[0].item(), EDGES[-1].item(), len(EDGES)) == (-5, 5, 101)
    wide = ResidualMLP(ResidualMLPConfig(d_in=6, d_model=64, d_ff=8, n_layers=1))
    with torch.no_grad():  # one huge channel: its normalised value is near sqrt(64) = 8
        wide.embed.bias[0] = 1e4
    density = snapshot(wide, x)["density"][0]
    assert density[-1].item() * 0.1 == pytest.approx(1 / 64, rel=1e-3)
    assert distinct_rows(torch.tensor([[0.0], [1.5], [1.6]])) == 2


def test_the_recorded_input_is_what_came_in():
    net = nn.Sequential(nn.ReLU(inplace=True))
    x = torch.tensor([-1.0, 2.0])
    with record(net, "0", inputs=True) as seen:
        net(x.clone())
    assert torch.equal(seen["0"], x)


def test_a_snapshot_counts_the_normalised_rows_of_each_norm():
    net, x = model(norm="rmsnorm"), torch.randn(40, 6)
    with torch.no_grad():
        net.blocks[2].mlp.down.weight.zero_()  # what enters the final norm is nearly the same for all rows
        net.blocks[2].mlp.down.bias.fill_(1e4).mul_(torch.randn(8))
    with record(net, norm_names(net), inputs=True) as seen:
        net(x)
    want = [distinct_rows(rms_norm(rows, None, None, 1e-5)) for rows in seen.values()]
    assert snapshot(net, x)["distinct_rows"].tolist() == want
    assert want[-1] == 1 < min(want[:-1])
    assert distinct_rows(torch.tensor([[0.0], [1.0]])) == 1  # at the distance itself is still near


def test_a_trace_holds_each_step_once():
    net, trace = model(), NormTrace(torch.randn(5, 6), (0, 2))
    for step in (0, 1, 2, 2):  # a call that stopped at 2, and one that went on from there
        trace(step, net)
    assert trace.tensors()["steps"].tolist() == [0, 2]


def test_a_trace_follows_one_run():
    """Handed to a second run, it begins anew: it never holds moments of two networks."""
    first, second, trace = model(), model(seed=1), NormTrace(torch.randn(5, 6), (0, 2, 4))
    for step in range(5):
        trace(step, first)
    for step in range(3):
        trace(step, second)
    tensors = trace.tensors()
    assert tensors["steps"].tolist() == [0, 2]
    assert torch.equal(tensors["gain"][:, 0], second.blocks[0].norm.weight.detach().expand(2, -1))
    trace(1, first)  # from a checkpoint before the last snapshot
    assert trace.tensors()["steps"].tolist() == [0]


def gpt2(**fields):
    config = GPT2Config(vocab_size=13, max_positions=12, d_model=8, n_heads=4, n_layers=3, **fields)
    return randomise(GPT2(config)).double().eval()


@pytest.mark.parametrize("fields", [{}, {"n_kv_heads": 2}, {"placement": "post"}])
def test_recorded_weights_are_those_of_the_explicit_function(fields):
    net, ids = gpt2(**fields), torch.randint(13, (2, 7))
    want = net(ids)
    with record(net, "blocks.*.attention", inputs=True) as inputs, record_attention(net) as seen:
        got = net(ids)
    assert relative_error(got, want) < 1e-12
    assert list(seen) == [f"blocks.{i}.attention" for i in range(3)]
    for name, weights in seen.items():
        module, x = net.get_submodule(name), inputs[name]
        q, k, v = (p(x).unflatten(-1, (-1, 2)).transpose(1, 2) for p in (module.q_proj, module.k_proj, module.v_proj))
        _, alone = attention(q, k, v, mask=causal, impl="explicit", return_weights=True)
        assert torch.allclose(weights, alone)
        assert weights.shape == (2, 4, 7, 7)
        assert not weights.requires_grad
        assert weights.triu(1).abs().max() == 0
    assert torch.equal(net(ids), want)
    assert all(block.attention.attention_fn is attention for block in net.blocks)


def test_gradients_flow_while_attention_is_recorded():
    net, ids = gpt2(), torch.randint(13, (2, 7))
    net(ids).square().sum().backward()
    want = net.blocks[0].attention.q_proj.weight.grad.clone()
    net.zero_grad()
    with record_attention(net):
        net(ids).square().sum().backward()
    assert relative_error(net.blocks[0].attention.q_proj.weight.grad, want) < 1e-9


def test_recording_some_layers_padding_and_a_cache():
    net, ids = gpt2(), torch.randint(13, (2, 7))
    with record_attention(net, "blocks.1.*") as seen:
        net(ids)
        assert net.blocks[0].attention.attention_fn is attention
        assert net.blocks[1].attention.attention_fn is not attention
        whole = seen["blocks.1.attention"]
        caches = net.new_caches()
        with torch.no_grad():
            for i in range(7):
                net(ids[:, i : i + 1], caches)
    assert list(seen) == ["blocks.1.attention"]
    assert torch.allclose(seen["blocks.1.attention"], whole[:, :, -1:])  # the last forward, a step
    alone = randomise(MultiHeadAttention(8, 2, mask=causal))
    keys = torch.tensor([[True, False, True]])
    with record_attention(alone) as seen:
        alone(torch.randn(1, 3, 8), Places(key_mask=keys))
    assert list(seen) == [""]
    assert seen[""][0, :, :, 1].abs().max() == 0


def test_attention_functions_come_back_after_an_error():
    net = gpt2()
    with pytest.raises(ValueError, match="ids is"), record_attention(net):
        net(torch.zeros(3))
    assert all(block.attention.attention_fn is attention for block in net.blocks)
    with pytest.raises(ValueError, match=r"'blocks\.7\.\*' matches nothing"), record_attention(net, "blocks.7.*"):
        pass
    assert all(block.attention.attention_fn is attention for block in net.blocks)


def test_additive_attention_is_recorded_and_stays_part_of_the_model():
    own = AdditiveAttention(4, 3)
    net = randomise(MultiHeadAttention(8, 2, mask=causal, attention_fn=own)).double()
    x, names = torch.randn(2, 5, 8).double(), list(net.state_dict())
    want = net(x)
    for _ in range(2):
        with record_attention(net) as seen:
            assert torch.equal(net(x), want)
        with pytest.raises(ValueError, match="x has shape"), record_attention(net):
            net(x[0])
        assert net.attention_fn is own
        assert list(net.state_dict()) == names
        assert torch.equal(net(x), want)
        assert seen[""].shape == (2, 2, 5, 5)
        assert torch.allclose(seen[""].sum(-1), torch.ones(2, 2, 5).double())
    net.eval()  # reaches the function: it is a submodule again
    assert not own.training


def test_a_foreign_function_is_refused_and_kept():
    def mine(q, k, v, **arguments):
        return q

    net = MultiHeadAttention(8, 2, attention_fn=mine)
    words = r"'' has attention_fn=<function .*mine.*>, whose weights cannot be recorded"
    with pytest.raises(ValueError, match=words), record_attention(net):
        net(torch.randn(1, 3, 8))
    assert net.attention_fn is mine
    with (
        pytest.raises(ValueError, match="model is a ResidualMLP without a MultiHeadAttention"),
        record_attention(model()),
    ):
        pass


def test_any_function_that_can_tell_its_weights_is_recorded():
    def first_key(q, k, v, *, return_weights=False, **arguments):
        weights = torch.zeros(*q.shape[:3], k.shape[2])
        weights[..., 0] = 1
        y = v[:, :, :1].expand_as(q)
        return (y, weights) if return_weights else y

    net, x = MultiHeadAttention(8, 2, attention_fn=first_key), torch.randn(1, 3, 8)
    want = net(x)
    with record_attention(net) as seen:
        assert torch.equal(net(x), want)
    assert seen[""].sum(2)[0].tolist() == [[3, 0, 0]] * 2
    fused = MultiHeadAttention(8, 2, mask=causal, attention_fn=partial(attention, impl="fused"))
    with record_attention(fused) as seen:
        fused(x)
    assert seen[""].sum(-1).allclose(torch.ones(1, 2, 3))


def test_the_order_of_the_record_is_that_of_execution():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = MultiHeadAttention(8, 2), MultiHeadAttention(8, 2)

        def forward(self, x):
            return self.first(self.second(x, cache=KVCache(4)))

    with torch.no_grad(), record_attention(net := Backwards()) as seen:
        net(torch.randn(1, 3, 8))
    assert list(seen) == ["second", "first"]


def test_a_partial_of_the_courses_function_is_recorded_with_its_arguments():
    net = randomise(MultiHeadAttention(8, 2, mask=causal, attention_fn=partial(attention, scale=0.1)))
    x = torch.randn(1, 5, 8)
    want = net(x)
    with record_attention(net) as seen:
        assert torch.allclose(net(x), want, atol=1e-5)
    usual = MultiHeadAttention(8, 2, mask=causal)
    usual.load_state_dict(net.state_dict())
    with record_attention(usual) as other:
        usual(x)
    assert not torch.allclose(seen[""], other[""], atol=1e-2)
