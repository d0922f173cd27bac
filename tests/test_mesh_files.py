"""Tables of VTK files: the values at the points of a mesh, and what is said of odd files."""

import sys

import meshio
import numpy as np
import pytest
import torch
from conftest import repeatable
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import Delaunay
from test_adaptation import COMM, run, small

import nedhpc
from nedhpc.errors import UsageError
from nedhpc.files.resume import load_resume
from nedhpc.postprocess.info import info

POINTS = np.random.default_rng(0).random((300, 2))
TRIANGLES = Delaunay(POINTS).simplices
K = 1 + POINTS[:, 0] * POINTS[:, 1]
WRITERS = {
    "zlib.vtu": {},
    "lzma.vtu": {"compression": "lzma"},
    "plain.vtu": {"compression": None},
    "text.vtu": {"binary": False},
    "5.1.vtk": {"file_format": "vtk"},
    "4.2.vtk": {"file_format": "vtk42"},
    "text.vtk": {"file_format": "vtk42", "binary": False},
}


def write(path, points=POINTS, cells=TRIANGLES, **options):
    """A mesh in the plane z = 0 with the arrays k and v at points, and c at cells."""
    at = np.column_stack([points, np.zeros(len(points))])
    fields = {"k": 1 + points[:, 0] * points[:, 1], "v": at}
    mesh = meshio.Mesh(
        at, [("triangle", cells)], point_data=fields, cell_data={"c": [np.ones(len(cells))]}
    )
    mesh.write(path, **options)
    return path


@pytest.mark.parametrize("name", WRITERS)
def test_a_mesh_is_a_table_of_its_points(tmp_path, name):
    path = write(tmp_path / name, **WRITERS[name])
    table = nedhpc.Table(path, targets="k", order="linear", outside="nearest")
    np.testing.assert_allclose(table.points, POINTS, atol=1e-10)
    np.testing.assert_allclose(table.values[:, 0], K, atol=1e-10)
    x = torch.tensor([[0.3, 0.6], [0.5, 0.5]], dtype=torch.float64)
    assert float((table(x) - (1 + x.prod(1))).abs().max()) < 5e-3
    x_ND, y_NM = nedhpc.read_table(path, inputs=["y"], targets=["v", "k"])
    np.testing.assert_allclose(x_ND[:, 0], POINTS[:, 1], atol=1e-10)
    np.testing.assert_allclose(y_NM[:, [0, 1, 3]], np.column_stack([POINTS, K]), atol=1e-10)


def test_the_only_array_is_the_target_and_an_image_is_a_grid(tmp_path):
    numbers = " ".join(str(v) for v in range(20))
    (tmp_path / "k.vtk").write_text(
        "# vtk DataFile Version 3.0\nimage\nASCII\nDATASET STRUCTURED_POINTS\nDIMENSIONS 5 4 1\n"
        "ORIGIN 0 0 0\nSPACING 0.25 0.5 1\nPOINT_DATA 20\nSCALARS k float 1\n"
        f"LOOKUP_TABLE default\n{numbers}\n"
    )
    table = nedhpc.Table(tmp_path / "k.vtk")
    x = torch.tensor([[0.1, 0.2], [0.9, 1.4]], dtype=torch.float64)
    expected = 4 * x[:, 0] + 10 * x[:, 1]  # k is linear in x and y, as a spline finds exactly
    assert float((table(x) - expected).abs().max()) < 1e-12
    assert table.dim == 2 and table.covers(x).all()


