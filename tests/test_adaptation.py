"""Held-out points, growing samples, time windows and starts: chosen by the run, repeatable."""

import logging

import numpy as np
import pytest
import torch
from mpi4py import MPI
from test_scaling import default_table

import nedhpc
from nedhpc.errors import ConfigError
from nedhpc.files import checkpoint, series
from nedhpc.files.resume import load_resume
from nedhpc.flows import estimate
from nedhpc.plan import Plan
from nedhpc.postprocess.fresh import fresh_energy
from nedhpc.postprocess.info import info
from nedhpc.running.case import Case
from nedhpc.running.evolve import Run

COMM = MPI.COMM_SELF


class Waves(nedhpc.Problem):
    """u' = 6 cos(6 t) + (sin(6 t) - u), u(0) = 0, on (0, end): u = sin(6 t)."""

    outputs = ("u",)

    def __init__(self, end: float = 2.0):
        self.domain = nedhpc.SpaceTime([], [], end)

    @nedhpc.residual("interior")
    def ode(self, x, j):
        return j.u_t - 6 * torch.cos(6 * x[:, 0]) - torch.sin(6 * x[:, 0]) + j.u

    @nedhpc.residual("initial")
    def start(self, j):
        return j.u


class Pendulum(nedhpc.Problem):
    """u'' = -sin u, u(0) = 2, u'(0) = 0: of second order in time and nonlinear."""

    domain = nedhpc.SpaceTime([], [], 6.0)

    @nedhpc.residual("interior")
    def ode(self, j):
        return j.u_tt + torch.sin(j.u)

    @nedhpc.residual("initial")
    def start(self, j):
        return torch.stack([j.u - 2, j.u_t], 1)


class Peak(nedhpc.Problem):
    """u = 1 / (1 + sharpness (x - 0.3)^2), given as a residual on few points."""

    domain = nedhpc.Box([0.0], [1.0])

    def __init__(self, sharpness: float = 1000.0):
        self.sharpness = sharpness

    @nedhpc.residual("interior")
    def fit(self, x, j):
        return j.u - 1 / (1 + self.sharpness * (x[:, 0] - 0.3) ** 2)


def plan_of(problem, comm=COMM, **tables):
    table = default_table(**tables) | {"problem": {"name": "x"}}
    table["problem"] = {"name": f"python:{type(problem).__name__}"}
    return Plan.of_table(table, problem=problem, num_ranks=comm.size)


def run(problem, run_dir, comm=COMM, resumed=None, **tables):
    return Run(comm, plan_of(problem, comm, **tables), run_dir, resumed).evolve()


def small(**settings):
    run = {"max_steps": 60, "start": "random"} | settings
    return {"sampling": {"interior": 64}, "run": run, "network": {"hidden": [16]}}


def test_held_out_points_are_never_trained_on(tmp_path):
    from nedhpc.running.case import Case

    case = Case(COMM, plan_of(Waves(), **small()))
    case.draw(0)
    trained, held_out = (p["interior"].x_ND for p in (case.flow.sample, case.held_out))
    assert len(held_out) >= 16 and not np.isin(held_out.numpy(), trained.numpy()).any()


def test_a_sample_that_is_overfitted_grows_and_nests(tmp_path, caplog):
    """Eight points cannot show the peak; the run finds it by its held-out points."""
    caplog.set_level(logging.INFO)
    tables = small(max_steps=80) | {"sampling": {"interior": 8}}
    _, state = run(Peak(), tmp_path / "run", **tables)
    assert state.growth > 0 and "the sample grows to" in caplog.text
    columns = series.read(tmp_path / "run" / "series.h5")
    assert columns["held_out_energy"][-1] < 3 * columns["energy"][-1] + 1e-12
    few = plan_of(Peak(), **tables)
    assert few.leg(state).counts["interior"] == few.counts["interior"] * 2**state.growth
    fixed = tables | {"sampling": {"interior": 8, "adapt": "none"}}
    _, state = run(Peak(), tmp_path / "fixed", **fixed)
    assert state.growth == 0
    columns = series.read(tmp_path / "fixed" / "series.h5")
    assert columns["held_out_energy"][-1] > 100 * columns["energy"][-1]
    assert info(tmp_path / "fixed")["warnings"]


