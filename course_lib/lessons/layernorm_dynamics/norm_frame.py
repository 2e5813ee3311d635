"""One moment of a network's norms: computed from a trace, then drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from course_lib.checks import check_range
from course_lib.dynamics import EDGES
from course_lib.viz.plots import GREY, OKABE_ITO, headline, new_figure

DENSITY_LIMIT = 0.8  # twice the height of a normal curve
Traces = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class NormFrame:
    """What is known of one norm at one step: arrays over bins or channels, and the path of the gain so far."""

    norm: str
    layer: str
    step: int
    density: np.ndarray  # (bins,) of the normalised activations, before gain and bias
    gain: np.ndarray  # (C,)
    bias: np.ndarray | None  # (C,); None for an RMSNorm, which has none
    input_std: float
    distinct_rows: int  # how many different rows the pictures give
    path_steps: np.ndarray  # (S,) all steps of the trace
    path_gain: np.ndarray  # (S, 3) 5th, 50th and 95th percentile of the gain at each
    gain_limit: float  # half-width of the gain's axis, the same at all steps of this norm
    bias_limit: float

    def text(self) -> str:
        """The frame in one line, for readers who cannot see the picture."""
        bias = "no bias" if self.bias is None else f"bias {self.bias.mean():+.3f} ± {self.bias.std():.3f}"
        return (
            f"{self.norm}, {self.layer}, step {self.step}: gain {self.gain.mean():.3f} ± {self.gain.std():.3f}, "
            f"{bias}, spread of the input {self.input_std:.2f}, "
            f"{self.distinct_rows} different rows"
        )


def layer_names(trace: Mapping[str, Tensor]) -> list[str]:
    """Names for the L norms of a trace, from the first."""
    return [f"norm {i + 1} of {trace['gain'].shape[1]}" for i in range(trace["gain"].shape[1])]


def norm_frame(traces: Traces, norm: str, layer: int, step: int) -> NormFrame:
    """The norm number `layer` of the network `norm` at the last snapshot not after `step`.

    `traces` maps a network's name to `NormTrace.tensors()`. Raises ValueError for a network or layer that is not
    there, or a step before the first snapshot.
    """
    if norm not in traces:
        raise ValueError(f"norm={norm!r}; there are {', '.join(traces)}")
    trace = {name: tensor.float().numpy() for name, tensor in traces[norm].items()}
    n_layers = trace["gain"].shape[1]
    check_range("layer", layer, 0, n_layers - 1)
    index = int(np.searchsorted(trace["steps"], step, side="right")) - 1
    if index < 0:
        raise ValueError(f"step={step}; the first snapshot is at step {int(trace['steps'][0])}")
    return NormFrame(
        norm=norm,
        layer=layer_names(traces[norm])[layer],
        step=int(trace["steps"][index]),
        density=trace["density"][index, layer],
        gain=trace["gain"][index, layer],
        bias=None if np.isnan(trace["bias"]).any() else trace["bias"][index, layer],
        input_std=float(trace["input_std"][index, layer]),
        distinct_rows=int(trace["distinct_rows"][index, layer]),
        path_steps=trace["steps"],
        path_gain=np.percentile(trace["gain"][:, layer], (5, 50, 95), axis=-1).T,
        gain_limit=float(np.abs(trace["gain"][:, layer] - 1).max()) * 1.05 + 1e-3,
        bias_limit=float(np.nan_to_num(np.abs(trace["bias"][:, layer])).max()) * 1.05 + 1e-3,
    )


def plot_norm_frame(frame: NormFrame) -> Figure:
    """Four panels: normalised activations (against a normal curve), the gain's path, the gain, the bias."""
    figure, axes = new_figure(4, size=(10.0, 3.0))
    activations, path, gain, bias = axes[0]
    _draw_activations(activations, frame)
    low, median, high = frame.path_gain.T
    path.fill_between(frame.path_steps, low, high, color=OKABE_ITO[1], alpha=0.2, lw=0)
    path.plot(frame.path_steps, median, color=OKABE_ITO[1])
    path.axvline(frame.step, color="black", lw=1)
    path.set(title="gain: median, 5–95 %", xlabel="step", ylim=(1 - frame.gain_limit, 1 + frame.gain_limit))
    _draw_channels(gain, frame.gain, 1.0, frame.gain_limit, OKABE_ITO[1], "gain")
    _draw_channels(bias, frame.bias, 0.0, frame.bias_limit, OKABE_ITO[2], "bias")
    gain.set_ylabel("channels")
    headline(
        figure,
        f"{frame.norm}, {frame.layer}, step {frame.step}: input spread {frame.input_std:.2f}, "
        f"different rows: {frame.distinct_rows}",
    )
    return figure


