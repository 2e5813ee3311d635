"""Lesson 06: tiles, cuts, merges, lattices and maps against brute force; what the widgets show is computed."""

import re
from itertools import pairwise

import numpy as np
import pytest

from course_lib import corpora, tokenization
from course_lib.lessons.tokenizer_training.cut_frame import SENTENCES, Vocabularies, cut_view, plot_cut
from course_lib.lessons.tokenizer_training.cut_widget import cut_panel
from course_lib.lessons.tokenizer_training.drawing import plot_pipeline
from course_lib.lessons.tokenizer_training.frequency_map import (
    LEAST,
    frequency_map,
    plot_frequency_map,
    string_counts,
    vocabulary,
)
from course_lib.lessons.tokenizer_training.lattice_plot import lattice_view, plot_lattice
from course_lib.lessons.tokenizer_training.merge_frame import merge_steps, merge_view, plot_merges
from course_lib.lessons.tokenizer_training.merge_widget import merge_panel
from course_lib.lessons.tokenizer_training.study_plots import plot_sizes, sizes_of
from course_lib.tokenization.bpe import BPE
from course_lib.tokenization.measures import measure
from course_lib.tokenization.unigram import Unigram
from course_lib.viz import plots
from course_lib.viz.animate import png
from course_lib.viz.tiles import colours, label, lines_of, width

FEW = Vocabularies(n_sentences=1500, n_held_out=100)
ABC = BPE(("ab", "abc", "zz", "▁abc"), True, (9, 4, 3, 2))


@pytest.fixture(autouse=True)
def _style():
    plots.use_house_style()


def title(figure):
    """The headline of a figure."""
    return figure.get_suptitle()


def test_tiles_name_bytes_and_neighbours_differ():
    pieces = ["<0xE7>", "の", "は", "の", "a", "b", "c", "d", "の", "の", "<0x8A>"]
    assert [label(p) for p in ("<0xE7>", "\n", "a$b", "の")] == ["E7", "⏎", r"a\$b", "の"]
    assert width("の") > width("a")
    found = colours(pieces)
    assert found[0] == found[-1] == plots.GREY
    assert found[1] == found[3]
    assert all(a != b for a, b in pairwise(found))
    lines = lines_of(pieces, 8)
    assert [number for line in lines for number in line] == list(range(len(pieces)))
    assert all(sum(width(pieces[n]) for n in line) <= 8 or len(line) == 1 for line in lines)


def test_the_drawing_shows_a_real_cut():
    texts = [text.get_text() for text in plot_pipeline().axes[0].texts]
    pieces = tokenization.load("japanese-8k").pieces("ﾃﾞｰﾀ 10 MB")
    assert "|".join(pieces) in texts
    assert "ids (B, T)" in texts


def test_a_cut_is_the_vocabularys_and_its_title_counts():
    view = cut_view(FEW, "Japanese", 300, "bpe", SENTENCES["ja"])
    tokenizer, found = FEW.get("ja", "bpe", 300)
    assert view.pieces == tuple(tokenizer.pieces(SENTENCES["ja"]))
    assert view.measures == found
    assert len(view.pieces) > view.characters  # the surprising state
    assert f"17 characters become {len(view.pieces)} tokens" in title(plot_cut(view))
    assert f"{found.bits_per_character:.2f} bits" in view.text()
    shown = [text.get_text() for text in plot_cut(view).axes[0].texts]
    assert shown == [label(piece) for piece in view.pieces]


def test_what_cannot_be_cut_is_told():
    for text, words in (("", "text has 0 characters"), ("a" * 121, "text has 121")):
        with pytest.raises(ValueError, match=words):
            cut_view(FEW, "English", 300, "bpe", text)
    with pytest.raises(ValueError, match="language="):
        cut_view(FEW, "Latin", 300, "bpe", "a")
    with pytest.raises(ValueError, match="does not fit"):
        cut_view(FEW, "English", 16000, "unigram", "a")


