"""Jets: the values and derivatives in x of u that an energy uses, by name and by channel.

A jet tensor `j_NCM` holds, for N points and M outputs, C channels: the value, first derivatives, and
second-order channels, each a sum of second derivatives (one pair for `u_xy`, d pairs for `lap_u`).
Names are multi-indices: `u`, `u_x`, `u_xy`, `lap_u`, `grad_u`. Everything here is local to a rank.
"""

from dataclasses import dataclass
from types import SimpleNamespace

from nedhpc.errors import UsageError

MAX_ORDER = 2


@dataclass(frozen=True, slots=True)
class JetLayout:
    """Which channels a term needs and under which name it finds them."""

    first: tuple[int, ...]
    """Coordinates whose first derivative is a channel; they follow the value's channel 0."""
    second: tuple[tuple[tuple[int, int], ...], ...]
    """Sums of second derivatives, each a tuple of coordinate pairs; they follow the first derivatives."""
    entries: tuple[tuple[str, int | tuple[int, ...], int], ...]
    """(name, channel or channels, output) for each jet the term named."""

    @property
    def num_channels(self):
        return 1 + len(self.first) + len(self.second)

    @property
    def named_channels(self):
        """Channels that the term named; a residual depends on no other."""
        return {
            c
            for _, channel, _ in self.entries
            for c in (channel if isinstance(channel, tuple) else (channel,))
        }

    def view(self, j_NCM):
        """The jets by name: `.u` has shape (N,), `.grad_u` has shape (N, d)."""
        return SimpleNamespace(
            **{
                name: j_NCM[:, channel, output]
                if isinstance(channel, int)
                else j_NCM[:, list(channel), output]
                for name, channel, output in self.entries
            }
        )


def parse(names, outputs, coordinates):
    """The channel layout for jets `names` of a problem with the given outputs and coordinate names.

    Raises UsageError for a name that is no jet, with the allowed forms.
    """
    wanted = [(name, *_multi_indices(name, outputs, coordinates)) for name in names]
    second = sorted({tuple(index) for _, kind, _, index in wanted if kind == "second"})
    # The chain rule for a second derivative needs the first derivatives of its coordinates.
    first = sorted(
        {i for _, kind, _, index in wanted if kind == "first" for i in index}
        | {i for pairs in second for pair in pairs for i in pair}
    )
    entries = []
    for name, kind, output, index in wanted:
        if kind == "value":
            channel = 0
        elif kind == "first":
            channels = tuple(1 + first.index(i) for i in index)
            channel = channels if name.startswith("grad_") else channels[0]
        else:
            channel = 1 + len(first) + second.index(tuple(index))
        entries.append((name, channel, output))
    return JetLayout(tuple(first), tuple(second), tuple(entries))


def _multi_indices(name, outputs, coordinates):
    """(kind, output, indices) of one jet name; the Laplacian and the gradient leave out the time t."""
    space = [i for i, x in enumerate(coordinates) if x != "t"]
    if name in outputs:
        return "value", outputs.index(name), ()
    for prefix, kind, index in (
        ("lap_", "second", [(i, i) for i in space]),
        ("grad_", "first", space),
    ):
        if name.startswith(prefix) and name[len(prefix) :] in outputs:
            return kind, outputs.index(name[len(prefix) :]), index
    for output in sorted(outputs, key=len, reverse=True):
        if name.startswith(output + "_"):
            index = _letters(name[len(output) + 1 :], coordinates)
            if index and len(index) <= MAX_ORDER:
                if len(index) == 1:
                    return "first", outputs.index(output), index
                return "second", outputs.index(output), [tuple(sorted(index))]
            if index:
                raise UsageError(
                    f"jet {name!r} is of order {len(index)}; derivatives up to order {MAX_ORDER} are available"
                )
    raise UsageError(
        f"jet {name!r} is unknown; with outputs {', '.join(outputs)} and coordinates {', '.join(coordinates)} "
        f"a jet is e.g. {outputs[0]}, {outputs[0]}_{coordinates[0]}, "
        f"{outputs[0]}_{coordinates[0]}{coordinates[-1]}, grad_{outputs[0]} or lap_{outputs[0]}"
    )


def _letters(suffix, coordinates):
    index = []
    while suffix:
        match = next(
            (x for x in sorted(coordinates, key=len, reverse=True) if suffix.startswith(x)), None
        )
        if match is None:
            return None
        index.append(coordinates.index(match))
        suffix = suffix[len(match) :]
    return index
