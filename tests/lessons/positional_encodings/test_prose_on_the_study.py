"""Lesson 05: what its prose says of the recorded study follows from the record's losses; as `test_prose`."""

import math
import re
from functools import cache

import pytest
import torch

from course_lib import tokenization
from course_lib.evaluation import next_token_losses
from course_lib.experiments import load, load_tensors
from course_lib.experiments.positions import held_out_texts
from course_lib.lessons.positional_encodings.scheme_dots import relative_perplexity
from course_lib.models.bigram import KneserNeyBigram, count_bigrams
from course_lib.positions.alibi import alibi_slopes
from course_lib.training import windows
from tests.lessons.positional_encodings.test_prose import OUTPUT, PROSE, says

SCHEMES = ("rope", "alibi", "t5", "shaw", "sinusoidal", "learned", "none")
ALL = (*SCHEMES, "alibi uniform")
RUNS = load("positions")["arms"]


@cache
def losses(arm, key="loss_by_position"):
    """(3 seeds, positions)"""
    return torch.stack([load_tensors("positions", arm, seed)[key] for seed in range(3)]).double()


def mean(values, first, last):
    return values[:, first - 1 : last].mean().exp().item()


def grown(arm, first=513, last=1024, key="loss_by_position"):
    """Perplexity over that of the same tokens in windows of 128."""
    return mean(losses(arm, key), first, last) / mean(losses(arm, "loss_sliding"), first, last)


def against(reference):
    return {row.name: row for row in relative_perplexity({arm: losses(arm)[:, :128] for arm in ALL}, reference)}


def test_the_study_is_as_told():
    assert {run["name"] for run in RUNS} == {*ALL, "alibi swapped"}
    assert [sum(run["name"] == arm for run in RUNS) for arm in ALL] == [3] * len(ALL)
    for run in RUNS:
        config = run["config"]
        tokens = config["batch_size"] * config["length"]
        assert (config["n_layers"], config["steps"], tokens, config["n_heads"]) == (3, 1200, 1024, 4)
        assert round(run["params"] / 1e6, 1) == 1.6
    assert {run["config"]["max_distance"] for run in RUNS if run["name"] == "shaw"} == {64}
    says("three layers, 1,200 steps of 1,024 tokens", "from 1.6 million parameters and 1,200 steps")
    says("it was trained (its limit is 64 here", "This is for four heads and 128 tokens")


def test_parameters_of_each_scheme():
    params = {run["name"]: run["params"] for run in RUNS}
    extra = {arm: params[arm] - params["none"] for arm in SCHEMES}
    assert extra == dict.fromkeys(SCHEMES, 0) | {"learned": 128 * 128, "t5": 32 * 4, "shaw": 3 * 65 * 32}


@pytest.mark.slow
def test_up_to_128_all_are_better_than_the_bigram():
    vocab = tokenization.load("english-4k").vocab_size
    bigram = KneserNeyBigram(count_bigrams(windows(("speeches",), "train", 128)[:, :-1].flatten(), vocab))
    pairs = next_token_losses(bigram, held_out_texts()).mean(0)[None]
    for first, last in ((1, 16), (1, 64), (65, 128)):
        assert max(mean(losses(arm), first, last) for arm in ALL) < mean(pairs, first, last)
    says(
        f"has a perplexity of {mean(pairs, 65, 128):.0f} at places 65 to 128", "all schemes are better than the bigram"
    )
    assert mean(losses("rope"), 513, 1024) > 1.7 * mean(pairs, 513, 1024)
    groups = [[mean(losses(arm), 65, 128) for arm in ALL if (arm in SCHEMES[4:]) is late] for late in (False, True)]
    assert max(groups[0]) < 0.95 * min(groups[1])
    says(f"With {vocab:,} kinds of tokens, as here, a model that knows nothing has {vocab:,}")


def test_beyond_128():
    at = {arm: f"{grown(arm):.2f}" for arm in ALL if arm != "learned"}
    at |= {name: f"{grown('rope', key=f'loss_{name}'):.2f}" for name in ("ntk", "interpolate")}
    assert at["alibi uniform"] == at["alibi"]
    says(f"ratio {at['alibi']} at 513 to 1,024, with per-head slopes and with one slope for all")
    says(f"**Shaw** hardly, {at['shaw']}", f"**T5** rises slowly, to {at['t5']}")
    rise = {arm: 100 * (grown(arm) - 1) for arm in ("none", "sinusoidal")}
    says(f"**none** rises by {rise['none']:.0f} % only, and **sinusoidal** by {rise['sinusoidal']:.0f} %")
    says(f"wrong for T5 ({at['t5']}), none ({at['none']}), sinusoidal ({at['sinusoidal']})")
    rows = {"sinusoidal": f"{at['sinusoidal']} times", "Shaw": at["shaw"], "T5": at["t5"], "ALiBi": at["alibi"],
            "RoPE": f"{at['rope']}; NTK-aware {at['ntk']}", "none": at["none"], "learned": "ends"}  # fmt: skip
    for name, value in rows.items():
        assert re.search(rf"\| {name} \| [^|]+ \| {re.escape(value)} \|", PROSE), name
    says("**RoPE** holds up to 256, twice the trained length")
    assert grown("rope", 129, 256) < 1.01 < 1.5 < grown("rope", 257, 512)
    whole, short = mean(losses("rope"), 513, 1024), mean(losses("rope", "loss_sliding"), 513, 1024)
    says(f"{whole / short:.2f} times the perplexity at 513 to 1,024, {whole:.0f} instead of {short:.0f}")
    says(f"RoPE {whole / short:.1f} times as bad, with NTK-aware scaling {at['ntk']} times")


