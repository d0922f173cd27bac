"""Checkpoint files: damage is detected, and a resumed run may change only what makes sense.

Every byte is checked, and no content can crash or mislead the reader.
"""

import dataclasses
import hashlib
import json
import os
import random
import subprocess
import sys

import h5py
import numpy as np
import pytest
from conftest import evolve, make_config

from nedhpc.cli.main import main
from nedhpc.errors import ConfigError, FutureSchemaError, NotAStateError, UsageError
from nedhpc.files import checkpoint, series
from nedhpc.files.checkpoint import State
from nedhpc.files.lock import locked
from nedhpc.files.record import RunRecord
from nedhpc.files.resume import load_resume
from nedhpc.files.sealed import SEAL_BYTES, seal
from nedhpc.postprocess.info import info

pytestmark = pytest.mark.mpi
RECORD = RunRecord(
    config="a = 1\n",
    history=["a = 0\n", "a = 1\n"],
    changes=["start", "after step 3: a = 1 (was 0)"],
    layout=["w 3 0"],
    user_files={"problem.name": "ab"},
    sampling={"rule": "sobol", "seed": 3, "data_sha256": ""},
    provenance={"hosts": "h"},
    stats={"energy": 0.5},
    threads=2,
)


def state(step=7):
    rng = np.random.default_rng(step)
    return State(
        rng.random(300),
        {"nu": 0.25, "alpha": -1.0},
        step,
        0.5,
        1e-3,
        {"type": "spring", "phi": rng.random(300), "damping": 0.1},
        2,
        12.5,
        {"draw": 2, "index": np.arange(9), "weight": rng.random(9)},
    )


def same(a, b):
    return (
        np.array_equal(a.theta_P, b.theta_P)
        and list(a.coefficients.items()) == list(b.coefficients.items())
        and (a.step, a.time, a.dt, a.draw, a.wall_time)
        == (b.step, b.time, b.dt, b.draw, b.wall_time)
        and all(np.array_equal(a.stepper[k], b.stepper[k]) for k in {*a.stepper, *b.stepper})
        and all(
            np.array_equal(a.selection[k], b.selection[k]) for k in {*a.selection, *b.selection}
        )
    )


def reseal(path, change):
    """Apply change(h5py.File) and seal the file again, so that the checksum hides the damage."""
    with h5py.File(path, "r+") as file:
        change(file)
    content = path.read_bytes()[SEAL_BYTES:]
    path.write_bytes(seal(hashlib.sha256(content)) + content)


@pytest.fixture
def file(tmp_path):
    return checkpoint.write(tmp_path, state(), RECORD, 2)


def test_reads_what_was_written(file):
    found, record = checkpoint.read(file)
    assert same(found, state()) and record == RECORD
    with h5py.File(file) as plain:  # any reader of HDF5 can open it
        assert np.array_equal(plain["state/theta"], state().theta_P) and plain.attrs["complete"]


def test_flipped_bytes_and_truncations_are_detected(file):
    content = file.read_bytes()
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << (at % 8)
        digest = hashlib.sha256(damaged[SEAL_BYTES:])
        assert bytes(damaged[:SEAL_BYTES]) != seal(digest)  # `read` compares these
    random.seed(1)
    for at in [*range(0, len(content), len(content) // 8), SEAL_BYTES, len(content) - 1]:
        for damaged in (
            content[:at],
            content[:at] + bytes([content[at] ^ (1 << random.randrange(8))]) + content[at + 1 :],
            content[:at] + bytes(len(content) - at) if any(content[at:]) else content + b"\0",
        ):
            file.write_bytes(damaged)
            try:
                found = checkpoint.read(file)
            except NotAStateError:
                continue
            assert same(found[0], state()) and found[1] == RECORD  # HDF5 uses no such byte
    file.write_bytes(content)
    assert same(checkpoint.read(file)[0], state())


def set_attribute(name, value):
    def change(file):
        file.attrs[name] = value

    return change


def put(name, **dataset):
    def change(file):
        if name in file:
            del file[name]
        if dataset:
            file.create_dataset(name, **dataset)

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("state/theta"),
        put("config"),
        put("stepper"),
        put("state/clock/step"),
        put("sampling/draw"),
        set_attribute("format", "other"),
        set_attribute("complete", False),
        put("state/theta", data="text"),
        put("state/theta", data=np.ones((3, 3))),
        put("config", data=3),
        put("state/clock/step", data="x"),
        put("state/clock/time", data=np.ones(4)),
        put("stepper", data=1.0),
        put("config_history", data=1.0),
        put("state/theta", shape=(10**13,), dtype="f8", chunks=(10**6,)),
        put("stepper/phi", shape=(10**7, 10**7), dtype="f8", chunks=(1000, 1000)),
        put("state/clock/step", data=float("inf")),
    ],
)
def test_malformed_content_is_no_state(file, change):
    reseal(file, change)
    with pytest.raises(NotAStateError):
        checkpoint.read(file)


