"""The Python API behind `nedhpc.run` and `nedhpc.load`."""

from nedhpc import config as configs
from nedhpc.postprocess.solution import Solution


def run(config, run_dir, comm=None):
    """Run a Config, or a config file's path, to the end; returns (status, State). Collective on comm."""
    from nedhpc.evolve import evolve
    return evolve(config if isinstance(config, configs.Config) else configs.load(config), run_dir, comm)


def load(path):
    """The Solution of a run folder or checkpoint: a callable u(x) with its `.series`. Local."""
    return Solution(path)
