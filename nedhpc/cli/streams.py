"""Standard output and error that never end a run: if one vanishes, the run goes on without it.

The reader of a pipe may end (`nedhpc run ... | head`), a terminal may close, a disk may be full,
and a daemon may have no streams at all.
"""

import errno
import io
import os
import sys

STREAMS = {1: "stdout", 2: "stderr"}
"""Name in `sys` by file descriptor."""


class Unfailing(io.TextIOWrapper):
    """A text stream that writes to os.devnull after the first error."""

    lost: OSError | None = None
    """The first error."""

    def write(self, text: str) -> int:
        """Write the text, or drop it."""
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.lost = self.lost or error
        # Python flushes again at exit, and C libraries write to the descriptor, too.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)


def secure() -> None:
    """Make sys.stdout and sys.stderr Unfailing if they are the process's own. Local.

    A closed descriptor is opened on os.devnull, because otherwise the next file would get its
    number, and messages of C libraries would be written into that file.
    """
    while (null := os.open(os.devnull, os.O_RDWR)) <= max(STREAMS):
        os.set_inheritable(null, True)
    os.close(null)
    for descriptor, name in STREAMS.items():
        stream = getattr(sys, name)
        if stream is None:
            stream = open(descriptor, "w", closefd=False)  # noqa: SIM115
        elif not _is_own(stream, descriptor):
            continue
        stream.flush()
        # A name that the stream's encoding does not have is written with escape sequences.
        made = Unfailing(
            stream.buffer,
            encoding=stream.encoding,
            errors="backslashreplace",
            line_buffering=stream.line_buffering or descriptor == 2,
        )
        setattr(sys, name, made)
        setattr(sys, f"__{name}__", stream)  # if it were deleted, it would close the buffer


def _is_own(stream, descriptor: int) -> bool:
    """True if the stream writes to the descriptor and may still fail."""
    try:
        return type(stream) is io.TextIOWrapper and stream.fileno() == descriptor
    except (OSError, ValueError):
        return False


def lost_output() -> OSError | None:
    """The error for which output was lost; None if the reader has only closed the pipe. Local."""
    sys.stdout.flush()
    error = getattr(sys.stdout, "lost", None)
    return None if error is None or error.errno == errno.EPIPE else error
