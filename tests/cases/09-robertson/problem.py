import torch

import nedhpc


class Robertson(nedhpc.Problem):
    """y1' = -0.04 y1 + 1e4 y2 y3, y3' = 3e7 y2^2, y2' = -y1' - y3', y = (1, 0, 0) at t = 0."""

    outputs = ("a", "b", "c3")

    def __init__(self, *, end: float = 40.0, weight: float = 1.0):
        self.domain = nedhpc.SpaceTime([], [], end)
        self.terms = [
            nedhpc.Residual("ode", on="interior", jets=("a", "b", "c3", "a_t", "b_t", "c3_t")),
            nedhpc.Residual("start", on="initial", jets=("a", "b", "c3"), weight=weight),
        ]

    def ode(self, x, j, c):
        r1, r2, r3 = 0.04 * j.a, 1e4 * j.b * j.c3, 3e7 * j.b**2
        return torch.stack([j.a_t + r1 - r2, j.b_t - r1 + r2 + r3, j.c3_t - r3], 1)

    def start(self, x, j, c):
        return torch.stack([j.a - 1, j.b, j.c3], 1)
