"""`nedhpc evaluate`: points of any file or grid to any file, the same on any number of ranks."""

import csv
import inspect

import h5py
import numpy as np
import pytest
import torch
from mpi4py import MPI

import nedhpc
from nedhpc.cli import main
from nedhpc.errors import UsageError
from nedhpc.parallel.comm import on_rank_0
from nedhpc.postprocess.evaluate import evaluate

TABLE = {"network": {"hidden": [8]}, "sampling": {"interior": 40}, "run": {"max_steps": 2}}


class Ring(nedhpc.Problem):
    """A square with a hole."""

    domain = nedhpc.Rectangle([0, 0], [1, 2]) - nedhpc.Disk([0.5, 1.0], 0.33)

    @nedhpc.residual("interior")
    def fit(self, x, j):
        return j.u - torch.sin(x[:, 0] * x[:, 1])


def solved(folder):
    return nedhpc.run(TABLE, folder / "run", MPI.COMM_SELF, problem=Ring).run_dir


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return solved(tmp_path_factory.mktemp("ring"))


@pytest.mark.mpi
def test_a_grid_is_the_same_on_any_number_of_ranks(comm, folder):
    run_dir = on_rank_0(comm, solved, folder)
    options = {"grid": (300, 300), "jets": ("u", "u_x", "grad_u", "lap_u"), "problem": Ring}
    assert evaluate(run_dir, folder / "all.h5", comm=comm, **options) == 90_000
    if comm.rank:
        return
    evaluate(run_dir, folder / "one.h5", **options)
    with h5py.File(folder / "all.h5") as every, h5py.File(folder / "one.h5") as one:
        assert set(every) == {"points", "inside", "u", "u_x", "grad_u", "lap_u"} == set(one)
        for name in one:
            assert np.array_equal(every[name][()], one[name][()], equal_nan=name in options["jets"])


@pytest.mark.mpi
@pytest.mark.parametrize("wrong", [{"jets": ("w",)}, {"output": "no/such/folder.h5"}])
def test_all_ranks_raise_the_same_error(comm, folder, wrong):
    options = {"grid": (200, 200), "output": "a.h5", "problem": Ring} | wrong
    run_dir = on_rank_0(comm, solved, folder)
    with pytest.raises(UsageError, match="jet 'w' is unknown|cannot write .*folder.h5: No such"):
        evaluate(run_dir, folder / options.pop("output"), comm=comm, **options)


def test_a_grid_is_blank_outside_the_domain(run_dir, tmp_path):
    evaluate(run_dir, tmp_path / "a.h5", grid=(11, 21), problem=Ring)
    u = nedhpc.load(run_dir, Ring)
    with h5py.File(tmp_path / "a.h5") as file:
        x, inside, values = (file[name][()] for name in ("points", "inside", "u"))
        assert tuple(file.attrs["shape"]) == (11, 21)
        assert list(file.attrs["coordinates"]) == ["x", "y"]
        assert file["points"].attrs["long_name"] == "coordinates of the points"
    assert x.reshape(11, 21, 2)[-1, 0].tolist() == [1, 0]
    assert np.array_equal(inside, np.hypot(x[:, 0] - 0.5, x[:, 1] - 1) > 0.33)
    assert np.array_equal(np.isnan(values), ~inside)
    np.testing.assert_allclose(values[inside], u(x[inside])[:, 0], rtol=1e-12)


def test_points_come_from_any_file_and_go_to_any_file(run_dir, tmp_path):
    x = np.random.default_rng(0).random((7, 2))
    u = nedhpc.load(run_dir, Ring)
    expected = np.column_stack([u(x)[:, 0], u.jet("grad_u", x)])
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "b.npz", points=x, other=x[:, 0])
    np.savez(tmp_path / "c.npz", x=x[:, 0], y=x[:, 1])
    np.savez(tmp_path / "d.npz", x=x, y=x[:, :1])
    np.savetxt(tmp_path / "e.csv", x[:, ::-1], header="y,x", comments="", delimiter=",")
    np.savetxt(tmp_path / "f.txt", x)
    for source in ("a.npy", "b.npz", "c.npz", "d.npz", "e.csv", "f.txt"):
        for suffix in ("h5", "npz", "csv"):
            target = tmp_path / f"out.{suffix}"
            evaluate(run_dir, target, points=tmp_path / source, jets=("u", "grad_u"), problem=Ring)
            np.testing.assert_allclose(columns(target), expected, rtol=1e-12)


def columns(path):
    """u and its gradient, (N, 3), of an output file."""
    if path.suffix == ".csv":
        with path.open() as file:
            rows = list(csv.DictReader(file))
        return [[float(row[name]) for name in ("u", "grad_u.x", "grad_u.y")] for row in rows]
    file = h5py.File(path) if path.suffix == ".h5" else np.load(path)
    with file:
        return np.column_stack([file["u"][()], file["grad_u"][()]])


@pytest.mark.parametrize(
    "content, message",
    [
        ("x,y,z\n1,2,3\n4,5,6\n", None),  # named columns are found
        ("a,b,c\n1,2,3\n4,5,6\n", "has 3 columns; needed is one for each of the coordinates x, y"),
        ("x,y\n1,2\n3,\n", "line 3, column 2 .*not a finite number"),
    ],
)
def test_a_file_without_the_coordinates_is_refused(run_dir, tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    options = {"points": tmp_path / "a.csv", "problem": Ring}
    if message is None:
        assert evaluate(run_dir, tmp_path / "a.h5", **options) == 2
    else:
        with pytest.raises(UsageError, match=message):
            evaluate(run_dir, tmp_path / "a.h5", **options)
        assert not list(tmp_path.glob("*.h5"))


def test_the_command_says_what_is_wrong(run_dir, tmp_path, capsys):
    (tmp_path / "p.py").write_text("import torch, nedhpc\n" + inspect.getsource(Ring))
    base = ["evaluate", str(run_dir), "--grid", "4x5", "--problem", f"{tmp_path}/p.py:Ring"]
    assert main([*base, "-o", str(tmp_path / "a.csv")]) == 0
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 21
    assert main([*base, "-o", str(tmp_path / "a.xyz")]) == 2
    assert "its name must end in one of .h5 .hdf5 .npz .csv" in capsys.readouterr().err
    base[3] = "4x5x6"
    assert main([*base, "-o", str(tmp_path / "a.h5")]) == 2
    assert "each of the 2 coordinates x, y" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", str(run_dir), "--grid", "4,5", "-o", "a.h5"])
    assert "is not a grid such as 256 or 256x256" in capsys.readouterr().err
