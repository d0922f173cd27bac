"""The library that disturbs and records file operations: compiled at use, loaded by LD_PRELOAD."""

import ctypes
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("campaign_files.c")
HOW = ("error", "short", "slow", "kill_before", "kill_after", "kill_amid", "error_amid")
"""Ways in which an operation goes wrong, in the order of the library's enum."""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """From the nth operation `op` on a path that contains `name`, `count` of them go wrong."""

    op: str = ""
    name: str = ""
    nth: int = 1
    count: int = 1
    """0: all from the nth."""
    error: int = 0
    """The errno of the operation; for op = "clock" the hours by which the clock jumps."""
    how: str = "error"

    def plan(self, root: Path, trace: Path | None = None) -> str:
        """The text that campaign_start in the library reads."""
        numbers = (self.nth, self.count, self.error, HOW.index(self.how))
        return "|".join(map(str, (root, trace or "", self.op, self.name, *numbers)))


def build(folder: Path) -> Path | None:
    """Compile the library in a folder; None if there is no gcc."""
    target = folder / "campaign_files.so"
    if shutil.which("gcc") is None:
        return None
    if not target.exists():
        command = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(target), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)
    return target


def start(plan: str) -> None:
    """Disturb and record the file operations of this process from now on."""
    ctypes.CDLL(None).campaign_start(ctypes.c_char_p(plan.encode()))


@dataclass(frozen=True, slots=True)
class Operation:
    """One recorded operation that changed something, or a flush ("sync")."""

    what: str
    path: str
    other: str
    offset: int
    data: bytes


def read_trace(path: Path) -> list[Operation]:
    """The operations of a recorded process, in their order."""
    found, content, at = [], path.read_bytes(), 0
    while at < len(content):
        end = content.index(b"\n", at)
        what, name, other, offset, length = content[at:end].decode().split("\t")
        at = end + 1 + int(length)
        found.append(Operation(what, name, other, int(offset), content[end + 1 : at]))
    return found
