"""The recipe of language models: windows without leaks, the loss of the next token, the optimizer's groups."""

import pytest
import torch
from torch import nn

from course_lib import corpora, tokenization
from course_lib.evaluation import next_token_losses
from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.training import next_token_loss, no_decay, optimise, recipes, windows
from course_lib.training.recipes import SHORTEST_SPAN, Recipe, with_repeats


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


def test_windows_may_begin_with_a_start_token():
    plain, started = (windows(("speeches",), "validation", 16, start=start) for start in (False, True))
    assert plain.shape[1] == started.shape[1] == 17
    assert (started[:, 0] == tokenization.START).all()
    assert (started[:, 1:] != tokenization.START).all()
    assert torch.equal(started[:50, 1:].flatten(), plain.flatten()[: 50 * 16])  # the same text


def test_a_share_of_the_rows_repeats_a_span_of_its_own_text():
    def batches(step):
        rows = torch.arange(1, 41).repeat(8, 1) + 100 * torch.arange(8)[:, None]
        return (torch.cat([torch.full((8, 1), 7), rows], 1),)

    repeated = with_repeats(batches, 0.5, seed=3)
    (given,), (ids,), (again,), (other,) = batches(0), repeated(0), repeated(0), repeated(1)
    assert torch.equal(ids, again)
    assert not torch.equal(ids, other)
    assert torch.equal(ids[4:], given[4:])
    assert (ids[:, 0] == 7).all()
    spans = set()
    for row, source in zip(ids[:4, 1:], given[:4, 1:], strict=True):
        fits = [p for p in range(SHORTEST_SPAN, 21) if torch.equal(row[p:], row[:-p])]
        assert fits
        begin = source.tolist().index(row[0])
        assert torch.equal(row[: fits[0]], source[begin : begin + fits[0]])
        spans.add((fits[0], begin))
    assert len(spans) == 4
    many = torch.cat(
        [with_repeats(batches, 1.0, seed=3)(step)[0][:, 1:] - 100 * torch.arange(8)[:, None] for step in range(99)]
    )
    begins = many.amin(1)  # tokens count from 1: the first of a span is its place
    lengths = torch.tensor([next(p for p in range(8, 21) if torch.equal(row[p:], row[:-p])) for row in many])
    assert set(lengths.tolist()) == set(range(SHORTEST_SPAN, 21))
    assert begins.min() == 1
    assert (begins + lengths - 1).max() == 40  # the last token of the text may be in a span
    assert (many > 0).all()  # <s> never is
    tenths = lambda step: (torch.arange(10 * 17).reshape(10, 17),)  # noqa: E731
    assert (with_repeats(tenths, 3 * 0.1, seed=3)(0)[0] != tenths(0)[0]).any(1).sum() == 3
    with pytest.raises(ValueError, match="windows have 15 tokens after the first; needed are 16"):
        with_repeats(lambda step: (torch.zeros(2, 16, dtype=torch.long),), 0.5, seed=3)(0)
    assert torch.equal(with_repeats(batches, 0.0, seed=3)(0)[0], given)
    for share in (-0.1, 1.1):
        with pytest.raises(ValueError, match=f"share={share}"):
            with_repeats(batches, share, seed=3)
    with pytest.raises(ValueError, match=r"share=0.1 of a batch of 8 rows is 0.8 rows"):
        with_repeats(batches, 0.1, seed=3)(0)


def test_optimizer_and_schedule_are_chosen_by_name(monkeypatch):
    asked = {}
    monkeypatch.setattr(recipes, "train", lambda *arguments, **options: asked.update(options, made=arguments[3]))
    model, recipe = GPT2(GPT2Config(vocab_size=9, max_positions=4, d_model=8, n_heads=2, n_layers=1)), Recipe(steps=200)
    optimise(model, None, None, recipe, 4, optimizer=recipe.optimizer, schedule=recipe.schedule, floor=recipe.floor)
    muon, others = asked["made"].param_groups
    assert (muon["lr"], muon["weight_decay"], muon["momentum"]) == (recipe.lr, recipe.weight_decay, 0.95)
    assert (others["lr"], others["weight_decay"], others["betas"]) == (recipe.lr, 0.0, (0.9, 0.95))
    assert len(muon["params"]) == 6
    assert [asked["schedule"](step) for step in (49, 125, 200)] == [pytest.approx(50 / 51), 0.5, 0.0]
    optimise(model, None, None, recipe, 4, schedule="linear", floor=0.25)
    assert asked["schedule"](200) == pytest.approx(0.25)
    optimise(model, None, None, recipe, 4)
    assert isinstance(asked["made"], torch.optim.AdamW)
    assert asked["schedule"](200) == pytest.approx(0.05)
    for options, said in (({"optimizer": "sgd"}, "optimizer='sgd'"), ({"schedule": "step"}, "schedule='step'")):
        with pytest.raises(ValueError, match=said):
            optimise(model, None, None, recipe, 4, **options)
