"""Pythia on disk, copied, on `meta`, and what its config refuses: every scheme."""

import copy
import re

import pytest
import torch
from safetensors.torch import load_file

from course_lib import pretrained
from course_lib.attention import KVCache
from course_lib.evaluation import next_token_losses
from course_lib.models.pythia import Pythia, PythiaConfig
from course_lib.training.checkpoint import Progress, read_checkpoint, save_checkpoint
from tests.conftest import randomise
from tests.models.test_pythia import SCHEMES, ids_of, small
from tests.test_meta import NoCpu


def one_table(model):
    """Whether all blocks have T5's numbers from one module."""
    return len({id(part.attention.position) for part in model.blocks}) == 1


@pytest.mark.parametrize("name", SCHEMES)
def test_copies_and_state_dicts(name):
    model, ids = randomise(small(**SCHEMES[name])), ids_of()
    other = small(**SCHEMES[name], seed=5)
    other.load_state_dict(model.state_dict(), strict=True)
    twin = copy.deepcopy(model)
    for one in (other, twin):
        assert torch.equal(one(ids), model(ids))
        assert one_table(one) == (name != "shaw")
        assert len(list(one.parameters())) == len(list(model.parameters()))
    twin(ids).sum().backward()
    assert all(p.grad is not None for p in twin.parameters())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", SCHEMES)
def test_a_checkpoint_brings_weights_and_optimizer_back(name, tmp_path):
    """Three steps, saved after the first: the rest is the same, T5's one table included."""
    ids, path = ids_of(), tmp_path / "checkpoint.safetensors"

    def step(model, optimizer):
        optimizer.zero_grad()
        model(ids).square().mean().backward()
        optimizer.step()

    def started(seed):
        model = small(**SCHEMES[name], seed=seed)
        return model, torch.optim.AdamW(model.parameters(), lr=0.01)

    model, optimizer = started(0)
    step(model, optimizer)
    save_checkpoint(path, model, optimizer, Progress(1, [], {"name": name}, ""))
    other, its_optimizer = started(1)
    read_checkpoint(path, other, {"name": name}).restore(other, its_optimizer)
    for _ in range(2):
        step(model, optimizer)
        step(other, its_optimizer)
    assert one_table(other) == (name != "shaw")
    for (key, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), key


@pytest.mark.parametrize("name", SCHEMES)
def test_trained_weights_are_kept_in_half_precision(name, tmp_path, monkeypatch):
    origin = pretrained.Origin(Pythia, PythiaConfig, "study", "arm", 0)
    monkeypatch.setitem(pretrained.MODELS, "pythia", origin)
    monkeypatch.setattr(pretrained, "verified", lambda path: tmp_path / path.removeprefix("weights/"))
    model, ids = randomise(small(**SCHEMES[name])), ids_of()
    path = pretrained.save("pythia", model, tmp_path)
    assert {t.dtype for t in load_file(path).values()} == {torch.float16}
    back = pretrained.load("pythia")
    assert (back.config, back.training) == (model.config, False)
    assert torch.equal(back(ids), copy.deepcopy(model).half().float()(ids))
    assert one_table(back) == (name != "shaw")


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_meta(name, dtype):
    placement = {"none": "post", "learned": "pre"}.get(name, "parallel")
    model = small(**SCHEMES[name], placement=placement, dropout=0.1, n_layers=1).to("meta", dtype)
    ids = torch.zeros(4, 12, device="meta", dtype=torch.long)
    with NoCpu():
        logits, losses = model(ids), next_token_losses(model, ids)
        logits.sum().backward()
        caches = model.new_caches()
        with torch.no_grad():
            steps = [model(part, caches) for part in ids.split([5, 1, 6], 1)]
    assert (logits.device.type, logits.dtype, losses.shape) == ("meta", dtype, (4, 11))
    assert torch.cat(steps, 1).shape == logits.shape == (4, 12, 13)
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", SCHEMES)
def test_under_autocast(name):
    model, ids = randomise(small(**SCHEMES[name])), ids_of()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(ids)
    assert logits.dtype == torch.bfloat16
    logits.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert (logits - model(ids)).norm() < 0.1 * model(ids).norm()