@pytest.mark.slow
def test_the_widget_of_cuts():
    panel = cut_panel(FEW)
    assert panel.shown == cut_view(FEW, "Japanese", 300, "bpe", SENTENCES["ja"])
    panel.controls["language"].value = "English"
    assert panel.controls["text"].value == SENTENCES["en"]
    panel.controls["vocab_size"].value = 1000
    want = cut_view(FEW, "English", 1000, "bpe", SENTENCES["en"])
    assert panel.shown == want
    assert png(panel.figure()) == png(plot_cut(want))
    panel.controls["text"].value = "My own words"
    panel.controls["language"].value = "Japanese"
    assert panel.controls["text"].value == "My own words"
    panel.controls["text"].value = ""
    assert "write 1 to" in panel.figure().axes[0].texts[0].get_text()


def test_merges_that_change_a_text():
    steps = merge_steps(ABC, "abc")
    assert [(s.when, s.piece, s.count) for s in steps] == [(1, "ab", 9), (2, "abc", 4), (4, "▁abc", 2)]
    assert [s.cut for s in steps] == [("▁", "ab", "c"), ("▁", "abc"), ("▁abc",)]
    view = merge_view(ABC, "abc", 2)
    assert (view.start, len(view.steps), view.left) == (("▁", "a", "b", "c"), 2, 1)
    assert "merge 2: “abc”" in view.text()
    assert "4 times" in view.text()
    assert "no merge yet: 4 characters" in merge_view(ABC, "abc", 0).text()
    assert "After 2 of 3 merges: 2 tokens" in title(plot_merges(view))
    shown = [text.get_text() for text in plot_merges(view).axes[0].texts]
    assert shown[-3:] == ["▁", "abc", "merge 2 · seen 4×"]
    with pytest.raises(ValueError, match="text has 41"):
        merge_view(ABC, "a" * 41, 1)


def test_the_widget_of_merges():
    panel = merge_panel({"letters": (ABC, "abc"), "z": (BPE(("zz",), True, (3,)), "zz")})
    assert panel.controls["step"].max == 3
    assert panel.shown == merge_view(ABC, "abc", 3)
    panel.controls["step"].value = 1
    assert panel.shown == merge_view(ABC, "abc", 1)
    panel.controls["language"].value = "z"
    assert panel.controls["text"].value == "zz"
    assert panel.shown.steps[-1].piece == "zz"
    with pytest.raises(ValueError, match="trained is empty"):
        merge_panel({})


def test_the_lattice_is_drawn_as_it_is():
    unigram = Unigram(tokenization.load("japanese-8k"))
    view = lattice_view(unigram, "勉強しています。")
    lattice = unigram.lattice("勉強しています。")
    assert view.best == lattice.best()
    assert f"{lattice.count():,} ways" in title(plot_lattice(view))
    assert sum(share for edge, share in view.shares.items() if edge.end == 8) == pytest.approx(1)
    assert len(plot_lattice(view).axes[0].patches) == len(view.shares)
    for text, words in (("", "text has 0"), ("あ" * 25, "text has 25")):
        with pytest.raises(ValueError, match=words):
            lattice_view(unigram, text)


def test_counts_of_strings_are_those_of_brute_force():
    texts = ["ababab", "bab ab", "abab\0abab", "ba"] * 2
    counts = string_counts(texts, (2, 3, 4))
    clean = [text.replace("\0", "") for text in texts]
    for length in (2, 3, 4):
        every = [text[i : i + length] for text in clean for i in range(len(text) - length + 1)]
        want = {string: every.count(string) for string in every if every.count(string) >= LEAST}
        assert {string: n for string, n in counts.items() if len(string) == length} == want


def test_the_map_has_shares_of_the_strings():
    counts = {"ab": 5, "cd": 6, "ef": 7, "abc": 9, "xyz": 40}
    view = frequency_map(counts, {"ab", "xyz"}, {"ab": 5, "q": 0})
    assert view.share[0, 0] == pytest.approx(1 / 3)
    assert view.strings[0, 0] == 3
    assert np.isnan(view.share[0, 2])
    assert view.marked == {"ab": (5, True), "q": (0, False)}
    figure = plot_frequency_map(view)
    assert figure.axes[0].get_xlabel() == "times in the corpus"
    assert "勉強" in vocabulary(tokenization.load("japanese-8k"))


