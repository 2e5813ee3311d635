"""Run a study and record it: `python -m course_lib.experiments NAME`.

Finished runs are saved as they end; calling again goes on with what is missing. With --set the record goes into a
file of its own (`results/NAME,field=value.json`), so that it cannot be taken for the study's.
"""

import argparse
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch

from course_lib.experiments import record as records
from course_lib.experiments.study import STUDIES, Outcome, Study, changed, get_study
from course_lib.paths import shipped


def run_one(name: str, config: dict[str, Any], seed: int) -> tuple[Outcome, float]:
    """One run of the study `name`, on one thread: the bits then do not depend on the number of cores."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    return get_study(name).run(config, seed, None), time.perf_counter() - start


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; --set values are read as JSON, else as text."""
    parser = argparse.ArgumentParser("python -m course_lib.experiments", description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="only these arms")
    parser.add_argument("--seeds", type=int, help="how many seeds, from 0 (default: the study's)")
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="change the config of all arms")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many runs at a time (default: cores)")
    parser.add_argument("--list", action="store_true", help="print the arms and stop")
    return parser.parse_args(argv)


def overrides(pairs: list[str]) -> dict[str, Any]:
    """`["steps=50", "norm=none"]` -> `{"steps": 50, "norm": "none"}`; ValueError for a pair without "="."""
    values: dict[str, Any] = {}
    for pair in pairs:
        field, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"set: {pair!r} is not of the form field=value")
        try:
            values[field] = json.loads(value)
        except json.JSONDecodeError:
            values[field] = value
    return values


def missing_runs(
    study: Study, record: dict[str, Any], arms: list[str] | None, seeds: int, change: dict[str, Any]
) -> list:
    """(arm, seed, config) of every wanted run that `record` does not hold with the same config."""
    unknown = sorted(set(arms or ()) - set(study.arms))
    if unknown:
        raise ValueError(f"arms: {', '.join(unknown)} unknown; there are {', '.join(study.arms)}")
    done = {(a["name"], a["seed"]): a["config"] for a in record["arms"]}
    wanted = [
        (arm, seed, changed(dict(study.arms[arm]), change)) for arm in arms or study.arms for seed in range(seeds)
    ]
    return [run for run in wanted if done.get(run[:2]) != run[2]]


def main(argv: list[str] | None = None) -> None:
    """Run what is missing of a study, saving each run as it ends."""
    args = parse(argv)
    study = get_study(args.study)
    if args.list:
        print("\n".join(f"{name}: {config}" for name, config in study.arms.items()))
        return
    seeds = study.seeds if args.seeds is None else args.seeds
    if seeds < 1:
        raise ValueError(f"seeds={seeds}; it must be at least 1")
    name = ",".join([args.study, *args.set])
    path = shipped("results") / f"{name}.json"
    record = json.loads(path.read_text("utf-8")) if path.exists() else records.empty(study)
    if record["arms"] and not study.prediction.startswith(record["prediction"]):
        raise ValueError(f"{name}: the prediction was changed after runs were recorded; it may only be added to")
    record |= {"question": study.question, "prediction": study.prediction}
    todo = missing_runs(study, record, args.arms, seeds, overrides(args.set))
    print(f"{name}: {len(todo)} runs to do, {len(record['arms'])} recorded")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        futures = {pool.submit(run_one, study.name, config, seed): (arm, seed, config) for arm, seed, config in todo}
        for count, future in enumerate(as_completed(futures), 1):
            arm, seed, config = futures[future]
            outcome, seconds = future.result()
            if outcome.tensors:
                records.save_tensors(records.tensors_path(name, arm, seed), outcome.tensors)
            record = records.with_run(record, arm, seed, config, outcome, seconds)
            records.save(path, record)
            print(f"{count}/{len(todo)} {arm} seed {seed}: {outcome.metrics} ({seconds:.0f} s)", flush=True)
