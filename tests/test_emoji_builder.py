"""The builder of the emoji: names, classes, and pictures that are the same."""

import json

import numpy as np
import pytest

from builders import emoji, emoji_names, emoji_pictures, emoji_tables
from course_lib import corpora


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8).repeat(4, 0).repeat(4, 1)


def row(base: str, label: str = "sign") -> dict:
    return {"base": base, "label": label}


def test_the_package_knows_the_classes_and_vendors_of_the_builder():
    assert list(emoji_tables.SUBGROUPS) == list(corpora.EMOJI_CLASSES)
    assert set(emoji.VENDORS) == set(corpora.EMOJI_VENDORS)
    assert set(emoji_tables.MOVED) <= set(emoji_tables.SUBGROUPS)


def test_alike_finds_what_a_person_cannot_tell_apart():
    a, b = picture(0), picture(1)
    near = (a.astype(int) + np.where(a > 128, -3, 3)).astype(np.uint8)
    assert emoji_pictures.alike(np.stack([a, b, near]), np.stack([a, b, near])) == [(0, 2)]
    assert emoji_pictures.alike(np.stack([a, near]), np.stack([a, near]), threshold=3.0) == []
    turned = list(emoji_pictures.turns(np.stack([a])))
    assert len({t.tobytes() for t in turned}) == 8
    assert np.array_equal(turned[0][0], a)


def test_doubles_go_and_mirrored_copies_share_a_base():
    a, b, c = picture(0), picture(1), picture(2)
    rows = [row("a"), row("b"), row("x"), row("c"), row("d")]
    kept = emoji.without_doubles(rows, np.stack([a, b, a, c, np.rot90(b[:, ::-1])]))
    assert [r["base"] for r in kept] == ["a", "b", "c", "b"]


def test_what_is_gone_takes_nothing_with_it():
    """The third is like the second, which is like the first; it is not like the first, and stays."""
    grey = [np.full((32, 32, 3), level, np.uint8) for level in (100, 106, 112)]
    assert [r["base"] for r in emoji.without_doubles([row("a"), row("b"), row("c")], np.stack(grey))] == ["a", "c"]


def test_a_cap_keeps_whole_bases(monkeypatch):
    monkeypatch.setattr(emoji, "AT_MOST", 5)
    rows = [row(base) for base in "aabbbccdd"] + [row("e", "food")]
    kept = emoji.capped(rows)
    signs = [r["base"] for r in kept if r["label"] == "sign"]
    assert 4 <= len(signs) <= 5
    assert all(signs.count(base) == sum(r["base"] == base for r in rows) for base in signs)
    assert row("e", "food") in kept


def test_colours_are_rounded_and_stored_without_loss():
    import io

    from PIL import Image

    a = picture(3)
    a[0, 0], a[0, 1] = 255, 0
    rounded = emoji_pictures.rounded(a)
    assert np.abs(rounded.astype(int) - a).max() <= 2
    assert (rounded[0, 0] == 255).all()
    assert (rounded[0, 1] == 0).all()
    assert len(np.unique(emoji_pictures.rounded(np.arange(256)))) == 64
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(emoji_pictures.webp(rounded)))), rounded)


def test_classes_leave_out_variants_and_refuse_names_that_do_not_exist(monkeypatch):
    monkeypatch.setattr(emoji_names, "MOVED", {"sign": ("stop sign",)})
    monkeypatch.setattr(emoji_names, "DROPPED", {"why": ("skull",)})
    subgroups = {"0": "person-role", "1": "face-negative", "2": "transport-ground"}
    people = [
        ("🧑‍🍳", "cook", 0), ("👨‍🍳", "man cook", 0), ("🧙", "mage", 0), ("🧙‍♀️", "woman mage", 0), ("💀", "skull", 1),
        ("😠", "angry face", 1), ("🛑", "stop sign", 2), ("🚗", "automobile", 2),
    ]  # fmt: skip
    emojis = [{"emoji": e, "label": label, "subgroup": g} for e, label, g in people]
    assert emoji_names.classified(emojis, subgroups) == {
        "🧑‍🍳": "person", "🧙": "person", "😠": "smiley", "🛑": "sign", "🚗": "vehicle",
    }  # fmt: skip
    monkeypatch.setattr(emoji_names, "DROPPED", {"why": ("no such thing",)})
    with pytest.raises(ValueError, match="no such thing"):
        emoji_names.classified(emojis, subgroups)


def test_labels_name_before_short_codes_and_plus_one_is_no_digit(tmp_path):
    for folder in ("meta", "en/shortcodes", *emoji_names.NAMED_BY_CHARACTER):
        (tmp_path / folder).mkdir(parents=True)
    files = {"meta/unicode-names.json": {"1F44D": "THUMBS UP SIGN"}}
    files |= {f"{vendor}/chars.json": {"1f44d": "thumb"} for vendor in emoji_names.NAMED_BY_CHARACTER}
    files |= {f"en/shortcodes/{kind}.json": {"1F44D": ["+1", "yes"]} for kind in emoji_names.SHORTCODES}
    files["en/shortcodes/cldr.json"] = {"263A-FE0F": "thumb", "1F600": "not_wanted"}
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content), "utf-8")
    sets = {vendor: tmp_path / vendor for vendor in emoji_names.NAMED_BY_CHARACTER}
    emojis = [{"label": "thumbs up", "emoji": "👍"}, {"label": "smiling face", "emoji": "☺\ufe0f"}]
    table = emoji_names.names(tmp_path, sets, emojis)
    assert {name: character for name, (_, character) in table.items()} == {
        "thumbsup": "👍", "smilingface": "☺", "thumb": "👍", "thumbsupsign": "👍", "yes": "👍",
    }  # fmt: skip
    assert table["thumbsup"][0] < table["thumb"][0] < table["thumbsupsign"][0] < table["yes"][0]


def test_drawings_take_the_best_name_and_no_mirrored_alias(tmp_path):
    icons = {
        "icons": {
            "thumbs-up": {"body": "<b/>", "width": 9}, "plus1": {"body": "<a/>"}, "old": {"body": "", "hidden": True},
        },
        "aliases": {"left": {"parent": "thumbs-up", "hFlip": True}, "smile": {"parent": "plus1"}},
        "height": 7,
    }  # fmt: skip
    (tmp_path / "icons.json").write_text(json.dumps(icons), "utf-8")
    table = {"thumbsup": (0, "👍"), "plus1": (5, "👍"), "left": (0, "👈"), "smile": (0, "🙂"), "old": (0, "🧓")}
    found = emoji_names.drawings("noto", tmp_path, table)
    assert set(found) == {"👍", "🙂"}
    assert 'viewBox="0 0 9 7"><b/></svg>' in found["👍"]
    assert 'viewBox="0 0 16 7"><a/></svg>' in found["🙂"]
