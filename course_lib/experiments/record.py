"""The files in `results/`: read by notebooks and tests, written arm by arm while a study runs."""

import json
import math
import os
import platform
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor

from course_lib.experiments.study import Outcome, Study
from course_lib.paths import sha256, shipped, whole_or_nothing
from course_lib.training.packing import plain

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, Any]


def path_of(name: str) -> Path:
    """File of the study `name` in `results/`."""
    return shipped("results") / f"{name}.json"


def tensors_path(name: str, arm: str, seed: int) -> Path:
    """File with the tensors of one run."""
    return shipped("results") / name / f"{arm.replace(' ', '-')}-seed{seed}.safetensors"


def load(name: str) -> Record:
    """The recorded study `name`; FileNotFoundError says how to record it, ValueError that the file is damaged."""
    path = path_of(name)
    if not path.is_file():
        raise FileNotFoundError(f"results/{path.name} is missing: {_again(name)}")
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(
            f"results/{path.name} is damaged ({error}): restore it, or delete it and {_again(name)}"
        ) from error


def load_tensors(name: str, arm: str, seed: int = 0) -> dict[str, Tensor]:
    """Tensors that one run of the study kept, after their SHA-256 was compared with the recorded one.

    Raises FileNotFoundError where the run kept none, ValueError for a file that is not the recorded one.
    """
    path = tensors_path(name, arm, seed)
    if not path.is_file():
        raise FileNotFoundError(f"results/{name}/{path.name} is missing: {_again(name)}")
    recorded = {(run["name"], run["seed"]): run.get("sha256") for run in load(name)["arms"]}
    if sha256(path) != recorded.get((arm, seed)):
        raise ValueError(f"results/{name}/{path.name} is not the file that was recorded: restore it, or {_again(name)}")
    return load_file(path)


def intact(name: str, run: Record) -> bool:
    """Whether the tensors that a run kept are there, as they were written; true for a run that kept none."""
    path = tensors_path(name, run["name"], run["seed"])
    return "sha256" not in run or (path.is_file() and sha256(path) == run["sha256"])


def _again(name: str) -> str:
    study, *change = name.split(",")
    return f"run `python -m course_lib.experiments {' '.join([study, *(['--set', *change] if change else [])])}`"


def as_frame(record: Record) -> "pd.DataFrame":
    """One row a run: arm, seed, params, seconds, then the config's fields and the metrics as columns.

    Raises ValueError where two of them have the same name.
    """
    import pandas as pd

    rows = []
    for run in record["arms"]:
        first = {"arm": run["name"], "seed": run["seed"], "params": run["params"], "seconds": run["seconds"]}
        row = first | run["config"] | run["metrics"]
        if len(row) < len(first) + len(run["config"]) + len(run["metrics"]):
            raise ValueError(f"{record['study']}: a name stands for two columns of {run['name']}, one of {sorted(row)}")
        rows.append(row)
    return pd.DataFrame(rows)


def lock(name: str) -> FileLock:
    """Held while the record `name` is read and written again: several processes may run one study."""
    return FileLock(f"{path_of(name)}.lock")


def begin(study: Study, name: str) -> Record:
    """The record `name` of `study` so far; ValueError where the prediction was changed after runs were recorded."""
    record: Record = load(name) if path_of(name).exists() else {"study": study.name, "arms": []}
    if record["arms"] and not study.prediction.startswith(record["prediction"]):
        raise ValueError(f"{name}: the prediction was changed after runs were recorded; it may only be added to")
    first = {"study": study.name, "question": study.question, "prediction": study.prediction}
    return first | {key: value for key, value in record.items() if key not in first}


def add(study: Study, name: str, arm: str, seed: int, config: dict[str, Any], outcome: Outcome, seconds: float) -> None:
    """Save one finished run, tensors first, beside all that other processes saved meanwhile.

    It takes the place of an older one of the same arm and seed. Numbers that are not finite become None.
    """
    run = {"name": arm, "seed": seed, "config": config, "params": outcome.params}
    run |= {"curve": finite(outcome.curve), "metrics": finite(outcome.metrics), "seconds": round(seconds, 2)}
    with lock(name):
        if outcome.tensors:
            path = tensors_path(name, arm, seed)
            save_tensors(path, outcome.tensors)
            run["sha256"] = sha256(path)
        save(path_of(name), with_run(begin(study, name), run))


def finite(value: Any) -> Any:
    """`value` with None for each infinity or not-a-number in it, however deep: JSON has neither."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def with_run(record: Record, run: Record) -> Record:
    """`record` with one finished run added, in the place of an older one of the same arm and seed."""
    arm, seed = run["name"], run["seed"]
    others = [a for a in record["arms"] if (a["name"], a["seed"]) != (arm, seed)]
    arms = sorted([*others, run], key=lambda a: (a["name"], a["seed"]))
    return record | {"arms": arms} | circumstances()


def save(path: Path, record: Record, items: str = "arms") -> None:
    """Write the record whole or not at all, each of its `items` on a line, so that a diff shows what changed."""
    head = json.dumps({k: v for k, v in record.items() if k != items}, ensure_ascii=False, indent=1, allow_nan=False)
    lines = ",\n".join(json.dumps(item, ensure_ascii=False, allow_nan=False) for item in record[items])
    with whole_or_nothing(path) as temporary:
        temporary.write_text(f'{head[:-2]},\n "{items}": [\n{lines}\n]\n}}\n', "utf-8")


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a run's tensors whole or not at all."""
    with whole_or_nothing(path) as temporary:
        save_file(plain(tensors), temporary)


def circumstances() -> Record:
    """Hardware, versions and date: where and when numbers were measured."""
    from course_lib import __version__

    versions = {"course_lib": __version__, "python": platform.python_version(), "torch": torch.__version__}
    hardware = {"processor": platform.machine(), "cores": os.cpu_count(), "cuda": torch.cuda.is_available()}
    return {"hardware": hardware, "versions": versions, "date": date.today().isoformat()}
