"""PETSc options as text, and those of the environment. Local; no import of PETSc."""

import re
import shlex
from collections.abc import Mapping

from nedhpc.errors import UsageError

VALUE = re.compile(r"[\w.,+-]+")
"""A number, a switch or the name of a method; neither a path nor a viewer."""
ENVIRONMENT = re.compile(
    r"use_gpu_aware_mpi|log_view|memory_view|options_left|malloc(_debug|_dump|_test|_view)?"
    r"|no_signal_handler|skip_petscrc|device_enable|device_view|nox"
)
"""Options that PETSC_OPTIONS may hold. They concern the whole process, not the stepper."""


def parse_options(text: str) -> list[tuple[str, str | None]]:
    """[(name without its dash, value or None)] of PETSc options, quoted as in a shell.

    A word that starts with a dash and then a digit or a point is a number, hence a value.

    Raises:
        UsageError: a quote is not closed, or a value follows no option.
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
    return pairs


def check_environment(environment: Mapping[str, str]) -> None:
    """Refuse PETSc options of the environment that nedhpc would ignore or that may run code.

    Args:
        environment: environment variables.

    Raises:
        UsageError: naming the variable and the option.
    """
    if environment.get("PETSC_OPTIONS_YAML", "").strip():
        raise UsageError("the environment variable PETSC_OPTIONS_YAML is not supported; unset it")
    try:
        pairs = parse_options(environment.get("PETSC_OPTIONS", ""))
    except UsageError as error:
        raise UsageError(f"the environment variable PETSC_OPTIONS: {error}") from None
    for name, value in pairs:
        if not ENVIRONMENT.fullmatch(name.lower()) or not VALUE.fullmatch(value or "1"):
            option = f"-{name} {value or ''}".strip()
            raise UsageError(
                f"the environment variable PETSC_OPTIONS holds {option}, which is not supported; "
                "unset it; options of the stepper go after -- or into stepper.petsc_options"
            )
