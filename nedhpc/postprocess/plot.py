"""Figures of runs: convergence, and timings and fields of a single run. Local.

They need matplotlib.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nedhpc.errors import UsageError
from nedhpc.postprocess import fields
from nedhpc.postprocess.solution import Solution

COLUMNS = 3
"""Number of panels in a row. More would be too small to read on a page."""
PANEL_SIZE = (4.4, 3.7)
"""Width and height of a panel, in inches."""
Panel = Callable[[Any, Any], None]
"""A function (figure, axis) that draws in an axis of a matplotlib figure."""


def plot(paths: Sequence[str | Path], output: str | Path) -> None:
    """Draw energy and error against wall time; for a single run also its timings and fields.

    Args:
        paths: run folders.
        output: image file; its suffix chooses the format.

    Raises:
        UsageError: matplotlib is missing, a folder has no series, or the image cannot be written.
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
    # A Figure without pyplot needs no display and does not change the caller's settings.
    size = (PANEL_SIZE[0] * num_columns, PANEL_SIZE[1] * num_rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for axis, draw in zip(axes, panels, strict=False):
        draw(figure, axis)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    _save(figure, Path(output))


def _save(figure: Any, output: Path) -> None:
    """Write the image in the format that the suffix says."""
    formats = figure.canvas.get_supported_filetypes()
    suffix = output.suffix[1:].lower()
    if suffix not in formats:
        raise UsageError(
            f"cannot write {output}: unknown format {suffix!r}; allowed: {', '.join(formats)}"
        )
    image = io.BytesIO()
    figure.savefig(image, dpi=100, format=suffix)
    try:
        output.write_bytes(image.getvalue())
    except OSError as error:
        reason = f"cannot write {output}: {error.strerror}"
        raise UsageError(f"{reason}; give another place with -o") from None


def convergence(axis: Any, runs: Sequence[Solution], paths: Sequence[str | Path]) -> None:
    """Draw energy and relative L2 error of each run against wall time.

    Raises:
        UsageError: a run has no series.
    """
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
        if "held_out_energy" in columns:
            held_out, label = columns["held_out_energy"], f"{name}energy on held-out points"
            axis.semilogy(columns["wall_time"], held_out, ":", label=label, alpha=0.6, **style)
    axis.set(xlabel="wall time [s]", title="convergence")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def timings(axis: Any, columns: dict[str, np.ndarray]) -> None:
    """Draw rank 0's seconds by phase."""
    prefix = "seconds/"
    phases = [name for name in columns if name.startswith(prefix)]
    axis.barh([name.removeprefix(prefix) for name in phases], [columns[p].sum() for p in phases])
    axis.invert_yaxis()
    axis.set(xlabel="seconds", title="where the time went")
