#!/usr/bin/env python
"""Compare the peak memory of one ptc step with what `nedhpc check` predicts.

Run inside the environment: `scripts/bench_memory.py [--points N] [CASE ...]`. Under mpirun, the
script shows rank 0. Each case runs in its own process. `predicted` and `measured` leave out the
memory that the process has before it builds rows; torch and PETSc are loaded by then.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil

CASES = {
    "many points, tsqr": {
        "problem": {"name": "poisson", "dim": 2},
        "network": {"hidden": [500]},
        "sampling": {"interior": 1_000_000, "boundary": 4000},
        "solver": {"type": "tsqr"},
    },
    "many points, gram": {
        "problem": {"name": "poisson", "dim": 2},
        "network": {"hidden": [500]},
        "sampling": {"interior": 1_000_000, "boundary": 4000},
        "solver": {"type": "gram"},
    },
    "many points, krylov": {
        "problem": {"name": "poisson", "dim": 2},
        "network": {"hidden": [500]},
        "sampling": {"interior": 1_000_000, "boundary": 4000},
        "solver": {"type": "krylov", "krylov": {"rank": 20, "max_iterations": 5}},
    },
    "many parameters, dual": {
        "problem": {"name": "poisson", "dim": 100},
        "network": {"hidden": [768, 768, 512, 512]},
        "sampling": {"interior": 100, "boundary": 50},
        "solver": {"type": "dual"},
    },
    "many parameters, krylov": {
        "problem": {"name": "poisson", "dim": 100},
        "network": {"hidden": [768, 768, 512, 512]},
        "sampling": {"interior": 100, "boundary": 50},
        "solver": {"type": "krylov", "krylov": {"rank": 20, "max_iterations": 20}},
    },
}


def measure(table):
    """Make one step of the case in this process, and return what was measured."""
    import torch
    from mpi4py import MPI

    from nedhpc.plan import Plan
    from nedhpc.running.case import Case
    from nedhpc.steppers.ptc import Ptc

    torch.set_default_dtype(torch.float64)
    settings = {"stepper": {"ptc": {"corrections": 0, "max_trials": 1}}}
    plan = Plan.of_table(table | settings, num_ranks=MPI.COMM_WORLD.size)
    case = Case(MPI.COMM_WORLD, plan)
    case.draw(0, None)
    theta = torch.as_tensor(plan.ansatz.initial(0))
    before, started = psutil.Process().memory_info().rss, time.perf_counter()
    Ptc(case.flow, plan.stepper_settings).step(theta, 0.0, 1.0)
    seconds = time.perf_counter() - started
    peak = peak_memory()
    return {
        "N": plan.num_rows,
        "P": plan.energy.num_parameters,
        "solver": plan.solver,
        "predicted": plan.cost.bytes,
        "measured": peak - before,
        "peak": peak,
        "seconds": seconds,
        "rank": MPI.COMM_WORLD.rank,
    }


def peak_memory():
    """The largest number of bytes that this process has held in RAM. Linux only.

    The maximum of getrusage cannot be used, because it starts from what the parent process held.
    """
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status)[1])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of: {'; '.join(CASES)}")
    parser.add_argument("--points", type=int, help="interior points instead of each case's own")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        found = measure(json.loads(args.child))
        if found["rank"] == 0:
            print(json.dumps(found))
        return
    print(
        "| case | N | P | solver | predicted [MiB] | measured [MiB] | peak of the process [MiB] | "
        "seconds |\n|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for name in args.cases or CASES:
        table = CASES[name]
        if args.points:
            table = table | {"sampling": table["sampling"] | {"interior": args.points}}
        child = subprocess.run(
            [sys.executable, __file__, "--child", json.dumps(table)], capture_output=True, text=True
        )
        if child.returncode:
            sys.exit(child.stderr)
        found = json.loads(child.stdout.splitlines()[-1])
        mib = [f"{found[key] / 2**20:.0f}" for key in ("predicted", "measured", "peak")]
        print(
            f"| {name} | {found['N']} | {found['P']} | {found['solver']} | {' | '.join(mib)} | "
            f"{found['seconds']:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
