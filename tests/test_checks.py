"""One phrase for what is no size, wherever sizes enter: floats of a JSON file, None, bools, strings."""

import re

import numpy as np
import pytest
import torch

from course_lib import checks, corpora, dynamics, evaluation, heads, init, measure, mlp, norms, tokenization
from course_lib.attention import KVCache, MultiHeadAttention, WindowKVCache
from course_lib.corpora.documents import shared_shingles
from course_lib.corpora.needles import needles
from course_lib.experiments.attention_scores import atlases
from course_lib.lessons.attention_scoring.score_frame import score_frame, sweep
from course_lib.lessons.layernorm_dynamics.norm_frame import norm_frame
from course_lib.lessons.positional_encodings.bias_curves import alibi_curves
from course_lib.lessons.positional_encodings.extrapolation import position_edges
from course_lib.lessons.positional_encodings.rope_frame import example_vectors
from course_lib.lessons.positional_encodings.sinusoids import sinusoid_view
from course_lib.lessons.positional_encodings.wavelengths import wavelengths
from course_lib.masking import hide, masked_batches
from course_lib.models.bigram import BigramConfig, count_bigrams
from course_lib.models.lookup import LookupConfig
from course_lib.models.residual_mlp import ResidualMLPConfig
from course_lib.models.word_vectors import count_vectors
from course_lib.positions import RotaryPosition, T5Position
from course_lib.viz.attention_maps import PatchImage

ROWS = torch.arange(40).view(4, 10) % 7
NO_SIZES = (2.0, None, True, "2", float("nan"), 0, -1)

# Each takes a size by the name that the message must have.
SIZES = {
    **{f"ResidualMLPConfig {name}": (name, lambda n, name=name: ResidualMLPConfig(**{name: n}))
       for name in ("d_in", "d_model", "d_ff", "n_layers", "n_classes")},
    **{f"BigramConfig {name}": (name, lambda n, name=name: BigramConfig(**{"vocab_size": 5} | {name: n}))
       for name in ("vocab_size", "d_model", "d_ff", "n_layers")},
    **{f"LookupConfig {name}": (name, lambda n, name=name: LookupConfig(**{"n_words": 5, "n_answers": 5} | {name: n}))
       for name in ("n_words", "n_answers", "d_model", "head_dim")},
    "MLP": ("d_model", lambda n: mlp.MLP(n, 8)),
    "GatedMLP": ("d_ff", lambda n: mlp.GatedMLP(8, n)),
    "LayerNorm": ("d_model", norms.LayerNorm),
    "MultiHeadAttention": ("d_model", lambda n: MultiHeadAttention(n, 2)),
    "KVCache": ("max_length", KVCache),
    "T5Position": ("n_heads", T5Position),
    "RMSNorm": ("d_model", norms.RMSNorm),
    "count_bigrams": ("vocab_size", lambda n: count_bigrams(ROWS[0], n)),
    "count_vectors words": ("n_words", lambda n: count_vectors(["a b", "b c"], n, 1)),
    "count_vectors dim": ("dim", lambda n: count_vectors(["a b", "b c"], 2, n)),
    "next_token_losses": ("batch_size", lambda n: evaluation.next_token_losses(lambda ids: ids, ROWS, n)),
    "repeated": ("n", lambda n: heads.repeated(3, n, range(5), 0, 0)),
    "seconds": ("repeats", lambda n: measure.seconds(lambda: None, "cpu", n)),
    "tokenization.train": ("vocab_size", lambda n: tokenization.train(["a b"], n)),
    "token_windows": ("length", lambda n: corpora.token_windows([[5, 6, 7]], n, 3)),
    "shared_shingles": ("n", lambda n: shared_shingles(["a b"], ["a b"], n)),
    "needles": ("batch_size", lambda n: needles("train", n, 300)),
    "arithmetic": ("count", lambda n: corpora.arithmetic(count=n)),
    "sweep": ("n_draws", lambda n: sweep(n_draws=n)),
    "position_edges": ("per_octave", lambda n: position_edges(100, 10, n)),
    "wavelengths": ("trained", lambda n: wavelengths(8, trained=n)),
    "PatchImage": ("columns", lambda n: PatchImage(np.zeros((4, 4, 3), np.uint8), 1, n)),
}  # fmt: skip


@pytest.mark.parametrize("value", NO_SIZES, ids=repr)
@pytest.mark.parametrize("entry", SIZES)
def test_a_size_is_a_whole_number(entry, value):
    name, call = SIZES[entry]
    with pytest.raises(ValueError, match=re.escape(f"{name}={value!r}; it must be 1 or more, a whole number")):
        call(value)


