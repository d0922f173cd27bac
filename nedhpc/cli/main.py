"""The command line: the only reader of argv, and the only place that sets up process-wide things."""

import argparse
import json
import logging
import os
import platform
import sys
import traceback
from pathlib import Path

from nedhpc import config as configs
from nedhpc.errors import ConfigError, NedError, UsageError
from nedhpc.run.stop import Stop

STOPPED = 75
"""Exit code: checkpointed on a signal or ahead of the scheduler's limit; start the same command again."""

log = logging.getLogger("nedhpc")


def main(argv=None):
    """Run a subcommand; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    petsc_options = []
    if "--" in argv:
        petsc_options = argv[argv.index("--") + 1 :]
        argv = argv[: argv.index("--")]
    args = parser().parse_args(argv)
    args.petsc_options = petsc_options
    if args.command in ("run", "resume"):
        return on_all_ranks(args)
    try:
        args.function(args)
        sys.stdout.flush()
    except NedError as error:
        print(f"nedhpc: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `nedhpc info | head`
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or the interpreter would flush, and fail, once more
    return 0


def parser():
    top = argparse.ArgumentParser(
        prog="nedhpc",
        description="Train neural networks by evolving their parameters along the descent "
        "flow of an energy. PETSc options follow after --.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, function, text):
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        return sub

    sub = command("run", run, "run a config to the end (also under mpirun)")
    sub.add_argument("config", type=Path, metavar="CONFIG.toml")
    sub.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides"
    )
    sub.add_argument("--out", type=Path, metavar="RUN_DIR", help="default: runs/<config>-<UTC>")
    sub.add_argument(
        "--resume",
        choices=("auto", "never"),
        default="never",
        help="auto: continue what is in RUN_DIR, if anything",
    )
    sub = command(
        "resume", resume, "continue a run from its newest valid checkpoint, on any number of ranks"
    )
    sub.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    sub.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides"
    )
    sub = command("check", check, "validate a config and predict its cost; needs no GPU and no MPI")
    sub.add_argument("config", type=Path, metavar="CONFIG.toml")
    sub.add_argument("--ranks", type=int, default=1, metavar="N")
    sub.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides"
    )
    sub = command("info", info, "what a run or checkpoint is")
    sub.add_argument("path", type=Path, metavar="RUN_DIR|FILE.h5")
    sub.add_argument("--json", action="store_true")
    sub = command("plot", plot, "figure of convergence, field and error field")
    sub.add_argument("paths", type=Path, nargs="+", metavar="RUN_DIR")
    sub.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: RUN_DIR/plot.png")
    command("problems", problems, "the catalogue: problems and their options")
    return top


def on_all_ranks(args):
    """A command of all ranks: expected errors are collective and printed once, any other ends the job at once."""
    args.stop = Stop()
    args.stop.install()
    import mpi4py

    mpi4py.rc.thread_level = "funneled"
    from mpi4py import MPI

    from nedhpc.parallel.placement import threads_per_rank

    comm, own = MPI.COMM_WORLD, MPI.COMM_WORLD.Dup()
    # Before torch and BLAS are imported and read it.
    os.environ["OMP_NUM_THREADS"] = str(threads_per_rank(comm))
    logging.basicConfig(
        level=logging.INFO if comm.rank == 0 else logging.ERROR,
        format="%(message)s",
        stream=sys.stderr,
    )
    try:
        status = args.function(args, comm)
        return STOPPED if status == "stopped" else 0
    except NedError as error:
        if comm.rank == 0:
            print(f"nedhpc: {error}", file=sys.stderr, flush=True)
        from nedhpc.parallel.comm import all_come

        if not all_come(own):
            print(f"nedhpc: rank {comm.rank} failed alone: {error}", file=sys.stderr, flush=True)
            comm.Abort(error.exit_code)
        return error.exit_code
    except BaseException as error:
        # One rank raising leaves the others in a collective: end them all.
        if out_of_memory(error):
            print(
                f"nedhpc: rank {comm.rank} on {platform.node()} ran out of memory: {(str(error) or type(error).__name__).splitlines()[0]}\n  Fewer points or parameters, a "
                "smaller solver.chunk, solver.type = 'krylov' or more nodes need less; `nedhpc check` predicts it. The checkpoints are "
                "untouched.",
                file=sys.stderr,
            )
        else:
            print(f"nedhpc: rank {comm.rank} failed", file=sys.stderr)
            traceback.print_exc()
        sys.stderr.flush()
        sys.stdout.flush()
        if comm.size > 1:
            comm.Abort(1)
        return 1


def out_of_memory(error):
    """Whether numpy, torch on a CPU, or CUDA had no memory left."""
    return (
        isinstance(error, MemoryError)
        or isinstance(error, RuntimeError)
        and any(part in str(error) for part in ("can't allocate memory", "out of memory"))
    )


def run(args, comm):
    from nedhpc.files.checkpoint import any_in
    from nedhpc.files.lock import locked
    from nedhpc.parallel.comm import on_rank_0
    from nedhpc.run.evolve import default_run_dir, load_resume

    config = on_rank_0(comm, validate_all, args.config, args.overrides, args.petsc_options)
    run_dir = args.out or default_run_dir(comm, args.config.stem)
    with locked(comm, run_dir):
        continued = args.resume == "auto" and on_rank_0(comm, any_in, run_dir)
        return finish(
            args, comm, config, run_dir, load_resume(comm, run_dir) if continued else None
        )


def resume(args, comm):
    from nedhpc.files.checkpoint import any_in
    from nedhpc.files.lock import locked
    from nedhpc.parallel.comm import on_rank_0
    from nedhpc.problems import check_unchanged
    from nedhpc.run.evolve import load_resume

    if not on_rank_0(comm, any_in, args.run_dir):
        raise UsageError(f"{args.run_dir} holds no checkpoint to continue from")
    with locked(comm, args.run_dir):
        state, about = load_resume(comm, args.run_dir)
        table = configs.override(configs.tomllib.loads(about["config"]), args.overrides)
        if args.petsc_options:
            table.setdefault("stepper", {})["petsc_options"] = " ".join(
                [table["stepper"].get("petsc_options", ""), *args.petsc_options]
            ).strip()
        config = configs.validate(table)
        on_rank_0(
            comm,
            check_unchanged,
            config,
            about["user_files"],
            [setting.partition("=")[0] for setting in args.overrides],
        )
        return finish(args, comm, config, args.run_dir, (state, about))


def finish(args, comm, config, run_dir, continued):
    """Run to the end, report, return the status. Collective."""
    from nedhpc.run.evolve import evolve

    args.stop.install()
    status, _ = evolve(config, run_dir, comm, continued, args.stop)
    report(comm, run_dir)
    return status


def report(comm, run_dir):
    """One line of result on stdout."""
    from nedhpc.postprocess.info import info as facts

    if comm.rank == 0:
        found = facts(run_dir)
        error = "" if found["relative_l2"] is None else f"  relative L2 {found['relative_l2']:.3e}"
        error += "".join(
            f"  {name} {value:.4f}"
            for name, value in found["metrics"].items()
            if name != "coefficients"
        )
        print(
            f"{found['status']}  step {found['step']}  energy {found['energy']:.3e}{error}  {found['wall_time']:.1f} s  {run_dir}",
            flush=True,
        )
        if found["message"]:
            log.info("%s", found["message"])


def validate_all(path, overrides=(), petsc_options=()):
    """A config with the errors of its keys and of its problem's options reported together."""
    from nedhpc import problems as catalogue
    from nedhpc.run.case import point_counts

    table = configs.read(path, overrides, petsc_options)
    errors, config, problem = [], None, None
    try:
        config = configs.validate(table)
    except ConfigError as error:
        errors += error.problems
    section = table.get("problem")
    if isinstance(section, dict) and isinstance(section.get("name"), str):
        try:
            problem = catalogue.build(section)
        except ConfigError as error:
            errors += error.problems
    if config and problem:
        try:
            point_counts(config, problem)
        except ConfigError as error:
            errors += error.problems
    if errors:
        raise ConfigError(errors, path)
    return config


