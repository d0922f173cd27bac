"""Jets: the values and derivatives in x of u that an energy uses, by name and by channel. Local.

A jet tensor `j_NCM` holds, for N points and M outputs, C channels. A channel is a derivative,
given by its multi-index (a sorted tuple of coordinate numbers; the value is the empty one), or a
named sum of derivatives of the same order. Names are `values`, `u`, `u_x`, `u_xy`, `u_xxxx`,
`grad_u`, `lap_u` (sum of u_ii) and `bilap_u` (sum of u_iijj).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import torch

from nedhpc.errors import UsageError

MultiIndex = tuple[int, ...]


@dataclass(frozen=True)
class JetLayout:
    """The channels that a term needs, and the names under which it finds them."""

    derivatives: tuple[MultiIndex, ...]
    """Multi-indices by order, the value first.

    Each is there together with all that it contains, since the chain rule needs them.
    """
    sums: tuple[tuple[MultiIndex, ...], ...]
    """Sums of derivatives, by their members. These channels follow the derivatives.

    What a member contains is among the derivatives, but the member itself needs no channel.
    """
    entries: tuple[tuple[str, int | tuple[int, ...], int], ...]
    """(name, channel or channels, output) for each jet that the term named."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the jets, as the term uses them."""
        return tuple(name for name, _, _ in self.entries)

    @cached_property
    def num_channels(self) -> int:
        return len(self.derivatives) + len(self.sums)

    @cached_property
    def members(self) -> tuple[tuple[MultiIndex, ...], ...]:
        """By channel, the multi-indices whose sum it is."""
        return (*((alpha,) for alpha in self.derivatives), *self.sums)

    @cached_property
    def order(self) -> int:
        """The highest order of a derivative."""
        return max(len(alphas[0]) for alphas in self.members)

    @cached_property
    def named_channels(self) -> frozenset[int]:
        """The channels that the term named; a residual depends on no other."""
        named = set()
        for _, channel, _ in self.entries:
            named.update(channel if isinstance(channel, tuple) else (channel,))
        return frozenset(named)

    def view(self, j_NCM: torch.Tensor) -> "JetView":
        """The jets by name: `.u` has shape (N,), `.grad_u` (N, d), `.values` (N, M).

        Args:
            j_NCM: Jet tensor (N, C, M).
        """
        return JetView(self, j_NCM)


VALUES = JetLayout(((),), (), ())
"""The layout of values only."""


class JetView:
    """Jets of a tensor as attributes."""

    def __init__(self, layout: JetLayout, j_NCM: torch.Tensor):
        self._layout, self._j_NCM = layout, j_NCM
        self._entries = {name: (channel, output) for name, channel, output in layout.entries}

    @property
    def values(self) -> torch.Tensor:
        """All outputs, (N, M), if an output or `values` was declared."""
        if 0 not in self._layout.named_channels:
            self._refuse("values")
        return self._j_NCM[:, 0]

    def __getattr__(self, name: str) -> torch.Tensor:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._entries:
            self._refuse(name)
        channel, output = self._entries[name]
        return self._j_NCM[:, list(channel) if isinstance(channel, tuple) else channel, output]

    def _refuse(self, name):
        remedy = ", ".join(repr(jet) for jet in (*self._entries, name))
        raise UsageError(
            f"jet {name!r} was not declared (declared: {', '.join(self._entries) or 'none'}); "
            f"add it to the term's jets: jets=({remedy},)"
        )


def parse(names: Iterable[str], outputs: Sequence[str], coordinates: Sequence[str]) -> JetLayout:
    """The layout of the channels that the named jets need.

    Args:
        names: Names of jets; `values` stands for the values of all outputs.
        outputs: Names of the problem's outputs.
        coordinates: Names of the coordinates. Laplacian, bilaplacian and gradient leave out t.

    Raises:
        UsageError: A name is not that of a jet; the message shows the allowed forms.
    """
    names = [jet for name in names for jet in (outputs if name == "values" else (name,))]
    wanted = [(name, *_channels_of(name, outputs, coordinates)) for name in names]
    sums = {alphas for _, _, kinds in wanted for alphas in kinds if len(alphas) > 1}
    single = {alphas[0] for _, _, kinds in wanted for alphas in kinds if len(alphas) == 1}
    derivatives = {()}.union(*map(_contained, single))
    for alphas in sums:
        # The chain rule for a sum needs what its members contain, but not the members themselves.
        derivatives.update(beta for a in alphas for beta in _contained(a) if beta != a)
    derivatives = sorted(derivatives, key=lambda alpha: (len(alpha), alpha))
    sums = sorted(sums)
    place = {(alpha,): c for c, alpha in enumerate(derivatives)}
    place |= {alphas: c for c, alphas in enumerate(sums, len(derivatives))}
    entries = []
    for name, output, kinds in wanted:
        channels = tuple(place[alphas] for alphas in kinds)
        entries.append((name, channels if name.startswith("grad_") else channels[0], output))
    return JetLayout(tuple(derivatives), tuple(sums), tuple(entries))


def _contained(alpha):
    return {beta for size in range(len(alpha) + 1) for beta in combinations(alpha, size)}


def _channels_of(name, outputs, coordinates):
    """(output, channels) of a jet's name, each channel a tuple of multi-indices that are summed."""
    space = [i for i, x in enumerate(coordinates) if x != "t"]
    if name in outputs:
        return outputs.index(name), [((),)]
    sums = {
        "lap_": [tuple((i, i) for i in space)],
        "bilap_": [tuple(sorted(tuple(sorted((i, i, j, j))) for i in space for j in space))],
        "grad_": [((i,),) for i in space],
    }
    for prefix, channels in sums.items():
        if space and name.startswith(prefix) and name[len(prefix) :] in outputs:
            return outputs.index(name[len(prefix) :]), channels
    for output in sorted(outputs, key=len, reverse=True):
        if name.startswith(output + "_"):
            alpha = _letters(name[len(output) + 1 :], coordinates)
            if alpha:
                return outputs.index(output), [(tuple(sorted(alpha)),)]
    u, x, z = outputs[0], coordinates[0], coordinates[-1]
    raise UsageError(
        f"jet {name!r} is unknown; with outputs {', '.join(outputs)} and coordinates "
        f"{', '.join(coordinates)} a jet is e.g. {u}, {u}_{x}, {u}_{x}{z}, grad_{u}, lap_{u} or "
        f"bilap_{u}"
    )


def _letters(suffix, coordinates):
    alpha = []
    while suffix:
        longest_first = sorted(coordinates, key=len, reverse=True)
        match = next((x for x in longest_first if suffix.startswith(x)), None)
        if match is None:
            return None
        alpha.append(coordinates.index(match))
        suffix = suffix[len(match) :]
    return alpha
