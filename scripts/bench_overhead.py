#!/usr/bin/env python
"""What scaled variables, balanced rows and held-out energies cost, as a share of a ptc step.

Both kinds of steps alternate in one process on the same sample, so that the machine's load is the
same for both: `scripts/bench_overhead.py [--steps 60]`. The stall by a checkpoint of a million
parameters is that of adam, whose state is three times as large as theta.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from mpi4py import MPI

from nedhpc.files.checkpoint import State
from nedhpc.parallel.precision import float64_default
from nedhpc.plan import Plan
from nedhpc.running.adaptation import CHECK_EVERY
from nedhpc.running.case import Case
from nedhpc.running.evolve import Run
from nedhpc.running.start import fresh
from nedhpc.steppers.ptc import Ptc

OUTPUT_EVERY, CALLS = 10, 20
"""Steps between two outputs, and calls of what is cheaper than a step."""


def start(choice):
    """(case, theta, step rule) of Poisson's equation in two dimensions, 1,020 points.

    Args:
        choice: "auto" or "none", for scaling, balance and adaptation.
    """
    table = {
        "problem": {"name": "poisson", "dim": 2},
        "network": {"hidden": [64], "scaling": choice},
        "sampling": {"interior": 900, "boundary": 120, "adapt": choice},
        "weights": {"balance": choice},
        "run": {"start": "random"},
    }
    plan = Plan.of_table(table)
    case = Case(MPI.COMM_SELF, plan)
    state = fresh(case, State(np.empty(0), {}, 0, 0.0, 1.0))
    state.growth = 0
    return case, case.take_up(state), Ptc(case.flow, plan.stepper_settings)


def step_seconds(num_steps):
    """Median seconds of a step with "none" and with "auto", and the second case at its end."""
    cases, dts, seconds = [start("none"), start("auto")], [1.0, 1.0], ([], [])
    for _ in range(num_steps):
        for i, (case, theta, rule) in enumerate(cases):
            started = time.perf_counter()
            theta, dts[i], _ = rule.step(theta, 0.0, dts[i])
            seconds[i].append(time.perf_counter() - started)
            cases[i] = (case, theta, rule)
    return [statistics.median(list_) for list_ in seconds], cases[1][:2]


def call_seconds(function):
    """Mean seconds of a call, the first one not counted."""
    function()
    started = time.perf_counter()
    for _ in range(CALLS):
        function()
    return (time.perf_counter() - started) / CALLS


def checkpoint_seconds(folder):
    """Median seconds for which a checkpoint stalls the run, and of its whole write."""
    table = {
        "problem": {"name": "poisson", "dim": 2},
        "network": {"hidden": [1000, 1000], "scaling": "none"},
        "sampling": {"interior": 64, "boundary": 16, "adapt": "none"},
        "weights": {"balance": "none"},
        "stepper": {"type": "adam"},
        "run": {"start": "random", "max_steps": 1},
    }
    run = Run(MPI.COMM_SELF, Plan.of_table(table), folder)
    run.evolve()
    stalls, writes = [], []
    for _ in range(CALLS):
        started = time.perf_counter()
        run.checkpoints.save(run, run.good)
        stalls.append(time.perf_counter() - started)
        run.writer.wait()
        writes.append(time.perf_counter() - started)
    return statistics.median(stalls), statistics.median(writes)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with float64_default():
        (plain, auto), (case, theta) = step_seconds(args.steps)
        E_K = case.flow.energies(theta, 0.0)
        held_out = call_seconds(lambda: case.held_out_energy(theta))
        written = call_seconds(lambda: case.energies_as_written(theta, E_K))
        with tempfile.TemporaryDirectory() as folder:
            stall, write = checkpoint_seconds(Path(folder) / "run")
    share = held_out / CHECK_EVERY + written / OUTPUT_EVERY
    print(f"step as written        {plain:.4f} s")
    print(f"step scaled, balanced  {auto:.4f} s, ratio {auto / plain:.3f}")
    print(f"held-out energies      {share:.5f} s a step, {share / plain:.1%} of it")
    print(f"checkpoint             {stall:.4f} s of {write:.4f} s, {stall / 60:.2%} of a minute")


if __name__ == "__main__":
    main()
