"""Lesson 05: what its prose says is computed here, kept by the trained models, or in the saved outputs.

Sentences are built from the numbers, so that neither these nor the prose can change alone. What it says of the
recorded study's losses is in `test_prose_on_the_study`.
"""

import math
import re

import nbformat
import pytest
import torch

from course_lib.experiments import load_tensors
from course_lib.lessons.positional_encodings.exercises import own_scheme as scheme
from course_lib.lessons.positional_encodings.exercises import probe
from course_lib.lessons.positional_encodings.wavelengths import wavelengths
from course_lib.models.pythia import Pythia, PythiaConfig
from course_lib.positions.absolute import sinusoids
from course_lib.positions.alibi import UNIFORM_SLOPE, alibi_slopes
from course_lib.positions.relative import t5_buckets
from course_lib.positions.rope import rope_frequencies
from tests.conftest import ROOT

NOTEBOOK = nbformat.read(ROOT / "notebooks/05_positional_encodings.ipynb", 4)
PROSE = " ".join(" ".join(cell.source for cell in NOTEBOOK.cells if cell.cell_type == "markdown").split())
OUTPUT = "\n".join(o.get("text", "") for cell in NOTEBOOK.cells for o in cell.get("outputs", ()))


def says(*sentences):
    assert not [sentence for sentence in sentences if sentence not in PROSE]


def printed(pattern):
    found = re.search(pattern, OUTPUT, re.M)
    assert found, pattern
    return [float(number) for number in found.groups()]


def test_waves():
    waves = sinusoids(torch.arange(62_832), 128)
    says(f"Each wave has a root mean square of {waves[:, :32].square().mean().sqrt():.2f}")
    assert Pythia(PythiaConfig()).embedding.weight.std().item() == pytest.approx(0.02, rel=0.02)
    says("our embeddings begin at 0.02")
    turns = 2 * math.pi / rope_frequencies(64).double()
    says(
        f"a full turn in {turns[0]:.2f} tokens", f"the last of a head of 64 once in {round(turns[-1].item(), -3):,.0f}"
    )
    slowed = 2 * math.pi / rope_frequencies(8, extension="interpolate", factor=8.0).double()
    says("slows all pairs down by the factor of the longer text, here 8: place 1,024 turns as place 128 did")
    says(f"even the fastest pair takes {slowed[0]:.0f} tokens for a turn")
    assert wavelengths(8, trained=128).incomplete.tolist() == [False, False, True, True]
    assert torch.tensor(256.0, dtype=torch.bfloat16) == torch.tensor(257.0).bfloat16()


def test_buckets_and_slopes():
    buckets = t5_buckets(-torch.arange(1001), bidirectional=False)
    first = int((buckets == 31).nonzero()[0])
    assert buckets[first:].unique().tolist() == [31]
    says(f"all from {first} tokens on share the last one")
    says(f"at the right edge: distances from {first} on", "at place 1,000 nearly 900 keys share it")
    assert 880 < 1000 - first < 900
    assert sum(128 - d for d in range(first, 128)) / sum(range(129)) < 0.02  # "such distances are rare"

    def loss(slope):
        return 100 * (1 - math.exp(-slope))

    slopes = alibi_slopes(8)
    assert slopes.tolist() == [2.0**-h for h in range(1, 9)]
    says(f"slope 1/2 loses {loss(slopes[0]):.0f} %", f"one with 1/256 {loss(slopes[-1]):.1f} %")
    says(
        f"With 1/16 for all heads, no head can look at the token before alone (a key loses {loss(UNIFORM_SLOPE):.0f} %"
    )
    says(f"1/256, a key 5,000 tokens back is {5000 * alibi_slopes(4)[-1]:.0f} nats behind")


def test_what_t5_learned():
    name = "blocks.0.attention.position.embedding.weight"
    tables = torch.stack([load_tensors("positions", "t5", seed)[name] for seed in range(3)])  # (3, buckets, heads)
    assert (tables.argmax(1) == 1).all()
    assert (tables[:, 31] > tables[:, 29:31].amax(1)).all()
    assert torch.corrcoef(tables.transpose(1, 2).flatten(0, 1)).min() > 0.95
    near = torch.arange(1, 33)
    curves = tables[:, t5_buckets(-near, bidirectional=False)].transpose(1, 2).flatten(0, 1)
    assert (torch.corrcoef(torch.cat([near.log()[None], curves]))[0, 1:] < -0.95).all()
    says("It peaks at distance 1, the token before", "It is the end of a small rise", "It falls about like a logarithm")


