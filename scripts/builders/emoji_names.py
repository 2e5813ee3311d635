"""From the names of emoji to their classes and their drawings."""

import json
import re
from pathlib import Path
from typing import Any

from builders.emoji_pictures import svg
from builders.emoji_tables import DROPPED, FXEMOJI, MOVED, SUBGROUPS

NAMED_BY_CHARACTER = ("noto", "twemoji", "fluent-emoji-flat")  # their packages carry chars.json
SHORTCODES = ("cldr", "github", "iamcal", "joypixels")


def read_json(path: Path) -> Any:
    """Content of a JSON file."""
    return json.loads(path.read_text("utf-8"))


def plain(name: str) -> str:
    """A name as letters and digits, the form that all sets share."""
    return re.sub("[^a-z0-9]", "", name.lower())


def bare(character: str) -> str:
    """An emoji without its variation selectors."""
    return character.replace("\ufe0f", "").replace("\ufe0e", "")


def of_hex(code: str) -> str:
    """The emoji of code points like 1F3C3-200D-2642."""
    return bare("".join(chr(int(part, 16)) for part in code.split("-")))


def classified(emojis: list[dict], subgroups: dict[str, str]) -> dict[str, str]:
    """Class of each emoji that has one. Of the men, the women and the neutral person that do one thing, and of the
    two directions they look in, the neutral one that looks left stays: the others are all but the same drawing."""
    labels = {e["label"] for e in emojis}
    named = {label for table in (MOVED, DROPPED) for group in table.values() for label in group}
    if named - labels:
        raise ValueError(f"the tables name emoji that do not exist: {sorted(named - labels)}")
    dropped = {label for group in DROPPED.values() for label in group}
    moved = {label: name for name, group in MOVED.items() for label in group}
    by_subgroup = {subgroup: name for name, group in SUBGROUPS.items() for subgroup in group}
    found = {}
    for e in emojis:
        label, character = e["label"], bare(e["emoji"])
        name = moved.get(label) or by_subgroup.get(subgroups.get(str(e.get("subgroup")), ""))
        variant = re.search("\u200d[\u2640\u2642\u27a1]|^[\U0001f468\U0001f469]\u200d", character)
        if name and label not in dropped and not (name == "person" and variant):
            found[character] = name
    return found


def names(root: Path, sets: dict[str, Path], emojis: list[dict]) -> dict[str, tuple[int, str]]:
    """Rank and emoji by plain name: today's labels first, then the sets' own names, Unicode's, and short codes."""
    wanted = {bare(e["emoji"]) for e in emojis}
    sources: list[list[tuple[str, str]]] = [[(e["label"], bare(e["emoji"])) for e in emojis]]
    for path in (*(sets[v] / "chars.json" for v in NAMED_BY_CHARACTER), root / "meta" / "unicode-names.json"):
        sources.append([(name, of_hex(code)) for code, name in read_json(path).items()])
    for kind in SHORTCODES:
        given = read_json(root / "en" / "shortcodes" / f"{kind}.json").items()
        sources.append([(n, of_hex(code)) for code, all_ in given for n in ([all_] if isinstance(all_, str) else all_)])
    table: dict[str, tuple[int, str]] = {}
    for rank, source in enumerate(sources):
        for name, character in source:
            if character in wanted and not plain(name).isdigit():  # the short code "+1" is no digit
                table.setdefault(plain(name), (rank, character))
    return table


def drawings(vendor: str, folder: Path, table: dict[str, tuple[int, str]]) -> dict[str, str]:
    """SVG document of each emoji of a set: of several icons for one emoji the one with the best name."""
    icons = read_json(folder / "icons.json")
    defaults = {k: icons[k] for k in ("left", "top", "width", "height") if k in icons}
    parents = {name: name for name, icon in icons["icons"].items() if not icon.get("hidden")}
    for name, alias in icons.get("aliases", {}).items():
        if set(alias) == {"parent"} and alias["parent"] in parents:
            parents[name] = alias["parent"]
    own = {n: (0, bare(c or "")) for n, c in FXEMOJI.items()} if vendor == "fxemoji" else {}
    best: dict[str, tuple[int, str]] = {}
    for name in sorted(parents):
        rank, character = own.get(name) or table.get(plain(name)) or (0, "")
        if character and (character not in best or rank < best[character][0]):
            best[character] = rank, svg(icons["icons"][parents[name]], defaults)
    return {character: document for character, (_, document) in best.items()}
