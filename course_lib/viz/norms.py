"""One moment of a network's norms: computed from a trace, then drawn."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from course_lib.dynamics import EDGES
from course_lib.viz.plots import GREY, OKABE_ITO, new_figure

Traces = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class NormFrame:
    """What is known of one norm at one step: arrays over bins or channels, and the path of the gain so far."""

    norm: str
    layer: str
    step: int
    density: np.ndarray  # (bins,) of the normalised activations, before gain and bias
    gain: np.ndarray  # (C,)
    bias: np.ndarray  # (C,)
    input_std: float
    path_steps: np.ndarray  # (S,) all steps of the trace
    path_gain: np.ndarray  # (S, 3) 5th, 50th and 95th percentile of the gain at each
    gain_limit: float  # half-width of the gain's axis, the same for all frames of a trace
    bias_limit: float

    def text(self) -> str:
        """The frame in one line, for readers who cannot see the picture."""
        return (
            f"{self.norm}, {self.layer}, step {self.step}: gain {self.gain.mean():.3f} ± {self.gain.std():.3f}, "
            f"bias {self.bias.mean():+.3f} ± {self.bias.std():.3f}, spread of the input {self.input_std:.2f}"
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
    if not 0 <= layer < n_layers:
        raise ValueError(f"layer={layer}; allowed is 0 to {n_layers - 1}")
    index = int(np.searchsorted(trace["steps"], step, side="right")) - 1
    if index < 0:
        raise ValueError(f"step={step}; the first snapshot is at step {int(trace['steps'][0])}")
    return NormFrame(
        norm=norm,
        layer=layer_names(traces[norm])[layer],
        step=int(trace["steps"][index]),
        density=trace["density"][index, layer],
        gain=trace["gain"][index, layer],
        bias=trace["bias"][index, layer],
        input_std=float(trace["input_std"][index, layer]),
        path_steps=trace["steps"],
        path_gain=np.percentile(trace["gain"][:, layer], (5, 50, 95), axis=-1).T,
        gain_limit=float(np.abs(trace["gain"] - 1).max()) * 1.05 + 1e-3,
        bias_limit=float(np.abs(trace["bias"]).max()) * 1.05 + 1e-3,
    )


def plot_norm_frame(frame: NormFrame) -> Figure:
    """Four panels: normalised activations (against a normal curve), the gain's path, the gain, the bias."""
    figure, axes = new_figure(4, size=(10.0, 3.0))
    activations, path, gain, bias = axes[0]
    edges = EDGES.numpy()
    activations.stairs(frame.density, edges, color=OKABE_ITO[0], fill=True, alpha=0.5)
    x = np.linspace(edges[0], edges[-1], 200)
    activations.plot(x, np.exp(-x * x / 2) / np.sqrt(2 * np.pi), color=GREY, linestyle=":")
    activations.set(title="normalised activations", xlabel="value (before gain)", ylabel="density", ylim=(0, 0.8))
    activations.annotate(
        "dotted:\nnormal", (0.03, 0.95), xycoords="axes fraction", va="top", color=GREY, fontsize="small"
    )

    path.fill_between(
        frame.path_steps, frame.path_gain[:, 0], frame.path_gain[:, 2], color=OKABE_ITO[1], alpha=0.2, lw=0
    )
    path.plot(frame.path_steps, frame.path_gain[:, 1], color=OKABE_ITO[1])
    path.axvline(frame.step, color="black", lw=1)
    path.set(title="gain: median, 5–95 %", xlabel="step", ylim=(1 - frame.gain_limit, 1 + frame.gain_limit))

    for ax, values, centre, limit, color, name in (
        (gain, frame.gain, 1.0, frame.gain_limit, OKABE_ITO[1], "gain"),
        (bias, frame.bias, 0.0, frame.bias_limit, OKABE_ITO[2], "bias"),
    ):
        ax.hist(values, bins=np.linspace(centre - limit, centre + limit, 31), color=color, alpha=0.7)
        ax.axvline(centre, color=GREY, linestyle=":")
        ax.set(title=f"{name} now", xlabel=f"{name} of a channel", ylim=(0, len(values) / 2))
    gain.set_ylabel("channels")
    figure.suptitle(
        f"{frame.norm}, {frame.layer}, step {frame.step}: the input has spread {frame.input_std:.2f}",
        x=0.01, ha="left", fontweight="bold", fontsize="medium",
    )  # fmt: skip
    return figure