def test_learned_vectors_of_near_places_are_alike():
    for seed in range(3):
        table = load_tensors("positions", "learned", seed)["position.embedding.weight"]
        alike = torch.nn.functional.cosine_similarity(table[:, None], table, -1)
        near, far = (torch.cat([alike.diagonal(d) for d in span]).mean() for span in (range(1, 9), range(64, 127)))
        assert near > far + 0.05
    with pytest.raises(ValueError, match="129 tokens"):
        Pythia(PythiaConfig(position="learned", n_layers=1, max_positions=128))(torch.zeros(1, 129, dtype=torch.int64))
    says(
        "a model with 128 vectors has no 129th", "There is no vector for place 129, and the model raises a `ValueError`"
    )
    says("near places are more alike than far ones")


def test_what_heads_look_at():
    weights = r"head {}, weight on the token before: {{'trained': (\S+), 'untrained': (\S+), 'words shuffled': (\S+)}}"
    trained, untrained, shuffled = printed(rf"^rope +{weights.format('1.0')}")
    says(f"number 0 of layer 1, that puts {trained:.2f} of its weight", f"with the words shuffled it is {shuffled:.2f}")
    says(f"before training it was {untrained:.2f}")
    best = printed(rf"^sinusoidal +{weights.format('...')}")[0]
    says(f"The best head of the sinusoidal decoder reaches {best:.2f}")
    lost = {}
    for arm in ("rope", "sinusoidal"):
        whole, mixed = printed(rf"^{arm} +loss (\S+) nats; with all words but the last one shuffled (\S+)$")
        lost[arm] = mixed - whole
    says(f"loses {lost['rope']:.2f} nats by it, the sinusoidal one {lost['sinusoidal']:.2f}")


def test_pitfalls():
    seeds = printed(r"ALiBi and mask, swapped +\[(\S+), (\S+), (\S+)\]")
    kept = [load_tensors("positions", "alibi swapped", seed)["loss_by_position"] for seed in range(3)]
    assert seeds == [round(losses[64:128].mean().exp().item(), 3) for losses in kept]
    says(f"A perplexity of {sum(seeds) / 3:.2f}, from")
    right, wrong = printed(r"^as shipped: +perplexity (\S+)\nreordered as interleaved, read half-split: +(\S+)$")
    says(f"A perplexity of {wrong:.0f} instead of {right:.0f}", "Three quarters of the channels do not turn")
    assert PythiaConfig().rotary_pct == 0.25
    says("a quarter of each head's channels turn (`rotary_pct=0.25`)")
    whole, restarted = printed(r"^right .* through the cache (\S+)\nrestarted .* through the cache (\S+)$")
    told = re.search(r"Only generation is worse: (\d+) instead of (\d+)", PROSE).groups()
    assert [int(x) for x in told] == pytest.approx([restarted, whole], abs=0.51)  # 121.5 may be rounded to 122
    assert printed(r"^fused, swapped .*: (\S+)$")[0] > 1


def test_which_pair_breaks():
    def row(name):
        return printed(rf"^{name} +{{'65-128': (\d+), '129-256': (\d+), '257-512': (\d+), '513-1024': (\d+)}}")

    whole, *slow = (row(name) for name in ("as it is", "pair 0 slow", "pair 1 slow", "pair 2 slow", "pair 3 slow"))
    assert slow[3] == whole
    for pair in (0, 1):
        assert whole[0] + 5 < slow[pair][0] < whole[0] + 8
        assert abs(slow[pair][3] - whole[3]) < 5
    says(f"nearly the whole failure: {slow[2][3]:.0f} instead of {whole[3]:.0f} at 513 to 1,024")
    says(f"slowing it costs most, {slow[2][0]:.0f} instead of {whole[0]:.0f}")
    turn = rope_frequencies(8)[2].item()
    says(f"at most {math.degrees(128 * turn):.0f}°", f"half a turn at a distance of {math.pi / turn:.0f} tokens")


def test_live_training_loosely():
    about = int(re.search(r"You train both on speeches, each for about (\d+) seconds", PROSE)[1])
    for arm in ("rope", "alibi"):
        seconds, near, far = printed(rf"^{arm} +trained in +(\d+) s; .*128: (\d+), at 257 to 512: (\d+)$")
        assert seconds / 2 < about < 2 * seconds
        assert near > 116  # "Both are far from finished"
        assert 0.9 * near < far < 1.15 * near


def test_exercises():
    assert (scheme.WIDTH, scheme.HEADS, scheme.READ, scheme.TRAINED, scheme.BETTER) == (64, 4, 512, 128, 0.98)
    says("a Pythia of width 64 with 4 heads", "does it go on to 512 tokens", "by 2 % or more")
    verdicts = [case.verdict for case in probe._CASES]
    words = {3: "three", 7: "seven", 8: "eight", 9: "nine", 10: "ten", 11: "eleven", 12: "twelve"}
    fine, bugs = verdicts.count("fine"), len(verdicts) - verdicts.count("fine")
    says(f"runs your probe on {words[fine + bugs]} models. {words[fine].capitalize()} are right")
    says(f"The bugs of the other {words[bugs]} are")
