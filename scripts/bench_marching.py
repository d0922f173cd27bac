#!/usr/bin/env python
"""Marches of the catalogue: error and seconds by stepper, dt and tolerance, as a table.

    scripts/bench_marching.py                    # every config, at its own tolerance
    scripts/bench_marching.py --only burgers --steppers sdirk3,sdirk4 --tolerances 1e-4,1e-6

Run one process on one core. The error is the relative L2 error at the end of the march.
"""

import argparse
import tempfile
from pathlib import Path

import nedhpc
from nedhpc import config as configs
from nedhpc.postprocess.info import info

CONFIGS = ("heat_1d_march", "advection_1d", "burgers", "allen_cahn", "kdv", "kuramoto_sivashinsky")
FOLDER = Path(__file__).resolve().parent.parent / "configs"


def row(name: str, stepper: str, tolerance: str) -> str:
    """A line of the table, for one run."""
    changes = [f"stepper.type={stepper}", f"stepper.{stepper}.tolerance={tolerance}"]
    table = configs.read(FOLDER / f"{name}.toml", changes)
    with tempfile.TemporaryDirectory() as folder:
        run_dir = nedhpc.run(table, out=Path(folder) / "run").run_dir
        found = info(run_dir)
    keys = ("status", "step", "start_error", "relative_l2", "wall_time")
    status, step, start, error, seconds = (found[key] for key in keys)
    return (
        f"| {name} | {stepper} | {tolerance} | {status} | {step} | {start:.1e} | {error:.1e} | "
        f"{seconds:.1f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(CONFIGS), help="names of configs")
    parser.add_argument("--steppers", default="sdirk4", help="midpoint, sdirk3, sdirk4")
    parser.add_argument("--tolerances", default="1e-6")
    given = parser.parse_args()
    print("| config | stepper | tolerance | status | steps | start error | error | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name in given.only.split(","):
        for stepper in given.steppers.split(","):
            for tolerance in given.tolerances.split(","):
                print(row(name, stepper, tolerance), flush=True)


if __name__ == "__main__":
    main()
