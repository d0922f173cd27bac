"""Figures of runs: convergence, and of a single run also timings, sample and fields. Local.

They need matplotlib.
"""

import io
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from nedhpc.errors import NotAStateError, UsageError
from nedhpc.files import series
from nedhpc.names import unknown
from nedhpc.postprocess import curves, fields
from nedhpc.postprocess.curves import Panel
from nedhpc.postprocess.sample_panel import sample_panel, training_points
from nedhpc.postprocess.solution import Solution
from nedhpc.problems.base import Problem

COLUMNS = 3
"""Number of panels in a row. More would be too small to read on a page."""
PANEL_SIZE = (3.7, 3.2)
"""Width and height of a panel, in inches."""
PIXELS = 120
"""Pixels of an inch."""
KINDS = ("convergence", "timings", "sample", "fields")
"""Kinds of panels, in their order."""


def plot(
    paths: Sequence[str | Path],
    output: str | Path,
    kinds: Collection[str] = KINDS,
    problem: "Problem | type[Problem] | None" = None,
) -> None:
    """Draw runs over one another, or one run with its timings, sample and fields.

    Args:
        paths: run folders. Of several, only the series are read, not the problems.
        output: image file; its suffix chooses the format.
        kinds: which of KINDS are drawn; of several runs only the convergence is.
        problem: as for Solution, for one run.

    Raises:
        UsageError: matplotlib is missing, a folder has no series, a kind is unknown, or the image
            cannot be written.
        NotAStateError: a folder holds no usable checkpoint.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("nedhpc plot needs matplotlib: pip install 'nedhpc[plot]'") from None
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(unknown(f"--show {kind}", "panel", kind, KINDS))
    paths = [Path(path).resolve() for path in paths]
    groups = _of_one(paths[0], kinds, problem) if len(paths) == 1 else [_of_several(paths)]
    rows = [group[k : k + COLUMNS] for group in groups for k in range(0, len(group), COLUMNS)]
    if not rows:
        raise UsageError(f"{paths[0]}: there is nothing to draw of {', '.join(kinds)}")
    num_columns = max(map(len, rows))
    # A Figure without pyplot needs no display and does not change the caller's settings.
    size = (PANEL_SIZE[0] * num_columns, PANEL_SIZE[1] * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    for row, axes in zip(rows, figure.subplots(len(rows), num_columns, squeeze=False), strict=True):
        for axis, draw in zip(axes, row, strict=False):
            draw(figure, axis)
        for axis in axes[len(row) :]:
            axis.set_axis_off()
    _save(figure, Path(output))


def _of_one(path: Path, kinds: Collection[str], problem) -> list[list[Panel]]:
    """The panels of one run: those of the run, and those of its fields, which begin a row."""
    solution = Solution(path, problem)
    made = {
        "convergence": lambda: curves.convergence({path.name: solution.series}),
        "timings": lambda: curves.timings(solution.series),
        "sample": lambda: [sample_panel(training_points(solution, problem), solution)],
        "fields": lambda: fields.panels(solution),
    }
    run = [panel for kind in KINDS[:-1] if kind in kinds for panel in made[kind]()]
    return [run, made["fields"]() if "fields" in kinds else []]


def _of_several(paths: Sequence[Path]) -> list[Panel]:
    """The panels of several runs, over one another."""
    found = {}
    for path, name in zip(paths, curves.names(paths), strict=True):
        try:
            found[name] = series.read(path / "series.h5")
        except NotAStateError as error:
            raise UsageError(f"{path}: there is no series.h5 to plot: {error}") from None
    return curves.convergence(found)


def _save(figure: Any, output: Path) -> None:
    """Write the image in the format that the suffix says."""
    formats = figure.canvas.get_supported_filetypes()
    suffix = output.suffix[1:].lower()
    if suffix not in formats:
        raise UsageError(
            f"cannot write {output}: unknown format {suffix!r}; allowed: {', '.join(formats)}"
        )
    image = io.BytesIO()
    figure.savefig(image, dpi=PIXELS, format=suffix, bbox_inches="tight")
    try:
        output.write_bytes(image.getvalue())
    except OSError as error:
        reason = f"cannot write {output}: {error.strerror}"
        raise UsageError(f"{reason}; give another place with -o") from None
