"""Pictures of random scores: one softmax under sliders, and what the width does to scores, weights and gradient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from course_lib.checks import check_above, check_at_least, check_choice, check_range
from course_lib.viz.plots import GREY, OKABE_ITO, Line, draw_lines, headline, label_lines, new_figure

WIDTHS = tuple(2**i for i in range(11))  # 1 to 1024
SCALES = {"none": 0.0, "1/√d": 0.5, "1/d": 1.0}  # name of a scale -> power of the width that scores are divided by


@dataclass(frozen=True)
class ScoreFrame:
    """One query, eight keys, and the softmax of their scores: what the sliders show."""

    d: int
    temperature: float
    scale: str
    logits: np.ndarray  # (8,) the scores after scale and temperature
    weights: np.ndarray  # (8,)
    jacobian: np.ndarray  # (8, 8) row i, column j: the change of weight i by a small change of logit j

    @property
    def expected(self) -> float:
        """The spread that the variance argument expects of the logits: sqrt(d), scaled, over the temperature."""
        return self.d**0.5 * self.d ** -SCALES[self.scale] / self.temperature

    @property
    def entropy(self) -> float:
        """Entropy of the weights in nats."""
        return float(-(self.weights * np.log(np.maximum(self.weights, 1e-300))).sum())

    def text(self) -> str:
        """The frame in one line, for readers who cannot see the picture."""
        return (
            f"d = {self.d}, scale {self.scale}, temperature {self.temperature:.3g}: expected spread of the scores "
            f"{self.expected:.3g}, largest weight {self.weights.max():.2f}, entropy {self.entropy:.2f} of at most "
            f"{np.log(len(self.weights)):.2f} nats, gradient through the softmax {np.linalg.norm(self.jacobian):.2g}"
        )


def score_frame(d: int, temperature: float, scale: str, seed: int = 1) -> ScoreFrame:
    """Scores of one random query with eight random keys, of which the first `d` of 1024 channels are used.

    All entries are independent, normal, of mean 0 and variance 1. Raises ValueError for a d outside 1..1024, a
    temperature that is not above 0, or an unknown scale.
    """
    check_range("d", d, 1, WIDTHS[-1])
    check_above("temperature", temperature, 0)
    check_choice("scale", scale, SCALES)
    vectors = torch.randn(9, WIDTHS[-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)[:, :d]
    logits = vectors[1:] @ vectors[0] * d ** -SCALES[scale] / temperature
    weights = logits.softmax(-1)
    jacobian = weights.diag() - weights[:, None] * weights
    return ScoreFrame(d, temperature, scale, logits.numpy(), weights.numpy(), jacobian.numpy())


def plot_score_frame(frame: ScoreFrame) -> Figure:
    """Bars of the eight scores, bars of the weights, and the softmax's Jacobian as colours."""
    figure, axes = new_figure(3, size=(10.0, 3.1), width_ratios=(1.1, 1.1, 1))
    scores, weights, slopes = axes[0]
    keys = np.arange(1, len(frame.weights) + 1)
    scores.bar(keys, frame.logits, color=OKABE_ITO[0])
    end = 1.4 * max(3.0, float(np.abs(frame.logits).max()), frame.expected)
    scores.set(title="scores", xlabel="key", ylabel="score", ylim=(-end, end), xticks=keys)
    for sign in (-1, 1):
        scores.axhline(sign * frame.expected, color=GREY, linestyle=":", lw=1)
    scores.annotate(f"expected spread ±{frame.expected:.2g}", (0.98, 0.98), xycoords="axes fraction", ha="right",
                    va="top", color=GREY, fontsize="small")  # fmt: skip
    weights.bar(keys, frame.weights, color=OKABE_ITO[1])
    weights.set(title="softmax: weights", xlabel="key", ylabel="weight", ylim=(0, 1), xticks=keys)
    weights.axhline(1 / len(keys), color=GREY, linestyle=":", lw=1)
    weights.annotate(f"entropy {frame.entropy:.2f} nats", (0.98, 0.98), xycoords="axes fraction", ha="right", va="top",
                     color=GREY, fontsize="small")  # fmt: skip
    image = slopes.imshow(frame.jacobian, cmap="RdBu_r", vmin=-0.25, vmax=0.25)
    slopes.set(title="what gets through", xlabel="… by the score of key", ylabel="change of weight …")
    slopes.set(xticks=keys - 1, yticks=keys - 1, xticklabels=keys, yticklabels=keys)
    figure.colorbar(image, ax=slopes, shrink=0.85, ticks=(-0.25, 0, 0.25)).outline.set_visible(False)
    headline(figure, f"d = {frame.d}, scale {frame.scale}, temperature {frame.temperature:.3g}")
    return figure


