"""Lesson 06: what its prose says is in the saved outputs."""

import re

import nbformat
import numpy as np
import pytest

from course_lib import tokenization
from course_lib.experiments import load
from course_lib.lessons.tokenizer_training.study_plots import sizes_of
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def saved():
    """What the saved notebook printed, tables too, and its prose as one line."""
    notebook = nbformat.read(ROOT / "notebooks" / "06_tokenizer_training.ipynb", as_version=4)
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    printed = "\n".join(o.get("text", "") + o.get("data", {}).get("text/html", "") for o in outputs)
    prose = " ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return printed, re.sub(r"\s+", " ", prose)


def test_the_widget_opens_on_more_tokens_than_characters(saved):
    rows = re.findall(r"^(ja|en) +([\d,]+) pieces: +([\d.]+) characters a token, +([\d.]+) bits", saved[0], re.M)
    assert len(rows) == 8
    for language in ("ja", "en"):  # "Both improve all the way"
        lengths, bits = ([float(row[i]) for row in rows if row[0] == language] for i in (2, 3))
        assert lengths == sorted(lengths)
        assert bits == sorted(bits, reverse=True)
    assert float(rows[0][2]) < 1  # "with 300 pieces the sentence has more tokens than characters"


def test_the_merges_by_hand(saved):
    assert re.search(r"u \+ g: 20 times +h \+ ug: 15 times +p \+ u: 12 times", saved[0])
    assert 10 + 5 + 5 == 20
    assert "together 20" in saved[1]
    assert "stands 15 times" in saved[1]


def test_the_oracles_agree(saved):
    assert "0 of 2,000 merges differ" in saved[0]
    assert re.search(r"^0 of \d+ held-out sentences are cut differently", saved[0], re.M)
    assert "300 of 300 best cuts are equal" in saved[0]
    assert float(re.search(r"eight best differ by at most (\S+) nats", saved[0])[1]) < 1e-4


def test_kept_counts_are_faster_and_more_so_for_more_merges(saved):
    found = re.findall(r"^([\d,]+) merges: ([\d.]+) s; counting again each time ([\d.]+) s", saved[0], re.M)
    few, many = (float(slow) / float(fast) for _, fast, slow in found)
    assert few > 5
    assert many > 2 * few  # "The gap grows"


def test_the_small_example(saved):
    assert "a|b: -3.219   ab: -2.996   sum of both: 0.09" in saved[0]
    assert "0.05 against 0.4 · 0.1 = 0.04" in saved[1]


def test_which_strings_became_one_piece(saved):
    asked = dict(re.findall(r"^(\S+): [\d,]+ times, (one piece|split)$", saved[0], re.M))
    count = {word: int(n.replace(",", "")) for word, n in re.findall(r"^(\S+): ([\d,]+) times, ", saved[0], re.M)}
    whole = {word for word, became in asked.items() if became == "one piece"}
    assert {"して", "から", "ている", "ます", "ことができる"} <= whole
    assert {word for word in asked if word not in whole} == {"自然言語処理", "ソフトウェア"}
    assert count["ソフトウェア"] == 1  # "the corpus has it once"
    cut = tokenization.load("japanese-8k").pieces("そのソフトウェアは多くのユーザーから賛同を得ている。")
    assert cut[1:7] == list("ソフトウェア")  # "is six pieces"
    assert "equal to the shipped japanese-8k, byte by byte: True" in saved[0]


def test_bpe_joins_a_particle_where_unigram_does_not(saved):
    lines = {kind: re.findall(rf"^{kind} \(\d+\): (.*)$", saved[0], re.M) for kind in ("unigram", "bpe")}
    for sentence, piece in enumerate(("理を", "を得")):  # "BPE made 理を and を得"
        assert piece in lines["bpe"][sentence].split()
        assert piece not in lines["unigram"][sentence].split()
        assert "を" in lines["unigram"][sentence].split()
    joined = {kind: int(n) for kind, n in re.findall(r"^(\w+): (\d+)% of all を are joined", saved[0], re.M)}
    assert joined == {"unigram": 59, "bpe": 75}
    assert "BPE joins 75 % of them, unigram 59 %" in saved[1]


