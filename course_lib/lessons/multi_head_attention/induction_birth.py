"""The birth of an induction head: two layers of attention learn to continue what repeats, recorded as a film."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib import heads
from course_lib.checks import check_at_least, check_choice
from course_lib.init import seed_of
from course_lib.models.attention_only import AttentionOnly
from course_lib.training import History, constant, next_token_loss, train
from course_lib.viz.plots import GREY, OKABE_ITO, headline, new_figure

START = 0  # the first token of each row; the others are random
LENGTH, PERIODS = 48, (8, 24)  # tokens of a row after the first; how many of them stand before they repeat
LAYERS = {"previous": 0, "induction": 1}  # where the two heads of a pair are to be found
SHOWN, COPY = 9, 20  # tokens before the repeat, in the map that is drawn and in the rows that are measured


def repeating_batch(vocab_size: int, step: int, seed: int, batch_size: int = 64) -> tuple[Tensor]:
    """Rows (B, 1 + 48): a start token, then random tokens that repeat, each row with a random period of its own.

    A period that changes from row to row leaves one way only: to look for what stood here before. With one period for
    all, looking so many places back would do.
    """
    generator = torch.Generator().manual_seed(seed_of(seed, "repeats", step))
    period = torch.randint(PERIODS[0], PERIODS[1] + 1, (batch_size, 1), generator=generator)
    tokens = torch.randint(1, vocab_size, (batch_size, LENGTH), generator=generator)
    rows = tokens.gather(1, torch.arange(LENGTH) % period)
    return (torch.cat([torch.full((batch_size, 1), START), rows], 1),)


def train_on_repeats(model: AttentionOnly, steps: int, film: "Film | None" = None, seed: int = 0) -> History:
    """Train with AdamW at 0.002 on `repeating_batch`; `film` looks on."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    size = model.config.vocab_size
    return train(
        model, lambda step: repeating_batch(size, step, seed), next_token_loss, optimizer, steps=steps,
        schedule=constant(20), seed=seed, on_step=film,
    )  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What a model does with rows that say 20 random tokens twice."""

    loss_new: float  # nats, on the tokens' first copies, which nobody can know
    loss_repeated: float  # nats, on the second copies but their first token
    right: float  # share of these that are guessed right
    previous: np.ndarray  # (L, H) scores of the heads
    induction: np.ndarray  # (L, H)


@torch.no_grad()
def measured(model: nn.Module, vocab_size: int) -> Measured:
    """Loss and head scores on 64 rows that training has never seen."""
    device = next(model.parameters()).device
    ids = heads.repeated(COPY, 64, range(1, vocab_size), 7, START).to(device)  # (64, 1 + 2 COPY)
    maps, logits, wanted = heads.attention_maps(model, ids), model(ids[:, :-1]), ids[:, 1:]
    losses = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view(wanted.shape)
    again = slice(COPY + 1, None)  # the first token of the second copy cannot be known either
    return Measured(
        losses[:, :COPY].mean().item(), losses[:, again].mean().item(),
        (logits.argmax(-1) == wanted)[:, again].float().mean().item(),
        heads.previous_token(maps).cpu().numpy(), heads.induction(maps, COPY).cpu().numpy(),
    )  # fmt: skip


@contextmanager
def without_note(model: AttentionOnly, name: str) -> Iterator[None]:
    """While the block runs, one projection of layer 1 does not see what layer 0 wrote to the stream.

    `name` is "q_proj", "k_proj" or "v_proj". Which one needs the note is called the composition of two heads: of Q, K
    or V (Elhage et al. 2021, section "Two-Layer Attention-Only Transformers"). Raises ValueError for another name.
    """
    check_choice("name", name, ("q_proj", "k_proj", "v_proj"))
    before: dict[str, Tensor] = {}
    projection = getattr(model.attentions[1], name)
    handles = (
        model.embedding.register_forward_hook(lambda module, args, output: before.update(x=output)),
        projection.register_forward_pre_hook(lambda module, args: (model.norms[1](before["x"]),)),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class Film:
    """Called at each step of a training (`on_step`), it keeps a frame of every `every`-th.

    `show`, if given, is called with the film after each new frame, to draw it.
    """

    every: int = 10
    show: "Callable[[Film], None] | None" = None
    steps: list[int] = field(default_factory=list)
    frames: list[Measured] = field(default_factory=list)
    maps: list[np.ndarray] = field(default_factory=list)  # (L, H, T, T) each, of one short row
    vocab_size: int = 0  # of the model that it shows

    def __post_init__(self) -> None:
        check_at_least("every", self.every, 1)

    @torch.no_grad()
    def __call__(self, step: int, model: nn.Module) -> None:
        if step % self.every:
            return
        assert isinstance(model, AttentionOnly)
        size = self.vocab_size = model.config.vocab_size
        row = heads.repeated(SHOWN, 1, range(1, size), 3, START).to(model.embedding.weight.device)
        self.steps.append(step)
        self.frames.append(measured(model, size))
        self.maps.append(heads.attention_maps(model, row)[:, 0].cpu().numpy())
        if self.show is not None:
            self.show(self)

    def column(self, name: str) -> list[float]:
        """One number of all frames: a field of `Measured`; "previous" and "induction" are those of their own layer."""
        values = [getattr(frame, name) for frame in self.frames]
        return [float(value[LAYERS[name]].max()) if name in LAYERS else float(value) for value in values]


@dataclass(frozen=True)
class BirthFrame:
    """One moment of a film."""

    film: Film
    index: int

    @property
    def now(self) -> Measured:
        """What was measured at this moment."""
        return self.film.frames[self.index]

    def text(self) -> str:
        """The picture in one line."""
        previous, induction = (self.film.column(name)[self.index] for name in LAYERS)
        return (
            f"Step {self.film.steps[self.index]}: {self.now.right:.0%} of the repeated tokens are guessed right; "
            f"previous-token score {previous:.2f}, induction score {induction:.2f}."
        )


def birth_frame(film: Film, step: int) -> BirthFrame:
    """The last frame at or before `step`. Raises ValueError for a film without frames, or a step before the first."""
    if not film.frames or step < film.steps[0]:
        raise ValueError(f"step={step}; the film's steps are {film.steps[:1]} to {film.steps[-1:]}")
    return BirthFrame(film, int(np.searchsorted(film.steps, step, side="right")) - 1)


def plot_birth(frame: BirthFrame) -> Figure:
    """The maps of both layers at one moment, and loss and scores of the film up to it; the rest of the film is pale.

    Of each layer the head is shown that has the role at the film's end; rings mark where the role looks. Raises
    ValueError for a model that has not two layers.
    """
    film, now = frame.film, frame.now
    maps, last = film.maps[frame.index], film.frames[-1]
    if len(maps) != 2:
        raise ValueError(f"film: of a model with {len(maps)} layers; needed are two")
    figure, _ = new_figure(size=(10.0, 3.9))
    figure.clear()
    axes = figure.subplot_mosaic([["previous", "induction", "loss"], ["previous", "induction", "scores"]])
    after = np.arange(1, 2 * SHOWN + 1)  # the queries after the first
    again = after[SHOWN:]
    roles = (("previous", "previous token", after, after - 1), ("induction", "induction", again, again - SHOWN + 1))
    for layer, (role, name, queries, keys) in enumerate(roles):
        head = int(np.argmax(getattr(last, role)[layer]))
        title = f"layer {layer}: {name} {getattr(now, role)[layer, head]:.2f}"
        _draw_map(axes[role], maps[layer, head], queries, keys, title)
    _draw_curves(axes["loss"], axes["scores"], film, frame.index)
    headline(figure, f"Step {film.steps[frame.index]}: {now.right:.0%} of the repeated tokens are guessed right")
    return figure


def _draw_map(ax: Axes, weights: np.ndarray, queries: np.ndarray, keys: np.ndarray, title: str) -> None:
    ax.imshow(weights, cmap="viridis", vmin=0, vmax=1)
    ax.scatter(keys, queries, s=16, facecolors="none", edgecolors="white", linewidths=0.5)
    letters = [chr(ord("A") + i) for i in range(SHOWN)]  # tokens are numbers; letters are easier to follow
    names = ["·", *letters, *letters]
    ax.set_xticks(range(len(names)), labels=names, fontsize="xx-small")
    ax.set_yticks(range(len(names)), labels=names, fontsize="xx-small")
    ax.tick_params(length=0)
    ax.axhline(SHOWN + 0.5, color="white", lw=0.8, ls=":")  # here the repeat begins
    ax.set_title(title, fontsize="small", loc="center")
    ax.set(xlabel="key", ylabel="query")


def _draw_curves(loss: Axes, scores: Axes, film: Film, index: int) -> None:
    past, size = slice(0, index + 1), film.vocab_size
    rows = (
        (loss, "loss_repeated", "", "black"),
        (scores, "previous", "previous token", OKABE_ITO[0]),
        (scores, "induction", "induction", OKABE_ITO[1]),
    )
    for ax, name, label, color in rows:
        values = film.column(name)
        ax.plot(film.steps, values, color=color, alpha=0.25, lw=1)
        ax.plot(film.steps[past], values[past], color=color, label=label)
    for n, what in ((size - 1, "a guess among all tokens"), (COPY, "among those of the text")):
        loss.axhline(np.log(n), color=GREY, ls=":", lw=1)
        loss.annotate(what, (0.99, np.log(n)), xycoords=("axes fraction", "data"), color=GREY, ha="right", va="bottom",
                      fontsize="x-small")  # fmt: skip
    loss.set(ylim=(0, 5), xticklabels=[])
    scores.set(ylim=(0, 1.05), xlabel="training step")
    loss.set_title("loss on the repeats (nats)", fontsize="small", loc="center")
    scores.set_title("scores", fontsize="small", loc="center")
    scores.legend(frameon=False, fontsize="x-small", loc="center left", handlelength=1)
    for ax in (loss, scores):
        ax.axvline(film.steps[index], color=GREY, lw=0.8)
        ax.set_xlim(0, max(film.steps[-1], 1))
