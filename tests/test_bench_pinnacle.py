"""The PINNacle problems are those of their solutions, and the references converge."""

import json
import lzma
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from exact_jets import relative_residuals

from nedhpc.plan import Plan
from nedhpc.problems.bound import argument_roles

sys.path.append(str(Path(__file__).parent.parent / "scripts"))
modules = ("bench_pinnacle", "pinnacle_problems", "pinnacle_references")
bench, problems, references = map(import_module, modules)
KNOWN = [entry.cls for entry in bench.ENTRIES if entry.reference is references.of_exact]
COUNTS = ["--interior", "50", "--boundary", "20", "--initial", "20"]


@pytest.mark.parametrize("name", KNOWN)
def test_the_exact_solution_satisfies_every_term(name):
    options = {"noise": 0.0} if name in ("PoissonInv", "HeatInv") else {}
    problem = getattr(problems, name)(**options)

    def u(x):
        return problem.exact(x).reshape(len(x), -1)

    residuals = relative_residuals(problem, u)
    assert max(residuals.values()) < 1e-7, residuals


@pytest.mark.parametrize("entry", bench.ENTRIES, ids=lambda entry: entry.name)
def test_each_run_is_a_valid_config_with_weights_of_one(entry):
    args = bench.arguments(["--seconds", "5", "--seed", "3", *COUNTS])
    plan = Plan.of_table(bench.table(entry, args), None)
    assert plan.config.run.seed == 3 and plan.config.run.max_wall_time == 5
    assert {term.weight for term in plan.terms} == {1.0}


def test_a_config_holds_nothing_that_was_not_asked_for():
    table = bench.table(bench.ENTRIES[0], bench.arguments([]))
    assert table.keys() == {"problem", "run"}
    table = bench.table(bench.ENTRIES[0], bench.arguments(["--hidden", "30", "--interior", "9"]))
    assert table["network"] == {"hidden": [30]} and table["sampling"] == {"interior": 9}


def difference(first, second):
    """Relative difference of two references at the same points."""
    np.testing.assert_allclose(first[0], second[0], atol=1e-12)
    return bench.l2re(first[1], second[1])


SHORT_HEAT = problems.Heat2DLongTime(end=0.4)
SHORT_WAVES = problems.KuramotoSivashinsky(end=0.1)
SHORT_PATTERN = problems.GrayScott(end=10.0)


