"""BPE by hand: the fast training equals the plain one, both equal SentencePiece's, and no text is lost."""

import io
from collections import Counter
from itertools import pairwise

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from course_lib import corpora
from course_lib.tokenization.bpe import BPE, count_words, merge, preference, split_words, train_plain
from course_lib.tokenization.bpe_fast import train_bpe

SMALL = st.lists(st.text("ab c", max_size=14), min_size=1, max_size=6)  # few characters: many ties and overlaps
ANY = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
ODD = st.text(st.sampled_from("ab \n\0\r\t\u3000é\u0301👩🏽\u200d🚀שלום"), max_size=30)
PARITY = {
    "model_type": "bpe", "split_by_unicode_script": False, "split_by_number": False, "character_coverage": 1.0,
    "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "max_sentencepiece_length": 512,
}  # fmt: skip


def by_sentencepiece(texts, n_merges, prefix=True):
    """SentencePiece's own BPE of so many merges, and its merges in the order learned."""
    alphabet = {character for word in count_words(texts, prefix) for character in word}
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=file, vocab_size=3 + n_merges + len(alphabet), num_threads=1,
        add_dummy_prefix=prefix, minloglevel=2, **PARITY,
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_proto=file.getvalue())
    return model, tuple(model.id_to_piece(3 + i) for i in range(n_merges))


@pytest.fixture(scope="module", params=["en", "ja"])
def trained(request):
    """A thousand merges of two thousand sentences, the sentences, and held-out ones."""
    pairs, held_out = corpora.sentence_pairs("train"), corpora.sentence_pairs("validation")
    texts, prefix = pairs[request.param][:2000], request.param == "en"
    return train_bpe(texts, 1000, prefix), texts, held_out[request.param][:500]


def test_merges_and_encodings_are_sentencepieces(trained):
    bpe, texts, held_out = trained
    model, merges = by_sentencepiece(texts, 1000, bpe.prefix)
    assert bpe.merges == merges
    known = set("".join(count_words(texts, bpe.prefix)))  # SentencePiece joins unknown characters
    for text in [*texts, *(t for t in held_out if set(t.replace(" ", "▁")) <= known)]:
        assert bpe.encode(text) == model.encode(text, out_type=str)


def test_it_breaks_ties_as_sentencepiece_does():
    """Nearly all of these merges are ties: each pair of letters comes once or twice."""
    texts = ["zy xw vu", "ab cd ef", "wv yx ba", "ab ba abba baab", "ccc cccc ccccc"]
    _, merges = by_sentencepiece(texts, 15)
    assert train_plain(texts, 15).merges == train_bpe(texts, 15).merges == merges
    assert merges[:2] == ("cc", "ab")


@given(SMALL)
@settings(max_examples=150, deadline=None)
@example(["aaaa aaa aa"])
def test_small_texts_with_many_ties_are_sentencepieces_too(texts):
    texts = [text for text in texts if text.strip()]
    plain = train_plain(texts, 4)
    if len(plain.merges) == 4 and not two_ways(texts, plain):
        assert plain.merges == by_sentencepiece(texts, 4)[1]


def two_ways(texts, bpe):
    """Whether a chosen piece could be made from two equally frequent pairs, where SentencePiece follows no rule."""
    words = {word: list(word) for word in count_words(texts)}
    for piece in bpe.merges:
        pairs = {}
        for word, pieces in words.items():
            for pair in pairwise(pieces):
                pairs[pair] = pairs.get(pair, 0) + count_words(texts)[word]
        made = [pair for pair in pairs if "".join(pair) == piece]
        best = min(made, key=lambda pair: preference(pair, pairs[pair]))
        if sum(pairs[pair] == pairs[best] for pair in made) > 1:
            return True
        words = {word: merge(pieces, best) for word, pieces in words.items()}
    return False


@given(SMALL, st.integers(0, 30), st.booleans())
@settings(max_examples=300, deadline=None)
def test_fast_training_equals_plain(texts, n_merges, prefix):
    assert train_bpe(texts, n_merges, prefix) == train_plain(texts, n_merges, prefix)


@pytest.mark.parametrize(("language", "prefix"), [("en", True), ("ja", False)])
def test_fast_training_equals_plain_on_real_text(language, prefix):
    texts = corpora.sentence_pairs("train")[language][:300]
    assert train_bpe(texts, 150, prefix) == train_plain(texts, 150, prefix)


BIG = train_bpe(corpora.sentence_pairs("train")["en"][:500], 300)
JAPANESE = train_bpe(corpora.sentence_pairs("train")["ja"][:500], 300, prefix=False)


@given(ANY | ODD, st.sampled_from([BIG, JAPANESE]))
@settings(max_examples=300, deadline=None)
@example("  two  spaces \n", BIG)
@example("", BIG)
@example(" ", JAPANESE)
def test_round_trip(text, bpe):
    assert bpe.decode(bpe.encode(text)) == text.replace("▁", " ")


def test_encoding_goes_in_the_order_learned():
    bpe = BPE(("bc", "ab"))  # bc first: "abc" is a + bc, though ab stands first in the text
    assert bpe.encode("abc") == ["▁", "a", "bc"]
    assert BPE(("ab", "bc")).encode("abc") == ["▁", "ab", "c"]
    assert BPE(("aa",)).encode("aaa") == ["▁", "aa", "a"]  # of equal ones the leftmost


def test_words_of_a_text():
    assert split_words("a  bc") == ["▁a", "▁", "▁bc"]
    assert split_words("a bc", prefix=False) == ["a", "▁bc"]
    assert split_words("") == []
    assert count_words(["a b a"]) == Counter({"▁a": 2, "▁b": 1})


def test_what_is_preferred():
    counts = {("b", "c"): 2, ("a", "bcd"): 3, ("a", "b"): 3, ("a", "a"): 3}
    assert sorted(counts, key=lambda pair: preference(pair, counts[pair])) == [
        ("a", "a"), ("a", "b"), ("a", "bcd"), ("b", "c"),
    ]  # fmt: skip
    assert merge(list("aaab"), ("a", "a")) == ["aa", "a", "b"]


@pytest.mark.parametrize("train", [train_plain, train_bpe])
def test_bad_input(train):
    assert train(["ab"], 99).merges == ("ab", "▁ab")  # nothing more to merge
    assert train([], 5).merges == ()
    with pytest.raises(ValueError, match="texts is one string"):
        train("ab", 1)
    with pytest.raises(ValueError, match="n_merges=-1"):
        train(["ab"], -1)
    with pytest.raises(ValueError, match="text has a lone surrogate, half a character, at 1"):
        train(["a\ud800"], 1)
    with pytest.raises(ValueError, match="lone surrogate"):
        BPE(()).encode("\udfff")
    with pytest.raises(ValueError, match="text=3 is a int"):
        BPE(()).encode(3)
