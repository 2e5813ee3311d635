"""The cards: one for every set, and data/README.md is what the code writes."""

import inspect
import os
import re
import subprocess
import sys

import pytest

from course_lib import corpora
from course_lib.corpora import __main__ as command
from course_lib.corpora import cards
from course_lib.paths import checksums
from tests.conftest import ROOT
from tests.corpora.sets import MADE, shared

SETS = {
    name
    for name in corpora.__all__
    if inspect.isfunction(getattr(corpora, name))
    and "Dataset" in str(inspect.signature(getattr(corpora, name)).return_annotation)
}


def test_every_set_has_a_card():
    assert {*cards.SHIPPED, *cards.FULL} == SETS


@pytest.mark.slow
def test_the_readme_is_what_the_code_writes(monkeypatch):
    for name, make in MADE.items():
        monkeypatch.setattr(corpora, name, make)
    monkeypatch.setattr(cards, "shared_shingles", lambda train, held_out: shared(tuple(train), tuple(held_out)))
    assert (ROOT / "data" / "README.md").read_text("utf-8") == cards.readme()


def test_every_file_has_a_licence_and_an_origin():
    sources = (ROOT / "data" / "SOURCES.md").read_text("utf-8")
    sections = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", sources, re.MULTILINE))
    for name in checksums():
        (body,) = [body for title, body in sections.items() if name in title.split(", ")]
        assert re.search(r"Licences?: \S", body), name
        assert re.search(r"Source: |trained on", body), name
    for name, about in cards.SHIPPED.items():
        if about.file:
            assert about.file in checksums()
            assert all(word in sections[about.file] for word in re.split(", | and ", about.licence)), name


def test_one_card(capsys):
    command.main(["capitals"])
    printed = capsys.readouterr().out
    assert printed == cards.card("capitals")
    assert "| all | 221 | - |" in printed
    assert "Licence: MIT. File: `data/capitals.csv`, 4 kB." in printed
    with pytest.raises(SystemExit, match="error: name='moby'; there are cards for speeches") as caught:
        command.main(["moby"])
    assert str(caught.value).count("fashion_mnist") == 1


@pytest.mark.slow
def test_the_command_prints_japanese_whatever_the_terminal_speaks():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "course_lib.corpora", "neko"], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "吾輩は猫である" in done.stdout.decode("utf-8")


def test_a_set_that_is_not_shipped_says_how_to_get_it():
    card = cards.card("cifar10")
    assert "`full=True` downloads it: about 145 MB" in card
    assert "<https://" in card


def test_long_values_are_cut():
    assert cards._short("x\ny") == "x ⏎ y"
    assert cards._short("x" * 500) == "x" * 160 + " …"
