"""If a run cannot write to its folder, it ends within seconds with a clear error.

The files that were written before still open.
"""

import os
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from processes import finish, run, start, wait_for_step, write_config

from nedhpc.files import checkpoint, series


def ends(process, seconds=30):
    """Wait for a run that must soon fail by itself, and return its stderr."""
    begun = time.monotonic()
    code, _, err = finish(process, 60)
    assert time.monotonic() - begun < seconds
    assert code == 1, (code, err)
    assert "cannot write in" in err and "Traceback" not in err, err
    return err


def opens_and_continues(out, config, steps=20):
    """Check that each file of the folder opens and that the run continues from there."""
    for path in checkpoint.paths(out):
        checkpoint.read(path)
    last = checkpoint.newest(out)[1].step
    assert last >= 50
    code, _, err = run("resume", out, "--set", f"run.max_steps={last + steps}")
    assert code == 0 and checkpoint.newest(out)[1].step == last + steps, err
    found = series.read(out / "series.h5")["step"]
    assert np.all(np.diff(found) > 0)


def test_a_run_ends_if_no_file_may_grow(tmp_path):
    """RLIMIT_FSIZE of the running process acts like a quota."""
    out, config = tmp_path / "run", write_config(tmp_path)
    process = start("run", config, "--out", out, ranks=None)
    wait_for_step(out, 50, process)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (5000, 5000))
    assert "File too large" in ends(process)
    opens_and_continues(out, config)


@pytest.fixture
def disk(tmp_path):
    """A folder that has its own file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True
        ).returncode
    ):
        pytest.skip("only root may mount a file system, where the kernel lets it")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_run_ends_on_a_full_and_on_a_read_only_disk(tmp_path, disk):
    out, config = disk / "run", write_config(tmp_path)
    process = start("run", config, "--out", out, ranks=2)
    wait_for_step(out, 50, process)
    with pytest.raises(OSError), open(disk / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    err = ends(process)
    assert "No space left" in err and err.count("cannot write in") == 1
    (disk / "filler").unlink()
    opens_and_continues(out, config)

    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    code, _, err = run("resume", out, "--set", "run.max_steps=100000")
    assert code == 2 and "cannot write in" in err and "Read-only" in err


def move(out):
    out.rename(out.with_name("old"))


def replace(out):
    move(out)
    out.mkdir()
    (out / ".lock").write_text("another job")


def delete_the_lock(out):
    (out / ".lock").unlink()


@pytest.mark.parametrize("change", [move, replace, delete_the_lock])
def test_a_run_ends_if_its_folder_is_not_the_one_that_it_locked(tmp_path, change):
    """Else two jobs could write into one folder, and each would delete the other's checkpoints."""
    out = tmp_path / "run"
    process = start("run", write_config(tmp_path), "--out", out)
    wait_for_step(out, 50, process)
    change(out)
    assert "not the file that this run locked" in ends(process)
    if change is not delete_the_lock:
        assert not out.exists() or [path.name for path in out.iterdir()] == [".lock"]
        out = tmp_path / "old"
    opens_and_continues(out, None)


def test_a_run_ends_if_its_folder_is_deleted(tmp_path):
    out = tmp_path / "run"
    process = start("run", write_config(tmp_path), "--out", out)
    wait_for_step(out, 50, process)
    while out.exists():
        shutil.rmtree(out, ignore_errors=True)
    assert "No such file" in ends(process)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run("run", write_config(tmp_path), "--out", tmp_path / "file" / "run")
    assert code == 2 and "cannot write in" in err and "Traceback" not in err
    code, _, err = run("run", write_config(tmp_path), "--out", "/proc/run", "--resume", "auto")
    assert code == 2 and "cannot write in" in err


def as_user():
    """A prefix of a command that root's rights do not help, in an environment for `start`."""
    if os.geteuid():
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("only setpriv lets root start a process without root's rights")
    return ["setpriv", "--reuid=65534", "--clear-groups", "--"]


@pytest.fixture
def shared():
    """A folder in which every user may write."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@pytest.mark.slow
def test_a_read_only_folder_ends_a_run_at_its_start_during_it_and_at_a_resume(shared):
    config, out, prefix = write_config(shared), shared / "run", as_user()
    out.mkdir()
    for mode in (0o555, 0o000):
        out.chmod(mode)
        code, _, err = run("run", config, "--out", out, prefix=prefix)
        assert code == 2 and "Permission denied" in err and "cannot write in" in err, err
    out.chmod(0o777)
    process = start("run", config, "--out", out, prefix=prefix)
    wait_for_step(out, 50, process)
    out.chmod(0o555)
    assert "Permission denied" in ends(process)
    # The lock names its last holder. It stays writable, because only the folder is not.
    kept = [path for path in out.iterdir() if path.name != ".lock"]
    before = [path.read_bytes() for path in kept]
    code, _, err = run("resume", out, prefix=prefix)
    assert code == 2 and "Permission denied" in err and "make it writable" in err, err
    assert [path.read_bytes() for path in kept] == before
    out.chmod(0o777)
    last = checkpoint.newest(out)[1].step
    code, _, err = run("resume", out, "--set", f"run.max_steps={last + 20}", prefix=prefix)
    assert code == 0 and checkpoint.newest(out)[1].step == last + 20, err
