"""Which PETSc options a stepper takes, before PETSc sees them. Local; no import of PETSc."""

import itertools
import re

from nedhpc.errors import UsageError
from nedhpc.parallel.petsc_options import VALUE, parse_options

ELSEWHERE = {
    "ts_type": "stepper.type",
    "ts_time_step": "stepper.dt",
    "ts_dt": "stepper.dt",
}
"""{option: config key that sets the same}. The user must set the key instead."""
SETTINGS = re.compile(
    r"ts_(rtol|atol|max_(steps|time|snes_failures|step_rejections|reject)|error_if_step_fails"
    r"|exact_final_time|(adapt|rk|ssp|theta|bdf|arkimex|rosw|pseudo)_\w+)"
    r"|snes_(type|[ars]tol|max_(it|funcs|fail|linear_solve_fail)|divergence_tolerance"
    r"|force_iteration|error_if_not_converged|mf(_operator|_version)?"
    r"|(lag|linesearch|ksp_ew|ngmres|qn)_\w+|ksp_ew)"
    r"|ksp_(type|[ar]tol|divtol|max_it|min_it|norm_type|pc_side|knoll|lag_norm"
    r"|initial_guess_nonzero|error_if_not_converged|check_norm_iteration|orthogonalization"
    r"|(orthogonalization|converged|[fl]?gmres|gcr|bcgsl|richardson|chebyshev)_\w+)"
    r"|mat_mffd_\w+"
)
"""Options that set a number, a switch or a method of the integrator and of its solvers.

An option that is not here is refused, because PETSc has options that import a module, run a
program or open a connection, and because a checkpoint's options apply when it is resumed.
"""
VIEWERS = re.compile(
    r"(ts|snes|ksp)_view|(ts|snes|ksp|ts_adapt|ts_pseudo|snes_linesearch)_monitor"
    r"|(snes|ksp)_monitor_short|ksp_monitor_(true_residual|singular_value)"
    r"|(ts|snes|ksp)_converged_reason"
)
"""Options that print, or write a text file."""
FOREIGN_CODE = ("python", "shell")
"""Types whose methods are code that the user would give to PETSc."""
NO_PRECONDITIONER = ("pc_type", "none")
VIEWER_VALUE = re.compile(r"(ascii)?(:([\w+-][\w ,.+-]*\.(txt|log))?(:\w*){0,2})?")
"""The screen, or a text file in the current folder: PETSc runs a shell for other names."""
LATE = re.compile(r"(ts|snes|ksp)_(view|converged_reason)|mat_mffd_\w+")
"""Options that PETSc looks up only when it needs them.

TSSetFromOptions does not look them up, so they seem unused there.
"""

_numbers = itertools.count()


def stepper_options(text: str) -> list[tuple[str, str | None]]:
    """The parsed PETSc options of a stepper.

    Raises:
        UsageError: they cannot be parsed, the config has a key for what an option sets, or an
            option or its value is not supported.
    """
    pairs = parse_options(text)
    for name, value in pairs:
        # PETSc does not distinguish upper and lower case in names.
        low, key = name.lower(), ELSEWHERE.get(name.lower())
        if key:
            raise UsageError(f"PETSc option -{name}: set {key} in the config instead")
        if VIEWERS.fullmatch(low):
            if not VIEWER_VALUE.fullmatch(value or ""):
                raise UsageError(
                    f"PETSc option -{name} {value}: a viewer prints (no value, or ascii) or writes "
                    "a text file in the current folder (ascii:NAME.txt); others are not supported"
                )
        elif low == NO_PRECONDITIONER[0] or SETTINGS.fullmatch(low):
            _check_value(name, value)
        else:
            raise UsageError(
                f"PETSc option -{name} is not supported; supported are -ts_, -snes_ and -ksp_ "
                "options that set a tolerance, a limit or a method, and those that print (_view, "
                "_monitor). See README for the list, or correct a typing error"
            )
    return pairs


def _check_value(name, value):
    """Refuse the values that name code or a file instead of a number or a method."""
    if name.lower() == NO_PRECONDITIONER[0]:
        wrong, needed = value != NO_PRECONDITIONER[1], "none, or leave the option out"
    else:
        is_code = "python" in name.lower() or (value or "").lower() in FOREIGN_CODE
        wrong = is_code or (value is not None and not VALUE.fullmatch(value))
        needed = "a number or the name of one of PETSc's own methods"
    if wrong:
        raise UsageError(f"PETSc option -{name} {value or ''}: not supported; needed is {needed}")


def new_prefix() -> str:
    """An options prefix that no other TS of this process has.

    With it, runs in one process do not share options.
    """
    return f"ned{next(_numbers)}_"


def last_line(error: Exception) -> str:
    """The last line of a PETSc error, which says what is wrong. A stack of calls precedes it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else repr(error)