def of_lengths(*lengths):
    caches = [KVCache(12) for _ in lengths]
    for cache, n in zip(caches, lengths, strict=True):
        cache.update(torch.zeros(2, 2, n, 8), torch.zeros(2, 2, n, 8))
    return caches


IDS = torch.zeros(2, 3, dtype=torch.long)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: PythiaConfig(vocab_size=0), "vocab_size=0; it must be at least 1"),
        (lambda: PythiaConfig(max_positions=0), "max_positions=0"),
        (lambda: PythiaConfig(n_layers=0), "n_layers=0"),
        (lambda: PythiaConfig(d_ff=0), "d_ff=0"),
        (lambda: PythiaConfig(d_model=0), "d_model=0"),
        (lambda: PythiaConfig(n_heads=0), "n_heads=0"),
        (lambda: PythiaConfig(n_heads=7), "n_heads=7 does not divide d_model=128"),
        (lambda: PythiaConfig(dropout=1.0), "dropout=1.0; allowed is 0 to below 1"),
        (lambda: PythiaConfig(dropout=float("nan")), "dropout=nan"),
        (lambda: PythiaConfig(placement="mid"), "placement='mid'; allowed are pre, post, parallel"),
        (lambda: PythiaConfig(position="rotary"), "position='rotary'; allowed are rope, alibi, t5, shaw, sinus"),
        (lambda: PythiaConfig(alibi_slopes="steep"), "alibi_slopes='steep'; allowed are per_head, uniform"),
        (lambda: PythiaConfig(rotary_pct=0.0), "rotary_pct=0.0; allowed is above 0 to 1"),
        (lambda: PythiaConfig(rotary_pct=1.5), "rotary_pct=1.5"),
        (lambda: PythiaConfig(rotary_pct=float("nan")), "rotary_pct=nan"),
        (lambda: PythiaConfig(rotary_pct=0.1), "rotary_pct=0.1: of a head's 32 channels 3 would turn; the number must"),
        (lambda: PythiaConfig(rotary_pct=0.01), "rotary_pct=0.01: of a head's 32 channels 0 would turn"),
        (lambda: PythiaConfig(rope_theta=0.5), "theta=0.5; it must be above 1"),
        (lambda: PythiaConfig(rope_extension="yarn"), "extension='yarn'; allowed are none, interpolate, ntk"),
        (lambda: PythiaConfig(rope_factor=2.0), "factor=2.0 with extension='none'"),
        (lambda: PythiaConfig(position="shaw", max_distance=0), "max_distance=0; it must be at least 1"),
        (lambda: PythiaConfig(position="t5", max_distance=16), "max_distance=16; it must be above 16"),
        (lambda: PythiaConfig(position="t5", n_buckets=1), "n_buckets=1"),
        (lambda: PythiaConfig(position="sinusoidal", d_model=3, n_heads=1), "d_model=3; it must be even"),
        (lambda: small()(IDS[0]), "ids is torch.int64 (3,); needed is int64 or int32 (B, T)"),
        (lambda: small()(IDS.float()), "ids is torch.float32 (2, 3)"),
        (lambda: small()(IDS, []), "caches: of lengths []; needed are 3 equally full ones, one for each block"),
        (lambda: small()(IDS, of_lengths(2, 0, 2)), "caches: of lengths [2, 0, 2]"),
        (lambda: small()(IDS, of_lengths(0) * 3), "caches: of lengths [0, 0, 0]; needed are 3"),
        (lambda: small()(IDS, of_lengths(10, 10, 10)), "k has 3 tokens after 10; the cache holds max_length=12"),
        (lambda: small(position="learned")(IDS, of_lengths(10, 10, 10)), "ids: a text of 13 tokens; max_positions=12"),
    ],
)  # fmt: skip
def test_bad_input_names_itself(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()


def test_a_scheme_refuses_only_its_own():
    """Another scheme's fields may be anything: a study changes `position` alone."""
    assert PythiaConfig(position="none", rotary_pct=0.1, rope_factor=2.0, max_distance=0, n_buckets=1).rotary_dim == 3
