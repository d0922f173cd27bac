"""Further kinds of bench_trust.py: systems of ODEs, conditions without an answer, noisy data."""

import numpy as np
import torch
from scipy.integrate import solve_ivp
from trust_cases import (
    Case,
    Condition,
    all_fluxes,
    box,
    edges,
    evolving,
    given,
    magnitude,
    space_time,
    steady,
)
from trust_fields import smooth

import nedhpc

# Systems of ODEs in natural units; scipy gives their solutions.


def ode(rates, initial, end) -> Case:
    """u' = rates(u) on (0, end) with u = initial at 0.

    Args:
        rates: a function of the outputs that returns a list, in plain arithmetic.
        initial: initial values.
        end: last time.
    """
    outputs = ("u", "v", "w")[: len(initial)]

    def pde(x, j):
        known = rates(*(getattr(j, output) for output in outputs))
        return [getattr(j, f"{u}_t") - rate for u, rate in zip(outputs, known, strict=True)]

    def start(x, j):
        return [getattr(j, u) - value for u, value in zip(outputs, initial, strict=True)]

    def answer(x_ND):
        times, back = np.unique(x_ND[:, 0], return_inverse=True)
        solved = solve_ivp(
            lambda t, u: rates(*u),
            (0.0, end),
            initial,
            method="DOP853",
            rtol=1e-12,
            atol=1e-13 * max(abs(value) for value in initial),
            t_eval=times,
        )
        return solved.y.T[back]

    conditions = {"pde": Condition("interior", pde), "start": Condition("initial", start)}
    domain = nedhpc.SpaceTime([], [], end)
    return Case(domain, {}, conditions, answer=answer, outputs=outputs)


def population(rng, variant):
    """Lotka-Volterra, logistic growth, and an epidemic (SIR); all have fixed points."""
    if variant % 3 == 0:
        a, c = rng.uniform(0.5, 2), rng.uniform(0.5, 2)
        hares, lynxes = 10 ** rng.uniform(0, 2), 10 ** rng.uniform(0, 2)  # the fixed point
        end = 2 * np.pi / (a * c) ** 0.5 * rng.uniform(0.7, 2)
        start = [hares * rng.uniform(1.2, 2), lynxes * rng.uniform(0.5, 1)]
        return ode(lambda u, v: [a * u * (1 - v / lynxes), c * v * (u / hares - 1)], start, end)
    if variant % 3 == 1:
        r, most = magnitude(rng), 10 ** rng.uniform(0, 6)
        end = rng.uniform(6, 12) / r
        return ode(lambda u: [r * u * (1 - u / most)], [most * rng.uniform(0.01, 0.1)], end)
    people, recovery = 10 ** rng.uniform(2, 6), 1 / rng.uniform(3, 14)
    contact = recovery * rng.uniform(1.5, 4)

    def epidemic(u, v, w):
        new, gone = contact * u * v / people, recovery * v
        return [-new, new - gone, gone]

    return ode(epidemic, [0.99 * people, 0.01 * people, 0.0], rng.uniform(8, 15) / recovery)


def kinetics(rng, variant):
    """A mild van der Pol oscillator, Michaelis-Menten kinetics, decay with two rates."""
    if variant % 3 == 0:
        mu = rng.uniform(0.3, 2)
        end = rng.uniform(5, 12)
        return ode(lambda u, v: [v, mu * (1 - u * u) * v - u], [rng.uniform(0.5, 2), 0.0], end)
    rate = magnitude(rng)
    if variant % 3 == 1:
        substrate = 10 ** rng.uniform(-3, 2)
        enzyme = substrate * rng.uniform(0.2, 0.5)
        k_on, k_off = 5 * rate / substrate, rate * rng.uniform(0.2, 1)

        def michaelis_menten(u, v, w):
            bound = k_on * (enzyme - v) * u - k_off * v
            return [-bound, bound - rate * v, rate * v]

        return ode(michaelis_menten, [substrate, 0.0, 0.0], 5 * substrate / (rate * enzyme))
    fast, level = rate * rng.uniform(5, 20), 10 ** rng.uniform(-2, 3)
    start = [level * rng.uniform(1, 3), level * rng.uniform(-1, 1)]
    return ode(lambda u, v: [rate * (level - u), fast * (u - v)], start, 4 / rate)


# Problems without an answer.


def contradictory(rng, variant):
    """Conditions that no function satisfies."""
    draw = (two_values, unequal_flux, two_starts, no_potential, value_and_flux)[variant % 5]
    case = draw(rng, rng.uniform(0.3, 1) * rng.choice([-1, 1]))
    case.has_answer = False
    return case


def constant_shift(value):
    return lambda x: torch.full_like(x[:, 0], value)


def two_values(rng, share):
    """-a lap u = f with two different values on the same walls."""
    place, a, scale = box(rng, 2), magnitude(rng), magnitude(rng)
    field = smooth(rng, place.low, place.size, scale=scale)
    case = steady(place, field, lambda x, j: -a * j.lap_u)
    case.conditions["again"] = Condition("boundary", given("u"), constant_shift(share * scale))
    return case