def check(args):
    from nedhpc import problems as catalogue
    from nedhpc import solvers
    from nedhpc.flows.energy import Energy
    from nedhpc.run.case import choose_solver, count_rows, make_network, method, point_counts

    config = validate_all(args.config, args.overrides)
    problem = catalogue.build(config.problem.model_dump())
    counts, network = point_counts(config, problem), make_network(config, problem)
    energy, krylov = Energy(problem, network, config.solver.chunk), config.solver.krylov
    P, N = energy.num_parameters, count_rows(problem, counts)
    kind = choose_solver(config, energy, counts, args.ranks)
    local = -(-N // args.ranks)
    if kind == "none":
        bytes_needed, flops = min(local, energy.chunk) * energy.point_bytes, 6 * local * P
    else:
        bytes_needed = solvers.memory_bytes(
            kind,
            N,
            P,
            args.ranks,
            config.flow.metric,
            energy.chunk,
            krylov.rank,
            energy.point_bytes,
        )
        flops = {
            "dual": N**2 * P + 9 * N**3,
            "krylov": 8 * local * P * (krylov.rank + krylov.max_iterations),
        }.get(kind, 2 * local * P**2 + 22 * P**3)
    points = ", ".join(f"{name} {count}" for name, count in counts.items())
    print(
        f"config        {args.config}: valid\nparameters    {P}\npoints        {points}\nrows          {N}, at most {local} a rank\n"
        f"method        {method(config, kind)}\nmemory        {bytes_needed / 2**20:.0f} MiB on rank 0\n"
        f"work          {flops / 1e9:.2f} Gflop a step on rank 0"
    )


def info(args):
    from nedhpc.postprocess.info import info as facts

    found = facts(args.path)
    if args.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        if value not in (None, {}, [], ""):
            print(f"{name:18} {value:.6g}" if isinstance(value, float) else f"{name:18} {value}")


def plot(args):
    from nedhpc.postprocess.plot import plot as draw

    output = args.output or args.paths[0] / "plot.png"
    draw(args.paths, output)
    print(output)


def problems(args):
    import inspect

    from nedhpc.problems import CATALOGUE

    for name, cls in CATALOGUE.items():
        print(f"{name:12} {inspect.getdoc(cls).splitlines()[0]}")
        options = ", ".join(
            str(p).split(":")[0] + f" = {p.default!r}"
            for p in inspect.signature(cls).parameters.values()
        )
        print(f"{'':12} options: {options}")
    folder = Path(__file__).parents[2] / "configs"
    for path in sorted(folder.glob("*.toml")):
        print(f"{path.stem:24} {path.read_text().splitlines()[0].lstrip('# ')}")
