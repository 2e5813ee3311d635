"""What people do with a whole model: save it, compile it, make it on `meta`, pad its texts, change its attention."""

import copy
import io
import pickle
import re
from functools import partial

import pytest
import torch

from course_lib.attention import (
    GlobalLocalAttention,
    KVCache,
    MultiHeadAttention,
    WindowKVCache,
    attention,
    causal,
    draw_blocks,
    full,
    global_tokens,
    local_attention,
    random_blocks,
    window,
    with_attention,
)
from course_lib.attention.masks import dilated
from course_lib.evaluation import future_leak
from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.models.pythia import Pythia, PythiaConfig
from course_lib.models.sparse_bert import PATTERNS, SparseBert, SparseBertConfig
from course_lib.positions import POSITIONS, Position, RotaryPosition, T5Position
from tests.conftest import randomise, relative_error

SIZES = {"vocab_size": 20, "d_model": 16, "n_heads": 2, "n_layers": 2}
DECODERS = {
    "gpt2": lambda: GPT2(GPT2Config(max_positions=64, **SIZES)),
    "gpt2, one kv head": lambda: GPT2(GPT2Config(max_positions=64, n_kv_heads=1, **SIZES)),
} | {
    name: partial(lambda name: Pythia(PythiaConfig(max_positions=64, rotary_pct=0.5, position=name, **SIZES)), name)
    for name in POSITIONS
}  # fmt: skip
ENCODERS = {
    name: partial(lambda name: SparseBert(SparseBertConfig(max_positions=128, radius=2, pattern=name, **SIZES)), name)
    for name in PATTERNS
} | {"encoder with rope": lambda: SparseBert(SparseBertConfig(max_positions=128, radius=2, position="rope", **SIZES))}
MODELS = DECODERS | ENCODERS
IDS = torch.randint(20, (2, 60), generator=torch.Generator().manual_seed(0))


def made(name):
    return randomise(MODELS[name]()).eval()


# --- saving ---


@pytest.mark.parametrize("name", MODELS)
def test_a_whole_model_is_pickled(name):
    model = made(name)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for back in (pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        assert torch.equal(back(IDS), model(IDS))


@pytest.mark.parametrize(
    "pattern",
    [
        causal, full, window(3), dilated(2, 3), global_tokens([0, 4]), causal & window(2) | global_tokens([1]),
        random_blocks(draw_blocks(8, 1, 0), 4),
    ],
    ids=str,
)  # fmt: skip
def test_a_pattern_is_pickled(pattern):
    places, back = torch.arange(30), pickle.loads(pickle.dumps(pattern))
    assert torch.equal(back.dense(places, places), pattern.dense(places, places))
    assert (back.name, back.reach) == (pattern.name, pattern.reach)
    module = MultiHeadAttention(8, 2, mask=pattern)
    assert torch.equal(pickle.loads(pickle.dumps(module))(torch.ones(1, 30, 8)), module(torch.ones(1, 30, 8)))


def test_the_triangle_of_a_pickled_model_is_still_the_kernels():
    assert pickle.loads(pickle.dumps(causal)) == causal
    assert pickle.loads(pickle.dumps(GlobalLocalAttention(8, 2, 3, mask=window(2)))).mask.name == "window(2)"


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("way", ["to_empty", "assign"])
def test_a_model_made_on_meta_is_filled(name, way):
    """Random blocks are no weights: they are drawn again when the weights come."""
    model, other = made(name), ENCODERS[name]().to("meta").eval()
    if way == "to_empty":
        other.to_empty(device="cpu")
    other.load_state_dict(model.state_dict(), assign=way == "assign")
    assert torch.equal(other(IDS), model(IDS))


# --- compiling ---


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_one_graph(name):
    """No look at a tensor's values breaks it. The backend runs torch's own kernels: what is tried is the capture."""
    model = made(name)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(IDS), model(IDS), atol=1e-4)
    exported = torch.export.export(model, (IDS,)).module()
    assert torch.allclose(exported(IDS), model(IDS), atol=1e-4)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own forward mode uses it
