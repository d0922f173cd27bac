"""Where the equations are satisfied least: the term and the point of the largest residual."""

import numpy as np
import torch

from nedhpc.flows.energy import Energy
from nedhpc.flows.integrals import integrated
from nedhpc.sampling.points import Points


def worst(comm, energy: Energy, theta_P: torch.Tensor, points: dict[str, Points]) -> str:
    """The term and the point of the largest balanced residual, in words. Collective on comm.

    Args:
        comm: communicator.
        energy: an energy of residuals.
        theta_P: parameters, (P,).
        points: this rank's points with their factors.
    """
    best = (-1.0, "", ())
    energy = integrated(comm, energy, theta_P, points, slopes=False)
    with torch.no_grad():
        for piece in energy.pieces(points):
            if not len(piece.x_ND):
                continue
            size_N = energy.value(piece, theta_P).square().sum(1).sqrt().nan_to_num(nan=np.inf)
            row = int(size_N.argmax())
            if float(size_N[row]) > best[0]:
                best = (float(size_N[row]), piece.term.name, piece.x_ND[row].tolist())
    _, name, point = max(comm.allgather(best), key=lambda found: found[0])
    pairs = zip(energy.problem.coordinates, point, strict=True)
    return f"term {name!r} at " + ", ".join(f"{x} = {value:.4g}" for x, value in pairs)
