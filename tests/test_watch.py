"""`nedhpc watch`: the curve and the last figures, in a terminal and in a file."""

import os
import pty
import subprocess
import sys

import pytest
from conftest import make_table
from mpi4py import MPI

import nedhpc
from nedhpc.cli import main
from nedhpc.errors import NotAStateError
from nedhpc.files import series
from nedhpc.postprocess.watch import frame


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    table = make_table(run={"max_steps": 30}, output={"every_steps": 1})
    return nedhpc.run(table, tmp_path_factory.mktemp("watch") / "run", MPI.COMM_SELF).run_dir


def test_a_file_gets_one_frame_without_colours(run_dir, capsys):
    assert main(["watch", str(run_dir)]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "wall time [s]" in shown
    assert "* relative L2 error" in shown and "poisson, euclidean/ptc/tsqr: max_steps" in shown
    error = series.read(run_dir / "series.h5")["relative_l2"][-1]
    assert "step 30, time " in shown and f"relative L2 error {error:.3g}, energy" in shown


def test_figures_are_those_of_the_checkpoint_without_a_series(run_dir, tmp_path):
    (tmp_path / "config.toml").touch()
    newest = sorted(run_dir.glob("checkpoint-*.h5"))[-1]
    (tmp_path / newest.name).symlink_to(newest)
    text, is_running = frame(tmp_path, 80)
    assert not is_running and text.startswith("no positive energy") and "step 30, time" in text


def test_nothing_to_watch_is_an_error_in_a_file(tmp_path):
    with pytest.raises(NotAStateError):
        frame(tmp_path / "none", 80)
    assert main(["watch", str(tmp_path / "none")]) == 2


def terminal(*words):
    """(exit code, text) of a nedhpc command whose output is a terminal."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "nedhpc", *map(str, words)],
        stdout=theirs,
        stdin=theirs,
        stderr=subprocess.PIPE,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"},
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # the end of a terminal
        pass
    os.close(ours)
    child.communicate(timeout=60)
    return child.returncode, shown.decode()


def test_a_terminal_shows_colours_until_the_run_has_ended(run_dir):
    code, shown = terminal("watch", run_dir, "--every", "0.1")
    assert code == 0 and "\x1b[38" in shown and "max_steps" in shown
