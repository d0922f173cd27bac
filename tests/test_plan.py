"""A Plan knows the rows, memory and method of a run before it starts, without MPI or PETSc."""

import subprocess
import sys

import pytest
from conftest import make_table

from nedhpc.errors import ConfigError, UsageError
from nedhpc.plan import PROCESS_BYTES, Plan

POISSON = {"name": "poisson", "dim": 2}


def test_memory_counts_points_parameters_and_the_process():
    few, many = (
        Plan.of_table(
            make_table(problem=POISSON, sampling={"interior": n, "boundary": 40, "rule": "sobol"})
        )
        for n in (100, 20_000_000)
    )
    assert few.memory["process"] == PROCESS_BYTES
    assert many.memory["points"] > 8 * 3 * 20_000_000 > few.memory["points"]
    wide = Plan.of_table(
        make_table(
            problem=POISSON,
            network={"hidden": [20_000]},
            sampling={"interior": 100, "boundary": 40, "rule": "sobol"},
            solver={"type": "krylov"},
        )
    )
    assert wide.memory["parameters"] > 8 * 20_000 * 4 > few.memory["parameters"]


@pytest.mark.parametrize(
    "tables",
    [
        {"sampling": {"interior": 10**12, "boundary": 40, "rule": "sobol"}},
        {"network": {"hidden": [10**6, 10**6]}},
    ],
)
def test_what_cannot_fit_is_refused_with_the_remedy(tables):
    sampling = {"interior": 100, "boundary": 40, "rule": "sobol"}
    with pytest.raises(
        UsageError, match="need .* GiB .* fewer points, a smaller network or more ranks"
    ):
        Plan.of_table(make_table(problem=POISSON, **({"sampling": sampling} | tables)))


def test_more_ranks_need_less_on_each_rank():
    table = make_table(
        problem=POISSON, sampling={"interior": 1_000_000, "boundary": 40, "rule": "sobol"}
    )
    one, four = (Plan.of_table(table, num_ranks=n) for n in (1, 4))
    assert four.memory["points"] < 0.3 * one.memory["points"]
    assert four.cost.flops < one.cost.flops


def test_errors_of_keys_terms_and_stepper_come_together():
    table = make_table(
        problem={"name": "poisson", "dimm": 2}, network={"hiden": [3]}, stepper={"type": "ptc"}
    )
    with pytest.raises(ConfigError) as error:
        Plan.of_table(table)
    assert len(error.value.problems) == 2
    with pytest.raises(ConfigError) as error:
        Plan.of_table(make_table(problem=POISSON, sampling={"interior": 0.5}, weights={"wal": 2.0}))
    assert "sampling.interior" in str(error.value)


def test_planning_starts_neither_mpi_nor_petsc():
    code = (
        "import sys; from nedhpc.plan import Plan; Plan.read('configs/poisson_1d.toml');"
        "print([m for m in ('petsc4py', 'mpi4py', 'scipy.stats', 'matplotlib') if m in "
        "sys.modules])"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert child.returncode == 0 and child.stdout.strip() == "[]", child.stderr + child.stdout


def test_importing_changes_nothing_in_the_process():
    code = """
import signal, threading, warnings, torch
def facts():
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGPIPE)
    signals, filters = [signal.getsignal(n) for n in numbers], list(warnings.filters)
    return torch.get_default_dtype(), torch.get_num_threads(), signals, filters
before = facts()
import nedhpc
for name in nedhpc.__all__: getattr(nedhpc, name)
import nedhpc.plan, nedhpc.postprocess.plot
assert facts() == before, (before, facts())
"""
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert child.returncode == 0, child.stderr


@pytest.mark.parametrize("dim, hidden", [(1, [64]), (2, [24, 24])])
def test_a_config_may_name_the_problem_only(dim, hidden):
    """Network and numbers of points are then chosen, and the resolved config says which."""
    plan = Plan.of_table({"problem": {"name": "poisson", "dim": dim}})
    assert plan.config.network.hidden == hidden and plan.counts["interior"] >= 400
    assert f"hidden = [\n    {hidden[0]},"[:9] in plan.config.toml()
