"""The energy E(theta) = sum_k weight_k sum_q w_q l_k(x_q, j_q(theta), c) on one rank's share of a sample.

Parameters are the vector (theta, c): the network's, then the trainable coefficients. Residual terms give scaled rows
A_NP = sqrt(weight w) dr/dtheta with their residual r_N, so that E = |r|^2 / 2 and g = A^T r; cross-entropy terms give rows
A = sqrt(weight w) L dz/dtheta of their logits z with L^T L = diag(p) - p p^T and an r_N with g = A^T r, though E is not
|r|^2 / 2; density terms give rows A = sqrt(weight w) L Jj with L^T L = l''(j) (negative curvature cut off), and g alone.
Local: nothing here communicates.
"""

from dataclasses import dataclass
from types import SimpleNamespace

import torch

from nedhpc.ansatz import jets
from nedhpc.problems.base import CrossEntropy, Density, Residual
from nedhpc.rows.tangent import Chunk, Tangent, gather


@dataclass(slots=True)
class Rows:
    """Scaled rows A of this rank; r_N is None where a density term leaves no row residual. E_K: energy by term."""

    A: Tangent
    r_N: torch.Tensor | None
    g_P: torch.Tensor | None
    """Gradient, formed only where r_N is None."""
    E_K: torch.Tensor


JET_BYTES = 2**26
"""Jets of a chunk in all layers, of which a sweep holds about seven such sets."""


