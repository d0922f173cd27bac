"""The kinds of energy terms: their densities, rows and residuals as functions of a method's value.

A term is weight * sum_q w_q l(x_q, j_q, c), where w_q are the quadrature weights of the part that
it is on. Its method returns the value v (N, K): residual components, a density or logits. A new
kind of term is one subclass of Term; energy, rows and solvers only call the methods below.

Shapes: N points, K components of v, C channels and M outputs of the jets j (N, C, M), Q
coefficients c (N, Q), targets y (N, M). Everything here is local.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

Seed = tuple[Tensor, Tensor]
"""Cotangents of the jets (N, C, M) and of the coefficients (N, Q)."""


@dataclass(slots=True)
class LinearTerm:
    """A term at one state: the rows A and, if the term has one, the residual r with A^T r = l'."""

    seeds: list[Seed]
    """Row k of each point is the cotangent seeds[k] contracted with the Jacobian of (j, c)."""
    r_NK: Tensor | None
    """Row residual with one column for each seed; None if the term has none."""
    slope: Seed | None = None
    """The derivative l' with respect to (j, c), if `linearise` needed it anyway."""


@dataclass(frozen=True, slots=True)
class Term:
    """A term as the user declares it: the method `name` is evaluated `on` a part of the domain.

    Args:
        name: name of the problem's method, and of the term in files and tables.
        on: a part of the domain ("interior", "boundary", "initial", ...) or "data".
        jets: jets that the method uses for some points or states only. A dry run finds the others.
        weight: factor of the whole term; [weights] in the config multiplies it.
    """

    name: str
    on: str = "interior"
    jets: Sequence[str] | None = None
    weight: float = 1.0

    has_residual: ClassVar[bool] = True
    """True if there is an r with g = A^T r, so that least-squares solvers keep full accuracy."""
    is_least_squares: ClassVar[bool] = False
    """True if the density is |r|^2 / 2 for that r."""
    needs_targets: ClassVar[bool] = False
    """True if the term can only be on "data"."""

    def rows_per_point(self, num_components: int, num_jets: int) -> int:
        """Number of rows of A for each point.

        Args:
            num_components: K.
            num_jets: C M + Q, the number of jets and coefficients.
        """
        return num_components

    def density(self, value_NK: Tensor, y_NM: Tensor | None) -> Tensor:
        """The energy density l at each point, (N,), float64."""
        raise NotImplementedError

    def linearise(self, value_NK: Tensor, j: Tensor, c: Tensor, y_NM: Tensor | None) -> LinearTerm:
        """Rows and residual at one state.

        Args:
            value_NK: the method's value, a differentiable function of j and c.
            j: jets (N, C, M), leaves of autograd's graph.
            c: coefficients (N, Q), leaves of autograd's graph.
            y_NM: targets, or None.
        """
        raise NotImplementedError

    def residual(
        self, value_NK: Tensor, y_NM: Tensor | None, base_NK: Tensor | None = None
    ) -> Tensor:
        """The row residual r (N, K) at a state, differentiable.

        Args:
            value_NK: the method's value at the state.
            y_NM: targets, or None.
            base_NK: the method's value at the state at which the rows are frozen, if they depend
                on the state; None: value_NK.
        """
        raise NotImplementedError


class Residual(Term):
    """A term weight * sum_q w_q |r(x_q, j_q, c)|^2 / 2, where r is the method's value."""

    __slots__ = ()
    is_least_squares = True

    def density(self, value_NK, y_NM):
        value_NK = value_NK.double()
        return 0.5 * (value_NK * value_NK).sum(1)

    def linearise(self, value_NK, j, c, y_NM):
        return LinearTerm(gradients(value_NK, j, c), value_NK.detach())

    def residual(self, value_NK, y_NM, base_NK=None):
        return value_NK


@dataclass(frozen=True, slots=True)
class Integral(Residual):
    """Integrals I_k = sum_q w_q f_k(x_q, j_q, c) over a part, where f (N, K) is the method's value.

    Other terms use them as `i.<name>`. With a target, there is a term weight * |I - target|^2 / 2,
    which has a row for each component. The integral has nodes of its own (sampling/quadrature.py).

    Args:
        target: the value that the integral shall have, a number or one for each component; None:
            the integral is only used by other terms.
    """

    target: float | Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Conserved(Integral):
    """A quantity C = sum_q w_q f(x_q, j_q) over a part that a march in time conserves."""


@dataclass(frozen=True, slots=True)
class Rate(Term):
    """The right-hand side N of L(u)_t = N(u), whose value (N, M) has a column for each output.

    It is not minimised itself: a run that marches in time makes a residual of it for each stage of
    a step (flows/stage.py).

    Args:
        of: names of the jets L(u), one for each output; the outputs themselves if not given.
    """

    of: Sequence[str] = ()


