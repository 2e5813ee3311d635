"""Run a study and record it: `python -m course_lib.experiments NAME`.

Finished runs are saved as they end; calling again goes on with what is missing, and several calls may run at once.
With --set the record goes into a file of its own (`results/NAME,field=value.json`), and its arms carry the change in
their names, so that they cannot be taken for the study's.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch

from course_lib.experiments import record as records
from course_lib.experiments.study import STUDIES, Config, Outcome, Study, changed, get_study


def run_one(name: str, config: dict[str, Any], seed: int) -> tuple[Outcome, float]:
    """One run of the study `name`, on its number of threads: the bits then do not depend on the number of cores."""
    study = get_study(name)
    torch.set_num_threads(study.threads)
    start = time.perf_counter()
    return study.run(config, seed, None), time.perf_counter() - start


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; --set values are read as JSON, else as text."""
    parser = argparse.ArgumentParser("python -m course_lib.experiments", description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--arms", nargs="+", action="extend", metavar="ARM", help="only these arms")
    parser.add_argument("--seeds", type=int, help="how many seeds, from 0 (default: the study's)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help="change the config of all arms"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many runs at a time (default: cores)")
    parser.add_argument("--list", action="store_true", help="print the arms and stop")
    return parser.parse_args(argv)


def overrides(pairs: list[str]) -> Config:
    """`["steps=50", "norm=none"]` -> `{"norm": "none", "steps": 50}`, sorted.

    ValueError for a pair without "=", a field given twice, a "/" (the record's file is named like the change), and
    numbers that are not finite.
    """
    values: Config = {}
    for pair in sorted(pairs):
        field, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"set: {pair!r} is not of the form field=value")
        if "/" in pair:
            raise ValueError(f"set: {pair!r} holds a '/', and cannot name a file")
        if field in values:
            raise ValueError(f"set: {field} is given twice")
        try:
            values[field] = json.loads(value)
        except json.JSONDecodeError:
            values[field] = value
        if records.finite(values[field]) != values[field]:
            raise ValueError(f"set: {pair!r} is not finite")
    return values


def marked(name: str, change: Config) -> str:
    """The name of a study or an arm with the change that --set made to it."""
    texts = {field: value if isinstance(value, str) else json.dumps(value) for field, value in change.items()}
    return ",".join([name, *(f"{field}={text}" for field, text in texts.items())])


def missing_runs(
    study: Study, record: records.Record, arms: list[str] | None, seeds: int | None, change: Config
) -> list:
    """(arm, seed, config) of every wanted run that `record` does not hold, with the same config and its tensors."""
    unknown = sorted(set(arms or ()) - set(study.arms))
    if unknown:
        raise ValueError(f"arms: {', '.join(unknown)} unknown; there are {', '.join(study.arms)}")
    name = marked(study.name, change)
    done = {(run["name"], run["seed"]): run["config"] for run in record["arms"] if records.intact(name, run)}
    wanted = [
        (marked(arm, change), seed, changed(dict(study.arms[arm]), change))
        for arm in arms or study.arms
        for seed in range(study.seeds_of(arm) if seeds is None else seeds)
    ]
    return [run for run in wanted if done.get(run[:2]) != run[2]]


def plan(study: Study, args: argparse.Namespace) -> tuple[str, list]:
    """The record's name and the runs to do; ValueError or OSError for what cannot be done, before anything runs."""
    for name, value in (("seeds", args.seeds), ("jobs", args.jobs)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}; it must be at least 1")
    change = overrides(args.set)
    name = marked(study.name, change)
    with records.lock(name):  # a folder that cannot be written shows here
        record = records.begin(study, name)
    todo = missing_runs(study, record, args.arms, args.seeds, change)
    print(f"{name}: {len(todo)} runs to do, {len(record['arms'])} recorded")
    return name, todo


def main(argv: list[str] | None = None) -> None:
    """Run what is missing of a study and save each run as it ends; those that fail are named, with exit status 1."""
    args = parse(argv)
    study = get_study(args.study)
    if args.list:
        print("\n".join(f"{name}: {config}" for name, config in study.arms.items()))
        return
    try:
        name, todo = plan(study, args)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    failed = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        futures = {pool.submit(run_one, study.name, config, seed): (arm, seed, config) for arm, seed, config in todo}
        for count, future in enumerate(as_completed(futures), 1):
            arm, seed, config = futures[future]
            title = f"{count}/{len(todo)} {arm} seed {seed}"
            try:
                outcome, seconds = future.result()
                records.add(study, name, arm, seed, config, outcome, seconds)
            except Exception as error:  # the other runs go on
                failed.append(f"{arm} seed {seed}")
                print(f"{title} failed: {type(error).__name__}: {error}", flush=True)
            else:
                print(f"{title}: {outcome.metrics} ({seconds:.0f} s)", flush=True)
    if failed:
        sys.exit(f"{len(failed)} of {len(todo)} runs failed: {', '.join(failed)}")
