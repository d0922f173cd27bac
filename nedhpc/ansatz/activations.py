"""Activation functions with their derivatives of any order. Local; elementwise.

Each function returns [s, s', ..., s^(order)] at z. Every derivative is a cheap base function times a polynomial, so that a
further order costs one more polynomial and no further transcendental function. The polynomials are found once by their
recurrence and cached.
"""

from collections.abc import Callable
from functools import cache
from math import pi, sqrt

import torch
from numpy.polynomial import Polynomial

SQRT_HALF, INV_SQRT_2PI = sqrt(0.5), 1 / sqrt(2 * pi)


@cache
def _tanh_polynomial(k: int) -> Polynomial:
    """p_k with tanh^(k) = (1 - s^2) p_k(s): p_1 = 1, p_k+1 = (1 - s^2) p_k' - 2 s p_k."""
    if k == 1:
        return Polynomial([1])
    s, p = Polynomial([0, 1]), _tanh_polynomial(k - 1)
    return (1 - s**2) * p.deriv() - 2 * s * p


@cache
def _sigmoid_polynomial(k: int) -> Polynomial:
    """p_k with sigmoid^(k) = p (1 - p) p_k(p), p = sigmoid: p_1 = 1, p_k+1 = d/dp [p (1 - p) p_k]."""
    if k == 1:
        return Polynomial([1])
    p = Polynomial([0, 1])
    return (p * (1 - p) * _sigmoid_polynomial(k - 1)).deriv()


@cache
def _normal_polynomial(k: int) -> Polynomial:
    """p_k with gelu^(k) = pdf(z) p_k(z): p_2 = 2 - z^2, p_k+1 = p_k' - z p_k."""
    if k == 2:
        return Polynomial([2, 0, -1])
    p = _normal_polynomial(k - 1)
    return p.deriv() - Polynomial([0, 1]) * p


def _evaluate(polynomial: Polynomial, s, square):
    """The polynomial at s by Horner's rule; a purely even or odd one in s^2, which is half as many operations."""
    coefficients = [float(c) for c in polynomial.coef]
    first = len(coefficients) - 1 & 1
    parity = not any(coefficients[1 - first :: 2])
    if parity:
        coefficients, variable = coefficients[first::2], square
    else:
        variable = s
    value = coefficients.pop()
    if coefficients:
        value = value * variable + coefficients.pop()
    while coefficients:
        value = value * variable + coefficients.pop()
    return s * value if parity and first else value


def tanh(z: torch.Tensor, order: int) -> list[torch.Tensor]:
    """Hyperbolic tangent."""
    s = torch.tanh(z)
    if not order:
        return [s]
    square = s * s
    base = 1 - square
    higher = (base * _evaluate(_tanh_polynomial(k), s, square) for k in range(2, order + 1))
    return [s, base, *higher]


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
        derivatives += (
            base * _evaluate(_sigmoid_polynomial(k), p, square) for k in range(2, order)
        )
    return derivatives


def gelu(z: torch.Tensor, order: int) -> list[torch.Tensor]:
    """z times the normal distribution function of z."""
    cdf = 0.5 * (1 + torch.erf(z * SQRT_HALF))
    if not order:
        return [z * cdf]
    square = z * z
    pdf = INV_SQRT_2PI * torch.exp(-0.5 * square)
    higher = (pdf * _evaluate(_normal_polynomial(k), z, square) for k in range(2, order + 1))
    return [z * cdf, cdf + z * pdf, *higher]


Derivatives = Callable[[torch.Tensor, int], list[torch.Tensor]]
ACTIVATIONS: dict[str, Derivatives] = {"tanh": tanh, "sin": sin, "softplus": softplus, "gelu": gelu}
