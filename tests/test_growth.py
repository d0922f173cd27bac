"""A network that the program chose becomes wider if the energy stays large."""

import tomllib
from math import pi

import numpy as np
import pytest
import torch
from mpi4py import MPI

import nedhpc
from nedhpc.ansatz import jets
from nedhpc.ansatz.mlp import MLP
from nedhpc.config import Config
from nedhpc.files.resume import load_resume
from nedhpc.plan import Plan
from nedhpc.running.evolve import Run


class Waves(nedhpc.Problem):
    """u'' = f on (0, 1) with u = sin(50 pi x) + sin(7 x + 50 x^2): too much for 64 units."""

    domain = nedhpc.Box([0.0], [1.0])

    def exact(self, x):
        return torch.sin(50 * pi * x[:, 0]) + torch.sin(7 * x[:, 0] + 50 * x[:, 0] ** 2)

    @nedhpc.residual("interior")
    def pde(self, x, j):
        phase, slope = 7 * x[:, 0] + 50 * x[:, 0] ** 2, 7 + 100 * x[:, 0]
        second = -((50 * pi) ** 2) * torch.sin(50 * pi * x[:, 0])
        return j.u_xx - second - 100 * torch.cos(phase) + slope**2 * torch.sin(phase)

    @nedhpc.residual("boundary")
    def wall(self, x, j):
        return j.u - self.exact(x)


def evolve(comm, run_dir, resumed=None, max_steps=90, **network):
    table = {
        "problem": {"name": "python:Waves"},
        "network": {"activation": "tanh", **network},
        "sampling": {"interior": 300},
        "run": {"max_steps": max_steps},
    }
    plan = Plan.of_table(table, problem=Waves(), num_ranks=comm.size)
    run = Run(comm, plan, run_dir, resumed)
    run.evolve()
    return run


def test_a_wider_network_gives_the_same_u():
    narrow, wide = MLP(2, [3, 4], 2), MLP(2, [5, 6], 2)
    theta_P, coefficients = narrow.initial(1), [7.0, 8.0]
    wide_P = wide.widened(np.concatenate([theta_P, coefficients]), narrow)
    assert wide_P[wide.num_parameters :].tolist() == coefficients
    x_ND = torch.rand(9, 2, dtype=torch.float64)
    layout = jets.parse(("u_x", "v_yy"), ("u", "v"), ("x", "y"))
    u_NM, wide_NM = (
        net.jets(torch.as_tensor(theta_P[: net.num_parameters]), x_ND, layout)
        for net, theta_P in ((narrow, theta_P), (wide, wide_P))
    )
    assert torch.allclose(u_NM, wide_NM, rtol=1e-14)


def test_a_chosen_network_becomes_wider_and_a_given_one_does_not(tmp_path):
    given = evolve(MPI.COMM_SELF, tmp_path / "given", hidden=[64])
    assert given.config.network.hidden == [64]
    first = evolve(MPI.COMM_SELF, tmp_path / "run")
    assert first.config.network.hidden == [128]
    assert first.last.measured().relative_l2 < 0.2 * given.last.measured().relative_l2


def test_a_resumed_run_keeps_the_wider_network(tmp_path):
    first = evolve(MPI.COMM_SELF, tmp_path)
    state, record = load_resume(MPI.COMM_SELF, tmp_path)
    assert record.parsed().network.hidden == [128] and len(record.changes) == 2
    assert Config.model_validate(tomllib.loads((tmp_path / "config.toml").read_text())).network == (
        first.config.network
    )
    again = evolve(MPI.COMM_SELF, tmp_path, (state, record), max_steps=95)
    assert again.config.network.hidden == [128] and again.good.state.step == 95


@pytest.mark.mpi(min_size=2)
def test_all_ranks_take_the_wider_network(tmp_path):
    comm = MPI.COMM_WORLD
    run = evolve(comm, comm.bcast(tmp_path))
    assert comm.allgather(run.config.network.hidden) == [[128]] * comm.size
