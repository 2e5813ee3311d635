"""Vocabularies: exact round trips, special tokens, and that the shipped ones are what their recipes give."""

import pickle
import re
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
# Everything that is whole characters, and often what SentencePiece gives a meaning, normalises, or keeps for itself.
ODD = st.lists(st.sampled_from([*"ab \n\t\r\0▁▅あé\u0301\u3000\xa0\u200b\ufffd", "<s>", "<0x41>"]), max_size=30)
ANY = st.text(st.characters(exclude_categories=("Cs",)), max_size=30) | ODD.map("".join)
NFKC = sentencepiece.SentencePieceNormalizer(
    rule_name="nfkc", add_dummy_prefix=False, escape_whitespaces=False, remove_extra_whitespaces=False
)

HOW = st.fixed_dictionaries(
    {
        "add_dummy_prefix": st.booleans(),
        "model_type": st.sampled_from(["unigram", "bpe"]),
        "coverage": st.sampled_from([0.98, 0.9995, 1.0]),
    }
)


def as_large_as_possible(texts, **settings):
    """A vocabulary of `texts`; SentencePiece says which size is the most. None where there is nothing to learn."""
    size = 100_000
    while True:
        try:
            return tokenization.train(texts, size, **settings)
        except ValueError as error:
            if "no characters" in str(error) or "texts is empty" in str(error):
                return None
            size = int(re.search(r"<= (\d+)", str(error))[1])


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
    if SHIPPED[name].decode(ids) != text:  # SentencePiece's own tables are of another Unicode
        assert NFKC.normalize(text) != text
        assert SHIPPED[name].decode(ids) == NFKC.normalize(text)
    assert UNK not in ids


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(texts=st.lists(ANY, min_size=1, max_size=6), text=ANY, how=HOW)
@example(["こんにちは", "こんばんは"] * 5, "Hello world", {"add_dummy_prefix": False})
@example(["こんにちは"] * 400 + ["a b"], "a  b", {"add_dummy_prefix": False, "model_type": "bpe", "coverage": 0.98})
@example(["こんにちは" * 1000], "a  b", {"add_dummy_prefix": True})  # a space in 5,000 characters
@example(["<0x00>"], "a", {"add_dummy_prefix": False, "model_type": "unigram"})  # looks like a byte's piece
def test_no_character_is_lost_whatever_the_training_texts(texts, text, how):
    """A space that they never had is one still, in unspaced scripts without a dummy prefix too."""
    tokenizer = as_large_as_possible(texts, **how)
    for one in (text, " ", "\n \t", *texts) if tokenizer else ():
        ids = tokenizer.encode(one)
        assert tokenizer.decode(ids) == NFKC.normalize(one).replace("▁", " ")
        assert UNK not in ids
        assert "".join(tokenizer.stream(ids)) == tokenizer.decode(ids)


def test_a_text_with_sentencepieces_own_character_is_not_left_out():
    tokenizer = as_large_as_possible(["low low ▅ lower lower", "▅ newest newest"] * 4, model_type="bpe")
    assert tokenizer.pieces("lower newest") == ["▁lower", "▁newest"]
    assert tokenizer.decode(tokenizer.encode("a▅b")) == "a▅b"


