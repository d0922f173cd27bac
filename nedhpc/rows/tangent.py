"""Rows A_NP of one rank at theta: sqrt(w) times the parameter Jacobian of each term; and products with them. Local.

Rows are held whole where they are small and recomputed chunk by chunk where not, so that N does not bound memory; nor does P
where only products or blocks of columns are asked for. Where every row is by layer an outer product (the values of a multilayer
perceptron) they may stay unformed: what is held then is the chunks, for products and `factors`. With the triangle R_M of a metric
(M = R_M^T R_M) they are the rows in the variables y = R_M theta, A R_M^-1, in which the metric is the identity.
"""

from dataclasses import dataclass, replace

import torch

HOLD_BYTES = 2**29
"""Rows of a rank above this are recomputed chunk by chunk."""


@dataclass(slots=True)
class Chunk:
    """One term on one chunk of points, linearised: row n of component k is seeds[k][n] contracted with the jet's Jacobian."""

    term: int
    lin: object
    seeds: list
    """(j_NCM, c_NK) by component, scaled by sqrt(weight w)."""
    r: list | None = None
    """Scaled residual (n,) by component; None for a density."""
    E: torch.Tensor | float = 0.0
    g_seed: tuple | None = None
    """Seed of the gradient of a density, scaled by weight w."""

    def rows(self, k, columns):
        """Component k's rows, restricted to a slice of the columns (theta, c)."""
        j_seed, c_seed = self.seeds[k]
        P = self.lin.theta_P.numel()
        A = j_seed.new_empty(len(j_seed), columns.stop - columns.start)
        network = slice(columns.start, min(columns.stop, P))
        if network.start < network.stop:
            self.lin.rows(j_seed, A[:, : network.stop - network.start], network)
        if columns.stop > P:
            first = max(P, columns.start)
            A[:, first - columns.start :] = c_seed[:, first - P : columns.stop - P]
        return A

    def factors(self):
        """[(zbar (rows, C, H), h (rows, C, I))] by layer: see Linearization.factors. Coefficients are a layer with a bias alone."""
        j_seeds, c_seeds = zip(*self.seeds)
        c_seed = torch.cat(c_seeds)
        coefficients = (
            [(c_seed.unsqueeze(1), c_seed.new_ones(len(c_seed), 1, 1))] if c_seed.shape[1] else []
        )
        return self.lin.factors(torch.stack(j_seeds)) + coefficients

    def pull(self, seed):
        """sum_n seed[n] . d (jet, c)[n] / d (theta, c)."""
        return torch.cat([self.lin.vjp(seed[0]), seed[1].sum(0)])


@dataclass(slots=True)
class Tangent:
    """Rows of `chunks()`, a function that yields every Chunk anew each time it is called."""

    chunks: object
    columns: slice
    layout: list | None
    """The network's parameter blocks, for aligned cuts; None: any cut is good."""
    like: torch.Tensor
    """Gives dtype and device."""
    num_rows: int
    A_NP: torch.Tensor | None
    """All rows where they are held."""
    R_M: torch.Tensor | None = None
    factored: bool = False
    """Rows are outer products by layer and are not held."""

    @property
    def num_columns(self):
        return self.columns.stop - self.columns.start

    def tensor(self, x):
        return torch.as_tensor(x, dtype=self.like.dtype, device=self.like.device)

    def in_metric(self, R_M):
        """The rows A R_M^-1."""
        return replace(
            self, A_NP=None if self.A_NP is None else _right_solve(self.A_NP, R_M), R_M=R_M
        )

    def blocks(self):
        """(slice of rows, A of those rows) until all rows are done."""
        if self.A_NP is not None:
            yield slice(0, self.num_rows), self.A_NP
            return
        start = 0
        for chunk in self.chunks():
            for k in range(len(chunk.seeds)):
                A = chunk.rows(k, self.columns)
                yield (
                    slice(start, start + len(A)),
                    A if self.R_M is None else _right_solve(A, self.R_M),
                )
                start += len(A)

    def column_blocks(self, width):
        """A[:, part] for slices of about `width` columns, the same on every rank; only without R_M or with rows that are held.

        Cost of one reverse sweep each where the rows are not held.
        """
        for part in aligned(self.columns, self.layout, width):
            if self.A_NP is not None:
                yield self.A_NP[:, part.start - self.columns.start : part.stop - self.columns.start]
            else:
                yield torch.cat(
                    [
                        chunk.rows(k, part)
                        for chunk in self.chunks()
                        for k in range(len(chunk.seeds))
                    ]
                )

    def factors(self):
        """`Chunk.factors` of all rows by term, where `factored`. Cost of one sweep."""
        by_term = {}
        for chunk in self.chunks():
            by_term.setdefault(chunk.term, []).append(chunk.factors())
        return [
            [tuple(map(torch.cat, zip(*layer))) for layer in zip(*chunks)]
            for chunks in by_term.values()
        ]

    def matvec(self, v_P):
        """A v, (N,)."""
        if self.A_NP is not None:
            return self.A_NP @ v_P
        if self.R_M is not None:
            v_P = torch.linalg.solve_triangular(self.R_M, v_P.unsqueeze(1), upper=True).squeeze(1)
        Av_N, start = v_P.new_empty(self.num_rows), 0
        for chunk in self.chunks():
            P = chunk.lin.theta_P.numel()
            j_dot = chunk.lin.jvp(v_P[:P])
            for j_seed, c_seed in chunk.seeds:
                Av_N[start : start + len(j_seed)] = (j_seed * j_dot).sum((1, 2)) + c_seed @ v_P[P:]
                start += len(j_seed)
        return Av_N

    def rmatvec(self, w_N):
        """A^T w, (P,), this rank's part."""
        if self.A_NP is not None:
            return self.A_NP.T @ w_N
        g_P, start = 0, 0
        for chunk in self.chunks():
            j_bar = c_bar = 0
            for j_seed, c_seed in chunk.seeds:
                w = w_N[start : start + len(j_seed), None]
                j_bar, c_bar = j_bar + j_seed * w.unsqueeze(2), c_bar + c_seed * w
                start += len(w)
            g_P = g_P + chunk.pull((j_bar, c_bar))
        return (
            g_P
            if self.R_M is None
            else torch.linalg.solve_triangular(self.R_M.T, g_P.unsqueeze(1), upper=False).squeeze(1)
        )


