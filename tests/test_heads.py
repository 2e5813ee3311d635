"""Scores of heads on maps whose answer is known, and ablation against a model that really lacks the head."""

import pytest
import torch

from course_lib import heads
from course_lib.evaluation import next_token_losses
from course_lib.models.gpt2 import GPT2, GPT2Config
from tests.conftest import randomise

T = 9


def maps_of(*places):
    """One layer, one sequence, a head for each function of the query's place: all its weight is on that key."""
    maps = torch.zeros(1, 1, len(places), T, T)
    for head, place in enumerate(places):
        for t in range(T):
            maps[0, 0, head, t, place(t)] = 1
    return maps


BEFORE, SELF, FIRST = (lambda t: max(t - 1, 0)), (lambda t: t), (lambda t: 0)


def test_each_score_is_one_for_its_own_head():
    maps = maps_of(BEFORE, SELF, FIRST)
    assert heads.previous_token(maps).tolist() == [[1, 0, pytest.approx(1 / (T - 1))]]
    assert heads.same_token(maps).tolist() == [[0, 1, 0]]
    assert heads.first_token(maps).tolist() == [[pytest.approx(1 / (T - 1)), 0, 1]]
    want = [(T - 1) / T, 0, (T - 1) / 2]
    assert heads.reach(maps)[0].tolist() == pytest.approx(want)
    even = torch.ones(1, 1, 1, T, T).tril() / torch.arange(1, T + 1).view(-1, 1)
    assert heads.reach(even).item() == pytest.approx((T - 1) / 4)
    assert heads.evenness(even).item() == pytest.approx(1)
    assert heads.evenness(maps)[0].tolist() == pytest.approx([sum(1 / t for t in range(2, T + 1)) / (T - 1)] * 3)


def test_scores_average_over_sequences_and_keep_layers_and_heads_apart():
    maps = torch.stack([maps_of(BEFORE, SELF)[0], maps_of(SELF, SELF)[0]])  # two layers
    assert heads.previous_token(maps).tolist() == [[1, 0], [0, 0]]
    two = torch.cat([maps_of(BEFORE), maps_of(SELF)], 1)  # two sequences
    assert heads.previous_token(two).tolist() == [[0.5]]


def test_weight_on_wanted_tokens_counts_only_what_lies_before():
    ids = torch.tensor([[7, 1, 2, 7, 3, 4, 7, 5, 6]])
    last_mark = [0, 0, 0, 0, 3, 3, 3, 6, 6]
    maps = maps_of(lambda t: last_mark[t], SELF, FIRST)
    # Asked are the queries 4 to 8; a mark itself may look at an earlier mark; place 0 does not count.
    assert heads.on_tokens(maps, ids, [7]).tolist() == [[1, 0, 0]]
    with pytest.raises(ValueError, match=r"wanted=\[9\]"):
        heads.on_tokens(maps, ids, [9])


def test_induction_on_a_repeated_sequence():
    length = (T - 1) // 2
    ids = heads.repeated(length, 3, range(10, 30), seed=0, start=2)
    assert ids.shape == (3, T)
    assert (ids[:, 0] == 2).all()
    assert torch.equal(ids[:, 1 : 1 + length], ids[:, 1 + length :])
    assert all(len(set(row[1 : 1 + length].tolist())) == length for row in ids)
    assert not torch.equal(ids[0], ids[1])
    row = ids[0].tolist()

    def after_earlier_copy(t):
        return row.index(row[t]) + 1 if t > length else 0

    maps = maps_of(after_earlier_copy, lambda t: max(0, t - length), BEFORE)
    assert heads.induction(maps, length).tolist() == [[1, 0, 0]]
    assert heads.earlier_copy(maps, length).tolist() == [[0, 1, 0]]
    for score in (heads.induction, heads.earlier_copy):
        with pytest.raises(ValueError, match="length=3 needs 7"):
            score(maps, 3)
    for wrong in (1, 21):
        with pytest.raises(ValueError, match=f"length={wrong}"):
            heads.repeated(wrong, 1, range(20), seed=0, start=30)


@pytest.fixture
def model():
    made = GPT2(GPT2Config(vocab_size=30, max_positions=16, d_model=12, n_heads=3, n_layers=2)).eval()
    randomise(made)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(0.3)
    return made


def test_maps_are_those_of_all_layers(model):
    ids = torch.randint(30, (2, 7))
    maps = heads.attention_maps(model, ids)
    assert maps.shape == (2, 2, 3, 7, 7)
    assert maps.sum(-1).allclose(torch.ones(()))


def test_ablation_equals_a_model_whose_head_writes_nothing(model):
    windows = torch.randint(30, (3, 10))
    costs = heads.ablation_costs(model, windows)
    assert costs.shape == (2, 3, 3)
    before = next_token_losses(model, windows).mean(1)
    with torch.no_grad():
        model.blocks[1].attention.out_proj.weight[:, 4:8] = 0  # head 1 of 3, each 4 wide
    after = next_token_losses(model, windows).mean(1)
    assert (after - before).abs().min() > 1e-4
    assert costs[1, 1].allclose(after - before, atol=1e-5)


