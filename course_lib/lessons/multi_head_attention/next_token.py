"""What temperature, top-k and top-p do to the distribution of the next token: computed, then drawn."""

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from course_lib.checks import check_at_least
from course_lib.generation import next_token_probabilities
from course_lib.tokenization import START, Tokenizer
from course_lib.viz.plots import GREY, OKABE_ITO, new_figure

_BARS = 20


@dataclass(frozen=True)
class NextToken:
    """The most likely next tokens of a text, and what is drawn from after temperature, top-k and top-p."""

    text_shown: str
    pieces: list[str]
    model: np.ndarray  # probabilities as the model gives them, largest first
    drawn: np.ndarray  # the same tokens after the settings
    n_kept: int  # how many of the vocabulary can be drawn at all
    entropy: float  # of what is drawn from, nats
    unread: int  # tokens at the beginning that the model has no room for

    def text(self) -> str:
        """The picture in one line."""
        number = "1 token" if self.n_kept == 1 else f"{self.n_kept:,} tokens"
        unread = f" The first {self.unread:,} tokens of the text are not read." if self.unread else ""
        return (
            f"{number} can be drawn, entropy {self.entropy:.2f} nats, as uncertain as a choice among "
            f"{np.exp(self.entropy):,.1f}; the likeliest, {self.pieces[0]!r}, has {self.drawn[0]:.1%} "
            f"(the model gave it {self.model[0]:.1%}).{unread}"
        )


@torch.no_grad()
def next_token(
    model: nn.Module, tokenizer: Tokenizer, text: str, temperature: float, top_k: int, top_p: float, longest: int
) -> NextToken:
    """The next token after <s> and `text`, under the three settings; top_k = 0 is no limit.

    Of a long text the last tokens are used, `longest` with <s>. Raises ValueError for an empty text, a `longest` below
    2, and what `next_token_probabilities` refuses.
    """
    check_at_least("longest", longest, 2)
    ids = tokenizer.encode(text)
    if not ids:
        raise ValueError("text is empty; write at least one word")
    was_training = model.training
    model.eval()
    try:
        device = next(model.parameters()).device
        logits = model(torch.tensor([[START, *ids[1 - longest :]]], device=device))[0, -1].cpu()
    finally:
        model.train(was_training)
    plain = next_token_probabilities(logits)
    drawn = next_token_probabilities(logits, temperature, top_k or None, top_p)
    order = plain.argsort(descending=True, stable=True)[:_BARS]
    entropy = torch.special.entr(drawn).sum().item()
    pieces = [tokenizer.piece(int(i)).replace("\n", "⏎") for i in order]
    shown = text if len(text) <= 60 else f"… {text[-60:]}"
    unread = max(0, len(ids) - longest + 1)
    return NextToken(shown, pieces, plain[order].numpy(), drawn[order].numpy(), int((drawn > 0).sum()), entropy, unread)


def plot_next_token(view: NextToken) -> Figure:
    """Bars for the likeliest tokens: what is drawn from, and in grey outlines what the model gave."""
    figure, axes = new_figure(size=(10.0, 3.4))
    ax, places = axes[0, 0], np.arange(len(view.pieces))
    ax.bar(places, view.drawn, color=OKABE_ITO[0], width=0.7, label="drawn from")
    ax.bar(places, view.model, edgecolor=GREY, facecolor="none", width=0.7, label="as the model gives it")
    labels = [piece.replace("$", r"\$") for piece in view.pieces]
    ax.set_xticks(places, labels=labels, rotation=60, ha="right")
    ax.set_ylabel("probability")
    ax.set_ylim(0, min(1.0, 1.15 * max(view.drawn.max(), view.model.max())))
    ax.legend(frameon=False)
    tail = "".join(c if c.isprintable() else "⏎" if c == "\n" else " " for c in view.text_shown).replace("$", r"\$")
    ax.set_title(f"After “{tail}”: {'1 token' if view.n_kept == 1 else f'{view.n_kept:,} tokens'} can follow")
    return figure
