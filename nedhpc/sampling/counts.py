"""How many points each part gets. Local: imports no MPI."""

from collections.abc import Sequence
from math import ceil

from nedhpc.config import Sampling
from nedhpc.domains.base import Domain
from nedhpc.errors import ConfigError, UsageError
from nedhpc.names import unknown
from nedhpc.problems.integrals import integrals_of, part_of, sampled
from nedhpc.problems.terms import Conserved
from nedhpc.sampling import quadrature
from nedhpc.sampling.points import ADAPTED

FEWEST = 16
"""Least number of points of a part in a sample that was made smaller."""


def point_counts(sampling: Sampling, domain: Domain, terms: Sequence, data) -> dict[str, int]:
    """Global number of points of each part that the terms use, and of the data.

    Args:
        sampling: the config's table [sampling].
        domain: the problem's domain.
        terms: the problem's terms; `on` and `has_residual` are used.
        data: the problem's data sets by name.

    Returns:
        {part or data set: number of points}, in the order of the terms.

    Raises:
        ConfigError: everything that is wrong with the numbers and the rule, and unknown keys.
    """
    counts, errors = {}, _unknown_keys(sampling, domain, data)
    for on in dict.fromkeys(term.on for term in sampled(terms)):
        given = getattr(sampling, on, None)
        try:
            counts[on] = _rows(on, given, data[on]) if on in data else _points(on, given, domain)
            if on not in data and sampling.rule == "grid" and not domain.parts[on].is_quadrature:
                _check_grid(on, counts[on], domain)
        except UsageError as error:
            errors.append(str(error))
    for term in integrals_of(terms):
        # A march changes the quantity at the points of its sample, which the nodes must resolve.
        if isinstance(term.kind, Conserved) and getattr(sampling, term.on, None) is None:
            counts[term.on] = max(counts[term.on], counts.get(part_of(term.on), 0))
    if sampling.rule == "residual":
        inside = [term for term in terms if term.on == ADAPTED]
        if ADAPTED in counts and not domain.parts[ADAPTED].dim:
            errors.append(
                f"sampling.rule = 'residual': {ADAPTED!r} consists of isolated points, which are "
                "all used in every draw; use 'sobol'"
            )
        elif not inside or not all(term.has_residual for term in inside):
            errors.append(
                f"sampling.rule = 'residual': needs nedhpc.Residual terms on {ADAPTED!r}, and none "
                "of another kind there; use 'sobol'"
            )
    if errors:
        raise ConfigError(errors)
    return counts


def grown(counts: dict[str, int], rule: str, domain: Domain, growth: int) -> dict[str, int]:
    """Numbers of points of a sample that was doubled `growth` times; data keep their rows.

    If growth is negative, the sample was halved, but no part has less than FEWEST points, and
    integrals keep their nodes. An even grid gets twice as many cells along each direction instead,
    and is never halved.
    """
    found = {}
    for on, count in counts.items():
        part = domain.parts.get(on)
        if part is None or part.dim == 0:
            found[on] = count
        elif part.is_quadrature:
            found[on] = count * 2 ** max(0, growth)
        elif rule == "grid":
            found[on] = count * 2 ** (max(0, growth) * part.dim)
        else:
            found[on] = max(min(count, FEWEST), ceil(count * 2.0**growth))
    return found


def _points(on, given, domain):
    part = domain.parts[on]
    if part.dim == 0:
        return part.num_points  # every draw has all of them
    if part.is_quadrature:
        return quadrature.default_count(part) if given is None else given
    return default_count(part.dim) if given is None else given


def default_count(dim: int) -> int:
    """Number of points of a part of dimension `dim`, if the config gives none; it is a square."""
    return {1: 400, 2: 1600}.get(dim, 3600)


def _rows(on, given, data):
    most = len(data.x_ND)
    if given is not None and given > most:
        raise UsageError(f"sampling.{on} = {given}: the data set has {most} rows to train on")
    return given or most


def _check_grid(on, count, domain):
    try:
        domain.parts[on].grid(count, 0, 0)
    except UsageError as error:
        raise UsageError(f"sampling.{on} = {count}: {error}") from None


def _unknown_keys(sampling, domain, data):
    known = list(dict.fromkeys([*type(sampling).model_fields, *domain.parts, *data]))
    return [
        unknown(f"sampling.{key}", "key", key, known)
        for key in sampling.model_extra
        if key not in known
    ]