@pytest.mark.parametrize("name", ["gpt2", "rope", "alibi"])
def test_second_derivatives_and_forward_mode_need_the_explicit_path(name):
    model = with_attention(made(name), attention_fn=partial(attention, impl="explicit"))
    parameters = {n: p.detach() for n, p in model.named_parameters()}

    def loss(p):
        return torch.func.functional_call(model, p, (IDS[:1, :9],)).square().mean()

    tangent = {n: torch.ones_like(p) for n, p in parameters.items()}
    _, slope = torch.func.jvp(loss, (parameters,), (tangent,))
    gradients = torch.func.grad(loss)(parameters)
    assert slope.item() == pytest.approx(sum(g.sum() for g in gradients.values()).item(), rel=1e-3)
    twice = torch.autograd.grad(loss(dict(model.named_parameters())), list(model.parameters()), create_graph=True)
    sum(g.square().sum() for g in twice).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


# --- padding ---


def padded(length=60, missing=23):
    """Two rows: one whole, one whose first `missing` tokens are padding."""
    ids = IDS[:, :length].clone()
    key_mask = torch.ones(2, length, dtype=torch.bool)
    key_mask[1, :missing] = False
    return ids, key_mask


@pytest.mark.parametrize("name", [n for n in MODELS if n != "bigbird"])
def test_padding_on_the_left_moves_nothing(name):
    """Whatever stands in the padding; positions too count from the first token that does."""
    model = made(name).double()
    ids, key_mask = padded()
    alone = model(ids[1:, 23:])[0]
    for filler in (0, 7):
        ids[1, :23] = filler
        got = model(ids, key_mask=key_mask)
        assert relative_error(got[1, 23:], alone) < 1e-10
        assert relative_error(got[0], model(ids[:1])[0]) < 1e-10
    told = model(ids, key_mask=key_mask, pos=torch.stack([torch.arange(60), torch.arange(60) - 23]))
    assert torch.equal(told, got)


@pytest.mark.parametrize("name", ENCODERS)
def test_padding_on_the_right_moves_nothing(name):
    model = made(name).double()
    key_mask = torch.ones(2, 60, dtype=torch.bool)
    key_mask[1, 37:] = False
    assert relative_error(model(IDS, key_mask=key_mask)[1, :37], model(IDS[1:, :37])[0]) < 1e-10


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("sizes", [[60], [30, *[1] * 30], [10, 30, 20]])
def test_padding_on_the_left_with_a_cache(name, sizes):
    """Padding may reach over the first piece: a row then begins in the second."""
    model = made(name).double()
    ids, key_mask = padded()
    want, caches, outputs, end = model(ids, key_mask=key_mask), model.new_caches(), [], 0
    with torch.no_grad():
        for piece in ids.split(sizes, 1):
            end += piece.shape[1]
            outputs.append(model(piece, caches, key_mask=key_mask[:, :end]))
    assert relative_error(torch.cat(outputs, 1)[key_mask], want[key_mask]) < 1e-10


def test_padding_and_a_windows_cache():
    model = with_attention(made("rope"), mask=causal & window(5)).double()
    ids, key_mask = padded()
    caches, outputs = [WindowKVCache(5) for _ in model.blocks], []
    with torch.no_grad():
        for t in range(60):
            outputs.append(model(ids[:, t : t + 1], caches, key_mask=key_mask[:, : t + 1]))
    assert relative_error(torch.cat(outputs, 1)[key_mask], model(ids, key_mask=key_mask)[key_mask]) < 1e-10


def test_places_may_be_told():
    """With gaps, as where texts are packed; the schemes of distance see them, learned ones take that row."""
    pos = torch.cat([torch.arange(5), torch.arange(20, 25)])
    for name in ("gpt2", "rope", "alibi", "t5", "shaw", "sinusoidal"):
        model = made(name).double()
        assert not torch.allclose(model(IDS[:, :10], pos=pos), model(IDS[:, :10]))
        caches = model.new_caches()
        with torch.no_grad():
            steps = [model(IDS[:, t : t + 1], caches, pos=pos[t : t + 1]) for t in range(10)]
            assert relative_error(torch.cat(steps, 1), model(IDS[:, :10], pos=pos)) < 1e-10


# --- ids, masks, places that do not fit ---


