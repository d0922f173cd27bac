"""Reasons to stop a run before its end: a signal, or the scheduler's time limit. Local.

This module imports neither torch nor MPI.
"""

import os
import re
import signal
import subprocess
import time

SIGNALS = (
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGXCPU,
)
"""Signals that ask for a stop: HUP if a terminal closes, XCPU at a limit of CPU time."""
LIMIT = 1000
"""Stands for the scheduler's time limit among the numbers of signals; 0 is no reason to stop."""
MARGIN_SECONDS = 10.0
"""The run stops this many seconds, plus twice its longest step and checkpoint, before the limit."""
TIME_LEFT = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)")


class StopSignals:
    """Remembers the last signal that asked for a stop; the handlers do nothing else.

    running.rescue hears of each signal that has a handler, also of CONT, which mpirun sends before
    it ends its ranks.
    """

    def __init__(self):
        self.signal = 0

    def install(self):
        """Install the handlers. Call it again after PETSc is imported: some MPIs take SIGTERM."""
        for number in SIGNALS:
            # nohup ignores SIGHUP, so that the run survives the terminal.
            kept = number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
            if self.signal != number and not kept:
                signal.signal(number, self._note)
        signal.signal(signal.SIGCONT, lambda number, frame: None)
        # slurm/launch.sh blocks some for mpirun. If mpirun does not undo that, its ranks must.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _note(self, number, frame):
        self.signal = number
        if number == signal.SIGINT:
            # A second Ctrl-C then ends the process at once, even inside C code.
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def describe(reason):
    """The reason in words, e.g. "on SIGTERM"."""
    return (
        "ahead of the scheduler's time limit"
        if reason == LIMIT
        else f"on {signal.Signals(reason).name}"
    )


def slurm_end():
    """Unix time at which SLURM ends this job; None outside a job or without a limit."""
    job, end = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_JOB_END_TIME", "")
    if not job:
        return None
    # A time in the past is that of an earlier job in the same shell, or the job was extended.
    if end.isdigit() and float(end) > time.time():
        return float(end)
    try:
        text = subprocess.run(
            ["squeue", "-h", "-j", job, "-o", "%L"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    match = TIME_LEFT.fullmatch(text)
    if not match:  # UNLIMITED, NOT_SET
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return time.time() + ((24 * days + hours) * 60 + minutes) * 60 + seconds