def test_numpys_integers_are_whole_numbers():
    for name in ("arithmetic", "token_windows", "LayerNorm", "BigramConfig d_ff", "count_bigrams"):
        SIZES[name][1](np.int64(3 if name != "count_bigrams" else 7))
    assert checks.check_at_least("n", np.int32(3), 3) == checks.check_range("n", np.int32(3), 3, 3) == 3
    assert type(checks.check_whole("n", np.int8(-3))) is int


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: corpora.shuffled_batches((ROWS,), 2.0, 0), "batch_size=2.0; allowed is 1 to 4, a whole number"),
        (lambda: corpora.shuffled_batches((ROWS,), 5, 0), "batch_size=5; allowed is 1 to 4, a whole number"),
        (lambda: corpora.shuffled_batches((ROWS,), 2, 0.5), "seed=0.5; it must be a whole number"),
        (lambda: masked_batches(ROWS, 2.0, 9, 0.3, 0), "batch_size=2.0; allowed is 1 to 4"),
        (lambda: hide(ROWS, 9.0, 0.3, 0), "vocab_size=9.0; it must be 6 or more, a whole number"),
        (lambda: corpora.token_windows([[5, -1, 7]], 2, 3), "documents or end have the id -1; token ids are 0 or more"),
        (lambda: corpora.logic(level=2.5), "level=2.5; allowed is 1 to 10, a whole number"),
        (lambda: corpora.fashion_mnist("valid"), "split='valid'; allowed are 'train', 'test'"),
        (lambda: corpora.emoji(by="maker"), "by='maker'; allowed are 'base', 'vendor'"),
        (lambda: init.init_weights(mlp.MLP(2, 2), 0, gain=float("inf")), "gain=inf; it must be above 0 and finite"),
        (lambda: dynamics.distinct_rows(ROWS.float(), -1.0), "distance=-1.0; it must be 0 or more and finite"),
        (lambda: norms.LayerNorm(4, eps=float("inf")), "eps=inf; it must be 0 or more and finite"),
        (lambda: ResidualMLPConfig(norm="batchnorm"), "norm='batchnorm'; allowed are 'layernorm', 'rmsnorm', 'none'"),
        (lambda: ResidualMLPConfig(init_gain=0.0), "init_gain=0.0; it must be above 0 and finite"),
        (lambda: ResidualMLPConfig(skip_scale=float("nan")), "skip_scale=nan; it must be 0 or more and finite"),
        (lambda: mlp.MLP(4, 4, "tanh"), "activation='tanh'; allowed are 'relu', 'gelu', 'gelu_tanh', 'silu'"),
        (lambda: score_frame(2.0, 1.0, "1"), "d=2.0; allowed is 1 to 1024, a whole number"),
        (lambda: MultiHeadAttention(8, 2, head_dim=4.0), "head_dim=4.0; it must be 1 or more, a whole number"),
        (lambda: WindowKVCache(3.0), "radius=3.0; it must be 0 or more, a whole number"),
        (lambda: RotaryPosition(4.0), "rotary_dim=4.0; it must be even and at least 2, a whole number"),
        (lambda: sinusoid_view(8, 7), "length=7; it must be 8 or more, a whole number"),
        (lambda: example_vectors(5), "head_dim=5; it must be even and at least 2"),
        (lambda: alibi_curves(4, length=1), "length=1; it must be 2 or more, a whole number"),
        (lambda: norm_frame({"a": {"gain": torch.ones(1, 2, 3)}}, "a", 2, 0), "layer=2; allowed is 0 to 1, a whole"),
    ],
)  # fmt: skip
def test_other_arguments(call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call()


def test_data_does_not_depend_on_the_default_type():
    torch.set_default_dtype(torch.float64)
    try:
        assert {corpora.emoji_tensors("test")[0].dtype, corpora.fashion_tensors("test")[0].dtype} == {torch.float32}
        found, atlas = sweep(n_draws=4, widths=(2,)), atlases(0, 2, 3)(5)
    finally:
        torch.set_default_dtype(torch.float32)
    again = sweep(n_draws=4, widths=(2,))
    assert all(torch.equal(a, b) for a, b in zip(atlas, atlases(0, 2, 3)(5), strict=True))
    assert all((found.entropy[name] == again.entropy[name]).all() for name in found.entropy)
