"""Names in a config: the classes that they stand for, and the message for an unknown name."""

import difflib
from collections.abc import Iterable


def subclasses_by_name(base: type) -> dict[str, type]:
    """{name: class} of all subclasses of `base`, direct or not, whose body sets `name`. Local."""
    found = {}
    for cls in base.__subclasses__():
        if "name" in vars(cls):
            found[cls.name] = cls
        found |= subclasses_by_name(cls)
    return found


def unknown(what: str, kind: str, given: object, allowed: Iterable[str]) -> str:
    """The message for an unknown name, with the nearest right one and all allowed ones. Local.

    Args:
        what: the config key, with its value if the value is wrong.
        kind: "key" or "value".
        given: the wrong name.
        allowed: the right names.
    """
    allowed = list(allowed)
    close = difflib.get_close_matches(str(given), allowed, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{what}: unknown {kind}{hint}; allowed: {', '.join(allowed)}"
