"""Ten classes of emoji as seven families of drawings show them, rendered from their SVG."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from builders.emoji_names import NAMED_BY_CHARACTER, SHORTCODES, bare, classified, drawings, names, read_json
from builders.emoji_pictures import alike, render, rounded, turns, webp
from builders.emoji_tables import SUBGROUPS
from builders.packages import npm
from course_lib.paths import shipped, whole_or_nothing

# In this order one drawing of several that look alike is kept.
VENDORS = {
    "noto": ("1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"),
    "twemoji": ("1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"),
    "fluent-emoji": ("1.2.7", "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b"),
    "fluent-emoji-flat": ("1.2.6", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175"),
    "emojione": ("1.2.3", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e"),
    "noto-v1": ("1.2.5", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37"),
    "fxemoji": ("1.2.2", "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef"),
}
EMOJIBASE = ("17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a")
COLUMNS = ("image", "label", "vendor", "base", "name_en", "name_ja")
AT_MOST = 800  # pictures of a class
FLAT = 10.0  # standard deviation, of 255, below which a picture shows nothing


def without_doubles(rows: list[dict], pictures: np.ndarray) -> list[dict]:
    """The rows, one of each group that looks alike; a drawing that is another's mirrored or turned copy shares its
    `base`, so that no split comes between an arrow to the left and one to the right."""
    gone: set[int] = set()
    for i, j in alike(pictures, pictures):
        if i not in gone:
            gone.add(j)
    kept = [i for i in range(len(rows)) if i not in gone]
    parent = {row["base"]: row["base"] for row in rows}

    def root(base: str) -> str:
        return base if parent[base] == base else root(parent[base])

    for turned in list(turns(pictures[kept]))[1:]:
        for i, j in alike(pictures[kept], turned):
            one, two = root(rows[kept[i]]["base"]), root(rows[kept[j]]["base"])
            parent[max(one, two)] = min(one, two)
    return [rows[i] | {"base": root(rows[i]["base"])} for i in kept]


def capped(rows: list[dict]) -> list[dict]:
    """At most AT_MOST pictures a class: whole bases, in the order of a hash, as long as they fit."""
    chosen = set()
    for name in SUBGROUPS:
        sizes = Counter(row["base"] for row in rows if row["label"] == name)
        total = 0
        for base in sorted(sizes, key=lambda b: hashlib.sha256(b.encode()).digest()):
            if total + sizes[base] <= AT_MOST:
                chosen.add((name, base))
                total += sizes[base]
    return [row for row in rows if (row["label"], row["base"]) in chosen]


def emoji(folder: Path) -> list[Path]:
    """About 5,000 pictures of 32×32 pixels: one a row, with its class, its set, its base and its names."""
    members = ("en/data.json", "ja/data.json", "meta/groups.json", "meta/unicode-names.json")
    codes = tuple(f"en/shortcodes/{kind}.json" for kind in SHORTCODES)
    root = npm("emojibase-data", *EMOJIBASE, folder, *(f"package/{m}" for m in members + codes)) / "package"
    sets = {}
    for vendor, (version, digest) in VENDORS.items():
        files = ["icons.json"] + ["chars.json"] * (vendor in NAMED_BY_CHARACTER)
        sets[vendor] = npm(f"@iconify-json/{vendor}", version, digest, folder, *(f"package/{f}" for f in files))
        sets[vendor] /= "package"
    emojis = sorted((e for e in read_json(root / "en/data.json") if "order" in e), key=lambda e: e["order"])
    japanese = {bare(e["emoji"]): e["label"] for e in read_json(root / "ja/data.json")}
    classes = classified(emojis, read_json(root / "meta/groups.json")["subgroups"])
    table = names(root, sets, emojis)
    rows = []
    for vendor, path in sets.items():
        documents = drawings(vendor, path, table)
        for order, e in enumerate(emojis):
            character = bare(e["emoji"])
            if character in classes and character in documents:
                rows.append({
                    "image": render(documents[character]), "label": classes[character], "vendor": vendor,
                    "base": character, "name_en": e["label"], "name_ja": japanese[character], "order": order,
                })  # fmt: skip
    rows = [row for row in rows if row["image"].std() >= FLAT]
    rows = capped(without_doubles(rows, np.stack([row["image"] for row in rows])))
    rows.sort(key=lambda row: (list(SUBGROUPS).index(row["label"]), row.pop("order")))  # then as VENDORS
    target = shipped("data") / "emoji10.parquet"
    with whole_or_nothing(target) as path:
        write(rows, path)
    return [target, shipped("data") / "licences" / "Apache-2.0.txt"]


def write(rows: list[dict], path: Path) -> None:
    """The rows as Parquet, pictures as lossless WebP."""
    stored = [row | {"image": webp(rounded(row["image"]))} for row in rows]
    schema = pa.schema([(k, pa.binary() if k == "image" else pa.string()) for k in COLUMNS])
    pq.write_table(pa.Table.from_pylist(stored, schema), path, compression="zstd", write_statistics=False)
