"""The lookup with one head: its answers, the cells that are right, and what is inside."""

from functools import partial

import pytest
import torch

from course_lib import attention as library
from course_lib.experiments.attention_scores import ARMS, HELD_OUT, Config, build
from course_lib.models.lookup import Lookup, LookupConfig, inside, lookup_loss, right_cells, right_mass
from tests.on_meta import NoCpu


def test_lookup_and_its_right_cells():
    model = Lookup(LookupConfig(9, 7, d_model=8, head_dim=4))
    questions, words, answers = torch.tensor([[2, 5]]), torch.tensor([[5, 1, 2]]), torch.tensor([[0, 3, 6]])
    assert model(questions, words, answers).shape == (1, 2, 7)
    assert right_cells(questions, words).tolist() == [[[False, False, True], [True, False, False]]]
    weights = torch.tensor([[[[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]]]])
    assert right_mass(weights, questions, words).item() == pytest.approx(0.6)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(  # a set of pairs: their order says nothing
        model(questions, words, answers), model(questions, words[:, order], answers[:, order])
    )
    for bad in (
        (questions[0], words, answers),
        (questions, words, answers[:, :2]),
        (questions.repeat(2, 1), words, answers),
    ):
        with pytest.raises(ValueError, match="questions, words, answers have shapes"):
            model(*bad)
    for name, value in (("n_words", 0), ("head_dim", 0), ("start", 0.0)):
        with pytest.raises(ValueError, match=f"{name}={value}"):
            LookupConfig(**{"n_words": 3, "n_answers": 3, name: value})


@pytest.mark.parametrize("scale", [None, 1.0])
def test_inside_shows_what_the_head_computes(scale):
    batch = HELD_OUT(batch_size=3, n_pairs=5)(0)
    model = Lookup(LookupConfig(221, 221), partial(library.attention, scale=scale))
    q, k, v, weights = inside(model, *batch[:3])
    assert weights.shape == (3, 1, 5, 5)
    torch.testing.assert_close(weights, (q @ k.mT * (scale or 1 / 8)).softmax(-1))
    output = model.unembedding(model.attention.out_proj((weights @ v)[:, 0]))
    torch.testing.assert_close(output, model(*batch[:3]))
    additive = Lookup(LookupConfig(221, 221), library.AdditiveAttention(64, 8))
    q, k, v, weights = inside(additive, *batch[:3])
    torch.testing.assert_close(
        additive.unembedding(additive.attention.out_proj((weights @ v)[:, 0])), additive(*batch[:3])
    )


@pytest.mark.parametrize("arm", ["scaled", "additive"])
def test_lookup_on_meta(arm):
    model = build(Config(**ARMS[arm], width=16, lr=0), 0).to("meta")
    ids = torch.zeros(2, 4, device="meta", dtype=torch.long)
    with NoCpu():
        loss, _ = lookup_loss(model, (ids, ids, ids, ids))
        loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
