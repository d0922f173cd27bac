"""A solution in pieces: one network for each time window, all of the same shape. Local."""

import copy
from collections.abc import Iterable

import numpy as np
import torch

from nedhpc.ansatz.jets import JetLayout
from nedhpc.ansatz.scaling import Scaling


class Pieces:
    """The windows that are solved, followed by the ansatz that is evolved now.

    A point belongs to the first window that ends at its time or later, and to the present ansatz
    if there is none.

    Args:
        ansatz: the present ansatz; its scaling may change.
        solved: (end of the window, parameters (P,), scaling) for each solved window, in order.
    """

    def __init__(self, ansatz, solved: Iterable[tuple[float, np.ndarray, Scaling]] = ()):
        self.ansatz, self.ends = ansatz, []
        self.solved = []
        """The ansatz and the parameters of each solved window, in order."""
        for end, theta_P, scaling in solved:
            piece = copy.copy(ansatz)
            piece.scaling = scaling
            self.ends.append(end)
            self.solved.append((piece, torch.as_tensor(theta_P)))

    def jets(self, theta_P: torch.Tensor, x_ND: torch.Tensor, layout: JetLayout) -> torch.Tensor:
        """Jets (N, C, M) of the whole solution.

        Args:
            theta_P: parameters of the present ansatz, (P,).
            x_ND: points; with windows their last coordinate is the time.
            layout: the channels.
        """
        if not self.solved:
            return self.ansatz.jets(theta_P, x_ND, layout)
        ends = torch.as_tensor(self.ends, dtype=x_ND.dtype, device=x_ND.device)
        window_N = torch.searchsorted(ends, x_ND[:, -1].contiguous())
        all_pieces = [*self.solved, (self.ansatz, theta_P)]
        j_NCM = x_ND.new_empty(len(x_ND), layout.num_channels, self.ansatz.num_outputs)
        for number, (piece, theta) in enumerate(all_pieces):
            here_N = window_N == number
            if here_N.any():
                j_NCM[here_N] = piece.jets(theta.to(x_ND), x_ND[here_N], layout)
        return j_NCM

    def last(self, x_ND: torch.Tensor, layout: JetLayout) -> torch.Tensor:
        """Jets (N, C, M) of the last solved window, continued to any time."""
        piece, theta_P = self.solved[-1]
        with torch.no_grad():
            return piece.jets(theta_P.to(x_ND), x_ND, layout)

    @property
    def last_scaling(self) -> Scaling:
        """The scaling of the last solved window."""
        return self.solved[-1][0].scaling