def test_mean_ablation_puts_what_the_head_says_on_average(model):
    """A bias that does the same: the head's weights gone, its mean carried through `out_proj`."""
    windows = torch.randint(30, (4, 10))
    means = heads.mean_outputs(model, windows[:, :-1])
    assert means.shape == (2, 3, 4)
    costs = heads.ablation_costs(model, windows, means)
    before, out = next_token_losses(model, windows).mean(1), model.blocks[1].attention.out_proj
    with torch.no_grad():
        out.bias += out.weight[:, 4:8] @ means[1, 1]
        out.weight[:, 4:8] = 0
    assert costs[1, 1].allclose(next_token_losses(model, windows).mean(1) - before, atol=1e-5)
    assert not costs.allclose(heads.ablation_costs(model, windows), atol=1e-4)


def test_a_head_that_says_the_same_to_all_costs_nothing_by_its_mean(model):
    with torch.no_grad():
        model.blocks[0].attention.v_proj.weight[4:8] = 0  # its values are its bias, wherever it looks
    windows = torch.randint(30, (4, 10))
    costs = heads.ablation_costs(model, windows, heads.mean_outputs(model, windows[:, :-1]))
    assert costs[0, 1].abs().max() < 1e-5
    assert costs[0, 0].abs().max() > 1e-4


def test_ablation_ends_after_an_error_and_names_a_wrong_head(model):
    ids = torch.randint(30, (1, 5))
    want = model(ids)
    with heads.without_head(model, 0, 0):
        assert not torch.equal(model(ids), want)
    with pytest.raises(ValueError, match="ids"), heads.without_head(model, 0, 0):
        model(ids[0])
    assert torch.equal(model(ids), want)
    for layer, head in ((2, 0), (0, 3), (-1, 0), (0, 1.0), ("0", 0)):
        with pytest.raises(ValueError, match=r"(layer|head)=\S+; allowed"), heads.without_head(model, layer, head):
            pass
    with pytest.raises(ValueError, match=r"instead has shape \(3,\)"), heads.without_head(model, 0, 0, torch.ones(3)):
        pass


def test_repeated_uses_seed_and_all_tokens():
    rows = heads.repeated(4, 50, range(20), seed=0, start=30)
    assert not torch.equal(rows, heads.repeated(4, 50, range(20), seed=1, start=30))
    assert len(rows[:, 1:].unique()) == 20
    assert heads.repeated(20, 1, range(20), seed=0, start=30).shape == (1, 41)
    for n, tokens, start, words in (
        (0, range(5), 30, "n=0; it must be 1 or more, a whole number"),
        (1.0, range(5), 30, "n=1.0; it must be 1"),
        (1, [5, 5, 6], 30, "all different"),
        (1, [5.5, 6.5], 30, "tokens=5.5; it must be 0 or more, a whole number"),
        (1, [5, -6], 30, "tokens=-6; it must be 0 or more"),
        (1, [5, 6], -1, "start=-1; it must be 0 or more"),
        (1, [5, 6], 6, "start=6 is one of the tokens"),
    ):
        with pytest.raises(ValueError, match=words):
            heads.repeated(2, n, tokens, seed=0, start=start)


def test_induction_averages_over_all_of_the_repetition():
    length = (T - 1) // 2
    only_first = maps_of(lambda t: 2 if t == 1 + length else 0)
    assert heads.induction(only_first, length).item() == pytest.approx(1 / length)
    only_last = maps_of(lambda t: length if t == 2 * length else 0)
    assert heads.earlier_copy(only_last, length).item() == pytest.approx(1 / length)


def test_what_is_no_map_is_refused():
    maps = maps_of(BEFORE)
    for wrong in (maps[0], maps[..., :5], -maps, maps[:, :0], maps[..., :1, :1], maps.int(), [maps]):
        with pytest.raises(ValueError, match="maps is"):
            heads.previous_token(wrong)
    with pytest.raises(ValueError, match=r"ids has shape \(2, 9\)"):
        heads.on_tokens(maps, torch.zeros(2, T, dtype=torch.long), [7])
    with pytest.raises(ValueError, match=r"ids is torch.float32 \(1, 9\); token ids are int64"):
        heads.on_tokens(maps, torch.zeros(1, T), [7])
    two = torch.cat([maps, maps], 1)
    ids = torch.full((2, T), 7)
    assert heads.on_tokens(two, ids, [7]).item() == pytest.approx((T - 2) / (T - 2))


def test_layers_must_have_equally_many_heads():
    from course_lib.attention import MultiHeadAttention

    for layers in ([], [MultiHeadAttention(12, 6), MultiHeadAttention(12, 2)]):
        net = torch.nn.Sequential(*layers)
        with pytest.raises(ValueError, match="needed is one layer"), heads.without_head(net, 0, 0):
            pass


def test_layers_are_counted_as_they_are_registered():
    """Whatever the order of execution: scores and ablation speak of the same head."""
    from course_lib.attention import MultiHeadAttention

    class Reversed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.second, self.first = (randomise(MultiHeadAttention(8, 2)) for _ in range(2))

        def forward(self, x):
            return self.second(self.first(x))

    net, x = Reversed(), torch.randn(1, 4, 8)
    maps = heads.attention_maps(net, x)
    with heads.record_attention(net) as seen:
        net(x)
    assert torch.equal(maps[0], seen["second"])
    assert torch.equal(maps[1], seen["first"])
    means = heads.mean_outputs(net, x)
    net.second.v_proj.weight.data.zero_()  # the bias alone is left
    assert not means[0].flatten().allclose(net.second.v_proj.bias, atol=1e-3)
    assert heads.mean_outputs(net, x)[0].flatten().allclose(net.second.v_proj.bias, atol=1e-5)
