"""Whole runs are repeatable, resumable to the bit, and the same at any number of ranks.

Their files can be read afterwards.
"""

import json
import tomllib

import h5py
import numpy as np
import pytest
import torch
from conftest import evolve as run
from conftest import make_config

import nedhpc
from nedhpc.config import override, validate
from nedhpc.errors import NonFiniteError, NotAStateError, UsageError
from nedhpc.files import checkpoint
from nedhpc.files.resume import load_resume
from nedhpc.parallel.phases import PHASES
from nedhpc.postprocess.info import info
from nedhpc.postprocess.solution import Solution

pytestmark = pytest.mark.mpi
STEPPERS = {
    "euler": ("euler", ""),
    "rk4": ("rk", "-ts_rk_type 4"),
    "rk5dp": ("rk", "-ts_rk_type 5dp"),
    "ptc": ("ptc", ""),
}


def settings(name="ptc", steps=20, **tables):
    kind, options = STEPPERS[name]
    stepper = {"type": kind, "dt": 1.0 if kind == "ptc" else 1e-4, "petsc_options": options}
    return make_config(stepper=stepper, run={"max_steps": steps}, **tables)


@pytest.mark.parametrize("name", STEPPERS)
@pytest.mark.parametrize("resample", [0, 3])
def test_resume_equals_no_interruption(comm, folder, name, resample):
    sampling = {"rule": "uniform", "resample_every": resample}
    _, whole = run(settings(name, sampling=sampling), folder / "whole", comm)
    _, again = run(settings(name, sampling=sampling), folder / "again", comm)
    assert np.array_equal(whole.theta_P, again.theta_P)
    run(settings(name, 10, sampling=sampling), folder / "parts", comm)
    state, about = load_resume(comm, folder / "parts")
    assert state.step == 10
    table = override(tomllib.loads(about.config), ["run.max_steps=20"])
    _, resumed = run(validate(table), folder / "parts", comm, (state, about))
    assert resumed.step == 20
    assert np.array_equal(whole.theta_P, resumed.theta_P) and whole.dt == resumed.dt
    if comm.rank == 0:
        for column in ("step", "time", "energy", "relative_l2"):
            assert np.array_equal(
                Solution(folder / "whole").series[column], Solution(folder / "parts").series[column]
            )


@pytest.mark.parametrize(
    "end", [{"max_steps": 4}, {"max_time": 4e-4}, {"target_relative_l2": 10.0}]
)
def test_a_finished_run_stays_finished(comm, folder, end):
    """Resuming it with the same settings makes no step and gives the same reason for the end.

    Its series does not change.
    """
    table = {"stepper": {"type": "euler", "dt": 1e-4}, "run": {"max_steps": 4} | end}
    status, state = run(make_config(**table), folder / "run", comm)
    comm.Barrier()
    before = Solution(folder / "run").series
    comm.Barrier()
    resumed = load_resume(comm, folder / "run")
    again, last = run(make_config(**table), folder / "run", comm, resumed)
    assert (again, last.step) == (status, state.step)
    if comm.rank == 0:
        after = Solution(folder / "run").series
        assert all(np.array_equal(after[name], before[name], equal_nan=True) for name in before)


def test_a_checkpoint_has_the_energy_and_error_of_its_own_state(comm, folder):
    """This holds even if the series has no entry for the step of the checkpoint."""
    table = {"run": {"max_steps": 7}, "output": {"every_steps": 100}}
    table["checkpoint"] = {"every_steps": 5, "keep": 10}
    run(make_config(**table), folder / "sparse", comm)
    run(make_config(**table | {"output": {"every_steps": 1}}), folder / "dense", comm)
    if comm.rank == 0:
        series = Solution(folder / "dense").series
        found = {checkpoint.step_of(path): path for path in checkpoint.paths(folder / "sparse")}
        assert set(found) == {0, 5, 7}
        for step, path in found.items():
            _, record = checkpoint.read(path)
            assert record.stats["energy"] == series["energy"][step]
            assert record.stats["relative_l2"] == series["relative_l2"][step]


def test_a_run_does_not_depend_on_ranks(comm, folder):
    """The distributed run is compared with the same run on each rank alone."""
    from mpi4py import MPI

    _, together = run(settings("ptc"), folder / "together", comm)
    _, alone = run(settings("ptc"), folder / f"alone{comm.rank}", MPI.COMM_SELF)
    assert np.linalg.norm(together.theta_P - alone.theta_P) < 1e-9 * np.linalg.norm(alone.theta_P)


def test_more_ranks_than_points_are_allowed(comm, folder):
    status, state = run(settings("ptc", 3, sampling={"interior": 1}), folder / "few", comm)
    assert status == "max_steps" and np.isfinite(state.theta_P).all()


