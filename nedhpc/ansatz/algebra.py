"""Calculus of jets: composition, products, and jets of any function of x. Local.

Jets are lists with an entry for each channel of a JetLayout. A channel has the shape (N, width). If
it is the same at every point, as the derivatives of x are, its shape is (1, width). If it vanishes,
it is None.
"""

from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import combinations

import torch
from torch.autograd.function import once_differentiable

from nedhpc.ansatz.activations import Derivatives
from nedhpc.ansatz.jets import JetLayout

Channels = list[torch.Tensor | None]


def compose(f: Derivatives, z: Channels, layout: JetLayout, once: bool = False) -> Channels:
    """Jets of f(z), by the formula of Faa di Bruno.

    With a sum over the partitions pi of alpha and a product over the blocks b of pi,

        d_alpha f(z) = sum_pi f^(|pi|)(z) prod_b d_b z.

    The partition into one block gives the linear part f' d_alpha z. A channel that is a sum of
    derivatives has the same linear part.

    Args:
        f: Returns f and its derivatives up to a given order, e.g. an entry of ACTIVATIONS.
        z: Jets of z.
        layout: Their channels.
        once: True if the result is differentiated at most once, in reverse. Then it is one node of
            autograd's graph, which is faster than a graph of many small operations.
    """
    if once:
        return list(_Composition.apply(f, layout, *z))
    s = f(z[0], layout.order)
    return _combined(s, z, _block_products(z, layout))


@cache
def _faa_di_bruno(layout):
    """By channel, ((k, ((multiplicity, blocks), ...)), ...) of the partitions into k > 1 blocks.

    A block is given by its channel.
    """
    place = {alpha: c for c, alpha in enumerate(layout.derivatives)}
    table = []
    for alphas in layout.members:
        counts = Counter(
            tuple(sorted(place[tuple(alpha[i] for i in block)] for block in partition))
            for alpha in alphas
            for partition in _partitions(tuple(range(len(alpha))))
            if len(partition) > 1
        )
        by_size = {}
        for blocks, multiplicity in counts.items():
            by_size.setdefault(len(blocks), []).append((multiplicity, blocks))
        table.append(tuple((k, tuple(terms)) for k, terms in sorted(by_size.items())))
    return tuple(table)


@cache
def _partial_derivatives(terms):
    """Derivatives of the products with respect to a block b: ((b, factor, other blocks), ...)."""
    return tuple(
        (b, multiplicity * blocks.count(b), blocks[:i] + blocks[i + 1 :])
        for multiplicity, blocks in terms
        for b in sorted(set(blocks))
        for i in [blocks.index(b)]
    )


def _partitions(items):
    """All partitions of a tuple into blocks, each block in the tuple's order."""
    if not items:
        yield ()
        return
    first, rest = items[0], items[1:]
    for size in range(len(rest) + 1):
        for chosen in combinations(rest, size):
            others = tuple(i for i in rest if i not in chosen)
            for partition in _partitions(others):
                yield ((first, *chosen), *partition)


def _product(z, blocks):
    """The product of channels; None if one of them vanishes."""
    value = z[blocks[0]]
    for b in blocks[1:]:
        value = None if value is None or z[b] is None else value * z[b]
    return value


def _block_products(z, layout):
    """By channel, [(k, the sum of the products of k blocks)] without those that vanish."""
    found = []
    for table in _faa_di_bruno(layout):
        sums = []
        for k, terms in table:
            total = None
            for multiplicity, blocks in terms:
                left, right = _product(z, blocks[:-1]), z[blocks[-1]]
                if left is not None and right is not None:
                    total = _add_product(total, left, right, multiplicity)
            if total is not None:
                sums.append((k, total))
        found.append(sums)
    return found


def _add_product(total, a, b, factor=1):
    """total + factor a b; a total of None is zero."""
    if total is not None:
        return torch.addcmul(total, a, b, value=factor)
    return a * b if factor == 1 else factor * (a * b)


def _combined(s, z, products):
    """Channels of f(z): f' z_c plus the sum of f^(k) times the products of k blocks."""
    out = [s[0]]
    for z_c, sums in zip(z[1:], products[1:], strict=True):
        value = None if z_c is None else s[1] * z_c
        for k, product in sums:
            value = _add_product(value, s[k], product)
        out.append(value)
    return out


