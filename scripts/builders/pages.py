"""Prose from HTML pages: whole paragraphs of running text, without code, tables, headings and menus."""

import re
from html.parser import HTMLParser
from pathlib import Path

from builders.files import clean, crude

_SKIPPED = {"script", "style", "pre", "table", "nav", "header", "footer", "svg", "math", "head", "form", "button"}
_BLOCKS = {
    "p", "li", "dd", "dt", "h1", "h2", "h3", "h4", "h5", "h6", "div", "blockquote", "section", "article", "ul", "ol",
    "dl", "main", "body", "aside", "details", "summary", "hr",
}  # fmt: skip
_SHORTEST = 12  # words of a paragraph; shorter ones are captions, entries of lists and crumbs of navigation
_TORN = re.compile(r"[a-z]+[ ,]|[,;.)]")  # the rest of a sentence that code or a table interrupted
_UNWANTED = re.compile(  # addresses, the grammar of a language, and what is no text
    r"://|\S@\S|\b[\w-]+\.(?:com|org|net|io)\b|^(?:Lexer|Syntax) |[\x00-\x1f\ufffd\ue000-\uf8ff]", re.IGNORECASE
)
_FOOTNOTE = re.compile(r"(?:(?<=[.,;)])| )\[\d+\](?=[ .,;)]|$)")


class _Blocks(HTMLParser):
    """Collects the text of each block inside the element with the attribute `inside`, or of the whole page."""

    def __init__(self, inside: tuple[str, str] | None) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[str] = []
        self._text: list[str] = []
        self._skipping = 0
        self._inside = inside
        self._open: list[str] = []  # tags of the element `inside`, one inside the other

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._inside in attrs or (self._open and tag == self._open[0]):
            self._open.append(tag)
        if tag in _SKIPPED:
            self._skipping += 1
        if tag in _SKIPPED or tag in _BLOCKS:
            self.end_block()
        elif tag == "br":
            self._text.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in _SKIPPED:
            self._skipping = max(0, self._skipping - 1)
        if tag in _SKIPPED or tag in _BLOCKS:
            self.end_block()
        if self._open and tag == self._open[0]:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if not self._skipping and (self._inside is None or self._open):
            self._text.append(data)

    def end_block(self) -> None:
        self.blocks.append(clean(re.sub(r"\s+", " ", "".join(self._text))))
        self._text = []


def prose(text: str) -> str:
    """A paragraph without marks of footnotes and without a last sentence that leads to code or a table, which are gone;
    or nothing, if it is no running text."""
    text = re.sub(r"(?<=[.?!]) [^.?!]*:$", "", _FOOTNOTE.sub("", text))
    whole = len(text.split()) >= _SHORTEST and re.search(r"[.?!][)\"']*$", text) and not _TORN.match(text)
    return text if whole and not _UNWANTED.search(text) and not crude(text) else ""


def paragraphs(page: Path, inside: tuple[str, str] | None = None) -> list[str]:
    """The paragraphs of running text in an HTML page, or in its one element with the attribute `inside`."""
    parser = _Blocks(inside)
    parser.feed(page.read_text("utf-8"))
    parser.end_block()
    return [text for block in parser.blocks if (text := prose(block))]
