"""Activation functions with their derivatives of any order. Local.

Each function acts elementwise and returns [s, s', ..., s^(order)] at z, tensors of z's shape. Every
derivative is a cheap base function times a polynomial, so that one more order costs one more
polynomial and no further transcendental function. The polynomials are found once by their
recurrence and cached.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import pi, sqrt

import torch
from numpy.polynomial import Polynomial

SQRT_HALF, INV_SQRT_2PI = sqrt(0.5), 1 / sqrt(2 * pi)


@dataclass(frozen=True, slots=True)
class _Factor:
    """A polynomial of s for Horner's rule. An even or odd one needs half the steps, in s^2."""

    coefficients: tuple[float, ...]
    """Highest power first."""
    in_square: bool
    odd: bool

    @classmethod
    def of(cls, polynomial: Polynomial) -> "_Factor":
        coefficients = [float(c) for c in polynomial.coef[::-1]]
        in_square = not any(coefficients[1::2])
        odd = len(coefficients) % 2 == 0
        return cls(tuple(coefficients[:: 2 if in_square else 1]), in_square, in_square and odd)

    def times(self, base, s, square):
        """base p(s), where p is this polynomial."""
        variable = square if self.in_square else s
        value, *rest = self.coefficients
        for c in rest:
            value = variable * value + c
        value = base * value
        return s * value if self.odd else value


@cache
def _tanh_factors(order: int) -> list[_Factor]:
    """p_2 .. with tanh^(k) = (1 - s^2) p_k(s): p_1 = 1, p_k+1 = (1 - s^2) p_k' - 2 s p_k."""
    s, p, found = Polynomial([0, 1]), Polynomial([1]), []
    for _ in range(2, order + 1):
        p = (1 - s**2) * p.deriv() - 2 * s * p
        found.append(_Factor.of(p))
    return found


@cache
def _softplus_factors(order: int) -> list[_Factor]:
    """q_3 .. with softplus^(k) = p (1 - p) q_k(p): q_2 = 1, q_k+1 = [p (1 - p) q_k]'."""
    p, q, found = Polynomial([0, 1]), Polynomial([1]), []
    for _ in range(3, order + 1):
        q = (p * (1 - p) * q).deriv()
        found.append(_Factor.of(q))
    return found


@cache
def _gelu_factors(order: int) -> list[_Factor]:
    """p_2 .. with gelu^(k) = pdf(z) p_k(z): p_2 = 2 - z^2, p_k+1 = p_k' - z p_k."""
    z, p, found = Polynomial([0, 1]), Polynomial([2, 0, -1]), []
    for _ in range(2, order + 1):
        found.append(_Factor.of(p))
        p = p.deriv() - z * p
    return found


def tanh(z: torch.Tensor, order: int) -> list[torch.Tensor]:
    """Hyperbolic tangent."""
    s = torch.tanh(z)
    if not order:
        return [s]
    square = s * s
    base = 1 - square
    return [s, base, *(p.times(base, s, square) for p in _tanh_factors(order))]


def sin(z: torch.Tensor, order: int) -> list[torch.Tensor]:
    """Sine."""
    s = torch.sin(z)
    return _cycle([s, torch.cos(z)] if order else [s], order)


def cos(z: torch.Tensor, order: int) -> list[torch.Tensor]:
    """Cosine, for embeddings."""
    s = torch.cos(z)
    return _cycle([s, -torch.sin(z)] if order else [s], order)


def _cycle(derivatives, order):
    """Derivatives up to `order` of a solution of s'' = -s."""
    for k in range(2, order + 1):
        derivatives.append(-derivatives[k - 2] if k < 4 else derivatives[k - 4])
    return derivatives


def softplus(z: torch.Tensor, order: int) -> list[torch.Tensor]:
    """log(1 + exp(z))."""
    derivatives = [torch.nn.functional.softplus(z, threshold=40.0)]
    if order > 0:
        p = torch.sigmoid(z)
        derivatives.append(p)
    if order > 1:
        base, square = p * (1 - p), p * p
        derivatives.append(base)
        derivatives += (q.times(base, p, square) for q in _softplus_factors(order))
    return derivatives


def gelu(z: torch.Tensor, order: int) -> list[torch.Tensor]:
    """z times the normal distribution function of z."""
    cdf = 0.5 * (1 + torch.erf(z * SQRT_HALF))
    if not order:
        return [z * cdf]
    square = z * z
    pdf = INV_SQRT_2PI * torch.exp(-0.5 * square)
    return [z * cdf, cdf + z * pdf, *(p.times(pdf, z, square) for p in _gelu_factors(order))]


Derivatives = Callable[[torch.Tensor, int], list[torch.Tensor]]
ACTIVATIONS: dict[str, Derivatives] = {"tanh": tanh, "sin": sin, "softplus": softplus, "gelu": gelu}
