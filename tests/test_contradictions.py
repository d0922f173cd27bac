"""Conditions that contradict each other are named before the run, with the place."""

import logging

import pytest
import torch

import nedhpc
from nedhpc.plan import Plan
from nedhpc.postprocess.info import info


class Heated(nedhpc.Problem):
    """Heat in a rod that starts at 300 + x and whose walls are held at `wall`."""

    def __init__(self, wall: float = 300.0, end: float = 5.0):
        self.wall, self.domain = wall, nedhpc.SpaceTime([0.0], [1.0], end=end)

    @nedhpc.residual()
    def heat(self, j):
        return j.u_t - j.u_xx

    @nedhpc.residual(on="initial")
    def start(self, x, j):
        return j.u - 300 - x[:, 0]

    @nedhpc.residual(on="boundary")
    def walls(self, x, j):
        return 7 * (j.u - self.wall - x[:, 0])


class Cavity(nedhpc.Problem):
    """u = `lid` on the top of a square and 0 on its other walls, in one condition."""

    def __init__(self, lid: float = 1.0, flux: bool = False):
        self.lid, self.flux = lid, flux
        self.domain = nedhpc.Box([0.0, 0.0], [1.0, 1.0])

    @nedhpc.residual()
    def laplace(self, j):
        return j.lap_u + 1

    @nedhpc.residual(on="boundary")
    def walls(self, x, j, n):
        on_lid = x[:, 1] == 1
        side = (n * j.grad_u).sum(1) - 3 if self.flux else j.u
        return torch.where(on_lid, j.u - self.lid, side)


class Twice(nedhpc.Problem):
    """Two values at the start of one ODE; the second holds for `output`."""

    outputs = ("u", "v")

    def __init__(self, output: str = "u"):
        self.output, self.domain = output, nedhpc.SpaceTime([], [], end=1.0)

    @nedhpc.residual()
    def ode(self, j):
        return torch.stack([j.u_t + j.u, j.v_t - j.u], 1)

    @nedhpc.residual(on="initial")
    def start(self, j):
        return j.u**2 - 4  # conditions need not be linear

    @nedhpc.residual(on="initial")
    def again(self, j):
        return {"u": j.u, "v": j.v}[self.output] - 1


def found(problem):
    return Plan.of_table({}, None, problem).contradictions()


@pytest.mark.parametrize(
    ("problem", "names", "place"),
    [
        (Heated(wall=310), "'start' and 'walls'", "t = 0"),
        (Cavity(), "'walls' contradicts itself", "y = 1"),
        (Twice("u"), "'start' and 'again'", "t = 0"),
    ],
)
def test_the_conditions_and_the_corner_are_named(problem, names, place):
    (text,) = found(problem)
    assert names in text
    assert place in text


@pytest.mark.parametrize("problem", [Heated(), Cavity(lid=0), Cavity(lid=4, flux=True), Twice("v")])
def test_conditions_that_fit_each_other_are_not_named(problem):
    assert found(problem) == []


def test_the_run_says_so_at_its_start_and_at_its_end(tmp_path, caplog):
    class Hot(Heated):
        def __init__(self):
            super().__init__(wall=310)

    table = {
        "network": {"hidden": [8]},
        "sampling": {"interior": 40, "boundary": 20, "initial": 10},
        "run": {"max_steps": 1, "start": "random"},
    }
    with caplog.at_level(logging.WARNING, "nedhpc"):
        nedhpc.run(table, problem=Hot, out=tmp_path / "a")
    assert sum("'start' and 'walls' contradict" in text for text in caplog.messages) == 2
    assert "'start' and 'walls' contradict" in " ".join(info(tmp_path / "a")["warnings"])
