"""Problems of the user: classes, data files, coefficients, densities and torch modules."""

from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from conftest import evolve as run
from conftest import make_case, make_config
from mpi4py import MPI

import nedhpc
from nedhpc import problems
from nedhpc.config import load
from nedhpc.errors import ConfigError, UsageError
from nedhpc.postprocess.info import info

OWN = '''
import torch, nedhpc
class Decay(nedhpc.Problem):
    """u' = -k u, u(0) = 1, with k unknown and u known in between."""
    domain = nedhpc.Box([0.0], [1.0])
    outputs = ("u",)
    coefficients = {"k": 0.5}
    terms = [nedhpc.Residual("ode", on="interior", jets=("u", "u_x")),
             nedhpc.Residual("seen", on="interior", jets=("u",))]
    def ode(self, x, j, c): return j.u_x + c.k * j.u
    def seen(self, x, j, c): return j.u - self.exact(x)
    def exact(self, x): return torch.exp(-2 * x[:, 0])
class Ritz(nedhpc.Problem):
    """min |u'|^2 / 2 - f u + 50 u^2 on the boundary."""
    domain = nedhpc.Box([0.0], [1.0])
    terms = [nedhpc.Density("ritz", on="interior", jets=("u", "grad_u")),
             nedhpc.Residual("wall", on="boundary", jets=("u",), weight=1e4)]
    def ritz(self, x, j, c):
        f = torch.pi ** 2 * torch.sin(torch.pi * x[:, 0])
        return (j.grad_u ** 2).sum(1) / 2 - f * j.u
    def wall(self, x, j, c): return j.u
    def exact(self, x): return torch.sin(torch.pi * x[:, 0])
class Pair(nedhpc.Problem):
    """Two outputs, two residual components."""
    domain = nedhpc.Box([0.0, 0.0], [1.0, 2.0])
    outputs = ("u", "v")
    terms = [nedhpc.Residual("both", jets=("u", "v", "u_y"))]
    def both(self, x, j, c): return torch.stack([j.u - x[:, 0], j.v - j.u_y - x[:, 1] ** 2], 1)
    def exact(self, x): return torch.stack([x[:, 0], x[:, 1] ** 2], 1)
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(1, 12), torch.nn.Linear(12, 1)
    def forward(self, x): return x * (1 - x) * self.b(torch.tanh(3 * self.a(x)))
class Broken: pass
'''
COMM = MPI.COMM_SELF


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return lambda name: f"{path}:{name}"


def solve(tmp_path, steps, **tables):
    status, state = run(make_config(run={"max_steps": steps}, **tables), tmp_path / "run", COMM)
    return info(tmp_path / "run"), state


def test_an_unknown_coefficient_is_found(own, tmp_path):
    facts, state = solve(tmp_path, 60, problem={"name": own("Decay")})
    assert abs(facts["metrics"]["coefficients"]["k"] - 2) < 1e-5 and facts["relative_l2"] < 1e-5


def test_a_density_term_is_minimised(own, tmp_path):
    facts, _ = solve(
        tmp_path,
        150,
        problem={"name": own("Ritz")},
        network={"hidden": [10]},
        sampling={"interior": 200},
    )
    assert facts["relative_l2"] < 1e-3


def test_density_rows_are_the_hessian(own):
    """For a quadratic density, A^T A is the Hessian of the energy in the last layer's weights."""
    case = make_case(COMM, problem={"name": own("Ritz")}, network={"hidden": [4]})
    case.draw(0, None)
    theta = torch.as_tensor(case.plan.ansatz.initial(0))
    rows = case.plan.energy.linearise(theta, case.flow.sample)
    last = case.plan.ansatz.linear_columns
    energies = lambda theta: case.plan.energy.evaluate(theta, case.flow.sample)[0]
    hessian = torch.autograd.functional.hessian(
        lambda w: energies(torch.cat([theta[: last.start], w])).sum(), theta[last]
    )
    gram = rows.A.A_NP.T @ rows.A.A_NP
    torch.testing.assert_close(gram[last, last], hessian, rtol=1e-8, atol=1e-7)
    torch.testing.assert_close(
        rows.g_P, case.plan.energy.gradient(theta, case.flow.sample)[0], rtol=1e-9, atol=1e-9
    )


