"""Why several heads: a task that needs two looks at once, for one head and for two of half the width."""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.attention import MultiHeadAttention, causal
from course_lib.heads import attention_maps
from course_lib.init import init_weights, seed_of
from course_lib.positions import RotaryPosition
from course_lib.training import History, constant, train
from course_lib.viz.plots import OKABE_ITO, Line, draw_lines, headline, label_lines, new_figure

VOCAB, WIDTH, LENGTH, SHOWN = 64, 64, 32, 20
LOOKS = (1, 4)  # how far back the two wanted tokens stand


class TwoLooks(nn.Module):
    """One attention layer and a readout: ids (B, T) -> logits (B, T, 2, V) of the tokens 1 and 4 places before.

    The parameters are as many for any number of heads: they share out the 64 channels.
    """

    def __init__(self, n_heads: int, seed: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.attention = MultiHeadAttention(WIDTH, n_heads, mask=causal, position=RotaryPosition(WIDTH // n_heads))
        self.readout = nn.Linear(WIDTH, len(LOOKS) * VOCAB)
        init_weights(self, seed)
        with torch.no_grad():
            self.embedding.weight.mul_(50)  # size 1: nothing else is in this stream

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> logits (B, T, 2, V)."""
        return self.readout(self.attention(self.embedding(ids))).unflatten(-1, (len(LOOKS), VOCAB))


def two_looks_batch(step: int, seed: int = 0, batch_size: int = 64) -> tuple[Tensor]:
    """Random tokens (B, T): nothing can be guessed, all must be fetched."""
    generator = torch.Generator().manual_seed(seed_of(seed, "two looks", step))
    return (torch.randint(VOCAB, (batch_size, LENGTH), generator=generator),)


def two_looks_loss(model: nn.Module, batch: tuple[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean loss of both wanted tokens in nats, and the share of each that is right, where both exist."""
    (ids,) = batch
    first = max(LOOKS)
    logits = model(ids)[:, first:]  # (B, T', 2, V)
    wanted = torch.stack([ids[:, first - back : ids.shape[1] - back] for back in LOOKS], -1)  # (B, T', 2)
    right = (logits.argmax(-1) == wanted).float().mean((0, 1))  # (2,)
    return F.cross_entropy(logits.flatten(0, 2), wanted.flatten()), {
        f"right at -{back}": right[i] for i, back in enumerate(LOOKS)
    }


def train_two_looks(model: TwoLooks, steps: int, seed: int = 0) -> History:
    """Train with AdamW, each step on new random tokens."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    return train(
        model, lambda step: two_looks_batch(step, seed), two_looks_loss, optimizer, steps=steps,
        schedule=constant(20), seed=seed,
    )  # fmt: skip


def plot_two_looks(models: Mapping[str, TwoLooks], histories: Mapping[str, History], title: str) -> Figure:
    """Every head's map on one text, and the share of right answers while each model trained.

    Raises ValueError for models and histories of different names.
    """
    if list(models) != list(histories):
        raise ValueError(f"models are {list(models)}, histories {list(histories)}; needed are the same names")
    (ids,) = two_looks_batch(0, seed=-1, batch_size=1)
    maps = [
        (f"{name}: head {i}", weights)
        for name, model in models.items()
        for i, weights in enumerate(
            attention_maps(model, ids[:, :SHOWN].to(model.readout.weight.device))[0, 0].cpu().numpy()
        )
    ]
    figure, axes = new_figure(len(maps) + 1, size=(10.0, 3.1), width_ratios=(*[1] * len(maps), 1.25))
    for ax, (name, weights) in zip(axes[0], maps, strict=False):
        ax.imshow(weights, cmap="viridis", vmin=0, vmax=1)
        ax.set_title(name, fontsize="small", loc="center")
        ax.set(xlabel="key", ylabel="query", xticks=[0, 5, 10, 15], yticks=[0, 5, 10, 15])
    ax, lines = axes[0, -1], {}
    for color, (name, history) in zip(OKABE_ITO, histories.items(), strict=False):
        for back in LOOKS:
            y = history.column(f"right at -{back}")
            lines[f"{name}, at −{back}"] = Line(history.column("step"), y, color=color, dashed=back == LOOKS[1])
    draw_lines(ax, lines)
    ax.set(xlabel="training step", ylim=(0, 1.05))
    ax.set_title("share right", fontsize="small", loc="center")
    label_lines(ax, lines, gap=0.085)
    headline(figure, title)
    return figure
