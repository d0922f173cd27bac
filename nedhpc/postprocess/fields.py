"""Panels of a solution's fields. Local.

They are curves in one coordinate and images in two. If space has two dimensions and there is time,
they are images at some times; if it has three, they are images at some heights, or with time at
half of the height. Each output has a panel of its values. If the problem knows the solution, it
also has one of the error and, for images, one of the exact values. Places outside the domain are
left blank.
"""

import numpy as np

from nedhpc.postprocess.curves import COLOURS, Panel
from nedhpc.postprocess.places import inside
from nedhpc.postprocess.solution import Solution

NUM_CURVE, NUM_IMAGE = 1001, 129
"""Number of points along a coordinate."""
TIMES, HEIGHTS = (0.0, 0.5, 1.0), (0.25, 0.5, 0.75)
"""Times and heights at which a field is shown, in units of the domain's intervals."""
LEAST = 1e-16
"""Errors below this are rounding errors."""


def panels(solution: Solution) -> list[Panel]:
    """Panels of all outputs; none if the domain has more coordinates than a figure can show."""
    domain = solution.problem.domain
    frames = _frames(solution)
    if domain.dim == 1:
        return [*(_space_time(frames) if len(frames) > 1 else []), *_curves(frames[-1])]
    chosen = [frames[k] for k in sorted({0, len(frames) // 2, len(frames) - 1})]
    return [p for each in chosen for fixed in _slices(solution) for p in _images(each, fixed)]


def _frames(solution: Solution) -> list[Solution]:
    """The solution at each time that is known of a march; else only itself."""
    return [solution.at(float(t)) for t in solution.every_time] or [solution]


def _space_time(frames: list[Solution]) -> list[Panel]:
    """Images over x and t of a march in one coordinate."""
    domain, outputs = frames[-1].problem.domain, frames[-1].outputs
    x = np.linspace(domain.low[0], domain.high[0], NUM_IMAGE)
    both = [_values(each, x[:, None]) for each in frames]
    axes, names = [x, np.array([each.state.time for each in frames])], ("x", "t")
    found = []
    for m, name in enumerate(outputs):
        u = np.stack([u[:, m] for u, _ in both], 1)
        found.append(_image(axes, u, name, names))
        if all(exact is not None for _, exact in both):
            error = u - np.stack([exact[:, m] for _, exact in both], 1)
            found.append(_image(axes, error, f"{name} - exact", names, is_signed=True))
    return found


def _slices(solution: Solution) -> list[tuple[float, ...]]:
    """The values of the coordinates after the first two, for each row of images."""
    domain, has_time = solution.problem.domain, solution.problem.coordinates[-1] == "t"
    shares = {2: [()], 3: [(s,) for s in (TIMES if has_time else HEIGHTS)]}.get(domain.dim, [])
    if domain.dim == 4 and has_time:
        shares = [(0.5, s) for s in TIMES]
    low, size = domain.low[2:], (domain.high - domain.low)[2:]
    return [tuple(low + np.array(share) * size) for share in shares]


def _values(solution: Solution, points: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """u and the exact solution, each (N, M); NaN outside the domain."""
    inside_N = inside(solution.problem.domain, points)
    u = np.full((len(points), len(solution.outputs)), np.nan)
    u[inside_N] = solution(points[inside_N])
    known = solution.exact(points[inside_N])
    if known is None:
        return u, None
    exact = np.full_like(u, np.nan)
    exact[inside_N] = known
    return u, exact


def _curves(solution: Solution) -> list[Panel]:
    domain = solution.problem.domain
    x = np.linspace(domain.low[0], domain.high[0], NUM_CURVE)
    u, exact = _values(solution, x[:, None])
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
        axis.plot(x, u, color=COLOURS[0], label=name)
        if exact is not None:
            axis.plot(x, exact, ":", color=COLOURS[1], linewidth=2.5, label="exact")
        axis.set(title=name)
        axis.legend(fontsize=8)

    return draw


def _error_curve(x, error, name: str) -> Panel:
    def draw(figure, axis):
        axis.semilogy(x, np.maximum(error, LEAST), color=COLOURS[0])
        axis.grid(alpha=0.3)
        axis.set(title=f"|{name} - exact|")
        axis.set_ylim(max(LEAST, np.nanmax(error) * 1e-6), None)

    return draw


def _images(solution: Solution, fixed: tuple[float, ...]) -> list[Panel]:
    """Images over the first two coordinates, at fixed values of the others."""
    domain = solution.problem.domain
    axes = [np.linspace(domain.low[i], domain.high[i], NUM_IMAGE) for i in range(2)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    points = np.column_stack([points, *(np.full(len(points), value) for value in fixed)])
    u, exact = _values(solution, points)
    names, found = solution.problem.coordinates[:2], []
    places = [*zip(solution.problem.coordinates[2:], fixed)]
    places += [("t", solution.state.time)] if solution.problem.is_march else []
    at = ", ".join(f"{x} = {v:.3g}" for x, v in places)
    at = f" at {at}" if at else ""
    for m, name in enumerate(solution.outputs):
        found.append(_image(axes, u[:, m], f"{name}{at}", names))
        if exact is not None and not np.isnan(exact[:, m]).all():
            error = u[:, m] - exact[:, m]
            found.append(_image(axes, exact[:, m], f"exact {name}{at}", names, shared=u[:, m]))
            found.append(_image(axes, error, f"{name} - exact{at}", names, is_signed=True))
    return found


def _image(axes, values, title: str, names, is_signed: bool = False, shared=None) -> Panel:
    """An image in colours for colour-blind readers: viridis, or red and blue around zero.

    An image has the colours of the values `shared`, if they are given, so that the two compare.
    """
    scale = values if shared is None else shared
    limit = np.nanmax(np.abs(values), initial=LEAST)
    limits = {"vmin": -limit, "vmax": limit}
    if not is_signed:
        limits = {"vmin": np.nanmin(scale), "vmax": np.nanmax(scale)}
    same_unit = "t" not in names  # space and time need not have one scale

    def draw(figure, axis):
        mesh = axis.pcolormesh(
            *axes,
            values.reshape(*map(len, axes)).T,
            cmap="RdBu_r" if is_signed else "viridis",
            shading="nearest",
            **limits,
        )
        aspect = "equal" if same_unit else "auto"
        axis.set(xlabel=names[0], ylabel=names[1], title=title, aspect=aspect)
        # The bar is as high as the image, if the axes have one scale.
        width, height = (float(np.ptp(each)) for each in axes)
        shrink = min(1.0, height / width) if same_unit else 1.0
        figure.colorbar(mesh, ax=axis, shrink=shrink, fraction=0.08, aspect=16 * shrink)

    return draw
