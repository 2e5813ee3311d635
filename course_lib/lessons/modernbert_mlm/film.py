"""A small ModernBERT learns to fill gaps, recorded as a film: its loss, and where its masks look."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from course_lib import heads, tokenization
from course_lib.checks import check_at_least
from course_lib.gaps import with_gaps
from course_lib.masking import NOT_ASKED, Masked, hide, masked_batches, masked_loss, masked_losses
from course_lib.models.bigram import TwoSidedBigram, count_bigrams
from course_lib.models.modernbert import ModernBertConfig, ModernBertForMaskedLM
from course_lib.tokenization import MASK
from course_lib.training import by_recipe, windows
from course_lib.training.recipes import Recipe
from course_lib.viz.plots import GREY, OKABE_ITO, headline, new_figure

TOKENIZER, TEXT, LENGTH = "prose-4k", ("sentence_pairs",), 64
SIZES = ModernBertConfig(d_model=96, n_heads=4, n_layers=3, local_attention=16)
RATE, JUDGED_RATE, HELD_OUT = 0.3, 0.15, 32
SENTENCE = "The old man ____ his hand and ____ to the door of the ____, but no one was ____."  # whose maps are drawn


def text_of(split: str) -> Tensor:
    """Windows (N, 64) of everyday sentences, each beginning with <s>."""
    return windows(TEXT, split, LENGTH - 1, TOKENIZER, start=True)


def learn_to_fill(steps: int, film: "Film", device: torch.device, seed: int = 0) -> ModernBertForMaskedLM:
    """Train a ModernBERT of 0.6 million parameters from the start by the course's recipe; `film` looks on."""
    model = ModernBertForMaskedLM(SIZES).to(device)
    batches = masked_batches(text_of("train"), 16, SIZES.vocab_size, RATE, seed)
    by_recipe(model, batches, masked_loss, Recipe(steps=steps, warmup=20), seed, on_step=film)
    return model.eval()


@dataclass(frozen=True)
class Baselines:
    """What tables reach on the same gaps, in nats: how frequent each token is, and what both true neighbours say."""

    unigram: float
    two_sided: float


def baselines() -> Baselines:
    """Both tables counted on the training sentences, judged on the held-out ones that a film is judged on."""
    train, shown = text_of("train"), text_of("validation")[:HELD_OUT]
    hidden = hide(shown, SIZES.vocab_size, JUDGED_RATE, 0)
    counts = torch.bincount(train[:, 1:].flatten(), minlength=SIZES.vocab_size) + 1.0
    table = TwoSidedBigram(count_bigrams(train[:, 1:].flatten(), SIZES.vocab_size))
    both = nn.functional.cross_entropy(table(shown, at=hidden.at).flatten(0, 1), hidden.targets.flatten())
    return Baselines(-(counts / counts.sum()).log()[hidden.targets].mean().item(), both.item())


def neighbours(maps: Tensor, hidden: Masked) -> Tensor:
    """Mean weight of the hidden places on the token before, and on that after: maps (L, B, H, T, T) -> (2, L, H)."""
    asked = torch.zeros(hidden.ids.shape, dtype=torch.bool, device=maps.device)  # (B, T)
    asked = asked.scatter(1, hidden.at, hidden.targets != NOT_ASKED)  # 0 stands in `at` for none, and is never asked
    scores = []
    for weights, there in ((maps.diagonal(-1, -2, -1), asked[:, 1:]), (maps.diagonal(1, -2, -1), asked[:, :-1])):
        scores.append((weights * there.unsqueeze(1)).sum((1, 3)) / there.sum())
    return torch.stack(scores)


@dataclass
class Film:
    """Called at each step of a training (`on_step`), it keeps a frame of every `every`-th.

    `show`, if given, is called with the film after each new frame, to draw it.
    """

    every: int = 10
    show: "Callable[[Film], None] | None" = None
    tables: Baselines = field(default_factory=baselines)
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)  # (2, L, H): token before, token after
    maps: list[np.ndarray] = field(default_factory=list)  # (L, H, T, T) each, of SENTENCE
    held_out: Tensor = field(init=False)  # (32, 64)
    ids: list[int] = field(init=False)  # of SENTENCE
    pieces: list[str] = field(init=False)

    def __post_init__(self) -> None:
        check_at_least("every", self.every, 1)
        self.held_out = text_of("validation")[:HELD_OUT]
        vocabulary = tokenization.load(TOKENIZER)
        self.ids = with_gaps(SENTENCE, vocabulary)
        self.pieces = [vocabulary.piece(i) for i in self.ids]

    @torch.no_grad()
    def __call__(self, step: int, model: nn.Module) -> None:
        if step % self.every:
            return
        device, size = next(model.parameters()).device, SIZES.vocab_size
        hidden = hide(self.held_out.to(device), size, JUDGED_RATE, 0)
        self.steps.append(step)
        self.losses.append(masked_losses(model, self.held_out.to(device), size, JUDGED_RATE, 0, 32).nanmean().item())
        self.scores.append(neighbours(heads.attention_maps(model, hidden.ids), hidden).cpu().numpy())
        self.maps.append(heads.attention_maps(model, torch.tensor([self.ids], device=device))[:, 0].cpu().numpy())
        if self.show is not None:
            self.show(self)

    def head(self, side: int) -> tuple[int, int]:
        """Layer and head that look most at the token before (side 0) or after (1) when the film ends."""
        layer, head = np.unravel_index(self.scores[-1][side].argmax(), self.scores[-1][side].shape)
        return int(layer), int(head)

    def column(self, side: int) -> list[float]:
        """That head's score in all frames."""
        return [float(scores[side][self.head(side)]) for scores in self.scores]


