"""`nedhpc export`: VTK's own reader opens the file and finds the fields where they belong."""

import h5py
import numpy as np
import pytest
from conftest import Decay
from mpi4py import MPI

import nedhpc
from nedhpc.cli import main
from nedhpc.domains.in_time import InTime
from nedhpc.errors import UsageError
from nedhpc.postprocess.export import export
from nedhpc.postprocess.mesh import mesh

TABLE = {
    "network": {"hidden": [4]},
    "sampling": {"interior": 40},
    "run": {"max_steps": 0, "start": "random"},
}
SQUARE = nedhpc.Rectangle([0, 0], [2, 1])
HOLE = SQUARE - nedhpc.Disk([0.5, 0.5], 0.2)
ELL = nedhpc.Rectangle([-1, -1], [1, 1]) - nedhpc.Rectangle([0, 0], [1, 1])
SHELL = nedhpc.Ball([0, 0, 0], 1) - nedhpc.Ball([0, 0, 0], 0.4)
CLOUD = nedhpc.PointCloud({"interior": (np.random.default_rng(0).random((50, 2)), None)})


def run(domain, folder):
    class Sum(nedhpc.Problem):
        @nedhpc.residual("interior")
        def fit(self, x, j):
            return j.u - x.sum(1)

        def exact(self, x):
            return x @ x.new_tensor([1.0, 10.0, 100.0, 1000.0][: x.shape[1]])

    Sum.domain = domain
    nedhpc.run(TABLE, folder, MPI.COMM_SELF, problem=Sum)
    return Sum


def frames(path):
    """(time, points (N, 3), {field: values}, VTK's data) of each time of a file, by VTK."""
    vtk = pytest.importorskip("vtk")
    from vtk.util.numpy_support import vtk_to_numpy

    reader = vtk.vtkHDFReader()
    assert reader.CanReadFile(str(path))
    reader.SetFileName(str(path))
    reader.UpdateInformation()
    for step in range(max(reader.GetNumberOfSteps(), 1)):
        reader.SetStep(step)
        reader.Update()
        data = reader.GetOutputDataObject(0)
        points = np.array([data.GetPoint(i) for i in range(data.GetNumberOfPoints())])
        fields = data.GetPointData()
        names = [fields.GetArrayName(i) for i in range(fields.GetNumberOfArrays())]
        values = {name: vtk_to_numpy(fields.GetArray(name)) for name in names}
        yield reader.GetTimeValue(), points, values, data