def test_info_and_files_hold_the_facts_of_a_run(comm, folder):
    run(settings("ptc", 12), folder / "run", comm)
    if comm.rank:
        return
    facts = json.loads(json.dumps(info(folder / "run")))
    assert facts["status"] == "max_steps" and facts["step"] == 12
    assert facts["method"] == "euclidean/ptc/tsqr"
    assert facts["num_ranks"] == comm.size
    assert facts["num_parameters"] == 25 and facts["num_points"] == 42
    assert abs(sum(facts["energy_terms"].values()) - facts["energy"]) < 1e-12 * facts["energy"]
    solution = Solution(folder / "run")
    x = np.linspace(0, 1, 10_001)[:, None]
    exact = solution.exact(x)
    error = np.linalg.norm(solution(x) - exact) / np.linalg.norm(exact)
    assert abs(error / facts["relative_l2"] - 1) < 1e-2
    with h5py.File(folder / "run" / "series.h5") as file:
        names = ("step", "time", "dt", "energy", "relative_l2", "wall_time", "energy_terms/pde")
        assert {file[name].shape for name in names} == {(3,)}
        assert list(file["step"][:]) == [0, 10, 12]
        assert file["energy"].dims[0][0] == file["step"] and file["wall_time"].attrs["units"] == "s"
        seconds = {phase: file[f"seconds/{phase}"][:] for phase in PHASES}
        assert all(values.shape == (3,) for values in seconds.values())
        assert min(seconds["rows"][1], seconds["solve"][1]) > 0
        assert sum(values.sum() for values in seconds.values()) <= file["wall_time"][-1]
    with h5py.File(checkpoint.paths(folder / "run")[-1]) as file:
        assert file.attrs["complete"] and file.attrs["schema_version"] == 2
        assert file["state/theta"].dtype == np.float64


def test_the_last_checkpoints_are_kept_and_torn_ones_skipped(comm, folder):
    run(settings("ptc", 10, checkpoint={"every_steps": 2, "keep": 3}), folder / "run", comm)
    if comm.rank:
        return
    files = checkpoint.paths(folder / "run")
    assert [int(path.stem[-10:]) for path in files] == [6, 8, 10]
    files[-1].write_bytes(files[-1].read_bytes()[:3000])
    path, state, _, skipped = checkpoint.newest(folder / "run")
    assert state.step == 8 and len(skipped) == 1
    with pytest.raises(NotAStateError):
        checkpoint.read(folder / "run" / "series.h5")


FAILING = """
import nedhpc
class P(nedhpc.Problem):
    domain = nedhpc.Box([0.0], [1.0])
    terms = [nedhpc.Residual("failing", jets=("u",))]
    calls = 0
    def failing(self, x, j, c):
        P.calls += 1
        return j.u - 1 if P.calls < 150 else j.u * float("nan")
"""


@pytest.mark.parametrize("kind", ["euler", "ptc", "adam"])
def test_nan_leaves_the_last_good_state(comm, folder, kind):
    """No shorter step helps here, so the run ends with an error."""
    if comm.rank == 0:
        (folder / "p.py").write_text(FAILING)
    comm.Barrier()
    config = make_config(
        problem={"name": f"{folder}/p.py:P"},
        stepper={"type": kind, "dt": 1e-3},
        run={"max_steps": 500},
    )
    ends = []

    class Ends(nedhpc.Observer):
        def end(self, run, stop):
            ends.append(stop.status)

    with pytest.raises(NonFiniteError, match=r"step \d+: .* not finite; the likely cause"):
        run(config, folder / "run", comm, observers=[Ends()])
    assert ends == ["failed"]
    if comm.rank == 0:
        _, state, _, _ = checkpoint.newest(folder / "run")
        assert np.isfinite(state.theta_P).all() and state.step > 0
        assert info(folder / "run")["status"] == "failed"


BARRIER = """
import nedhpc, torch
class P(nedhpc.Problem):
    domain = nedhpc.Box([0.0], [1.0])
    terms = [nedhpc.Residual("barrier", jets=("u",))]
    def barrier(self, x, j, c):
        "0 at u = 0.5; not a number if u > 1."
        return 1 + torch.log(1 - j.u) / 0.6931471805599453
"""


@pytest.mark.parametrize("name", ["euler", "rk5dp"])
def test_a_step_to_a_non_finite_energy_is_repeated_with_a_shorter_dt(comm, folder, name):
    if comm.rank == 0:
        (folder / "p.py").write_text(BARRIER)
    comm.Barrier()

    def barrier(steps):
        stepper = {
            "type": STEPPERS[name][0],
            "dt": 8.0,
            "petsc_options": f"{STEPPERS[name][1]} -ts_adapt_type none",
        }
        return make_config(
            problem={"name": f"{folder}/p.py:P"},
            stepper=stepper,
            run={"max_steps": steps},
            output={"every_steps": 3},
        )

    status, whole = run(barrier(40), folder / "whole", comm)
    assert status == "max_steps" and whole.step == 40 and 8 * 0.25**8 < whole.dt < 8
    run(barrier(10), folder / "parts", comm)
    state, about = load_resume(comm, folder / "parts")
    _, parts = run(barrier(40), folder / "parts", comm, (state, about))
    assert np.array_equal(parts.theta_P, whole.theta_P) and parts.dt == whole.dt
    if comm.rank == 0:
        series = Solution(folder / "whole").series
        assert list(series["step"]) == [*range(0, 40, 3), 40]
        assert series["energy"][-1] < 0.5 * series["energy"][0]
        assert np.isfinite(series["energy"]).all()


