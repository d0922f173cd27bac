"""Regression: fit u(x) to a named function or to the user's file of inputs and targets."""

from collections.abc import Sequence
from math import pi
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import torch
from pydantic import Field

from nedhpc.domains.box import Box
from nedhpc.errors import UsageError
from nedhpc.problems.base import Problem, residual
from nedhpc.problems.data import DataSet, read, split

BOREHOLE = (
    ("radius", 0.05, 0.15),
    ("radius of influence", 100, 50_000),
    ("upper transmissivity", 63_070, 115_600),
    ("upper head", 990, 1110),
    ("lower transmissivity", 63.1, 116),
    ("lower head", 700, 820),
    ("length", 1120, 1680),
    ("conductivity", 9855, 12_045),
)
"""The eight inputs of the borehole function, with their ranges."""


def borehole(x):
    """Flow through a borehole, (N,), in 100 m^3 a year. Local.

    Reference: Harper and Gupta 1983; Surjanovic and Bingham's virtual library of simulation
    experiments.

    Args:
        x: the inputs of BOREHOLE, (N, 8), each scaled to [-1, 1].
    """
    r_w, r, T_u, H_u, T_l, H_l, L, K_w = (
        low + (high - low) * (x[:, i] + 1) / 2 for i, (_, low, high) in enumerate(BOREHOLE)
    )
    log = torch.log(r / r_w)
    return (
        0.02 * pi * T_u * (H_u - H_l) / (log * (1 + 2 * L * T_u / (log * r_w**2 * K_w) + T_u / T_l))
    )


SAMPLE_COPIES = 6
"""Copies of the sampled points and values that exist at the same time while they are made."""
FUNCTIONS = {
    "sinc": lambda x: torch.sinc(10 * x[:, 0]),
    "sine": lambda x: torch.sin(20 * pi * x[:, 0]),
    "step": lambda x: torch.sign(x[:, 0]),
    "gaussian": lambda x: torch.exp(-(x * x).sum(1)),
    "borehole": borehole,
}
"""Targets on [-1, 1]^dim; `sinc` is sin(10 pi x) / (10 pi x); `borehole` has dim = 8."""


class Regression(Problem):
    """min sum |u(x_q) - y_q|^2 / (2 N) on the point set "data".

    The targets are either the values of `function`, a name of FUNCTIONS, at `num_points` Sobol
    points of [-1, 1]^dim, or those of `file`, which `nedhpc.read_table` reads: text (.csv .dat .txt
    .tsv), .parquet, or arrays (.npz .npy .h5 .hdf5). The last `targets` columns are the targets;
    `targets` and `inputs` may also list columns by name. A share `held_out` of the rows, chosen by
    `split_seed`, is not trained on and measures the error. The share and the seed determine which
    rows are held out; their values do not. `dim` (1) and `num_points` (1000) belong to `function`;
    a file has its own.
    """

    def __init__(
        self,
        *,
        function: str = "",
        file: str = "",
        dim: int | None = None,
        num_points: Annotated[int, Field(ge=1)] | None = None,
        inputs: Sequence[str] = (),
        targets: int | str | list[str] = 1,
        separator: str = "",
        decimal: str = "",
        header: bool | None = None,
        missing: str = "refuse",
        held_out: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        split_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
    ):
        if bool(function) == bool(file):
            raise UsageError('problem: regression needs either function = "..." or file = "..."')
        self.function = None
        text: dict[str, Any] = {"separator": separator, "decimal": decimal, "header": header}
        others = {"inputs": inputs} | text if function else {"dim": dim, "num_points": num_points}
        unused = [f"problem.{key}" for key, value in others.items() if value not in (None, "", ())]
        if unused:
            raise UsageError(
                f"{', '.join(unused)}: not used with {'function' if function else 'file'} = ..., "
                "leave it out"
            )
        if function:
            self._sample(function, dim or 1, num_points or 1000, split_seed)
        else:
            x_ND, y_NM = read(Path(file), targets, inputs=inputs, missing=missing, **text)
            self.data = split(x_ND, y_NM, held_out, split_seed, file)
            low, high = self.data.x_ND.min(0), self.data.x_ND.max(0)
            if not (low < high).all():
                column = int(np.argmin(low < high))
                raise UsageError(f"{file}: input column {column} is constant; leave it out")
            self.domain = Box(low, high)
        count = self.data.y_NM.shape[1]
        self.outputs = ("u",) if count == 1 else tuple(f"u{i + 1}" for i in range(count))

    def _sample(self, function: str, dim: int, num_points: int, seed: int) -> None:
        """Values of a named function at Sobol points."""
        from scipy.stats import qmc  # slow to import, and rarely needed

        if function not in FUNCTIONS:
            raise UsageError(
                f"problem.function = {function!r} is unknown; allowed: {', '.join(FUNCTIONS)}"
            )
        if function == "borehole" and dim != len(BOREHOLE):
            raise UsageError(
                f"problem.dim = {dim}: function = 'borehole' has {len(BOREHOLE)} inputs"
            )
        needed, there = SAMPLE_COPIES * 8 * num_points * (dim + 1), psutil.virtual_memory().total
        if needed > there:
            raise UsageError(
                f"problem.num_points = {num_points}: the samples need {needed / 2**30:.0f} GiB and "
                f"this machine has {there / 2**30:.0f}; use fewer"
            )
        self.function = FUNCTIONS[function]
        self.domain = Box([-1.0] * dim, [1.0] * dim)
        # A power of two keeps scipy from warning about the balance of the points.
        count = 2 ** max(0, num_points - 1).bit_length()
        unit_ND = qmc.Sobol(dim, scramble=True, rng=seed).random(count)[:num_points]
        x, _ = self.domain.parts["interior"].points(unit_ND)
        y = self.function(torch.as_tensor(x)).numpy().reshape(num_points, -1)
        self.data = DataSet(x, y)

    @property
    def has_exact(self):
        return self.function is not None

    def exact(self, x):
        return self.function(x)

    @residual("data")
    def fit(self, j, y):
        return j.values - y
