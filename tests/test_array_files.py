"""Files of arrays and of columns: NPZ, NPY, HDF5 and Parquet."""

import resource
import zipfile

import h5py
import numpy as np
import pandas as pd
import pytest

import nedhpc
from nedhpc.errors import UsageError
from nedhpc.problems import build

X, Y = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.5]]), np.array([[0.1], [0.2], [0.3]])
COLUMNS = np.hstack([X, Y])


def write(path, **arrays):
    """Write named arrays; the only array of an NPY file has no name."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".npy":
        (array,) = arrays.values()
        np.save(path, array)
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    return path


def assert_is_data(found):
    np.testing.assert_array_equal(found[0], X)
    np.testing.assert_array_equal(found[1], Y)
    assert found[0].dtype == found[1].dtype == np.float64


@pytest.mark.parametrize("name", ["a.npz", "a.h5", "a.hdf5", "A.NPZ"])
def test_arrays_x_and_y_are_read(tmp_path, name):
    assert_is_data(nedhpc.read_table(write(tmp_path / name.lower(), x=X, y=Y[:, 0])))
    assert_is_data(nedhpc.read_table(write(tmp_path / name.lower(), x=X, y=Y), targets=5))


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.h5"])
def test_one_array_of_columns_is_read(tmp_path, name):
    path = write(tmp_path / name, anything=COLUMNS)
    assert_is_data(nedhpc.read_table(path))
    assert nedhpc.read_table(path, targets=2)[1].shape == (3, 2)


@pytest.mark.parametrize("name", ["a.npz", "a.h5"])
def test_arrays_are_chosen_by_name(tmp_path, name):
    path = write(tmp_path / name, b=Y[:, 0], a=X, c=np.arange(3))
    assert_is_data(nedhpc.read_table(path, inputs=["a"], targets=["b"]))
    x, y = nedhpc.read_table(path, targets="c")
    assert x.shape == (3, 3) and y.shape == (3, 1)
    with pytest.raises(UsageError, match="needed are arrays x"):
        nedhpc.read_table(path)
    with pytest.raises(UsageError, match="array 'd': unknown name"):
        nedhpc.read_table(path, targets=["d"])


def test_an_array_in_a_group_is_chosen_by_its_path(tmp_path):
    path = write(tmp_path / "a.h5", **{"run/a": X, "run/b": Y})
    assert_is_data(nedhpc.read_table(path, inputs=["run/a"], targets=["run/b"]))


BAD = {
    "complex": (Y * 1j, "complex numbers"),
    "structured": (np.zeros(3, [("a", float), ("b", float)]), "structured records"),
    "text": (np.array(["1", "2", "3"]).astype("S1"), "text"),
    "infinite": (np.array([1.0, 2.0, np.inf]), "row 3, column 3.*infinite"),
    "missing": (np.array([1.0, np.nan, 2.0]), 'row 2, column 3.*missing = "drop"'),
    "three axes": (np.zeros((3, 1, 1)), "shapes"),
    "other height": (np.zeros(4), "shapes"),
    "no axis": (np.array(1.0), "shapes"),
    "no columns": (np.zeros((3, 0)), "shapes"),
}


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize("what", BAD)
def test_what_is_not_an_array_of_numbers_is_refused(tmp_path, suffix, what):
    array, message = BAD[what]
    with pytest.raises(UsageError, match=message) as error:
        nedhpc.read_table(write(tmp_path / f"a{suffix}", x=X, y=array))
    assert len(str(error.value)) < 400


def test_pickled_objects_dates_and_broken_files_are_refused(tmp_path):
    dates = np.array(["2024-01-01", "2024-01-02"], "M8[D]")
    with pytest.raises(UsageError, match="dates"):
        nedhpc.read_table(write(tmp_path / "a.npy", x=dates))
    for name in ("a.npz", "a.npy"):
        objects = np.array([[1, None], [2, {}]], object)
        with pytest.raises(UsageError, match="cannot be read"):
            nedhpc.read_table(write(tmp_path / name, x=objects))
    for name in ("b.npz", "b.npy", "b.h5", "b.parquet"):
        (tmp_path / name).write_bytes(b"not such a file")
        with pytest.raises(UsageError, match="cannot be read") as error:
            nedhpc.read_table(tmp_path / name)
        assert len(str(error.value)) < 400


def test_arrays_outside_the_file_are_refused(tmp_path):
    other, path = write(tmp_path / "other.h5", x=X, y=Y), tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = X, h5py.ExternalLink(other, "y")
    with pytest.raises(UsageError, match="array y is a link or lies in another file"):
        nedhpc.read_table(path)
    with h5py.File(path, "w") as file:
        file["x"] = X
        layout = h5py.VirtualLayout((3, 1), float)
        layout[:] = h5py.VirtualSource(other, "y", (3, 1))
        file.create_virtual_dataset("y", layout)
    with pytest.raises(UsageError, match="array y is a link or lies in another file"):
        nedhpc.read_table(path)
    with h5py.File(path, "w") as file:
        file["x"] = X
        file.create_dataset("y", (3, 1), float, external=[(tmp_path / "raw", 0, 24)])
    with pytest.raises(UsageError, match="array y is a link or lies in another file"):
        nedhpc.read_table(path)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, np.bool_])
def test_each_kind_of_real_number_is_read(tmp_path, dtype):
    x, y = nedhpc.read_table(write(tmp_path / "a.npy", a=COLUMNS.astype(dtype)))
    np.testing.assert_array_equal(np.hstack([x, y]), COLUMNS.astype(dtype).astype(float))


def parquet(path, frame):
    frame.to_parquet(path)
    return path


def test_columns_of_parquet_are_read(tmp_path):
    frame = pd.DataFrame(COLUMNS, columns=["a", "b", "c"])
    path = parquet(tmp_path / "a.parquet", frame)
    assert_is_data(nedhpc.read_table(path))
    assert_is_data(nedhpc.read_table(path, inputs=["a", "b"], targets=["c"]))
    path = parquet(path, frame.assign(note="text", when=pd.Timestamp("2024-01-01")))
    assert_is_data(nedhpc.read_table(path, inputs=["a", "b"], targets=["c"]))
    for column, kind in (("note", "text"), ("when", "dates")):
        with pytest.raises(UsageError, match=rf"column \d \({column}\) holds {kind}"):
            nedhpc.read_table(path, inputs=["a"], targets=[column])


def test_a_missing_value_of_parquet_is_refused_or_dropped(tmp_path):
    frame = pd.DataFrame({"a": pd.array([1, 2, None, 4], "Int64"), "b": [1.0, 2.0, 3.0, 4.0]})
    path = parquet(tmp_path / "a.parquet", frame)
    with pytest.raises(UsageError, match=r"row 3, column 1 \(a\)"):
        nedhpc.read_table(path)
    assert nedhpc.read_table(path, missing="drop")[0].tolist() == [[1], [2], [4]]


def test_an_index_with_a_name_is_a_column(tmp_path):
    frame = pd.DataFrame({"u": [1.0, 2.0]}, index=pd.Index([0.5, 1.5], name="t"))
    x, y = nedhpc.read_table(parquet(tmp_path / "a.parquet", frame))
    assert x.tolist() == [[0.5], [1.5]] and y.tolist() == [[1], [2]]


def chunked(file):
    with h5py.File(file, "w") as h5:
        h5.create_dataset("x", (10**9, 100), "f4", chunks=(1000, 100))


def header_only(file):
    with file.open("wb") as raw:
        shape = {"descr": "<f8", "fortran_order": False, "shape": (10**10, 3)}
        np.lib.format.write_array_header_1_0(raw, shape)
        raw.write(bytes(100))


def zeros(file):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as raw:
            shape = {"descr": "<f8", "fortran_order": False, "shape": (10**7, 2)}
            np.lib.format.write_array_header_1_0(raw, shape)
            for _ in range(160):
                raw.write(bytes(10**6))


@pytest.mark.parametrize(
    "name, make, message",
    [
        ("a.h5", chunked, "claim 4e\\+11 bytes, the file has"),
        ("a.npy", header_only, "mmap length is greater than file size"),
        ("a.npz", zeros, "claim 1.6e\\+08 bytes, the file has"),
        ("b.npz", lambda file: file.write_bytes(b"PK\3\4"), "not a zip file"),
        ("c.npz", lambda file: np.save(file.open("wb"), X), "not a zip file"),
    ],
)
def test_arrays_that_claim_more_than_the_file_holds_use_no_memory(tmp_path, name, make, message):
    make(tmp_path / name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match=message):
        nedhpc.read_table(tmp_path / name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**15  # KiB


@pytest.mark.parametrize(
    "options, message",
    [
        ({"dim": 3}, "problem.dim: not used with file"),
        ({"num_points": 3}, "problem.num_points: not used with file"),
        ({"split_seed": -1}, "problem.split_seed = -1"),
        ({"function": "sinc", "file": "", "separator": "comma"}, "problem.separator: not used"),
    ],
)
def test_options_of_the_other_source_of_data_are_refused(tmp_path, options, message):
    file = write(tmp_path / "a.npz", x=X, y=Y)
    with pytest.raises(UsageError, match=message):
        build({"name": "regression", "file": str(file)} | options)


@pytest.mark.parametrize("header", [b"{'descr': (", b"{'descr': [[", b"{1:", b"x = ", b"'" * 9])
def test_a_damaged_header_of_numpy_is_refused(tmp_path, header):
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + bytes([len(header), 0]) + header)
    with pytest.raises(UsageError, match="cannot be read"):
        nedhpc.read_table(path)
