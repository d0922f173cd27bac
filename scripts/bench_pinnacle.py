#!/usr/bin/env python
"""Run problems of the benchmark PINNacle with default settings and measure its error, L2RE.

Run inside the environment: `scripts/bench_pinnacle.py [--only GLOB] [--seconds S] [--data FOLDER]`.

L2RE is sqrt(mean (u - y)^2) / sqrt(mean y^2) over all outputs at the test points. Each config has
the problem, a wall time and a seed; the network and the numbers of points are in it only if they
are given as options. Beside each error stand an expert's, who chose network, points, weights and
scalings by hand in the first edition (with the seconds of CPU time that this took), and two
columns of the PINNacle paper: its PINN and its best method. These two were noted from memory and
must be checked against the paper before anyone quotes them.

--data names a folder with reference files of the benchmark (https://github.com/i207M/PINNacle), as
they are or compressed as .xz. References that take seconds to compute are kept in OUT/references.
"""

import argparse
import fnmatch
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pinnacle_problems
import pinnacle_references as references
import tomli_w

import nedhpc

PROBLEMS = Path(__file__).resolve().with_name("pinnacle_problems.py")
GRACE = 120
"""Seconds beside --seconds after which a run is killed."""


@dataclass(frozen=True)
class Entry:
    """A problem, where its reference comes from, and what others reached."""

    name: str
    cls: str
    reference: Callable[..., Any] | None = references.of_exact
    """A function of the problem; None if only a data file is known."""
    hand: str = "-"
    """L2RE of an expert with settings chosen by hand."""
    hand_seconds: str = "-"
    pinn: str = "-"
    best: str = "-"
    """From memory of the paper, as `pinn`."""
    options: dict[str, Any] = field(default_factory=dict)
    file: str = ""
    """A data file of the benchmark, which is used if it is in --data."""
    end: float | None = None
    """Last time in the data file."""
    remark: str = ""

    def problem(self):
        return getattr(pinnacle_problems, self.cls)(**self.options)


OWN_FIELD = "coefficient of our own; not comparable with the paper"
ENTRIES = [
    Entry("Burgers1D", "Burgers1D", hand="1.6e-4", hand_seconds="112", pinn="1.45e-2",
          best="1.43e-2", remark="Cole-Hopf; the benchmark's own file is off it by 1.3e-2"),
    Entry("Poisson1D", "Poisson1D", hand="4.8e-9", hand_seconds="9"),
    Entry("Poisson2D-Classic", "Poisson2DClassic", None, "3.4e-3", "122",
          "6.94e-1", "1.23e-2", file="poisson1_cg_data.dat"),
    Entry("PoissonBoltzmann2D", "PoissonBoltzmann2D", None, "6.5e-3", "107",
          "6.36e-1", "1.43e-2", file="poisson_boltzmann2d.dat"),
    Entry("Poisson2D-ManyArea", "Poisson2DManyArea", references.many_area, "1.6e-2", "52",
          "6.30e-1", "5.90e-1", remark="own finite differences of the equation as coded"),
    Entry("PoissonND", "PoissonND", hand="1.1e-7", hand_seconds="27", pinn="3.04e-3",
          best="4.67e-4"),
    Entry("Heat2D-VaryingCoef", "Heat2DVaryingCoef", references.heat_varying, "2.3e-1", "86",
          "1.01", "2.12e-1", remark=OWN_FIELD),
    Entry("Heat2D-Multiscale", "Heat2DMultiscale", hand="1.3e-2", hand_seconds="62",
          pinn="6.21e-2", best="4.40e-2"),
    Entry("Heat2D-LongTime-1", "Heat2DLongTime", references.long_time, "9.5e-1", "-",
          options={"end": 1.0}, remark="only to t = 1"),
    Entry("Heat2D-LongTime", "Heat2DLongTime", references.long_time, pinn="9.99e-1",
          best="9.99e-1", file="heat_longtime.dat", end=100.0),
    Entry("HeatND", "HeatND", hand="2.6e-6", hand_seconds="134", pinn="3.61e-1", best="1.19e-4"),
    Entry("NS2D-LidDriven", "NS2DLidDriven", None, "1.4e-2", "76", "4.70e-2",
          "3.60e-2", file="lid_driven_a4.dat"),
    Entry("NS2D-BackStep", "NS2DBackStep", None, "9.7e-2", "109", "1.19e-1",
          "8.24e-2", file="ns_0_obstacle.dat",
          remark="the file has p = 0.024 at the outlet, where the problem has 0"),
    Entry("Wave1D", "Wave1D", hand="2.6e-5", hand_seconds="89", pinn="5.88e-1", best="9.79e-2"),
    Entry("Wave2D-Heterogeneous", "Wave2DHeterogeneous", references.wave_heterogeneous,
          pinn="1.84", best="7.94e-1", remark=OWN_FIELD),
    Entry("Kuramoto-Sivashinsky-0.1", "KuramotoSivashinsky", references.kuramoto_sivashinsky,
          "8.2e-3", "81", options={"end": 0.1}, remark="only to t = 0.1"),
    Entry("Kuramoto-Sivashinsky", "KuramotoSivashinsky", references.kuramoto_sivashinsky,
          pinn="1.01", best="9.57e-1"),
    Entry("Gray-Scott", "GrayScott", references.gray_scott, "7.9e-2", "78", "3.19e-1", "7.99e-2",
          remark="u = 1, v = 0 has 9.5e-2"),
    Entry("PoissonInv", "PoissonInv", hand="1.5e-2", hand_seconds="23", pinn="9.42e-2",
          best="1.96e-2", remark="right source"),
    Entry("HeatInv", "HeatInv", hand="3.9e-3", hand_seconds="35", pinn="1.57", best="1.19e-2"),
]  # fmt: skip


