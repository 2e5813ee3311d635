"""The files in `results/`: read by notebooks and tests, written arm by arm while a study runs."""

import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from course_lib.experiments.study import Outcome, Study
from course_lib.paths import shipped, whole_or_nothing

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
    """The recorded study `name`; FileNotFoundError says how to record it."""
    path = path_of(name)
    if not path.is_file():
        raise FileNotFoundError(f"results/{path.name} is missing: run `python -m course_lib.experiments {name}`")
    return json.loads(path.read_text("utf-8"))


def load_tensors(name: str, arm: str, seed: int = 0) -> dict[str, Tensor]:
    """Tensors that one run of the study kept; FileNotFoundError where it kept none."""
    path = tensors_path(name, arm, seed)
    if not path.is_file():
        raise FileNotFoundError(f"results/{name}/{path.name} is missing: run `python -m course_lib.experiments {name}`")
    return load_file(path)


def as_frame(record: Record) -> "pd.DataFrame":
    """One row a run: arm, seed, params, seconds, then the config's fields and the metrics as columns."""
    import pandas as pd

    return pd.DataFrame(
        {"arm": a["name"], "seed": a["seed"], "params": a["params"], "seconds": a["seconds"]}
        | a["config"]
        | a["metrics"]
        for a in record["arms"]
    )


def empty(study: Study) -> Record:
    """A record of `study` without runs."""
    return {"study": study.name, "question": study.question, "prediction": study.prediction, "arms": []}


def with_run(record: Record, arm: str, seed: int, config: dict[str, Any], outcome: Outcome, seconds: float) -> Record:
    """`record` with one finished run added, in the place of an older one of the same arm and seed."""
    run = {"name": arm, "seed": seed, "config": config, "params": outcome.params}
    run |= {"curve": outcome.curve, "metrics": outcome.metrics, "seconds": round(seconds, 2)}
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
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)


def circumstances() -> Record:
    """Hardware, versions and date: where and when numbers were measured."""
    from course_lib import __version__

    versions = {"course_lib": __version__, "python": platform.python_version(), "torch": torch.__version__}
    hardware = {"processor": platform.machine(), "cores": os.cpu_count(), "cuda": torch.cuda.is_available()}
    return {"hardware": hardware, "versions": versions, "date": date.today().isoformat()}
