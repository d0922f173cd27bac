"""The Python API behind `nedhpc.run` and `nedhpc.load`."""

from pathlib import Path

from nedhpc import config as configs
from nedhpc.postprocess.solution import Solution


def run(config, run_dir=None, comm=None):
    """Run a Config, or a config file's path, to the end; returns (status, run folder). Collective on comm (default: all ranks).

    run_dir defaults to runs/<config>-<UTC>.
    """
    from mpi4py import MPI

    from nedhpc.files.lock import locked
    from nedhpc.run.evolve import default_run_dir, evolve

    comm = MPI.COMM_WORLD if comm is None else comm
    name = config.problem.name if isinstance(config, configs.Config) else Path(config).stem
    config = config if isinstance(config, configs.Config) else configs.load(config)
    run_dir = default_run_dir(comm, name.rpartition(":")[2]) if run_dir is None else Path(run_dir)
    with locked(comm, run_dir):
        status, _ = evolve(config, run_dir, comm)
    return status, run_dir


def load(path):
    """The Solution of a run folder or checkpoint: a callable u(x) with its `.series`. Local."""
    return Solution(path)
