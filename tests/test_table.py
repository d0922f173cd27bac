"""Tables of the user: interpolated with derivatives, recorded, and as references."""

import h5py
import numpy as np
import pytest
import torch
from mpi4py import MPI
from test_adaptation import plan_of, run, small

import nedhpc
from nedhpc.errors import NedError, UsageError
from nedhpc.files import checkpoint
from nedhpc.files.provenance import same_everywhere
from nedhpc.files.resume import load_resume
from nedhpc.postprocess.info import info
from nedhpc.problems import table as tables

X = torch.as_tensor(np.random.default_rng(1).uniform(0.05, 0.95, (200, 2)))
COMM = MPI.COMM_SELF


def smooth(x, y):
    return np.sin(2 * x) * np.exp(y) + x


def slopes(x, y):
    return np.stack([2 * np.cos(2 * x) * np.exp(y) + 1, np.sin(2 * x) * np.exp(y)], 1)


def grid_file(path, side, function=smooth):
    """A grid with distances that are not even, in x; HDF5 or NPZ by the name."""
    x, y = np.linspace(0, 1, side) ** 1.2, np.linspace(0, 1, side + 3)
    arrays = {"y": y, "k": function(x[:, None], y), "x": x}
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    return path


def scattered_file(path, count):
    x = np.random.default_rng(0).random((count, 2))
    x[:4] = [[0, 0], [1, 0], [0, 1], [1, 1]]
    np.savetxt(path, np.column_stack([x, smooth(*x.T)]), delimiter=",", header="x,y,k", comments="")
    return path


def on_grid(path, side, **options):
    return nedhpc.Table(grid_file(path, side), inputs=("x", "y"), targets="k", **options)


def errors(table):
    """Largest errors of the values and of the gradients."""
    exact = torch.as_tensor(smooth(*X.T.numpy())), torch.as_tensor(slopes(*X.T.numpy()))
    return [float((a - b).abs().max()) for a, b in zip((table(X), table.gradient(X)), exact)]


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize(("order", "value", "slope"), [("linear", 4, 2), ("cubic", 16, 8)])
def test_a_grid_converges_with_the_order_of_its_splines(tmp_path, suffix, order, value, slope):
    coarse = errors(on_grid(tmp_path / f"a{suffix}", 21, order=order))
    fine = errors(on_grid(tmp_path / f"b{suffix}", 41, order=order))
    assert coarse[0] / fine[0] > 0.8 * value and coarse[1] / fine[1] > 0.8 * slope
    assert fine[0] < {"linear": 2e-3, "cubic": 2e-6}[order]


@pytest.mark.parametrize(
    ("order", "bound", "slope"), [("linear", 8e-3, 0.3), ("cubic", 2e-4, 0.02)]
)
def test_scattered_points_are_interpolated(tmp_path, order, bound, slope):
    table = nedhpc.Table(scattered_file(tmp_path / "k.csv", 900), order=order)
    found = errors(table)
    assert found[0] < bound and found[1] < slope
    at_points = table(torch.as_tensor(table.points))
    assert float((at_points - torch.as_tensor(table.values[:, 0])).abs().max()) < 1e-9


def test_a_table_of_rows_is_a_grid_in_any_order(tmp_path):
    gridded = on_grid(tmp_path / "k.npz", 12)
    rows = np.column_stack([gridded.points, gridded.values])
    np.random.default_rng(0).shuffle(rows)
    np.savetxt(tmp_path / "k.csv", rows, delimiter=",", header="x,y,k", comments="", fmt="%.17g")
    assert torch.equal(nedhpc.Table(tmp_path / "k.csv")(X), gridded(X))
    nearest = nedhpc.Table(tmp_path / "k.csv", order="nearest")
    away = (X[:, None] - torch.as_tensor(nearest.points)).abs().sum(2)
    assert torch.equal(nearest(X), torch.as_tensor(nearest.values[away.argmin(1), 0]))
    assert not nearest.gradient(X).any()


def test_derivatives_of_any_order_come_from_autograd(tmp_path):
    table = on_grid(tmp_path / "k.npz", 41)
    x = X.clone().requires_grad_()
    second = torch.autograd.grad(table.gradient(x)[:, 0].sum(), x)[0][:, 0]
    exact = -4 * torch.sin(2 * X[:, 0]) * torch.exp(X[:, 1])
    assert float((second - exact).abs().max()) < 0.02
    rows = [table(X[i : i + 1]) for i in range(50)]
    assert torch.equal(torch.cat(rows), table(X)[:50])


