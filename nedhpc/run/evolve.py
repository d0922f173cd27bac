"""The whole run: build, start, step, watch, stop."""

import datetime
import importlib
import logging
import time
from pathlib import Path

import numpy as np
import torch

from nedhpc.errors import NedError, NonFiniteError, StorageError, UsageError
from nedhpc.files import checkpoint, provenance
from nedhpc.files.checkpoint import State
from nedhpc.files.resume import adapt, check
from nedhpc.files.series import Series
from nedhpc.parallel.comm import all_come, on_rank_0
from nedhpc.run import start
from nedhpc.run.case import Case
from nedhpc.run.observers import Monitor
from nedhpc.steppers.base import StepInfo
from nedhpc.steppers.first_order import BASELINES
from nedhpc.steppers.ts import TimeStepper

log = logging.getLogger("nedhpc")


def evolve(config, run_dir, comm, resume=None, stop=None):
    """Evolve the config's network to the end and return (status, State). Collective on comm.

    resume: (State, about) of the checkpoint to continue from, as `load_resume` returns them; `config` may differ from its in what
    resume.py allows. stop: a stop.Stop that signals reach. Writes config.toml, series.h5 and checkpoints in run_dir; whatever ends the
    run, the last good state is on disk. Raises NedError alike on every rank.
    """
    if config.stepper.type in BASELINES:
        importlib.import_module(
            "torch._dynamo"
        )  # the first torch.optim object imports it, for seconds that are not the run's
    started = time.monotonic()
    torch.set_default_dtype(torch.float64)
    provenance.inputs(comm, config)
    about, notes = {"config_history": [config.toml()], "config_changes": ["start"]}, []
    if resume:
        state, about, notes = adapt(*resume, config)
    case = Case(comm, config)
    if resume:
        check(case, state, about)
    with time_stepper(case):  # PETSc knows its options, before anything is written
        pass
    on_rank_0(comm, prepare, run_dir, config, state.step if resume else None)
    if not resume:
        state = first_state(case)
    for note in notes if comm.rank == 0 else []:
        log.info("after step %d: %s", state.step, note)
    take_sample(case, state)
    file = Path(run_dir) / "series.h5"
    series = Series.open(file, state.step) if resume and comm.rank == 0 else Series(file)
    about |= {
        "config": config.toml(),
        "layout": checkpoint.layout(case.network),
        "user_files": case.user_files,
        "sampling": {
            "rule": config.sampling.rule,
            "seed": config.run.seed,
            "data_sha256": case.data_digest,
        },
        "provenance": provenance.collect(comm, case.device),
    }
    monitor = Monitor(comm, config, case, run_dir, series, about, state, started, stop)

    own = comm.Dup()

    def together(error):
        if not all_come(own):
            raise RuntimeError(f"rank {comm.rank} failed alone: {error}") from error

    try:
        if resume:
            monitor.measure(state, StepInfo(dt=0.0))
        else:
            state.wall_time, _ = monitor.look()  # the start counts
            monitor.record(state, StepInfo(dt=0.0))
            monitor.save(state)
        _, reason = monitor.look()
        if monitor.on_target:
            monitor.status = "converged"
        elif state.step >= config.run.max_steps:
            monitor.status = "max_steps"
        elif reason:
            monitor.stop_early(reason)
        while monitor.status == "running":
            try:
                march(case, monitor, state)
            except NonFiniteError as error:
                together(error)
                state = monitor.cut(error)
            else:
                if monitor.status == "running":
                    monitor.status = "max_steps"  # PETSc's own option ended it
    except StorageError:
        raise
    except NedError as error:
        together(error)
        monitor.status, monitor.message = "failed", str(error)
        monitor.save(monitor.good)
        raise type(error)(
            f"after step {monitor.good.step}: {error}; the state after that step is in {run_dir}"
        ) from error
    finally:
        monitor.close()
    own.Free()
    monitor.save(monitor.good)
    return monitor.status, monitor.good


