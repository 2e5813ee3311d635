"""How time and memory of attention grow with the length of the text: measured, and drawn on logarithmic axes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from torch import Tensor

from course_lib.attention.global_local import global_local_attention
from course_lib.attention.local import local_attention
from course_lib.attention.sdpa import attention
from course_lib.experiments import load
from course_lib.measure import peak_bytes, seconds, slope
from course_lib.viz.plots import GREY, OKABE_ITO, Line, draw_lines, headline, label_lines, new_figure

LENGTHS = (256, 512, 1024, 2048, 4096)
NAMES = ("full, weights stored", "full, fused", "window, dense mask", "window, unfolded", "window, blocked")
# The longest text that each is measured with; the others have no end.
LONGEST = MappingProxyType({NAMES[0]: 2048, NAMES[1]: 2048, NAMES[2]: 2048, NAMES[3]: 2048})
COLORS = {name: OKABE_ITO[i] for name, i in zip((*NAMES, "window + global, blocked"), (1, 4, 3, 5, 0, 2), strict=True)}


class Complexity(NamedTuple):
    """One measurement: seconds of the fastest call, and the most bytes alive at one moment over what was before."""

    name: str
    length: int
    seconds: float
    bytes: int


def attention_of(name: str, radius: int, length: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The function f(q, k, v) called `name`; ValueError for an unknown name."""
    known: dict[str, Callable[..., Any]] = {
        "full, weights stored": partial(attention, impl="explicit"),
        "full, fused": attention,
        "window, dense mask": partial(local_attention, radius=radius, impl="dense"),
        "window, unfolded": partial(local_attention, radius=radius, impl="unfold"),
        "window, blocked": partial(local_attention, radius=radius),
        "window + global, blocked": partial(
            global_local_attention, radius=radius, global_mask=torch.arange(length) == 0
        ),
    }
    if name not in known:
        raise ValueError(f"name={name!r}; allowed are {'; '.join(known)}")
    return known[name]


def measure_complexity(
    names: Sequence[str] = NAMES,
    lengths: Sequence[int] = LENGTHS,
    heads: int = 8,
    head_dim: int = 64,
    radius: int = 64,
    progress: Callable[[int, int], object] = lambda done, total: None,
    backward: bool = False,
    device: torch.device | str = "cpu",
    repeats: int = 3,
    longest: Mapping[str, int] = LONGEST,
) -> list[Complexity]:
    """Time each attention in `names` on one text of each length, up to its own `longest`, and count its memory.

    With `backward` the gradients of queries, keys and values are computed too. `progress(done, total)` is called before
    the first measurement and after each. Raises ValueError for an unknown name.
    """
    todo = [(name, length) for length in sorted(lengths) for name in names if length <= longest.get(name, length)]
    rows = []
    progress(0, len(todo))
    for done, (name, length) in enumerate(todo, 1):
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(3, 1, heads, length, head_dim, generator=generator, dtype=torch.float32)
        q, k, v = (t.to(device) for t in drawn)
        run = partial(_run, attention_of(name, radius, length), q, k, v, backward)
        rows.append(Complexity(name, length, min(seconds(run, device, repeats)), peak_bytes(run, device)))
        progress(done, len(todo))
    return rows


def recorded_complexity(backward: bool = False) -> list[Complexity]:
    """The rows that `python -m benchmarks.scaling` recorded, without or with the backward pass."""
    rows = load("bench/scaling")["rows"]
    return [Complexity(**{f: row[f] for f in Complexity._fields}) for row in rows if row["backward"] == backward]


def _run(attend: Callable[[Tensor, Tensor, Tensor], Tensor], q: Tensor, k: Tensor, v: Tensor, backward: bool) -> None:
    with torch.set_grad_enabled(backward):
        leaves = [t.detach().requires_grad_(backward) for t in (q, k, v)]
        y = attend(*leaves)
        if backward:
            torch.autograd.grad(y.sum(), leaves)


def exponent(lengths: Sequence[float], values: Sequence[float]) -> float:
    """The slope on logarithmic axes, fitted over the longest three lengths: short texts measure what each call costs.

    Raises ValueError as `measure.slope` does.
    """
    pairs = sorted(zip(lengths, values, strict=True))[-3:]
    return slope([n for n, _ in pairs], [value for _, value in pairs])


def plot_complexity(rows: Sequence[Complexity], recorded: Sequence[Complexity] = ()) -> Figure:
    """Seconds and memory against the length on logarithmic axes, each line with its slope beside it.

    Solid lines are `rows`, dashed ones `recorded`; a slope is that of the solid line where there is one. A line stops
    where the next length would take too long. The title says what was recorded, if anything was. Raises ValueError
    where both are empty.
    """
    if not rows and not recorded:
        raise ValueError("rows is empty; measure something first")
    figure, axes = new_figure(2, size=(10.0, 4.4))
    panels = (("time of one call", "milliseconds", "seconds", 1e3), ("peak memory", "MB", "bytes", 1e-6))
    ends = {}
    for ax, (title, unit, what, scale) in zip(axes[0], panels, strict=True):
        old, new = _lines(recorded, what, scale, dashed=True), _lines(rows, what, scale)
        ax.set(xscale="log", yscale="log", xlabel="T (tokens)", ylabel=unit, title=title)
        ticks = sorted({row.length for row in (*rows, *recorded)})
        ticks = ticks[:: 1 + len(ticks) // 6]
        ax.set_xticks(ticks, labels=[f"{tick:,}" for tick in ticks])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        draw_lines(ax, old)
        draw_lines(ax, new)
        label_lines(ax, {_labelled(name, line): line for name, line in (old | new).items()}, gap=0.075)
        ends[what] = {name: _slope(line) for name, line in (new | old).items()}  # for the title, recorded in peace
    note = "A line ends where the next length would take too long; the power of T is fitted to its last three points."
    if rows and recorded:
        note = f"Solid: measured now. Dashed: recorded. {note}"
    figure.supxlabel(note, x=0.01, ha="left", fontsize="small", color=GREY)
    headline(figure, _finding(ends["seconds"]))
    return figure


def _lines(rows: Sequence[Complexity], what: str, scale: float, dashed: bool = False) -> dict[str, Line]:
    lines = {}
    for name in dict.fromkeys(row.name for row in rows):
        own = sorted(row for row in rows if row.name == name)
        color = COLORS.get(name, "#000000")
        lines[name] = Line([r.length for r in own], [getattr(r, what) * scale for r in own], dashed=dashed, color=color)
    return lines


def _slope(line: Line) -> float:
    x, y = np.asarray(line.x, float).tolist(), np.asarray(line.y, float).tolist()
    return exponent(x, y) if len(x) > 1 else float("nan")


def _labelled(name: str, line: Line) -> str:
    return f"{name}: {_power(_slope(line))}" if np.isfinite(_slope(line)) else name


def _finding(slopes: Mapping[str, float]) -> str:
    """What the slopes of time say, for the title."""
    blocked, dense = (slopes.get(name, float("nan")) for name in ("window, blocked", "window, dense mask"))
    if not np.isfinite([blocked, dense]).all():
        return "Time and memory against the length"
    return f"In blocks a window's time grows as {_power(blocked)}, with a mask over all pairs as {_power(dense)}"


def _power(p: float) -> str:
    return rf"$T^{{{p:.1f}}}$"