def plot_norm_frames(frames: Sequence[NormFrame]) -> Figure:
    """Frames of one layer, step and learning rate side by side: above the normalised activations, below the gain.

    Raises ValueError for no frame, or frames that differ in these.
    """
    shared = {(f.norm.partition(" lr=")[2], f.layer.split(" of ")[0], f.step) for f in frames}
    if len(shared) != 1:
        raise ValueError(f"frames show {sorted(shared) or 'nothing'}; needed is one learning rate, norm and step")
    ((rate, layer, step),) = shared
    figure, axes = new_figure(len(frames), 2, size=(min(10.0, 4.0 * len(frames)), 5.2))
    for (top, below), frame in zip(axes.T, frames, strict=True):
        _draw_activations(top, frame)
        top.set_title(f"{frame.norm.partition(' lr=')[0]}: {frame.distinct_rows} different rows")
        _draw_channels(below, frame.gain, 1.0, max(f.gain_limit for f in frames), OKABE_ITO[1], "gain")
    axes[1, 0].set_ylabel("channels")
    headline(figure, f"learning rate {rate}, {layer}, step {step}")
    return figure


def _draw_activations(ax: Axes, frame: NormFrame) -> None:
    edges = EDGES.numpy()
    ax.stairs(frame.density, edges, color=OKABE_ITO[0], fill=True, alpha=0.5)
    x = np.linspace(edges[0], edges[-1], 200)
    ax.plot(x, np.exp(-x * x / 2) / np.sqrt(2 * np.pi), color=GREY, linestyle=":")
    ax.set(title="normalised activations", xlabel="value (before gain)", ylabel="density", ylim=(0, DENSITY_LIMIT))
    ends = (edges[0], 0, edges[-1])  # what lies outside counts in the last bin
    ax.set_xticks(ends, labels=(f"≤ −{-ends[0]:g}", "0", f"≥ {ends[2]:g}"))
    if frame.density.max() > DENSITY_LIMIT:  # rows that fell together share one bin
        _mark_cut(ax, f"{frame.density.max():.1f}", OKABE_ITO[0])
    ax.annotate("dotted:\nnormal", (0.03, 0.95), xycoords="axes fraction", va="top", color=GREY, fontsize="small")


def _draw_channels(ax: Axes, values: np.ndarray | None, start: float, limit: float, color: str, name: str) -> None:
    """Histogram over channels around the starting value, with one scale for all moments of a trace."""
    ax.set(title=f"{name} now", xlabel=f"{name} of a channel", xlim=(start - limit, start + limit))
    if values is None:
        ax.annotate("RMSNorm\nhas no bias", (0.5, 0.5), xycoords="axes fraction", ha="center", color=GREY)
        ax.set(xticks=[], yticks=[])
        return
    counts, edges = np.histogram(values, np.linspace(start - limit, start + limit, 32))
    ax.stairs(counts, edges, color=color, fill=True, alpha=0.7)
    ax.axvline(start, color=GREY, linestyle=":")
    top = len(values) / 3
    ax.set_ylim(0, top)
    if counts.max() > top:  # early on, most channels share one bin
        _mark_cut(ax, str(counts.max()), color)


def _mark_cut(ax: Axes, height: str, color: str) -> None:
    """Say how high the histogram goes where the axes end before it."""
    ax.annotate(f"cut: {height}", (0.56, 0.9), xycoords="axes fraction", color=color, fontsize="small")


def plot_sphere(points: Tensor, layer_normed: Tensor, rms_normed: Tensor) -> Figure:
    """Points in three dimensions (N, 3), coloured by where they were, before and after each norm."""
    clouds = {"before": points, "LayerNorm: a circle": layer_normed, "RMSNorm: a sphere": rms_normed}
    for name, cloud in clouds.items():
        if cloud.ndim != 2 or cloud.shape[1] != 3:
            raise ValueError(f"{name}: shape {tuple(cloud.shape)}; needed is (N, 3)")
    hue = np.abs(np.arctan2(*layer_normed.numpy()[:, :2].T))  # the direction in the plane of the circle
    figure, axes = new_figure(3, size=(10.0, 3.4), subplot_kw={"projection": "3d"})
    for ax, (name, cloud) in zip(axes[0], clouds.items(), strict=True):
        ax.scatter(*cloud.numpy().T, c=hue, cmap="viridis", s=8)
        ax.set(title=name, xlim=(-2, 2), ylim=(-2, 2), zlim=(-2, 2), xlabel="x₁", ylabel="x₂", zlabel="x₃")
        ax.set(xticks=(-1, 1), yticks=(-1, 1), zticks=(-1, 1))
        ax.set_box_aspect((1, 1, 1), zoom=1.0)
        ax.view_init(elev=22, azim=15)
    return figure
