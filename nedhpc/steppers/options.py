"""PETSc options as the user writes them, before PETSc sees them. Local; no import of PETSc."""

import itertools
import re
import shlex

from nedhpc.errors import UsageError

ELSEWHERE = {
    "ts_type": "stepper.type",
    "ts_time_step": "stepper.dt",
    "ts_dt": "stepper.dt",
}
"""{option: config key that sets the same}. The user must set the key instead."""
LATE = re.compile(r"(ts|snes|ksp|pc|mat)_(\w+_)?view(_\w+)?$|(\w+_)?mat_mffd_\w+$")
"""Viewers and differencing parameters: options that PETSc looks up only when it needs them.

TSSetFromOptions does not look them up, so they seem unused there.
"""

_numbers = itertools.count()


def parse_options(text: str) -> list[tuple[str, str | None]]:
    """[(name without its dash, value or None)] of PETSc options, quoted as in a shell.

    A word that starts with a dash and then a digit or a point is a number, hence a value.

    Raises:
        UsageError: a quote is not closed, a value follows no option, or the config has a key for
            what the option sets.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"PETSc options {text!r}: {error}") from None
    pairs = []
    for word in words:
        if word.startswith("-") and not word[1:2].isdigit() and word[1:2] != ".":
            pairs.append((word[1:], None))
        elif not pairs or pairs[-1][1] is not None:
            raise UsageError(
                f"PETSc options {text!r}: {word!r} is a value without an option; "
                "options start with '-'"
            )
        else:
            pairs[-1] = (pairs[-1][0], word)
    # PETSc does not distinguish upper and lower case in names.
    for name, _ in pairs:
        key = ELSEWHERE.get(name.lower())
        if key:
            raise UsageError(f"PETSc option -{name}: set {key} in the config instead")
    return pairs


def new_prefix() -> str:
    """An options prefix that no other TS of this process has.

    With it, runs in one process do not share options.
    """
    return f"ned{next(_numbers)}_"


def last_line(error: Exception) -> str:
    """The last line of a PETSc error, which says what is wrong. A stack of calls precedes it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else repr(error)
