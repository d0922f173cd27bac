"""Damaged and odd data files are read right, or refused in a few words that name the file."""

import io
import resource
import struct
import time
import zipfile

import h5py
import numpy as np
import pandas
import pytest
from conftest import repeatable
from hypothesis import Phase, given
from hypothesis import strategies as st

import nedhpc
from nedhpc.errors import UsageError

SECONDS, MIB = 20, 400
"""More time for one file, and more memory for all, than any file may use on a busy machine."""
ROWS = np.array([[1.0, 2.5, -3.0], [4.0, 5.0, 6.25], [-7.0, 8.0, 9.0], [0.5, 1e-3, 1e6]])


class Trap:
    """A file that calls this has been run as a pickle."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('foreign code')",))


def npy(array):
    """The bytes of an NPY file. One of objects is a pickle."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def npz(arrays, compressed=False):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def hdf5(arrays):
    """The bytes of an HDF5 file. What HDF5 cannot store is left out."""
    file = io.BytesIO()
    with h5py.File(file, "w") as h5:
        for name, array in arrays.items():
            try:
                h5[name] = array
            except (TypeError, ValueError):
                h5.create_dataset(name, data=[str(x) for x in np.ravel(array)])
    return file.getvalue()


def parquet(arrays):
    """The bytes of a Parquet file with a column for each array of one dimension."""
    file = io.BytesIO()
    pandas.DataFrame(arrays).to_parquet(file)
    return file.getvalue()


def text(rows, separator=",", end="\n", header=""):
    lines = [separator.join(map(str, row)) for row in rows]
    return (header + end.join(lines) + end).encode()


BASES = {
    ".npy": [npy(ROWS), npy(ROWS.astype(">f4")), npy(np.asfortranarray(ROWS)), npy(ROWS > 0)],
    ".npz": [
        npz({"x": ROWS[:, :2], "y": ROWS[:, 2]}),
        npz({"x": ROWS[:, :2], "y": ROWS[:, 2:]}, True),
    ],
    ".h5": [hdf5({"x": ROWS[:, :2], "y": ROWS[:, 2]}), hdf5({"group/a": ROWS})],
    ".parquet": [
        parquet({"x": ROWS[:, 0], "y": ROWS[:, 1].astype("i4")}),
        parquet({"x": ROWS[:, 0], "a": [[1.0], [2.0], [], None]}),
        parquet({"x": ROWS[:, 0], "day": ROWS[:, 1].astype("M8[D]").astype("M8[ns]")}),
        parquet({"x": ROWS[:, 0], "b": [1.0, None, 3.0, 4.0]}),
        parquet({"x": pandas.Categorical(list("abca")), "y": ROWS[:, 0]}),
    ],
    ".csv": [
        text(ROWS.tolist()),
        text(ROWS.tolist(), ";", "\r\n", "a;b;c\r\n"),
        text(ROWS.tolist(), "\t", header='# made by "me"\n'),
        text(ROWS.tolist(), header='a,"b, [m]",c\n').decode().encode("utf-16"),
        b"x,y\n2024-01-01,1\n2024-01-02,2\n",
        b"x,y\n1,NA\n2,\n,3\n",
        b'"1,5";"2,5"\n"3,5";"4,5"\n',
    ],
}
"""{suffix: bytes of intact files}."""


def truncated(content, at, other):
    return content[: at % (len(content) + 1)]


def flipped(content, at, other):
    damaged = bytearray(content)
    damaged[at % len(damaged)] ^= 1 << (other % 8)
    return bytes(damaged)


def overwritten(content, at, other):
    at %= len(content)
    return content[:at] + struct.pack("<Q", other) + content[at + 8 :]


def inserted(content, at, other):
    at %= len(content)
    return content[:at] + bytes([other % 256]) * (1 + other % 300) + content[at:]


def doubled(content, at, other):
    return content + content[at % len(content) :]


WAYS = st.sampled_from([truncated, flipped, flipped, overwritten, inserted, doubled])
PLACES = st.integers(0, 300) | st.integers(0, 2**31)
OTHERS = st.integers(0, 255) | st.integers(0, 2**64 - 1)
DAMAGE = st.lists(st.tuples(WAYS, PLACES, OTHERS), max_size=3)