class _Sums:
    """Channels that are summed in one block of memory, so that they lie side by side."""

    def __init__(self, like, channels):
        block = like.new_empty(len(channels), *like.shape)
        self.places = dict(zip(channels, block.unbind(0), strict=True))
        self.started = set()

    def add(self, c, a, v, factor=1):
        """Add factor a v to channel c."""
        if c in self.started:
            self.places[c].addcmul_(a, v, value=factor)
        else:
            torch.mul(a, v if factor == 1 else factor * v, out=self.places[c])
            self.started.add(c)

    def channels(self, num_channels):
        return [self.places[c] if c in self.started else None for c in range(num_channels)]


class _Composition(torch.autograd.Function):
    """`compose` as one node: it keeps z, f's derivatives and the sums of products."""

    @staticmethod
    def forward(ctx, f, layout, *z):
        ctx.set_materialize_grads(False)
        # A channel that is the same at every point was expanded, so that each point has a
        # cotangent. One row of it is enough here.
        z = [v[:1] if v is not None and v.stride(0) == 0 else v for v in z]
        s = f(z[0], layout.order + 1)
        products = _block_products(z, layout)
        ctx.layout, ctx.sizes = layout, [[k for k, _ in sums] for sums in products]
        ctx.save_for_backward(*s[1:], *z, *(product for sums in products for _, product in sums))
        live = [c for c, v in enumerate(z) if v is not None or products[c]]
        out = _Sums(s[0], live)
        out.places[0].copy_(s[0])
        out.started.add(0)
        for c in live[1:]:
            linear = [] if z[c] is None else [(1, z[c])]
            for k, product in linear + products[c]:
                out.add(c, s[k], product)
        return tuple(out.channels(len(z)))

    @staticmethod
    @once_differentiable
    def backward(ctx, *out_bar):
        """zbar_0 += outbar_c f^(k+1) Q_ck and zbar_b += outbar_c f^(k) dQ_ck/dz_b for k >= 1.

        Q_ck is channel c's sum of products of k blocks, Q_c1 = z_c. The value has f(z_0) only.
        """
        order, C = ctx.layout.order, ctx.layout.num_channels
        s = (None, *ctx.saved_tensors[: order + 1])
        z = ctx.saved_tensors[order + 1 : order + 1 + C]
        products = iter(ctx.saved_tensors[order + 1 + C :])
        z_bar = _Sums(s[1], [c for c, v in enumerate(z) if v is not None])
        for c, (table, sizes, bar) in enumerate(
            zip(_faa_di_bruno(ctx.layout), ctx.sizes, out_bar, strict=True)
        ):
            sums = [(k, next(products)) for k in sizes]
            if bar is None:
                continue
            if z[c] is not None:
                z_bar.add(c, bar, s[1])
            terms, times = dict(table), {}
            for k, product in sums if c == 0 or z[c] is None else [(1, z[c]), *sums]:
                # times[k] = outbar_c f^(k) serves two neighbouring k.
                times[k + 1] = bar * s[k + 1]
                z_bar.add(0, times[k + 1], product)
                if k > 1 and k not in times:
                    times[k] = bar * s[k]
                for b, factor, others in _partial_derivatives(terms[k]) if k > 1 else ():
                    value = _product(z, others)
                    if value is not None and z[b] is not None:
                        z_bar.add(b, times[k], value, factor)
        return None, None, *z_bar.channels(C)


def side_by_side(channels: list[torch.Tensor]) -> torch.Tensor:
    """Channels (N, width) as one tensor (C, N, width), without a copy if they lie side by side."""
    first = channels[0]
    step = first.numel() * first.element_size()
    if (
        all(
            v.is_contiguous() and v.data_ptr() == first.data_ptr() + c * step
            for c, v in enumerate(channels)
        )
        and first.untyped_storage().data_ptr() == channels[-1].untyped_storage().data_ptr()
    ):
        return first.as_strided((len(channels), *first.shape), (first.numel(), first.shape[1], 1))
    return torch.stack(channels)


