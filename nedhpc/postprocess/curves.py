"""Panels of a run's series: energies and error against time and steps, and timings. Local."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Panel = Callable[[Any, Any], None]
"""A function (figure, axis) that draws in an axis of a matplotlib figure."""
Columns = Mapping[str, np.ndarray]
"""A series by dataset name."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000")
"""Colours that colour-blind readers tell apart (Okabe and Ito)."""
AXES = {"wall_time": "wall time [s]", "step": "steps"}
"""Columns against which energies and errors are drawn, with their labels."""
ROUNDING = 1e-6
"""An energy that is negative by a smaller share of its largest value counts as zero."""
QUANTITIES = (
    ("relative_l2", "relative L2 error", "-", COLOURS[0]),
    ("energy", "energy", "--", COLOURS[1]),
    ("held_out_energy", "energy on held-out points", ":", COLOURS[6]),
)
"""Column, label, style of line, and colour if there is one run."""


def convergence(runs: Mapping[str, Columns]) -> list[Panel]:
    """Panels of the error and of the energies of runs against AXES; none without a series.

    Args:
        runs: the series of each run by its name.
    """
    runs = {name: columns for name, columns in runs.items() if columns}
    if not runs:
        return []
    panels = [_against(runs, x) for x in AXES]
    signed = {
        n: c for n, c in runs.items() if not (c["energy"][np.isfinite(c["energy"])] > 0).all()
    }
    return [*panels, _signed(signed)] if signed else panels


def _is_signed(energy: np.ndarray) -> bool:
    """True if an energy becomes negative by more than rounding."""
    return bool((energy < -ROUNDING * np.nanmax(np.abs(energy), initial=0)).any())


def _against(runs: Mapping[str, Columns], x: str) -> Panel:
    """Error and energies on a logarithmic axis."""

    def draw(figure, axis):
        for k, columns in enumerate(runs.values()):
            for name, label, style, colour in QUANTITIES:
                values = columns.get(name, np.empty(0))
                if not (values > 0).any():
                    continue
                own = {"color": colour if len(runs) == 1 else COLOURS[k % len(COLOURS)]}
                own |= {"label": label} if len(runs) == 1 else {}
                values = np.where(values > 0, values, np.nan)
                axis.semilogy(columns[x], values, style, linewidth=1.6, **own)
        axis.set(xlabel=AXES[x], title="convergence")
        axis.grid(alpha=0.3)
        _legend(axis, runs)

    return draw


def _legend(axis, runs: Mapping[str, Columns]) -> None:
    """Quantities by their lines; of several runs also the runs by their colours."""
    from matplotlib.lines import Line2D

    if len(runs) == 1:
        axis.legend(fontsize=8)
        return
    lines = [
        Line2D([], [], color=COLOURS[k % len(COLOURS)], label=name) for k, name in enumerate(runs)
    ]
    for column, label, style, _ in QUANTITIES:
        if any((columns.get(column, np.empty(0)) > 0).any() for columns in runs.values()):
            lines.append(Line2D([], [], color="gray", linestyle=style, label=label))
    axis.legend(handles=lines, fontsize=7)


def _signed(runs: Mapping[str, Columns]) -> Panel:
    """Energies that become negative, on a linear axis."""

    def draw(figure, axis):
        for k, (name, columns) in enumerate(runs.items()):
            axis.plot(columns["step"], columns["energy"], color=COLOURS[k % 7], label=name)
        axis.set(xlabel=AXES["step"], title="energy")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)

    return draw


def timings(columns: Columns) -> list[Panel]:
    """A panel of rank 0's seconds by phase; none without a series."""
    prefix = "seconds/"
    phases = [name for name in columns if name.startswith(prefix)]

    def draw(figure, axis):
        seconds = [float(np.nansum(columns[phase])) for phase in phases]
        bars = axis.barh([p.removeprefix(prefix) for p in phases], seconds, color=COLOURS[4])
        shares = np.array(seconds) / max(sum(seconds), 1e-300)
        axis.bar_label(bars, [f"{share:.0%}" for share in shares], padding=3, fontsize=9)
        axis.margins(x=0.25)
        axis.invert_yaxis()
        axis.set(xlabel="time of rank 0 [s]", title="where the time went")

    return [draw] if phases else []


def names(paths: Sequence) -> list[str]:
    """The last parts of paths, as many as tell them apart."""
    parts = [path.parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        found = ["/".join(each[-count:]) for each in parts]
        if len(set(found)) == len(set(parts)):
            break
    return found