SHAPES = [(), (0,), (4,), (4, 1), (4, 2), (4, 0), (0, 3), (2, 2, 2), (1, 4), (5,)]
DTYPES = [
    *("f8", ">f8", "f4", "f2", "i8", ">i2", "u1", "?", "c16", "c8", "g"),
    *("S3", "U2", "M8[D]", "m8[s]", "V4", "O"),
]


def array_of(shape, dtype, fill):
    """An array of a dtype; objects hold a Trap."""
    if dtype == "O":
        array = np.empty(shape, object)
        array[...] = Trap()
        return array
    kind = np.dtype(dtype).kind
    with np.errstate(all="ignore"):
        values = np.full(shape, fill if kind in "fcg" or np.isfinite(fill) else 1)
        values = values.astype("i8") if kind in "SUMmV" else values
        if kind == "V":
            return np.zeros(shape, dtype)
        array = values.astype(dtype)
    if kind == "f" and array.size:
        array.reshape(-1)[-1] += 1  # the columns of a usable file are not constant
    return array


RECORDS = np.array([(1.0, 2), (3.0, 4)], [("a", "f8"), ("b", "i4")])
FILLS = st.sampled_from([0.0, 1.0, -2.0, np.nan, np.inf, 1e300, 255.0])
ARRAYS = st.builds(
    array_of, st.sampled_from(SHAPES), st.sampled_from(DTYPES), FILLS
) | st.just(RECORDS)  # fmt: skip
NAMES = st.sampled_from(["x", "y", "a", "X", "../x", "ä", " ", "x.npy"])


def header(shape, descr="<f8", body=b"\0" * 64, fortran=False):
    """The bytes of an NPY file whose header claims a shape."""
    words = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape!r}, }}"
    words = words.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(words)) + words.encode() + body


HEADERS = st.builds(
    header,
    st.sampled_from(
        [(10**12,), (2**40, 2**40), (-1, 3), (2**63,), (2**64, 0), (2, True), "xx", None, (1.5,)]
    )
    | st.just((1,) * 70),
    st.sampled_from(
        ["<f8", "|O", "<f99", "<V8", "", "|u1", "<M8[D]", [("a", "<f8")], 3, "<U9" * 9]
    ),
    st.sampled_from([b"", b"\0" * 64, b"\x80\x04."]),
    st.booleans(),
)


