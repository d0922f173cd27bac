"""The kinds of random problems of bench_trust.py: each function draws a Case of one kind.

A case function gets numpy's random generator and the number `variant` = 0, 1, ... of the problem
among those of its kind, which chooses the number of coordinates and the variant of the equation.
Sizes are drawn in powers of ten: half of them in 0.1 .. 10, half of them in 1e-6 .. 1e6; if the
kind is about sizes, all of them in 1e-6 .. 1e6.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from trust_fields import Field, Jets, Ridge, smooth, travelling

import nedhpc


@dataclass
class Condition:
    """One term: operator(x, jets of u) = operator(x, jets of the known fields) + shift(x)."""

    on: str
    operator: Callable[[Tensor, Any], Any]
    """Returns (N,), or a list of them."""
    shift: Callable[[Tensor], Tensor] | None = None
    """A part of the right-hand side that the known fields do not satisfy."""


@dataclass
class Case:
    """A problem: its domain, known fields by output, terms by name, and its solution."""

    domain: Any
    fields: dict[str, Field]
    conditions: dict[str, Condition]
    has_answer: bool = True
    answer: Callable[[np.ndarray], np.ndarray] | None = None
    """The solution (N, M) at x (N, D), if it is not given by the fields."""
    outputs: tuple[str, ...] = ()
    """Names of the outputs; by default those of the fields."""
    data: Any = None

    def __post_init__(self):
        self.outputs = self.outputs or tuple(self.fields)

    def jets(self, x_ND: Tensor) -> Jets:
        """The jets of the known fields."""
        return Jets(self.fields, self.domain.coordinates, x_ND)


@dataclass
class Place:
    """A domain with its bounds: low and size (D,), of which the first `num_space` are space."""

    domain: Any
    low: np.ndarray
    size: np.ndarray
    num_space: int
    h: float = field(init=False)
    """The shortest edge of space."""
    end: float = field(init=False)
    """Duration, if the last coordinate is the time."""

    def __post_init__(self):
        self.h = float(min(self.size[: self.num_space], default=1.0))
        self.end = float(self.size[-1])


def magnitude(rng, wide=False):
    """A random size: 1e-6 .. 1e6, or with probability 1/2 only 0.1 .. 10 unless `wide`."""
    decades = 6 if wide or rng.random() < 0.5 else 1
    return 10.0 ** rng.uniform(-decades, decades)


def edges(rng, dim, wide=False, ratio=3.0, shift=1.0):
    """(low, size) of a box whose edges differ by a factor of up to `ratio`."""
    size = magnitude(rng, wide) * ratio ** rng.uniform(-0.5, 0.5, dim)
    return size * rng.uniform(-shift, shift, dim) * (rng.random() < 0.7), size


def box(rng, dim, wide=False, ratio=3.0, shift=1.0) -> Place:
    low, size = edges(rng, dim, wide, ratio, shift)
    return Place(nedhpc.Box(low.tolist(), (low + size).tolist()), low, size, dim)


def space_time(rng, dim, wide=False) -> Place:
    """A box of space of `dim` coordinates, from time 0 on."""
    (low, size), end = edges(rng, dim, wide), magnitude(rng, wide)
    domain = nedhpc.SpaceTime(low.tolist(), (low + size).tolist(), end)
    return Place(domain, np.append(low, 0.0), np.append(size, end), dim)


def given(*outputs):
    """The operator of conditions on the values of these outputs."""
    return lambda x, j: [getattr(j, output) for output in outputs]


def steady(place, fields, pde, wall=None) -> Case:
    """A case without time, with values on the walls unless `wall` is another operator."""
    fields = fields if isinstance(fields, dict) else {"u": fields}
    wall = Condition("boundary", wall or given(*fields))
    return Case(place.domain, fields, {"pde": Condition("interior", pde), "wall": wall})


def evolving(place, fields, pde, wall=None, start=None) -> Case:
    """A case with time, with values on the walls and at the start unless given otherwise."""
    case = steady(place, fields, pde, wall)
    case.conditions["start"] = Condition("initial", start or given(*case.fields))
    return case


def dot(b, grad_ND):
    """b . grad u, (N,)."""
    return (grad_ND * grad_ND.new_tensor(b)).sum(1)


# Walls.


def nearest_wall(place, x):
    """Axis and outward sign of the wall that each point is on, both (N,)."""
    low, size = (x.new_tensor(v[: place.num_space]) for v in (place.low, place.size))
    s_ND = (x[:, : place.num_space] - low) / size
    wall_N = torch.cat([s_ND, 1 - s_ND], 1).abs().argmin(1)
    sign_N = torch.where(wall_N < place.num_space, -1.0, 1.0).to(x)
    return wall_N % place.num_space, sign_N


def mixed_walls(rng, place, k):
    """An operator a u + b k du/dn with other a and b on each wall; wall 0 has given values."""
    kinds = np.append(0, rng.integers(0, 3, 2 * place.num_space - 1))
    biot = k / np.tile(place.size[: place.num_space], 2) * rng.uniform(0.5, 5, len(kinds))
    a = np.select([kinds == 0, kinds == 1], [1.0, 0.0], biot)
    b = np.where(kinds == 0, 0.0, k)

    def operator(x, j):
        axis_N, sign_N = nearest_wall(place, x)
        wall_N = axis_N + (sign_N > 0) * place.num_space
        du_dn = sign_N * j.grad_u.gather(1, axis_N[:, None])[:, 0]
        return x.new_tensor(a)[wall_N] * j.u + x.new_tensor(b)[wall_N] * du_dn

    return operator


def all_fluxes(place):
    """The operator du/dn on all walls."""

    def operator(x, j):
        axis_N, sign_N = nearest_wall(place, x)
        return sign_N * j.grad_u.gather(1, axis_N[:, None])[:, 0]

    return operator


# Elliptic equations.


def diffusion(rng, place, wide=False):
    """-a lap u + b . grad u + c u with c >= 0 and a of any size."""
    a = magnitude(rng, wide)
    b = a * rng.uniform(-3, 3, place.num_space) / place.size[: place.num_space]
    c = a / place.h**2 * rng.uniform(0, 5)
    return lambda x, j: -a * j.lap_u + dot(b, j.grad_u) + c * j.u


def constant(rng, variant):
    place = box(rng, 1 + variant % 3)
    field = smooth(rng, place.low, place.size, scale=magnitude(rng))
    return steady(place, field, diffusion(rng, place, wide=True))


def varying(rng, variant):
    """-div(a grad u) + c u, where a varies by a factor of up to 40."""
    place = box(rng, 1 + variant % 3)
    field = smooth(rng, place.low, place.size, scale=magnitude(rng))
    ridge = Ridge("exp", rng.uniform(-1.2, 1.2, place.num_space))
    a = Field(place.low, place.size, [(1.0, [ridge])], magnitude(rng, wide=True))
    c = a.scale / place.h**2 * rng.uniform(0, 5)

    def pde(x, j):
        known = a.jet(x)
        return -known.u_N * j.lap_u - (known.grad_ND * j.grad_u).sum(1) + c * j.u

    return steady(place, field, pde)


def sizes(rng, variant):
    """-a lap u on boxes of any size, whose edges differ by a factor of up to 100."""
    place = box(rng, 1 + variant % 3, wide=True, ratio=100.0)
    field = smooth(rng, place.low, place.size, scale=magnitude(rng, wide=True))
    a = magnitude(rng)
    return steady(place, field, lambda x, j: -a * j.lap_u)


def offset(rng, variant):
    """-a lap u, where the mean of u is 10 to 1000 times its variation; shifted coordinates."""
    place = box(rng, 1 + variant % 3, shift=10.0)
    scale, a = magnitude(rng), magnitude(rng)
    mean = scale * 10 ** rng.uniform(1, 3) * rng.choice([-1, 1])
    field = smooth(rng, place.low, place.size, scale=scale, offset=mean)
    return steady(place, field, lambda x, j: -a * j.lap_u)


def front(rng, variant):
    """-a lap u + c u, or u_t - a lap u, with a layer of width 0.01 to 0.05 of the domain."""
    place = space_time(rng, 1) if variant % 2 else box(rng, 1 + variant % 4 // 2)
    width, a = 10 ** rng.uniform(-2, -1.3), magnitude(rng)
    field = smooth(rng, place.low, place.size, scale=magnitude(rng), front=width)
    if variant % 2:
        a = place.h**2 / place.end * rng.uniform(0.05, 0.5)
        return evolving(place, field, lambda x, j: j.u_t - a * j.lap_u)
    return steady(place, field, lambda x, j: -a * j.lap_u + a / place.h**2 * j.u)


def reaction(rng, variant):
    """-a lap u + c (u + u^3), or -a lap u - c exp(-u); both have one solution."""
    place, a = box(rng, 1 + variant // 2 % 3), magnitude(rng)
    c = a / place.h**2 * rng.uniform(0.5, 5)
    if variant % 2:
        field = smooth(rng, place.low, place.size, offset=rng.uniform(0, 2))
        return steady(place, field, lambda x, j: -a * j.lap_u - c * torch.exp(-j.u))
    scale = magnitude(rng)
    field = smooth(rng, place.low, place.size, scale=scale)
    return steady(place, field, lambda x, j: -a * j.lap_u + c * (j.u + j.u**3 / scale**2))


def flux(rng, variant):
    """-a lap u with given values, flux or exchange (Robin) on each wall."""
    place, a = box(rng, 1 + variant % 3), magnitude(rng)
    field = smooth(rng, place.low, place.size, scale=magnitude(rng))
    return steady(place, field, lambda x, j: -a * j.lap_u, mixed_walls(rng, place, a))


def system(rng, variant):
    """-a_i lap u_i + sum_k m_ik u_k for 2 or 3 outputs of sizes that differ by up to 1e4."""
    place, outputs = box(rng, 1 + variant % 3), ("u", "v", "w")[: 2 + variant % 2]
    scales = magnitude(rng) * 10 ** rng.uniform(-2, 2, len(outputs))
    fields = {
        output: smooth(rng, place.low, place.size, scale=scale)
        for output, scale in zip(outputs, scales, strict=True)
    }
    a = [magnitude(rng) for _ in outputs]
    m = rng.uniform(-1, 1, (len(outputs), len(outputs))) + 2 * np.eye(len(outputs))
    m = (m * np.array(a)[:, None] / place.h**2 * scales[:, None] / scales).tolist()

    def pde(x, j):
        u = [getattr(j, output) for output in outputs]
        return [
            -a[i] * getattr(j, f"lap_{output}") + sum(m[i][k] * u[k] for k in range(len(u)))
            for i, output in enumerate(outputs)
        ]

    return steady(place, fields, pde)


# Equations with time.


def heat(rng, variant):
    """c u_t = k lap u + f with values on the walls."""
    place, c = space_time(rng, 1 + variant % 2, wide=True), magnitude(rng, wide=True)
    k = c * place.h**2 / place.end * rng.uniform(0.05, 1)
    field = smooth(rng, place.low, place.size, scale=magnitude(rng))
    return evolving(place, field, lambda x, j: c * j.u_t - k * j.lap_u)


def heat_flux(rng, variant):
    """c u_t = k lap u + f with given values, flux or exchange (Robin) on each wall."""
    place, c = space_time(rng, 1 + variant % 2), magnitude(rng)
    k = c * place.h**2 / place.end * rng.uniform(0.05, 1)
    field = smooth(rng, place.low, place.size, scale=magnitude(rng))
    wall = mixed_walls(rng, place, k)
    return evolving(place, field, lambda x, j: c * j.u_t - k * j.lap_u, wall)


def square(rng, variant):
    """u_t = a lap u - c u^2 + f."""
    place, scale = space_time(rng, 1 + variant % 2), magnitude(rng)
    a = place.h**2 / place.end * rng.uniform(0.05, 1)
    c = rng.uniform(0.1, 1) / (place.end * scale)
    field = smooth(rng, place.low, place.size, scale=scale, offset=3 * scale)
    return evolving(place, field, lambda x, j: j.u_t - a * j.lap_u + c * j.u**2)


def burgers(rng, variant):
    """u_t + u (u_x + u_y) = nu lap u + f."""
    place = space_time(rng, 1 + variant % 2)
    scale = place.h / place.end * rng.uniform(0.3, 1)
    nu = place.h**2 / place.end * rng.uniform(0.02, 0.2)
    field = smooth(rng, place.low, place.size, scale=scale, offset=scale * rng.uniform(-1, 1))
    return evolving(place, field, lambda x, j: j.u_t + j.u * j.grad_u.sum(1) - nu * j.lap_u)


def convection(rng, variant):
    """u_t + b . grad u = f with values on the walls of inflow; every second one has f = 0."""
    place = space_time(rng, 1 + variant // 2 % 2)
    speed = rng.uniform(0.3, 5, place.num_space) * rng.choice([-1, 1], place.num_space)
    b, scale = speed * place.size[:-1] / place.end, magnitude(rng)
    if variant % 2:
        field = smooth(rng, place.low, place.size, scale=scale)
    else:
        field = travelling(rng, place.low, place.size, [speed] * 3, scale=scale)

    def wall(x, j):
        axis_N, sign_N = nearest_wall(place, x)
        inflow_N = sign_N * x.new_tensor(b)[axis_N] < 0
        return torch.where(inflow_N, j.u, 0 * j.u)

    return evolving(place, field, lambda x, j: j.u_t + dot(b, j.grad_u), wall)


def wave(rng, variant):
    """u_tt = c^2 lap u + f with u and u_t at the start; every second one has f = 0."""
    place, speed = space_time(rng, 1 + variant // 2 % 2), rng.uniform(0.5, 2)
    c, scale = speed * place.h / place.end, magnitude(rng)
    if variant % 2 or place.num_space == 2:
        field = smooth(rng, place.low, place.size, scale=scale)
    else:
        speeds = [np.array([s]) for s in (speed, -speed, speed)]
        field = travelling(rng, place.low, place.size, speeds, scale=scale)
    return evolving(
        place,
        field,
        lambda x, j: j.u_tt - c**2 * j.lap_u,
        start=lambda x, j: [j.u, j.u_t],
    )


def reacting(rng, variant):
    """u_t = a lap u - k u v + f, v_t = b lap v - k u v + g, and for some w_t = d lap w + k u v."""
    place, outputs = space_time(rng, 1 + variant % 2), ("u", "v", "w")[: 2 + (variant % 3 == 2)]
    scale = magnitude(rng)
    fields = {
        output: smooth(rng, place.low, place.size, scale=scale, offset=3 * scale)
        for output in outputs
    }
    a = (place.h**2 / place.end * rng.uniform(0.05, 1, len(outputs))).tolist()
    k = rng.uniform(0.1, 1) / (place.end * scale)

    def pde(x, j):
        rates = [k * j.u * j.v, k * j.u * j.v, -k * j.u * j.v]
        return [
            getattr(j, f"{output}_t") - a[i] * getattr(j, f"lap_{output}") + rates[i]
            for i, output in enumerate(outputs)
        ]

    return evolving(place, fields, pde)
