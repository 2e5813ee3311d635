"""The widget of lesson 01: a slider over the steps of training, menus for the network and the norm."""

from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets

from course_lib.lessons.layernorm_dynamics.norm_frame import NormFrame, Traces, layer_names, norm_frame, plot_norm_frame
from course_lib.viz.widgets import ControlPanel


def norm_panel(traces: Traces) -> ControlPanel:
    """Explore what norms did while networks trained: slider over the step, menus for the network and the norm.

    `traces` maps a network's name to `NormTrace.tensors()`; all must have the same steps.
    Raises ValueError for no trace, or traces with different steps.
    """
    if len({tuple(trace["steps"].tolist()) for trace in traces.values()}) != 1:
        raise ValueError(f"traces: {', '.join(traces) or 'none'}; needed is at least one, all with the same steps")
    names = list(traces)
    steps = [int(step) for step in traces[names[0]]["steps"]]
    style, wide = {"description_width": "initial"}, widgets.Layout(width="380px")
    network = widgets.Dropdown(options=names, description="network", style=style)
    layer = widgets.Dropdown(options=_numbered(traces[names[0]]), description="layer", style=style)
    step = widgets.SelectionSlider(options=steps, value=steps[-1], description="step", style=style, layout=wide)

    def compute(norm: str, layer: int, step: int) -> NormFrame:
        return norm_frame(traces, norm, layer, step)

    def offer_layers() -> None:
        """Networks differ in their number of norms; stay at the same one where there is."""
        options, chosen = _numbered(traces[network.value]), layer.value
        if list(layer.options) != options:
            layer.options = options
            layer.value = min(chosen, len(options) - 1)

    return ControlPanel(compute, plot_norm_frame, {"norm": network, "layer": layer, "step": step}, offer_layers)


def _numbered(trace: Mapping[str, Any]) -> list[tuple[str, int]]:
    return [(name, i) for i, name in enumerate(layer_names(trace))]
