"""Lesson 06: solutions of its exercises pass, natural mistakes are told apart, stubs are no errors."""

import math

import pytest
import sentencepiece

from course_lib import corpora, tokenization
from course_lib.lessons.tokenizer_training import exercises as check
from course_lib.tokenization.alphabet import train_small
from course_lib.tokenization.bpe_fast import train_bpe
from tests.conftest import ROOT, load_file
from tests.exercises.cases import expect_answer_to_stub, expect_own_message, pairs, with_declared
from tests.tokenization.test_bpe import by_sentencepiece

SOLUTIONS = load_file(ROOT / "solutions" / "06_tokenizer_training.py")
ANSWERS = {name: getattr(SOLUTIONS, name) for name in ("bits", "best_pair", "encode", "viterbi", "weights")}
OTHERS = {
    "bits": {"the answer is": lambda n, t, c: 0.5},
    "best_pair": {
        "needed are its two parts": lambda words: "".join(SOLUTIONS.best_pair(words)),
        "the answer is ('x', 'y')": lambda words: ("w", "z"),
        "stopped with KeyError": lambda words: words[0],
    },
    "encode": {
        "needed is a list of pieces": lambda word, merges: tuple(SOLUTIONS.encode(word, merges)),
        "the answer is": lambda word, merges: [word, word],
    },
    "viterbi": {
        "needed is a list of pieces": lambda text, scores: (SOLUTIONS.viterbi(text, scores), 1.0),
        "the answer is": lambda text, scores: [text],
    },
    "weights": {"the answer is": lambda sums, edges, alpha: [0.1] * len(edges)},
}
WRONG = with_declared(check, OTHERS)


@pytest.mark.parametrize("name", ANSWERS)
def test_the_solution_is_right(name):
    result = getattr(check, name)(ANSWERS[name])
    assert result.ok, result.message


@pytest.mark.parametrize(("name", "words"), pairs(WRONG))
def test_a_mistake_gets_its_own_message(name, words):
    expect_own_message(check, WRONG, name, words)


@pytest.mark.parametrize("name", [*ANSWERS, "vocabulary"])
def test_a_stub_is_no_error(name):
    expect_answer_to_stub(getattr(check, name))


def test_the_learners_encoder_cuts_as_sentencepiece_does():
    texts, held_out = corpora.sentence_pairs("train")["en"][:600], corpora.sentence_pairs("train")["en"][600:660]
    bpe = train_bpe(texts, 200)
    model, merges = by_sentencepiece(texts, 200)
    assert merges == bpe.merges
    held_out = [text for text in held_out if set(text) <= set("".join(texts))]
    assert "as SentencePiece" in check.encodes_like(SOLUTIONS.encode, bpe, model, held_out).message
    wrong = next(iter(check.ENCODE.values()))
    result = check.encodes_like(wrong, bpe, model, held_out)
    assert result.ok is False
    assert "SentencePiece has" in result.message
    expect_answer_to_stub(lambda stub: check.encodes_like(stub, bpe, model, held_out))


def test_the_learners_search_cuts_as_sentencepiece_does():
    tokenizer, texts = tokenization.load("japanese-8k"), corpora.sentence_pairs("validation")["ja"][:80]
    result = check.cuts_like(SOLUTIONS.viterbi, tokenizer, texts)
    assert result.ok, result.message
    greedy = next(iter(check.VITERBI.values()))
    assert "SentencePiece cuts" in check.cuts_like(greedy, tokenizer, texts).message
    expect_answer_to_stub(lambda stub: check.cuts_like(stub, tokenizer, texts))


@pytest.mark.slow
def test_a_vocabulary_of_ones_own():
    result = check.vocabulary(SOLUTIONS.vocabulary)
    assert result.ok, result.message
    for fn, words in (
        (lambda texts: texts, "needed is a Tokenizer"),
        (lambda texts: tokenization.load("japanese-8k"), "at most 2,000"),
        (lambda texts: train_small(texts, 1000, add_dummy_prefix=False), "more than with our"),
        (lambda texts: tokenization.Tokenizer(lossy(texts)), "not its normal form either"),
    ):
        result = check.vocabulary(fn)
        assert result.ok is False
        assert words in result.message


def lossy(texts):
    """A model by SentencePiece's defaults: no bytes, so that what it does not know is lost."""
    import io

    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=file, vocab_size=2000, model_type="bpe", minloglevel=2,
        character_coverage=0.98,
    )  # fmt: skip
    return file.getvalue()


def test_bits_are_of_a_text_and_not_of_a_token():
    assert SOLUTIONS.bits(math.log(2), 10, 20) == pytest.approx(0.5)