def test_last_layer_start_solves_smooth_problems(comm, folder):
    _, state = run(
        make_config(
            network={"hidden": [40]},
            sampling={"interior": 200},
            run={"start": "last_layer", "max_steps": 0},
        ),
        folder / "run",
        comm,
    )
    if comm.rank == 0:
        assert info(folder / "run")["relative_l2"] < 1e-8
        assert Solution(folder / "run").series["wall_time"][0] > 0  # the time of the start counts


def test_initial_checkpoint_is_continued_by_another_stepper(comm, folder):
    _, first = run(settings("euler", 5), folder / "a", comm)
    comm.Barrier()
    path = checkpoint.paths(folder / "a")[-1]
    _, second = run(make_config(run={"initial": str(path), "max_steps": 0}), folder / "b", comm)
    assert np.array_equal(first.theta_P, second.theta_P) and second.step == 0


@pytest.mark.parametrize(
    "network, part",
    [
        # All have 25 parameters.
        ({"hidden": [2, 5], "activation": "tanh"}, "8x1 0, .*this config's network has .*5x2 4"),
        ({"hidden": [8], "activation": "sin"}, "activation = 'tanh'.* this config's has .* 'sin'"),
    ],
)
def test_parameters_of_another_network_are_refused(comm, folder, network, part):
    run(settings("euler", 0, network={"hidden": [8], "activation": "tanh"}), folder / "a", comm)
    comm.Barrier()
    initial = {"initial": str(checkpoint.paths(folder / "a")[-1]), "max_steps": 0}
    with pytest.raises(UsageError, match=part):
        run(make_config(network=network, run=initial), folder / "b", comm)


def test_what_the_program_chose_is_taken_from_the_initial_checkpoint(comm, folder):
    run(settings("euler", 0, network={"hidden": [7], "activation": "sin"}), folder / "a", comm)
    comm.Barrier()
    initial = {"initial": str(checkpoint.paths(folder / "a")[-1]), "max_steps": 0}
    run(make_config(network={"hidden": None}, run=initial), folder / "b", comm)
    network = load_resume(comm, folder / "b")[1].parsed().network
    assert (network.hidden, network.activation) == ([7], "sin")


def test_float32_solves_poisson(comm, folder):
    run(settings("ptc", 40, device={"dtype": "float32"}), folder / "run", comm)
    if comm.rank == 0:
        assert info(folder / "run")["relative_l2"] < 1e-2


class OnARing(nedhpc.Problem):
    """u - u_xx = f on a ring of length 2, without boundary terms."""

    domain = nedhpc.Periodic([0], [2])

    @nedhpc.residual("interior")
    def pde(self, x, j):
        return j.u - j.u_xx - (1 + np.pi**2) * self.exact(x)[:, 0]

    def exact(self, x):
        return torch.sin(np.pi * x)


class Beam(nedhpc.Problem):
    """u_xxxx = f with u = 0 imposed exactly, and u_xx = 0 by a term, at both ends."""

    domain = nedhpc.Box([0], [1])
    hard = {"boundary": {"u": 0.0}}

    @nedhpc.residual("interior")
    def pde(self, x, j):
        return j.u_xxxx / np.pi**4 - self.exact(x)[:, 0]

    @nedhpc.residual("boundary")
    def moment(self, j):
        return j.u_xx

    def exact(self, x):
        return torch.sin(np.pi * x)


@pytest.mark.parametrize(
    "problem, network",
    [(OnARing, {}), (Beam, {}), (None, {"embedding": "fourier", "fourier": {"num_features": 10}})],
    ids=["periodic domain", "hard condition", "Fourier embedding"],
)
def test_ansatz_layers_solve_problems(comm, folder, problem, network):
    """Each run finds the right solution, which has the property that its layer promises."""
    counts = {"interior": 60, "boundary": 2}
    if problem is OnARing:
        del counts["boundary"]
    table = {"network": {"hidden": [20]} | network, "sampling": counts, "run": {"max_steps": 60}}
    if problem is None:
        table["problem"] = {"name": "poisson", "dim": 1}
    nedhpc.run(table, folder / "run", comm, problem=problem)
    if comm.rank == 0:
        u = nedhpc.load(folder / "run", problem)
        assert u.record.stats["relative_l2"] < 1e-5
        if problem is OnARing:
            np.testing.assert_allclose(u([[0.3], [0.0]]), u([[2.3], [2.0]]), atol=1e-14)
        if problem is Beam:
            assert u([[0.0], [1.0]]).tolist() == [[0.0], [0.0]]
