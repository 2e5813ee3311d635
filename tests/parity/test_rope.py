"""RoPE against `transformers`: Llama's layout, DeepSeek-V2's, and the frequencies for longer texts."""

import pytest
import torch
from transformers import DeepseekV2Config, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2RotaryEmbedding, apply_rotary_emb
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from course_lib.attention import MultiHeadAttention, causal
from course_lib.positions import RotaryPosition
from course_lib.positions.rope import change_layout, rope_frequencies
from tests.conftest import randomise, relative_error
from tests.parity.compare import assert_same_gradients, gradients

H, T, D = 3, 11, 16
PLACES = {
    "from zero": torch.arange(T),
    "offset": torch.arange(T) + 1234,
    "rows": torch.randint(0, 5000, (2, T), generator=torch.Generator().manual_seed(0)),
}


def config(cls, theta=10000.0, **rope):
    """A config whose heads turn all D channels."""
    rope = {"rope_type": "default", "rope_theta": theta} | rope
    latent = {"qk_rope_head_dim": D} if cls is DeepseekV2Config else {}
    return cls(
        hidden_size=H * D, num_attention_heads=H, num_key_value_heads=H, head_dim=D, rope_parameters=rope,
        max_position_embeddings=512, **latent,
    )  # fmt: skip


def heads(dtype=torch.float64):
    return [torch.randn(2, H, T, D, dtype=torch.float64).to(dtype).requires_grad_() for _ in range(2)]


def outputs_and_gradients(q, k, turned):
    torch.manual_seed(1)
    upstream = [torch.randn_like(x) for x in turned]
    return [*turned, *torch.autograd.grad(turned, (q, k), upstream)]


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("theta", [10000.0, 160000.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_half_split_is_llamas(places, theta, dtype, tolerance):
    (q, k), pos = heads(dtype), PLACES[places]
    cos, sin = LlamaRotaryEmbedding(config(LlamaConfig, theta))(q, pos.expand(2, T))
    want = outputs_and_gradients(q, k, apply_rotary_pos_emb(q, k, cos, sin))
    got = outputs_and_gradients(q, k, RotaryPosition(D, theta).rotate(q, k, pos, pos))
    for ours, theirs in zip(got, want, strict=True):
        assert relative_error(ours, theirs) < tolerance


@pytest.mark.parametrize("places", PLACES)
def test_interleaved_is_deepseeks(places):
    (q, k), pos = heads(torch.float32), PLACES[places]
    turn = DeepseekV2RotaryEmbedding(config(DeepseekV2Config))(q, pos.expand(2, T))
    want = outputs_and_gradients(q, k, apply_rotary_emb(q, k, turn))
    got = outputs_and_gradients(q, k, RotaryPosition(D, layout="interleaved").rotate(q, k, pos, pos))
    for ours, theirs in zip(got, want, strict=True):
        assert relative_error(ours, theirs) < 1e-5


def test_across_layouts_the_scores_agree_where_channels_are_put_in_the_others_order():
    """Llama's q·k of channels in its order is DeepSeek's q·k of the same channels in its own."""
    (q, k), pos = heads(torch.float32), PLACES["offset"]
    cos, sin = LlamaRotaryEmbedding(config(LlamaConfig))(q, pos[None])
    half = apply_rotary_pos_emb(q, k, cos, sin)
    order = torch.arange(D).view(2, -1).T.flatten()  # 0, D/2, 1, D/2 + 1, …
    turn = DeepseekV2RotaryEmbedding(config(DeepseekV2Config))(q, pos[None])
    theirs = apply_rotary_emb(q[..., order], k[..., order], turn)
    ours = RotaryPosition(D, layout="interleaved").rotate(q[..., order], k[..., order], pos, pos)
    want = half[0] @ half[1].mT
    for turned in (theirs, ours, RotaryPosition(D).rotate(q, k, pos, pos)):
        assert relative_error(turned[0] @ turned[1].mT, want) < 1e-5
    mixed = RotaryPosition(D, layout="interleaved").rotate(q, k, pos, pos)
    assert relative_error(mixed[0] @ mixed[1].mT, want) > 0.1  # the famous mistake
    rows = change_layout(torch.arange(H * D), H, D, "interleaved").view(H, D)
    assert torch.equal(rows, order + D * torch.arange(H)[:, None])


@pytest.mark.parametrize("to", ["interleaved", "half_split"])
@pytest.mark.parametrize("rotary_dim", [2, 6, 8])
@pytest.mark.parametrize("n_kv_heads", [4, 2])
def test_change_layout_keeps_what_a_layer_computes(to, rotary_dim, n_kv_heads):
    """Weights and biases of queries and keys reordered, all else copied: outputs and gradients are the same."""
    other = {"interleaved": "half_split", "half_split": "interleaved"}[to]
    layers = [
        MultiHeadAttention(
            32, 4, n_kv_heads=n_kv_heads, mask=causal, position=RotaryPosition(rotary_dim, layout=layout)
        ).double()
        for layout in (other, to)
    ]
    old, new = layers
    state = randomise(old).state_dict()

    def changed(tensors, layout):
        n_heads = {"q_proj": 4, "k_proj": n_kv_heads}
        return {
            name: change_layout(x, n_heads[name.split(".")[0]], rotary_dim, layout) if name[:6] in n_heads else x
            for name, x in tensors.items()
        }

    new.load_state_dict(changed(state, to), strict=True)
    assert torch.equal(new.q_proj.weight, old.q_proj.weight) == (rotary_dim == 2)  # a single pair is one in both
    back = changed(new.state_dict(), other)
    assert all(torch.equal(back[name], state[name]) for name in state)
    x = torch.randn(2, 9, 32).double()
    outputs = [layer(x) for layer in layers]
    for y in outputs:
        y.square().sum().backward()
    assert relative_error(outputs[1], outputs[0]) < 1e-12
    assert_same_gradients(gradients(new), changed(gradients(old), to), 1e-12)


@pytest.mark.parametrize("factor", [1.0, 2.0, 3.7, 16.0])
@pytest.mark.parametrize("theta", [100.0, 10000.0, 160000.0])
def test_slower_pairs_for_longer_texts(factor, theta):
    linear = config(LlamaConfig, theta, rope_type="linear", factor=factor)
    want, scaling = ROPE_INIT_FUNCTIONS["linear"](linear)
    assert scaling == 1
    assert relative_error(rope_frequencies(D, theta, extension="interpolate", factor=factor), want) < 1e-6
    # Theirs follows the text: at `length` it has stretched by f · length / longest - (f - 1); f is 1 or more.
    dynamic = config(LlamaConfig, theta, rope_type="dynamic", factor=1.0)
    want, scaling = ROPE_INIT_FUNCTIONS["dynamic"](dynamic, seq_len=512 * factor)
    assert scaling == 1
    assert relative_error(rope_frequencies(D, theta, extension="ntk", factor=factor), want) < 1e-6


@pytest.mark.parametrize("rotary_dim", [2, 4, 10, 64])
def test_the_frequencies_are_the_papers(rotary_dim):
    want = [10000 ** (-2 * i / rotary_dim) for i in range(rotary_dim // 2)]
    assert rope_frequencies(rotary_dim).tolist() == pytest.approx(want, rel=1e-6)
    assert rope_frequencies(rotary_dim).dtype == torch.float32
