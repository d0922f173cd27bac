"""Figures of runs: convergence of all, and the field of one in one or two dimensions."""

import numpy as np

from nedhpc.errors import UsageError
from nedhpc.postprocess.solution import Solution


def plot(paths, output):
    """Energy and error against wall time;

    for a single run also the phases' seconds, field, reference and error field.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        raise UsageError("nedhpc plot needs matplotlib: pip install 'nedhpc[plot]'") from None
    runs = [Solution(path) for path in paths]
    panels = (
        [lambda figure, axis: timings(axis, runs[0].series), *field_panels(runs[0])]
        if len(runs) == 1
        else []
    )
    figure, axes = plt.subplots(
        1,
        1 + len(panels),
        figsize=(4.4 * (1 + len(panels)), 3.7),
        layout="constrained",
        squeeze=False,
    )
    convergence(axes[0, 0], runs, paths)
    for axis, draw in zip(axes[0, 1:], panels):
        draw(figure, axis)
    figure.savefig(output, dpi=100)
    plt.close(figure)


def convergence(axis, runs, paths):
    for k, (solution, path) in enumerate(zip(runs, paths)):
        columns, color, name = solution.series, f"C{k}", str(path).rstrip("/").rsplit("/", 1)[-1]
        if not columns:
            raise UsageError(f"{path}: there is no series.h5 to plot")
        label = f"{name}: " if len(runs) > 1 else ""
        if np.isfinite(columns["relative_l2"]).any():
            axis.semilogy(
                columns["wall_time"],
                columns["relative_l2"],
                color=color,
                label=f"{label}relative L2 error",
            )
        axis.semilogy(
            columns["wall_time"],
            columns["energy"],
            "--",
            color=color,
            alpha=0.6,
            label=f"{label}energy",
        )
    axis.set(xlabel="wall time [s]", title="convergence")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def timings(axis, columns):
    """Share of rank 0's time by phase."""
    seconds = {
        name.partition("/")[2]: float(np.sum(values))
        for name, values in columns.items()
        if name.startswith("seconds/")
    }
    axis.barh(list(seconds), list(seconds.values()))
    axis.invert_yaxis()
    axis.set(xlabel="seconds", title="where the time went")


def field_panels(solution):
    """Functions that draw u, u* and u - u* of the first output, where the domain has one or two
    dimensions.
    """
    domain = solution.problem.domain
    if domain.dim == 1:
        x = np.linspace(domain.low[0], domain.high[0], 1001)[:, None]
        u, exact = solution(x)[:, 0], solution.exact(x)

        def values(figure, axis):
            axis.plot(x, u, label="u")
            if exact is not None:
                axis.plot(x, exact[:, 0], "k:", label="exact")
            axis.set(xlabel="x", title="solution")
            axis.legend(fontsize=8)

        def error(figure, axis):
            axis.semilogy(x, np.abs(u - exact[:, 0]) + 1e-300)
            axis.set(xlabel="x", title="|u - exact|")
            axis.set_ylim(max(1e-16, np.abs(u - exact[:, 0]).max() * 1e-6), None)

        return [values] if exact is None else [values, error]
    if domain.dim != 2:
        return []
    n = 129
    axes = [np.linspace(domain.low[i], domain.high[i], n) for i in range(2)]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    u, exact = solution(x)[:, 0], solution.exact(x)

    def image(title, values, cmap, symmetric=False):
        def draw(figure, axis):
            limit = np.abs(values).max() if symmetric else None
            mesh = axis.pcolormesh(
                *axes,
                values.reshape(n, n).T,
                cmap=cmap,
                vmin=-limit if symmetric else None,
                vmax=limit,
                shading="nearest",
            )
            names = solution.problem.coordinates
            axis.set(xlabel=names[0], ylabel=names[1], title=title, aspect="equal")
            figure.colorbar(mesh, ax=axis, shrink=0.85)

        return draw

    panels = [image("u", u, "viridis")]
    if exact is not None:
        panels += [
            image("exact", exact[:, 0], "viridis"),
            image("u - exact", u - exact[:, 0], "RdBu_r", symmetric=True),
        ]
    return panels
