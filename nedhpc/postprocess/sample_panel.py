"""A panel of a domain's shape and of the points that a run trains on. Local, without MPI."""

from collections.abc import Mapping

import numpy as np
import torch

from nedhpc.domains.base import Domain
from nedhpc.plan import Plan
from nedhpc.postprocess.curves import COLOURS, Panel
from nedhpc.postprocess.places import Grid, inside
from nedhpc.postprocess.solution import Solution
from nedhpc.problems.base import Problem
from nedhpc.sampling.points import ADAPTED, Sampler

MOST_POINTS = 4000
"""Points of a part that are shown; of more, an even share."""
NUM_SHAPE = 257
"""Points along each coordinate at which it is known what belongs to the domain."""
MARKS = "o^sDvP*X"


def training_points(
    solution: Solution, problem: "Problem | type[Problem] | None" = None
) -> dict[str, np.ndarray]:
    """The points (N, D) of each part, or of the data, that the state of a solution trains on.

    Args:
        solution: the solution.
        problem: what the solution was loaded with.
    """
    state, config = solution.state, solution.config
    plan = Plan(config, problem).leg(state)
    sampler = Sampler(
        0,
        1,
        plan.domain,
        plan.data,
        plan.counts,
        config.sampling.rule,
        config.run.seed,
        "cpu",
        torch.float64,
        config.sampling.grow_draws,
    )
    chosen = state.selection and {ADAPTED: (state.selection["index"], state.selection["weight"])}
    found = sampler.draw(state.draw, chosen or None)
    return {on: points.x_ND.numpy() for on, points in found.items()}


def sample_panel(points: Mapping[str, np.ndarray], solution: Solution) -> Panel:
    """The points over the first two coordinates; of one coordinate, a line for each part.

    Args:
        points: what `training_points` returns.
        solution: the solution.
    """
    coordinates, domain = solution.problem.coordinates, solution.problem.domain

    def draw(figure, axis):
        if domain.dim == 2:
            _shape(axis, domain)
        for k, (on, x_ND) in enumerate(points.items()):
            shown = x_ND[:: max(1, len(x_ND) // MOST_POINTS)]
            y = shown[:, 1] if domain.dim > 1 else np.full(len(shown), k)
            label, colour = f"{on} ({len(x_ND)})", COLOURS[k % len(COLOURS)]
            size = 100 if domain.dim == 1 else 4 if len(shown) > 300 else 10
            mark = "|" if domain.dim == 1 else MARKS[k % len(MARKS)]
            width = 1 if domain.dim == 1 else 0
            axis.scatter(shown[:, 0], y, size, colour, marker=mark, label=label, linewidth=width)
        title = "sample" if domain.dim <= 2 else f"sample, seen over {', '.join(coordinates[:2])}"
        axis.set(xlabel=coordinates[0], title=title)
        if domain.dim == 1:
            axis.set_yticks([])
            axis.set_ylim(-1, len(points) + 1)
        else:
            is_space = "t" not in coordinates[:2]
            axis.set(ylabel=coordinates[1], aspect="equal" if is_space else "auto")
        axis.legend(fontsize=7, loc="upper right", framealpha=0.9, markerscale=1.5)

    return draw


def _shape(axis, domain: Domain) -> None:
    """Fill a domain in two coordinates in grey."""
    grid = Grid(domain, (NUM_SHAPE,))
    inside_N = inside(domain, grid[:]).reshape(grid.shape)
    axis.contourf(*grid.axes, inside_N.T, levels=[0.5, 1.5], colors=["0.88"])
