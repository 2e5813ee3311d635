"""The lattice of the unigram model: SentencePiece's best cuts, exact sums, samples with the right frequencies."""

import math
import random
from collections import Counter

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import corpora, tokenization
from course_lib.tokenization.unigram import Edge, Lattice, Unigram

NAMES = {"english-4k": "en", "japanese-8k": "ja", "mixture-4k": "en"}
SHIPPED = {name: tokenization.load(name) for name in NAMES}
UNIGRAMS = {name: Unigram(tokenizer) for name, tokenizer in SHIPPED.items()}
PROCESSORS = {name: sentencepiece.SentencePieceProcessor(model_proto=t.model) for name, t in SHIPPED.items()}
ANY = st.text(st.characters(exclude_categories=("Cs",)), max_size=24)


def every_cut(lattice, end=None):
    """All cuts of the text before `end`, as tuples of edges, by plain recursion."""
    end = len(lattice.text) if end is None else end
    if end == 0:
        return [()]
    return [(*before, e) for e in lattice.ending[end] for before in every_cut(lattice, e.start)]


def small_lattice():
    """A text of five characters with twelve cuts, and scores that are no rounding accident."""
    text, scores = "abcde", {"a": -1.0, "b": -2.1, "c": -1.3, "d": -2.7, "e": -1.9, "ab": -2.6, "bc": -3.1, "cde": -4.2,
                             "abc": -3.9, "de": -3.3}  # fmt: skip
    ending = [
        tuple(Edge(s, e, text[s:e], scores[text[s:e]]) for s in range(e) if text[s:e] in scores) for e in range(6)
    ]
    return Lattice(text, tuple(ending))


@pytest.mark.parametrize("name", NAMES)
def test_the_best_cut_is_sentencepieces(name):
    unigram, tokenizer = UNIGRAMS[name], SHIPPED[name]
    for text in [*corpora.sentence_pairs("validation")[NAMES[name]][:300], "猫🦊ﾊﾝｶｸ a\nb  c 12", "", " "]:
        assert unigram.spelled(unigram.lattice(text).best()) == tokenizer.pieces(text)


@given(ANY, st.sampled_from(list(NAMES)))
@settings(max_examples=200, deadline=None)
def test_the_best_cut_of_any_text_is_as_good_as_sentencepieces(text, name):
    unigram = UNIGRAMS[name]
    mine, theirs = unigram.spelled(unigram.lattice(text).best()), SHIPPED[name].pieces(text)
    if mine != theirs:  # only of a tie
        assert math.isclose(score_of(unigram, mine), score_of(unigram, theirs), abs_tol=1e-4)


def score_of(unigram, pieces):
    """The sum of scores; a byte is a share of its character, the same in any cut."""
    return sum(unigram.scores.get(piece, 0.0) for piece in pieces)


@pytest.mark.parametrize("name", NAMES)
def test_the_n_best_cuts_are_sentencepieces(name):
    unigram = UNIGRAMS[name]
    for text in corpora.sentence_pairs("validation")[NAMES[name]][:60]:
        cuts = unigram.lattice(text).n_best(8)
        theirs = PROCESSORS[name].nbest_encode(text, nbest_size=8, out_type=str)
        assert len(cuts) == len(theirs)
        scores = [cut.score for cut in cuts]
        assert scores == sorted(scores, reverse=True)
        assert len({tuple(cut.pieces) for cut in cuts}) == len(cuts)
        for cut, pieces in zip(cuts, theirs, strict=True):
            spelled = unigram.spelled(cut)
            assert score_of(unigram, spelled) == pytest.approx(score_of(unigram, pieces), abs=1e-4)
            apart = [abs(cut.score - other) for other in scores if other is not cut.score]
            if min(apart, default=1) > 1e-4 and cut is not cuts[-1]:
                assert spelled == pieces


