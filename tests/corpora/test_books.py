"""The larger English texts: counts, splits by group, clean characters, no leaks, and the builders' own parts."""

import re
import unicodedata
from collections import Counter

import pytest

from builders import books, factbook, files, manuals, pages
from course_lib import corpora, paths
from course_lib.corpora.documents import shared_shingles

# name -> rows and words in train, validation, test
COUNTS = {
    "books": [(392, 1_509_116), (27, 148_436), (34, 138_570)],
    "manuals": [(849, 1_022_753), (113, 146_627), (64, 66_611)],
    "factbook": [(199, 146_588), (25, 16_345), (25, 19_809)],
}
PART = {"books": "kind", "manuals": "manual"}
SETS = {(name, split): getattr(corpora, name)(split) for name in COUNTS for split in corpora.SPLITS}


def rows(name):
    return [row for split in corpora.SPLITS for row in SETS[name, split]]


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name):
    found = [(len(s), sum(len(text.split()) for text in s["text"])) for s in (SETS[name, x] for x in corpora.SPLITS)]
    assert found == COUNTS[name]
    with pytest.raises(ValueError, match="split='dev'; allowed are 'train', 'validation', 'test'"):
        getattr(corpora, name)("dev")


@pytest.mark.parametrize("name", COUNTS)
def test_no_document_and_no_group_is_in_two_splits(name):
    names = [row["name"] for row in rows(name)]
    assert len(names) == len(set(names))
    if name in PART:
        groups = [set(SETS[name, split]["group"]) for split in corpora.SPLITS]
        assert sum(map(len, groups)) == len(set.union(*groups))
        parts = [set(SETS[name, split][PART[name]]) for split in corpora.SPLITS]
        assert parts[0] == parts[1] == parts[2]


def test_no_novel_and_no_cycle_of_plays_straddles():
    groups = {split: set(SETS["books", split]["group"]) for split in corpora.SPLITS}
    assert groups["validation"] == {"Persuasion", "Othello", "Pericles", "The Two Gentlemen of Verona"}
    assert groups["test"] == {"Northanger Abbey", "Macbeth", "Much Ado about Nothing", "Titus Andronicus"}
    chapters = Counter(row["group"] for row in rows("books") if row["kind"] == "novel")
    assert chapters == {
        "Sense and Sensibility": 50, "Pride and Prejudice": 61, "Mansfield Park": 48, "Emma": 55, "Moby-Dick": 136,
        "Northanger Abbey": 31, "Persuasion": 24, "Alice's Adventures in Wonderland": 12,
    }  # fmt: skip
    falstaff = {row["group"] for row in rows("books") if row["kind"] == "play" and row["text"].count("FALSTAFF") > 5}
    assert falstaff == {"The Wars of the Roses"}


@pytest.mark.parametrize(
    ("name", "split", "document", "sentence"),
    [
        ("books", "train", "Pride and Prejudice, chapter 1", "It is a truth universally acknowledged, that a"),
        ("books", "train", "Moby-Dick, chapter 1", "Call me Ishmael. Some years ago—never mind how long precisely"),
        ("books", "train", "Alice's Adventures in Wonderland, chapter 1", "'and what is the use of a book,'"),
        ("books", "train", "Hamlet", "To be, or not to be,—that is the question:—\nWhether 'tis nobler in the mind"),
        ("books", "validation", "Persuasion, chapter 1", "never took up any book but the Baronetage; there he found"),
        ("books", "test", "Macbeth", "FIRST WITCH.\nWhen shall we three meet again?\nIn thunder"),
        ("manuals", "train", "PostgreSQL: mvcc-intro", "This means that each SQL statement sees a snapshot of data"),
        ("manuals", "train", "Rust: book/ch04-01-what-is-ownership", "Ownership is a set of rules that governs how a"),
        ("manuals", "validation", "SQLite: inmemorydb", "The database ceases to exist as soon as the database"),
        ("manuals", "test", "Python: tutorial/appetite", "you find that there's some task you'd like to automate."),
        ("factbook", "train", "Japan", "\nClimate: varies from tropical in south to cool temperate in north\n"),
    ],
)  # fmt: skip
def test_known_sentences_are_where_they_belong(name, split, document, sentence):
    (text,) = [row["text"] for row in SETS[name, split] if row["name"] == document]
    assert sentence in text


@pytest.mark.parametrize("name", COUNTS)
def test_every_text_is_clean(name):
    for row in rows(name):
        text = row["text"]
        assert text == text.strip()
        assert unicodedata.is_normalized("NFKC", text)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u200b\ufffd\ufeff\ue000-\uf8ff“”‘’]|  | \n|\n ", text), row
        assert not re.search(r"Gutenberg|\betext\b|://|\S@\S", text), row
        assert name == "manuals" or not re.search("[<>]", text), row  # a manual may speak of <b> and </b>
        assert name == "books" or not files.crude(text)


def test_books_have_no_marks_of_their_typists():
    for row in rows("books"):
        assert not re.search(r"[_*`{}@]|--|THE END$|^(?:CHAPTER|VOLUME)\b", row["text"], re.MULTILINE), row["name"]
        assert ("\n\n" in row["text"]) == (row["kind"] == "play")
    for row in rows("books"):
        if row["kind"] == "play":
            acts = re.findall(r"^ACT (?:[IV]+|\d|FIRST|SECOND|THIRD|FOURTH|FIFTH)\b", row["text"], re.MULTILINE | re.I)
            assert len({act.casefold() for act in acts}) == 5, row["name"]
            assert len(row["text"]) > 80_000


