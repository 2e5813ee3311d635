"""Where a token's last hidden state comes from: exact gradients, layer by layer, through a sparse encoder."""

from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor

from course_lib.checks import check_range
from course_lib.models.sparse_bert import SparseBert
from course_lib.viz.plots import GREY, OKABE_ITO, headline, new_figure

CHANNELS = 32  # how many are differentiated at once, each with a copy of the text
DARKEST = 1e-6  # the scale's lower end, in shares of its upper one; what is smaller, and not 0, is drawn like that


@dataclass(frozen=True)
class ReachFrame:
    """How much the state of the token at `place`, after the last layer, depends on each token at each depth."""

    place: int
    radius: int | None  # of the window; None where all see all
    global_places: tuple[int, ...]
    strength: np.ndarray  # (L + 1, T): row l is the output of l layers; row 0 the embeddings

    @property
    def arrives(self) -> np.ndarray:
        """Which tokens' embeddings change that state at all, bool (T,)."""
        return self.strength[0] > 0

    @property
    def steps(self) -> int | None:
        """In how many layers every token reaches the place; None: not in those there are."""
        complete = np.flatnonzero((self.strength > 0).all(1))
        return len(self.strength) - 1 - int(complete[-1]) if len(complete) else None

    def text(self) -> str:
        """The frame in one line, for readers who cannot see the picture."""
        near = "all" if self.radius is None else f"radius {self.radius}"
        counts = ", ".join(str(int((row > 0).sum())) for row in self.strength[::-1])
        return f"token {self.place}, {near}: tokens that reach it, from the last layer down to the embeddings: {counts}"


def reach_frame(model: SparseBert, ids: Tensor, place: int, global_mask: Tensor | None = None) -> ReachFrame:
    """Differentiate the last hidden state at `place` by the hidden state of each token after 0, 1, … L layers.

    ids (T,), global_mask (T,). strength[l, t] is the Frobenius norm of the Jacobian d h_L[place] / d h_l[t], computed
    exactly, channel by channel, and divided by sqrt(C), so that "passed on as it is" has strength 1; h_L is read before
    the final norm. Where no path leads, it is exactly 0. Raises ValueError for a model in training mode (dropout would
    draw), ids that are not (T,), or a place outside of them.
    """
    if model.training:
        raise ValueError("model is in training mode; call model.eval() first")
    for name, value in (("ids", ids), ("global_mask", global_mask)):
        if value is not None and value.ndim != 1:
            raise ValueError(f"{name} has shape {tuple(value.shape)}; needed is one text (T,)")
    check_range("place", place, 0, len(ids) - 1)
    width = model.config.d_model
    squares = torch.zeros(model.config.n_layers + 1, len(ids), dtype=torch.float64)
    for channels in torch.arange(width, device=ids.device).split(CHANNELS):
        states = _states(model, ids.expand(len(channels), -1), global_mask)
        # Each copy of the text answers for one channel: the gradient of their sum holds a row of the Jacobian in each.
        chosen = states[-1][:, place].gather(1, channels[:, None]).sum()
        for row, slope in zip(squares, torch.autograd.grad(chosen, states), strict=True):
            row += slope.double().square().sum((0, 2)).cpu()
    radius = None if model.config.pattern == "full" else model.config.radius
    if global_mask is None:
        global_mask = torch.arange(len(ids)) < (model.config.n_global if model.config.has_global else 0)
    return ReachFrame(place, radius, tuple(global_mask.nonzero().flatten().tolist()), (squares / width).sqrt().numpy())


def _states(model: SparseBert, ids: Tensor, global_mask: Tensor | None) -> list[Tensor]:
    """Output of the embeddings and of each block, (B, T, C) each, with a graph that begins at the first."""
    states: list[Tensor] = []

    def first(module: torch.nn.Module, inputs: object, output: Tensor) -> Tensor:
        states.append(output.detach().requires_grad_())
        return states[0]

    def later(module: torch.nn.Module, inputs: object, output: Tensor) -> None:
        states.append(output)

    hooks = [model.dropout.register_forward_hook(first), *(b.register_forward_hook(later) for b in model.blocks)]
    try:
        with torch.enable_grad():
            model.hidden(ids, global_mask=global_mask)
    finally:
        for hook in hooks:
            hook.remove()
    return states


def plot_reach(frames: Mapping[str, ReachFrame], title: str = "") -> Figure:
    """A map for each frame: tokens along x, depth up, colour the strength, one logarithmic scale; white is exactly 0.

    A dashed line is the cone of the window, `radius` places further with each layer; triangles mark global tokens.
    Raises ValueError for no frame, or frames of different places or numbers of layers.
    """
    if not frames:
        raise ValueError("frames is empty; give at least one")
    if len({(frame.place, len(frame.strength)) for frame in frames.values()}) > 1:
        raise ValueError("frames differ in their place or number of layers; one picture shows one place")
    highest = max(float(frame.strength.max()) for frame in frames.values())
    scale = LogNorm(highest * DARKEST, highest)
    width = min(10.0, 1.2 + 4.2 * len(frames))
    figure, axes = new_figure(len(frames), size=(width, 3.6), sharey=True)
    for ax, (name, frame) in zip(axes[0], frames.items(), strict=True):
        image = _draw_cone(ax, frame, scale)
        arrive = f"{int(frame.arrives.sum())} of {len(frame.arrives)} tokens arrive"
        if frame.steps is not None:
            arrive = f"all tokens, in {frame.steps} step{'s' * (frame.steps > 1)}"
        ax.set_title(f"{name}\n{arrive}", fontsize="small")
        ax.set_xlabel("token")
    layers = len(next(iter(frames.values())).strength) - 1
    names = ["embeddings", *(f"layer {i}" for i in range(1, layers + 1))]
    axes[0, 0].set_yticks(range(layers + 1), labels=names)
    bar = figure.colorbar(image, ax=axes[0], shrink=0.9, pad=0.02, extend="min")
    bar.set_label("strength (white: exactly 0)")
    bar.outline.set_visible(False)
    place = next(iter(frames.values())).place
    headline(figure, title or f"What reaches token {place} on its way through {layers} layers")
    return figure


def _draw_cone(ax: Axes, frame: ReachFrame, scale: LogNorm) -> mpl.image.AxesImage:
    layers, length = len(frame.strength) - 1, frame.strength.shape[1]
    shown = np.ma.masked_equal(frame.strength, 0).clip(float(scale.vmin or 0))
    colors = mpl.colormaps["viridis"].with_extremes(bad="white")
    image = ax.imshow(shown, cmap=colors, norm=scale, origin="lower", aspect="auto", interpolation="nearest")
    depths = np.arange(layers + 1)
    if frame.radius is not None:
        for sign in (-1, 1):
            edge = frame.place + sign * (frame.radius * (layers - depths) + 0.5)
            ax.stairs(edge, np.arange(layers + 2) - 0.5, orientation="horizontal", baseline=None, color=OKABE_ITO[1],
                      linestyle="--", lw=1.3)  # fmt: skip
    for token in frame.global_places:
        ax.plot(token, layers + 0.5, "v", color=OKABE_ITO[1], ms=7, mew=0, clip_on=False)
    ax.set(xlim=(-0.5, length - 0.5), ylim=(-0.5, layers + 0.5))
    for spine in ax.spines.values():
        spine.set(visible=True, color=GREY)
    return image
