"""Panels of a solution's fields. Local.

They are curves in one coordinate and images in two. If space has two dimensions and there is time,
they are images at some times. Each output has a panel of its values. If the problem knows the
solution, it also has one of the error and, for images, one of the exact values.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from nedhpc.postprocess.solution import Solution

NUM_CURVE, NUM_IMAGE = 1001, 129
"""Number of points along a coordinate."""
SLICES = (0.0, 0.5, 1.0)
"""Times at which a field in two space dimensions is shown, in units of the time interval."""
LEAST = 1e-16
"""Errors below this are rounding errors."""
Panel = Callable[[Any, Any], None]


def panels(solution: Solution) -> list[Panel]:
    """Panels of all outputs; none if the domain has more coordinates than a figure can show."""
    domain = solution.problem.domain
    has_time = solution.problem.coordinates[-1] == "t"
    if domain.dim == 1:
        return _curves(solution)
    if domain.dim == 2:
        return _images(solution, None)
    if domain.dim == 3 and has_time:
        start, end = domain.low[-1], domain.high[-1]
        times = [start + share * (end - start) for share in SLICES]
        return [panel for t in times for panel in _images(solution, t)]
    return []


def _curves(solution: Solution) -> list[Panel]:
    domain = solution.problem.domain
    x = np.linspace(domain.low[0], domain.high[0], NUM_CURVE)
    u, exact = solution(x), solution.exact(x)
    coordinate, found = solution.problem.coordinates[0], []
    for m, name in enumerate(solution.outputs):
        found.append(_values_curve(x, u[:, m], None if exact is None else exact[:, m], name))
        if exact is not None:
            found.append(_error_curve(x, np.abs(u[:, m] - exact[:, m]), name))
    return [_with_x_label(panel, coordinate) for panel in found]


def _with_x_label(panel: Panel, coordinate: str) -> Panel:
    def draw(figure, axis):
        panel(figure, axis)
        axis.set(xlabel=coordinate)

    return draw


def _values_curve(x, u, exact, name: str) -> Panel:
    def draw(figure, axis):
        axis.plot(x, u, label=name)
        if exact is not None:
            axis.plot(x, exact, "k:", label="exact")
        axis.set(title=name)
        axis.legend(fontsize=8)

    return draw


def _error_curve(x, error, name: str) -> Panel:
    def draw(figure, axis):
        axis.semilogy(x, np.maximum(error, LEAST))
        axis.set(title=f"|{name} - exact|")
        axis.set_ylim(max(LEAST, error.max() * 1e-6), None)

    return draw


def _images(solution: Solution, t: float | None) -> list[Panel]:
    """Images over the first two coordinates, at a time t if the domain has a third."""
    domain = solution.problem.domain
    axes = [np.linspace(domain.low[i], domain.high[i], NUM_IMAGE) for i in range(2)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    at = ""
    if t is not None:
        points, at = np.column_stack([points, np.full(len(points), t)]), f" at t = {t:.3g}"
    u, exact = solution(points), solution.exact(points)
    names, found = solution.problem.coordinates[:2], []
    for m, name in enumerate(solution.outputs):
        found.append(_image(axes, u[:, m], f"{name}{at}", names))
        if exact is not None and not np.isnan(exact[:, m]).all():
            error = u[:, m] - exact[:, m]
            found.append(_image(axes, exact[:, m], f"exact {name}{at}", names))
            found.append(_image(axes, error, f"{name} - exact{at}", names, is_signed=True))
    return found


def _image(axes, values, title: str, names, is_signed: bool = False) -> Panel:
    """An image in colours for colour-blind readers: viridis, or red and blue around zero."""
    limit = np.nanmax(np.abs(values)) if is_signed else None
    limits = {"vmin": -limit, "vmax": limit} if limit is not None else {}
    same_unit = "t" not in names  # space and time need not have one scale

    def draw(figure, axis):
        mesh = axis.pcolormesh(
            *axes,
            values.reshape(NUM_IMAGE, NUM_IMAGE).T,
            cmap="RdBu_r" if is_signed else "viridis",
            shading="nearest",
            **limits,
        )
        aspect = "equal" if same_unit else "auto"
        axis.set(xlabel=names[0], ylabel=names[1], title=title, aspect=aspect)
        figure.colorbar(mesh, ax=axis, shrink=0.85)

    return draw