@dataclass(frozen=True)
class FilmFrame:
    """One moment of a film."""

    film: Film
    index: int

    def text(self) -> str:
        """The picture in one line."""
        film, i = self.film, self.index
        before, after = (film.column(side)[i] for side in (0, 1))
        return (
            f"Step {film.steps[i]}: loss {film.losses[i]:.2f} nats; a mask gives {before:.2f} of its weight to the "
            f"token before it in one head, {after:.2f} to the token after it in another."
        )


def film_frame(film: Film, step: int) -> FilmFrame:
    """The last frame at or before `step`. Raises ValueError for a film without frames, or a step before the first."""
    if not film.steps or step < film.steps[0]:
        raise ValueError(f"step={step}; the film's steps are {film.steps[:1]} to {film.steps[-1:]}")
    return FilmFrame(film, int(np.searchsorted(film.steps, step, side="right")) - 1)


def plot_film(frame: FilmFrame) -> Figure:
    """The maps of the two heads at one moment, and loss and scores of the film up to it; the rest of it is pale."""
    film, i = frame.film, frame.index
    figure, _ = new_figure(size=(10.0, 4.2))
    figure.clear()
    axes = figure.subplot_mosaic([["before", "after", "loss"], ["before", "after", "scores"]], width_ratios=(1, 1, 0.9))
    masks = np.flatnonzero(np.array(film.ids) == MASK)
    for side, name in enumerate(("before", "after")):
        layer, head = film.head(side)
        _draw_map(axes[name], film, film.maps[i][layer, head], masks, -1 if side == 0 else 1)
        title = f"layer {layer}, head {head}: the token {name}, {film.column(side)[i]:.2f}"
        axes[name].set_title(title, fontsize="small", loc="center")
    _draw_curves(axes["loss"], axes["scores"], film, i)
    headline(figure, f"Step {film.steps[i]}: {film.losses[i]:.2f} nats a gap")
    return figure


def _draw_map(ax: Axes, film: Film, weights: np.ndarray, masks: np.ndarray, shift: int) -> None:
    """The rows of the gaps alone, a ring on each one's neighbour: with <s> and </s> around, every gap has both."""
    ax.imshow(weights[masks], cmap="viridis", vmin=0, vmax=1, aspect="auto")
    ax.scatter(masks + shift, range(len(masks)), s=40, facecolors="none", edgecolors="white", linewidths=0.8)
    ax.set_xticks(range(len(film.pieces)), labels=[p.replace("$", r"\$") for p in film.pieces], rotation=90,
                  fontsize="x-small")  # fmt: skip
    ax.set_yticks(range(len(masks)), labels=[f"gap {i + 1}" for i in range(len(masks))], fontsize="x-small")
    ax.tick_params(length=0)


def _draw_curves(loss: Axes, scores: Axes, film: Film, index: int) -> None:
    past = slice(0, index + 1)
    rows = (
        (loss, film.losses, "", "black"),
        (scores, film.column(0), "before", OKABE_ITO[0]),
        (scores, film.column(1), "after", OKABE_ITO[1]),
    )
    for ax, values, label, color in rows:
        ax.plot(film.steps, values, color=color, alpha=0.25, lw=1)
        ax.plot(film.steps[past], values[past], color=color, label=label)
    for height, what in (
        (film.tables.unigram, "how frequent each token is"),
        (film.tables.two_sided, "both neighbours"),
    ):
        loss.axhline(height, color=GREY, ls=":", lw=1)
        loss.annotate(what, (0.99, height), xycoords=("axes fraction", "data"), color=GREY, ha="right", va="bottom",
                      fontsize="x-small")  # fmt: skip
    loss.set(ylim=(2, 8.6), xticklabels=[])
    scores.set(ylim=(0, 1.05), xlabel="training step")
    loss.set_title("held-out loss (nats)", fontsize="small", loc="center")
    scores.set_title("weight of a gap on its neighbour", fontsize="small", loc="center")
    scores.legend(frameon=False, fontsize="x-small", loc="upper left", handlelength=1)
    for ax in (loss, scores):
        ax.axvline(film.steps[index], color=GREY, lw=0.8)
        ax.set_xlim(0, max(film.steps[-1], 1))
