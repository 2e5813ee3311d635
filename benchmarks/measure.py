"""Run a case: first show that ours and the rivals compute the same, then time them."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import AGAIN, Case, Race, Setting
from benchmarks.flops import fastest_product, share_of_peak
from benchmarks.timing import difference, ratio, take_turns

Row = dict[str, Any]
PEAK = "matmul peak"  # the name of its turn


class Disagreement(Exception):
    """Ours and a rival computed different things: their times cannot be compared."""


def check_agreement(race: Race) -> None:
    """Call each run once and compare all tensors with the first rival's; Disagreement names what differs."""
    (reference, want), *others = [(name, run()) for name, run in race.runs.items()]
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


def race_rows(
    setting: Setting, race: Race, seconds: Mapping[str, list[float]], peak: Sequence[float] | None
) -> list[Row]:
    """One row for each pair, from the seconds and the matmul `peak` (FLOP/s) of each round; the control comes first.

    The control is each rival beside its copy: what a ratio looks like where nothing differs; its difference is None.
    Numbers are medians over rounds, interval is the 95 % interval of ratio. matmul_peak is in GFLOP/s; it and the
    shares of it, peak_share and rival_peak_share, are None where `peak` is.
    """
    rows = []
    pairs = [(AGAIN + rival, rival) for rival in race.rivals]
    pairs += [(name, rival) for name in race.ours for rival in race.rivals]
    for name, rival in pairs:
        quotient, control = (ratio(seconds[run], seconds[rival]) for run in (name, AGAIN + rival))
        row: Row = {"setting": setting, "dtype": str(race.dtype).removeprefix("torch."), "name": name}
        row |= {"rival": rival, "ratio": _short(quotient.median)}
        row |= {"interval": [_short(quotient.low), _short(quotient.high)]}
        row |= {"difference": difference(quotient, control) if name in race.ours else None}
        row |= {"seconds": _short(statistics.median(seconds[name]))}
        row |= {"rival_seconds": _short(statistics.median(seconds[rival])), "flops": race.model_flops}
        rows.append(row | _use(race, seconds[name], seconds[rival], peak))
    return rows


def _use(race: Race, seconds: Sequence[float], rival_seconds: Sequence[float], peak: Sequence[float] | None) -> Row:
    if race.model_flops is None or peak is None:
        return dict.fromkeys(("matmul_peak", "peak_share", "rival_peak_share"))
    return {
        "matmul_peak": _short(statistics.median(peak) / 1e9),
        "peak_share": _short(share_of_peak(race.model_flops, seconds, peak)),
        "rival_peak_share": _short(share_of_peak(race.model_flops, rival_seconds, peak)),
    }


def _short(number: float) -> float:
    return float(f"{number:.4g}")


def measure(case: Case, repeats: int, device: torch.device) -> dict[str, Any]:
    """All races of `case`: its name and question, and the rows.

    Where FLOPs are counted, a matrix product takes its turn in each round too: the matmul peak of that round.
    Raises Disagreement before anything of a race is timed, and ValueError, at its end, for fewer than 6 repeats.
    """
    rows: list[Row] = []
    for setting in case.settings:
        race = case.race(setting, device)
        check_agreement(race)
        if race.model_flops is None:
            rows += race_rows(setting, race, take_turns(race.runs, repeats, device), None)
        else:
            product = fastest_product(device, race.dtype)
            seconds = take_turns({**race.runs, PEAK: product.run}, repeats, device)
            rows += race_rows(setting, race, seconds, [product.flops / s for s in seconds[PEAK]])
    return {"case": case.name, "question": case.question, "repeats": repeats, "rows": rows}