def l2re(u_NM, y_NM):
    """The benchmark's error: root mean squares over all outputs and points."""
    return float(np.sqrt(np.mean((u_NM - y_NM) ** 2) / np.mean(y_NM**2)))


def reference(entry, args):
    """(x_ND, y_NM), or None if a data file is missing."""
    problem = entry.problem()
    names = (entry.file, f"{entry.file}.xz") if entry.file and args.data else ()
    for path in (args.data / name for name in names):
        if path.is_file():
            dim = problem.domain.dim - (entry.end is not None)
            return references.of_file(path, dim, entry.end)
    if entry.reference is None:
        return None
    if entry.reference is references.of_exact:
        return references.of_exact(problem)
    kept = args.out / "references" / f"{entry.name}.npz"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        x_ND, y_NM = entry.reference(problem)
        np.savez_compressed(kept, x=x_ND, y=y_NM)
    with np.load(kept) as arrays:
        return arrays["x"], arrays["y"]


def table(entry, args):
    """The config of a run: the problem, its limits, and what the command line gives."""
    config: dict[str, Any] = {
        "problem": {"name": f"{PROBLEMS}:{entry.cls}"} | entry.options,
        "run": {"seed": args.seed, "max_wall_time": args.seconds},
    }
    if args.hidden:
        config["network"] = {"hidden": args.hidden}
    parts = entry.problem().domain.parts
    # Walls with a name of their own get as many points as "boundary".
    counts = {part: getattr(args, part, args.boundary) for part in parts}
    sampling = {part: count for part, count in counts.items() if count and parts[part].dim}
    if sampling:
        config["sampling"] = sampling
    return config


def measure(entry, args):
    """Run an entry and return what it reached, as a table with `l2re` or `error`."""
    known = reference(entry, args)
    if known is None:
        return {"error": f"needs {entry.file} in --data"}
    folder = args.out / f"{entry.name}-seed{args.seed}-{time.strftime('%Y%m%dT%H%M%S')}"
    folder.mkdir(parents=True)
    config = folder / "case.toml"
    config.write_text(tomli_w.dumps(table(entry, args)))
    command = [sys.executable, "-P", "-m", "nedhpc", "run", config, "--out", folder / "run"]
    command += [word for setting in args.set for word in ("--set", setting)]
    started, cpu = time.perf_counter(), cpu_seconds()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=args.seconds + GRACE)
    except subprocess.TimeoutExpired:
        return {"error": f"killed {GRACE} s after its time"}
    seconds, cpu = time.perf_counter() - started, cpu_seconds() - cpu
    if done.returncode:
        return {"error": f"exit code {done.returncode}: {done.stderr.strip()[-300:]}"}
    u, (x_ND, y_NM) = nedhpc.load(folder / "run"), known
    u_NM = u(x_ND)
    pairs = zip(u.outputs, u_NM.T, y_NM.T, strict=True)
    by_output = {name: l2re(values, right) for name, values, right in pairs}
    return {
        "l2re": l2re(u_NM, y_NM),
        "l2re_by_output": by_output,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "step": u.state.step,
    }


def cpu_seconds():
    """CPU time of all runs that have ended so far, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row(entry, found):
    """The cells of a result."""
    ours = f"{found['l2re']:.1e}" if "l2re" in found else f"- ({found['error']})"
    if len(found.get("l2re_by_output", {})) > 1:
        each = ", ".join(f"{name} {error:.1e}" for name, error in found["l2re_by_output"].items())
        ours += f" ({each})"
    seconds = f"{found['cpu_seconds']:.0f}" if "cpu_seconds" in found else "-"
    hand = (entry.hand, entry.hand_seconds, entry.pinn, entry.best, entry.remark)
    return [entry.name, ours.replace("\n", " "), seconds, *hand]


HEADER = ["problem", "L2RE", "CPU s", "by hand", "CPU s", "PINN (memory)", "best (memory)"]
HEADER += ["remark"]


def arguments(argv):
    """The parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="*", metavar="GLOB", help="names of problems")
    parser.add_argument("--seconds", type=float, default=100.0, help="wall time of a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/pinnacle"), metavar="FOLDER")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="reference files")
    parser.add_argument("--hidden", type=int, nargs="+", help="widths of the hidden layers")
    for part in ("interior", "boundary", "initial"):
        parser.add_argument(f"--{part}", type=int, metavar="N", help="number of points")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--list", action="store_true", help="only print the names")
    return parser.parse_args(argv)


def main(argv=None):
    """Returns the exit code: 1 if a run gave no result."""
    args = arguments(argv)
    chosen = [entry for entry in ENTRIES if fnmatch.fnmatch(entry.name, args.only)]
    if args.list:
        print("\n".join(entry.name for entry in chosen))
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    missing = 0
    for cells in (HEADER, ["---"] * len(HEADER)):
        print("| " + " | ".join(cells) + " |")
    for entry in chosen:
        found = measure(entry, args)
        missing += "l2re" not in found
        print("| " + " | ".join(row(entry, found)) + " |", flush=True)
        settings = {"seconds_given": args.seconds, "seed": args.seed, "hidden": args.hidden}
        line = {"name": entry.name} | settings | {"set": args.set} | found
        with open(args.out / "results.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
