"""Errors that the user can act on. Each says what, where, the likely cause and the remedy."""


class NedError(Exception):
    """An expected failure. It is the same on every rank and is printed once."""

    exit_code = 1
    """Exit code of the process."""


class UsageError(NedError):
    """The command line, the config, a problem file or a data file is not usable."""

    exit_code = 2


SHOWN_LINES, SHOWN_CHARACTERS = 50, 1000
"""Largest number of mistakes that a message lists, and of characters for each."""


def shortened(line: str) -> str:
    """The line without its middle, if it is long. Its end says what is wrong."""
    half = SHOWN_CHARACTERS // 2
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[:half]} ... {line[-half:]}"


class ConfigError(UsageError):
    """Everything that is wrong with a config, reported at once.

    Args:
        problems: one line for each mistake.
        source: the config's file, for the message; None if there is none.
    """

    def __init__(self, problems, source=None):
        self.problems = list(problems)
        where = f" in {source}" if source else ""
        count = len(self.problems)
        title = f"{count} error{'s' if count > 1 else ''}{where}:"
        lines = [shortened(line) for line in self.problems[:SHOWN_LINES]]
        lines += [f"and {count - SHOWN_LINES} more"] if count > SHOWN_LINES else []
        super().__init__("\n".join([title, *(f"  {line}" for line in lines)]))


class NonFiniteError(NedError):
    """NaN or infinity in an energy, a gradient or a state."""


class FailedStepError(NedError):
    """PETSc could not make a time step: its nonlinear solve failed, or its error control."""


class NotAStateError(UsageError):
    """A file is not a complete file of nedhpc in a schema that this version reads."""


class FutureSchemaError(NotAStateError):
    """A later nedhpc wrote the file."""


class StorageError(NedError):
    """A file cannot be written or read at present: full disk, quota, read-only or lost folder."""


class Errors:
    """Collects the ConfigErrors of several checks and raises them together at the end."""

    def __init__(self):
        self.problems: list[str] = []

    def __enter__(self):
        return self

    def catch(self, function, *args):
        """Return function(*args), or None if it raises.

        It is not called if one of its first three arguments is None, because the check that should
        have made this argument has failed.
        """
        if any(argument is None for argument in args[:3]):
            return None
        try:
            return function(*args)
        except ConfigError as error:
            self.problems += error.problems
        except UsageError as error:
            self.problems.append(str(error))
        return None

    def __exit__(self, kind, error, trace):
        if kind is None and self.problems:
            raise ConfigError(list(dict.fromkeys(self.problems)))