def test_a_point_outside_is_refused_or_gets_what_is_declared(tmp_path):
    outside = torch.tensor([[0.5, 0.5], [0.5, 1.01]])
    with pytest.raises(UsageError, match=r"1 of 2 points .* \(0.5, 1.01\).*outside = 'nearest'"):
        on_grid(tmp_path / "k.npz", 21)(outside)
    near = on_grid(tmp_path / "k.npz", 21, outside="nearest")
    assert torch.equal(near(outside)[1], near(torch.tensor([[0.5, 1.0]]))[0])
    far = on_grid(tmp_path / "k.npz", 21, outside="extend")
    assert abs(float(far(outside)[1]) - smooth(0.5, 1.01)) < 1e-4
    mesh = nedhpc.Table(scattered_file(tmp_path / "k.csv", 100), order="linear", outside="nearest")
    assert float(mesh(torch.tensor([[1.2, 1.2]]))) == mesh.values[3, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": ("x", "z"), "targets": "k"}, "array 'z'"),
        ({"inputs": ("k", "y"), "targets": "x"}, "shapes are"),
        ({"inputs": ("x", "y"), "targets": "k", "order": "quadratic"}, "allowed are nearest"),
        ({"inputs": ("x", "y"), "targets": "k", "outside": "zero"}, "allowed are refuse"),
        ({"inputs": ("x", "y"), "targets": "k"}, "order = 'cubic' needs at least 4"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path, options, message):
    grid_file(tmp_path / "k.npz", 3)
    with pytest.raises(UsageError, match=message):
        nedhpc.Table(tmp_path / "k.npz", **options)
    (tmp_path / "twice.csv").write_text("x,y,k\n0,0,1\n1,0,2\n0,1,3\n0,1,4\n2,2,2\n")
    with pytest.raises(UsageError, match="twice"):
        nedhpc.Table(tmp_path / "twice.csv")
    with pytest.raises(UsageError, match="no such file"):
        nedhpc.Table(tmp_path / "none.npz", inputs=("x", "y"), targets="k")


class Rod(nedhpc.Problem):
    """(k u')' = 0 on (0, 1), u(0) = 0, u(1) = 1, with k = 1 / (1 + x) from a table.

    The solution is u = (x + x^2 / 2) / 1.5.
    """

    domain = nedhpc.Box([0.0], [1.0])

    def __init__(self, folder, function=lambda x: 1 / (1 + x)):
        x = np.linspace(0, 1, 101)
        np.savez(folder / "k.npz", x=x, y=function(x))
        np.savez(folder / "u.npz", x=x, y=(x + x**2 / 2) / 1.5)
        self.k = nedhpc.Table(folder / "k.npz")
        self.reference = nedhpc.Table(folder / "u.npz")

    @nedhpc.residual("interior")
    def pde(self, x, j):
        return self.k.gradient(x)[:, 0] * j.u_x + self.k(x) * j.u_xx

    @nedhpc.residual("boundary")
    def wall(self, x, j):
        return j.u - x[:, 0]


def test_a_problem_with_a_coefficient_and_a_reference_from_tables(tmp_path):
    status, _ = run(Rod(tmp_path), tmp_path / "run", **small(target_relative_l2=1e-6))
    found = info(tmp_path / "run")
    assert status == "converged" and found["error_is"] == "measured" and found["relative_l2"] < 1e-6
    u = nedhpc.load(tmp_path / "run", Rod(tmp_path))
    assert np.abs(u([0.3]) - u.exact([0.3])).max() < 1e-5
    assert np.isnan(u.exact([1.5])).all()


def test_a_run_does_not_continue_with_another_table(tmp_path):
    run(Rod(tmp_path), tmp_path / "run", **small(max_steps=2))
    resumed = load_resume(COMM, tmp_path / "run")
    assert set(resumed[1].user_files) == {"table:k", "table:reference"}
    problem = Rod(tmp_path)
    run(problem, tmp_path / "run", resumed=resumed, **small(max_steps=3))
    assert checkpoint.newest(tmp_path / "run")[1].step == 3
    other = Rod(tmp_path, lambda x: 1 / (1.001 + x))
    with pytest.raises(UsageError, match="table `k` of the problem is not the one"):
        run(other, tmp_path / "run", resumed=load_resume(COMM, tmp_path / "run"), **small())
    assert tables.digests(other)["table:k"] != tables.digests(problem)["table:k"]


class Two(nedhpc.Problem):
    domain, outputs = nedhpc.Box([0.0], [1.0]), ("u", "v")

    def __init__(self, reference):
        self.reference = reference

    @nedhpc.residual("interior")
    def both(self, x, j):
        return torch.stack([j.u - x[:, 0], j.v - 1], 1)


def test_a_reference_may_have_some_of_the_outputs(tmp_path):
    x = np.linspace(-1, 2, 31)
    np.savez(tmp_path / "v.npz", x=x, v=np.ones(31), w=np.ones((31, 3)))
    problem = Two(nedhpc.Table(tmp_path / "v.npz", inputs="x", targets="v"))
    run(problem, tmp_path / "run", **small(max_steps=30))
    found = info(tmp_path / "run")
    assert found["relative_l2"] < 1e-3 and list(found["metrics"]) == []
    for options, message in [({"targets": "w"}, "3 columns"), ({"targets": ["w", "v"]}, "4 col")]:
        wrong = Two(nedhpc.Table(tmp_path / "v.npz", inputs="x", **options))
        with pytest.raises(NedError, match=message):
            plan_of(wrong)
    np.savez(tmp_path / "far.npz", x=x + 9, v=np.ones(31))
    with pytest.raises(NedError, match="none of its 31 points lies in the domain"):
        plan_of(Two(nedhpc.Table(tmp_path / "far.npz", inputs="x", targets="v")))


@pytest.mark.mpi
def test_tables_that_differ_between_ranks_are_refused_by_all():
    comm = MPI.COMM_WORLD
    if comm.size > 1:
        with pytest.raises(UsageError, match="table:k"):
            same_everywhere(comm, {"table:k": str(comm.rank)})
    same_everywhere(comm, {"table:k": "0"})