def test_a_changed_problem_file_is_not_run(own, tmp_path):
    solve(tmp_path, 2, problem={"name": own("Decay")})
    nedhpc.load(tmp_path / "run")
    (tmp_path / "own.py").write_text("raise SystemExit('this must not run')")
    with pytest.raises(UsageError, match="not the file that the run was started with"):
        nedhpc.load(tmp_path / "run")


def test_vector_outputs_and_residuals_are_solved(own, tmp_path):
    facts, _ = solve(
        tmp_path,
        150,
        problem={"name": own("Pair")},
        sampling={"interior": 100},
        network={"hidden": [12]},
    )
    assert facts["relative_l2"] < 1e-3


def test_rows_are_the_jacobian_of_the_residual(own):
    """Row n is the derivative of entry n of the residual.

    The geodesic correction differentiates the residual and solves with the rows.
    """
    case = make_case(
        COMM,
        problem={"name": own("Pair")},
        sampling={"interior": 9},
        network={"hidden": [5]},
        solver={"chunk": 4},
    )
    case.draw(0, None)
    theta = torch.as_tensor(case.plan.ansatz.initial(0))
    rows = case.plan.energy.linearise(theta, case.flow.sample)
    residual = lambda theta: case.plan.energy.evaluate(theta, case.flow.sample)[1]
    torch.testing.assert_close(rows.r_N, residual(theta), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(
        rows.A.A_NP, torch.func.jacrev(residual)(theta), rtol=1e-11, atol=1e-12
    )


def test_a_torch_module_is_trained_and_loaded(own, tmp_path):
    facts, _ = solve(
        tmp_path,
        60,
        problem={"name": "poisson", "dim": 1},
        network={"name": own("Net")},
        solver={"chunk": 16},
    )
    assert facts["num_parameters"] == 37 and facts["relative_l2"] < 1e-4
    solution = nedhpc.load(tmp_path / "run")
    assert solution([[0.5]]).shape == (1, 1)


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".h5"])
def test_a_data_file_is_fitted(tmp_path, suffix):
    x = np.random.default_rng(0).uniform(-1, 1, (300, 2))
    y = np.stack([np.sin(2 * x[:, 0]) * x[:, 1], x[:, 0] ** 2], 1)
    path = tmp_path / f"data{suffix}"
    if suffix == ".csv":
        np.savetxt(path, np.hstack([x, y]), delimiter=",", header="a,b,c,d")
    elif suffix == ".npz":
        np.savez(path, x=x, y=y)
    else:
        with h5py.File(path, "w") as file:
            file["x"], file["y"] = x, y
    config = tmp_path / "case.toml"
    config.write_text(
        f'[problem]\nname = "regression"\nfile = "data{suffix}"\ntargets = 2\n'
        "[network]\nhidden = [16]\n[run]\nmax_steps = 60\n"
    )
    nedhpc.run(load(config), tmp_path / "run", COMM)
    facts = info(tmp_path / "run")
    assert facts["num_points"] == 240 and facts["relative_l2"] < 1e-2
    assert problems.build(load(config).problem.model_dump()).data.held_out_x.shape == (60, 2)


@pytest.mark.parametrize(
    "text, part",
    [("1,2\n3,x\n", "not a finite number"), ("1,2\n1,3\n", "constant"), ("", "needed are")],
)
def test_bad_data_is_refused(tmp_path, text, part):
    path = tmp_path / "data.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=part):
        problems.build({"name": "regression", "file": str(path)})


def test_bad_classes_are_refused(own, tmp_path):
    for name, part in (("Broken", "derives from"), ("Missing", "no class Missing")):
        with pytest.raises(ConfigError, match=part):
            problems.build({"name": own(name)})
    path = Path(tmp_path / "bad.py")
    path.write_text("import nedhpc\n1 / 0\n")
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        problems.build({"name": f"{path}:X"})
    path.write_text(
        "import nedhpc\nclass X(nedhpc.Problem):\n    domain = nedhpc.Box([0], [1])\n"
        '    terms = [nedhpc.Residual("pde", on="outside", weight=-1)]\n'
    )
    with pytest.raises(ConfigError) as error:
        problems.build({"name": f"{path}:X"})
    assert len(error.value.problems) == 3