READ_DAMAGED = """
import hashlib, random, sys
from nedhpc.errors import NotAStateError
from nedhpc.files import checkpoint
from nedhpc.files.sealed import seal
path, random = sys.argv[1], random.Random(3)
content = open(path, "rb").read()[512:]
for _ in range(150):
    damaged = bytearray(content)
    for _ in range(random.choice((1, 4, 40))):
        damaged[random.randrange(len(damaged))] = random.randrange(256)
    open(path, "wb").write(seal(hashlib.sha256(damaged)) + damaged)
    try:
        checkpoint.read(path)
    except NotAStateError:
        pass
"""


def test_random_damage_under_a_right_seal_never_crashes_the_reader(file, tmp_path):
    """If the checksum is right, HDF5 itself reads the damage, and it could crash.

    The reader has its own process, because a crash would end it.
    """
    content = file.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", READ_DAMAGED, file], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert content


def test_a_future_schema_is_refused_with_the_remedy(file, tmp_path, capsys):
    older = checkpoint.write(tmp_path, state(3), RECORD, 2)
    reseal(file, set_attribute("schema_version", 3))
    with pytest.raises(FutureSchemaError, match="update nedhpc"):
        # The older checkpoint would silently lose the steps after it.
        checkpoint.newest(tmp_path)
    assert main(["info", str(tmp_path)]) == 2 and "schema version 3" in capsys.readouterr().err
    assert checkpoint.read(older)[0].step == 3


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4096,
        b"\x89HDF\r\n\x1a\n" + b"\0" * 4096,
        b"nedhpc sha256 ",
        b"nedhpc sha256 " + b"0" * 64 + b"\n",
    ],
)
def test_other_files_are_no_states(tmp_path, content):
    path = tmp_path / "checkpoint-0000000001.h5"
    path.write_bytes(content)
    for read in (checkpoint.read, series.read, info):
        with pytest.raises(NotAStateError):
            read(path)
    for path in ("/dev/zero", tmp_path, tmp_path / "none"):
        with pytest.raises(NotAStateError):
            checkpoint.read(path)


def test_the_last_are_kept_and_a_failed_write_leaves_nothing(tmp_path):
    for step in (1, 2, 3, 4):
        checkpoint.write(tmp_path, state(step), RECORD, 3)
    assert [path.name[-5:] for path in checkpoint.paths(tmp_path)] == ["02.h5", "03.h5", "04.h5"]
    broken = dataclasses.replace(RECORD, stats={"energy": object()})
    with pytest.raises(TypeError):
        checkpoint.write(tmp_path, state(5), broken, 3)
    assert len(list(tmp_path.iterdir())) == 3 and checkpoint.newest(tmp_path)[1].step == 4


# Whole runs.


def settings(steps=6, **tables):
    run = {"max_steps": steps} | tables.pop("run", {})
    return make_config(
        **(
            {"stepper": {"type": "euler", "dt": 1e-4}, "checkpoint": {"every_steps": 2, "keep": 4}}
            | tables
        ),
        run=run,
    )


def continued(comm, folder, **tables):
    return evolve(settings(**tables), folder, comm, load_resume(comm, folder))


@pytest.mark.parametrize(
    "tables, reason",
    [
        ({"network": {"hidden": [9]}}, "network.hidden"),
        ({"network": {"activation": "sin"}}, "network.activation"),
        ({"run": {"seed": 1}}, "run.seed"),
        (
            {"problem": {"name": "poisson", "dim": 2}, "sampling": {"interior": 49, "boundary": 4}},
            "problem.dim",
        ),
        (
            {
                "problem": {"name": "heat"},
                "sampling": {"interior": 49, "boundary": 4, "initial": 2, "rule": "sobol"},
            },
            "problem.name",
        ),
        ({"run": {"start": "last_layer"}}, "run.start"),
        ({"run": {"initial": "x.h5"}}, "run.initial"),
    ],
)
def test_changes_that_make_no_sense_are_refused(comm, folder, tables, reason):
    evolve(settings(), folder, comm)
    before = (folder / "config.toml").read_text()
    with pytest.raises(ConfigError, match=f"{reason}: .* cannot become .* start another run"):
        continued(comm, folder, **tables)
    assert (folder / "config.toml").read_text() == before


