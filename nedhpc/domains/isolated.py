"""Isolated points as a part of a domain: sensors, quadrature nodes, a cloud. Local."""

import functools
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from nedhpc.domains.piece import Piece, at_points
from nedhpc.errors import UsageError


def isolated(
    x_ND: ArrayLike,
    weights: ArrayLike | None,
    dim: int,
    where: str,
    normals: ArrayLike | None = None,
) -> Piece:
    """A part that consists of isolated points.

    Args:
        x_ND: points (N, D).
        weights: quadrature weights (N,), positive; None: 1 for each point.
        dim: D.
        where: the part, for messages.
        normals: outward unit normals (N, D), or None.

    Raises:
        UsageError: an array has a wrong shape, a number is not finite, or a weight not positive.
    """
    x_ND = np.array(x_ND, float, ndmin=2)
    if x_ND.ndim != 2 or x_ND.shape[1] != dim or not len(x_ND) or not np.isfinite(x_ND).all():
        raise UsageError(f"{where}: needed are finite points (N, {dim}); it got {x_ND.shape}")
    weight_N = None if weights is None else np.array(weights, float)
    if weight_N is not None and (
        weight_N.shape != (len(x_ND),) or not (np.isfinite(weight_N) & (weight_N > 0)).all()
    ):
        raise UsageError(
            f"{where}: needed are positive, finite weights ({len(x_ND)},), one for each point; "
            f"it got {weight_N.shape}"
        )
    tree = functools.cache(lambda: _tree(x_ND))
    piece = Piece(
        dim=0,
        measure=0.0,
        place=lambda unit_N1: unit_N1,
        outward=None if normals is None else _nearest(tree, _units(normals, x_ND, where)),
        gap=lambda other_ND: tree().query(other_ND)[0],
    )
    piece = at_points(piece, x_ND)
    if weight_N is None:
        return piece
    return replace(piece, measure=float(weight_N.sum()), weight_N=weight_N)


def _units(normals, x_ND, where):
    n_ND = np.array(normals, float)
    if n_ND.shape != x_ND.shape or not (np.abs(np.linalg.norm(n_ND, axis=-1) - 1) < 1e-6).all():
        raise UsageError(
            f"{where}: needed are outward normals {x_ND.shape} of length 1, one for each point"
        )
    return n_ND / np.linalg.norm(n_ND, axis=1, keepdims=True)


def _tree(x_ND):
    # scipy takes long to import, and a class of a problem may have isolated points.
    from scipy.spatial import KDTree

    return KDTree(x_ND)


def _nearest(tree, value_ND):
    """The function that maps points to the values at the nearest point of tree()."""
    return lambda other_ND: value_ND[tree().query(other_ND)[1]]
