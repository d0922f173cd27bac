"""A checkpoint with a right seal but a wrong content is read right, or refused in a few words.

Whoever gives somebody a run folder may write anything into it.
"""

import contextlib
import hashlib
import io
import json
import resource
import time
from dataclasses import dataclass

import h5py
import numpy as np
import pytest
from conftest import repeatable
from hypothesis import Phase, given
from hypothesis import strategies as st
from mpi4py import MPI

import nedhpc
from nedhpc import api
from nedhpc.errors import NedError
from nedhpc.files import checkpoint
from nedhpc.files.sealed import SEAL_BYTES, seal
from nedhpc.postprocess.info import info

SECONDS, MIB = 20, 400
"""More time for one file, and more memory for all, than any file may use on a busy machine."""
TABLES = {
    "march": {
        "problem": {"name": "heat"},
        "sampling": {"interior": 40, "boundary": 8, "initial": 8},
        "run": {"max_steps": 4, "windows": 2, "start": "random"},
    },
    "moved": {
        "problem": {"name": "poisson", "dim": 1},
        "sampling": {"interior": 40, "rule": "residual", "resample_every": 2},
        "stepper": {"type": "spring"},
        "run": {"max_steps": 4, "start": "random", "starts": 1},
    },
    "adam": {
        "problem": {"name": "poisson", "dim": 1},
        "sampling": {"interior": 16, "rule": "grid"},
        "stepper": {"type": "adam"},
        "run": {"max_steps": 4, "start": "random", "starts": 1},
    },
}
MARK = """
open({mark!r}, "w").close()
import nedhpc
class P(nedhpc.Problem):
    domain = nedhpc.Box([0.0], [1.0])
"""


