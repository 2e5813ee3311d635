"""Pictures of the study of vocabulary sizes: bits a character of a small model, by the number of pieces."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from course_lib.experiments.seeds import interval
from course_lib.viz.plots import GREY, OKABE_ITO, Line, draw_lines, headline, label_lines, new_figure

LANGUAGES = {"en": "English", "ja": "Japanese"}


@dataclass(frozen=True)
class Sizes:
    """Of one language and type, by vocabulary size: means over seeds with 95 % intervals, and what needs no model."""

    size: np.ndarray  # (N,) pieces
    mean: np.ndarray  # (N,) bits a character of the model
    low: np.ndarray
    high: np.ndarray
    bigram: np.ndarray  # (N,) of a Kneser-Ney bigram table on the same pieces
    unigram: np.ndarray  # (N,) of single pieces
    characters: np.ndarray  # (N,) a token

    @property
    def best(self) -> int:
        """The size at which the model needs the fewest bits."""
        return int(self.size[np.argmin(self.mean)])


def sizes_of(record: Mapping[str, Any]) -> dict[tuple[str, str], Sizes]:
    """The trained arms of a record of the study `vocabulary_size`, by language and type.

    Raises ValueError where it has none, and as `interval` does, such as for a single seed.
    """
    found: dict[tuple[str, str], dict[int, list[Mapping[str, float]]]] = {}
    for run in record["arms"]:
        config = run["config"]
        if run["metrics"].get("bits_per_character") is not None:
            sizes = found.setdefault((config["language"], config["model_type"]), {})
            sizes.setdefault(config["vocab_size"], []).append(run["metrics"])
    if not found:
        raise ValueError("record has no trained arm with bits_per_character")
    return {key: _line(sizes) for key, sizes in found.items()}


def _line(sizes: Mapping[int, list[Mapping[str, float]]]) -> Sizes:
    ordered = sorted(sizes)
    if wrong := [size for size in ordered if not np.isfinite([m["bits_per_character"] for m in sizes[size]]).all()]:
        raise ValueError(f"record: a training of {wrong[0]} pieces has no finite bits_per_character")

    def column(name: str) -> np.ndarray:
        return np.array([np.mean([metrics[name] for metrics in sizes[size]]) for size in ordered])

    intervals = [interval([metrics["bits_per_character"] for metrics in sizes[size]]) for size in ordered]
    mean, low, high = np.array(intervals).T
    return Sizes(
        np.array(ordered), mean, low, high, column("bigram_bits_per_character"),
        column("unigram_bits_per_character"), column("characters_per_token"),
    )  # fmt: skip


def plot_sizes(found: Mapping[tuple[str, str], Sizes], title: str = "") -> Figure:
    """A panel for each language: the model with its interval over seeds, the bigram table, the other type's point."""
    languages = [language for language in LANGUAGES if (language, "bpe") in found]
    if not languages:
        raise ValueError(f"found has {', '.join(map(str, found))}; needed is a language with bpe")
    figure, axes = new_figure(len(languages), size=(9.6, 3.9))
    for ax, language in zip(axes[0], languages, strict=True):
        bpe = found[language, "bpe"]
        lines = {
            "model": Line(bpe.size, bpe.mean, bpe.low, bpe.high, color=OKABE_ITO[0]),
            "bigram": Line(bpe.size, bpe.bigram, dashed=True, color=GREY),
        }
        ax.set(xscale="log", xlabel="pieces", title=LANGUAGES[language])
        ax.set_xticks(bpe.size, labels=[f"{size:,}" for size in bpe.size])
        ax.minorticks_off()
        draw_lines(ax, lines)
        if (language, "unigram") in found:
            other = found[language, "unigram"]
            ax.errorbar(other.size, other.mean, [other.mean - other.low, other.high - other.mean], fmt="D",
                        color=OKABE_ITO[1], ms=6, capsize=3)  # fmt: skip
            ax.annotate("unigram", (other.size[0], other.mean[0]), xytext=(8, 6), textcoords="offset points",
                        color=OKABE_ITO[1], fontsize="small")  # fmt: skip
        best = int(np.argmin(bpe.mean))
        ax.plot(bpe.size[best], bpe.mean[best], "o", color=OKABE_ITO[0], ms=9, mfc="none", mew=2)
        label_lines(ax, lines)
    axes[0, 0].set_ylabel("bits a character, held out")
    said = ", ".join(f"{LANGUAGES[language]} {found[language, 'bpe'].best:,}" for language in languages)
    headline(figure, (title or f"In equal time a model likes best: {said} pieces")
             + "\n(bands: 95 % interval over seeds; dashed: a bigram table on the same pieces)")  # fmt: skip
    return figure
