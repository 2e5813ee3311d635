"""The recipe of language models: windows without leaks, the loss of the next token, the optimizer's groups."""

import pytest
import torch
from torch import nn

from course_lib import corpora, tokenization
from course_lib.evaluation import next_token_losses
from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.training import next_token_loss, no_decay, windows


@pytest.mark.slow
def test_windows_are_of_one_split_and_end_documents():
    train, held_out = (windows(("speeches",), split, 128) for split in ("train", "validation"))
    assert train.shape[1] == held_out.shape[1] == 129
    tokenizer = tokenization.load("english-4k")
    first = tokenizer.encode(corpora.speeches("validation")["text"][0])
    assert held_out[0].tolist() == first[:129]
    assert (held_out == tokenization.END).sum() in (len(corpora.speeches("validation")) - 1, 9)
    seen = {tuple(row.tolist()) for row in train.unfold(1, 64, 8).flatten(0, 1)}
    assert not any(tuple(row.tolist()) in seen for row in held_out.unfold(1, 64, 8).flatten(0, 1))
    both = windows(("speeches", "sentence_pairs"), "train", 128)
    assert torch.equal(both[: len(train) - 1], train[:-1])
    assert len(both) > 1.8 * len(train)


def test_loss_is_of_the_next_token():
    model = GPT2(GPT2Config(max_positions=16, d_model=16, n_heads=4, n_layers=1)).eval()
    rows = torch.randint(4000, (3, 17))
    loss, _ = next_token_loss(model, (rows,))
    assert loss.item() == pytest.approx(next_token_losses(model, rows).mean().item(), rel=1e-5)


def test_windows_are_a_copy_and_name_what_is_unknown():
    windows(("speeches",), "validation", 16).zero_()
    assert windows(("speeches",), "validation", 16).any()
    with pytest.raises(ValueError, match="data: poems unknown"):
        windows(("poems",), "train", 16)


def test_only_matrices_decay_and_every_parameter_is_in_one_group():
    model = GPT2(GPT2Config(vocab_size=9, max_positions=4, d_model=8, n_heads=2, n_layers=1))
    decayed, others = no_decay(model, 0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert {names[p].split(".")[-2] for p in decayed["params"]} == {
        "q_proj", "k_proj", "v_proj", "out_proj", "up", "down",
    }  # fmt: skip
    assert all(p.ndim == 2 for p in decayed["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(names)


def test_a_tied_matrix_is_an_embedding():
    """As many models have it: the unembedding is a linear layer with the embedding's weight."""
    model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 8), nn.Linear(8, 9, bias=False))
    model[2].weight = model[0].weight
    decayed, others = no_decay(model, 0.1)
    assert [p is model[1].weight for p in decayed["params"]] == [True]
    assert len(others["params"]) == 2
