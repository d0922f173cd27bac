"""The fault campaign finds broken products, replays what the disk may hold, and passes."""

import os
import random
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from processes import ROOT
from test_checkpoint import RECORD, state

from nedhpc.files import checkpoint, sealed, series

sys.path.append(str(ROOT / "scripts"))
library, replay, verdict, campaign = map(
    import_module, ("campaign_library", "campaign_replay", "campaign_verdict", "campaign")
)
STEPS = (4, 8, 12)
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")

WRITER = """
import sys
import campaign_library as library
sys.path.append({tests!r})
from pathlib import Path
from test_checkpoint import RECORD, state
from nedhpc.files import checkpoint, sealed
{patch}
library.start(library.Disturbance({disturbance}).plan({root!r}, {trace!r}))
sealed.make_folder(Path({root!r}) / "run")
for step in {steps}:
    checkpoint.write(Path({root!r}) / "run", state(step), RECORD, 2)
"""
WITHOUT_FSYNC = "import os; sealed.os.fsync = lambda descriptor: None"
WITHOUT_FOLDERS = "sealed.sync_folder = lambda path: None"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return library.build(tmp_path_factory.mktemp("library"))


def write(built, folder, patch="", disturbance=""):
    """Write checkpoints in a process with the library; (exit code, operations)."""
    (folder / "root").mkdir(parents=True)
    root, trace = folder / "root", folder / "trace"
    code = WRITER.format(
        tests=str(ROOT / "tests"), patch=patch, disturbance=disturbance, root=str(root),
        trace=str(trace), steps=STEPS,
    )  # fmt: skip
    paths = os.pathsep.join((str(ROOT), str(ROOT / "scripts")))
    environment = os.environ | {"LD_PRELOAD": str(built), "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    return done, library.read_trace(trace) if trace.exists() else []


def reference():
    columns = {"step": np.array(STEPS), "energy": np.ones(len(STEPS))}
    return verdict.Reference({step: state(step) for step in STEPS}, columns, 1.0)


def outcomes(folder, operations, tries=3):
    """{outcome} of the states after each prefix of the operations, in each mode."""
    faults, found = import_module("campaign_faults"), set()
    for number in range(1, len(operations) + 1):
        for mode in replay.MODES:
            for seed in range(tries if mode == "some" else 1):
                target = folder / f"{number}{mode}{seed}"
                disk = replay.Disk(folder / "root", operations[:number])
                disk.fail(target, mode, random.Random(seed))
                left = verdict.Left(target / "run", faults.promised_by(operations[:number]))
                verdict.judge_state(left, reference())
                found.add(left.outcome)
    return found


@needs_gcc
def test_checkpoints_outlive_each_power_failure_but_not_without_fsync(built, tmp_path):
    _, operations = write(built, tmp_path)
    renames = [x for x in operations if x.what == "rename"]
    assert len(renames) == len(STEPS) and sum(x.what == "unlink" for x in operations) == 1
    assert outcomes(tmp_path, operations) == {"survived"}
    # Without any flush no promise is made at all, so the promises of the true product are used.
    broken = [x for x in operations if x.what != "sync" or x.path.endswith("run")]
    assert outcomes(tmp_path / "broken", as_in(broken, tmp_path)) == {"survived", "lost"}


def as_in(operations, folder):
    """Operations below folder/root as if they had been below folder/broken/root."""
    old, new = str(folder / "root"), str(folder / "broken" / "root")

    def moved(text):
        return text.replace(old, new)

    return [
        library.Operation(x.what, moved(x.path), moved(x.other), x.offset, x.data)
        for x in operations
    ]


@needs_gcc
@pytest.mark.parametrize("patch", [WITHOUT_FSYNC, WITHOUT_FOLDERS])
def test_a_product_that_does_not_flush_is_found(built, tmp_path, patch):
    """A product that says that a checkpoint is stored before it is flushed loses states."""
    _, operations = write(built, tmp_path, patch)
    promised = [x for x in operations if x.what == "rename"]
    disk = replay.Disk(tmp_path / "root", operations)
    disk.fail(tmp_path / "left", "none", random.Random(0))
    left = verdict.Left(tmp_path / "left" / "run", STEPS[len(promised) - 1])
    verdict.judge_state(left, reference())
    assert left.outcome == "lost"


def test_a_product_that_accepts_damage_is_found(tmp_path, monkeypatch):
    for step in STEPS:
        file = checkpoint.write(tmp_path, state(step), RECORD, 3)
    content = file.read_bytes()
    theta = state(STEPS[-1]).theta_P.tobytes()
    at = content.index(theta)
    file.write_bytes(content[:at] + bytes(8) + content[at + 8 :])
    left = verdict.Left(tmp_path, STEPS[-2])
    verdict.judge_state(left, reference())
    assert left.outcome == "survived"
    monkeypatch.setattr(sealed, "is_unchanged", lambda content: True)
    verdict.judge_state(left, reference())
    assert left.outcome == "wrong"


def test_a_lost_state_a_lost_series_and_another_end_are_found(tmp_path):
    for step in STEPS:
        checkpoint.write(tmp_path, state(step), RECORD, 3)
    entries = series.Series(tmp_path / "series.h5")
    for step in STEPS:
        entries.append({"step": step, "energy": 1.0})
    entries.writing()()
    left = verdict.Left(tmp_path)
    verdict.judge_end(left, reference())
    assert left.outcome == "survived", left.reason

    gap = series.Series(tmp_path / "series.h5", {"step": [4, 12], "energy": [1.0, 1.0]})
    gap.writing()()
    verdict.judge_end(left, reference())
    assert left.outcome == "lost" and "series" in left.reason

    more = {"step": [*STEPS, STEPS[-1] + 1], "energy": [1.0] * (len(STEPS) + 1)}
    series.Series(tmp_path / "series.h5", more).writing()()
    for stopped_at, outcome in ((STEPS[-1] + 1, "survived"), (STEPS[-1], "lost")):
        left = verdict.Left(tmp_path, stopped_at=stopped_at)
        verdict.judge_end(left, reference())
        assert left.outcome == outcome

    left = verdict.Left(tmp_path)
    other = state(STEPS[-1])
    other.theta_P[0] = np.nextafter(other.theta_P[0], np.inf)
    checkpoint.write(tmp_path, other, RECORD, 3)
    verdict.judge_end(left, reference(), rtol=1e-8)
    assert left.outcome == "survived"
    verdict.judge_end(left, reference())
    assert left.outcome == "wrong"

    left = verdict.Left(tmp_path, promised=20)
    verdict.judge_state(left, reference())
    assert left.outcome == "lost"


@pytest.mark.parametrize(
    "code, text, hangs, outcome",
    [
        (0, "", False, "survived"),
        (1, "nedhpc: cannot write in /r: No space left on device", False, "survived"),
        (1, "nedhpc: cannot write in /r", False, "unclear"),
        (1, "nedhpc: No space left on device", False, "unclear"),
        (1, "Traceback (most recent call last): /r: No space left on device", False, "unclear"),
        (-11, "", False, "lost"),
        (-9, "", True, "hang"),
    ],
)
def test_exit_codes_messages_and_hangs_are_judged(code, text, hangs, outcome):
    runs, left = import_module("campaign_runs"), verdict.Left(Path("/r"))
    verdict.judge_process(left, runs.Ended(code, text, 1.0, hangs), (0, 1, 2), error=28)
    assert left.outcome == outcome


@needs_gcc
def test_the_library_makes_the_errors_of_a_plan(built, tmp_path):
    done, _ = write(built, tmp_path / "a", disturbance="'rename', 'checkpoint', 2, 1, 28")
    assert done.returncode == 1 and b"No space left" in done.stderr
    done, found = write(built, tmp_path / "b", disturbance="'any', '', 4, 1, 0, 'kill_after'")
    assert done.returncode == -9 and len(found) == 4
    done, found = write(built, tmp_path / "c", disturbance="'write', '', 1, 0, 0, 'short'")
    assert done.returncode == 0
    assert checkpoint.newest(tmp_path / "c" / "root" / "run")[1].step == STEPS[-1]


@pytest.mark.slow
@needs_gcc
def test_fifty_faults(tmp_path):
    """The campaign of docs/reliability.md, shortened."""
    command = [sys.executable, ROOT / "scripts" / "campaign.py", "--count", "50", "--seed", "3"]
    done = subprocess.run(
        [*command, "--out", tmp_path / "out.jsonl"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout
    results = campaign.read(tmp_path / "out.jsonl", 3, 50)
    assert len(results) == 50 and {result["outcome"] for result in results} == {"survived"}
