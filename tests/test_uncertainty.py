"""Standard errors from noisy data: those of coefficients as least squares has them; both cover."""

import numpy as np
import pytest
import torch
from mpi4py import MPI
from scipy.optimize import curve_fit
from test_adaptation import run, small

import nedhpc
from nedhpc.errors import UsageError
from nedhpc.files import edit, series, uncertainty
from nedhpc.postprocess.info import info

RATE = 1.3


class Decay(nedhpc.Problem):
    """u' = -k u on (0, 2), u(0) = 1; k = RATE is sought from u with noise."""

    domain = nedhpc.SpaceTime([], [], 2.0)

    def __init__(self, seed: int, num_rows: int = 60, noise: float = 0.05):
        self.coefficients = {"k": 0.5}
        rng = np.random.default_rng(seed)
        t = rng.uniform(0, 2, (num_rows, 1))
        self.data = nedhpc.DataSet(t, np.exp(-RATE * t) + noise * rng.standard_normal(t.shape))

    @nedhpc.residual("interior")
    def ode(self, j, c):
        return j.u_t + c.k * j.u

    @nedhpc.residual("initial")
    def start(self, j):
        return j.u - 1

    @nedhpc.residual("data", weight=0.01)
    def sensors(self, j, y):
        return j.u - y[:, 0]

    def least_squares(self):
        """k and its standard error by scipy, which has the solution of the equation."""
        t, u = self.data.x_ND[:, 0], self.data.y_NM[:, 0]
        k, covariance = curve_fit(lambda t, k: np.exp(-k * t), t, u, p0=[1.0])
        return float(k[0]), float(covariance[0, 0] ** 0.5)


def found(seed, folder, comm=MPI.COMM_SELF):
    tables = {
        "network": {"hidden": [6], "activation": "tanh"},
        "sampling": {"interior": 24, "adapt": "none"},
        "weights": {},
    }
    problem = Decay(seed)
    run(problem, folder, comm, **small(max_steps=40) | tables)
    facts = info(folder)
    return problem, facts["coefficients"]["k"], facts["coefficient_errors"]["k"]


@pytest.mark.mpi
def test_a_coefficient_and_its_error_are_those_of_least_squares(tmp_path):
    comm = MPI.COMM_WORLD
    folder = comm.bcast(tmp_path) / "run"
    problem, k, error = found(0, folder, comm)
    best, width = problem.least_squares()
    assert abs(k - best) < 0.05 * width and abs(error / width - 1) < 0.02
    columns = series.read(folder / "series.h5")
    assert columns["coefficient_errors/k"][-1] == error
    assert np.isnan(columns["coefficient_errors/k"][:-1]).all()
    u = nedhpc.load(folder, problem)
    assert u.coefficient_errors == {"k": error} and u.coefficients == {"k": k}


class WithIntegral(Decay):
    """The integral of u over the time is known too."""

    @nedhpc.integral(target=(1 - np.exp(-2 * RATE)) / RATE)
    def mass(self, j):
        return j.u


def test_errors_are_known_in_a_problem_with_integrals(tmp_path):
    """A known integral is a constraint, so the coefficient is known better."""
    problem = WithIntegral(0)
    tables = {"network": {"hidden": [6], "activation": "tanh"}, "weights": {}}
    tables["sampling"] = {"interior": 24, "adapt": "none"}
    run(problem, tmp_path / "run", MPI.COMM_SELF, **small(max_steps=40) | tables)
    error = info(tmp_path / "run")["coefficient_errors"]["k"]
    assert 0 < error < problem.least_squares()[1]


@pytest.mark.slow
def test_the_interval_of_95_percent_covers_the_truth(tmp_path):
    covered = 0
    for seed in range(20):
        _, k, error = found(seed, tmp_path / str(seed))
        covered += abs(k - RATE) < 1.96 * error
    assert covered >= 16


