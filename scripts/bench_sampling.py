#!/usr/bin/env python
"""Compare the sampling rules: the relative L2 error on a Gaussian peak (configs/poisson_peak.toml).

All rules have the same number of points, draws and steps. Run inside the environment:
`scripts/bench_sampling.py [--seeds N] [--steps N] [--set section.key=value]`.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import nedhpc
from nedhpc import config
from nedhpc.postprocess.info import info

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "poisson_peak.toml"
RULES = ("uniform", "sobol", "residual")


def errors(rule, args):
    """(relative L2 error, seconds) of a rule for each seed."""
    found = []
    for seed in range(args.seeds):
        settings = [
            f"sampling.rule={rule}",
            f"run.seed={seed}",
            f"run.max_steps={args.steps}",
            "run.target_relative_l2=1e-30",
            *args.overrides,
        ]
        with tempfile.TemporaryDirectory() as folder:
            nedhpc.run(config.load(CONFIG, settings), folder)
            facts = info(folder)
        found.append((facts["relative_l2"], facts["wall_time"]))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8, help="number of seeds")
    parser.add_argument("--steps", type=int, default=200, help="steps of a run")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        dest="overrides",
        help="override a setting of the config",
    )
    args = parser.parse_args()
    print("| rule | relative L2, median | range | seconds |\n|---|---|---|---|")
    for rule in RULES:
        values, seconds = zip(*errors(rule, args), strict=True)
        spread = f"{min(values):.1e} .. {max(values):.1e}"
        middle, time = statistics.median(values), statistics.median(seconds)
        print(f"| {rule} | {middle:.1e} | {spread} | {time:.1f} |", flush=True)


if __name__ == "__main__":
    main()
