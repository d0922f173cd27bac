"""Integrals over the points of all ranks, for the energy of one rank. Collective.

An integral is a sum over points, so it needs one reduction; with the derivatives it is one of
I (1 + P) numbers. The energy that holds the sums is local again: its rows have the part
dr/dI dI/dtheta, so that the rows of all ranks together are the Jacobian of the residual.
"""

import torch

from nedhpc.flows.energy import Energy
from nedhpc.parallel.comm import total
from nedhpc.sampling.points import Points


def integrated(
    comm, energy: Energy, theta_P: torch.Tensor, points: dict[str, Points], slopes: bool = True
) -> Energy:
    """The energy with the values of its integrals at theta. Collective on comm.

    Without integrals it is the energy itself, and nothing is communicated.

    Args:
        comm: communicator of the ranks that share the points.
        energy: the energy.
        theta_P: parameters, (P,), the same on every rank.
        points: this rank's share of each part.
        slopes: False if no rows and no gradient will be asked for.
    """
    if not energy.integrals:
        return energy
    sums_IP = energy.integrate(theta_P, points, slopes)
    shape = sums_IP.shape
    sums = total(comm, sums_IP.cpu().numpy().ravel()).reshape(shape)
    return energy.holding(torch.as_tensor(sums, device=theta_P.device))