@pytest.mark.parametrize(
    "solution, dim",
    [
        ("auto", 1),
        ("auto", 2),
        ("auto", 3),
        ("auto", 5),
        ("bilinear", 4),
        ("square", 3),
        ("peak", 2),
        ("layer", 2),
    ],
)
def test_poisson_right_hand_side_belongs_to_its_solution(solution, dim):
    problem = problems.build({"name": "poisson", "dim": dim, "solution": solution, "width": 0.3})
    x = torch.rand(5, dim)
    laplacian = torch.stack(
        [torch.func.hessian(lambda y: problem.exact(y[None])[0])(p).trace() for p in x]
    )
    torch.testing.assert_close(-laplacian, problem.f(x), rtol=1e-10, atol=1e-10)


def exact_jets(problem, x):
    """The jets of a problem's exact solution at x."""
    u = lambda p: problem.exact(p[None])[0]
    gradient = torch.stack([torch.func.grad(u)(p) for p in x])
    second = torch.stack([torch.func.hessian(u)(p).diagonal() for p in x])
    is_time = len(problem.coordinates) - (problem.coordinates[-1] == "t")
    return SimpleNamespace(
        u=problem.exact(x), u_t=gradient[:, -1], lap_u=second[:, :is_time].sum(1)
    )


@pytest.mark.parametrize("options", [{}, {"nu": 0.4, "end": 2.0}, {"dim": 3}])
def test_heat_residuals_vanish_at_the_solution(options):
    problem = problems.build({"name": "heat", **options})
    for name, on in (("pde", "interior"), ("wall", "boundary"), ("start", "initial")):
        part, method = problem.domain.parts[on], getattr(problem, name)
        unit = np.random.default_rng(0).random((20, part.unit_dim))
        x = torch.as_tensor(part.points(unit)[0])
        moved = exact_jets(problem, x)
        moved.u, moved.u_t = moved.u + 1, moved.u_t + 1
        arguments = (x,) if name == "start" else ()
        assert method(*arguments, exact_jets(problem, x)).abs().max() < 1e-12
        assert method(*arguments, moved).abs().min() > 0.5


def test_heat_is_solved(tmp_path):
    facts, _ = solve(
        tmp_path,
        150,
        problem={"name": "heat"},
        network={"hidden": [16]},
        sampling={"interior": 225, "boundary": 40, "initial": 20},
    )
    assert facts["relative_l2"] < 1e-3


def test_heat_jets_leave_time_out_of_the_laplacian():
    case = make_case(
        COMM,
        problem={"name": "heat", "dim": 2},
        sampling={"interior": 27, "boundary": 16, "initial": 9, "rule": "uniform"},
    )
    theta, x = torch.as_tensor(case.plan.ansatz.initial(0)), torch.rand(4, 3)
    u = lambda p: case.evaluation.u(theta, p[None])[0, 0]
    nu_lap = 0.25 * torch.stack([torch.func.hessian(u)(p).diagonal()[:2].sum() for p in x])
    u_t = torch.stack([torch.func.grad(u)(p)[2] for p in x])
    layout = case.plan.terms[0].layout
    residual = case.plan.problem.pde(layout.view(case.plan.ansatz.jets(theta, x, layout)))
    torch.testing.assert_close(residual, u_t - nu_lap, rtol=1e-10, atol=1e-12)


def test_borehole_has_the_published_range():
    """The range is the published one, and u rises or falls with each input as it should."""
    problem = problems.build(
        {"name": "regression", "function": "borehole", "dim": 8, "num_points": 10}
    )
    sign = torch.tensor([1.0, -1, 1, 1, 1, -1, -1, 1])
    low, high = problem.exact(torch.stack([-sign, sign]))
    assert abs(high - 3.0958) < 1e-3 and abs(low - 0.0782) < 1e-3
    with pytest.raises(UsageError, match="8 inputs"):
        problems.build({"name": "regression", "function": "borehole", "dim": 3})


def test_bad_poisson_options_are_refused():
    for options, part in (
        ({"dim": 3, "solution": "bilinear"}, "even number"),
        ({"solution": "peak", "width": 0.0}, "width"),
        ({"solution": "cosine"}, "solution"),
    ):
        with pytest.raises(UsageError, match=part):
            problems.build({"name": "poisson", **options})
