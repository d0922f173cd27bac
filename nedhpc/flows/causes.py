"""Why no step lowers the energy further: the gradient vanished, or the likely cause of a stall.

The gradient of a least-squares term is g = A^T r, and its rounding error is at most about

    eps s,  s_j = sum_i |A_ij| (|r_i| + t_i),  t_i = sum |dr_i/dj . j| + |r_i - dr_i/dj . j|,

where t is the size of the numbers that r is a difference of: a residual below eps t is rounding
itself. A density has the slope l' = H j + rest with H = L^T L, and s sums up the parts L^T L j and
rest in the same way. The gradient of any other term is a sum over points, and s is the sum of the
absolute values. The gradient has vanished if |g| <= ROUNDING eps |s|.

A stall may come earlier: near a minimum the energy changes by about |g|^2, which is below its
rounding error if |g| is below about sqrt(eps) |s|.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nedhpc.ansatz.saturation import largest_slopes
from nedhpc.flows.diagnosis import Probe, probes
from nedhpc.flows.energy import Energy
from nedhpc.flows.integrals import integrated
from nedhpc.parallel.comm import maximum, total
from nedhpc.problems.terms import Seed, gradient
from nedhpc.sampling.points import Points

ROUNDING = 1000.0
"""The gradient has vanished below this number of rounding errors of its terms.

The values of u themselves have more than one: they are sums over hidden units that nearly cancel.
"""
LARGE = 0.1
"""A residual |r| above this share of |t| is large: the term is not satisfied."""
SATURATED, SHARE = 2e-4, 0.5
"""A unit is saturated below this slope at all points; a network, if this share of units is."""
OPPOSITE, COMPARABLE = -0.9, 1 / 3
"""Cosine and ratio of the lengths of two gradients that cancel each other."""
RANK_SHARE = 0.1
"""Rows are ill-conditioned if their effective rank is below this share of min(N, P)."""
BLOCK_BYTES = 2**26
"""Largest size of the rows of a block of points."""


@dataclass(slots=True)
class Facts:
    """Sums over all points at one theta. The same on every rank after `gather_facts`."""

    g_KP: np.ndarray
    """Gradient by term."""
    size_P: np.ndarray
    """s of the module's formula."""
    residual_K: np.ndarray
    """|r|^2 by term with the scaled residual; 0 if a term is no least-squares term."""
    own_K: np.ndarray
    """|t|^2 by term, scaled as r."""
    num_rows: int

    @property
    def relative_K(self) -> np.ndarray:
        """|r| / |t| by term."""
        return np.sqrt(self.residual_K / np.maximum(self.own_K, np.finfo(float).tiny))

    @property
    def is_satisfied(self) -> bool:
        """True if the residual of all least-squares terms together is small."""
        return bool(self.residual_K.sum() <= LARGE**2 * self.own_K.sum())

    @property
    def relative_gradient(self) -> float:
        """|g| / |s|; infinity if s is 0."""
        size = np.linalg.norm(self.size_P)
        return float(np.linalg.norm(self.g_KP.sum(0)) / size) if size > 0 else np.inf


@dataclass(frozen=True, slots=True)
class Ending:
    """What ended the descent, the same on every rank."""

    vanished: bool
    """True if the gradient vanished to rounding and the terms are satisfied."""
    cause: str
    """The likely cause with its remedy; "" if the gradient vanished."""


def ending(
    comm, energy: Energy, theta_P: Tensor, points: dict[str, Points], effective_rank: int
) -> Ending:
    """Whether the gradient vanished, or else the likely cause of the stall. Collective on comm.

    At a poor local minimum the gradient vanishes too. So `vanished` is True only if the residual of
    all least-squares terms together is small, |r| <= LARGE |t|, and the units are not saturated.
    Cost O(N P).

    Args:
        comm: communicator of the ranks that share the points.
        energy: the energy.
        theta_P: parameters, (P,), the same on every rank.
        points: this rank's share of each part.
        effective_rank: that of the last solve; 0 if it is not known.
    """
    energy = integrated(comm, energy, theta_P, points)
    share = saturated_share(comm, energy, theta_P, points)
    facts = gather_facts(comm, energy, theta_P, points)
    eps = torch.finfo(theta_P.dtype).eps
    if share <= SHARE and facts.is_satisfied and facts.relative_gradient <= ROUNDING * eps:
        return Ending(True, "")
    return Ending(False, likely_cause(energy, facts, share, effective_rank, eps))


