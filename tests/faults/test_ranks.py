"""If one rank fails or ranks would disagree, the job soon ends with one clear error."""

import time

import pytest
from conftest import make_config
from processes import finish, start, wait_for_step

from nedhpc.errors import UsageError
from nedhpc.files import checkpoint, provenance
from nedhpc.parallel.failure import ends_together
from nedhpc.user_code import digests

PROBLEM = """
import os, nedhpc, torch
class P(nedhpc.Problem):
    domain = nedhpc.Box([0.0], [1.0])
    terms = [nedhpc.Residual("pde", jets=("u", "lap_u"))]
    calls = 0
    def pde(self, x, j, c):
        P.calls += 1
        if P.calls > 200 and os.environ.get("OMPI_COMM_WORLD_RANK", "0") == "@RANK@":
            @ACTION@
        return j.lap_u + 1
"""
CONFIG = """
[problem]
name = "p.py:P"
[sampling]
interior = 50
[run]
max_steps = 100000000
[stepper]
type = "euler"
dt = 1e-9
[checkpoint]
every_steps = 20
"""


def failing(tmp_path, action, rank=1):
    (tmp_path / "p.py").write_text(PROBLEM.replace("@ACTION@", action).replace("@RANK@", str(rank)))
    (tmp_path / "case.toml").write_text(CONFIG)
    return tmp_path / "case.toml"


@pytest.mark.parametrize(
    "action, ranks", [("torch.zeros(10**14)", 2), ("import numpy; numpy.zeros(10**14)", None)]
)
def test_out_of_memory_is_reported_with_the_remedy(tmp_path, action, ranks):
    out = tmp_path / "run"
    code, _, err = finish(
        start("run", failing(tmp_path, action, 1 if ranks else 0), "--out", out, ranks=ranks), 120
    )
    assert code not in (0, 2, 75), err
    assert "ran out of memory" in err and "solver.chunk" in err, err
    assert "Traceback" not in err
    assert checkpoint.newest(out)[1].step >= 20


def test_an_expected_error_of_one_rank_ends_the_job(tmp_path):
    """If the job went on, the other ranks would wait for that rank for ever."""
    config = failing(
        tmp_path, "from nedhpc.errors import UsageError; raise UsageError('only here')"
    )
    process = start("run", config, "--out", tmp_path / "run", ranks=3)
    wait_for_step(tmp_path / "run", 0, process)
    begun = time.monotonic()
    code, _, err = finish(process, 90)
    assert code != 0
    assert "only here" in err and "only rank 1 failed" in err
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(
    "action, part", [("raise RuntimeError('a bug here')", "a bug here"), ("os._exit(3)", "")]
)
def test_a_bug_or_an_exit_of_one_rank_ends_the_job(tmp_path, action, part):
    process = start("run", failing(tmp_path, action), "--out", tmp_path / "run", ranks=3)
    wait_for_step(tmp_path / "run", 0, process)
    begun = time.monotonic()
    code, _, err = finish(process, 60)
    assert code not in (0, 2, 75) and time.monotonic() - begun < 40 and part in err, err
    if part:
        assert "Traceback" in err and "rank 1" in err


SCRIPT = """
import sys, time, nedhpc
from mpi4py import MPI

class P(nedhpc.Problem):
    domain = nedhpc.Box([0.0], [1.0])

    @nedhpc.residual("interior")
    def pde(self, j):
        return j.lap_u + 1

class Failing(nedhpc.Observer):
    def step(self, run, moment):
        if moment.state.step == 3 and MPI.COMM_WORLD.rank == int(sys.argv[2]):
            print("time", time.time(), flush=True)
            raise @ERROR@("a bug here")

table = {"sampling": {"interior": 50}, "stepper": {"type": "euler", "dt": 1e-9}}
table |= {"run": {"max_steps": 100000000}}
try:
    nedhpc.run(table, sys.argv[1], problem=P, observers=[Failing()])
except @ERROR@:
    print("caught")
assert sys.excepthook is sys.__excepthook__
"""


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "nedhpc.errors.UsageError"])
def test_an_exception_of_one_rank_of_a_script_ends_the_job(tmp_path, error):
    """PETSc's finalisation would wait for the other rank, and this one for the failed one."""
    (tmp_path / "script.py").write_text(SCRIPT.replace("@ERROR@", error))
    process = start(tmp_path / "run", "1", ranks=2, program=(tmp_path / "script.py",))
    code, out, err = finish(process, 120)
    assert time.time() - float(out.split("time ")[1].split()[0]) < 12
    assert code != 0 and "caught" not in out
    assert "a bug here" in err and "Traceback" in err and "rank 1 failed" in err, err


def test_an_exception_of_a_serial_script_is_raised(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT.replace("@ERROR@", "ValueError"))
    process = start(tmp_path / "run", "0", program=(tmp_path / "script.py",))
    code, out, err = finish(process, 120)
    assert code == 0 and "caught" in out, err


@pytest.mark.mpi(min_size=2)
def test_an_exception_of_all_ranks_is_raised(comm):
    with pytest.raises(KeyError), ends_together(comm):
        raise KeyError("all")
    with ends_together(comm):
        pass


def test_all_ranks_agree_on_the_nan_of_one_rank(tmp_path):
    out = tmp_path / "run"
    code, _, err = finish(
        start("run", failing(tmp_path, "return j.u * float('nan')"), "--out", out, ranks=2)
    )
    assert code == 1 and "is not finite; the likely cause" in err and "Traceback" not in err, err
    assert err.count("nedhpc: after step") == err.count("nedhpc: ") == 1, err
    assert checkpoint.newest(out)[1].step >= 20


@pytest.mark.mpi(min_size=2)
def test_what_differs_between_ranks_is_named(comm, folder):
    provenance.inputs(comm, make_config(), {})
    last = comm.rank == comm.size - 1
    with pytest.raises(UsageError, match=rf"config: .*\(rank {comm.size - 1}\)"):
        provenance.inputs(comm, make_config(run={"seed": int(last)}), {})
    # The folder "there" does not exist, so that the last rank does not find the file.
    path = folder / "there" / ".." / "p.py" if last else folder / "p.py"
    if comm.rank == 0:
        path.write_text("x = 1\n")
    comm.Barrier()
    config = make_config(problem={"name": f"{path}:P"})
    with pytest.raises(UsageError, match=r"problem.name: [0-9a-f]+ on .*, missing on"):
        provenance.inputs(comm, config, digests(config))
