"""Where two parts of the boundary of a shape meet, in three or more dimensions. Local.

Points of one part walk along it towards the other one, as far as they are accepted: candidates
around each point are tried, and the distance in which they lie doubles after a success and halves
after a failure, as in evolution strategies (Rechenberg, 1973). All is deterministic.
"""

from collections.abc import Callable

import numpy as np

from nedhpc.domains.piece import Piece, even

SEEDS, SAMPLE = 32, 512
"""Points that walk, and points of the part from which they are chosen."""
CANDIDATES, FIRST, LAST, MAX_STEPS = 8, 0.1, 1e-10, 150
"""Candidates around each point, and how far away they are in the unit cube at first and at last."""

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Maps points (N, D), and the numbers (N,) of the walkers whose candidates they are, to (N,)."""


def seam(a: Piece, b: Piece, gap: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Points on two parts beside the places where they meet; None if they do not. Local.

    Args:
        a: a part.
        b: another part.
        gap: how near to the other part the points are, at most. A length.

    Returns:
        Points (N, D) of a and, row by row, of b, at most 4 gap away from each other.
    """
    for first, second in ((a, b), (b, a)):
        start_NK, goal_NK = _accepted(first), _accepted(second)
        start_NK = start_NK[:: max(1, len(start_NK) // SEEDS)]
        at_NK, away_N = _walk(first, start_NK, lambda x_ND, _, to=second: to.gap(x_ND), gap)
        at_NK = at_NK[away_N <= gap]
        if not len(at_NK):
            continue
        x_ND, place_ND = first.points(at_NK)[0], second.points(goal_NK)[0]
        nearest_N = ((x_ND[:, None] - place_ND) ** 2).sum(2).argmin(1)
        y_ND = second.points(_walk(second, goal_NK[nearest_N], _from(x_ND), 4 * gap)[0])[0]
        # Two parts of one surface have no gap between what they cover: walk back to the border.
        at_NK, away_N = _walk(first, at_NK, _from(y_ND), 4 * gap)
        near_N = away_N <= 4 * gap
        if near_N.any():
            pair = first.points(at_NK[near_N])[0], y_ND[near_N]
            return pair if first is a else (pair[1], pair[0])
    return None


def _from(goal_ND: np.ndarray) -> Distance:
    """The distance of each walker to its own goal."""
    return lambda x_ND, row_N: np.sqrt(((x_ND - goal_ND[row_N]) ** 2).sum(1))


def _accepted(part: Piece) -> np.ndarray:
    """Points of the unit cube that the part accepts, (N, K), evenly spread."""
    unit_NK = even(part.unit_dim, SAMPLE)
    return unit_NK[part.points(unit_NK)[1]]


def _walk(
    part: Piece,
    start_NK: np.ndarray,
    distance: Distance,
    enough: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Move points along a part until their distances are small enough, or do not fall any more.

    Args:
        part: the part.
        start_NK: points of the unit cube that it accepts.
        distance: what is to fall.
        enough: distance at which a walker stops.

    Returns:
        The points (N, K) of the unit cube at the end, and their distances (N,).
    """
    rng, unit_NK = np.random.default_rng(0), start_NK.copy()
    row_N, step_N = np.arange(len(unit_NK)), np.full(len(unit_NK), FIRST)
    away_N = distance(part.points(unit_NK)[0], row_N)
    for _ in range(MAX_STEPS):
        live_N = np.flatnonzero((away_N > enough) & (step_N > LAST))
        if not len(live_N):
            break
        row_N = np.repeat(live_N, CANDIDATES)
        shift_NK = rng.uniform(-1, 1, (len(row_N), unit_NK.shape[1])) * step_N[row_N, None]
        trial_NK = (unit_NK[row_N] + shift_NK).clip(0, 1)
        trial_ND, accepted_N = part.points(trial_NK)
        trial_N = np.where(accepted_N, distance(trial_ND, row_N), np.inf)
        best = trial_N.reshape(-1, CANDIDATES).argmin(1) + CANDIDATES * np.arange(len(live_N))
        is_nearer = trial_N[best] < away_N[live_N]
        step_N[live_N] *= np.where(is_nearer, 2.0, 0.5)
        moved, to = live_N[is_nearer], best[is_nearer]
        unit_NK[moved], away_N[moved] = trial_NK[to], trial_N[to]
    return unit_NK, away_N
