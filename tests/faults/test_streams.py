"""A run goes on, and keeps its exit code, if nobody can read what it prints."""

import os
import signal
import subprocess
import sys

import pytest
from processes import ROOT, finish, start, wait_for_step, write_config

from nedhpc.files import checkpoint
from nedhpc.postprocess.info import info

OPTIONS = ("--", "-ts_monitor")
"""Lets PETSc's own C code print, too."""
NOWHERE = {
    "full disk": ">/dev/full 2>/dev/full",
    "closed": "<&- >&- 2>&-",
    "no reader": "2>&1 | true; exit ${PIPESTATUS[0]}",
}


def shell(command, redirection, env=()):
    """The exit code of `nedhpc command` in bash with a redirection, and what it printed."""
    words = [sys.executable, "-P", "-m", "nedhpc", *map(str, command)]
    done = subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", *words],
        cwd=ROOT,
        capture_output=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | dict(env),
    )
    return done.returncode, done.stdout.decode()


@pytest.mark.parametrize("where", NOWHERE)
def test_a_run_without_output_is_complete(tmp_path, where):
    config, out = write_config(tmp_path, steps=20), tmp_path / "run"
    code, _ = shell(["run", config, "--out", out, *OPTIONS], NOWHERE[where])
    assert code == 0
    assert info(out)["status"] == "max_steps" and info(out)["step"] == 20
    # If a descriptor were closed, a file of the run could get its number and the messages.
    assert (out / ".lock").read_text().count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_run_whose_reader_has_ended_still_stops_with_a_checkpoint(tmp_path, number):
    process = start("run", write_config(tmp_path, every=10), "--out", tmp_path / "run", *OPTIONS)
    wait_for_step(tmp_path / "run", 10, process)
    process.stdout.close()
    process.stderr.close()
    wait_for_step(tmp_path / "run", checkpoint.newest(tmp_path / "run")[1].step + 20, process)
    process.send_signal(number)
    assert process.wait(60) == 75
    assert info(tmp_path / "run")["status"] == "stopped"


def test_a_run_under_nohup_survives_its_terminal(tmp_path):
    process = start("run", write_config(tmp_path), "--out", tmp_path / "run", prefix=["nohup"])
    wait_for_step(tmp_path / "run", 50, process)
    process.send_signal(signal.SIGHUP)
    wait_for_step(tmp_path / "run", checkpoint.newest(tmp_path / "run")[1].step + 100, process)
    process.send_signal(signal.SIGUSR1)
    code, _, err = finish(process)
    assert code == 75 and "SIGUSR1" in info(tmp_path / "run")["message"], err


def test_a_name_that_the_encoding_does_not_have_is_printed_with_escapes(tmp_path):
    config, out = write_config(tmp_path, steps=2), tmp_path / "\u2603"
    code, printed = shell(["run", config, "--out", out], "", {"PYTHONIOENCODING": "ascii"})
    assert code == 0 and "\\u2603" in printed


def test_a_command_that_only_prints_fails_if_it_cannot():
    assert shell(["problems"], ">/dev/full")[0] == 1
    assert shell(["problems"], "| true; exit ${PIPESTATUS[0]}")[0] == 0