def test_a_paragraph_of_a_manual_is_running_text():
    for row in rows("manuals"):
        assert len(row["text"]) >= 1_000
        for line in row["text"].split("\n"):
            assert len(line.split()) >= 12, line
            assert re.search(r"[.?!][)\"']*$", line), line


@pytest.mark.slow
def test_nothing_leaks():
    """Fewer than 0.05 % of the 13-word runs of all held-out texts are in the training texts of any English set: less
    than 1 % for each set, since even the smallest has 7 % of the runs."""
    train = [*COUNTS, "speeches", "glosses", "python_code"]
    known = [text for name in train for text in getattr(corpora, name)("train")["text"]]
    held = [text for name in COUNTS for split in corpora.SPLITS[1:] for text in SETS[name, split]["text"]]
    held += [text for split in corpora.SPLITS[1:] for text in corpora.speeches(split)["text"]]
    assert shared_shingles(known, held) < 0.0005


def test_the_files_are_those_that_were_built():
    for name in COUNTS:
        assert paths.sha256(paths.verified(f"en_{name}.jsonl.xz")) == paths.checksums()[f"en_{name}.jsonl.xz"]


# --- the builders' own parts, on small inputs -------------------------------------------------------------------------


def test_a_novel_becomes_chapters_without_notes():
    first = "\n\n_One_ two--\nthree,\nfour.* `Five,' a well-\nknown man\n\n*Vide a letter.\n\n  *   *   *\n\nsix\n"
    note = "[At this point in the first edition,\nVolume 1 ends.]\n\n\n"
    second = "\n\nseven [later editions continued as follows\neight]\n\nnine\n\n    THE END\n"
    text = f"TITLE\n\nVOLUME I\n\n   CHAPTER I{first}{note}VOLUME II\n\nChapter 2{second}"
    assert books.novel(text) == ["One two—three, four. 'Five,' a well-known man\nsix", "seven eight\nnine"]


def test_a_play_begins_with_its_prologue_or_first_act():
    head = "HAMLET\n\nPERSONS.\n\nSCENE: In the first ACT of\n\n"
    text = "ACT I.\n\nScene I. Here.\n\n\n{Enter A.]\n\nA.\nWho--\n  he?\n@@@\n\nTHE END\n"
    assert books.play(head + text) == "ACT I.\n\nScene I. Here.\n\n[Enter A.]\n\nA.\nWho—\nhe?"
    assert books.play("X\n\nTHE PROLOGUE\n\nTwo houses\n\nAct 1.\n\nB.").startswith("THE PROLOGUE\n\nTwo houses")


LONG = "This sentence is long enough to count as a paragraph of running text"


def test_prose_of_a_page(tmp_path):
    page = tmp_path / "x.html"
    page.write_text(
        f"<head><title>{LONG}.</title></head><body><nav><p>{LONG} 0.</p></nav><div role=main><h1>{LONG} 1</h1>"
        f"<p>{LONG} <code>f(x)</code>&nbsp;2.<pre>{LONG} 3.</pre><p>{LONG} 4. Then type:<ul><li>Short item.<li>"
        f"{LONG} 5!<br>More.</ul><p>and {LONG} 6.<div><p>{LONG} 7 [1].</p></div><table><tr><td><p>{LONG} 8.</p></table>"
        f"<p>{LONG}, see https://a.b/c.<p>Syntax {LONG}.</div><p>{LONG} 9."
    )
    assert pages.paragraphs(page, ("role", "main")) == [
        f"{LONG} f(x) 2.", f"{LONG} 4.", f"{LONG} 5! More.", f"{LONG} 7.",
    ]  # fmt: skip
    assert pages.paragraphs(page)[-1] == f"{LONG} 9."


def test_repeats_are_left_out():
    one, two, three = ("".join(f"{word}{i} " for i in range(20)).strip() for word in "abc")
    documents = {"x": [one, one, two], "y": [three, f"and {two}"], "z": [two]}
    assert list(files.without_repeats(documents, shortest=1)) == [("x", f"{one}\n{two}"), ("y", three)]
    assert list(files.without_repeats(documents, shortest=len(one) + 5)) == [("x", f"{one}\n{two}")]


@pytest.mark.parametrize(
    ("page", "group"),
    [
        ("libpq-connect", "libpq"), ("lang_select", "lang"), ("book/ch12-03-modules", "book/ch12"), ("wal", "wal"),
        ("howto/logging-cookbook", "howto/logging"), ("reference/expressions/call-expr", "reference/expressions"),
    ],
)  # fmt: skip
def test_siblings_share_a_group(page, group):
    assert manuals.group(page) == group


def test_names_and_fields_of_countries():
    def names(short, long=""):
        forms = {"conventional short form": {"text": short}, "conventional long form": {"text": long}}
        return factbook.country({"Government": {"Country name": forms}})

    assert names("Japan", "none") == "Japan"
    assert names("none", "United Arab Emirates") == "United Arab Emirates"
    assert names("The Dominican", "Dominican Republic") == "Dominican Republic"
    assert names("Svalbard (sometimes referred to as Spitsbergen)") == "Svalbard"
    assert factbook.country({"Government": {}}) == ""
    profile = {
        "Introduction": {"Background": {"text": "Old.  ++ New."}},
        "Geography": {
            "Climate": {"text": "hot ++ cold"},
            "Terrain": {"text": None},
            "Geography - note": {"text": "NA"},
        },
        "Economy": {"Economy - overview": {"text": "Broken \ufffd."}},
    }
    assert factbook.fields(profile) == ["Background: Old. New.", "Climate: hot; cold"]