@pytest.mark.parametrize(
    "domain, kind, cell",
    [
        (nedhpc.Box([1], [2]), "vtkImageData", 3),
        (nedhpc.Box([0, 1], [2, 2]), "vtkImageData", 8),
        (nedhpc.Box([0, 0, 0], [1, 2, 3]), "vtkImageData", 11),
        (HOLE, "vtkUnstructuredGrid", 5),
        (SHELL, "vtkUnstructuredGrid", 10),
        (CLOUD, "vtkUnstructuredGrid", 1),
        (nedhpc.SpaceTime([0], [1], 2.0), "vtkImageData", 3),
        (nedhpc.SpaceTime([0, 0], [1, 1], 2.0), "vtkImageData", 8),
        (InTime(HOLE, end=2.0), "vtkUnstructuredGrid", 5),
    ],
    ids="line image volume hole shell cloud heat plate channel".split(),
)
def test_vtk_finds_the_fields_where_they_belong(tmp_path, domain, kind, cell):
    problem = run(domain, tmp_path / "run")
    options = {"grid": (9,), "jets": ("grad_u",), "num_times": 3, "problem": problem}
    export(tmp_path / "run", tmp_path / "a.vtkhdf", **options)
    u, has_time = nedhpc.load(tmp_path / "run", problem), domain.coordinates[-1] == "t"
    found = list(frames(tmp_path / "a.vtkhdf"))
    assert [time for time, *_ in found] == ([0, 1, 2] if has_time else [0])
    for time, points, fields, data in found:
        assert data.GetClassName() == kind and data.GetCellType(0) == cell
        x = points[:, : domain.dim - has_time]
        x = np.column_stack([x, np.full(len(x), time)]) if has_time else x
        np.testing.assert_allclose(fields["u"], u(x)[:, 0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(fields["exact_u"], u.exact(x)[:, 0], rtol=1e-9)
        np.testing.assert_allclose(fields["error_u"], fields["u"] - fields["exact_u"], atol=1e-12)
        slopes = u.jet("grad_u", x)
        np.testing.assert_allclose(fields["grad_u"][:, : slopes.shape[1]], slopes, atol=1e-9)
        assert fields["grad_u"].shape == (len(x), 3)


def test_a_march_becomes_a_time_series(tmp_path):
    table = {"network": {"hidden": [8]}, "run": {"max_time": 0.2}, "output": {"times": [0.1]}}
    nedhpc.run(table, tmp_path / "run", MPI.COMM_SELF, problem=Decay)
    export(tmp_path / "run", tmp_path / "a.vtkhdf", grid=(9,), problem=Decay)
    found = list(frames(tmp_path / "a.vtkhdf"))
    assert [time for time, *_ in found] == pytest.approx([0.1, 0.2])
    for time, points, fields, _ in found:
        np.testing.assert_allclose(fields["u"], np.sin(points[:, 0]) * np.exp(-time), atol=1e-3)
        np.testing.assert_allclose(fields["exact_u"], np.sin(points[:, 0]) * np.exp(-time))


@pytest.mark.parametrize(
    "domain, measure",
    [
        (HOLE, 2 - np.pi * 0.04),
        (ELL, 3.0),
        (nedhpc.Disk([0, 0], 1) - nedhpc.Rectangle([0, -2], [2, 2]), np.pi / 2),
        (nedhpc.Polygon([[0, 0], [1, 0], [0.6, 0.5], [1, 1], [0, 1]]), 0.8),
        (nedhpc.Interval(0, 3) - nedhpc.Interval(1, 2), 2.0),
        (SHELL, 4 / 3 * np.pi * (1 - 0.4**3)),
    ],
    ids="hole ell half polygon intervals shell".split(),
)
def test_a_mesh_fills_its_shape(domain, measure):
    """The volume of the simplices is that of the shape, and all have one orientation."""
    count = 25 if domain.dim == 3 else 65
    x, cells = mesh(domain, count)
    assert cells.shape[1] == domain.dim + 1 and set(cells.ravel()) == set(range(len(x)))
    corners = x[cells]
    size = np.linalg.det(corners[:, 1:] - corners[:, :1]) / {1: 1, 2: 2, 3: 6}[domain.dim]
    assert (size > 0).all()
    assert size.sum() == pytest.approx(measure, rel=0.03 if domain.dim == 3 else 2e-3)


def test_corners_of_a_shape_are_points_of_its_mesh():
    x, _ = mesh(ELL, 33)
    for corner in ([-1, -1], [1, -1], [1, 0], [0, 0], [0, 1], [-1, 1]):
        assert np.abs(x - corner).max(1).min() < 1e-9


def test_what_vtk_cannot_hold_is_refused(tmp_path, capsys):
    problem = run(nedhpc.Box([0] * 4, [1] * 4), tmp_path / "run")
    with pytest.raises(UsageError, match="has 4 space coordinates, and a VTK file at most 3"):
        export(tmp_path / "run", tmp_path / "a.vtkhdf", problem=problem)
    with pytest.raises(UsageError, match="by the suffix .vtkhdf"):
        export(tmp_path / "run", tmp_path / "a.h5", problem=problem)
    assert not list(tmp_path.glob("*.vtkhdf"))


def test_the_command_says_what_it_wrote(tmp_path, capsys):
    table = TABLE | {"problem": {"name": "poisson", "dim": 2}}
    nedhpc.run(table, tmp_path / "run", MPI.COMM_SELF)
    output = tmp_path / "a.vtkhdf"
    assert main(["export", str(tmp_path / "run"), "--grid", "5x7", "-o", str(output)]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{output}\n" and shown.err == "image data of 5 x 7 points\n"
    with h5py.File(output) as file:
        assert set(file["VTKHDF/PointData"]) == {"u", "exact_u", "error_u"}
    assert main(["export", str(tmp_path / "run"), "-o", str(tmp_path / "no" / "a.vtkhdf")]) == 2
    assert "No such file or directory; give another place" in capsys.readouterr().err