@pytest.mark.parametrize("name", RECIPES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_stream_of_any_ids(name, data):
    """Half characters, specials in between, spaces at either end: together always what `decode` gives."""
    byte = SHIPPED[name].encode("\0")[-1]
    assert SHIPPED[name].piece(byte) == "<0x00>"
    some = st.sampled_from([*range(5), *(byte + b for b in (0x41, 0xE3, 0x81, 0x82, 0xF0, 0x9F, 0xC3, 0xED, 0xFF))])
    ids = data.draw(st.lists(some | st.integers(0, SHIPPED[name].vocab_size - 1), max_size=20))
    parts = list(SHIPPED[name].stream(ids))
    assert "".join(parts) == SHIPPED[name].decode(ids)
    assert all(parts)


def test_stream_does_not_wait():
    """A part as soon as it is certain: a word at once, a character of several bytes with its last one."""
    tokenizer, given_ = SHIPPED["english-4k"], []

    def one_by_one(ids):
        for i in ids:
            given_.append(i)
            yield i

    ids = tokenizer.encode("the end 吾", start=True)
    assert tokenizer.pieces("the end 吾") == ["▁the", "▁end", "▁", "<0xE5>", "<0x90>", "<0xBE>"]
    found = [(part, len(given_)) for part in tokenizer.stream(one_by_one(ids))]
    assert found == [("the", 2), (" end", 3), (" ", 4), ("吾", 7)]
    assert "".join(tokenizer.decode([i]) for i in tokenizer.encode("the end")) == "theend"  # the reason for it


def test_a_tokenizer_can_be_pickled():
    tokenizer = pickle.loads(pickle.dumps(SHIPPED["english-4k"]))
    assert tokenizer.encode("the world") == SHIPPED["english-4k"].encode("the world")


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


@pytest.mark.slow
@pytest.mark.skipif(sentencepiece.__version__ != "0.2.3", reason="ties between pieces fall as SentencePiece's version")
@pytest.mark.parametrize("name", ["english-4k"])
def test_the_shipped_file_is_what_the_recipe_gives(name):
    assert tokenization.train_recipe(name).model == SHIPPED[name].model


def test_long_texts_are_not_skipped():
    """SentencePiece quietly leaves out lines beyond 4,192 bytes: here nothing would be left to learn from."""
    text = " ".join(corpora.sentence_pairs("test")["en"][:500])
    assert len(text) > 10_000
    assert tokenization.train([text], 500).pieces("the world")[0] == "▁the"


@pytest.mark.slow
def test_one_very_long_string_is_told_to_be_split():
    """Not the size is to blame, whichever it is: as lines the same text trains."""
    lines = [line for line in corpora.sentence_pairs("train")["ja"][:4000] if not re.search("[ \u3000]", line)]
    for size in (2300, 2600, 3000):
        with pytest.raises(ValueError, match=r"^texts: one has 80,538 characters without a space.* split it") as error:
            tokenization.train(["\n".join(lines)], size, add_dummy_prefix=False)
        assert "vocab_size" not in str(error.value)
    assert tokenization.train(lines, 2600, add_dummy_prefix=False).vocab_size == 2600
    with pytest.raises(ValueError, match=r"vocab_size=9000 does not fit.*Of the texts one has 43,721 characters"):
        tokenization.train(["\n".join(lines[:2000])], 9000, add_dummy_prefix=False)


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
        (lambda: tokenization.train(["\n", "▅"], 300), "texts is empty"),
        (lambda: tokenization.train(["\r"], 300), "texts: SentencePiece finds no characters to learn from"),
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
        (lambda: SHIPPED["english-4k"].piece(2.5), "index=2.5; allowed is 0 to 3999"),
        (lambda: list(SHIPPED["english-4k"].stream([5, 4000])), r"ids has \[4000\]; allowed is 0 to 3999"),
        (lambda: list(SHIPPED["english-4k"].stream("56")), r"ids=\['5'\]; needed is a sequence of integers"),
        (lambda: SHIPPED["english-4k"].stream(5), "ids=5; needed are integers"),
        (lambda: SHIPPED["english-4k"].encode("ab\ud800"), "text has a lone surrogate, half a character, at 2"),
        (lambda: Tokenizer(b""), "model=b''; needed are the bytes"),
        (lambda: Tokenizer(b"garbage"), "model: its 7 bytes are not a SentencePiece model"),
        (lambda: tokenization.train("a long text in one string", 300), "texts is one string"),
        (lambda: tokenization.train(["a b", None], 300), "text=None is a NoneType"),
        (lambda: tokenization.train(["a b", "\ud800"], 300), "text has a lone surrogate"),
        (lambda: tokenization.train(["a b c"], 300, coverage=0.5), "coverage=0.5; allowed is 0.98 to 1"),
        (lambda: tokenization.train(["a b c"], 300, coverage=1.5), "coverage=1.5; allowed is 0.98 to 1"),
        (lambda: tokenization.train(["a b c"], 300.5), "vocab_size=300.5; it must be 1 or more, a whole number"),
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