def test_what_is_lost_and_what_comes_back(saved):
    rows = re.findall(r"^(.+?) +SentencePiece's defaults: (.+?) +ours: (.+)$", saved[0], re.M)
    assert len(rows) == 9
    for text, default, ours in rows:
        assert default != text
        assert ours == ("'ハンカク 1'" if "①" in text else "'a b'" if "▁" in text else text)
    assert "text has a lone surrogate, half a character" in saved[0]


def test_the_card_of_a_foreign_vocabulary(saved):
    row = re.search(
        r"<th>characters a token</th>\s*<td>([\d.]+)</td>\s*<td>([\d.]+)</td>\s*<td>([\d.]+)</td>", saved[0]
    )
    assert 1 / float(row[3]) == pytest.approx(3, abs=0.1)  # "a character costs three tokens"
    spelled = re.search(r"<th>tokens that are bytes</th>(?:\s*<td>([\d.]+)%</td>){3}", saved[0])
    assert float(spelled[1]) > 85  # "nearly every token is a byte"


def test_claims_of_the_pitfalls(saved):
    printed, _ = saved
    share, longer = re.search(
        r"^(\d+)% of the sentences are cut differently, with \+([\d.]+)% tokens", printed, re.M
    ).groups()
    assert int(share) > 30
    assert float(longer) > 1
    apart = re.findall(r"^(.+?) +together: (.+)$", printed, re.M)
    assert len(apart) == 2
    assert all(a != b for a, b in apart)
    assert "▁ | ▁studying" in apart[0][0]  # "a lone ▁, then a second one"
    small, large = re.findall(r"pieces: perplexity +(\d+) a token, ([\d.]+) bits a character", printed)
    assert int(small[0]) < int(large[0])  # "By perplexity the small vocabulary is much better"
    assert float(small[1]) > float(large[1])  # "by bits a character it is worse"
    clean, leaky = re.findall(
        r"^trained on \w+ *: ([\d.]+) characters a token on the test set, ([\d.]+)", printed, re.M
    )
    assert float(leaky[0]) > float(clean[0])  # "The second looks better in both"
    assert float(leaky[1]) < float(clean[1])


def test_claims_about_the_study_of_sizes(saved):
    sizes = sizes_of(load("vocabulary_size"))
    for language, most in (("en", 16000), ("ja", 8000)):
        bpe = sizes[language, "bpe"]
        assert bpe.size.tolist() == [500, 2000, 8000, 16000]
        assert bpe.best == 2000  # "2,000 pieces, in both languages"
        worse = bpe.mean / bpe.mean.min()
        assert worse[0] > 1.07
        assert worse[3] > 1.03
        assert (np.diff(bpe.unigram) < 0).all()  # "The table of section 1 would have chosen 16,000"
        assert bpe.size[bpe.bigram.argmin()] == most  # "the table of pairs 8,000 or more"
        assert bpe.mean.min() < 0.96 * bpe.bigram.min()
        assert bpe.mean[1] < 0.88 * bpe.bigram[1]
        unigram = sizes[language, "unigram"]
        assert unigram.mean[0] == pytest.approx(bpe.mean[1], rel=0.02)
    assert (sizes["ja", "bpe"].mean > sizes["ja", "bpe"].bigram).tolist() == [False, False, True, True]
    runs = load("vocabulary_size")["arms"]
    bits = {
        lang: np.mean([r["metrics"]["bits_per_sentence"] for r in runs if r["name"] == f"{lang} bpe 2000"])
        for lang in ("en", "ja")
    }
    assert bits["ja"] / bits["en"] == pytest.approx(1.10, abs=0.005)