def record(seeds=3, best=2000):
    """A record as the study writes it, with made-up numbers."""
    arms = []
    for language in ("en", "ja"):
        for kind, size in (("bpe", 500), ("bpe", 2000), ("bpe", 8000), ("unigram", 2000)):
            for seed in range(seeds):
                bits = 2.0 + 0.1 * abs(np.log2(size / best)) + 0.01 * seed
                metrics = {"bits_per_character": bits, "bigram_bits_per_character": 2.5,
                           "unigram_bits_per_character": 4.0, "characters_per_token": 2.0}  # fmt: skip
                config = {"language": language, "model_type": kind, "vocab_size": size}
                arms.append({"name": f"{language} {kind} {size}", "seed": seed, "config": config, "metrics": metrics})
        arms.append({"config": {"language": language}, "metrics": {"fertility": 1.0}})  # no model was trained
    return {"arms": arms}


def test_the_studys_figure():
    found = sizes_of(record())
    bpe = found["en", "bpe"]
    assert bpe.size.tolist() == [500, 2000, 8000]
    assert bpe.best == 2000
    assert bpe.mean[1] == pytest.approx(2.01)
    assert bpe.high[1] - bpe.mean[1] == pytest.approx(4.303 * 0.01 / 3**0.5, rel=1e-3)
    assert "English 2,000, Japanese 2,000" in title(plot_sizes(found))
    assert [ax.get_title(loc="left") for ax in plot_sizes(found).axes] == ["English", "Japanese"]
    assert sizes_of(record(best=8000))["ja", "bpe"].best == 8000
    with pytest.raises(ValueError, match="no trained arm"):
        sizes_of({"arms": []})
    with pytest.raises(ValueError, match=r"values has shape \(1,\); needed are 2"):
        sizes_of(record(seeds=1))
    with pytest.raises(ValueError, match="needed is a language with bpe"):
        plot_sizes({("en", "unigram"): bpe})


def test_no_title_is_wider_than_its_figure():
    for figure in (plot_pipeline(), plot_sizes(sizes_of(record()))):
        assert figure.get_figwidth() <= plots.MAX_WIDTH
        assert max(map(len, re.split("\n", title(figure)))) <= 110


def test_a_count_at_an_edge_is_in_the_bin_that_it_begins():
    view = frequency_map({"ab": 4, "cd": 8, "ef": 16}, {"cd"}, {})
    assert view.strings[0].tolist() == [1, 1, 1]
    assert view.share[0].tolist() == [0, 1, 0]


def test_first_row_has_no_space_where_there_is_no_prefix():
    assert merge_view(BPE(("ab",), False, (2,)), "abc", 0).start == ("a", "b", "c")


def test_measures_are_of_held_out_sentences():
    for language, prefix in (("ja", False), ("en", True)):
        tokenizer, found = FEW.get(language, "bpe", 300)
        train, held = (corpora.sentence_pairs(split)[language] for split in ("train", "validation"))
        assert found == measure(tokenizer.pieces, 300, train[:1500], held[:100])
        assert tokenizer.pieces("\n")[0].startswith("▁") == prefix


def test_alpha_reaches_the_picture():
    unigram = Unigram(tokenization.load("japanese-8k"))
    assert lattice_view(unigram, "勉強しています。", 0.5).shares == unigram.lattice("勉強しています。").marginals(0.5)


def test_columns_of_the_study_are_not_mixed_up():
    bpe = sizes_of(record())["en", "bpe"]
    assert (bpe.bigram[0], bpe.unigram[0], bpe.characters[0]) == (2.5, 4.0, 2.0)


def test_a_long_text_is_refused_before_its_merges_are_sought():
    panel = merge_panel({"letters": (ABC, "abc")})
    panel.controls["text"].value = "abc" * 3334
    assert "write 1 to 40" in panel.figure().axes[0].texts[0].get_text()
    assert panel.controls["step"].max == 3
