#!/usr/bin/env python
"""Tune the baselines SGD, Adam and L-BFGS on one seed: the rate, its schedule, then the sample.

Run inside the environment: `scripts/tune_baselines.py [CONFIG.toml ...] [--seconds 20]`. Without
configs it tunes for those of TUNED. Each trial has the same wall time. The searches are those of
`nedhpc tune`, in folders below --out: if the script is started again there, it goes on, and no
trial is made twice. The script prints a table and writes the best settings and all trials to
docs/baselines.json:

    {config: {stepper: {"section.key": value}}, "trial_seconds": s, "trials": ...}

schedule_steps is the number of steps of a trial, so for another wall time T, multiply it by
T / trial_seconds.
"""

import argparse
import json
import logging
import math
import sys
from pathlib import Path

import nedhpc
from nedhpc import config as configs
from nedhpc.cli.tune import Choice, Search
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


def searched(path, stepper, over, seconds, seed, out):
    """[settings, error, steps] of all trials over lists of values. error is None if one diverged.

    The error is relative L2, or 1 - accuracy.
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
    classifies = any(isinstance(term, nedhpc.CrossEntropy) for term in Plan.read(path).terms)
    search = Search(
        path,
        {key: Choice(tuple(map(json.dumps, values))) for key, values in over.items()},
        out,
        [f"{key}={json.dumps(value)}" for key, value in (fixed | always(path, stepper)).items()],
        measure="metrics/accuracy" if classifies else "relative_l2",
        is_largest=classifies,
    )
    return [
        [
            trial.user_attrs["settings"],
            (1 - trial.value if classifies else trial.value)
            if math.isfinite(trial.value)
            else None,
            trial.user_attrs["step"],
        ]
        for trial in search.run()
    ]


def tune(path, stepper, seconds, seed, out):
    """All [settings, error, steps] of a stepper, the best last.

    The trials are:

    1. the grid, with constant rates;
    2. a cosine decay, from the best rate of the grid and from the next higher rate;
    3. the best settings so far, with the other way to sample.
    """

    def one(settings, name):
        over = {key: (value,) for key, value in settings.items()}
        return searched(path, stepper, over, seconds, seed, out / name)

    own, other = samplings(path)
    over = GRIDS[stepper] | {key: (value,) for key, value in own.items()}
    trials = searched(path, stepper, over, seconds, seed, out / "grid")
    if stepper in SCHEDULED:
        rate, first = SCHEDULED[stepper], best(trials)
        higher = [trial for trial in trials if trial[0][rate] > first[0][rate]]
        higher.sort(key=lambda trial: trial[0][rate])
        for trial in [first, *higher[:1]]:
            trials += one(decaying(trial, stepper), f"decay-{trial[0][rate]:g}")
    trials += one(best(trials)[0] | other, "sampling")
    return sorted(trials, key=lambda trial: trial is best(trials))


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
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "baselines")
    return parser.parse_args()


def main():
    args = arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
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
    print("| config | stepper | error | steps | settings |\n|---|---|---|---|---|")
    for path in args.configs or [ROOT / "configs" / f"{name}.toml" for name in TUNED]:
        for stepper in args.steppers:
            out = args.out.absolute() / path.stem / stepper
            trials = tune(path.resolve(), stepper, args.seconds, args.seed, out)
            settings, error, steps = trials[-1]
            table["trials"].setdefault(path.stem, {})[stepper] = trials
            table.setdefault(path.stem, {})[stepper] = settings | always(path, stepper)
            save(table, args.output)
            shown = "diverged" if error is None else f"{error:.2e}"
            listed = ", ".join(f"{key} = {value}" for key, value in settings.items())
            print(f"| {path.stem} | {stepper} | {shown} | {steps} | {listed} |", flush=True)


def save(table, output):
    """Write the table in the place of the file."""
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_suffix(".part")
    temporary.write_text(json.dumps(table, indent=1) + "\n")
    temporary.replace(output)


if __name__ == "__main__":
    main()
