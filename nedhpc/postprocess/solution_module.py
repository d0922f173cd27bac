"""A solution as a torch module, for other programs and for torch.export. Local."""

import torch

from nedhpc.ansatz import jets


class SolutionModule(torch.nn.Module):
    """u(x) of a Solution: maps points (N, D) to (N, M), both float64; it is differentiable in x.

    Args:
        outputs: names of the M outputs.
        coordinates: names of the D coordinates.
        pieces: the ansatz and the parameters (P,) of each time window, the last one at the end.
        ends: the end of each window but the last, (K - 1,).
    """

    def __init__(self, outputs, coordinates, pieces, ends) -> None:
        super().__init__()
        self._layout = jets.parse(outputs, outputs, coordinates)
        self._ansaetze = [ansatz for ansatz, _ in pieces]
        parameters = (torch.nn.Parameter(torch.as_tensor(theta).clone()) for _, theta in pieces)
        self.theta = torch.nn.ParameterList(parameters)
        """The parameters of each window."""
        self._ends = [float(end) for end in ends]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """u at points x (N, D), float64, (N, M)."""
        *before, u_NM = [
            # By one point at a time, torch.export leaves the number of points open.
            torch.func.vmap(lambda x_D, a=ansatz, p=theta: self._values(a, p, x_D))(x)
            for ansatz, theta in zip(self._ansaetze, self.theta, strict=True)
        ]
        # A point belongs to the first window that ends at its time or later.
        for end, piece_NM in zip(reversed(self._ends), reversed(before), strict=True):
            u_NM = torch.where(x[:, -1:] <= end, piece_NM, u_NM)
        return u_NM

    def _values(self, ansatz, theta_P, x_D):
        return ansatz.jets(theta_P, x_D.unsqueeze(0), self._layout)[0, 0]
