"""A run folder that takes no more:

the run ends within seconds with a clear error, and what was written before opens.
"""

import os
import resource
import shutil
import subprocess
import time

import numpy as np
import pytest
from processes import finish, run, start, wait_for_step, write_config

from nedhpc.files import checkpoint, series


def ends(process, seconds=30):
    """stderr of a run that must fail by itself soon."""
    begun = time.monotonic()
    code, _, err = finish(process, 60)
    assert (
        code == 1
        and time.monotonic() - begun < seconds
        and "Traceback" not in err
        and "cannot write in" in err
    ), (code, err)
    return err


def opens_and_continues(out, config, steps=20):
    """Everything in the folder opens, and the run goes on from there."""
    for path in checkpoint.paths(out):
        checkpoint.read(path)
    last = checkpoint.newest(out)[1].step
    assert last >= 50
    code, _, err = run("resume", out, "--set", f"run.max_steps={last + steps}")
    assert code == 0 and checkpoint.newest(out)[1].step == last + steps, err
    found = series.read(out / "series.h5")["step"]
    assert np.all(np.diff(found) > 0)


def test_no_file_may_grow(tmp_path):
    """As a quota: RLIMIT_FSIZE of the running process."""
    out, config = tmp_path / "run", write_config(tmp_path)
    process = start("run", config, "--out", out, ranks=None)
    wait_for_step(out, 50, process)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (5000, 5000))
    assert "File too large" in ends(process)
    opens_and_continues(out, config)


@pytest.fixture
def disk(tmp_path):
    """A file system of 1 MiB of its own."""
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


def test_full_disk_and_disk_that_turned_read_only(tmp_path, disk):
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


def test_deleted_folder(tmp_path):
    out = tmp_path / "run"
    process = start("run", write_config(tmp_path), "--out", out)
    wait_for_step(out, 50, process)
    while out.exists():
        shutil.rmtree(out, ignore_errors=True)
    assert "No such file" in ends(process)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run("run", write_config(tmp_path), "--out", tmp_path / "file" / "run")
    assert code == 2 and "cannot write in" in err and "Traceback" not in err
    code, _, err = run("run", write_config(tmp_path), "--out", "/proc/run", "--resume", "auto")
    assert code == 2 and "cannot write in" in err
