"""The whole run: build, start, step, watch, stop."""

import dataclasses
import datetime
import importlib
import time
from pathlib import Path

import numpy as np
import torch

from nedhpc import checkpoint, provenance, start
from nedhpc.case import Case
from nedhpc.checkpoint import State
from nedhpc.errors import NedError, NotAStateError, UsageError
from nedhpc.monitor import Monitor
from nedhpc.parallel import agree
from nedhpc.series import Series
from nedhpc.steppers.base import StepInfo
from nedhpc.steppers.first_order import BASELINES
from nedhpc.steppers.ts import TimeStepper


def evolve(config, run_dir, comm, resume=None):
    """Evolve the config's network to the end and return (status, State). Collective on comm.

    resume: (State, config history) to continue from. Writes config.toml, series.h5 and checkpoints in run_dir; whatever ends the
    run, the last good state is on disk. Raises NedError alike on every rank.
    """
    if config.stepper.type in BASELINES:
        importlib.import_module("torch._dynamo")  # the first torch.optim object imports it, for seconds that are not the run's
    started = time.monotonic()
    torch.set_default_dtype(torch.float64)
    case = Case(comm, config)
    state, history = resume or (first_state(case), [])
    prepare(comm, run_dir, config)
    theta = case.parameters(state)
    case.restore(state.selection)
    case.draw(case.draw_number(state.step), theta)
    series = Series.open(Path(run_dir) / "series.h5", state.step) if resume else Series(Path(run_dir) / "series.h5")
    monitor = Monitor(comm, config, case, run_dir, series, [*history, config.toml()], provenance.collect(comm, case.device), state, started)

    def before_step(step):
        case.draw(case.draw_number(step), theta)

    def after_step(parameters, step, time, dt, info):
        nonlocal theta
        theta = parameters
        theta_P, coefficients = case.split(parameters)
        return monitor.after_step(State(theta_P, coefficients, step, time, dt, stepper.state(), case.draw_number(step),
                                        selection=case.selection), info)

    with TimeStepper(comm, case.flow, config.stepper, theta, config.run.max_steps, config.run.max_time) as stepper:
        try:
            if resume:
                monitor.measure(state, StepInfo(dt=0.0))
            else:
                state.wall_time = monitor.wall_time  # the start counts
                monitor.record(state, StepInfo(dt=0.0))
                monitor.save(state)
            reached = monitor.relative_l2 is not None and monitor.relative_l2 <= config.run.target_relative_l2
            if not reached and state.step < config.run.max_steps:
                stepper.solve(case.parameters(state), state.step, state.time, state.dt, state.stepper, before_step, after_step)
            if monitor.status == "running":
                monitor.status = "converged" if reached else "max_steps"
        except NedError as error:
            monitor.status, monitor.message = "failed", str(error)
            monitor.save(monitor.good)
            raise type(error)(f"step {monitor.good.step + 1}: {error}; the state after step {monitor.good.step} is in {run_dir}") from error
        finally:
            monitor.close()
    monitor.save(monitor.good)
    return monitor.status, monitor.good


def default_run_dir(comm, name):
    """runs/<name>-<UTC>, the same on every rank. Collective."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    return Path("runs") / f"{name}-{comm.bcast(now, 0)}"


def first_state(case):
    """Step 0: random parameters, a checkpoint's, or the last layer solved first. Collective."""
    config, comm = case.config, case.comm
    values = list(case.problem.coefficients.values())
    if config.run.initial is not None:
        given, _ = checkpoint.read(config.run.initial)
        if len(given.theta_P) != case.energy.num_network:
            raise UsageError(f"run.initial = {config.run.initial!r} holds {len(given.theta_P)} parameters; the network of this "
                             f"config has {case.energy.num_network}")
        parameters = np.concatenate([given.theta_P, list(given.coefficients.values()) or values])
    elif config.run.start == "last_layer":
        case.draw(0)
        like = torch.empty(0, dtype=case.dtype, device=case.device)
        parameters = start.last_layer(case.flow, case.network, case.problem, config.run.seed, like).double().cpu().numpy()
    else:
        parameters = np.concatenate([case.network.initial(config.run.seed), values])
    theta_P, coefficients = case.split(torch.as_tensor(parameters))
    return State(theta_P, coefficients, 0, 0.0, config.stepper.dt)


def prepare(comm, run_dir, config):
    """Make the run folder and write its config.toml. Collective."""
    error = None
    if comm.rank == 0:
        try:
            Path(run_dir).mkdir(parents=True, exist_ok=True)
            (Path(run_dir) / "config.toml").write_text(config.toml())
        except OSError as caught:
            error = UsageError(f"cannot write in {run_dir}: {caught.strerror}")
    agree(comm, error)


def load_resume(comm, run_dir):
    """(State, about) of the newest checkpoint that opens, read by rank 0 alone. Collective."""
    found = error = None
    if comm.rank == 0:
        try:
            _, state, about, skipped = checkpoint.newest(run_dir)
            found = dataclasses.asdict(state), about, skipped
        except NotAStateError as caught:
            error = caught
    agree(comm, error)
    state, about, skipped = comm.bcast(found, 0)
    return State(**state), about, skipped
