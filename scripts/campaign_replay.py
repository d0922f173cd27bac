"""What a power failure leaves of recorded file operations.

Only what was flushed is certain. A file's bytes are certain after fsync of the file; that a name
was made, renamed or deleted is certain after fsync of its folder. All else may be there, be lost,
or be there in another order.
"""

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

from campaign_library import Operation

MODES = ("all", "none", "some", "zeros")
"""What of the operations that were not flushed is on the disk: all, none, any of them; "zeros":
all names, and zeros in the place of bytes."""


@dataclass(slots=True)
class File:
    """A file's bytes now, and as of the last flush."""

    now: bytearray = field(default_factory=bytearray)
    flushed: bytes = b""
    writes: list = field(default_factory=list)
    """Operations since the last flush."""


@dataclass(slots=True)
class Folder:
    """A folder's names now, and as of the last flush."""

    now: dict = field(default_factory=dict)
    flushed: dict = field(default_factory=dict)
    changes: list = field(default_factory=list)
    """(name, new entry or None for deleted, ...) since the last flush; a rename is one change."""


class Disk:
    """A folder after the first operations of a trace.

    Args:
        root: the folder that exists, empty and flushed, before the first operation.
        operations: those that were made.
    """

    def __init__(self, root: str | Path, operations: list[Operation]):
        self.root = str(root)
        self.top = Folder()
        for operation in operations:
            getattr(self, "_" + operation.what)(operation)

    def _entry(self, path):
        """The entry of a path."""
        found = self.top
        for name in Path(os.path.relpath(path, self.root)).parts:
            found = found.now[name]
        return found

    def _place(self, path):
        """(folder, name) of a path."""
        return self._entry(os.path.dirname(path)), os.path.basename(path)

    def _change(self, folder, *changes):
        for name, entry in changes:
            folder.now.pop(name, None)
            if entry is not None:
                folder.now[name] = entry
        folder.changes.append(changes)

    def _create(self, operation):
        folder, name = self._place(operation.path)
        self._change(folder, (name, File()))

    def _mkdir(self, operation):
        folder, name = self._place(operation.path)
        self._change(folder, (name, Folder()))

    def _unlink(self, operation):
        folder, name = self._place(operation.path)
        self._change(folder, (name, None))

    def _rename(self, operation):
        folder, old = self._place(operation.path)
        target, new = self._place(operation.other)
        assert folder is target, "the product renames only inside a folder"
        self._change(folder, (new, folder.now[old]), (old, None))

    def _write(self, operation):
        file = self._entry(operation.path)
        apply(file.now, operation)
        file.writes.append(operation)

    _truncate = _write

    def _sync(self, operation):
        if operation.path == self.root or os.path.relpath(operation.path, self.root)[:2] == "..":
            entry = self.top
        else:
            entry = self._entry(operation.path)
        if isinstance(entry, File):
            entry.flushed, entry.writes = bytes(entry.now), []
        else:
            entry.flushed, entry.changes = dict(entry.now), []

    def fail(self, target: Path, mode: str, dice: random.Random) -> None:
        """Write what a power failure leaves into the folder `target`."""
        self._leave(self.top, target, mode, dice)

    def _leave(self, folder, target, mode, dice):
        target.mkdir(parents=True, exist_ok=True)
        names = dict(folder.flushed)
        for change in folder.changes:
            if mode in ("all", "zeros") or mode == "some" and dice.random() < 0.5:
                for name, entry in change:
                    names.pop(name, None)
                    if entry is not None:
                        names[name] = entry
        for name, entry in names.items():
            if isinstance(entry, Folder):
                self._leave(entry, target / name, mode, dice)
            else:
                (target / name).write_bytes(left_of(entry, mode, dice))


def apply(content: bytearray, operation: Operation) -> None:
    """Write or truncate in place."""
    if operation.what == "truncate":
        del content[operation.offset :]
        content.extend(bytes(operation.offset - len(content)))
        return
    end = operation.offset + len(operation.data)
    content.extend(bytes(max(0, end - len(content))))
    content[operation.offset : end] = operation.data


def left_of(file: File, mode: str, dice: random.Random) -> bytes:
    """A file's bytes after a power failure."""
    if mode == "all":
        return bytes(file.now)
    if mode == "none":
        return file.flushed
    if mode == "zeros":
        return file.flushed + bytes(max(0, len(file.now) - len(file.flushed)))
    left = bytearray(file.flushed)
    for operation in file.writes:
        if dice.random() < 0.5:
            apply(left, operation)
    return bytes(left)
