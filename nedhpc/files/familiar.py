"""The record of the Python files that this user has run: SHA-256 hashes in a file of the user.

It lies outside run folders, so that a run folder from somebody else cannot vouch for its own code.
Local: rank 0 reads and writes it.
"""

import contextlib
import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger("nedhpc")

NAME = "familiar_code.sha256"
"""Name of the file. It has one hash in each line."""
LOCK_TRIES, LOCK_SECONDS = 20, 0.05
"""How often, and after which pauses, a writer asks for the lock before it writes without one."""


def path() -> Path | None:
    """XDG_STATE_HOME/nedhpc/NAME, by default in ~/.local/state; None if the user has no home."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(state):
        return Path(state) / "nedhpc" / NAME
    try:
        return Path.home() / ".local" / "state" / "nedhpc" / NAME
    except RuntimeError:
        return None


def familiar() -> set[str]:
    """The recorded hashes; none if the file is missing or if other users may write it."""
    file = path()
    if file is None:
        return set()
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return set()
            content = b""
            while part := os.read(descriptor, 2**20):
                content += part
        finally:
            os.close(descriptor)
    except OSError:
        return set()
    return set(content.decode("ascii", "replace").split())


def remember(hashes: Iterable[str]) -> None:
    """Add hashes to the record. If it cannot be written, say so and go on.

    Args:
        hashes: SHA-256 as hexadecimal digits.
    """
    new = sorted(set(hashes) - familiar())
    file = path()
    if not new:
        return
    try:
        if file is None:
            raise OSError("there is no home folder")
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(file, flags, 0o600)
        try:
            _lock(descriptor)
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o600:
                os.fchmod(descriptor, 0o600)
            # One write of whole lines: it goes to the end of the file, also without the lock. The
            # first line break ends a line that a full disk may have cut.
            os.write(descriptor, "".join(f"\n{line}" for line in new).encode() + b"\n")
        finally:
            os.close(descriptor)
    except OSError as error:
        log.info(
            "cannot record which problem file was run in %s: %s; commands that open this run will "
            "ask you to name the file",
            file,
            error.strerror or error,
        )


def _lock(descriptor: int) -> None:
    """Lock an open file, unless another process holds it for long or there are no locks."""
    for _ in range(LOCK_TRIES):
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(LOCK_SECONDS)