@dataclass(frozen=True)
class Sweep:
    """Random scores at several widths, (widths,) or (widths, draws) each: plain, and divided by sqrt(d)."""

    widths: tuple[int, ...]
    n_keys: int
    spread: dict[str, np.ndarray]  # standard deviation of all scores
    entropy: dict[str, np.ndarray]  # nats, of each draw's weights
    gradient: dict[str, np.ndarray]  # norm of each draw's softmax Jacobian


def sweep(n_keys: int = 16, n_draws: int = 1600, widths: Sequence[int] = WIDTHS, seed: int = 0) -> Sweep:
    """Measure `n_draws` random queries, each with `n_keys` random keys of its own, at every width.

    All entries are normal(0, 1). The gradient is the Frobenius norm of diag(w) - w wᵀ. Raises ValueError for a number
    or a width below 1.
    """
    for name, value in (("n_keys", n_keys), ("n_draws", n_draws), ("widths", min(widths, default=0))):
        check_at_least(name, value, 1)
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, dict[str, list]] = {name: {"q·k": [], "q·k/√d": []} for name in ("spread", "entropy", "gradient")}
    for d in widths:
        q = torch.randn(n_draws, 1, d, generator=generator, dtype=torch.float32)
        k = torch.randn(n_draws, n_keys, d, generator=generator, dtype=torch.float32)
        dots = (k * q).sum(-1).double()  # (draws, keys)
        for name, scores in (("q·k", dots), ("q·k/√d", dots / d**0.5)):
            weights = scores.softmax(-1)
            found["spread"][name].append(scores.std().item())
            found["entropy"][name].append(torch.special.entr(weights).sum(-1).numpy())
            found["gradient"][name].append(softmax_gradient(weights).numpy())
    arrays = {what: {name: np.stack(rows) for name, rows in by.items()} for what, by in found.items()}
    return Sweep(tuple(widths), n_keys, **arrays)


def softmax_gradient(weights: Tensor) -> Tensor:
    """Frobenius norm of the Jacobian diag(w) - w wᵀ of the softmax that gave weights (..., S): (...)."""
    jacobian = weights.diag_embed() - weights.unsqueeze(-1) * weights.unsqueeze(-2)
    return torch.linalg.matrix_norm(jacobian)


def plot_sweep(found: Sweep) -> Figure:
    """Spread, entropy and gradient against the width; lines are medians over draws, bands 5 to 95 % of them.

    A dashed line is the mean: without the scale it lies far from the median.
    """
    figure, axes = new_figure(3, size=(10.0, 3.5))
    d = np.array(found.widths, float)
    colors = {"q·k": OKABE_ITO[1], "q·k/√d": OKABE_ITO[0]}

    def bands(values: Mapping[str, np.ndarray]) -> dict[str, Line]:
        lines = {}
        for name, v in values.items():
            low, middle, high = np.percentile(v, (5, 50, 95), axis=1)
            lines[name] = Line(d, middle, low, high, color=colors[name])
        return lines

    panels = {
        "spread of the scores": {name: Line(d, v, color=colors[name]) for name, v in found.spread.items()},
        "entropy of the weights, nats": bands(found.entropy),
        "gradient through the softmax": bands(found.gradient),
    }
    mean = found.gradient["q·k"].mean(1)
    panels["gradient through the softmax"]["q·k, mean"] = Line(d, mean, color=colors["q·k"], dashed=True)
    panels["spread of the scores"]["√d"] = Line(d, np.sqrt(d), color=GREY, dashed=True)
    ticks = (1, 4, 16, 64, 256, 1024)
    for ax, (title, lines) in zip(axes[0], panels.items(), strict=True):
        ax.set(xscale="log", xlabel="width d", title=title)
        ax.set_xticks(ticks, labels=[str(tick) for tick in ticks])
        ax.minorticks_off()
        draw_lines(ax, lines)
    axes[0, 0].set_yscale("log")
    axes[0, 1].axhline(np.log(found.n_keys), color=GREY, linestyle=":", lw=1)
    axes[0, 1].annotate(f"even spread: ln {found.n_keys}", (0.02, np.log(found.n_keys)), color=GREY, fontsize="small",
                        xycoords=("axes fraction", "data"), va="bottom")  # fmt: skip
    axes[0, 1].set_ylim(0, np.log(found.n_keys) * 1.12)
    axes[0, 2].set_yscale("log")
    axes[0, 2].set_ylim(1e-6, 1)
    for ax, lines in zip(axes[0], panels.values(), strict=True):
        label_lines(ax, lines)
    title = "Without the scale, scores spread as √d, one key takes all, and most queries get no gradient"
    headline(figure, title)
    return figure
