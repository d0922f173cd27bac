"""Files that other programs opened, that the user edited, or that the system cannot read."""

import builtins
import errno
import os
import stat
import subprocess
import sys

import h5py
import numpy as np
import pytest
from test_checkpoint import RECORD, same, state

from nedhpc.cli.main import main
from nedhpc.errors import NotAStateError, StorageError
from nedhpc.files import checkpoint, folder, sealed, series
from nedhpc.files.sealed import SEAL_BYTES


@pytest.fixture
def file(tmp_path):
    return checkpoint.write(tmp_path, state(), RECORD, 2)


TOUCH = """
import h5py, sys
for mode in ("a", "r+"):
    for libver in ("earliest", "latest"):
        h5py.File(sys.argv[1], mode, libver=libver).close()
"""


def touched(path):
    """Open and close the file for writing, as HDFView and others do to look at it."""
    subprocess.run([sys.executable, "-c", TOUCH, path], check=True)


def rewritten(path):
    """Write the same numbers again, and add and delete a dataset: HDF5 moves bytes."""
    with h5py.File(path, "a") as file:
        file["new"] = np.arange(1000.0)
    with h5py.File(path, "a") as file:
        del file["new"]
        for name in ("state/theta", "step"):
            if name in file:
                file[name][...] = file[name][()]


def repacked(path):
    """Copy everything into another file, as h5repack does, behind the same first block."""
    copy = path.with_suffix(".copy")
    with h5py.File(path) as old, h5py.File(copy, "w", libver="latest", userblock_size=512) as new:
        for name in old:
            old.copy(name, new)
        for key, entry in old.attrs.items():
            new.attrs[key] = entry
    path.write_bytes(path.read_bytes()[:SEAL_BYTES] + copy.read_bytes()[SEAL_BYTES:])


@pytest.mark.parametrize("open_file", [touched, rewritten, repacked])
def test_a_file_that_was_opened_for_writing_and_not_changed_still_opens(file, tmp_path, open_file):
    before = file.read_bytes()
    open_file(file)
    assert (file.read_bytes() == before) == (open_file is touched)
    found = checkpoint.read(file)
    assert same(found[0], state()) and found[1] == RECORD
    path = tmp_path / "series.h5"
    written = series.Series(path, {"step": [0, 1], "energy": [2.0, 1.0], "metrics/a": [0.0, 1.0]})
    written.writing()()
    open_file(path)
    assert list(series.read(path)["energy"]) == [2.0, 1.0]


def edit(file):
    file["state/theta"][3] += 1e-16


def test_an_edited_file_is_refused_until_it_is_sealed_on_purpose(file, capsys):
    with h5py.File(file, "a") as opened:
        edit(opened)
    with pytest.raises(NotAStateError, match=f"`nedhpc seal {file}` accepts the edit"):
        checkpoint.read(file)
    assert main(["seal", str(file)]) == 0 and "checkpoint" in capsys.readouterr().out
    found, _ = checkpoint.read(file)
    assert found.theta_P[3] == state().theta_P[3] + 1e-16
    rewritten(file)
    assert checkpoint.read(file)[0].step == 7


def test_what_is_no_file_of_nedhpc_is_not_sealed(file, tmp_path, capsys):
    with h5py.File(file, "a") as opened:
        del opened["config"]
    (tmp_path / "text.h5").write_text("text" * 1000)
    for path in (file, tmp_path / "text.h5", tmp_path / "none.h5", tmp_path):
        before = path.read_bytes() if path.is_file() else b""
        assert main(["seal", str(path)]) == 2 and "cannot be read" in capsys.readouterr().err
        assert not before or path.read_bytes() == before


def failing(monkeypatch, number, times):
    """Let the first `times` calls of open on a checkpoint or series fail with an error number."""
    real, left = builtins.open, [times]

    def fake(path, *args, **kwargs):
        if str(path).endswith(".h5") and left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", fake)
    monkeypatch.setattr(sealed, "RETRY_SECONDS", (0.0, 0.0))


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EAGAIN])
def test_a_read_error_that_passes_is_retried_and_another_is_not_corruption(
    file, tmp_path, monkeypatch, number
):
    checkpoint.write(tmp_path, state(3), RECORD, 2)
    failing(monkeypatch, number, 2)
    assert checkpoint.newest(tmp_path)[0] == file
    failing(monkeypatch, number, 3)
    with pytest.raises(StorageError, match="at present"):  # not the older checkpoint
        checkpoint.newest(tmp_path)


def test_files_open_where_the_file_system_has_no_locks(file, monkeypatch):
    """HDF5 is never asked to lock: h5py.File on a path would fail here."""
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", "TRUE")
    holder = (
        "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.flock(f, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(OSError, match="lock"):
            h5py.File(file, "r", locking=True)
        assert checkpoint.read(file)[0].step == 7
        other.kill()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES])
def test_a_file_system_that_cannot_flush_a_folder_is_tolerated_with_one_warning(
    tmp_path, monkeypatch, caplog, number
):
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    for step in (1, 2, 3):
        checkpoint.write(tmp_path, state(step), RECORD, 2)
    assert checkpoint.newest(tmp_path)[1].step == 3
    assert caplog.text.count("cannot flush files or folders") == 1


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_disk_that_fails_to_flush_is_an_error(tmp_path, monkeypatch, is_folder):
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == is_folder:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output"):
        checkpoint.write(tmp_path, state(), RECORD, 2)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_that_cannot_flush_files_is_tolerated(tmp_path, monkeypatch, caplog, number):
    def fsync(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    checkpoint.write(tmp_path, state(3), RECORD, 2)
    assert checkpoint.newest(tmp_path)[1].step == 3
    assert caplog.text.count("cannot flush files or folders") == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.EAGAIN, errno.EACCES])
def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(
    file, tmp_path, monkeypatch, number
):
    """Else `--resume auto` would begin anew and write over the run."""
    real, left = os.listdir, [2]

    def listdir(path):
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(number, os.strerror(number))
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    monkeypatch.setattr(sealed, "RETRY_SECONDS", (0.0, 0.0))
    assert checkpoint.any_in(tmp_path)
    left[0] = 3
    with pytest.raises(StorageError, match="at present"):
        checkpoint.any_in(tmp_path)
    assert not checkpoint.any_in(tmp_path / "none") and checkpoint.paths(tmp_path / "none") == []


def test_eagain_amid_a_file_is_not_the_end_of_the_file(file, monkeypatch):
    """Python's own files return what they have read until then, without an error."""
    real, calls = os.read, []

    def read(descriptor, length):
        calls.append(length)
        if len(calls) == 3:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return real(descriptor, min(length, 1000))

    monkeypatch.setattr(os, "read", read)
    monkeypatch.setattr(sealed, "RETRY_SECONDS", (0.0, 0.0))
    assert checkpoint.read(file)[0].step == 7 and len(calls) > 6


@pytest.mark.parametrize(
    "make", [sealed.make_folder, lambda path: folder.new_folder(path.parent, path.name)]
)
def test_the_names_of_new_folders_are_flushed(tmp_path, monkeypatch, make):
    real, flushed = os.fsync, []

    def fsync(descriptor):
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    make(tmp_path / "a" / "b" / "c")
    assert flushed == [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")]
