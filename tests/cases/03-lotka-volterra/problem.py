import torch

import nedhpc


class Lotka(nedhpc.Problem):
    """r' = 2 r - 0.04 r p, p' = 0.02 r p - 1.06 p, r(0) = 100, p(0) = 15, t in (0, end)."""

    outputs = ("r", "p")

    def __init__(self, *, end: float = 10.0, weight: float = 1.0):
        self.domain = nedhpc.SpaceTime([], [], end)
        self.terms = [
            nedhpc.Residual("ode", on="interior", jets=("r", "p", "r_t", "p_t")),
            nedhpc.Residual("start", on="initial", jets=("r", "p"), weight=weight),
        ]

    def ode(self, x, j, c):
        return torch.stack(
            [j.r_t - (2 * j.r - 0.04 * j.r * j.p), j.p_t - (0.02 * j.r * j.p - 1.06 * j.p)], 1
        )

    def start(self, x, j, c):
        return torch.stack([j.r - 100, j.p - 15], 1)