def likely_cause(
    energy: Energy, facts: Facts, share: float, effective_rank: int, eps: float
) -> str:
    """The likely cause of a stall and its remedy, in one sentence. Local.

    Args:
        energy: the energy.
        facts: its facts.
        share: share of saturated hidden units.
        effective_rank: that of the last solve; 0 if it is not known.
        eps: rounding error of the parameters' dtype.
    """
    if share > SHARE:
        return (
            f"the likely cause is saturation: {share:.0%} of the hidden units are constant at all "
            "points; use a smaller network.init_scale, another run.seed or another activation"
        )
    if not facts.size_P.any():
        return (
            "the likely cause is a zero gradient: the derivative of every term with respect to "
            "the parameters is exactly 0 at this state; use another run.seed or init_scale, or "
            "change the formulas of the terms"
        )
    pair = contradiction(facts)
    if pair:
        first, second = (energy.terms[k].name for k in pair)
        return (
            f"the likely cause is that the terms {first!r} and {second!r} contradict each other: "
            "both stay large and their gradients cancel; correct one of them, or increase the "
            "weight of the more important one in [weights]"
        )
    if facts.is_satisfied and facts.relative_gradient <= ROUNDING * eps**0.5:
        return (
            "the likely cause is that this state is a minimum to the accuracy with which the "
            "energy is known; for a lower energy use more hidden units (network.hidden), or "
            "device.dtype = 'float64' if it is float32"
        )
    most = min(facts.num_rows, energy.num_parameters)
    if 0 < effective_rank < RANK_SHARE * most:
        return (
            f"the likely cause is an ill-conditioned start: the rows have effective rank "
            f"{effective_rank} of at most {most}; use run.start = 'last_layer', another "
            "network.init_scale or a network.embedding"
        )
    return (
        "the likely cause is a network that is too small for the solution, or a sample that is "
        "too small or noisy; use more hidden units (network.hidden) or more points ([sampling])"
    )


def contradiction(facts: Facts) -> tuple[int, int] | None:
    """The two largest least-squares terms, if both stay large and their gradients cancel. Local."""
    first, second = np.argsort(-facts.residual_K)[:2].tolist() if len(facts.g_KP) > 1 else (0, 0)
    if first == second or min(facts.relative_K[[first, second]]) <= LARGE:
        return None
    a, b = facts.g_KP[first], facts.g_KP[second]
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    if min(lengths) <= COMPARABLE * max(lengths):
        return None
    opposed = a @ b < OPPOSITE * lengths[0] * lengths[1]
    return (min(first, second), max(first, second)) if opposed else None


def saturated_share(comm, energy: Energy, theta_P: Tensor, points: dict[str, Points]) -> float:
    """Share of the hidden units that are constant at all points. Collective on comm.

    It is 0 for a torch module, whose units are not known.
    """
    x_ND = torch.cat([points[on].x_ND for on in dict.fromkeys(term.on for term in energy.terms)])
    slopes = largest_slopes(energy.ansatz, theta_P[: energy.num_network], x_ND)
    if slopes is None:
        return 0.0
    return float((maximum(comm, slopes.double().cpu().numpy()) < SATURATED).mean())


def gather_facts(comm, energy: Energy, theta_P: Tensor, points: dict[str, Points]) -> Facts:
    """The Facts of all points. Collective on comm. Cost O(N P), memory of a block of rows.

    The energy holds its integrals.
    """
    K, P = len(energy.terms), energy.num_parameters
    g_KP, size_P = np.zeros((K, P)), np.zeros(P)
    residual_K, own_K, num_rows = np.zeros(K), np.zeros(K), 0
    block = max(1, min(energy.chunk, BLOCK_BYTES // (8 * P)))
    for k in range(K):
        for probe in probes(energy, energy.terms[k], theta_P, points, block):
            for seed, r_N, t_N in _components(probe):
                chunk = energy.chunk_of(k, probe.lin, [seed])
                A_NP = chunk.component_rows(0, energy.all_columns).double()
                g_KP[k] += (r_N @ A_NP).cpu().numpy()
                size_P += ((r_N.abs() + t_N) @ A_NP.abs()).cpu().numpy()
                if probe.term.kind.is_least_squares:
                    residual_K[k] += float(r_N @ r_N)
                    own_K[k] += float(t_N @ t_N)
            num_rows += len(probe.x_ND) * probe.term.rows_per_point
    packed = [g_KP.ravel(), size_P, residual_K, own_K, [num_rows]]
    g, size, r, t, num = np.split(
        total(comm, np.concatenate(packed)), np.cumsum([len(part) for part in packed])[:-1]
    )
    return Facts(g.reshape(K, P), size, r, t, int(num[0]))


def _components(probe: Probe):
    """(seed, r_N, t_N) of each row of a point, scaled by the weights. g is the sum of A^T r."""
    j, c, w_N = probe.j_NCM.detach(), probe.c_NQ.detach(), probe.w_N
    kind, root_N = probe.term.kind, probe.w_N.sqrt()
    linear = kind.linearise(probe.value_NK, probe.j_NCM, probe.c_NQ, probe.y_NM)
    products = [torch.cat([(s[0] * j).flatten(1), s[1] * c], 1).detach() for s in linear.seeds]
    if kind.is_least_squares:
        for seed, product, r in zip(linear.seeds, products, linear.r_NK.unbind(1), strict=True):
            t = product.abs().sum(1) + (r - product.sum(1)).abs()
            yield _scaled(root_N, seed), (root_N * r).double(), (root_N * t).double()
        return
    slope = gradient(probe.density_N, probe.j_NCM, probe.c_NQ)
    one = torch.ones_like(w_N, dtype=torch.float64)
    yield _scaled(w_N, slope), one, 0 * one
    if not kind.has_residual:
        rest = slope
        for seed, product in zip(linear.seeds, products, strict=True):
            Lj = product.sum(1)
            part = _scaled(Lj, seed)
            rest = (rest[0] - part[0], rest[1] - part[1])
            yield _scaled(root_N, seed), 0 * one, (root_N * product.abs().sum(1)).double()
        yield _scaled(w_N, rest), 0 * one, one


def _scaled(factor_N: Tensor, seed: Seed) -> Seed:
    return factor_N.view(-1, 1, 1) * seed[0], factor_N.view(-1, 1) * seed[1]