class Bases(dict):
    """Checkpoints as {name: bytes}, with a repr that hypothesis can print."""

    def __repr__(self):
        return "bases"


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Bases; the march has a solved window."""
    found = Bases()
    for name, table in TABLES.items():
        table = {"network": {"hidden": [4], "activation": "tanh"}, "device": {"threads": 1}} | table
        out = nedhpc.run(table, tmp_path_factory.mktemp("base") / name, MPI.COMM_SELF).run_dir
        path, state, record, _ = checkpoint.newest(out)
        if name == "march":
            end = state.window[1]
            piece = checkpoint.Piece(state.window[0], end / 2, state.theta_P, state.scaling)
            state.pieces, state.window = (piece,), (end / 2, end)
            path = checkpoint.write(out, state, record, 2)
        found[name] = path.read_bytes()
    return found


NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 2, 2**31 - 1, 2**31, 2**62, 2**63 - 1, -(2**63)]),
    st.sampled_from([0.0, -1.0, 0.5, np.nan, np.inf, -np.inf, 1e308, 5e-324, 1e-300]),
    st.sampled_from([np.uint64(2**64 - 1), np.float32(1), np.float16(2), np.int8(-3)]),
    st.booleans(),
)
ARRAYS = st.builds(
    lambda shape, dtype, fill: np.full(shape, fill).astype(dtype),
    st.sampled_from([(), (0,), (1,), (2,), (13,), (3, 3), (1, 13), (0, 7), (1, 1, 1, 1)]),
    st.sampled_from(["f8", ">f8", "f4", "f2", "i8", "u1", "c16", "?", "S3", "V5"]),
    st.sampled_from([0, 1, -1]),
)
RECORDS = np.array([(1.0, 2)], [("a", "f8"), ("b", "i4")])
OTHERS = [
    "text",
    "",
    "ä" * 40,
    b"\xff\xfe",
    "\n" * 9,
    np.void(b"123"),
    RECORDS,
    h5py.Empty("f8"),
    h5py.Empty(h5py.string_dtype()),
]
LONG, MANY = 2**21, 10**5
CONFIGS = [
    "",
    "a = 1\n",
    "[problem",
    "[problem]\nname = 3\n",
    "problem = 3\n",
    '[problem]\nname = "poisson"\ndim = 10000000\n',
    '[problem]\nname = "poisson"\ndim = 2\n[network]\nhidden = [1000000, 1000000]\n',
    '[problem]\nname = "heat"\n[network]\nhidden = [4]\n[run]\nwindows = 1000000000\n',
    '[problem]\nname = "poisson"\n[network]\nhidden = [4]\n[sampling]\ninterior = 1000000000000\n',
    '[problem]\nname = "poisson"\n[network]\nhidden = [4]\n[device]\nthreads = 1000000\n',
    '[problem]\nname = "poisson"\n[network]\nhidden = [5]\n',
    '[problem]\nname = "poisson"\n[network]\nhidden = []\n',
    '[problem]\nname = "regression"\nfile = "/dev/zero"\n',
    '[problem]\nname = "regression"\nfunction = "sinc"\nnum_points = 1000000000000\n',
    '[problem]\nname = "poisson"\n[network]\nembedding = "fourier"\n'
    "fourier.num_features = 10000000\n",
    '[problem]\nname = "poisson"\n[stepper]\npetsc_options = "-ts_type python"\n',
    '[problem]\nname = "{foreign}:P"\n',
    '[problem]\nname = "poisson"\n[network]\nname = "{foreign}:P"\n',
    "# " + "x" * LONG,
    "a = [" + "1," * (LONG // 2) + "]",
    "a = " + "[" * 100_000,
    "a = " + "9" * 6000,
    "a = 0x" + "f" * 6000,
    ".".join(['"a,"'] * 20_000) + " = 1",
    "".join(f"[t{number}]\n" for number in range(30_000)),
]
LAYOUTS = [
    [],
    ["w"],
    ["w 3 0"],
    ["w 3x3x3 -5"],
    ["w axb c"],
    ["w " + "9" * 5000 + " 0"],
    [" ".join("x" * 99)],
    ["a" * 10**5],
]
LAYOUT_VALUES = st.sampled_from(LAYOUTS) | NUMBERS


def replaced(value):
    """A change that stores another value under a name."""

    def change(file, name):
        if name in file:
            del file[name]
        file[name] = value

    return change


def delete(file, name):
    if name in file:
        del file[name]


def group(file, name):
    delete(file, name)
    file.create_group(name)


def declared(shape, dtype):
    """A change that declares an array, none of whose numbers is stored."""

    def change(file, name):
        delete(file, name)
        chunks = tuple(min(n, 100) for n in shape)
        file.create_dataset(name, shape, dtype, chunks=chunks, compression="gzip")

    return change


def link(make):
    def change(file, name):
        delete(file, name)
        file[name] = make(file)

    return change


def outside(file, name):
    delete(file, name)
    file.create_dataset(name, (3,), "f8", external=[("/dev/zero", 0, 24)])


def virtual(file, name):
    delete(file, name)
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource("/dev/zero", "y", (3,))
    file.create_virtual_dataset(name, layout)


def reference(file, name):
    delete(file, name)
    file.create_dataset(name, data=file["state"].ref, dtype=h5py.ref_dtype)


def ragged(file, name):
    delete(file, name)
    file.create_dataset(name, (2,), h5py.vlen_dtype(np.float64))


def spoiled(number):
    """A change of one number of an array, or of the number itself."""

    def change(file, name):
        item = file.get(name)
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu" and 0 < item.size < MANY:
            values = np.array(item[()])
            with contextlib.suppress(OverflowError), np.errstate(all="ignore"):
                values.reshape(-1)[-1] = number
            item[...] = values

    return change


def longer(file, name):
    item = file.get(name)
    if (
        isinstance(item, h5py.Dataset)
        and item.ndim
        and item.dtype.kind in "fiu"
        and item.size < MANY
    ):
        values = item[()]
        del file[name]
        file[name] = np.concatenate([values, values])


CHANGES = st.one_of(
    NUMBERS.map(replaced),
    ARRAYS.map(replaced),
    st.sampled_from(OTHERS).map(replaced),
    NUMBERS.map(spoiled),
    NUMBERS.map(spoiled),
    st.just(longer),
    st.sampled_from(
        [
            delete,
            group,
            declared((10**13,), "f8"),
            declared((10**7, 10**7), "f4"),
            declared((2**62,), "u1"),
            declared((10**6,), "f8"),
            link(lambda file: h5py.SoftLink("/nowhere")),
            link(lambda file: h5py.SoftLink("/state/clock/step")),
            link(lambda file: h5py.ExternalLink("/dev/zero", "x")),
            link(lambda file: file["/"]),
            link(lambda file: file["state/theta"]),
            outside,
            virtual,
            reference,
            ragged,
        ]
    ),
)
ATTRIBUTES = st.tuples(
    st.sampled_from(["format", "schema_version", "complete"]),
    NUMBERS | st.sampled_from(["2", "", h5py.Empty("f8")]) | ARRAYS,
)
NEW = ("stepper/x", "adaptation/x", "stats/x", "windows/0001", "windows/x", "x", "scaling/x")


def names(content):
    """Names of the groups and datasets of a checkpoint."""
    found = []
    with h5py.File(io.BytesIO(content), "r") as file:
        file.visit(found.append)
    return [*found, *NEW]


def forged(content, changes, attributes, config, layout):
    """The bytes of a checkpoint with a changed content and a right seal."""
    image = io.BytesIO(content)
    with h5py.File(image, "r+") as file:
        for name, change in changes:
            # The change does not fit to one before it, e.g. because a group is gone.
            with contextlib.suppress(OSError, KeyError, ValueError, TypeError, RuntimeError):
                change(file, name)
        for name, value in attributes:
            file.attrs[name] = value
        if config is not None and "config" in file:
            del file["config"]
            file["config"] = config.encode()
        if layout is not None and "state/theta" in file:
            with contextlib.suppress(OSError, TypeError, ValueError):
                file["state/theta"].attrs["layout"] = layout
    body = image.getvalue()[SEAL_BYTES:]
    return seal(hashlib.sha256(body)) + body


@dataclass
class Forgery:
    """A forged checkpoint. Its repr says how it was made."""

    base: str
    changes: list
    attributes: list
    config: str | None
    layout: object

    def __repr__(self):
        names = [(name, change.__qualname__, change.__closure__) for name, change in self.changes]
        shown = [(n, f, [cell.cell_contents for cell in c or ()]) for n, f, c in names]
        rest = (self.attributes, str(self.config)[:60], str(self.layout)[:60])
        return f"{self.base} {shown} {rest}"

    def content(self, bases):
        return forged(bases[self.base], self.changes, self.attributes, self.config, self.layout)


@st.composite
def forgeries(draw, bases, foreign):
    """A Forgery of one of the bases."""
    name = draw(st.sampled_from(sorted(bases)))
    where = st.sampled_from(names(bases[name]))
    changes = draw(st.lists(st.tuples(where, CHANGES), min_size=1, max_size=3))
    attributes = draw(st.lists(ATTRIBUTES, max_size=1)) if draw(st.integers(0, 5)) == 0 else []
    config = draw(st.sampled_from(CONFIGS)) if draw(st.integers(0, 4)) == 0 else None
    layout = draw(LAYOUT_VALUES) if draw(st.integers(0, 7)) == 0 else None
    config = config and config.replace("{foreign}", foreign)
    return Forgery(name, changes, attributes, config, layout)


def assert_possible(state):
    """The numbers of a state that was read are those that a run may have."""
    assert state.theta_P.dtype == np.float64 and state.theta_P.ndim == 1
    assert np.isfinite(state.theta_P).all()
    assert isinstance(state.step, int) and 0 <= state.step < 2**31
    assert isinstance(state.draw, int) and 0 <= state.draw < 2**31
    assert np.isfinite([state.time, state.dt, state.wall_time]).all()
    assert all(isinstance(c, float) and np.isfinite(c) for c in state.coefficients.values())
    for arrays in (state.scaling, *(piece.scaling for piece in state.pieces)):
        assert all(np.isfinite(array).all() for array in arrays.values())
    for piece in state.pieces:
        assert piece.theta_P.shape == state.theta_P.shape and piece.start < piece.end


class Use:
    """Uses of a file. Each returns if the file was read, or raises a NedError that names it."""

    @staticmethod
    def read(path):
        state, record = checkpoint.read(path)
        assert_possible(state)
        json.dumps(info(path))
        assert all(isinstance(line, str) for line in (*record.history, *record.layout))

    @staticmethod
    def load(path):
        u = nedhpc.load(path)
        dim = u.problem.domain.dim
        assert u(np.full((3, dim), 0.5)).shape == (3, len(u.outputs))

    @staticmethod
    def resume(path):
        last = checkpoint.read(path)[0].step
        target = path.parent / f"checkpoint-{last:010d}.h5"
        path.rename(target)
        overrides = [f"run.max_steps={last + 2}", "run.max_wall_time=5", "output.every_steps=1"]
        api.resume(MPI.COMM_SELF, path.parent, overrides)


def try_forgeries(folder, bases, uses, count):
    """Use `count` forged files; {use: numbers of files that were read and refused}."""
    counts = {use: [0, 0] for use in uses}
    mark, foreign = folder / "ran", folder / "foreign.py"
    foreign.write_text(MARK.format(mark=str(mark)))
    number = iter(range(10**6))

    @repeatable(count, phases=[Phase.generate])
    @given(forgeries(bases, str(foreign)))
    def check(forgery):
        run_dir = folder / str(next(number))
        run_dir.mkdir()
        path, content = run_dir / "checkpoint-0000000004.h5", forgery.content(bases)
        for use in uses:
            path.write_bytes(content)
            begun = time.monotonic()
            try:
                getattr(Use, use)(path)
                counts[use][0] += 1
            except NedError as error:
                text = str(error)
                assert len(text) < 60_000 and (use != "read" or str(path) in text), text
                counts[use][1] += 1
            assert time.monotonic() - begun < SECONDS

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + MIB * 1024
    assert not mark.exists()
    return counts


@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_forged_checkpoints_are_read_right_or_refused(tmp_path, bases, count):
    counts = try_forgeries(tmp_path, bases, ["read", "load"], count)
    assert min(map(min, counts.values())) > count // 10, counts  # both kinds occurred


@pytest.mark.parametrize("count", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_forged_checkpoints_are_continued_or_refused(tmp_path, bases, count):
    counts = try_forgeries(tmp_path, bases, ["resume"], count)
    assert min(counts["resume"]) > count // 10, counts
