"""Random functions with their derivatives in closed form: the known solutions of bench_trust.py.

A field is u(x) = offset + scale sum_k a_k prod_m f_km(c_km . s + b_km), where s = (x - low) / size
are the coordinates in units of the domain, and the functions f are those of SHAPES.

Shapes: N points, D coordinates. Everything here is local and keeps the dtype and device of x.
"""

from dataclasses import dataclass
from math import pi

import numpy as np
import torch
from torch import Tensor


def _sin(q):
    return torch.sin(q), torch.cos(q), -torch.sin(q)


def _exp(q):
    return torch.exp(q), torch.exp(q), torch.exp(q)


def _cubic(q):
    return q**3 - q, 3 * q**2 - 1, 6 * q


def _tanh(q):
    f = torch.tanh(q)
    return f, 1 - f * f, -2 * f * (1 - f * f)


SHAPES = {"sin": _sin, "exp": _exp, "cubic": _cubic, "tanh": _tanh}
"""{name: a function of q that returns f, f' and f''}."""


@dataclass
class Jet:
    """Values, first and second derivatives of a function at N points."""

    u_N: Tensor
    grad_ND: Tensor
    hess_NDD: Tensor

    def __add__(self, other: "Jet") -> "Jet":
        return Jet(
            self.u_N + other.u_N,
            self.grad_ND + other.grad_ND,
            self.hess_NDD + other.hess_NDD,
        )

    def __mul__(self, other: "Jet") -> "Jet":
        """The product rule up to second order."""
        f_N, g_N = self.u_N, other.u_N
        mixed_NDD = self.grad_ND[:, :, None] * other.grad_ND[:, None, :]
        return Jet(
            f_N * g_N,
            f_N[:, None] * other.grad_ND + g_N[:, None] * self.grad_ND,
            f_N[:, None, None] * other.hess_NDD
            + g_N[:, None, None] * self.hess_NDD
            + mixed_NDD
            + mixed_NDD.transpose(1, 2),
        )


@dataclass
class Ridge:
    """The function f(c . s + b) with f = SHAPES[shape]."""

    shape: str
    c_D: np.ndarray
    b: float = 0.0

    def jet(self, s_ND: Tensor) -> Jet:
        """The jet in the coordinates s."""
        c_D = s_ND.new_tensor(self.c_D)
        f_N, df_N, d2f_N = SHAPES[self.shape]((s_ND * c_D).sum(1) + self.b)
        return Jet(f_N, df_N[:, None] * c_D, d2f_N[:, None, None] * (c_D[:, None] * c_D))


@dataclass
class Field:
    """u(x) = offset + scale sum_k a_k prod_m f_km(c_km . s + b_km), s = (x - low) / size."""

    low: np.ndarray
    size: np.ndarray
    products: list[tuple[float, list[Ridge]]]
    """Pairs (a_k, factors f_km)."""
    scale: float = 1.0
    offset: float = 0.0

    def jet(self, x_ND: Tensor) -> Jet:
        """The jet in the coordinates x."""
        low, size = x_ND.new_tensor(self.low), x_ND.new_tensor(self.size)
        s_ND = (x_ND - low) / size
        total = None
        for a, ridges in self.products:
            product = ridges[0].jet(s_ND)
            for ridge in ridges[1:]:
                product = product * ridge.jet(s_ND)
            a = self.scale * a
            product = Jet(a * product.u_N, a * product.grad_ND, a * product.hess_NDD)
            total = product if total is None else total + product
        assert total is not None
        return Jet(
            total.u_N + self.offset,
            total.grad_ND / size,
            total.hess_NDD / (size[:, None] * size),
        )

    def __call__(self, x_ND: Tensor) -> Tensor:
        """The values (N,)."""
        return self.jet(x_ND).u_N


class Jets:
    """Jets of fields by name, as the terms of a problem use them: u, u_x, u_xt, lap_u, grad_u.

    Args:
        fields: {output: field}.
        coordinates: their names; the last one is "t" if there is a time.
        x_ND: points.
    """

    def __init__(self, fields: dict[str, Field], coordinates: tuple[str, ...], x_ND: Tensor):
        self._jets = {output: field.jet(x_ND) for output, field in fields.items()}
        self._coordinates = coordinates
        self._space = [i for i, name in enumerate(coordinates) if name != "t"]

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("_"):
            raise AttributeError(name)
        first, _, rest = name.partition("_")
        if first == "lap":
            return self._jets[rest].hess_NDD.diagonal(dim1=1, dim2=2)[:, self._space].sum(1)
        if first == "grad":
            return self._jets[rest].grad_ND[:, self._space]
        axes, jet = [self._coordinates.index(letter) for letter in rest], self._jets[first]
        return [jet.u_N, jet.grad_ND, jet.hess_NDD][len(axes)][(slice(None), *axes)]


def smooth(rng, low, size, *, scale=1.0, offset=0.0, front=None) -> Field:
    """A random field with mean `offset` and standard deviation `scale` over the domain.

    It is the sum of a plane wave, a product of two waves, and a cubic polynomial or an exponential.

    Args:
        rng: numpy's random generator.
        low: lower bounds of the domain, (D,).
        size: edges of the domain, (D,).
        scale: standard deviation.
        offset: mean.
        front: width of a tanh layer that is added, in units of the domain; no layer if None.
    """
    dim = len(size)

    def wave():
        return Ridge("sin", _direction(rng, dim) * rng.uniform(0.7, 2) * pi, rng.uniform(0, 2 * pi))

    if rng.random() < 0.5:
        other = Ridge("cubic", 1.5 * _direction(rng, dim), rng.uniform(-0.5, 0.5))
    else:
        other = Ridge("exp", 1.5 * _direction(rng, dim))
    products = [(1.0, [wave()]), (0.7, [wave(), wave()]), (0.5, [other])]
    if front is not None:
        c_D = _direction(rng, dim) / front
        centre_D = rng.uniform(0.3, 0.7, dim)
        products.append((1.5, [Ridge("tanh", c_D, -float(c_D @ centre_D))]))
    return standardised(rng, Field(low, size, products), scale, offset)


def standardised(rng, field: Field, scale: float, offset: float) -> Field:
    """The same field with mean `offset` and standard deviation `scale` over the domain."""
    u_N = field(torch.as_tensor(field.low + rng.random((4000, len(field.size))) * field.size))
    deviation = float(u_N.std())
    mean = float(u_N.mean()) / deviation
    products = [(a / deviation, ridges) for a, ridges in field.products]
    return Field(field.low, field.size, products, scale, offset - scale * mean)


def travelling(rng, low, size, speeds, *, scale=1.0, offset=0.0) -> Field:
    """A sum of plane waves sin(c . (s - speeds t) + b); the last coordinate is the time.

    Args:
        rng: numpy's random generator.
        low: lower bounds of space and time, (D,).
        size: edges of space and time, (D,).
        speeds: speed of each wave as (K, D - 1), in units of the domain.
        scale: standard deviation.
        offset: mean.
    """
    products = []
    for speed_D in speeds:
        c_D = _direction(rng, len(size) - 1) * rng.uniform(0.7, 2) * pi
        ridge = Ridge("sin", np.append(c_D, -(c_D @ speed_D)), rng.uniform(0, 2 * pi))
        products.append((rng.uniform(0.5, 1), [ridge]))
    return standardised(rng, Field(low, size, products), scale, offset)


def _direction(rng, dim):
    """A random vector of length 1, each entry at least about half of the mean in size."""
    c_D = rng.choice([-1, 1], dim) * rng.uniform(0.5, 1.5, dim)
    return c_D / np.linalg.norm(c_D)
