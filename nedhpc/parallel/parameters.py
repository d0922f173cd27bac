"""Where the parameters live: all P entries of a PETSc Vec on rank 0, a full tensor on every rank.

With all entries on rank 0, a norm is the same arithmetic for any number of ranks, and all ranks see
one accept / reject decision of PETSc.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from nedhpc.parallel.comm import broadcast


class Parameters:
    """The vector of all parameters: the network's theta, then the problem's coefficients.

    Args:
        comm: communicator of the run.
        num_network: number of the network's parameters.
        coefficients: names of the coefficients, in the problem's order.
        dtype: of the tensors.
        device: of this rank's tensors.
    """

    def __init__(
        self,
        comm,
        num_network: int,
        coefficients: Sequence[str],
        dtype: torch.dtype,
        device: torch.device | str,
    ):
        self.comm, self.num_network = comm, num_network
        self.coefficients = tuple(coefficients)
        self.dtype, self.device = dtype, device

    @property
    def num_parameters(self) -> int:
        """P, the coefficients included."""
        return self.num_network + len(self.coefficients)

    def join(self, theta_P: np.ndarray, coefficients: Mapping[str, float]) -> torch.Tensor:
        """The network's parameters and the coefficients as one tensor (P,) on the device. Local."""
        values = [coefficients[name] for name in self.coefficients]
        return self._tensor(np.concatenate([theta_P, values]))

    def split(self, parameters: torch.Tensor) -> tuple[np.ndarray, dict[str, float]]:
        """The inverse of `join`: theta as a float64 array and {coefficient: value}. Local."""
        values = parameters.double().cpu().numpy()
        theta_P, rest = values[: self.num_network].copy(), values[self.num_network :]
        return theta_P, dict(zip(self.coefficients, map(float, rest), strict=True))

    def create_vec(self):
        """A PETSc Vec for P parameters, all on rank 0. Collective on comm.

        The caller destroys it, on all ranks at once.
        """
        from nedhpc.parallel.petsc import PETSc

        P = self.num_parameters
        return PETSc.Vec().createMPI((P if self.comm.rank == 0 else 0, P), comm=self.comm)

    def load(self, vec) -> torch.Tensor:
        """The entries of a Vec as a tensor (P,) on every rank. Collective on comm."""
        values = np.empty(self.num_parameters)
        if self.comm.rank == 0:
            values[:] = vec.getArray(readonly=True)
        return self._tensor(broadcast(self.comm, values))

    def store(self, vec, parameters: torch.Tensor) -> None:
        """Put rank 0's tensor (P,) in a Vec. Collective on comm."""
        array = vec.getArray()
        if self.comm.rank == 0:
            array[:] = parameters.double().cpu().numpy()

    def _tensor(self, values):
        return torch.as_tensor(values, dtype=self.dtype, device=self.device)