class Density(Term):
    """A term weight * sum_q w_q l(x_q, j_q, c), where l is the method's value.

    Examples are a Ritz energy and a likelihood. The rows are L, where L^T L is the positive part of
    l''. There is no row residual.
    """

    __slots__ = ()
    has_residual = False

    def rows_per_point(self, num_components, num_jets):
        return num_jets

    def density(self, value_NK, y_NM):
        return value_NK.double()[:, 0]

    def linearise(self, value_NK, j, c, y_NM):
        slope = gradient(value_NK[:, 0], j, c, create_graph=True)
        # Differentiate each entry of l' once more: the Hessian of every point, entry by entry.
        flat = torch.cat([slope[0].reshape(len(j), -1), slope[1]], 1)
        columns = [gradient(entry, j, c) for entry in flat.unbind(1)]
        hessian = torch.stack(
            [torch.cat([d_j.reshape(len(j), -1), d_c], 1) for d_j, d_c in columns], 1
        )
        # L = sqrt(lambda) V^T. Negative eigenvalues are left out: they could make a step an ascent.
        # torch refuses a matrix that is not finite. The rows of its point become NaN.
        finite = hessian.isfinite().all(2).all(1)
        values, vectors = torch.linalg.eigh(hessian.where(finite[:, None, None], 0))
        values = values.where(finite.unsqueeze(1), torch.nan)
        L = values.clamp(min=0).sqrt().unsqueeze(2) * vectors.transpose(1, 2)
        split = flat.shape[1] - c.shape[1]
        seeds = [(row[:, :split].reshape(j.shape), row[:, split:]) for row in L.unbind(1)]
        return LinearTerm(seeds, None, (slope[0].detach(), slope[1].detach()))


@dataclass(frozen=True, slots=True)
class CrossEntropy(Term):
    """A term -weight * sum_q w_q y_q . log softmax(z_q) on "data".

    The method returns the logits z (N, K). The targets y (N, K) are one-hot or probabilities. The
    rows are those of L z, where L^T L = diag(p) - p p^T and p = softmax(z).
    """

    on: str = "data"

    needs_targets: ClassVar[bool] = True

    def density(self, value_NK, y_NM):
        return -(y_NM * torch.log_softmax(value_NK.double(), 1)).sum(1)

    def linearise(self, value_NK, j, c, y_NM):
        L, r_NK = softmax_rows(value_NK.detach(), y_NM)
        with torch.enable_grad():
            logits = torch.einsum("nij,nj->ni", L, value_NK)
        return LinearTerm(gradients(logits, j, c), r_NK)

    def residual(self, value_NK, y_NM, base_NK=None):
        # r + L (z - z_base), with L and r frozen at the base. Its second derivative is L z''.
        with torch.no_grad():
            base_NK = value_NK.detach() if base_NK is None else base_NK
            L, r_NK = softmax_rows(base_NK, y_NM)
        return r_NK + torch.einsum("nij,nj->ni", L, value_NK - base_NK)


def softmax_rows(z_NK: Tensor, y_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and residual of a cross-entropy at logits z.

    With p = softmax(z) and s = sqrt(p), they are L = diag(s) (I - 1 p^T) and r = (p - y) / s. A
    lower limit keeps s above the square root of rounding error: L^T r does not depend on s, and
    L^T L changes by rounding error only.

    Returns:
        L (N, K, K) with L^T L = diag(p) - p p^T, and r (N, K) with L^T r = p - y.
    """
    log_p = torch.log_softmax(z_NK, 1)
    p, s = log_p.exp(), (0.5 * log_p).exp().clamp(min=torch.finfo(z_NK.dtype).eps ** 0.5)
    # 1 - p is summed, not subtracted, because its relative accuracy matters if p is near 1.
    q = p @ (1 - torch.eye(z_NK.shape[1], dtype=z_NK.dtype, device=z_NK.device))
    rows = -p.unsqueeze(1).repeat(1, z_NK.shape[1], 1)
    rows.diagonal(dim1=1, dim2=2).copy_(q)
    return s.unsqueeze(2) * rows, (p * (1 - y_NK) - y_NK * q) / s


def gradient(value_N: Tensor, j: Tensor, c: Tensor, create_graph: bool = False) -> Seed:
    """d value / d (j, c) at each point; zero if the value does not depend on j or c.

    Args:
        value_N: a function of j and c at each point, (N,).
        j: jets (N, C, M).
        c: coefficients (N, Q).
        create_graph: True if the result is differentiated again.
    """
    if not value_N.requires_grad:
        return torch.zeros_like(j), torch.zeros_like(c)
    with torch.enable_grad():
        return torch.autograd.grad(
            value_N.sum(),
            (j, c),
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
            materialize_grads=True,
        )


def gradients(value_NK: Tensor, j: Tensor, c: Tensor) -> list[Seed]:
    """`gradient` of each component, all in one batched backward pass."""
    if value_NK.shape[1] == 1 or not value_NK.requires_grad:
        return [gradient(component, j, c) for component in value_NK.unbind(1)]
    each = torch.eye(value_NK.shape[1], dtype=value_NK.dtype, device=value_NK.device)
    with torch.enable_grad():
        grads = torch.autograd.grad(
            value_NK.sum(0),
            (j, c),
            each,
            retain_graph=True,
            is_grads_batched=True,
            allow_unused=True,
        )
    pairs = zip((j, c), grads, strict=True)
    filled = [x.new_zeros(len(each), *x.shape) if grad is None else grad for x, grad in pairs]
    return list(zip(*filled, strict=True))
