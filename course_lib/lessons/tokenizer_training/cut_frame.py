"""The moving picture: one text, cut by a vocabulary of any size, and what that size costs."""

from dataclasses import dataclass, field

from matplotlib.figure import Figure

from course_lib import corpora
from course_lib.checks import check_choice
from course_lib.tokenization import Tokenizer
from course_lib.tokenization.alphabet import train_small
from course_lib.tokenization.measures import Measures, measure
from course_lib.viz.plots import headline, new_figure
from course_lib.viz.tiles import colours, draw_tiles, frame, lines_of

SIZES = (300, 500, 1000, 2000, 4000, 8000, 16000)
LANGUAGES = {"Japanese": "ja", "English": "en"}
SENTENCES = {
    "ja": "私は自然言語処理を勉強しています。",
    "en": "I am studying natural language processing.",
}
LONGEST = 120  # characters of a text that is drawn
ROOM = 62.0  # letters on a line


@dataclass
class Vocabularies:
    """Vocabularies by language, type and size, each trained when it is first asked for, on the same few sentences."""

    n_sentences: int = 20_000
    n_held_out: int = 2_000
    _made: dict[tuple[str, str, int], tuple[Tokenizer, Measures]] = field(default_factory=dict)

    def get(self, language: str, model_type: str, vocab_size: int) -> tuple[Tokenizer, Measures]:
        """The vocabulary and its measures on held-out sentences. Raises ValueError where sentences cannot fill it."""
        key = (language, model_type, vocab_size)
        if key not in self._made:
            train, held = (corpora.sentence_pairs(split) for split in ("train", "validation"))
            texts = train[: self.n_sentences][language]
            made = train_small(texts, vocab_size, add_dummy_prefix=language == "en", model_type=model_type)
            found = measure(made.pieces, vocab_size, texts, held[: self.n_held_out][language])
            self._made[key] = made, found
        return self._made[key]


@dataclass(frozen=True)
class CutView:
    """A cut text, with the measures of the vocabulary on held-out sentences."""

    language: str
    vocab_size: int
    pieces: tuple[str, ...]
    characters: int
    measures: Measures

    def text(self) -> str:
        """What the picture shows, in one line."""
        n = self.measures
        return (
            f"{self.characters} characters, {len(self.pieces)} tokens · on held-out sentences: "
            f"{n.characters_per_token:.2f} characters a token, {n.bits_per_character:.2f} bits a character"
        )


def cut_view(vocabularies: Vocabularies, language: str, vocab_size: int, model_type: str, text: str) -> CutView:
    """Cut `text`. Raises ValueError for an empty or a long one, a language that is not there, and as `get` does."""
    check_choice("language", language, LANGUAGES)
    if not 1 <= len(text) <= LONGEST:
        raise ValueError(f"text has {len(text)} characters; write 1 to {LONGEST}")
    tokenizer, found = vocabularies.get(LANGUAGES[language], model_type, vocab_size)
    return CutView(language, vocab_size, tuple(tokenizer.pieces(text)), len(text), found)


def plot_cut(view: CutView) -> Figure:
    """The pieces as tiles, equal ones in one colour, bytes in grey."""
    lines = lines_of(view.pieces, ROOM)
    figure, axes = new_figure(size=(9.0, 0.95 + 0.36 * max(3, len(lines))))
    frame(axes[0, 0], ROOM, max(3, len(lines)))
    colour = colours(view.pieces)
    for row, numbers in enumerate(lines):
        draw_tiles(axes[0, 0], view.pieces, numbers, -row - 1.0, colour, set())
    first = (
        f"{view.language}, {view.vocab_size:,} pieces: {view.characters} characters become {len(view.pieces)} tokens"
    )
    n = view.measures
    headline(figure, f"{first}\n(held-out sentences: {n.characters_per_token:.2f} characters a token, "
             f"{n.bits_per_character:.2f} bits a character)")  # fmt: skip
    return figure