@pytest.mark.parametrize("name", ["gpt2", "rope", "local"])
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m(torch.tensor([[3, 20]])), "ids goes from 3 to 20; with vocab_size=20 the last is 19: do they"),
        (lambda m: m(torch.tensor([[-1, 3]])), "ids goes from -1 to 3; with vocab_size=20"),
        (lambda m: m(IDS, key_mask=torch.ones(2, 59, dtype=torch.bool)), "key_mask is torch.bool (2, 59); needed is"),
        (lambda m: m(IDS, key_mask=torch.ones(2, 60)), "key_mask is torch.float32 (2, 60); needed is bool (2, 60)"),
        (lambda m: m(IDS, pos=torch.arange(59)), "pos has shape (59,); needed is (60,) or (2, 60)"),
        (lambda m: m(IDS, pos=torch.arange(60.0)), "pos is torch.float32; needed is an int64 or int32 tensor"),
    ],
)
def test_what_does_not_fit_is_said(name, call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call(made(name))


@pytest.mark.parametrize(
    "make",
    [
        lambda: GPT2Config(vocab_size=50.0),
        lambda: GPT2Config(vocab_size=None),
        lambda: GPT2Config(n_layers=True),
        lambda: GPT2Config(d_model=192.0),
        lambda: PythiaConfig(d_ff=64.0),
        lambda: PythiaConfig(max_distance=128.0, position="shaw"),
        lambda: SparseBertConfig(vocab_size=50.0),
        lambda: MultiHeadAttention(8.0, 2),
        lambda: MultiHeadAttention(8, 2, head_dim=4.0),
        lambda: KVCache(20.0),
        lambda: WindowKVCache(3.0),
        lambda: RotaryPosition(4.0),
        lambda: T5Position(2.0),
    ],
)
def test_sizes_are_whole_numbers(make):
    with pytest.raises(ValueError, match="a whole number"):
        make()


def test_a_step_that_was_refused_leaves_the_caches_as_they_were():
    model = made("gpt2")
    with torch.no_grad():
        caches, want = model.new_caches(), model(IDS)[:, 5:6]
        model(IDS[:, :5], caches)
        for bad in ({"key_mask": torch.ones(2, 1, dtype=torch.bool)}, {"pos": torch.arange(2)}):
            with pytest.raises(ValueError, match="needed is"):
                model(IDS[:, 5:6], caches, **bad)
        assert [cache.length for cache in caches] == [5, 5]
        assert torch.allclose(model(IDS[:, 5:6], caches), want, atol=1e-4)


# --- with_attention ---


def test_a_changed_copy_has_what_was_given_and_the_model_stays():
    model = made("gpt2")
    before = model(IDS)
    open_ = with_attention(model, mask=None)
    assert future_leak(open_, IDS[0]).max() > 0
    near = with_attention(model, mask=causal & window(3))
    blocked = with_attention(model, attention_fn=partial(local_attention, radius=3))
    assert torch.allclose(near(IDS), blocked(IDS), atol=1e-4)
    some = with_attention(model, mask=None, names="blocks.1.attention")
    assert [block.attention.mask for block in some.blocks] == [causal, None]
    assert torch.equal(model(IDS), before)
    assert torch.equal(with_attention(model)(IDS), before)
    again = copy.deepcopy(model.state_dict())
    near.blocks[0].mlp.up.weight.data.zero_()
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())


def test_a_changed_position_takes_the_place_of_the_one_that_embeds():
    model, scheme = made("gpt2"), T5Position(2, bidirectional=False)
    changed = with_attention(model, position=scheme)
    assert changed.position is scheme
    assert [block.attention.position for block in changed.blocks] == [scheme, scheme]
    bare = with_attention(model, position=None)
    assert type(bare.position) is Position
    assert [block.attention.position for block in bare.blocks] == [None, None]
    one = with_attention(model, position=scheme, names="blocks.0.attention")
    assert one.position is not scheme
    changed(IDS).sum().backward()
    assert scheme.embedding.weight.grad is not None  # it is used itself


def test_what_cannot_be_changed_says_so():
    with pytest.raises(ValueError, match="model is a Linear without a MultiHeadAttention"):
        with_attention(torch.nn.Linear(2, 2), mask=None)
    with pytest.raises(ValueError, match=r"'blocks\.9\.attention' matches nothing"):
        with_attention(made("gpt2"), mask=None, names="blocks.9.attention")
