"""Figures of runs: convergence of all, timings and fields of one. Local; needs matplotlib."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nedhpc.errors import UsageError
from nedhpc.postprocess import fields
from nedhpc.postprocess.solution import Solution

COLUMNS = 3
"""Panels in a row: more would be too small to read on a page."""
PANEL_SIZE = (4.4, 3.7)
"""Inches."""
Panel = Callable[[Any, Any], None]
"""Draws in a matplotlib figure's axis: panel(figure, axis)."""


def plot(paths: Sequence[str | Path], output: str | Path) -> None:
    """Draw energy and error against wall time; for a single run also its timings and fields.

    Args:
        paths: run folders.
        output: image file; its suffix chooses the format.

    Raises:
        UsageError: matplotlib is missing, or a folder has no series.
        NotAStateError: a folder holds no usable checkpoint.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("nedhpc plot needs matplotlib: pip install 'nedhpc[plot]'") from None
    runs = [Solution(path) for path in paths]
    panels: list[Panel] = [lambda figure, axis: convergence(axis, runs, paths)]
    if len(runs) == 1:
        panels.append(lambda figure, axis: timings(axis, runs[0].series))
        panels += fields.panels(runs[0])
    num_columns = min(COLUMNS, len(panels))
    num_rows = -(-len(panels) // num_columns)
    # A Figure of its own needs no display and leaves the caller's matplotlib settings alone.
    size = (PANEL_SIZE[0] * num_columns, PANEL_SIZE[1] * num_rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for axis, draw in zip(axes, panels, strict=False):
        draw(figure, axis)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.savefig(output, dpi=100)


def convergence(axis: Any, runs: Sequence[Solution], paths: Sequence[str | Path]) -> None:
    """Energy and relative L2 error of each run against wall time."""
    for k, (solution, path) in enumerate(zip(runs, paths, strict=True)):
        columns = solution.series
        if not columns:
            raise UsageError(f"{path}: there is no series.h5 to plot")
        name = f"{Path(path).resolve().name}: " if len(runs) > 1 else ""
        style = {"color": f"C{k}"}
        if np.isfinite(columns["relative_l2"]).any():
            error = columns["relative_l2"]
            axis.semilogy(columns["wall_time"], error, label=f"{name}relative L2 error", **style)
        energy = columns["energy"]
        axis.semilogy(columns["wall_time"], energy, "--", label=f"{name}energy", alpha=0.6, **style)
    axis.set(xlabel="wall time [s]", title="convergence")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def timings(axis: Any, columns: dict[str, np.ndarray]) -> None:
    """Rank 0's seconds by phase."""
    prefix = "seconds/"
    phases = [name for name in columns if name.startswith(prefix)]
    axis.barh([name.removeprefix(prefix) for name in phases], [columns[p].sum() for p in phases])
    axis.invert_yaxis()
    axis.set(xlabel="seconds", title="where the time went")
