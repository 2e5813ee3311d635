"""The table of roles: its controls are what it says, and a role is taken above both limits."""

import numpy as np
import torch

from course_lib.lessons.multi_head_attention import roles
from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.tokenization import START, load
from tests.conftest import randomise

SIZES = GPT2Config(max_positions=96, d_model=8, n_heads=2, n_layers=1)


def test_controls_are_the_same_text_in_another_order(monkeypatch):
    asked = []
    monkeypatch.setattr(roles, "role_scores", lambda model, ids, twice, marks: asked.append((model, ids, twice, marks)))
    trained, fresh = randomise(GPT2(SIZES)), GPT2(SIZES)
    ids = torch.cat([torch.full((3, 1), START), torch.randint(300, 4000, (3, 20))], 1)
    found = roles.role_table(trained, fresh, load("prose-4k"), ids)
    assert list(found) == ["trained", "untrained", "shuffled"]
    (one, two, three), marks = asked, [load("prose-4k").piece(i) for i in asked[0][3]]
    assert [call[0] for call in asked] == [trained, fresh, trained]
    assert torch.equal(one[1], ids)
    assert torch.equal(two[1], ids)
    assert torch.equal(three[1].sort(1).values, ids.sort(1).values)
    assert torch.equal(three[1][:, 0], ids[:, 0])
    assert not torch.equal(three[1], ids)
    half = roles.COPY + 1
    assert torch.equal(one[2][:, 1:half], one[2][:, half:])
    assert torch.equal(three[2][:, :half], one[2][:, :half])
    assert (three[2][:, half:] == one[2][:, half:]).float().mean() < 0.05
    assert {".", "?", "!"} <= {mark.lstrip("▁") for mark in marks}


def test_scores_are_of_all_heads():
    ids = torch.randint(300, 4000, (2, 20))
    ids[:, 5] = 299
    twice = torch.randint(300, 4000, (2, 2 * roles.COPY + 1))
    found = roles.role_scores(randomise(GPT2(SIZES)), ids, twice, [299])
    assert list(found) == ["previous", "same", "first", "sentence end", "earlier copy", "induction", "reach"]
    assert all(values.shape == (1, 2) for values in found.values())


def test_a_role_is_taken_above_both_limits():
    trained = {"first": np.array([[0.31, 0.29], [0.9, 0.5]]), "reach": np.array([[1.0, 5.0], [3.0, 9.0]])}
    untrained = {"first": np.array([[0.1, 0.1], [0.5, 0.2]]), "reach": np.full((2, 2), 9.0)}
    trained["induction"], untrained["induction"] = (
        np.array([[0.5, 0.5], [0.5, 0.29]]),
        np.array([[0.3, 0.1], [0.1, 0.1]]),
    )
    shuffled = {"induction": np.array([[0.1, 0.3], [0.1, 0.1]])}  # either control may be too high
    taken = roles.taken_roles({"trained": trained, "untrained": untrained, "shuffled": shuffled})
    assert taken == {"first": {(0, 0), (1, 1)}, "local": {(0, 0)}, "induction": {(1, 0)}}
