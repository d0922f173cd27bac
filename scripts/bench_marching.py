#!/usr/bin/env python
"""Marches of the catalogue: errors and seconds, and the work and precision of their steppers.

    scripts/bench_marching.py                    # every config as it is: a table
    scripts/bench_marching.py --only burgers --steppers sdirk3,sdirk4 --tolerances 1e-4,1e-6
    scripts/bench_marching.py --work-precision runs.json     # heat, Allen-Cahn: half an hour
    scripts/bench_marching.py --work-precision runs.json --draw docs/time_stepping.png

Run one process on one core. The error is the relative L2 error at the end of the march. All runs of
a case of the work-precision diagram start from the same checkpoint, so that the fit to u0 is not
counted; a run that is in the file already is not repeated.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import nedhpc
from nedhpc import config as configs
from nedhpc.errors import NedError
from nedhpc.files import checkpoint
from nedhpc.flows.evolution import Evolution
from nedhpc.postprocess.info import info
from nedhpc.problems.build import CATALOGUE
from nedhpc.problems.spectral import Spectral

CONFIGS = (
    "heat_1d_march",
    "advection_1d",
    "burgers",
    "allen_cahn",
    "kdv",
    "kdv_two_solitons",
    "kuramoto_sivashinsky",
    "heat_2d_march",
    "allen_cahn_2d",
    "burgers_2d",
    "taylor_green",
    "wave_march",
    "schroedinger",
    "gray_scott",
    "transport_5d",
    "fokker_planck_5d",
)
FOLDER = Path(__file__).resolve().parent.parent / "configs"
MOST = 600
"""Most seconds of a run of the table."""
CASES = {
    "heat_1d_march": ["network.hidden=[32]"],
    "allen_cahn": ["network.hidden=[48]", "sampling.interior=200", "run.max_time=1"],
}
"""Configs, with the changes that make a run short."""
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6)
STEPPERS = {
    "midpoint": ["stepper.type=midpoint"],
    "sdirk3": ["stepper.type=sdirk3"],
    "sdirk4": ["stepper.type=sdirk4"],
    "sdirk4, last layer": ["stepper.type=sdirk4", "flow.parameters=last_layer"],
    "rk2a": ["stepper.type=explicit", "stepper.explicit.method=rk2a"],
    "rk3bs": ["stepper.type=explicit", "stepper.explicit.method=rk3bs"],
    "rk5dp": ["stepper.type=explicit", "stepper.explicit.method=rk5dp"],
    "rk3bs, half of the columns": [
        "stepper.type=explicit",
        "stepper.explicit.method=rk3bs",
        "stepper.explicit.columns=0.5",
    ],
}
LIMIT = 60.0
"""Seconds after which a run of the diagram is given up."""
ROWS = Evolution.rows


def counted(method):
    """The method, and a list with the number of its calls."""
    calls = [0]

    def call(*arguments, **options):
        calls[0] += 1
        return method(*arguments, **options)

    return call, calls


def measured(table: dict, folder: Path) -> dict:
    """Error, seconds and number of linearisations of one run."""
    Evolution.rows, calls = counted(ROWS)
    started, message = time.monotonic(), ""
    run_dir = folder / f"run{time.monotonic_ns()}"
    try:
        nedhpc.run(table, out=run_dir)
    except NedError as error:
        message = str(error)[:300]
    seconds = time.monotonic() - started
    Evolution.rows = ROWS
    found = info(run_dir)
    keys = ("status", "step", "time", "relative_l2")
    facts = {key: found[key] for key in keys}
    return facts | {"seconds": seconds, "linearisations": calls[0], "message": message}


def runs(case: str, known: set, folder: Path) -> Iterator[dict]:
    """The runs of a case that are not known yet."""
    todo = [(s, t) for s in STEPPERS for t in TOLERANCES if (case, s, t) not in known]
    if not todo:
        return
    table = configs.read(FOLDER / f"{case}.toml", [*CASES[case], "run.max_steps=0"])
    nedhpc.run(table, out=folder / "start")
    start = checkpoint.newest(folder / "start")[0]
    changes = [f'run.initial="{start}"', f"run.max_wall_time={LIMIT}", "run.max_steps=100000"]
    for stepper, tolerance in todo:
        own = STEPPERS[stepper]
        name = own[0].partition("=")[2]
        settings = [*CASES[case], *changes, *own, f"stepper.{name}.tolerance={tolerance}"]
        found = measured(configs.read(FOLDER / f"{case}.toml", settings), folder)
        yield {"case": case, "stepper": stepper, "tolerance": tolerance} | found


def spectral_rows() -> list[dict]:
    """A Fourier method for Allen-Cahn, 256 modes, with several time steps."""
    problem = CATALOGUE["allen_cahn"]()
    fine, rows = problem.exact, []
    x, t = torch.linspace(0, 6, 400)[:, None], torch.ones(400)
    for dt in (0.2, 0.1, 0.05, 0.02, 0.01):
        started = time.monotonic()
        one = Spectral(
            [0.0],
            [2 * np.pi],
            fine.start,
            fine.linear,
            fine.nonlinear,
            num_modes=256,
            dt=dt,
        )
        error = float((one(x, t) - fine(x, t)).norm() / fine(x, t).norm())
        seconds = time.monotonic() - started
        found = {"relative_l2": error, "seconds": seconds, "linearisations": round(4 / dt)}
        rows.append({"case": "allen_cahn", "stepper": "Fourier, ETDRK4", "tolerance": dt} | found)
    return rows


def draw(found: list[dict], path: str) -> None:
    """The diagram: error against seconds and against linearisations, for each case."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, axes = plt.subplots(2, 2, figsize=(11, 9), sharey="row", layout="constrained")
    for row, case in zip(axes, CASES, strict=True):
        for axis, key in zip(row, ("seconds", "linearisations"), strict=True):
            for name in dict.fromkeys(run["stepper"] for run in found):
                mine = [r for r in found if r["case"] == case and r["stepper"] == name]
                mine = [r for r in mine if r.get("status", "max_time") == "max_time"]
                points = [(r[key], r["relative_l2"]) for r in mine]
                if points:
                    axis.loglog(*zip(*points, strict=True), "o-", label=name, markersize=4)
            axis.set_xlabel(key.replace("linearisations", "right-hand sides"))
            axis.set_title(case)
            axis.grid(alpha=0.3)
            axis.xaxis.set_minor_formatter(NullFormatter())
        row[0].set_ylabel("relative L2 error at the end")
    figure.legend(*axes[1, 1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=90)


def row(name: str, stepper: str, tolerance: str) -> str:
    """A line of the table, for one run."""
    changes = [f"stepper.type={stepper}"] if stepper else []
    table = configs.read(FOLDER / f"{name}.toml", [*changes, f"run.max_wall_time={MOST}"])
    if tolerance:
        configs.override(table, [f"stepper.{table['stepper']['type']}.tolerance={tolerance}"])
    stepper = table["stepper"]["type"]
    tolerance = table["stepper"][stepper]["tolerance"]
    with tempfile.TemporaryDirectory() as folder:
        run_dir = nedhpc.run(table, out=Path(folder) / "run").run_dir
        found = info(run_dir)
    keys = ("status", "step", "start_error", "relative_l2", "wall_time")
    status, step, start, error, seconds = (found[key] for key in keys)
    given = f"{name} | {stepper} | {float(tolerance):g}"
    return f"| {given} | {status} | {step} | {start:.1e} | {error:.1e} | {seconds:.1f} |"


def measure(file: Path) -> None:
    """Add the runs of the diagram that are missing to a file."""
    found = json.loads(file.read_text()) if file.exists() else []
    known = {(run["case"], run["stepper"], run["tolerance"]) for run in found}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            for run in runs(case, known, Path(folder)):
                found.append(run)
                file.write_text(json.dumps(found, indent=1) + "\n")
                print({k: v for k, v in run.items() if k != "message"}, flush=True)
    if not any(run["stepper"].startswith("Fourier") for run in found):
        found += spectral_rows()
        file.write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    """Print the table, or measure or draw the diagram."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(CONFIGS), help="names of configs")
    parser.add_argument("--steppers", default="", help="e.g. sdirk3,sdirk4; default: the config's")
    parser.add_argument("--tolerances", default="", help="default: the config's")
    parser.add_argument("--work-precision", type=Path, metavar="JSON", help="file of the runs")
    parser.add_argument("--draw", metavar="PNG", help="draw the diagram of that file")
    given = parser.parse_args()
    if given.work_precision and given.draw:
        draw(json.loads(given.work_precision.read_text()), given.draw)
        return
    if given.work_precision:
        measure(given.work_precision)
        return
    print("| config | stepper | tolerance | status | steps | start error | error | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name in given.only.split(","):
        for stepper in given.steppers.split(","):
            for tolerance in given.tolerances.split(","):
                print(row(name, stepper, tolerance), flush=True)


if __name__ == "__main__":
    main()
