"""The commands that look at results: evaluate, export, compare, watch. One process needs no MPI."""

import json
import sys


def given_problem(args):
    """The class that --problem names, or None. Local."""
    from nedhpc.problems.base import Problem
    from nedhpc.user_code import load_class

    return args.problem and load_class(args.problem, Problem, "--problem")


def evaluate(args, comm=None) -> None:
    """Write the solution at points to a file, and print its name. Collective on comm, if given."""
    from nedhpc.postprocess.evaluate import evaluate as write

    count = write(
        args.path,
        args.output,
        points=args.points,
        grid=args.grid,
        jets=args.jets,
        time=args.time,
        problem=given_problem(args),
        comm=comm,
    )
    if comm is None or comm.rank == 0:
        print(args.output)
        print(f"{count} points", file=sys.stderr)


def export(args) -> None:
    """Write a VTKHDF file, and print its name and what it holds. Local."""
    from nedhpc.postprocess.export import export as write

    what = write(
        args.path,
        args.output,
        grid=args.grid,
        jets=args.jets,
        num_times=args.times,
        problem=given_problem(args),
    )
    print(args.output)
    print(what, file=sys.stderr)


def compare(args) -> None:
    """Print a table of runs, or their facts as JSON, and compare them with limits. Local."""
    from nedhpc.postprocess import compare as runs
    from nedhpc.postprocess import tables

    found = runs.facts(args.paths)
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        tables.show(tables.columns(runs.TITLES, runs.rows(found)))
    if args.against:
        runs.check_against(found, args.against, args.slack)


def watch(args) -> None:
    """Show the curve and the last figures of a run until it ends, or Ctrl-C. Local."""
    from nedhpc.postprocess.watch import watch as show

    try:
        show(args.run_dir, args.every)
    except KeyboardInterrupt:
        print()