class Energy:
    """The terms of `problem` on the jets of `network`; `chunk` and JET_BYTES bound the points that are in flight at once."""

    def __init__(self, problem, network, chunk):
        self.problem, self.network = problem, network
        self.layouts = [
            jets.parse(term.jets, problem.outputs, problem.coordinates) for term in problem.terms
        ]
        self.point_bytes = max(network.point_bytes(layout) for layout in self.layouts)
        self.chunk = min(chunk, max(1, JET_BYTES // self.point_bytes))
        self.num_network = network.num_parameters
        self.num_coefficients = len(problem.coefficients)
        self.num_parameters = self.num_network + self.num_coefficients
        self.all_columns = slice(0, self.num_parameters)
        self.has_row_residual = not any(isinstance(term, Density) for term in problem.terms)
        """g = A^T r."""
        self.is_least_squares = all(isinstance(term, Residual) for term in problem.terms)
        """E = |r|^2 / 2 too."""

    def factors_pay(self, num_rows):
        """Whether A A^T of num_rows[k] rows of each term costs less by factors, sums over pairs of channels, than from rows."""
        channels = sum(n * layout.num_channels for n, layout in zip(num_rows, self.layouts))
        return channels**2 * self.network.factor_cost() < sum(num_rows) ** 2 * self.num_parameters

    def _chunks(self, sample):
        for k, (term, layout) in enumerate(zip(self.problem.terms, self.layouts)):
            points = sample[term.on]
            # One empty chunk keeps an empty share's shapes right.
            for start in range(0, max(1, len(points.x_ND)), self.chunk):
                part = slice(start, start + self.chunk)
                y = None if points.y_NM is None else points.y_NM[part]
                yield k, term, layout, points.x_ND[part], y, points.weight_N[part] * term.weight

    def _call(self, term, x_ND, view, c_NK, y_NM):
        """The user's function as (N, k)."""
        c = SimpleNamespace(
            **{name: c_NK[:, i] for i, name in enumerate(self.problem.coefficients)}
        )
        method = getattr(self.problem, term.name)
        value = method(x_ND, view, c) if y_NM is None else method(x_ND, view, c, y_NM)
        return value.unsqueeze(1) if value.ndim == 1 else value

    def _expand(self, theta_P, num_points):
        return theta_P[self.num_network :].expand(num_points, self.num_coefficients)

    def evaluate(self, theta_P, sample, base_P=None):
        """(E_K, r_N): energy by term, and the scaled residual, None where a density leaves none; differentiable. Cost O(N P).

        Of a cross-entropy r_N is the line through base_P (default: theta) with the rows there as Jacobian: r + L (z(theta) - z), with L
        and r frozen at base_P, so that its second derivative is L times the logits'.
        """
        E_K = [torch.zeros((), dtype=torch.float64, device=theta_P.device)] * len(
            self.problem.terms
        )
        r_N = []
        for k, term, layout, x, y, w in self._chunks(sample):
            value = self._local(term, layout, theta_P, x, y)
            E_K[k] = E_K[k] + w.double() @ _density(term, value, y)
            if isinstance(term, CrossEntropy):
                with torch.no_grad():
                    base = (
                        value.detach()
                        if base_P is None
                        else self._local(term, layout, base_P, x, y)
                    )
                    L, r = _softmax_rows(base, y)
                value = r + torch.einsum("nij,nj->ni", L, value - base)
            r_N.append((w.sqrt() * value.T).reshape(-1))
        return torch.stack(E_K), torch.cat(r_N) if self.has_row_residual else None

    def _local(self, term, layout, theta_P, x, y):
        j = self.network.jets(theta_P[: self.num_network], x, layout)
        return self._call(term, x, layout.view(j), self._expand(theta_P, len(x)), y)

    def rows(self, theta_P, sample, columns=None, factored=False):
        """Scaled rows and residual at theta, of a slice of the columns or all. Cost O(N P) for each residual component.

        factored: all columns, the rows unformed.
        """
        num_points = sum(len(sample[term.on].x_ND) for term in self.problem.terms)
        tangent, r_N, E_K, g_P = gather(
            lambda: self._linear_chunks(theta_P, sample),
            self.all_columns if columns is None else columns,
            num_points,
            len(self.problem.terms),
            factored,
        )
        return (
            Rows(tangent, r_N, None, E_K)
            if self.has_row_residual
            else Rows(tangent, None, g_P, E_K)
        )

    def _linear_chunks(self, theta_P, sample):
        for k, term, layout, x, y, w in self._chunks(sample):
            lin, j, c, value = self._linearize(term, layout, theta_P, x, y)
            density, r, g_seed = _density(term, value, y), None, None
            if isinstance(term, Density):
                seeds, g_seed = _curvature(value, j, c)
                g_seed = _scaled(w, g_seed)
            else:
                residual = value.detach()
                if isinstance(term, CrossEntropy):
                    L, residual = _softmax_rows(residual, y)
                    with torch.enable_grad():
                        value = torch.einsum("nij,nj->ni", L, value)
                seeds = _gradients(value, j, c)
                r = [w.sqrt() * component for component in residual.unbind(1)]
                if not self.has_row_residual:
                    g_seed = _scaled(w, _gradient(density, j, c))
            E = w.double() @ density.detach()
            yield Chunk(k, lin, [_scaled(w.sqrt(), seed) for seed in seeds], r, E, g_seed)

    def gradient(self, theta_P, sample):
        """(g_P, E_K) without rows: one reverse sweep. Cost O(N P), memory of a chunk."""
        g_P = torch.zeros_like(theta_P)
        E_K = torch.zeros(len(self.problem.terms), dtype=torch.float64, device=theta_P.device)
        for k, term, layout, x, y, w in self._chunks(sample):
            lin, j, c, value = self._linearize(term, layout, theta_P, x, y)
            density = _density(term, value, y)
            E_K[k] += w.double() @ density.detach()
            g_P += Chunk(k, lin, []).pull(_scaled(w, _gradient(density, j, c)))
        return g_P, E_K

    def residual_size(self, theta_P, on, x_ND):
        """sqrt(sum_k weight_k |r_k|^2) (N,) over the Residual terms on a point set, at any of its points."""
        terms = [
            (term, layout)
            for term, layout in zip(self.problem.terms, self.layouts)
            if term.on == on
        ]
        return torch.cat(
            [
                sum(
                    term.weight * self._local(term, layout, theta_P, x, None).square().sum(1)
                    for term, layout in terms
                ).sqrt()
                for x in x_ND.split(self.chunk)
            ]
        )

    def metric_rows(self, theta_P, sample, layouts):
        """Tangent of sqrt(w) times the parameter Jacobian of each jet channel in `layouts`, {point set: JetLayout}."""

        def chunks():
            for on, layout in layouts.items():
                points = sample[on]
                for start in range(0, max(1, len(points.x_ND)), self.chunk):
                    x = points.x_ND[start : start + self.chunk]
                    lin = self.network.linearize(theta_P[: self.num_network], x, layout)
                    c_seed, seeds = x.new_zeros(len(x), self.num_coefficients), []
                    for channel in range(layout.num_channels):
                        for output in range(lin.j_NCM.shape[2]):
                            j_seed = torch.zeros_like(lin.j_NCM)
                            j_seed[:, channel, output] = points.weight_N[
                                start : start + self.chunk
                            ].sqrt()
                            seeds.append((j_seed, c_seed))
                    yield Chunk(0, lin, seeds)

        return gather(chunks, self.all_columns, sum(len(sample[on].x_ND) for on in layouts))[0]

    def _linearize(self, term, layout, theta_P, x, y):
        lin = self.network.linearize(theta_P[: self.num_network].detach(), x, layout)
        j = lin.j_NCM.detach().requires_grad_()
        c = self._expand(theta_P, len(x)).detach().clone().requires_grad_()
        with torch.enable_grad():
            value = self._call(term, x, layout.view(j), c, y)
        return lin, j, c, value


def _density(term, value, y):
    """l (N,), float64, of what the term's method returned."""
    value = value.double()
    if isinstance(term, Residual):
        return 0.5 * (value * value).sum(1)
    if isinstance(term, CrossEntropy):
        return -(y * torch.log_softmax(value, 1)).sum(1)
    return value[:, 0]


def _softmax_rows(z, y):
    """(L (N, k, k), r (N, k)) of a cross-entropy at logits z: L^T L = diag(p) - p p^T and L^T r = p - y.

    L = diag(s) (I - 1 p^T), r = (p - y) / s with s = sqrt(p), held above the square root of rounding: L^T r does not depend on s,
    and L^T L by rounding alone. 1 - p is summed, not subtracted: it counts where p is near 1.
    """
    log_p = torch.log_softmax(z, 1)
    p, s = log_p.exp(), (0.5 * log_p).exp().clamp(min=torch.finfo(z.dtype).eps ** 0.5)
    q = p @ (1 - torch.eye(z.shape[1], dtype=z.dtype, device=z.device))  # 1 - p
    rows = -p.unsqueeze(1).repeat(1, z.shape[1], 1)
    rows.diagonal(dim1=1, dim2=2).copy_(q)
    return s.unsqueeze(2) * rows, (p * (1 - y) - y * q) / s


def _scaled(factor_N, seed):
    return tuple(factor_N.view(-1, *[1] * (part.ndim - 1)) * part for part in seed)


def _gradient(value_N, j, c, create_graph=False):
    """d value / d (j, c) by point; zero where the value does not depend on one."""
    if not value_N.requires_grad:
        return torch.zeros_like(j), torch.zeros_like(c)
    with torch.enable_grad():
        grads = torch.autograd.grad(
            value_N.sum(),
            (j, c),
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
            materialize_grads=True,
        )
    return grads


def _gradients(value_NK, j, c):
    """`_gradient` of each component, all in one batched backward pass."""
    if value_NK.shape[1] == 1 or not value_NK.requires_grad:
        return [_gradient(component, j, c) for component in value_NK.unbind(1)]
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
    return list(
        zip(
            *(
                x.new_zeros(len(each), *x.shape) if grad is None else grad
                for x, grad in zip((j, c), grads)
            )
        )
    )


def _curvature(value, j, c):
    """Seeds of the rows L with L^T L = the positive part of l''(j, c), and the gradient's seed l'(j, c)."""
    l1_j, l1_c = _gradient(value[:, 0], j, c, create_graph=True)
    flat = torch.cat([l1_j.reshape(len(j), -1), l1_c], 1)
    hessian = []
    for entry in flat.unbind(1):
        ll_j, ll_c = _gradient(entry, j, c)
        hessian.append(torch.cat([ll_j.reshape(len(j), -1), ll_c], 1))
    values, vectors = torch.linalg.eigh(torch.stack(hessian, 1))
    L = values.clamp(min=0).sqrt().unsqueeze(2) * vectors.transpose(1, 2)
    split = j[0].numel() if len(j) else flat.shape[1] - c.shape[1]
    seeds = [(row[:, :split].reshape(j.shape), row[:, split:]) for row in L.unbind(1)]
    return seeds, (l1_j.detach(), l1_c.detach())