def test_points_that_pieces_repeat_are_read_once(tmp_path):
    half = np.concatenate([POINTS, POINTS[:50]])
    path = write(tmp_path / "twice.vtu", half)
    table = nedhpc.Table(path, targets="k", order="linear")
    np.testing.assert_allclose(table.points, POINTS, atol=1e-15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "its arrays at points are: k, v; choose"),
        ({"targets": "c"}, "array c has a value for each cell.*Cell Data to Point Data"),
        ({"targets": "kk"}, "array 'kk': unknown name.*'k'"),
        ({"inputs": ["x", "z"], "targets": "k"}, "cannot be triangulated"),
        ({"targets": "k", "separator": "comma"}, "options of text files"),
    ],
)
def test_a_choice_that_a_mesh_does_not_have_is_refused(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        nedhpc.Table(write(tmp_path / "a.vtu"), **options)


def test_a_file_that_would_fill_the_memory_or_never_end_is_refused(tmp_path):
    head = "# vtk DataFile Version 3.0\nt\nASCII\nDATASET STRUCTURED_POINTS\n"
    (tmp_path / "a.vtk").write_text(f"{head}DIMENSIONS 9999 9999 99\nORIGIN 0 0 0\nSPACING 1 1 1\n")
    with pytest.raises(UsageError, match="its arrays claim"):
        nedhpc.read_table(tmp_path / "a.vtk")
    text = write(tmp_path / "a.vtu").read_text()
    (tmp_path / "a.vtu").write_text(text.replace("<VTKFile", '<VTKFile header_type="Int64"', 1))
    with pytest.raises(UsageError, match="header_type is Int64, not UInt32"):
        nedhpc.read_table(tmp_path / "a.vtu")


@given(
    name=st.sampled_from(sorted(WRITERS)),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=3),
)
@repeatable(150)
def test_a_damaged_mesh_is_read_or_refused_in_a_few_words(tmp_path_factory, name, cut, changes):
    folder = tmp_path_factory.getbasetemp() / "damaged-meshes"
    folder.mkdir(exist_ok=True)
    whole = folder / f"whole-{name}"
    if not whole.exists():
        write(whole, **WRITERS[name])
    content = bytearray(whole.read_bytes())
    for at, byte in changes:
        content[int(at * len(content))] = byte
    (folder / name).write_bytes(content[: round(len(content) * (1 - cut / 2))])
    try:
        x_ND, y_NM = nedhpc.read_table(folder / name, targets=["k"])
        assert np.isfinite(x_ND).all() and len(x_ND) == len(y_NM)
    except UsageError as error:
        assert name in str(error) and len(str(error)) < 600


def test_a_text_that_is_no_mesh_and_a_missing_package_are_said(tmp_path, monkeypatch):
    for name in ("a.vtu", "a.vtk"):
        (tmp_path / name).write_text("not such a file")
        with pytest.raises(UsageError, match="cannot be read by meshio as VTK.*save it there"):
            nedhpc.read_table(tmp_path / name)
    monkeypatch.setitem(sys.modules, "meshio", None)
    with pytest.raises(UsageError, match=r"needs meshio.*nedhpc\[data\]"):
        nedhpc.read_table(tmp_path / "a.vtu")


class Plate(nedhpc.Problem):
    """lap u = f with f and the reference u = x y (1 - x) (1 - y) from one VTK file."""

    domain = nedhpc.Box([0, 0], [1, 1])

    def __init__(self, path):
        self.f = nedhpc.Table(path, targets="f")
        self.reference = nedhpc.Table(path, targets="u")

    @nedhpc.residual("interior")
    def pde(self, x, j):
        return j.lap_u - self.f(x)

    @nedhpc.residual("boundary")
    def wall(self, j):
        return j.u


def test_a_source_and_a_reference_come_from_a_mesh(tmp_path):
    side = np.linspace(0, 1, 21)
    x, y = (a.ravel() for a in np.meshgrid(side, side, indexing="ij"))
    points = np.column_stack([x, y, 0 * x])
    u, f = x * y * (1 - x) * (1 - y), -2 * (x * (1 - x) + y * (1 - y))
    cells = Delaunay(points[:, :2]).simplices
    mesh = meshio.Mesh(points, [("triangle", cells)], point_data={"u": u, "f": f})
    mesh.write(tmp_path / "plate.vtu")
    status, _ = run(
        Plate(tmp_path / "plate.vtu"), tmp_path / "run", **small(target_relative_l2=1e-3)
    )
    found = info(tmp_path / "run")
    assert status == "converged" and found["error_is"] == "measured"
    assert set(load_resume(COMM, tmp_path / "run")[1].user_files) == {"table:f", "table:reference"}
