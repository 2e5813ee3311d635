"""Vocabularies: exact round trips, special tokens, and that the shipped ones are what their recipes give."""

import unicodedata

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from course_lib import corpora, paths, tokenization
from course_lib.tokenization import END, MASK, PAD, RECIPES, SPECIAL, START, UNK, Tokenizer

SHIPPED = {name: tokenization.load(name) for name in RECIPES}
# Characters that SentencePiece itself gives a meaning: its mark for a space, and the end of a C string.
PLAIN = st.text(st.characters(exclude_categories=("Cs", "Cn", "Co"), exclude_characters="\0▁"), max_size=60)


@pytest.mark.parametrize("name", RECIPES)
def test_size_and_special_tokens(name):
    tokenizer = SHIPPED[name]
    assert tokenizer.vocab_size == RECIPES[name].vocab_size
    assert tuple(map(tokenizer.piece, range(5))) == SPECIAL
    assert (PAD, UNK, START, END, MASK) == (0, 1, 2, 3, 4)
    ids = tokenizer.encode("a", start=True, end=True)
    assert (ids[0], ids[-1], ids[1:-1]) == (START, END, tokenizer.encode("a"))
    assert tokenizer.decode([PAD, *ids, MASK]) == "a"
    assert MASK not in tokenizer.encode("<mask> </s> <pad>")
    assert tokenizer.decode(tokenizer.encode("<mask> </s>")) == "<mask> </s>"


@pytest.mark.parametrize("name", RECIPES)
@settings(max_examples=300, deadline=None)
@given(text=PLAIN)
@example(text="  two  spaces \n\n    indented\n")
@example(text=" ")
@example(text="吾輩は猫である。😀 naïve — 12,345")
def test_round_trip(name, text):
    """Text in NFKC comes back exactly; <unk> is never needed."""
    text = unicodedata.normalize("NFKC", text)
    ids = SHIPPED[name].encode(text)
    if SHIPPED[name].decode(ids) != text:  # SentencePiece's own tables are of an older Unicode, and drop controls
        normalised = sentencepiece.SentencePieceNormalizer(rule_name="nfkc").normalize(text)
        assert normalised != text
        assert SHIPPED[name].decode(ids) == normalised
    assert UNK not in ids


@pytest.mark.parametrize("name", RECIPES)
def test_every_shipped_text_survives(name):
    for set_ in ("speeches", "neko", "python_code", "glosses"):
        for text in getattr(corpora, set_)("test").select(range(1))["text"]:
            assert SHIPPED[name].decode(SHIPPED[name].encode(text)) == text


def test_digits_and_line_breaks_stand_alone():
    for tokenizer in SHIPPED.values():
        pieces = tokenizer.pieces("in 1945\nnow")
        assert [p for p in pieces if p.strip("▁").isdigit()] == list("1945")
        assert "\n" in pieces


def test_pieces_are_words_that_a_reader_knows():
    assert SHIPPED["english-4k"].pieces("The world is ready.") == ["▁The", "▁world", "▁is", "▁ready", "."]
    assert SHIPPED["japanese-8k"].pieces("名前はまだ無い。") == ["名前は", "まだ", "無い", "。"]


def test_compression_on_held_out_documents():
    """Characters a token, where bytes would give 1 for English and a third for Japanese."""

    def rate(name, texts):
        return sum(map(len, texts)) / sum(len(SHIPPED[name].encode(text)) for text in texts)

    assert rate("english-4k", corpora.speeches("validation")["text"]) > 4.0
    assert rate("japanese-8k", corpora.neko("validation")["text"]) > 1.6


@pytest.mark.skipif(sentencepiece.__version__ != "0.2.3", reason="ties between pieces fall as SentencePiece's version")
@pytest.mark.parametrize("name", ["english-4k"])
def test_the_shipped_file_is_what_the_recipe_gives(name):
    again = tokenization.train_recipe(name)
    shipped = SHIPPED[name]
    assert [again.piece(i) for i in range(4000)] == [shipped.piece(i) for i in range(4000)]


def test_long_texts_are_not_skipped():
    """SentencePiece quietly leaves out lines beyond 4,192 bytes: here nothing would be left to learn from."""
    text = " ".join(corpora.sentence_pairs("test")["en"][:500])
    assert len(text) > 10_000
    assert tokenization.train([text], 500).pieces("the world")[0] == "▁the"


def test_short_words_are_enough():
    """The example of Sennrich et al. 2016: SentencePiece refuses a longest text below 10 bytes."""
    words = ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3
    tokenizer = tokenization.train(words, 280, model_type="bpe", add_dummy_prefix=False)
    assert "est" in tokenizer.pieces("newest") + tokenizer.pieces("lowest")


