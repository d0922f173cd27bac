#!/usr/bin/env python
"""Tune the baselines SGD, Adam and L-BFGS on one seed: the rate, its schedule, then the sample.

Run inside the environment: `scripts/tune_baselines.py [CONFIG.toml ...] [--seconds 20]`. Without
configs it tunes for those of TUNED. Each trial has the same wall time. The script prints a table
and writes the best settings and all trials to docs/baselines.json:

    {config: {stepper: {"section.key": value}}, "trial_seconds": s, "trials": ...}

A trial that is already there is not run again. schedule_steps is the number of steps of a trial, so
for another wall time T, multiply it by T / trial_seconds.
"""

import argparse
import itertools
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from nedhpc import config as configs
from nedhpc.files.series import read as read_series
from nedhpc.plan import Plan

ROOT = Path(__file__).resolve().parent.parent
TUNED = (
    "poisson_2d",
    "bench/poisson_2d_deep",
    "poisson_5d",
    "bench/poisson_5d_deep",
    "heat_1d",
    "regression_sine",
    "regression_step",
    "regression_8d",
    "digits",
    "poisson_10d",
)
GRIDS = {
    "sgd": {"stepper.sgd.lr": (1e-4, 1e-3, 1e-2, 1e-1), "stepper.sgd.momentum": (0.9,)},
    "adam": {"stepper.adam.lr": (1e-3, 3e-3, 1e-2, 3e-2)},
    "lbfgs": {"stepper.lbfgs.history": (10, 100)},
}
EVERY = {"sgd": 200, "adam": 200, "lbfgs": 10}
"""Steps between two measurements of the error. A measurement costs more than a step."""
SCHEDULED = {"sgd": "stepper.sgd.lr", "adam": "stepper.adam.lr"}
"""Steppers whose rate may decay, and the key of the rate."""


