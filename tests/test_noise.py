"""Noisy data: rows are held out, and the fit stops before it follows the noise."""

import numpy as np
import pytest
import torch
from test_adaptation import COMM, plan_of, run, small

import nedhpc
from nedhpc.files import series
from nedhpc.postprocess.info import info
from nedhpc.running.case import Case


def test_a_fit_to_noisy_data_stops_at_the_least_held_out_energy(tmp_path):
    rng = np.random.default_rng(0)
    x = np.linspace(-3, 3, 200)[:, None]
    y = 5 + np.sin(2 * x) + 0.2 * rng.standard_normal(x.shape)

    class Noisy(nedhpc.Problem):
        domain = nedhpc.Box([-3.0], [3.0])
        data = nedhpc.DataSet(x[::2], y[::2], x[1::2], y[1::2])

        @nedhpc.residual("data")
        def fit(self, j, y):
            return j.u - y[:, 0]

    tables = small(max_steps=500) | {"network": {"hidden": [60]}, "sampling": {}}
    status, state = run(Noisy(), tmp_path / "run", **tables)
    found = info(tmp_path / "run")
    assert status == "stalled" and "passed its minimum" in found["message"]
    columns = series.read(tmp_path / "run" / "series.h5")
    assert found["held_out_energy"] <= columns["held_out_energy"].min() * (1 + 1e-9)
    assert 0.8 < found["metrics"]["r2_u"] <= 1 and 0.15 < found["metrics"]["rmse_u"] < 0.3
    u, clean = nedhpc.load(tmp_path / "run", Noisy())(x)[:, 0], 5 + np.sin(2 * x[:, 0])
    assert np.sqrt(np.mean((u - clean) ** 2)) < 0.15


class Conductivity(nedhpc.Problem):
    """-(a u')' = 10 on (0, 1), a = 1 on both walls; a = 1 + x (1 - x) is sought from noisy u."""

    domain = nedhpc.Box([0.0], [1.0])
    outputs = ("u", "a")

    def __init__(self, num_rows: int = 400, noise: float = 0.05):
        rng = np.random.default_rng(0)
        x = rng.random((num_rows, 1))
        self.data = nedhpc.DataSet(x, self.clean(x) + noise * rng.standard_normal(x.shape))

    @staticmethod
    def clean(x):
        """u: a u' = 5 - 10 x, and a' = 1 - 2 x, so that u = 5 log a."""
        return 5 * np.log(1 + x * (1 - x))

    @nedhpc.residual("interior")
    def pde(self, j):
        return j.a_x * j.u_x + j.a * j.u_xx + 10

    @nedhpc.residual("boundary")
    def wall(self, j):
        return torch.stack([j.u, j.a - 1], 1)

    @nedhpc.residual("data")
    def sensors(self, j, y):
        return j.u - y[:, 0]


def test_a_field_is_found_from_noisy_data_of_which_none_are_held_out_by_the_user(tmp_path):
    problem, tables = Conductivity(), small(max_steps=300) | {"sampling": {}}
    status, _ = run(problem, tmp_path / "run", **tables)
    assert status == "stalled" and "passed its minimum" in info(tmp_path / "run")["message"]
    x = np.linspace(0, 1, 101)[:, None]
    u, a = nedhpc.load(tmp_path / "run", problem)(x).T
    assert np.abs(u - problem.clean(x)[:, 0]).max() < 0.02
    assert np.abs(a - 1 - (x * (1 - x))[:, 0]).max() < 0.03


@pytest.mark.parametrize(
    ("num_rows", "sampling", "held_out"),
    [(400, {}, 40), (99, {}, 0), (400, {"data": 400}, 0), (400, {"adapt": "none"}, 0)],
)
def test_a_tenth_of_many_rows_is_held_out_unless_all_are_asked_for(num_rows, sampling, held_out):
    tables = small() | {"sampling": sampling}
    case = Case(COMM, plan_of(Conductivity(num_rows), **tables))
    case.draw(0)
    trained, others = (p["data"].x_ND for p in (case.flow.sample, case.held_out))
    assert len(trained) == num_rows - held_out
    if held_out:
        assert len(others) == held_out
        assert not set(trained[:, 0].tolist()) & set(others[:, 0].tolist())
