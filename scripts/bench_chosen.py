#!/usr/bin/env python
"""Compare the settings that a run chooses itself with those of the ready configs.

Run inside the environment: `scripts/bench_chosen.py [--seconds 60] [CONFIG ...]`.

A ready config runs for --seconds at most. Then a config with its table [problem] only runs for
twice the time that this took. The table shows both errors: the relative L2 error against the known
solution or held-out data; for a classification, the share of held-out rows that are wrong.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import tomli_w

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
NAMES = ["poisson_1d", "poisson_2d", "poisson_2d_features", "poisson_3d", "poisson_5d"]
NAMES += ["poisson_5d_features", "poisson_10d", "poisson_peak", "heat_1d", "regression_sinc"]
NAMES += ["regression_sine", "regression_step", "regression_8d", "digits"]


def run(table, seconds, folder, name):
    """The facts of a run of a config table."""
    table = {**table, "run": {**table.get("run", {}), "max_wall_time": float(seconds)}}
    config, out = Path(folder) / f"{name}.toml", Path(folder) / name
    config.write_text(tomli_w.dumps(table))
    nedhpc = [sys.executable, "-P", "-m", "nedhpc"]
    subprocess.run([*nedhpc, "run", config, "--out", out], check=True, capture_output=True)
    facts = subprocess.run([*nedhpc, "info", out, "--json"], check=True, capture_output=True)
    return json.loads(facts.stdout)


def error(facts):
    """The error of a run, as the module's docstring says."""
    accuracy = facts["metrics"].get("accuracy")
    return facts["relative_l2"] if accuracy is None else 1 - accuracy


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="*", default=NAMES, metavar="CONFIG")
    parser.add_argument("--seconds", type=float, default=60.0, help="most seconds of a config")
    args = parser.parse_args()
    print("| config | error | s | chosen: error | s | ratio | parameters | chosen: parameters |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.configs:
        table = tomllib.loads((CONFIGS / f"{name}.toml").read_text())
        with tempfile.TemporaryDirectory() as folder:
            tuned = run(table, args.seconds, folder, "tuned")
            time = tuned["wall_time"]
            chosen = run({"problem": table["problem"]}, 2 * time, folder, "chosen")
        cells = [name, f"{error(tuned):.1e}", f"{time:.0f}"]
        cells += [f"{error(chosen):.1e}", f"{chosen['wall_time']:.0f}"]
        cells += [f"{error(chosen) / max(error(tuned), 1e-300):.2g}"]
        cells += [str(facts["num_parameters"]) for facts in (tuned, chosen)]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
