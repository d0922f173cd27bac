"""The parameters: a PETSc Vec with all P entries on rank 0, and a full tensor on every rank.

Since all entries are on rank 0, PETSc computes a norm in the same order for any number of ranks,
and all ranks accept or reject the same steps.
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
        dtype: dtype of the tensors.
        device: device of this rank's tensors.
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
        """P, including the coefficients."""
        return self.num_network + len(self.coefficients)

    def join(self, theta_P: np.ndarray, coefficients: Mapping[str, float]) -> torch.Tensor:
        """The network's parameters and the coefficients as one tensor (P,) on the device. Local."""
        values = [coefficients[name] for name in self.coefficients]
        return self.tensor(np.concatenate([theta_P, values]))

    def split(self, parameters: torch.Tensor) -> tuple[np.ndarray, dict[str, float]]:
        """The inverse of `join`: theta as a float64 array and {coefficient: value}. Local."""
        values = parameters.double().cpu().numpy()
        theta_P, rest = values[: self.num_network].copy(), values[self.num_network :]
        return theta_P, dict(zip(self.coefficients, map(float, rest), strict=True))

    def create_vec(self):
        """A PETSc Vec for P parameters, all on rank 0. Collective on comm.

        The caller destroys it, which is collective too.
        """
        from nedhpc.parallel.petsc import PETSc

        P = self.num_parameters
        return PETSc.Vec().createMPI((P if self.comm.rank == 0 else 0, P), comm=self.comm)

    def load(self, vec) -> torch.Tensor:
        """The entries of a Vec as a tensor (P,) on every rank. Collective on comm."""
        values = np.empty(self.num_parameters)
        if self.comm.rank == 0:
            values[:] = vec.getArray(readonly=True)
        return self.tensor(broadcast(self.comm, values))

    def store(self, vec, parameters: torch.Tensor) -> None:
        """Copy rank 0's tensor (P,) into a Vec. Collective on comm."""
        array = vec.getArray()
        if self.comm.rank == 0:
            array[:] = parameters.double().cpu().numpy()

    def tensor(self, values: np.ndarray) -> torch.Tensor:
        """Values (P,) with the dtype and on the device of this rank's tensors. Local."""
        return torch.as_tensor(values, dtype=self.dtype, device=self.device)