def test_n_best_are_all_there_are_in_order():
    lattice = small_lattice()
    cuts = every_cut(lattice)
    assert lattice.count() == len(cuts) == 10
    found = lattice.n_best(99)
    assert sorted(map(tuple, (cut.edges for cut in found)), key=str) == sorted(cuts, key=str)
    assert [cut.score for cut in found] == pytest.approx(sorted((sum(e.score for e in c) for c in cuts), reverse=True))
    assert [cut.pieces for cut in lattice.n_best(3)] == [cut.pieces for cut in found[:3]]
    assert lattice.best().pieces == found[0].pieces


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 2.5])
def test_samples_have_the_exact_probabilities(alpha):
    lattice, generator, draws = small_lattice(), random.Random(0), 20_000
    weights = {tuple(e.piece for e in cut): math.exp(alpha * sum(e.score for e in cut)) for cut in every_cut(lattice)}
    total = sum(weights.values())
    assert lattice.forward(alpha)[-1] == pytest.approx(math.log(total))
    drawn = Counter(tuple(lattice.sample(generator, alpha).pieces) for _ in range(draws))
    chi = sum((drawn[cut] - draws * w / total) ** 2 / (draws * w / total) for cut, w in weights.items())
    assert chi < 28  # of 9 degrees of freedom: a right sampler is above in 1 of 1,000 seeds


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0])
def test_marginals_are_shares_of_all_cuts(alpha):
    lattice = small_lattice()
    cuts = {cut: math.exp(alpha * sum(e.score for e in cut)) for cut in every_cut(lattice)}
    found = lattice.marginals(alpha)
    assert set(found) == {edge for edges in lattice.ending for edge in edges}
    for edge, share in found.items():
        assert share == pytest.approx(sum(w for cut, w in cuts.items() if edge in cut) / sum(cuts.values()))


def test_samples_are_like_sentencepieces():
    unigram, processor = UNIGRAMS["japanese-8k"], PROCESSORS["japanese-8k"]
    lattice, generator, draws = unigram.lattice("そこから"), random.Random(1), 4000
    sentencepiece.set_random_generator_seed(0)
    mine = Counter("|".join(lattice.sample(generator, 0.4).pieces) for _ in range(draws))
    theirs = Counter("|".join(processor.sample_encode_as_pieces("そこから", -1, 0.4)) for _ in range(draws))
    assert lattice.count() == 4
    for cut in mine | theirs:
        assert mine[cut] / draws == pytest.approx(theirs[cut] / draws, abs=0.045)  # four standard errors of a half


def test_a_sample_carries_its_score_and_covers_the_text():
    lattice = UNIGRAMS["english-4k"].lattice("something to remember")
    for seed in range(20):
        cut = lattice.sample(random.Random(seed), 0.2)
        assert "".join(cut.pieces) == lattice.text
        assert cut.score == pytest.approx(sum(e.score for e in cut.edges))
        assert cut.score <= lattice.best().score <= lattice.forward()[-1]


def test_a_character_without_a_piece_costs_more_than_any_other():
    unigram = UNIGRAMS["english-4k"]
    (edge,) = unigram.lattice("a🦊").ending[-1]
    assert edge.score == unigram.unknown == pytest.approx(min(unigram.scores.values()) - 10)
    assert unigram.spelled(unigram.lattice("🦊").best())[-4:] == ["<0xF0>", "<0x9F>", "<0xA6>", "<0x8A>"]
    assert unigram.lattice("").best().pieces == []
    assert unigram.lattice("").sample(random.Random(0)).pieces == []


def test_bad_input():
    with pytest.raises(ValueError, match="model_type='unigram'"):
        Unigram(tokenization.train(corpora.sentence_pairs("validation")["en"][:200], 400, model_type="bpe"))
    lattice = small_lattice()
    with pytest.raises(ValueError, match="n=0"):
        lattice.n_best(0)
    for alpha in (-1, math.nan):
        with pytest.raises(ValueError, match="alpha="):
            lattice.sample(random.Random(0), alpha)
    with pytest.raises(ValueError, match="lone surrogate"):
        UNIGRAMS["english-4k"].lattice("\ud800")