def archive(members):
    """A ZIP file of (name, bytes)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members:
            made.writestr(name, content)
    return file.getvalue()


def declared(shape, dtype):
    """An HDF5 file of arrays none of whose numbers is stored."""
    file = io.BytesIO()
    with h5py.File(file, "w") as h5:
        for name in ("x", "y"):
            chunks = tuple(min(n, 100) for n in shape)
            h5.create_dataset(name, shape, dtype, chunks=chunks, compression="gzip")
    return file.getvalue()


def linked(make):
    """An HDF5 file with links and references in the place of arrays."""
    file = io.BytesIO()
    with h5py.File(file, "w") as h5:
        h5["x"] = ROWS[:, :2]
        make(h5)
    return file.getvalue()


def loop(h5):
    h5["y"] = h5["/"]


def chain(h5):
    group = h5
    for _ in range(300):
        group = group.create_group("g")
    group["y"] = ROWS[:, 2]


LINKED = [
    linked(loop),
    linked(chain),
    linked(lambda h5: h5.create_dataset("y", data=h5.ref, dtype=h5py.ref_dtype)),
    linked(lambda h5: h5.create_dataset("y", (4,), h5py.vlen_dtype(float))),
    linked(lambda h5: h5.create_dataset("y", data=h5py.Empty("f8"))),
    linked(lambda h5: h5.create_dataset("y", (4,), "f8", external=[("/dev/zero", 0, 32)])),
    linked(lambda h5: h5.__setitem__("y", h5py.SoftLink("/y"))),
    linked(lambda h5: h5.__setitem__("y", h5py.SoftLink("/x"))),
    linked(lambda h5: h5.__setitem__("y", h5py.ExternalLink("/dev/zero", "y"))),
    linked(lambda h5: h5.__setitem__("y", np.dtype("f8"))),
    declared((10**12, 2), "f8"),
    declared((2**40, 2**20), "u1"),
    declared((10**6, 2), "f4"),
]
CELLS = st.one_of(
    st.sampled_from(["1", "2.5", "-3e4", "1,5", "NA", "", "nan", "inf", "1e999", "0x10", "1_000"]),
    st.sampled_from(
        ["2024-01-01", "12:30", '"', '"a,b"', '""', "#N/A", "#", "ü", "\0", "\x1a", " "]
    ),
    st.sampled_from(["9" * 400, "1" + "0" * 5000, "x" * 3000, "1;2", "\ufeff1", "١", "1\r2", "−1"]),
    st.text(max_size=4),
)
NUMBERS = st.integers(-99, 99) | st.floats(allow_nan=False, allow_infinity=False)
FULL = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=7)
LINES = FULL | st.lists(st.lists(CELLS, max_size=5), max_size=7)
TEXTS = st.builds(
    lambda rows, separator, end, encoding: (
        text(rows, separator, end).decode().encode(encoding, "replace")
    ),
    LINES,
    st.sampled_from([",", ";", "\t", " ", "|", ", "]),
    st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
    st.sampled_from(["utf-8", "utf-8", "utf-16", "utf-32", "latin-1", "utf-8-sig", "cp1252"]),
)
WIDE = st.sampled_from(
    [b"1," * 500_000, b'"' + b"1\n" * 50_000, b"1\n" * 50_000, b"," * 10**6, b"\n" * 10**6]
)


def damaged(base, damage):
    for way, at, other in damage:
        base = way(base, at, other) if base else base
    return base


@st.composite
def files(draw):
    """(suffix, bytes, arrays that a reader must find or None)."""
    suffix = draw(st.sampled_from([*BASES]))
    if suffix == ".parquet" or draw(st.booleans()):
        base = draw(st.sampled_from(BASES[suffix]))
        return suffix, damaged(base, draw(DAMAGE)), None
    if suffix == ".npy":
        if draw(st.booleans()):
            return suffix, draw(HEADERS), None
        array = draw(ARRAYS)
        return suffix, npy(array), [array]
    if suffix == ".csv":
        return suffix, draw(TEXTS | TEXTS | WIDE | st.binary(max_size=200)), None
    if suffix == ".h5" and draw(st.booleans()):
        return suffix, draw(st.sampled_from(LINKED)), None
    if suffix == ".npz" and draw(st.booleans()):
        members = st.tuples(NAMES.map("{}.npy".format) | NAMES, HEADERS | st.binary(max_size=9))
        return (
            suffix,
            archive(draw(st.lists(members, max_size=3, unique_by=lambda member: member[0]))),
            None,
        )
    arrays = {"x": draw(ARRAYS), "y": draw(ARRAYS)}
    if draw(st.integers(0, 4)) == 0:
        arrays = {draw(NAMES): draw(ARRAYS)}
    return suffix, npz(arrays) if suffix == ".npz" else hdf5(arrays), [*arrays.values()]


def assert_right(values, arrays):
    """The values that were read are those of the arrays, if these are known."""
    assert values.dtype == np.float64 and len(values) > 1 and np.isfinite(values).all()
    if arrays is not None:
        expected = [np.asarray(a, float).reshape(len(a), -1) for a in arrays]
        np.testing.assert_array_equal(values, np.hstack(expected))


def try_files(folder, count):
    """Read `count` files; numbers of those that were read and refused, by suffix."""
    counts = {suffix: [0, 0] for suffix in BASES}

    @repeatable(count, phases=[Phase.generate])
    @given(files(), st.sampled_from(["refuse", "drop"]))
    def check(file, missing):
        suffix, content, arrays = file
        path, begun = folder / f"a{suffix}", time.monotonic()
        path.write_bytes(content)
        try:
            x, y = nedhpc.read_table(path, missing=missing)
        except UsageError as error:
            assert str(path) in str(error) and len(str(error)) < 1000 + len(str(path))
            counts[suffix][1] += 1
        else:
            is_whole = missing == "refuse" or arrays is None
            assert_right(np.hstack([x, y]), arrays if is_whole else None)
            counts[suffix][0] += 1
        assert time.monotonic() - begun < SECONDS

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + MIB * 1024
    return counts


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_damaged_and_odd_data_files_are_read_right_or_refused(tmp_path, count):
    counts = try_files(tmp_path, count)
    assert min(map(min, counts.values())) > 0, counts
