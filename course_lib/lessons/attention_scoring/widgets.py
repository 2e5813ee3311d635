"""Widgets of the scoring lesson: one softmax under sliders, and a trained lookup that can be asked."""

from collections.abc import Sequence
from dataclasses import dataclass

import ipywidgets as widgets
import torch

from course_lib.lessons.attention_scoring.score_frame import SCALES, WIDTHS, plot_score_frame, score_frame
from course_lib.models.lookup import Lookup, inside
from course_lib.viz.attention_maps import AttentionMaps
from course_lib.viz.explorer import AttentionExplorer, explore
from course_lib.viz.widgets import ControlPanel

MOST_QUESTIONS = 64


def score_panel() -> ControlPanel:
    """Explore the softmax of eight random scores: sliders over width and temperature, a menu for the scale."""
    style, wide = {"description_width": "initial"}, widgets.Layout(width="300px")
    controls = {
        "d": widgets.SelectionSlider(options=list(WIDTHS), value=64, description="width d", style=style, layout=wide),
        "temperature": widgets.FloatLogSlider(
            value=1.0, base=10, min=-1, max=2, step=0.1, description="temperature", readout_format=".2f",
            style=style, layout=wide,
        ),
        "scale": widgets.Dropdown(options=list(SCALES), value="none", description="scale", style=style),
    }  # fmt: skip
    return ControlPanel(score_frame, plot_score_frame, controls)


@dataclass(frozen=True)
class Atlas:
    """Names of all countries and capitals, by id, and the pairs (country, capital) that one made-up atlas has."""

    countries: Sequence[str]
    capitals: Sequence[str]
    pairs: Sequence[tuple[int, int]]


def atlas_maps(model: Lookup, atlas: Atlas, text: str) -> AttentionMaps:
    """Where the model's head looks when it is asked for the countries in `text`, separated by commas or lines.

    Countries need not be in the atlas. Raises ValueError for a name that is no country, no name, or more than 64.
    """
    names = [name.strip() for name in text.replace("\n", ",").split(",") if name.strip()]
    numbers = {name.casefold(): i for i, name in enumerate(atlas.countries)}
    unknown = [name for name in names if name.casefold() not in numbers]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not one of the {len(numbers)} countries; try {atlas.countries[0]}.")
    if not 1 <= len(names) <= MOST_QUESTIONS:
        raise ValueError(f"{len(names)} countries; type 1 to {MOST_QUESTIONS}, separated by commas.")
    device = next(model.parameters()).device
    asked = torch.tensor([[numbers[name.casefold()] for name in names]], device=device)
    words, answers = (torch.tensor([ids], device=device) for ids in zip(*atlas.pairs, strict=True))
    with torch.no_grad():
        best = model(asked, words, answers)[0].softmax(-1).max(-1)
    said = [
        f"{atlas.countries[country]}: {atlas.capitals[capital]} ({chance:.0%})"
        for country, capital, chance in zip(asked[0].tolist(), best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    more = f", and {len(said) - 4} more" if len(said) > 4 else ""
    return AttentionMaps(
        weights=inside(model, asked, words, answers).weights.float().cpu().numpy(),
        queries=[atlas.countries[i] for i in asked[0].tolist()],
        keys=[atlas.countries[country] for country, _ in atlas.pairs],
        note=f"The model answers: {', '.join(said[:4])}{more}.",
    )


def atlas_explorer(model: Lookup, atlas: Atlas, text: str) -> AttentionExplorer:
    """Explore `atlas_maps`: type countries, see where the head looks for each of them."""
    return explore(lambda typed: atlas_maps(model, atlas, typed), text)