def march(case, monitor, state):
    """Take steps from `state` until the monitor ends them. NonFiniteError where one leads to no finite energy. Collective."""
    theta = take_sample(case, state)

    def before_step(step):
        case.draw(case.draw_number(step), theta)

    def after_step(parameters, step, time, dt, info):
        nonlocal theta
        theta = parameters
        theta_P, coefficients = case.split(parameters)
        return monitor.after_step(
            State(
                theta_P,
                coefficients,
                step,
                time,
                dt,
                stepper.state(),
                case.draw_number(step),
                selection=case.selection,
            ),
            info,
        )

    with time_stepper(case) as stepper:
        stepper.solve(
            theta, state.step, state.time, state.dt, state.stepper, before_step, after_step
        )


def take_sample(case, state):
    """The state's parameters on the device, with its sample in the flow. Collective."""
    theta = case.parameters(state)
    case.restore(state.selection)
    case.draw(case.draw_number(state.step), theta)
    return theta


def time_stepper(case):
    """The config's TimeStepper. Collective."""
    like = torch.empty(case.energy.num_parameters, dtype=case.dtype, device=case.device)
    return TimeStepper(
        case.comm,
        case.flow,
        case.config.stepper,
        like,
        case.config.run.max_steps,
        case.config.run.max_time,
    )


def default_run_dir(comm, name):
    """runs/<name>-<UTC>, the same on every rank. Collective."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    return Path("runs") / f"{name}-{comm.bcast(now, 0)}"


def first_state(case):
    """Step 0: random parameters, a checkpoint's, or the last layer solved first. Collective."""
    config, comm = case.config, case.comm
    values = list(case.problem.coefficients.values())
    if config.run.initial is not None:
        given, _ = on_rank_0(comm, checkpoint.read, config.run.initial)
        if len(given.theta_P) != case.energy.num_network:
            raise UsageError(
                f"run.initial = {config.run.initial!r} holds {len(given.theta_P)} parameters; the network of this "
                f"config has {case.energy.num_network}"
            )
        coefficients = case.problem.coefficients | {
            name: c for name, c in given.coefficients.items() if name in case.problem.coefficients
        }
        parameters = np.concatenate([given.theta_P, list(coefficients.values())])
    elif config.run.start == "last_layer":
        case.draw(0)
        like = torch.empty(0, dtype=case.dtype, device=case.device)
        parameters = (
            start.last_layer(case.flow, case.network, case.problem, config.run.seed, like)
            .double()
            .cpu()
            .numpy()
        )
    else:
        parameters = np.concatenate([case.network.initial(config.run.seed), values])
    theta_P, coefficients = case.split(torch.as_tensor(parameters))
    return State(theta_P, coefficients, 0, 0.0, config.stepper.dt)


def prepare(run_dir, config, step):
    """Make the run folder fit to continue after `step`, or for a new run (None): its config.toml, nothing half-written, no newer
    checkpoint. UsageError where a new run would meet an old one. Local."""
    try:
        Path(run_dir).mkdir(parents=True, exist_ok=True)
        if step is None and checkpoint.any_in(run_dir):
            raise UsageError(
                f"{run_dir} already holds a run; continue it with `nedhpc resume {run_dir}` or --resume auto, or give another --out"
            )
        checkpoint.tidy(run_dir, step or 0)
        checkpoint.replace(Path(run_dir) / "config.toml", config.toml().encode())
    except OSError as error:
        raise UsageError(f"cannot write in {run_dir}: {error.strerror or error}") from None


def load_resume(comm, run_dir):
    """(State, about) of the newest checkpoint that opens, read by rank 0 alone. Collective."""
    path, state, about, skipped = on_rank_0(comm, checkpoint.newest, run_dir)
    for error in skipped.values() if comm.rank == 0 else []:
        log.warning("%s; it is left aside, the run continues from %s", error, path.name)
    return state, about
