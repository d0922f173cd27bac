"""Jets and their parameter Jacobian, read from the cotangents at the Linear layers. Local."""

from collections.abc import Iterator

import torch

from nedhpc.ansatz.algebra import Channels, side_by_side
from nedhpc.ansatz.layers import Tap


class Linearisation:
    """Jets `j_NCM` at theta and their parameter Jacobian.

    `rows` gives the Jacobian by sample, `vjp` multiplies by its transpose and `jvp` by itself.

    For each point, a Linear layer z = W h + b has d/dW = sum_c zbar_c h_c^T and d/db = zbar_0,
    where zbar_c is the cotangent of channel c of z. Autograd finds all zbar in one reverse sweep.
    """

    def __init__(self, network, theta_P, x_ND, layout, u: Channels, tape: list[Tap]):
        self.network, self.theta_P, self.x_ND, self.layout = network, theta_P, x_ND, layout
        self._u, self._tape = u, tape
        self.j_NCM = stacked([None if v is None else v.detach() for v in u], len(x_ND))

    @property
    def tape_bytes(self) -> int:
        """Estimated bytes of this object: jets and derivatives of activations of each layer."""
        return 6 * len(self.x_ND) * self.network.point_bytes(self.layout)

    def rows(self, seed_NCM: torch.Tensor, out: torch.Tensor, columns: slice | None = None):
        """out[n] = sum_cm seed[n, c, m] d j[n, c, m] / d theta. Cost O(N P) and a reverse sweep.

        Args:
            seed_NCM: (N, C, M); channels that the layout does not name are taken as zero.
            out: (N, P), or as many columns as `columns`; is overwritten.
            columns: A slice that divides weight blocks between output units only.

        Returns:
            out.
        """
        columns = slice(0, self.theta_P.numel()) if columns is None else columns
        taps = [tap for tap in self._tape if _overlap(tap.linear, columns)]
        for tap, z_bar in self._cotangents(seed_NCM, taps):
            weight, bias = tap.linear.weight, tap.linear.bias
            first, last = max(columns.start, bias.offset), min(columns.stop, bias.end)
            if first < last:
                part = out[:, first - columns.start : last - columns.start]
                if 0 in z_bar:
                    part.copy_(z_bar[0][:, first - bias.offset : last - bias.offset])
                else:
                    part.zero_()
            first, last = max(columns.start, weight.offset), min(columns.stop, weight.end)
            if first < last:
                fan_in = weight.shape[1]
                units = slice((first - weight.offset) // fan_in, (last - weight.offset) // fan_in)
                part = out[:, first - columns.start : last - columns.start]
                self._weight_rows(
                    tap, {c: v[:, units] for c, v in z_bar.items()}, part.unflatten(1, (-1, fan_in))
                )
        return out

    def _weight_rows(self, tap, z_bar, block_NOI):
        if self._enters(tap):  # the derivatives have one entry each, so products are trivial
            if 0 in z_bar:
                torch.mul(z_bar[0].unsqueeze(2), tap.h[0].unsqueeze(1), out=block_NOI)
            else:
                block_NOI.zero_()
            for c, v in z_bar.items():
                if c:
                    axis = self.layout.derivatives[c][0]
                    block_NOI[:, :, axis] += v * tap.h[c][0, axis]
        elif not z_bar:
            block_NOI.zero_()
        else:
            h = self._entering(tap, z_bar)
            z_CNO, h_CNI = side_by_side([*z_bar.values()]), side_by_side(h)
            block_NOI.copy_(torch.bmm(z_CNO.permute(1, 2, 0), h_CNI.transpose(0, 1)))

    def _enters(self, tap):
        """True if the layer's input is the scaled coordinates."""
        first = self.network.layers[0]
        return tap is self._tape[0] and first is tap.linear

    def _entering(self, tap, z_bar):
        """The layer's input in the channels of z_bar, one row for each point."""
        return [tap.h[c].detach().expand(len(self.x_ND), -1) for c in z_bar]

    def factors(self, seed_KNCM: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The rows of K seeds as sums of outer products: [(zbar_RCH, h_RCI)] by layer, R = K N.

        Row r belongs to seed k at point n. Its part for a layer's weight and bias is the sum over
        c of the outer products of zbar[r, c] and h[r, c]. The last entry of h belongs to the bias:
        it is 1 for the value and 0 for the other channels.
        """
        swept = [list(self._cotangents(seed_NCM, self._tape)) for seed_NCM in seed_KNCM]
        found = []
        for layer in zip(*swept, strict=True):
            tap, channels = layer[0]
            if not channels:
                # Nothing depends on this layer. It keeps its place, since the layers of two terms
                # are paired.
                out = tap.linear.weight.shape[0]
                channels = {0: self.theta_P.new_zeros(len(self.x_ND), out)}
                layer = [(tap, channels)] * len(seed_KNCM)
            h = [
                torch.nn.functional.pad(v, (0, 1), value=float(c == 0)).repeat(len(seed_KNCM), 1)
                for c, v in zip(channels, self._entering(tap, channels), strict=True)
            ]
            z_bar = [torch.cat([bars[c] for _, bars in layer]) for c in channels]
            found.append((torch.stack(z_bar, 1), torch.stack(h, 1)))
        return found

    def jvp(self, v_P: torch.Tensor) -> torch.Tensor:
        """d j / d theta . v, (N, C, M), without the rows."""
        return torch.func.jvp(
            lambda theta: self.network.jets(theta, self.x_ND, self.layout), (self.theta_P,), (v_P,)
        )[1]

    def vjp(self, seed_NCM: torch.Tensor) -> torch.Tensor:
        """sum_n rows(seed)[n], (P,), without the rows."""
        g_P = torch.zeros_like(self.theta_P)
        for tap, z_bar in self._cotangents(seed_NCM, self._tape):
            if 0 in z_bar:
                tap.linear.bias.of(g_P).copy_(z_bar[0].sum(0))
            block = tap.linear.weight.of(g_P)
            if self._enters(tap):
                for c, v in z_bar.items():
                    if c:
                        axis = self.layout.derivatives[c][0]
                        block[:, axis] += v.sum(0) * tap.h[c][0, axis]
                    else:
                        block += v.T @ tap.h[0]
            elif z_bar:
                h = self._entering(tap, z_bar)
                block += torch.cat([*z_bar.values()]).T @ torch.cat(h)
        return g_P

    def _cotangents(self, seed_NCM, taps) -> Iterator[tuple[Tap, dict[int, torch.Tensor]]]:
        """(tap, {channel: zbar (N, out)}) for each tap.

        A channel is missing if no named jet depends on it.
        """
        named = self.layout.named_channels
        live = [
            c for c, v in enumerate(self._u) if c in named and v is not None and v.requires_grad
        ]
        z = [v for tap in taps for v in tap.z if v is not None]
        if live and z:
            # The gradient of a sum, because cotangents as an argument of `grad` make torch import
            # sympy: 0.4 s.
            with torch.enable_grad():
                pairing = torch.stack([(self._u[c] * seed_NCM[:, c]).sum() for c in live]).sum()
            bars = torch.autograd.grad(pairing, z, retain_graph=True, allow_unused=True)
        else:  # jets that vanish, such as the Laplacian of a linear function
            bars = [None] * len(z)
        bars = iter(bars)
        for tap in taps:
            by_channel = {c: next(bars) for c, v in enumerate(tap.z) if v is not None}
            yield tap, {c: bar for c, bar in by_channel.items() if bar is not None}


def _overlap(linear, columns):
    return linear.weight.offset < columns.stop and columns.start < linear.bias.end


def stacked(channels: Channels, num_points: int) -> torch.Tensor:
    """The jet tensor (N, C, M) of channels."""
    zero = channels[0].new_zeros(1, channels[0].shape[1])
    return torch.stack([(zero if v is None else v).expand(num_points, -1) for v in channels], 1)