def dense(A_NP):
    """The Tangent of rows that are there already."""
    return Tangent(None, slice(0, A_NP.shape[1]), None, A_NP, len(A_NP), A_NP)


def gather(chunks, columns, num_points, num_terms=1, factored=False):
    """(Tangent, r_N or None, E_K, g_P) in one sweep over the chunks; there are `num_points` rows or a multiple.

    Sums are taken on the way and r has one place from the start: small pieces kept between the chunks' large arrays would leave the
    allocator holes that grow with N. factored: leave the rows unformed; all columns.
    """
    held, num_rows, filled, r_N, E_K, g_P = (
        [],
        0,
        0,
        None,
        None,
        0,
    )  # held: the rows, or the chunks that stand for them
    row_bytes, held_bytes = 8 * (columns.stop - columns.start), 0
    if not factored and row_bytes * num_points > HOLD_BYTES:
        held = None
    for chunk in chunks():
        if E_K is None:
            E_K = torch.zeros(num_terms, dtype=torch.float64, device=chunk.lin.theta_P.device)
            r_N = chunk.lin.theta_P.new_empty(num_points)
        E_K[chunk.term] += chunk.E
        if chunk.g_seed is not None:
            g_P = g_P + chunk.pull(chunk.g_seed)
        for r in chunk.r or ():
            if filled + len(r) > len(r_N):
                r_N = torch.cat([r_N, torch.empty_like(r_N), torch.empty_like(r)])
            r_N[filled : filled + len(r)] = r
            filled += len(r)
        chunk_rows = len(chunk.lin.x_ND) * len(chunk.seeds)
        num_rows += chunk_rows
        held_bytes += chunk.lin.tape_bytes if factored else row_bytes * chunk_rows
        if held_bytes > HOLD_BYTES:
            held = None
        if held is not None:
            held += (
                [chunk] if factored else [chunk.rows(k, columns) for k in range(len(chunk.seeds))]
            )
    A_NP = None if held is None or factored else torch.cat(held)
    tangent = Tangent(
        (lambda: held) if held and factored else chunks,
        columns,
        chunk.lin.network.layout,
        chunk.lin.theta_P,
        num_rows,
        A_NP,
        factored=factored,
    )
    return tangent, r_N[:filled] if chunk.r is not None else None, E_K, g_P


def _right_solve(A, R):
    return torch.linalg.solve_triangular(R, A, upper=True, left=False)


def aligned(columns, layout, width):
    """Slices of `width` columns at most, or of one output unit, that cut weight blocks between output units only."""
    cuts = (
        range(columns.start + 1, columns.stop + 1)
        if layout is None
        else [
            cut
            for block in layout
            for cut in range(block.offset + block.shape[-1], block.end + 1, block.shape[-1])
        ]
        + list(range(layout[-1].end + 1, columns.stop + 1))
    )
    start = last = columns.start
    for cut in cuts:
        if cut - start > width and last > start:
            yield slice(start, last)
            start = last
        last = cut
    yield slice(start, last)