def test_what_changes_on_the_way():
    """The mark that SentencePiece keeps for itself; its NFKC, which leaves accents in their order and knows characters
    that Python 3.11 does not; even the end of a C string survives."""
    tokenizer = SHIPPED["english-4k"]
    assert tokenizer.decode(tokenizer.encode("q\u0307\u0323")) == "q\u0307\u0323"
    assert unicodedata.normalize("NFKC", "q\u0307\u0323") == "q\u0323\u0307"
    assert tokenizer.decode(tokenizer.encode("\U0001ccd6")) == "A"  # new in Unicode 16
    assert tokenizer.decode(tokenizer.encode("a▁b")) == "a b"
    assert tokenizer.decode(tokenizer.encode("a\0b")) == "a\0b"


def test_train_save_and_bpe(tmp_path):
    texts = corpora.sentence_pairs("test")["en"][:500]
    tokenizer = tokenization.train(texts, 500, model_type="bpe")
    path = tokenizer.save(tmp_path / "deep" / "x.model")
    assert tokenizer.save(str(tmp_path / "y.model")).read_bytes() == path.read_bytes()
    assert Tokenizer(path.read_bytes()).pieces(texts[0]) == tokenizer.pieces(texts[0])
    assert tokenization.train(texts, 500, model_type="bpe").model == tokenizer.model
    assert tokenization.train(texts, 500).model != tokenizer.model
    bare = tokenization.train(texts, 500, add_dummy_prefix=False)
    assert bare.pieces("I")[0] == "I"
    assert tokenizer.pieces("I")[0] == "▁I"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tokenization.load("klingon"), "name='klingon'; allowed are 'english-4k'"),
        (lambda: tokenization.train(["a b"], 300, model_type="char"), "model_type='char'"),
        (lambda: tokenization.train(["", ""], 300), "texts is empty"),
        (lambda: tokenization.train(["a b c"], 100), "vocab_size=100 does not fit"),
        (lambda: tokenization.train(["a b c"], 9000), "vocab_size=9000 does not fit"),
        (lambda: SHIPPED["english-4k"].encode(["a", "b"]), r"text=\['a', 'b'\] is a list"),
        (lambda: SHIPPED["english-4k"].decode([5, 4000]), r"ids has \[4000\]; allowed is 0 to 3999"),
        (lambda: SHIPPED["english-4k"].decode([-1]), r"ids has \[-1\]"),
        (lambda: SHIPPED["english-4k"].decode("56"), r"ids='56'; needed is a sequence of integers"),
        (lambda: SHIPPED["english-4k"].decode([5.7]), r"ids=\[5.7\]; needed is a sequence of integers"),
        (lambda: SHIPPED["english-4k"].decode(5), "ids=5; needed is a sequence of integers"),
        (lambda: SHIPPED["english-4k"].piece(-1), "index=-1; allowed is 0 to 3999"),
        (lambda: SHIPPED["english-4k"].piece(4000), "index=4000; allowed is 0 to 3999"),
        (lambda: SHIPPED["english-4k"].encode("ab\ud800"), "text has a lone surrogate, half a character, at 2"),
        (lambda: Tokenizer(b""), "model=b''; needed are the bytes"),
        (lambda: Tokenizer(b"garbage"), "model: its 7 bytes are not a SentencePiece model"),
        (lambda: tokenization.train("a long text in one string", 300), "texts is one string"),
        (lambda: tokenization.train(["a b", None], 300), "text=None is a NoneType"),
        (lambda: tokenization.train(["a b", "\ud800"], 300), "text has a lone surrogate"),
        (lambda: tokenization.train(["a b c"], 300, coverage=0.5), "coverage=0.5; allowed is 0.98 to 1"),
        (lambda: tokenization.train(["a b c"], 300, coverage=1.5), "coverage=1.5; allowed is 0.98 to 1"),
        (lambda: tokenization.train(["a b c"], 300.5), "vocab_size=300.5 does not fit"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_damaged_model_is_refused(tmp_path, monkeypatch):
    (tmp_path / "tokenizers").mkdir()
    (tmp_path / "tokenizers" / "english-4k.model").write_bytes(SHIPPED["english-4k"].model[:-1])
    (tmp_path / "SHA256SUMS").write_text("0" * 64 + "  tokenizers/english-4k.model\n")
    monkeypatch.setattr(paths, "shipped", lambda _: tmp_path)
    with pytest.raises(ValueError, match="is damaged"):
        tokenization.load("english-4k")
