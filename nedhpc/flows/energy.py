"""The energy of one rank's share of a sample. Local: nothing here communicates.

It is E(theta) = sum_k weight_k sum_q w_q l_k(x_q, j_q(theta), c). The parameters are the vector
(theta, c): those of the ansatz, then the trainable coefficients.

A term with a row residual r gives scaled rows A_NP = sqrt(weight w) dr/dtheta, so that g = A^T r.
If it is a Residual, E = |r|^2 / 2 too. A density gives rows A = sqrt(weight w) L Jj, where L^T L is
l''(j) without its negative curvature, and the gradient g by itself.

If terms use integrals I of all ranks' points, the functions here need an energy that holds their
values, which `flows/integrals.py` provides. To a term, I is a coefficient more; the rows get
dr/dI dI/dtheta in addition.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nedhpc.ansatz.jets import JetLayout
from nedhpc.flows.balance import JET_BYTES, Balance
from nedhpc.problems.base import Problem
from nedhpc.problems.bound import BoundTerm, num_components
from nedhpc.problems.integrals import integrals_of
from nedhpc.problems.terms import LinearTerm, Seed, gradient, gradients
from nedhpc.rows.base import Chunk, RowOperator
from nedhpc.rows.gather import gather
from nedhpc.sampling.points import Points


@dataclass(slots=True)
class Linear:
    """The energy of this rank's points at one theta: rows A, residual or gradient, energies."""

    A: RowOperator
    r_N: Tensor | None
    """Scaled residual with g = A^T r; None if a term has none."""
    g_P: Tensor | None
    """Gradient; None if there is r_N, which gives it."""
    E_K: Tensor
    """Energy by term, float64."""


@dataclass(slots=True)
class Piece:
    """A chunk of a term's points with their targets and normals."""

    k: int
    """Number of the term."""
    term: BoundTerm
    x_ND: Tensor
    y_NM: Tensor | None
    n_ND: Tensor | None
    w_N: Tensor
    """Quadrature weights times the term's weight."""
    b_NK: Tensor | None = None
    """Factors of the components (flows/balance.py); None: all are 1."""