def product(a: Channels, b: Channels, layout: JetLayout) -> Channels:
    """Jets of a b, elementwise, by Leibniz' rule.

    With a sum over the subsets beta of alpha, it is

        d_alpha (a b) = sum_beta d_beta a d_(alpha - beta) b.

    Args:
        a: Jets of a.
        b: Jets of b, of a width that broadcasts with a's.
        layout: The channels of both.
    """
    out = []
    for c, splits in enumerate(_leibniz(layout)):
        value = None
        # (c, 0) and (0, c) use a sum's own channel, so that its members need no channels.
        for i, k, factor in splits if c == 0 else ((c, 0, 1), (0, c, 1), *splits):
            if a[i] is not None and b[k] is not None:
                value = _add_product(value, a[i], b[k], factor)
        out.append(value)
    return out


@cache
def _leibniz(layout):
    """By channel, ((channel of a, channel of b, multiplicity), ...) over the proper subsets.

    The entry of the value is ((0, 0, 1),).
    """
    place = {alpha: c for c, alpha in enumerate(layout.derivatives)}
    table = [((0, 0, 1),)]
    for alphas in layout.members[1:]:
        counts = Counter(
            (
                place[tuple(alpha[i] for i in chosen)],
                place[tuple(alpha[i] for i in range(len(alpha)) if i not in chosen)],
            )
            for alpha in alphas
            for size in range(1, len(alpha))
            for chosen in combinations(range(len(alpha)), size)
        )
        table.append(tuple((i, k, factor) for (i, k), factor in counts.items()))
    return tuple(table)


def add(a: Channels, b: Channels) -> Channels:
    """Jets of a + b."""
    pairs = zip(a, b, strict=True)
    return [v if w is None else w if v is None else v + w for v, w in pairs]


def concatenate(parts: list[Channels], num_points: int) -> Channels:
    """Jets of several functions side by side, so that their widths add up.

    Args:
        parts: Jets of one layout.
        num_points: N; a channel has N rows as soon as one part's channel has.
    """
    out = []
    for channels in zip(*parts, strict=True):
        rows = {len(v) for v in channels if v is not None}
        if not rows:
            out.append(None)
            continue
        N = num_points if rows != {1} else 1
        pieces = [
            part[0].new_zeros(1, part[0].shape[1]) if v is None else v
            for part, v in zip(parts, channels, strict=True)
        ]
        out.append(torch.cat([v.expand(N, -1) for v in pieces], 1))
    return out


def function_jets(
    function: Callable[[torch.Tensor], torch.Tensor], x_ND: torch.Tensor, layout: JetLayout
) -> Channels:
    """Jets of any torch function of x, by nested reverse differentiation.

    Nested forward differentiation gives the same and was measured to take 2 to 40 times as long.

    Args:
        function: Maps points (N, D) to (N, M), each point by itself.
        x_ND: Points.
        layout: The channels.

    Returns:
        Channels (N, M), none of them None. A derivative of order k costs about 2^k M evaluations
        of the function.
    """
    known = {}
    # Start with the highest order, since a derivative yields all those that it is computed from.
    wanted = {alpha for alphas in layout.members for alpha in alphas}
    for alpha in sorted(wanted, key=len, reverse=True):
        if alpha not in known:
            value, passed = _nested(function, alpha)(x_ND)
            known |= passed | {alpha: value}
    return [sum(known[alpha] for alpha in alphas) for alphas in layout.members]


def _nested(function, alpha):
    """x -> (d_alpha function, {beta: d_beta function} of all derivatives computed for it)."""
    if not alpha:
        return lambda x_ND: (function(x_ND), {})
    before = alpha[:-1]
    inner = _nested(function, before)

    def derivative(x_ND):
        value, pull, passed = torch.func.vjp(inner, x_ND, has_aux=True)
        # Each point depends on itself only, so one cotangent pulls the slopes of all points.
        cotangents = torch.eye(value.shape[1], dtype=value.dtype, device=value.device)
        slopes = torch.stack([pull(one.expand_as(value))[0] for one in cotangents], 2)
        found = {(*before, d): slopes[:, d] for d in range(x_ND.shape[1])}
        return found[alpha], passed | {before: value} | found

    return derivative