def test_stretched():
    keys = ("loss_by_position", "loss_ntk", "loss_interpolate")
    (rope, _), (ntk, ntk_far), (blurred, blurred_far) = (
        (mean(losses("rope", key), 65, 128), 100 * (grown("rope", key=key) - 1)) for key in keys
    )
    far, cured = (mean(losses("rope", key), 513, 1024) for key in keys[:2])
    says(f"reads 1,024 tokens with {cured:.0f} instead of {far:.0f}, only {ntk_far:.0f} % above the windows of 128")
    says(f"It costs {100 * (ntk / rope - 1):.0f} % within the trained length: {ntk:.1f} against {rope:.1f}")
    says(f"{100 * (blurred / rope - 1):.0f} % at the trained length and {blurred_far:.0f} % at 513 to 1,024")


def test_at_the_trained_length():
    rope = against("rope")
    alibi, shaw = rope["alibi"], rope["shaw"]
    assert (losses("alibi")[:, 64:128].mean(1) < losses("rope")[:, 64:128].mean(1)).all()
    assert shaw.low < 0 < shaw.high
    says("small but the same in each seed; Shaw's interval holds 0")
    says(f"**The gap** of none is {rope['none'].mean:.0f} % here, 10 % there")
    says(f"{rope['alibi uniform'].mean:.1f} % above RoPE against {-alibi.mean:.1f} % below")
    ends = re.search(r"sinusoidal, learned and none (\d+) to (\d+) % behind", PROSE).groups()
    assert [int(end) for end in ends] == pytest.approx([rope["sinusoidal"].mean, rope["none"].mean], abs=0.7)
    says(f"ALiBi is better by {-alibi.mean:.1f} % (interval: {-alibi.high:.1f} to {-alibi.low:.1f} %)")


def test_what_became_of_the_prediction():
    prediction, at = load("positions")["prediction"], {arm: mean(losses(arm), 65, 128) for arm in ALL}
    assert " ".join(prediction.split()) in " ".join(OUTPUT.split())
    assert "(510.3, +1.5 %, +9.7 %)" in prediction
    assert "where each has 64 to 127 tokens before it" in prediction
    says("where each has 65 to 128 tokens before it", "counted properly it is 65 to 128")
    says("A perplexity of 510 means")
    says("a validation perplexity of 510.3, ALiBi 1.5 % more, none 9.7 % more")
    # (1)
    early = [at[arm] for arm in ("shaw", "rope", "alibi")]
    assert max(early) < 1.03 * min(early) < at["t5"]
    assert max(at, key=at.get) == "none"
    says(f"T5 does not; none is behind by {against('rope')['none'].mean:.0f} %, not 5 to 15, and is last")
    says("(1) Shaw, RoPE and ALiBi lie within 3 %", "At 128 tokens Shaw, ALiBi and RoPE lie within 3 % of each")
    # (2)
    assert at["alibi"] < at["rope"] < at["none"]
    says("(2) ALiBi is better than RoPE, not worse")
    # (3)
    right = {"alibi": grown("alibi") < 1.02, "shaw": grown("shaw") < 1.1, "rope": grown("rope") > 1.5}
    right |= {"t5": grown("t5") < 1.1, "none": grown("none") > 1.3, "sinusoidal": grown("sinusoidal") > 2}
    assert [arm for arm in right if right[arm]] == ["alibi", "shaw", "rope"]
    says("(3) Right for ALiBi, Shaw, RoPE; wrong for T5")
    # (4)
    plain, blurred, ntk = (losses("rope", f"loss_{key}") for key in ("by_position", "interpolate", "ntk"))
    assert mean(ntk, 513, 1024) < mean(blurred, 513, 1024) < mean(plain, 513, 1024)
    assert mean(blurred, 65, 128) > max(mean(ntk, 65, 128), mean(plain, 65, 128))
    says("(4) was right.")
    # (5)
    worse = against("alibi")["alibi uniform"].mean
    says(f"one slope of 1/16 for all is {worse:.1f} % worse than per-head slopes")
    says(f"per-head slopes ({at['alibi uniform']:.1f} against {at['alibi']:.1f})")
    # (6), (7)
    assert mean(losses("alibi swapped"), 65, 128) < 2
    assert min(grown(arm) for arm in ALL if arm != "learned") > 0.98
    says("(6) and (7) were right", "*nobody gains* from the longer text")
    gains = (losses("alibi", "loss_sliding") - losses("alibi"))[:, 512:].mean(1)  # nats, each seed
    assert 0.0015 < gains.min() < gains.max() < 0.003
    says("ALiBi gains 0.2 %, the same in each seed", "within 44 tokens or fewer")
    assert math.log(2) / alibi_slopes(4)[2] < 44.5
