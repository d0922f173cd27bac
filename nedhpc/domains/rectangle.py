"""Intervals and rectangles: boxes whose sides have names of one word. Local."""

from collections.abc import Mapping, Sequence

from nedhpc.domains.box import Box
from nedhpc.errors import UsageError

WORDS = {"left": "x_low", "right": "x_high", "bottom": "y_low", "top": "y_high"}
"""The sides of a rectangle, and their names in Box."""


class Interval(Box):
    """The interval [low, high].

    Args:
        low: lower end.
        high: upper end.
        periodic: True if the solution repeats itself; then there is no boundary.
        sides: names of the ends, by "left" and "right".

    Raises:
        UsageError: as for Box.
    """

    def __init__(
        self,
        low: float,
        high: float,
        periodic: bool = False,
        sides: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__([low], [high], [0] if periodic else [], _sides("Interval", sides, 2))


class Rectangle(Box):
    """The rectangle [x_low, x_high] x [y_low, y_high].

        nedhpc.Rectangle([0, 0], [2, 1], sides=dict(left="inlet", right="outlet"))

    Args:
        low: lower left corner.
        high: upper right corner.
        periodic: numbers of the periodic coordinates, as for Box.
        sides: names of sides, by "left", "right", "bottom" and "top"; sides of one name are one
            part of the domain.

    Raises:
        UsageError: as for Box, or there are not two coordinates.
    """

    def __init__(
        self,
        low: Sequence[float],
        high: Sequence[float],
        periodic: Sequence[int] = (),
        sides: Mapping[str, str] | None = None,
    ) -> None:
        if len(low) != 2 or len(high) != 2:
            raise UsageError(f"Rectangle: needs two bounds below and above, not {low}, {high}")
        super().__init__(low, high, periodic, _sides("Rectangle", sides, 4))


def _sides(kind: str, sides: Mapping[str, str] | None, count: int) -> dict[str, str]:
    known = list(WORDS)[:count]
    for key in sides or {}:
        if key not in known:
            raise UsageError(f"{kind}: sides[{key!r}]: allowed are {', '.join(known)}")
    return {WORDS[key]: name for key, name in (sides or {}).items()}