class Undetermined(Decay):
    """k appears where there is nothing to see it by: the equation has a free source beside it."""

    outputs = ("u", "f")

    @nedhpc.residual("interior")
    def ode(self, j, c):
        return j.u_t + c.k * j.u - j.f


def test_a_coefficient_that_data_do_not_determine_has_a_large_error(tmp_path):
    run(Undetermined(0), tmp_path / "run", **small(max_steps=10))
    facts = info(tmp_path / "run")
    error = facts["coefficient_errors"]["k"]
    assert error > 2 and abs(facts["coefficients"]["k"] - RATE) < 2 * error


class Exact(nedhpc.Problem):
    """Values without noise, as a term of the interior."""

    domain = nedhpc.SpaceTime([], [], 2.0)
    coefficients = {"k": 0.5}
    ode = Decay.ode

    @nedhpc.residual("interior")
    def seen(self, x, j):
        return j.u - (-RATE * x[:, 0]).exp()


def test_without_data_no_error_is_claimed(tmp_path):
    run(Exact(), tmp_path / "run", **small(max_steps=5))
    assert info(tmp_path / "run")["coefficient_errors"] == {}


class Field(nedhpc.Problem):
    """u' = -k(t) u on (0, 2), u(0) = 1; the field k = 1 + sin(3 t) / 2 is sought from noisy u."""

    domain, outputs = nedhpc.SpaceTime([], [], 2.0), ("u", "k")
    start, sensors = Decay.start, Decay.sensors

    def __init__(self, seed: int = 0, num_rows: int = 200, noise: float = 0.01):
        rng = np.random.default_rng(seed)
        t = rng.uniform(0, 2, (num_rows, 1))
        u = self.exact(torch.as_tensor(t)).numpy()[:, :1]
        self.data = nedhpc.DataSet(t, u + noise * rng.standard_normal(t.shape))

    @nedhpc.residual("interior")
    def ode(self, j):
        return j.u_t + j.k * j.u

    def exact(self, x):
        t = x[:, 0]
        return torch.stack([torch.exp((torch.cos(3 * t) - 1) / 6 - t), 1 + torch.sin(3 * t) / 2], 1)


TIMES = np.linspace(0.02, 1.98, 50)


def field(seed, folder):
    """Errors of u and k at TIMES (50, 2), and their standard errors."""
    tables = {
        "network": {"hidden": [6], "activation": "tanh"},
        "sampling": {"interior": 64, "adapt": "none"},
    }
    run(Field(seed), folder, **small(max_steps=60) | tables)
    solution = nedhpc.load(folder, Field())
    return solution(TIMES) - solution.exact(TIMES), solution.standard_errors(TIMES)


def test_an_unknown_field_has_standard_errors_at_points(tmp_path):
    error, width = field(0, tmp_path / "run")
    assert error.shape == width.shape == (50, 2)
    assert (np.abs(error) < 4 * width).all()
    # The standard error of u is that of a fit of some six parameters to 200 values.
    assert 0.01 * (3 / 200) ** 0.5 < np.sqrt((width[:, 0] ** 2).mean()) < 0.01 * (12 / 200) ** 0.5
    file = tmp_path / "run" / uncertainty.NAME
    assert edit.accept(file) == "uncertainty"
    resumed = tmp_path / "run"
    file.unlink()
    with pytest.raises(UsageError, match="standard errors are not known"):
        nedhpc.load(resumed, Field()).standard_errors(TIMES)


@pytest.mark.slow
def test_the_interval_of_a_field_covers_the_truth(tmp_path):
    found = [field(seed, tmp_path / str(seed)) for seed in range(20)]
    error, width = (np.stack(parts) for parts in zip(*found, strict=True))
    covered = (np.abs(error) < 1.96 * width).mean((0, 1))
    assert (covered > 0.88).all()
    # They are not wide for nothing.
    size, wide = (np.sqrt((a**2).mean((0, 1))) for a in (error, width))
    assert (wide < 2 * size).all()
