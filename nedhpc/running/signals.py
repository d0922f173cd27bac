"""Why a run should stop before its end:

a signal, or the scheduler's time limit. Local; imports neither torch nor MPI.
"""

import os
import re
import signal
import subprocess
import time

SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
LIMIT = 1000
"""The scheduler's time limit, as a reason among the signals' numbers; 0 is no reason."""
MARGIN_SECONDS = 10.0
"""Left before the scheduler's limit, beside twice the longest step and checkpoint of the run."""
TIME_LEFT = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)")


class StopSignals:
    """Remembers the last signal that asked for a stop; the handlers do nothing else."""

    def __init__(self):
        self.signal = 0

    def install(self):
        """Take the signals; again after PETSc was imported, which takes SIGTERM under some MPIs."""
        for number in SIGNALS:
            if self.signal != number:
                signal.signal(number, self._note)

    def _note(self, number, frame):
        self.signal = number
        if number == signal.SIGINT:
            signal.signal(
                signal.SIGINT, signal.SIG_DFL
            )  # the second Ctrl-C ends the process at once, even inside C code


def describe(reason):
    return (
        "ahead of the scheduler's time limit"
        if reason == LIMIT
        else f"on {signal.Signals(reason).name}"
    )


def slurm_end():
    """Unix time at which SLURM ends this job; None outside a job and where there is no limit."""
    job, end = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_JOB_END_TIME", "")
    if not job:
        return None
    if end.isdigit():
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
