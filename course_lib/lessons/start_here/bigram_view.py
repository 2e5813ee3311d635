"""Pictures of a language model at work: the loss of each token, and how far to trust a bigram."""

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

from course_lib.models.bigram import CountedBigram
from course_lib.tokenization import Tokenizer
from course_lib.viz.plots import GREY, OKABE_ITO, new_figure

WEIGHTS = np.linspace(0, 0.98, 50)
_MOST_TOKENS = 40  # more bars than that cannot be read


@dataclass(frozen=True)
class BigramView:
    """A text under a bigram: its tokens, the loss of each but the first, and perplexity on held-out text by weight."""

    pieces: list[str]
    blind: float  # loss of a guess that calls all tokens equally likely, nats
    losses: np.ndarray  # (T - 1,) nats
    cut: int  # tokens of the text beyond the picture
    weight: float
    perplexities: np.ndarray  # on held-out text, at WEIGHTS
    witten_bell: float  # the same with a weight for each token

    def text(self) -> str:
        """One line: what the picture shows, in numbers."""
        here = self.perplexities[np.abs(WEIGHTS - self.weight).argmin()]
        cut = f" ({self.cut} more tokens are not shown)" if self.cut else ""
        return (
            f"Mean loss of your text {self.losses.mean():.2f} nats, perplexity {np.exp(self.losses.mean()):,.0f}{cut}. "
            f"On the validation speeches: perplexity {here:.0f} at weight {self.weight:.2f}."
        )


def bigram_view(table: CountedBigram, held_out: Tensor, tokenizer: Tokenizer, text: str, weight: float) -> BigramView:
    """Score `text`, and the held-out stream of token ids (N,), with the rows of `table` trusted by `weight`.

    `table` has a weight for each token: the picture compares that with one weight for all.
    Raises ValueError for a text of fewer than two tokens.
    """
    ids = tokenizer.encode(text)
    if len(ids) < 2:
        raise ValueError(f"text={text!r} has {len(ids)} tokens; write at least two words")
    shown = torch.tensor(ids[:_MOST_TOKENS])

    def parts(stream: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """p(next | token), p(next) and the table's own trust in the row, for each pair in the stream."""
        now, following = stream[:-1], stream[1:]
        row, frequency, trust = table.row[now, following], table.frequency[following], table.trust[now]
        return row.double().numpy(), frequency.double().numpy(), trust.double().numpy()

    def loss(row: np.ndarray, frequency: np.ndarray, trust: np.ndarray) -> np.ndarray:
        return -np.log(trust * row + (1 - trust) * frequency)

    row, frequency, trust = parts(held_out)
    seen = trust > 0  # where a row is empty, frequency alone decides
    of_text = parts(shown)
    return BigramView(
        pieces=[tokenizer.piece(i) for i in shown],
        blind=float(np.log(tokenizer.vocab_size)),
        losses=loss(*of_text[:2], weight * (of_text[2] > 0)),
        cut=len(ids) - len(shown),
        weight=weight,
        perplexities=np.array([np.exp(loss(row, frequency, w * seen).mean()) for w in WEIGHTS]),
        witten_bell=float(np.exp(loss(row, frequency, trust).mean())),
    )


def plot_bigram_view(view: BigramView) -> Figure:
    """Left: a bar for each token's loss. Right: held-out perplexity over the weight."""
    figure, axes = new_figure(2, size=(10.0, 3.4), width_ratios=(2.6, 1))
    left, right = axes[0]
    _draw_losses(left, view.pieces, view.losses, view.blind)
    left.set_title(f"What each token costs, with weight {view.weight:.2f}")
    right.plot(WEIGHTS, view.perplexities, color=OKABE_ITO[0])
    height = view.perplexities[np.abs(WEIGHTS - view.weight).argmin()]
    right.plot(view.weight, height, "o", color=OKABE_ITO[1])
    right.axhline(view.witten_bell, color=GREY, linestyle=":", lw=1)
    right.annotate("a weight for each token", (0.02, view.witten_bell), xycoords=("axes fraction", "data"), color=GREY,
                   fontsize="x-small", va="top")  # fmt: skip
    right.set(title="Validation speeches", xlabel="weight of the row", ylabel="perplexity", yscale="log")
    right.set_yticks([100, 150, 200, 300, 500], labels=["100", "150", "200", "300", "500"])
    right.minorticks_off()
    return figure


def plot_token_losses(pieces: list[str], losses: ArrayLike, blind: float, title: str) -> Figure:
    """A bar for the loss of each token of a text: T pieces, and T - 1 losses in nats.

    `blind` is the loss of a guess that calls all tokens equally likely: a line to compare with. Raises ValueError for
    another number of losses.
    """
    values = np.asarray(losses, float)
    if values.shape != (len(pieces) - 1,):
        raise ValueError(
            f"losses has shape {values.shape} for {len(pieces)} pieces; needed is one for each but the first"
        )
    figure, axes = new_figure(size=(10.0, 3.0))
    _draw_losses(axes[0, 0], pieces, values, blind)
    axes[0, 0].set_title(title)
    return figure


def _draw_losses(ax: Axes, pieces: list[str], losses: np.ndarray, blind: float) -> None:
    """Bars, the pieces below them; the first piece has no bar, as nothing comes before it."""
    places = np.arange(len(pieces))
    ax.bar(places[1:], losses, color=OKABE_ITO[0], width=0.7)
    for height, name in ((losses.mean(), f"mean\n{losses.mean():.2f}"), (blind, f"blind\n{blind:.2f}")):
        ax.axhline(height, color=GREY, linestyle=":", lw=1)
        ax.annotate(name, (1.01, height), xycoords=("axes fraction", "data"), color=GREY, va="center",
                    fontsize="x-small")  # fmt: skip
    shown = [piece.replace("\n", "⏎").replace("$", r"\$") for piece in pieces]
    ax.set_xticks(
        places, labels=shown, rotation=60 if len(pieces) > 8 else 0, ha="right" if len(pieces) > 8 else "center"
    )
    ax.set_xlim(-0.6, len(pieces) - 0.4)
    ax.set_ylabel("loss, nats")
