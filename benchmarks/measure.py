"""Run a case: first show that ours and the rivals compute the same, then time them."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import Case, Race, Setting
from benchmarks.flops import matmul_peak, utilisation
from benchmarks.timing import ratio, take_turns

Row = dict[str, Any]
AGAIN = "again: "


class Disagreement(Exception):
    """Ours and a rival computed different things: their times cannot be compared."""


def check_agreement(race: Race) -> None:
    """Call each run once and compare all tensors with the first rival's; Disagreement names what differs."""
    (reference, want), *others = [(name, run()) for name, run in {**race.rivals, **race.ours}.items()]
    for name, got in others:
        if got.keys() != want.keys():
            raise Disagreement(f"{name} returns {', '.join(got)}, {reference} returns {', '.join(want)}")
        for key in want:
            if got[key].shape != want[key].shape or got[key].dtype != want[key].dtype:
                raise Disagreement(f"{key}: {name} gives {_kind(got[key])}, {reference} {_kind(want[key])}")
            error = _relative_error(got[key], want[key])
            if not error <= race.tolerance:  # a nan is a disagreement too
                raise Disagreement(f"{key}: {name} and {reference} differ by {error:.1e}, allowed is {race.tolerance}")


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}"


def _relative_error(got: Tensor, want: Tensor) -> float:
    scale = want.double().abs().max().clamp(min=1e-30)
    return float((got.double() - want.double()).abs().max() / scale)


def race_rows(setting: Setting, race: Race, seconds: Mapping[str, list[float]]) -> list[Row]:
    """One row for each pair of ours and a rival, from their seconds in each round; before them the control.

    The control is each rival beside itself: what a ratio looks like where nothing differs. seconds are medians over
    rounds, ratio is the median of the rounds' ratios and interval its 95 % interval; flops may be None.
    """
    rows = []
    pairs = [(AGAIN + rival, rival) for rival in race.rivals]
    pairs += [(name, rival) for name in race.ours for rival in race.rivals]
    for name, rival in pairs:
        quotient = ratio(seconds[name], seconds[rival])
        row: Row = {"setting": setting, "dtype": str(race.dtype).removeprefix("torch."), "name": name}
        row |= {"rival": rival, "ratio": _short(quotient.median)}
        row |= {"interval": [_short(quotient.low), _short(quotient.high)], "flops": race.model_flops}
        row |= {"seconds": _short(statistics.median(seconds[name]))}
        row |= {"rival_seconds": _short(statistics.median(seconds[rival]))}
        rows.append(row)
    return rows


def _runs(race: Race) -> dict[str, Callable[[], object]]:
    return {**race.ours, **race.rivals, **{AGAIN + name: run for name, run in race.rivals.items()}}


def with_mfu(row: Row, peak: float) -> Row:
    """`row` with both sides' utilisation of `peak` (FLOP/s), mfu and rival_mfu; None where no FLOPs are counted."""
    sides = {"mfu": row["seconds"], "rival_mfu": row["rival_seconds"]}
    if row["flops"] is None:
        return row | dict.fromkeys(sides)
    return row | {side: _short(utilisation(row["flops"], seconds, peak)) for side, seconds in sides.items()}


def _short(number: float) -> float:
    return float(f"{number:.4g}")


def measure(case: Case, repeats: int, device: torch.device) -> dict[str, Any]:
    """All races of `case`: its name and question, the rows, and the matmul peaks of the dtypes used, in GFLOP/s.

    Raises Disagreement before anything of a race is timed, and ValueError, at its end, for fewer than 6 repeats.
    """
    rows: list[Row] = []
    peaks: dict[str, float] = {}
    for setting in case.settings:
        race = case.race(setting, device)
        check_agreement(race)
        new = race_rows(setting, race, take_turns(_runs(race), repeats, device))
        dtype = new[0]["dtype"]
        if dtype not in peaks or race.model_flops is not None:  # again each time: a neighbour may have halved the last
            peaks[dtype] = max(peaks.get(dtype, 0.0), matmul_peak(device, race.dtype))
        rows += new
    return {
        "case": case.name,
        "question": case.question,
        "repeats": repeats,
        "matmul_peak": {dtype: _short(peak / 1e9) for dtype, peak in peaks.items()},
        "rows": [with_mfu(row, peaks[row["dtype"]]) for row in rows],
    }
