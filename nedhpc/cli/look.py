"""The commands that look at results: evaluate. Only HDF5 is needed, and no MPI for one process."""

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
