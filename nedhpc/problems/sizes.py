"""The size of each output, found from what the terms ask of it. Local, the same on every rank.

At u = 0 a Newton step for one component r of a condition gives the value -r / (dr/du) that this
condition asks of u, or the slope that a flux condition asks. The mean of these values is the offset
of the output, and their spread is its size. An equation in the interior gives a size too: that of
the smallest jets with which its linearisation at u = offset vanishes.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from nedhpc.ansatz.jets import MultiIndex
from nedhpc.domains.base import Domain
from nedhpc.errors import UsageError
from nedhpc.problems.bound import BoundTerm, num_components
from nedhpc.problems.data import DataSet
from nedhpc.problems.dry_run import probe_points
from nedhpc.problems.terms import gradients
from nedhpc.user_calls import called

NUM_PROBES = 256
"""Number of points of each part at which the terms are asked."""
NEGLIGIBLE = 1e-8
"""A spread below this share of the mean is rounding."""


Channel = tuple[MultiIndex, ...]
"""The multi-indices whose derivatives a channel of jets sums."""


def unit_jets(channels: Sequence[Channel], half_D: np.ndarray, size_M: np.ndarray) -> Tensor:
    """Size (C, M) of each jet of u if all jets of v(xi) = (u - offset) / size are of size one.

    Args:
        channels: as JetLayout.members.
        half_D: half the range of each coordinate.
        size_M: sizes of the outputs.
    """
    squares = [
        sum(float(np.prod(1 / half_D[list(alpha)])) ** 2 for alpha in members)
        for members in channels
    ]
    return torch.as_tensor(np.sqrt(squares)[:, None] * size_M)


class Probe:
    """The values of a term and their derivatives in the jets, at points of its part.

    Args:
        term: a bound term.
        domain: the domain, or a window of it.
        data: the data sets by name, or None.
        coefficients: their values, and those of the term's integrals; missing ones are 0.
        x_ND: points of the part; default: some that are spread over it.
    """

    def __init__(
        self,
        term: BoundTerm,
        domain: Domain,
        data: Mapping[str, DataSet] | None,
        coefficients: Iterable[float] = (),
        x_ND: np.ndarray | None = None,
    ):
        self.term, self.y_NM, self.n_ND = term, None, None
        if x_ND is not None:
            self.x_ND = torch.as_tensor(x_ND)
        elif data and term.on in data:
            x, y = data[term.on].x_ND, data[term.on].y_NM
            rows = np.linspace(0, len(x) - 1, min(len(x), 4096)).astype(int)
            self.x_ND, self.y_NM = torch.as_tensor(x[rows]), torch.as_tensor(y[rows])
        else:
            part = domain.parts[term.on]
            count = part.num_points or NUM_PROBES
            rng = np.random.default_rng(0)
            self.x_ND = torch.as_tensor(
                probe_points(part, rng, count) if part.dim else part.grid(count, 0, count)
            )
        if "n" in term.roles:
            self.n_ND = domain.parts[term.on].normal(self.x_ND)
        c = list(coefficients)
        c += [0.0] * (len(term.coefficients) + num_components(term.integrals) - len(c))
        self.c_NQ = torch.as_tensor(c, dtype=torch.float64).expand(len(self.x_ND), -1)

    def constant(self, offset_M: np.ndarray) -> Tensor:
        """The jets (N, C, M) of a constant u."""
        j_NCM = torch.zeros(len(self.x_ND), self.term.layout.num_channels, len(offset_M))
        j_NCM[:, 0] = torch.as_tensor(offset_M)
        return j_NCM

    def linearised(self, j_NCM: Tensor) -> tuple[Tensor, Tensor]:
        """Residual r (N, K) and dr/dj (K, N, C, M) at given jets."""
        j, c = j_NCM.clone().requires_grad_(), self.c_NQ.clone().requires_grad_()
        with torch.enable_grad():
            what, points = f"term {self.term.name!r}: its method", (self.x_ND, j, c)
            value = called(what, self.term.value, *points, self.y_NM, self.n_ND)
        return value.detach(), torch.stack([seed for seed, _ in gradients(value, j, c)])


def output_sizes(
    terms: Sequence[BoundTerm],
    domain: Domain,
    data: Mapping[str, DataSet] | None,
    coefficients: Iterable[float],
    num_outputs: int,
) -> tuple[np.ndarray, np.ndarray]:
    """(offset_M, size_M) of the outputs, as the module's docstring says; size 1 if nothing tells.

    Args:
        terms: residual terms.
        domain: the domain, or a window of it.
        data: the data sets by name, or None.
        coefficients: initial values.
        num_outputs: M.
    """
    half_D, coefficients = (domain.high - domain.low) / 2, list(coefficients)
    probes = [Probe(term, domain, data, coefficients) for term in terms]
    asked = [([], []) for _ in range(num_outputs)]
    for probe in probes:
        if probe.term.on != "interior":
            _asked_by(probe, half_D, asked)
    offset_M, size_M = np.zeros(num_outputs), np.zeros(num_outputs)
    for o, (values, slopes) in enumerate(asked):
        if values:
            offset_M[o] = np.mean(np.concatenate(values))
            size_M[o] = np.std(np.concatenate(values))
        size_M[o] = max(size_M[o], max((np.abs(slope).max() for slope in slopes), default=0.0))
    size_M[size_M < NEGLIGIBLE * np.abs(offset_M)] = 0
    guess_M = np.where(size_M > 0, size_M, np.where(offset_M != 0, np.abs(offset_M), 1.0))
    from_equation_M = np.zeros(num_outputs)
    for probe in probes:
        if probe.term.on == "interior":
            needed_M = _needed_by(probe, half_D, offset_M, guess_M)
            from_equation_M = np.maximum(from_equation_M, needed_M)
    from_equation_M[from_equation_M < 1e-3 * np.abs(offset_M)] = 0
    size_M = np.maximum(size_M, from_equation_M)
    return offset_M, np.where(size_M > 0, size_M, guess_M)


def _asked_by(probe: Probe, half_D: np.ndarray, asked: list[tuple[list, list]]) -> None:
    """Add the values and the slopes (of v(xi)) that a condition asks, by output."""
    try:
        r_NK, slope_KNCM = probe.linearised(probe.constant(np.zeros(len(asked))))
    except UsageError:
        return
    unit_CM = unit_jets(probe.term.layout.members, half_D, np.ones(len(asked)))
    for r_N, g_NCM in zip(r_NK.unbind(1), slope_KNCM, strict=True):
        depends = (g_NCM != 0).any(0)
        on_values = depends[0].nonzero().flatten().tolist()
        on_slopes = depends[1:].any(0).nonzero().flatten().tolist()
        if len(on_values) == 1 and set(on_slopes) <= set(on_values):
            found = _finite(-r_N / g_NCM[:, 0, on_values[0]])
            asked[on_values[0]][0].extend([found] if len(found) else [])
        elif not on_values and len(on_slopes) == 1:
            norm_N = (g_NCM * unit_CM).square().sum((1, 2)).sqrt()
            found = _finite(r_N / norm_N)
            asked[on_slopes[0]][1].extend([found] if len(found) else [])


def _needed_by(probe: Probe, half_D, offset_M, guess_M) -> np.ndarray:
    """The size of each output with which the linearised equation can vanish, (M,); 0: unknown."""
    needed_M = np.zeros(len(offset_M))
    r_NK, slope_KNCM = probe.linearised(probe.constant(offset_M))
    unit_CM = unit_jets(probe.term.layout.members, half_D, guess_M)
    for r_N, g_NCM in zip(r_NK.unbind(1), slope_KNCM, strict=True):
        by_output_NM = (g_NCM * unit_CM).square().sum(1)
        step_NM = r_N[:, None].abs() * by_output_NM.sqrt() / by_output_NM.sum(1, keepdim=True)
        step_NM = step_NM[step_NM.isfinite().all(1)]
        if len(step_NM):
            rms_M = step_NM.square().mean(0).sqrt().numpy()
            needed_M = np.maximum(needed_M, rms_M * guess_M)
    return needed_M


def _finite(values: Tensor) -> np.ndarray:
    return values[values.isfinite()].numpy()
