#!/usr/bin/env python
"""Time of a step on a busy machine: as many busy loops beside the run as it has cores.

Run inside the environment: `scripts/bench_busy.py [--against CHECKOUT] [--steps N] [--repeats N]`.

Quiet and busy runs of configs/poisson_2d.toml alternate, and those of another checkout with them;
medians count. The environment is a newcomer's: nothing sets the number of threads.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
from pathlib import Path

from bench_rows import step_seconds

ROOT = Path(__file__).resolve().parent.parent
THREAD_VARIABLES = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_")


@contextlib.contextmanager
def busy_loops(count):
    """`count` processes that compute all the time."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def seconds_per_step(checkout, steps):
    """Of a run in a newcomer's environment."""
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(THREAD_VARIABLES)
    }
    environ["PYTHONPATH"] = str(checkout)
    settings = ["run.target_relative_l2=1e-300"]
    return step_seconds(checkout, environ, "configs/poisson_2d.toml", steps, settings)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="another checkout, to compare with")
    parser.add_argument("--steps", type=int, default=100, help="steps of a run")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind")
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    checkouts = [ROOT, *([args.against.resolve()] if args.against else [])]
    found = {(checkout, loops): [] for checkout in checkouts for loops in (0, cores)}
    for _ in range(args.repeats):
        for (checkout, loops), seconds in found.items():
            with busy_loops(loops):
                seconds.append(seconds_per_step(checkout, args.steps))
    print(
        f"| checkout | quiet [s/step] | beside {cores} busy loops [s/step] | ratio |\n"
        "|---|---|---|---|"
    )
    for name, checkout in zip(("this", "the other"), checkouts, strict=False):
        quiet, busy = (statistics.median(found[checkout, loops]) for loops in (0, cores))
        print(f"| {name} | {quiet:.4f} | {busy:.4f} | {busy / quiet:.2f} |")


if __name__ == "__main__":
    main()
