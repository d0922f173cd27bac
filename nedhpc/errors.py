"""Errors that a person can act on: what, where, the likely cause, the remedy."""


class NedError(Exception):
    """An expected failure, raised alike on every rank and printed once;

    `exit_code` is the process's.
    """

    exit_code = 1


class UsageError(NedError):
    """The command line, the config, a problem file or a data file is not usable."""

    exit_code = 2


class ConfigError(UsageError):
    """All that is wrong with a config, reported at once."""

    def __init__(self, problems, source=None):
        self.problems = list(problems)
        where = f" in {source}" if source else ""
        count = len(self.problems)
        title = f"{count} error{'s' if count > 1 else ''}{where}:"
        super().__init__("\n".join([title, *(f"  {line}" for line in self.problems)]))


class NonFiniteError(NedError):
    """NaN or infinity in an energy, a gradient or a state."""


class NotAStateError(UsageError):
    """A file is not a checkpoint of a schema this version reads."""


class FutureSchemaError(NotAStateError):
    """A later nedhpc wrote the file."""


class StorageError(NedError):
    """The run folder takes no more: disk full, quota, read-only, deleted."""