NEEDLE = Peak(sharpness=1e6)
"""A peak of width 0.002, which 128 points hardly see."""


def needle(**settings):
    return small(max_steps=40, starts=1, **settings) | {"sampling": {"interior": 128}}


def test_a_sample_that_is_large_enough_moves_to_the_residual(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    plan = plan_of(NEEDLE, **needle())
    _, state = run(NEEDLE, tmp_path / "run", **needle())
    assert state.draw > 0 and "moves to where the residual is large" in caplog.text
    case = Case(COMM, plan)
    case.take_up(state)
    x = case.flow.sample["interior"].x_ND
    assert len(x) == plan.leg(state).counts["interior"]
    assert ((x - 0.3).abs() < 0.02).double().mean() > 0.1  # 4 % of the interval, with the peak


def test_a_moved_sample_is_resumed_to_the_bit(tmp_path):
    tables = needle() | {"checkpoint": {"every_steps": 4, "keep": 50}}
    _, whole = run(NEEDLE, tmp_path / "whole", **tables)
    for steps in (12, 24, 32):
        folder = tmp_path / f"part{steps}"
        run(NEEDLE, folder, **tables | {"run": tables["run"] | {"max_steps": steps}})
        _, part = run(NEEDLE, folder, resumed=load_resume(COMM, folder), **tables)
        assert (part.draw, part.growth) == (whole.draw, whole.growth)
        np.testing.assert_array_equal(part.theta_P, whole.theta_P)


@pytest.mark.mpi
def test_ranks_move_the_sample_alike(comm, folder):
    """The first move has the same points on any number of ranks, up to the rounding of theta."""
    tables = needle() | {"run": needle()["run"] | {"max_steps": 31}}
    _, state = run(NEEDLE, folder / "all", comm, **tables)
    assert state.draw > 0
    if comm.rank == 0:
        _, alone = run(NEEDLE, folder / "one", **tables)
        assert state.draw == alone.draw
        shared = np.intersect1d(state.selection["index"], alone.selection["index"])
        assert len(shared) > 0.9 * len(alone.selection["index"])


def test_windows_are_one_solution(tmp_path):
    _, state = run(Waves(), tmp_path / "run", **small(max_steps=250, windows=4))
    assert [p.end for p in state.pieces] == [0.5, 1.0, 1.5] and state.window == (1.5, 2.0)
    assert info(tmp_path / "run")["windows"] == [0.5, 1.0, 1.5, 2.0]
    u, t = nedhpc.load(tmp_path / "run", Waves()), np.linspace(0, 2, 401)
    assert np.abs(u(t)[:, 0] - np.sin(6 * t)).max() < 1e-4
    for end in (0.5, 1.0, 1.5):
        before, after = u([end, end + 1e-9])[:, 0]
        assert abs(before - after) < 1e-5
    fresh = fresh_energy(tmp_path / "run", 200, Waves())
    assert fresh["fresh_energy"] < 1e-3 and set(fresh["fresh_energy_terms"]) == {"ode", "start"}


def test_a_window_continues_the_derivatives_of_an_equation_of_second_order(tmp_path):
    from scipy.integrate import solve_ivp

    _, state = run(Pendulum(), tmp_path / "run", **small(max_steps=300, windows=3))
    u, t = nedhpc.load(tmp_path / "run", Pendulum()), np.linspace(0, 6, 301)
    exact = solve_ivp(
        lambda _, y: [y[1], -np.sin(y[0])], (0, 6), [2, 0], rtol=1e-11, atol=1e-12, t_eval=t
    )
    assert len(state.pieces) == 2
    assert np.abs(u(t)[:, 0] - exact.y[0]).max() < 1e-3
    assert np.abs(u.jet("u_t", t) - exact.y[1]).max() < 1e-2


@pytest.mark.parametrize("windows", [0, 3])
def test_a_resumed_run_is_the_same_to_the_bit(tmp_path, windows):
    """Also in the middle of a window, after a growth of the sample and a change of the scales."""
    tables = small(max_steps=45, windows=windows) | {"sampling": {"interior": 16}}
    tables |= {"checkpoint": {"every_steps": 7, "keep": 50}, "output": {"every_steps": 1}}
    _, whole = run(Waves(), tmp_path / "whole", **tables)
    assert whole.growth or whole.pieces
    for steps in (14, 21, 28, 35):
        folder = tmp_path / f"part{steps}"
        stop = tables | {"run": tables["run"] | {"max_steps": steps}}
        run(Waves(), folder, **stop)
        _, part = run(Waves(), folder, resumed=load_resume(COMM, folder), **tables)
        assert part.step == whole.step and part.growth == whole.growth
        np.testing.assert_array_equal(part.theta_P, whole.theta_P)
        assert len(part.pieces) == len(whole.pieces)
        for one, other in zip(part.pieces, whole.pieces, strict=True):
            np.testing.assert_array_equal(one.theta_P, other.theta_P)


@pytest.mark.mpi
def test_ranks_agree_in_windows_and_growing_samples(comm, folder):
    tables = small(max_steps=25, windows=3) | {"sampling": {"interior": 24}}
    _, state = run(Waves(), folder / "all", comm, **tables)
    if comm.rank == 0:
        _, alone = run(Waves(), folder / "one", **tables)
        assert (state.growth, state.window) == (alone.growth, alone.window)
        assert len(state.pieces) == len(alone.pieces)
        u, v = (nedhpc.load(folder / name, Waves()) for name in ("all", "one"))
        t = np.linspace(0, 2, 50)
        np.testing.assert_allclose(u(t), v(t), atol=1e-5)


def test_windows_are_refused_with_the_reason():
    with pytest.raises(ConfigError, match="no time coordinate"):
        plan_of(Peak(), **small(windows=3))


def test_a_window_that_fails_is_made_shorter(tmp_path):
    """19 periods are too many for 16 units; windows are found without being asked for."""
    tables = small(max_steps=600, start="auto") | {"sampling": {"interior": 200}}
    tables["network"] = {"hidden": [16], "activation": "tanh"}
    _, state = run(Waves(20.0), tmp_path / "run", **tables)
    assert len(state.pieces) > 2 and state.window[1] == 20
    u, t = nedhpc.load(tmp_path / "run", Waves(20.0)), np.linspace(0, 20, 2001)
    assert np.abs(u(t)[:, 0] - np.sin(6 * t)).max() < 2e-2


def test_a_run_that_ends_early_says_up_to_which_time_it_solved(tmp_path):
    run(Waves(), tmp_path / "run", **small(max_steps=10, windows=4))
    assert any("known up to t" in text for text in info(tmp_path / "run")["warnings"])


class Growing(nedhpc.Problem):
    """u' = 3 (u - cos t) - sin t, u(0) = 1: u = cos t, but an error grows by exp(3 t)."""

    domain = nedhpc.SpaceTime([], [], 4.0)

    @nedhpc.residual("interior")
    def ode(self, x, j):
        t = x[:, 0]
        return j.u_t - 3 * (j.u - torch.cos(t)) + torch.sin(t)

    @nedhpc.residual("initial")
    def start(self, j):
        return j.u - 1


def test_an_error_that_grows_from_window_to_window_is_found(tmp_path):
    """The sum of the errors that the windows make by themselves is 500 times too small."""
    run(Growing(), tmp_path / "run", **small(max_steps=300, windows=4))
    t = np.linspace(0, 4, 1001)
    u = nedhpc.load(tmp_path / "run", Growing())(t)[:, 0]
    true = np.sqrt(np.mean((u - np.cos(t)) ** 2)) / np.cos(t).std()
    assert true > 1e-4 and 0.5 < info(tmp_path / "run")["error_estimate"] / true < 10


def test_the_estimated_error_is_near_the_true_one(tmp_path):
    for steps in (5, 15, 40):
        folder = tmp_path / f"run{steps}"
        run(Waves(), folder, **small(max_steps=steps, windows=1))
        t = np.linspace(0, 2, 401)
        error = nedhpc.load(folder, Waves())(t)[:, 0] - np.sin(6 * t)
        true = np.sqrt(np.mean(error**2)) / np.std(np.sin(6 * t))
        found = info(folder)
        assert found["error_is"] == "estimated" and 0.1 < found["error_estimate"] / true < 10


class Loose(nedhpc.Problem):
    """y'' = 2 with one condition only."""

    domain = nedhpc.Box([0.0], [1.0])

    @nedhpc.residual("interior")
    def ode(self, j):
        return j.u_xx - 2

    @nedhpc.residual("interior")
    def again(self, j):
        return 3 * j.u_xx - 6


def test_a_missing_condition_is_told(tmp_path):
    run(Loose(), tmp_path / "run", **small(max_steps=20, start="auto"))
    assert any("do not determine" in text for text in info(tmp_path / "run")["warnings"])


class Front(nedhpc.Problem):
    """A front u = (1 + e^(x - 5 t))^-2 of width 0.05 of the domain, u_t = u_xx + 6 u (1 - u)."""

    domain = nedhpc.SpaceTime([-20.0], [40.0], end=4.0)

    @staticmethod
    def solution(x):
        return (1 + torch.exp(x[:, 0] - 5 * x[:, 1])) ** -2

    @nedhpc.residual()
    def pde(self, j):
        return j.u_t - j.u_xx - 6 * j.u * (1 - j.u)

    @nedhpc.residual(on="initial")
    def start(self, x, j):
        return j.u - self.solution(x)

    @nedhpc.residual(on="boundary")
    def ends(self, x, j):
        return j.u - self.solution(x)


def test_more_features_show_the_error_of_a_front(tmp_path, monkeypatch):
    """Few features cannot follow it, and explain little of the residual."""
    found = {}
    for counts in (estimate.COUNTS[:1], estimate.COUNTS):
        monkeypatch.setattr(estimate, "COUNTS", counts)
        folder = tmp_path / str(len(counts))
        tables = small(max_steps=6, start="last_layer", windows=1)
        tables["sampling"] = {"interior": 1500, "boundary": 200, "initial": 200, "adapt": "none"}
        run(Front(), folder, **tables)
        found[len(counts)] = info(folder)["error_estimate"]
    x = np.random.default_rng(0).uniform([-20, 0], [40, 4], (4000, 2))
    exact = Front.solution(torch.as_tensor(x)).numpy()
    true = np.std(nedhpc.load(folder, Front())(x)[:, 0] - exact) / np.std(exact)
    assert true > 0.02 and found[1] < true / 5 < found[3] < 5 * true


class Rod(nedhpc.Problem):
    """Heat in a rod, whose right wall has a condition or not."""

    domain = nedhpc.SpaceTime([0.0], [1.0], end=1.0)

    def __init__(self, walls: int = 2):
        self.walls = walls

    @nedhpc.residual()
    def heat(self, j):
        return j.u_t - 0.2 * j.u_xx

    @nedhpc.residual(on="initial")
    def start(self, x, j):
        return j.u - torch.sin(3 * x[:, 0])

    @nedhpc.residual(on="boundary")
    def wall(self, x, j):
        wanted = torch.exp(-0.2 * 9 * x[:, 1]) * torch.sin(3 * x[:, 0])
        return torch.where(x[:, 0] < self.walls - 0.5, j.u - wanted, 0 * j.u)


@pytest.mark.parametrize("walls", [1, 2])
def test_a_wall_without_a_condition_is_told(tmp_path, walls):
    tables = small(max_steps=8, start="auto", windows=1)
    tables["sampling"] = {"interior": 400, "boundary": 200, "initial": 100}
    run(Rod(walls), tmp_path / "run", **tables)
    told = [text for text in info(tmp_path / "run")["warnings"] if "do not determine" in text]
    assert len(told) == (walls == 1)


class String(nedhpc.Problem):
    """u_tt = c^2 u_xx, whose velocity at the start is given or not."""

    domain = nedhpc.SpaceTime([0.0], [1.0], end=1.0)

    def __init__(self, speed: float = 1.0, has_velocity: bool = True):
        self.speed, self.has_velocity = speed, has_velocity

    @nedhpc.residual()
    def wave(self, j):
        return j.u_tt - self.speed**2 * j.u_xx

    @nedhpc.residual(on="initial")
    def start(self, x, j):
        given = [j.u - torch.sin(torch.pi * x[:, 0]), j.u_t]
        return torch.stack(given[: 1 + self.has_velocity], 1)

    @nedhpc.residual(on="boundary")
    def ends(self, j):
        return j.u


@pytest.mark.parametrize("speed", [0.6, 1.4, 1.96])
@pytest.mark.parametrize("has_velocity", [False, True])
def test_a_velocity_that_is_not_given_is_told(tmp_path, speed, has_velocity):
    tables = small(max_steps=8, start="auto", windows=1)
    tables["sampling"] = {"interior": 400, "boundary": 200, "initial": 100}
    run(String(speed, has_velocity), tmp_path / "run", **tables)
    told = [text for text in info(tmp_path / "run")["warnings"] if "do not determine" in text]
    assert len(told) == (not has_velocity)


def test_another_start_is_tried_and_the_best_is_kept(tmp_path):
    class Stuck(nedhpc.Problem):
        """A residual whose least value is far from zero."""

        domain = nedhpc.Box([0.0], [1.0])

        @nedhpc.residual("interior")
        def none(self, x, j):
            return torch.stack([j.u - 1, j.u + 1], 1)

    tables = small(max_steps=200, starts=2)
    _, state = run(Stuck(), tmp_path / "run", **tables)
    assert int(state.adaptation["starts"]) == 2 and info(tmp_path / "run")["warnings"]


def test_a_file_of_windows_is_complete(tmp_path):
    _, state = run(Waves(), tmp_path / "run", **small(max_steps=150, windows=2))
    _, read, _, _ = checkpoint.newest(tmp_path / "run")
    assert read.window == state.window and len(read.pieces) == len(state.pieces) == 1
    np.testing.assert_array_equal(read.pieces[0].theta_P, state.pieces[0].theta_P)
    for name, array in state.scaling.items():
        np.testing.assert_array_equal(read.scaling[name], array)


def test_balance_may_change_in_a_resumed_run(tmp_path):
    tables = small(max_steps=4)
    run(Waves(), tmp_path / "run", **tables)
    later = tables | {"run": tables["run"] | {"max_steps": 8}, "weights": {"balance": "none"}}
    _, state = run(Waves(), tmp_path / "run", resumed=load_resume(COMM, tmp_path / "run"), **later)
    assert state.step == 8 and state.reference_P is None
    again = tables | {"run": tables["run"] | {"max_steps": 12}}
    _, state = run(Waves(), tmp_path / "run", resumed=load_resume(COMM, tmp_path / "run"), **again)
    assert state.step == 12 and state.reference_P is not None


class Corner(nedhpc.Problem):
    """lap u = 0 in a square whose wall is 1 at the top and 0 elsewhere: u jumps in two corners."""

    domain = nedhpc.Box([0.0, 0.0], [1.0, 1.0])

    @nedhpc.residual("interior")
    def pde(self, j):
        return j.lap_u

    @nedhpc.residual("boundary")
    def wall(self, x, j):
        return j.u - (x[:, 1] > 1 - 1e-9).to(x.dtype)


@pytest.mark.mpi
def test_the_place_of_the_largest_residual_is_named(comm, folder):
    tables = small(max_steps=15) | {"sampling": {"interior": 100, "boundary": 80}}
    run(Corner(), folder / "run", comm, **tables)
    found = info(folder / "run")["warnings"]
    comm.barrier()
    text = next(text for text in found if "not satisfied" in text)
    assert "term 'wall'" in text and ("y = 0.9" in text or "y = 1" in text)