def test_changes_that_make_sense_are_kept_in_the_history(comm, folder):
    evolve(settings(stepper={"type": "spring", "dt": 0.5}), folder, comm)
    status, state = continued(
        comm, folder, steps=8, stepper={"type": "ptc", "dt": 2.0}, run={"target_relative_l2": 1e-20}
    )
    assert status == "max_steps" and state.step == 8 and state.stepper["type"] == "ptc"
    _, state = continued(
        comm,
        folder,
        steps=9,
        stepper={"type": "euler", "dt": 1e-5},
        run={"target_relative_l2": 1e-20},
    )
    _, record = load_resume(comm, folder)
    assert state.dt == 1e-5  # the last dt of ptc is too long for euler
    assert len(record.history) == 3 and record.config == record.history[-1]
    first, second, third = record.changes
    assert first == "start"
    assert second.startswith("after step 6: ") and "stepper.type = 'ptc' (was 'spring')" in second
    assert "run.max_steps = 8 (was 6)" in second and "without memory" in second
    assert third.startswith("after step 8: ")
    if comm.rank == 0:
        assert info(folder)["changes"] == record.changes


def test_the_same_settings_leave_no_trace(comm, folder):
    evolve(settings(), folder, comm)
    continued(comm, folder)
    assert load_resume(comm, folder)[1].changes == ["start"]


def test_changed_data_is_refused(comm, folder):
    tables = {
        "problem": {"name": "regression", "file": str(folder / "data.csv")},
        "sampling": {"rule": "uniform", "interior": None},
    }
    if comm.rank == 0:
        rows = np.random.default_rng(0).random((30, 2))
        np.savetxt(folder / "data.csv", rows, delimiter=",")
    comm.Barrier()
    evolve(settings(**tables), folder / "run", comm)
    evolve(settings(steps=7, **tables), folder / "run", comm, load_resume(comm, folder / "run"))
    comm.Barrier()
    if comm.rank == 0:
        np.savetxt(folder / "data.csv", rows[::-1], delimiter=",")
    comm.Barrier()
    with pytest.raises(UsageError, match="not what the run was trained on"):
        evolve(settings(steps=8, **tables), folder / "run", comm, load_resume(comm, folder / "run"))


def test_a_corrupt_checkpoint_is_set_aside_and_the_run_goes_on(comm, folder):
    _, whole = evolve(settings(), folder / "whole", comm)
    evolve(settings(), folder / "run", comm)
    comm.Barrier()
    if comm.rank == 0:
        for path in checkpoint.paths(folder / "run")[-2:]:
            path.write_bytes(path.read_bytes()[:-1])
    comm.Barrier()
    state, record = load_resume(comm, folder / "run")
    assert state.step == 2
    _, again = evolve(settings(), folder / "run", comm, (state, record))
    assert np.array_equal(again.theta_P, whole.theta_P)
    if comm.rank == 0:
        assert [path.name[-8:] for path in checkpoint.paths(folder / "run")] == [
            f"{step:05d}.h5" for step in (0, 2, 4, 6)
        ]
        assert len(list((folder / "run").glob("*.aside"))) == 2
        steps = series.read(folder / "run" / "series.h5")["step"]
        assert list(steps) == sorted(set(steps))


def test_a_new_run_does_not_use_the_folder_of_an_old_one(comm, folder):
    evolve(settings(), folder, comm)
    with pytest.raises(UsageError, match="already holds a run"):
        evolve(settings(), folder, comm)


def test_the_lock_refuses_a_second_job_and_ends_with_the_first(comm, folder):
    if comm.rank:
        return
    from mpi4py import MPI

    holder = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); "
        "f.write('host far, pid 5'); f.flush(); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, folder / ".lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        other.stdout.readline()
        with (
            pytest.raises(UsageError, match="another job .* far, pid 5"),
            locked(MPI.COMM_SELF, folder),
        ):
            pass
        other.kill()
    with locked(MPI.COMM_SELF, folder):
        assert f"pid {os.getpid()}" in (folder / ".lock").read_text()


def test_info_is_json(comm, folder):
    evolve(settings(), folder, comm)
    if comm.rank == 0:
        assert json.loads(json.dumps(info(folder)))["changes"] == ["start"]