def samplings(path):
    """Two ways to sample: the same points in each step, or new ones.

    New ones are uniform points of the domain, or mini-batches of a tenth of the data.
    """
    plan = Plan.read(path)
    if "data" not in plan.counts:
        return [
            {"sampling.resample_every": 0},
            {"sampling.resample_every": 1, "sampling.rule": "uniform"},
        ]
    num_data = len(plan.problem.data.x_ND)
    return [
        {"sampling.resample_every": 0, "sampling.data": num_data},
        {"sampling.resample_every": 1, "sampling.data": max(1, num_data // 10)},
    ]


def always(path, stepper):
    """The settings that all trials and the best settings have.

    If the sample of the config grows, the baselines use all points from the first draw on.
    """
    grows = configs.load(path).sampling.grow_draws > 0
    return {"output.every_steps": EVERY[stepper]} | ({"sampling.grow_draws": 0} if grows else {})


def trial(path, stepper, settings, seconds, seed):
    """(error, steps) of one run. The error is infinite if the run diverged.

    The error is relative L2, or 1 - accuracy. It is the median over the last fifth of the time,
    because at a constant rate the error of a single step is random.
    """
    fixed = {
        "stepper.type": stepper,
        "run.seed": seed,
        "run.start": "random",
        "run.max_steps": 2**31 - 1,
        "run.max_wall_time": seconds,
        "run.target_relative_l2": 1e-30,
        "checkpoint.every_seconds": 1e6,
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-P", "-m", "nedhpc", "run", str(path), "--out", folder + "/run"]
        command += [
            f"--set={key}={json.dumps(value)}"
            for key, value in (fixed | always(path, stepper) | settings).items()
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        series = Path(folder) / "run" / "series.h5"
        if done.returncode == 2 or not series.exists():
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        columns = read_series(series)
    errors = (
        1 - columns["metrics/accuracy"] if "metrics/accuracy" in columns else columns["relative_l2"]
    )
    error = float(np.median(errors[columns["wall_time"] >= 0.8 * columns["wall_time"][-1]]))
    return (error if done.returncode == 0 and math.isfinite(error) else math.inf), int(
        columns["step"][-1]
    )


def tune(path, stepper, known, save, seconds, seed):
    """The best [settings, error, steps] of the trials of a stepper.

    The trials are:

    1. the grid, with constant rates;
    2. a cosine decay, from the best rate of the grid and from the next higher rate;
    3. the best settings so far, with the other way to sample.

    `known` holds all trials. A new trial is appended, and save() is called.
    """

    def tried(settings):
        found = next((entry for entry in known if same(settings, entry[0])), None)
        if found is None:
            error, steps = trial(path, stepper, settings, seconds, seed)
            found = [settings, error if math.isfinite(error) else None, steps]
            known.append(found)
            save()
            print(
                f"{path.stem} {stepper} {settings}: {error:.2e}, {steps} steps",
                file=sys.stderr,
                flush=True,
            )
        return found

    own, other = samplings(path)
    grid = [
        tried(dict(zip(GRIDS[stepper], values, strict=True)) | own)
        for values in itertools.product(*GRIDS[stepper].values())
    ]
    entries = [best(grid)]
    if stepper in SCHEDULED:
        rate = SCHEDULED[stepper]
        higher = [entry for entry in grid if entry[0][rate] > entries[0][0][rate]]
        entries += [tried(decaying(entry, stepper)) for entry in [entries[0], *higher[:1]]]
    settings, _, _ = best(entries)
    return best([*entries, tried(settings | other)])


def best(entries):
    """The trial with the smallest error."""
    return min(entries, key=lambda entry: math.inf if entry[1] is None else entry[1])


def decaying(entry, stepper):
    """The settings of a trial with a cosine decay instead of a constant rate.

    The schedule counts steps. It ends after as many steps as the trial made, so that it ends when a
    trial of the same wall time ends.
    """
    settings, _, steps = entry
    return settings | {
        f"stepper.{stepper}.schedule": "cosine",
        f"stepper.{stepper}.schedule_steps": max(1, steps),
    }


def same(a, b):
    """Whether the settings are equal. schedule_steps is left out: it depends on the machine."""
    return {key: value for key, value in a.items() if "schedule_steps" not in key} == {
        key: value for key, value in b.items() if "schedule_steps" not in key
    }


def arguments():
    """The parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="*", type=Path, help="configs to tune for")
    parser.add_argument("--steppers", nargs="+", choices=GRIDS, default=list(GRIDS))
    parser.add_argument("--seconds", type=float, default=20.0, help="wall time of a trial")
    parser.add_argument("--seed", type=int, default=0, help="run.seed of all trials")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "baselines.json")
    return parser.parse_args()


def main():
    args = arguments()
    table = (
        json.loads(args.output.read_text())
        if args.output.exists()
        else {"trial_seconds": args.seconds, "trials": {}}
    )
    if table["trial_seconds"] != args.seconds:
        raise SystemExit(
            f"{args.output} holds trials of {table['trial_seconds']} s: use --seconds "
            f"{table['trial_seconds']} or another --output"
        )

    def save():
        args.output.parent.mkdir(parents=True, exist_ok=True)
        temporary = args.output.with_suffix(".part")
        temporary.write_text(json.dumps(table, indent=1) + "\n")
        temporary.replace(args.output)

    print("| config | stepper | error | steps | settings |\n|---|---|---|---|---|")
    for path in args.configs or [ROOT / "configs" / f"{name}.toml" for name in TUNED]:
        for stepper in args.steppers:
            known = table["trials"].setdefault(path.stem, {}).setdefault(stepper, [])
            settings, error, steps = tune(
                path.resolve(), stepper, known, save, args.seconds, args.seed
            )
            table.setdefault(path.stem, {})[stepper] = settings | always(path, stepper)
            save()
            shown = "diverged" if error is None else f"{error:.2e}"
            listed = ", ".join(f"{key} = {value}" for key, value in settings.items())
            print(f"| {path.stem} | {stepper} | {shown} | {steps} | {listed} |", flush=True)


if __name__ == "__main__":
    main()
