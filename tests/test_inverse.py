"""The inverse problems of the catalogue: their solutions solve them, and they are found."""

from types import SimpleNamespace

import numpy as np
import pytest
from exact_jets import relative_residuals
from processes import finish, start

import nedhpc
from nedhpc.plan import Plan
from nedhpc.postprocess.info import info
from nedhpc.problems.inverse import Conductivity, Viscosity


@pytest.mark.parametrize("problem", [Viscosity(noise=0.0), Conductivity()])
def test_the_solution_solves_the_terms(problem):
    def u(x):
        return problem.exact(x).reshape(len(x), -1)

    residuals = relative_residuals(problem, u, coefficients=SimpleNamespace(nu=0.05))
    assert max(residuals.values()) < 1e-8, residuals


def test_the_noise_has_the_size_that_is_asked_for_and_its_seed():
    clean, noisy, again = (Viscosity(noise=noise).data for noise in (0.0, 0.01, 0.01))
    assert np.array_equal(noisy.y_NM, again.y_NM)
    assert 0.0095 < np.std(noisy.y_NM - clean.y_NM) < 0.0105
    assert not np.array_equal(noisy.y_NM, Viscosity(noise_seed=1).data.y_NM)


@pytest.mark.parametrize("name", ["viscosity", "conductivity"])
def test_the_ready_configs_are_valid(name):
    plan = Plan.read(f"configs/inverse_{name}.toml")
    assert len(plan.data["data"].held_out_x) == len(plan.problem.data.x_ND) // 10


@pytest.mark.slow
def test_the_viscosity_is_found_within_its_error(tmp_path):
    words = ["run.max_wall_time=40", "problem.nu=0.1", "network.hidden=[16]", "run.max_steps=60"]
    settings = [word for setting in words for word in ("--set", setting)]
    process = start("run", "configs/inverse_viscosity.toml", "--out", tmp_path / "run", *settings)
    code, out, err = finish(process, 100)
    assert code == 0, err
    facts = info(tmp_path / "run")
    nu, error = facts["coefficients"]["nu"], facts["coefficient_errors"]["nu"]
    assert abs(nu - 0.1) < max(1e-3, 3 * error) and f"nu {nu:.6g} +- {error:.1e}" in out
    assert nedhpc.load(tmp_path / "run").coefficient_errors["nu"] == error