class Energy:
    """The terms of a problem on the jets of an ansatz.

    Args:
        problem: the problem, of which outputs, coordinates and coefficients are used.
        terms: its bound terms, at least one.
        ansatz: u(x; theta), with `jets` and `linearise`.
        chunk: largest number of points that are processed at once. JET_BYTES may make it smaller.
        balanced: True if `balance` will be set, which multiplies the components of residuals.
    """

    balance: Balance | None = None
    """Gives the factors of the components where the points do not hold them."""
    value_I: Tensor | None = None
    """The integrals' components at one theta, (I,); None if none are held."""
    slope_IP: Tensor | None = None
    """Their derivatives d I / d (theta, c), (I, P); None if none are held."""

    def __init__(
        self,
        problem: Problem,
        terms: Sequence[BoundTerm],
        ansatz,
        chunk: int,
        balanced: bool = False,
    ):
        self.problem, self.terms, self.ansatz = problem, tuple(terms), ansatz
        self.point_bytes = max(ansatz.point_bytes(term.layout) for term in terms)
        self.chunk = min(chunk, max(1, JET_BYTES // self.point_bytes))
        self.num_network = ansatz.num_parameters
        self.num_coefficients = len(problem.coefficients)
        self.num_parameters = self.num_network + self.num_coefficients
        self.all_columns = slice(0, self.num_parameters)
        self.has_row_residual = all(term.has_residual for term in terms)
        """True if g = A^T r for all terms together."""
        self.is_least_squares = all(term.kind.is_least_squares for term in terms)
        """True if E = |r|^2 / 2 too."""
        self.integrals = integrals_of(terms)
        """The integrals that terms use."""
        self.num_integrals = num_components(self.integrals)
        """I, the number of their components."""
        is_local = not (balanced or self.num_coefficients or self.integrals)
        self.is_misfit = is_local and all(
            term.is_misfit and term.weight == 1 and term.on in ("interior", "data")
            for term in terms
        )
        """True if r = u - target on the metric's own points. Then A is also the L2 metric's B."""

    def num_rows(self, counts: dict[str, int]) -> list[int]:
        """Number of rows of A on all ranks by term; counts is {part: number of points}."""
        return [counts[term.on] * term.rows_per_point for term in self.terms]

    def factors_pay(self, counts: dict[str, int]) -> bool:
        """True if A A^T costs less from factors, by a sum over pairs of channels, than from rows.

        Args:
            counts: {part: global number of points}.
        """
        if self.integrals:  # d I / d theta is no outer product of a few vectors
            return False
        rows = self.num_rows(counts)
        pairs = zip(rows, self.terms, strict=True)
        channels = sum(n * term.layout.num_channels for n, term in pairs)
        return channels**2 * self.ansatz.factor_cost() < sum(rows) ** 2 * self.num_parameters

    def integrate(self, theta_P: Tensor, points: dict[str, Points], slopes: bool) -> Tensor:
        """This rank's part of the integrals and of their derivatives, (I, 1 + P), float64.

        The first column holds the values. Cost O(N P) for each component.

        Args:
            theta_P: parameters (P,).
            points: this rank's share of each part.
            slopes: False: the values only, (I, 1).
        """
        width = 1 + slopes * self.num_parameters
        sums_IP = torch.zeros(self.num_integrals, width, dtype=torch.float64, device=theta_P.device)
        for components, piece in self.nodes(points):
            rows_KP, w_N = sums_IP[components], piece.w_N.double()
            if not slopes:
                rows_KP[:, 0] += w_N @ self.value(piece, theta_P).detach().double()
                continue
            lin, j, c, value = self.linearised_value(piece, theta_P)
            rows_KP[:, 0] += w_N @ value.detach().double()
            for row, seed in zip(rows_KP, gradients(value, j, c), strict=True):
                row[1:] += Chunk(0, lin, []).pull(_scaled(piece.w_N, seed)).double()
        return sums_IP

    def nodes(self, points: dict[str, Points]) -> Iterator[tuple[slice, Piece]]:
        """The nodes of each integral in chunks, with the slice of its components.

        Args:
            points: this rank's share of each part.
        """
        first = 0
        for k, integral in enumerate(self.integrals):
            components = slice(first, first + integral.num_components)
            first = components.stop
            for piece in self.pieces_of(k, integral, points[integral.on], self.chunk):
                yield components, piece

    def holding(self, sums_IP: Tensor) -> "Energy":
        """A copy that holds the sum over all ranks of what `integrate` returns. Local."""
        held = copy.copy(self)
        held.value_I = sums_IP[:, 0]
        held.slope_IP = sums_IP[:, 1:] if sums_IP.shape[1] > 1 else None
        return held

    def evaluate(
        self, theta_P: Tensor, points: dict[str, Points], base_P: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Energy by term and scaled residual, differentiable in theta.

        Args:
            theta_P: parameters (P,).
            points: this rank's share of each part.
            base_P: parameters at which state-dependent rows are frozen, (P,); None: theta_P.

        Returns:
            (E_K, r_N): float64 energies, and the residual; None if a term has no row residual.
            Cost O(N P).
        """
        E_K = [torch.zeros((), dtype=torch.float64, device=theta_P.device)] * len(self.terms)
        r_N = []
        for piece in self.pieces(points):
            value = self.value(piece, theta_P)
            kind = piece.term.kind
            E_K[piece.k] = E_K[piece.k] + piece.w_N.double() @ kind.density(value, piece.y_NM)
            if self.has_row_residual:
                frozen = base_P is not None and not kind.is_least_squares
                base = self.value(piece, base_P) if frozen else None
                r_NK = kind.residual(value, piece.y_NM, base)
                r_N.append((piece.w_N.sqrt() * r_NK.T).reshape(-1))
        return torch.stack(E_K), torch.cat(r_N) if self.has_row_residual else None

    def linearise(
        self,
        theta_P: Tensor,
        points: dict[str, Points],
        columns: slice | None = None,
        factored: bool = False,
    ) -> Linear:
        """Scaled rows and residual at theta.

        Args:
            theta_P: parameters (P,).
            points: this rank's share of each part.
            columns: slice of the rows' columns; default all.
            factored: keep the rows as outer products by layer. It needs all columns.

        Returns:
            Rows, residual or gradient, energies. Cost O(N P) for each row of a point.
        """
        num_points = sum(len(points[term.on].x_ND) for term in self.terms)
        columns = self.all_columns if columns is None else columns
        A, r_N, E_K, g_P = gather(
            lambda: self._linear_chunks(theta_P, points),
            columns,
            num_points,
            len(self.terms),
            factored,
        )
        return Linear(A, r_N, None, E_K) if self.has_row_residual else Linear(A, None, g_P, E_K)

    def _linear_chunks(self, theta_P: Tensor, points: dict[str, Points]) -> Iterator[Chunk]:
        for piece in self.pieces(points):
            lin, j, c, value = self.linearised_value(piece, theta_P)
            kind, w_N = piece.term.kind, piece.w_N
            linear: LinearTerm = kind.linearise(value, j, c, piece.y_NM)
            density = kind.density(value, piece.y_NM)
            slope = None
            if not self.has_row_residual:
                slope = linear.slope or gradient(density, j, c)
                slope = _scaled(w_N, slope)
            r = None
            if linear.r_NK is not None:
                r = [w_N.sqrt() * component for component in linear.r_NK.unbind(1)]
            seeds = [_scaled(w_N.sqrt(), seed) for seed in linear.seeds]
            E = w_N.double() @ density.detach() + nan_unless_finite(seeds)
            if self.slope_IP is not None:
                E = E + 0 * self.slope_IP.sum()
            yield self.chunk_of(piece.k, lin, seeds, r, E, slope)

    def chunk_of(self, k: int, lin, seeds: list[Seed], *rest) -> Chunk:
        """A Chunk with the derivatives of the integrals. Arguments as for Chunk."""
        slope_IP = None if self.slope_IP is None else self.slope_IP.to(lin.theta_P)
        return Chunk(k, lin, seeds, *rest, slope_IP=slope_IP)

    def gradient(self, theta_P: Tensor, points: dict[str, Points]) -> tuple[Tensor, Tensor]:
        """(g_P, E_K) without rows, by one reverse sweep. Cost O(N P), memory of a chunk."""
        g_P = torch.zeros_like(theta_P)
        E_K = torch.zeros(len(self.terms), dtype=torch.float64, device=theta_P.device)
        for piece in self.pieces(points):
            lin, j, c, value = self.linearised_value(piece, theta_P)
            density = piece.term.kind.density(value, piece.y_NM)
            E_K[piece.k] += piece.w_N.double() @ density.detach()
            slope = _scaled(piece.w_N, gradient(density, j, c))
            g_P += self.chunk_of(piece.k, lin, []).pull(slope)
        return g_P, E_K

    def as_written(self, theta_P: Tensor, points: dict[str, Points]) -> Tensor:
        """Energy by term as the user wrote it, without the factors of a balance; (K,) float64."""
        E_K = torch.zeros(len(self.terms), dtype=torch.float64, device=theta_P.device)
        with torch.no_grad():
            for piece in self.pieces(points):
                piece.b_NK = None
                density = piece.term.kind.density(self.value(piece, theta_P), piece.y_NM)
                E_K[piece.k] += piece.w_N.double() @ density
        return E_K

    def factors(self, on: str, points: Points) -> dict[str, Tensor]:
        """{term: factors (N, K)} of the terms on a part at points; {} without a balance. Local."""
        if self.balance is None:
            return {}
        found = {}
        for term in self.terms:
            if term.on == on:
                parts = [slice(a, a + self.chunk) for a in range(0, len(points.x_ND), self.chunk)]
                arrays = (points.x_ND, points.y_NM, points.n_ND)
                chunks = [[None if v is None else v[p] for v in arrays] for p in parts]
                b = [self.balance.factors(term, *chunk) for chunk in chunks]
                empty = points.x_ND.new_zeros(0, term.num_components)
                found[term.name] = torch.cat(b) if b else empty
        return found

    def residual_size(self, theta_P: Tensor, on: str, x_ND: Tensor, n_ND=None) -> Tensor:
        """sqrt(sum_k weight_k |r_k|^2), (N,), over the residual terms on a part.

        Args:
            theta_P: parameters (P,).
            on: name of the part.
            x_ND: points of the part.
            n_ND: outward normals at these points, if a term needs them.
        """
        sizes = []
        for start in range(0, max(1, len(x_ND)), self.chunk):
            part = slice(start, start + self.chunk)
            x, n = x_ND[part], None if n_ND is None else n_ND[part]
            b = self.factors(on, Points(x, x[:, 0], n_ND=n))
            here = [t for t in self.terms if t.on == on]
            pieces = [Piece(0, t, x, None, n, x[:, 0], b.get(t.name)) for t in here]
            squares = [p.term.weight * self.value(p, theta_P).square().sum(1) for p in pieces]
            sizes.append(sum(squares[1:], squares[0]).sqrt())
        return torch.cat(sizes)

    def metric_rows(
        self, theta_P: Tensor, points: dict[str, Points], layouts: dict[str, JetLayout]
    ) -> RowOperator:
        """Rows sqrt(w) dj/dtheta of a metric's jets.

        Args:
            theta_P: parameters (P,).
            points: this rank's share of each part.
            layouts: {part: layout of the jets on it}.
        """

        def chunks():
            for on, layout in layouts.items():
                x_ND, w_N = points[on].x_ND, points[on].weight_N
                for start in range(0, max(1, len(x_ND)), self.chunk):
                    part = slice(start, start + self.chunk)
                    x = x_ND[part]
                    lin = self.ansatz.linearise(theta_P[: self.num_network], x, layout)
                    yield Chunk(0, lin, list(self._channel_seeds(lin.j_NCM, w_N[part].sqrt())))

        num_points = sum(len(points[on].x_ND) for on in layouts)
        return gather(chunks, self.all_columns, num_points)[0]

    def _channel_seeds(self, j_NCM: Tensor, root_w_N: Tensor) -> Iterator[Seed]:
        """A seed for each channel of each output, with sqrt(w) there and 0 elsewhere."""
        c_seed = j_NCM.new_zeros(len(j_NCM), self.num_coefficients)
        for channel in range(j_NCM.shape[1]):
            for output in range(j_NCM.shape[2]):
                j_seed = torch.zeros_like(j_NCM)
                j_seed[:, channel, output] = root_w_N
                yield j_seed, c_seed

    def pieces(self, points: dict[str, Points], chunk: int | None = None) -> Iterator[Piece]:
        """The points of each term in chunks.

        Args:
            points: this rank's share of each part.
            chunk: largest number of points of a piece; default: that of the energy.
        """
        for k, term in enumerate(self.terms):
            yield from self.pieces_of(k, term, points[term.on], chunk or self.chunk)

    def pieces_of(self, k: int, term: BoundTerm, on: Points, chunk: int) -> Iterator[Piece]:
        """The points of a term or an integral in chunks.

        Args:
            k: number of the term.
            term: the term or the integral.
            on: this rank's share of its part.
            chunk: largest number of points of a piece.
        """
        # One empty chunk keeps the shapes of an empty share right.
        for start in range(0, max(1, len(on.x_ND)), chunk):
            part = slice(start, start + chunk)
            b = on.factors.get(term.name)
            y, n, b = (None if v is None else v[part] for v in (on.y_NM, on.n_ND, b))
            yield Piece(k, term, on.x_ND[part], y, n, on.weight_N[part] * term.weight, b)

    def _coefficients(self, theta_P: Tensor, num_points: int) -> Tensor:
        """The coefficients and the integrals that are held, (N, Q + I)."""
        c = theta_P[self.num_network :]
        if self.value_I is not None:
            c = torch.cat([c, self.value_I.to(c)])
        return c.expand(num_points, len(c))

    def value(self, piece: Piece, theta_P: Tensor) -> Tensor:
        """The term's value (N, K), differentiable in theta."""
        x = piece.x_ND
        j = self.ansatz.jets(theta_P[: self.num_network], x, piece.term.layout)
        c = self._coefficients(theta_P, len(x))
        return _balanced(piece, piece.term.value(x, j, c, piece.y_NM, piece.n_ND))

    def linearised_value(self, piece: Piece, theta_P: Tensor):
        """(linearisation, j, c, value): the value is differentiable in the leaves j and c only."""
        x = piece.x_ND
        lin = self.ansatz.linearise(theta_P[: self.num_network].detach(), x, piece.term.layout)
        j = lin.j_NCM.detach().requires_grad_()
        c = self._coefficients(theta_P, len(x)).detach().clone().requires_grad_()
        with torch.enable_grad():
            value = _balanced(piece, piece.term.value(x, j, c, piece.y_NM, piece.n_ND))
        return lin, j, c, value


def _balanced(piece: Piece, value_NK: Tensor) -> Tensor:
    return value_NK if piece.b_NK is None else piece.b_NK * value_NK


def nan_unless_finite(seeds: Sequence[Seed]) -> Tensor | float:
    """0 if the seeds are finite, else NaN.

    It is added to the energy, so that the check of the energy also finds a derivative that is not
    finite, without a further reduction over ranks. Cost O(N) for each jet.
    """
    return sum((0 * v.sum(dtype=torch.float64) for seed in seeds for v in seed), 0.0)


def _scaled(factor_N: Tensor, seed: Seed) -> Seed:
    j_seed, c_seed = seed
    return factor_N.view(-1, 1, 1) * j_seed, factor_N.view(-1, 1) * c_seed