def unequal_flux(rng, share):
    """-a lap u = f with fluxes on all walls that do not balance f."""
    place, a, scale = box(rng, 1 + (share > 0)), magnitude(rng), magnitude(rng)
    field = smooth(rng, place.low, place.size, scale=scale)
    case = steady(place, field, lambda x, j: -a * j.lap_u, all_fluxes(place))
    case.conditions["pde"].shift = constant_shift(10 * share * a * scale / place.h**2)
    return case


def two_starts(rng, share):
    """u' + r u = f with two different initial values."""
    end, scale = magnitude(rng), magnitude(rng)
    low, size = np.zeros(1), np.array([end])
    field = smooth(rng, low, size, scale=scale)
    rate = rng.uniform(0.5, 3) / end
    conditions = {
        "pde": Condition("interior", lambda x, j: j.u_t + rate * j.u),
        "start": Condition("initial", given("u")),
        "again": Condition("initial", given("u"), constant_shift(share * scale)),
    }
    return Case(nedhpc.SpaceTime([], [], end), {"u": field}, conditions)


def no_potential(rng, share):
    """u_x = f and u_y = g, where f_y and g_x differ, with values on the walls."""
    place, scale = box(rng, 2), magnitude(rng)
    field = smooth(rng, place.low, place.size, scale=scale)
    case = steady(place, field, lambda x, j: j.u_x)
    slope = 3 * share * scale / (place.size[0] * place.size[1])
    shift = lambda x: slope * (x[:, 0] - float(place.low[0]))
    case.conditions["again"] = Condition("interior", lambda x, j: j.u_y, shift)
    return case


def value_and_flux(rng, share):
    """a u'' = f with values and other slopes than theirs at both ends."""
    place, a, scale = box(rng, 1), magnitude(rng), magnitude(rng)
    field = smooth(rng, place.low, place.size, scale=scale)
    case = steady(place, field, lambda x, j: a * j.u_xx)
    shift = constant_shift(3 * share * scale / place.h)
    case.conditions["again"] = Condition("boundary", lambda x, j: j.u_x, shift)
    return case


def missing(rng, variant):
    """Conditions that more than one function satisfies."""
    draw = (no_walls, only_fluxes, no_start, no_velocity, one_output)[variant % 5]
    case = draw(rng, variant // 5)
    case.has_answer = False
    return case


def no_walls(rng, variant):
    """-a lap u = f without a condition on the walls."""
    place, a = box(rng, 1 + variant % 2), magnitude(rng)
    field = smooth(rng, place.low, place.size, scale=magnitude(rng))
    case = steady(place, field, lambda x, j: -a * j.lap_u)
    del case.conditions["wall"]
    return case


def only_fluxes(rng, variant):
    """-a lap u = f with balanced fluxes on all walls: u + constant is also a solution."""
    place, a = box(rng, 2), magnitude(rng)
    field = smooth(rng, place.low, place.size, scale=magnitude(rng))
    return steady(place, field, lambda x, j: -a * j.lap_u, all_fluxes(place))


def no_start(rng, variant):
    """u_t = k lap u + f without initial values."""
    place = space_time(rng, 1)
    k = place.h**2 / place.end * rng.uniform(0.02, 0.1)
    field = smooth(rng, place.low, place.size, scale=magnitude(rng))
    return steady(place, field, lambda x, j: j.u_t - k * j.lap_u)


def no_velocity(rng, variant):
    """u_tt = c^2 lap u + f without u_t at the start."""
    place = space_time(rng, 1)
    c = place.h / place.end * rng.uniform(0.5, 2)
    field = smooth(rng, place.low, place.size, scale=magnitude(rng))
    return evolving(place, field, lambda x, j: j.u_tt - c**2 * j.lap_u)


def one_output(rng, variant):
    """-lap u + k v = f, -lap v + k u = g with values of u only on the walls."""
    place, scale = box(rng, 1 + variant % 2), magnitude(rng)
    fields = {u: smooth(rng, place.low, place.size, scale=scale) for u in ("u", "v")}
    k = rng.uniform(1, 5) / place.h**2

    def pde(x, j):
        return [-j.lap_u + k * j.v, -j.lap_v + k * j.u]

    return steady(place, fields, pde, given("u"))


# Data.


def noisy(rng, variant):
    """Values with noise of 1e-4 to 3e-2 of their variation at random points, 1 or 2 outputs."""
    dim, outputs = 1 + variant % 3, ("u", "v")[: 1 + variant % 2]
    low, size = edges(rng, dim)
    scales = [magnitude(rng) for _ in outputs]
    fields = {
        output: smooth(rng, low, size, scale=scale, offset=scale * rng.uniform(-3, 3))
        for output, scale in zip(outputs, scales, strict=True)
    }
    level, count = 10 ** rng.uniform(-4, -1.5), 500 * (1 + dim)
    x_ND = low + rng.random((count, dim)) * size
    clean = np.stack([field(torch.as_tensor(x_ND)).numpy() for field in fields.values()], 1)
    y_NM = clean + level * np.array(scales) * rng.standard_normal(clean.shape)
    kept = slice(0, count * 4 // 5), slice(count * 4 // 5, count)
    data = nedhpc.DataSet(x_ND[kept[0]], y_NM[kept[0]], x_ND[kept[1]], y_NM[kept[1]])
    domain = nedhpc.Box(low.tolist(), (low + size).tolist())
    return Case(domain, fields, {"fit": Condition("data", given(*outputs))}, data=data)