@pytest.mark.parametrize(
    "reference, problem, coarse, fine, tolerance",
    [
        (references.many_area, problems.Poisson2DManyArea(), (80,), (240,), 2e-3),
        (references.heat_varying, problems.Heat2DVaryingCoef(), (20, 6), (24, 6), 2e-2),
        (
            references.wave_heterogeneous,
            problems.Wave2DHeterogeneous(),
            (48, 2.5e-3),
            (80, 2e-3),
            2e-2,
        ),
        (references.long_time, SHORT_HEAT, (48, 0.02), (64, 0.01), 5e-3),
        (
            references.kuramoto_sivashinsky,
            SHORT_WAVES,
            (128, 5e-4, 11),
            (256, 2.5e-4, 11),
            1e-4,
        ),
        (references.gray_scott, SHORT_PATTERN, (64, 0.5, 3), (128, 0.5, 3), 2e-3),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_reference_converges(reference, problem, coarse, fine, tolerance):
    assert 0 < difference(reference(problem, *coarse), reference(problem, *fine)) < tolerance


class GridJets:
    """Jets of values on a tensor grid by central differences of order four.

    Points near the grid's edges are left out. If `still`, all derivatives in time are zero.
    """

    def __init__(self, problem, x_ND, y_NM, still=False):
        sides = [np.unique(x) for x in x_ND.T]
        self._shape, self._steps = [len(side) for side in sides], [s[1] - s[0] for s in sides]
        self._values = {u: y.reshape(self._shape) for u, y in zip(problem.outputs, y_NM.T)}
        self._letters, self._still = problem.coordinates, still

    def inner(self, values_N):
        """The values of the inner points, as a tensor (N,)."""
        grid = np.reshape(values_N, self._shape)
        return torch.as_tensor(grid[tuple(slice(5, -5) for _ in self._shape)].ravel())

    def __getattr__(self, name):
        first, _, last = name.rpartition("_")
        if name in self._values:
            return self.inner(self._values[name])
        if first == "lap":
            return sum(getattr(self, f"{last}_{x}{x}") for x in self._letters if x != "t")
        grid = self._values[first]
        for axis, letter in enumerate(self._letters):
            order, h = last.count(letter), self._steps[axis]
            for _ in range(order // 2):
                grid = self._differences(grid, axis, (-1, 16, -30, 16, -1), 12 * h * h)
            if order % 2:
                grid = self._differences(grid, axis, (1, -8, 0, 8, -1), 12 * h)
        return self.inner(0 * grid if self._still and "t" in last else grid)

    def _differences(self, grid, axis, factors, divisor):
        shifted = [f * np.roll(grid, 2 - k, axis) for k, f in enumerate(factors)]
        return sum(shifted) / divisor


@pytest.mark.parametrize(
    "reference, problem, settings, tolerance",
    [
        (references.heat_varying, problems.Heat2DVaryingCoef(), (32, 101, 40), 0.25),
        (references.wave_heterogeneous, problems.Wave2DHeterogeneous(), (80, 2e-3, 251, 80), 0.2),
        (references.kuramoto_sivashinsky, SHORT_WAVES, (256, 2.5e-4, 101, 256), 5e-2),
        (references.gray_scott, SHORT_PATTERN, (64, 0.5, 21, 64), 5e-2),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_reference_solves_the_equation(reference, problem, settings, tolerance):
    """The residual of the equation is small beside that without its time derivative."""
    x_ND, y_NM = reference(problem, *settings)
    sizes = []
    for still in (False, True):
        j = GridJets(problem, x_ND, y_NM, still)
        x = torch.stack([j.inner(column) for column in x_ND.T], 1)
        given = {"x": x, "j": j, "t": x[:, -1]}
        value = problem.pde(*(given[role] for role in argument_roles(problem.pde, "pde")))
        sizes.append(float(value.norm()))
    assert sizes[0] < tolerance * sizes[1], sizes


def test_the_boundary_and_the_start_of_a_reference_are_those_of_the_problem():
    x_ND, y_NM = references.gray_scott(SHORT_PATTERN, 64, 0.5, 3)
    at_start = x_ND[:, 2] == 0
    first = torch.stack(SHORT_PATTERN.first(torch.as_tensor(x_ND[at_start])), 1)
    np.testing.assert_allclose(y_NM[at_start], first, atol=1e-12)
    x_ND, y_NM = references.kuramoto_sivashinsky(SHORT_WAVES, 128, 1e-3, 11)
    at_start = x_ND[:, 1] == 0
    x = x_ND[at_start, 0]
    np.testing.assert_allclose(y_NM[at_start, 0], np.cos(x) * (1 + np.sin(x)), atol=1e-12)


def test_the_domains_are_those_of_the_benchmark():
    holes = problems.PoissonBoltzmann2D.domain.parts
    assert holes["interior"].measure == pytest.approx(4 - 0.3 * np.pi)
    assert holes["walls"].measure == 8
    assert holes["rims"].measure == pytest.approx(2 * np.pi)
    step = {name: part.measure for name, part in problems.NS2DBackStep.domain.parts.items()}
    lengths = {"interior": 6.0, "boundary": 12.0, "inlet": 1.0, "outlet": 2.0, "walls": 9.0}
    assert step == pytest.approx(lengths)
    ball = problems.HeatND(dim=5).domain.parts
    volume = 8 * np.pi**2 / 15
    assert [ball[on].measure for on in ("interior", "boundary", "initial")] == pytest.approx(
        [volume, 5 * volume, volume]
    )


def test_a_data_file_gives_points_in_time(tmp_path):
    path = tmp_path / "table.dat.xz"
    with lzma.open(path, "wt") as file:
        file.write("% x  u @ t=0  u @ t=0.5  u @ t=1\n0 1 2 3\n1 4 5 6\n")
    x_ND, y_NM = references.of_file(path, 1, 1.0)
    np.testing.assert_array_equal(x_ND[:4], [[0, 0], [0, 0.5], [0, 1], [1, 0]])
    np.testing.assert_array_equal(y_NM[:, 0], [1, 2, 3, 4, 5, 6])


def test_a_run_is_measured_and_a_missing_file_named(tmp_path, capsys):
    call = ["--out", str(tmp_path), "--seconds", "2", "--hidden", "10", *COUNTS]
    assert bench.main([*call, "--only", "Poisson1D"]) == 0
    assert bench.main([*call, "--only", "NS2D-LidDriven"]) == 1
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert first["l2re"] < 1e-2 and first["step"] >= 0  # the start may take all the time
    assert second["error"] == "needs lid_driven_a4.dat in --data"
    assert "| 4.8e-9 | 9 |" in capsys.readouterr().out
