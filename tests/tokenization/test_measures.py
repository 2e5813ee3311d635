"""Measures of a vocabulary, its card, and alphabets for small ones."""

import math

import pytest

from course_lib import corpora, tokenization
from course_lib.tokenization.alphabet import frequent_characters, train_small, without_others
from course_lib.tokenization.cards import card, card_table, settings_of
from course_lib.tokenization.measures import WORDS, is_single, measure

EN, JA = (list(corpora.sentence_pairs("train")[language][:1500]) for language in ("en", "ja"))


def test_measures_by_hand():
    # Training: a a b, and two ends; held out: a b and its end. Counts plus one: a 3, b 2, c 1, end 3, of 9.
    found = measure(list, 3, ["aa", "b"], ["ab"])
    bits = -(math.log2(3 / 9) + math.log2(2 / 9) + math.log2(3 / 9))
    assert found.bits_per_character == pytest.approx(bits / 2)
    assert found.characters_per_token == 1
    assert found.fertility == 2  # one word, two tokens
    assert found.single_share == 1
    assert found.unused == pytest.approx(1 / 3)
    assert "1.00 characters a token" in found.text()
    with pytest.raises(ValueError, match="held_out has no characters"):
        measure(list, 3, ["a"], [])


def test_longer_pieces_cost_fewer_bits_a_character():
    sizes = [
        measure(t.pieces, t.vocab_size, EN[:1000], EN[1000:]) for t in (train_small(EN[:1000], n) for n in (300, 900))
    ]
    assert sizes[0].characters_per_token < sizes[1].characters_per_token
    assert sizes[0].bits_per_character > sizes[1].bits_per_character
    assert sizes[0].single_share > sizes[1].single_share


def test_words_and_single_pieces():
    assert WORDS.findall("It's 3 猫がいる、ネコ") == ["It", "s", "3", "猫", "がいる", "ネコ"]
    assert [is_single(p) for p in ("a", "▁a", "▁", "<0xE7>", "ab", "▁ab", "<0xE7")] == [True] * 4 + [False] * 3


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
@pytest.mark.parametrize(("texts", "size"), [(EN, 300), (JA, 300), (JA, 700)])
def test_a_small_vocabulary_of_any_language(texts, size, model_type):
    made = train_small(texts, size, model_type=model_type)
    assert made.vocab_size == size
    told = settings_of(made)
    assert (told.model_type, told.vocab_size, told.coverage) == (model_type, size, 1.0)
    longer = [p for p in map(made.piece, range(261, size)) if len(p.removeprefix("▁")) > 1]
    assert len(longer) > 0.2 * (size - 263)  # there is room for more than characters
    for text in texts[:50]:
        assert made.decode(made.encode(text)) == text


def test_the_alphabet_is_the_most_frequent_characters():
    assert frequent_characters(["aaab", "bbc"], 2) == "ab"
    assert frequent_characters(["b" * 9 + "a"], 5, coverage=0.9) == "b"
    assert without_others(["ab-c", "--", "a]b^"], "abc]^") == ["ab\nc", "\n", "a]b^"]
    made, whole = train_small(EN, 300), " ".join(["", *EN])
    starts = [piece for piece in map(made.piece, range(261, 300)) if piece.startswith("▁") and len(piece) > 2]
    assert starts
    assert all(piece.replace("▁", " ") in whole for piece in starts)  # what follows a rare character begins no word
    with pytest.raises(ValueError, match="vocab_size=269"):
        train_small(EN, 269)
    with pytest.raises(ValueError, match="does not fit the texts"):
        train_small(["ab"], 5000)


@pytest.mark.parametrize(("prefix", "coverage"), [(True, 0.99), (False, 1.0)])
def test_settings_are_read_from_the_file(prefix, coverage):
    texts = [text.lower() for text in EN]
    told = settings_of(tokenization.train(texts, 400, coverage=coverage, add_dummy_prefix=prefix, model_type="bpe"))
    assert (told.add_dummy_prefix, told.coverage, told.model_type) == (prefix, coverage, "bpe")
    assert (told.normalisation, told.byte_fallback, told.vocab_size) == ("nfkc", True, 400)


def test_a_card_says_what_was_measured():
    made = tokenization.load("english-4k")
    facts = card(made, "speeches", ["ab", "ﾃﾞ"])
    pieces = made.pieces("ab") + made.pieces("ﾃﾞ")
    assert facts["type"] == "unigram"
    assert facts["pieces"] == "4,000"
    assert facts["texts that come back as they were"] == "50.00%"
    assert facts["characters a token"] == f"{4 / len(pieces):.2f}"
    assert facts["tokens that are bytes"] == f"{3 / len(pieces):.2%}"
    assert list(card_table({"a": facts, "b": facts}).columns) == ["a", "b"]
    with pytest.raises(ValueError, match="held_out has no characters"):
        card(made, "", [""])


def test_what_a_card_says():
    facts = card(tokenization.load("japanese-8k"), "", ["ab cd"])
    n = len(tokenization.load("japanese-8k").pieces("ab cd"))
    assert facts["tokens a word (fertility)"] == f"{n / 2:.2f}"
    assert facts["space before the text"] == "no"
    assert facts["unknown characters"] == "bytes"
    assert card(tokenization.load("english-4k"), "", ["ab"])["space before the text"] == "yes"
