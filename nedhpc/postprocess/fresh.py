"""The energy of a run on fresh points, which neither trained nor judged it. Local, without MPI."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nedhpc.files.checkpoint import State
from nedhpc.parallel.precision import float64_default
from nedhpc.plan import Plan
from nedhpc.postprocess.solution import Solution
from nedhpc.problems.base import Problem
from nedhpc.problems.integrals import sampled
from nedhpc.sampling.points import Sampler

SEED_SHIFT = 7919
"""Added to the run's seed, so that no point of the run is used."""


def fresh_energy(
    path: str | Path, num_points: int, problem: Problem | type[Problem] | None = None
) -> dict[str, Any]:
    """Energies on fresh points of each part, or of each part of each time window.

    Args:
        path: run folder or checkpoint.
        num_points: number of points of each part.
        problem: as for Solution.

    Returns:
        {"fresh_energy", "fresh_energy_terms", "fresh_balanced_energy", "fresh_points"}. Windows are
        averaged over their lengths.
    """
    solution = Solution(path, problem)
    state = solution.state
    with float64_default():
        plan = Plan(solution.config, problem)
        legs = [*_windows_before(state), state]
        found = [_energies(plan, leg, num_points) for leg in legs]
    windows = [leg.window or (0.0, 1.0) for leg in legs]
    lengths = [end - start for start, end in windows]
    share = [length / sum(lengths) for length in lengths]
    terms: dict[str, float] = {}
    for s, (by_term, _) in zip(share, found, strict=True):
        for name, E in by_term.items():
            terms[name] = terms.get(name, 0.0) + s * E
    return {
        "fresh_energy": sum(terms.values()),
        "fresh_energy_terms": terms,
        "fresh_balanced_energy": sum(s * E for s, (_, E) in zip(share, found, strict=True)),
        "fresh_points": num_points,
    }


def _windows_before(state: State) -> list[State]:
    """The states at the ends of the solved windows."""
    found = []
    for k, piece in enumerate(state.pieces):
        then = replace(
            state,
            theta_P=piece.theta_P,
            scaling=piece.scaling,
            window=(piece.start, piece.end),
            pieces=state.pieces[:k],
        )
        if state.reference_P is not None:
            then.reference_P = then.parameters
        found.append(then)
    return found


def _energies(plan: Plan, state: State, num_points: int) -> tuple[dict[str, float], float]:
    """(energy by term as written, balanced energy) of one window."""
    leg = plan.enter(state)
    seed = plan.config.run.seed + SEED_SHIFT
    counts = {
        on: count if on in plan.data or leg.domain.parts[on].dim == 0 else num_points
        for on, count in leg.counts.items()
    }
    normals = {term.on for term in sampled(leg.terms) if "n" in term.roles}
    sampler = Sampler(
        0, 1, leg.domain, plan.data, counts, "sobol", seed, "cpu", torch.float64, 0, normals
    )
    points = {
        on: replace(p, factors=leg.energy.factors(on, p)) for on, p in sampler.draw(0).items()
    }
    theta_P = torch.as_tensor(state.parameters)
    energy = leg.energy
    if energy.integrals:
        energy = energy.holding(energy.integrate(theta_P, points, slopes=False))
    with torch.no_grad():
        written_K = energy.as_written(theta_P, points)
        balanced_K, _ = energy.evaluate(theta_P, points)
    names = [term.name for term in leg.terms]
    return dict(zip(names, written_K.tolist(), strict=True)), float(balanced_K.sum())
