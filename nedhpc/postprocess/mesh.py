"""Meshes of domains for programs that show fields: simplices that follow a shape's boundary. Local.

The points are those of an even grid inside the domain and points on its boundary, and the simplices
those of their Delaunay triangulation whose centres lie inside. Nothing is computed on the mesh.
"""

import itertools
import math

import numpy as np

from nedhpc.domains.base import Domain, Part
from nedhpc.domains.cloud import PointCloud
from nedhpc.domains.piece import Piece
from nedhpc.domains.shape import Shape
from nedhpc.postprocess.places import Grid, inside

NEAR = 0.6
"""Least distance of a grid point to the boundary, in units of the spacing."""
TWICE = 0.2
"""Boundary points that are nearer to each other count as one."""
FLAT = 1e-9
"""Simplices of less volume, in units of the spacing's cube, are left out."""


def mesh(domain: Domain, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, D) and cells (C, K) of a mesh of a domain in at most three dimensions.

    K is D + 1 for simplices. A cloud of points has cells of one point each, K = 1.

    Args:
        domain: a domain of space.
        count: number of points along its longest side.
    """
    if isinstance(domain, PointCloud):
        x_ND = np.concatenate([part.every_point() for part in domain.parts.values()])
        return x_ND, np.arange(len(x_ND))[:, None]
    spacing = float((domain.high - domain.low).max()) / max(count - 1, 1)
    on_XD = _boundary(domain, spacing)
    x_ND = np.concatenate([on_XD, _within(domain, spacing, on_XD)])
    cells_CK = _simplices(x_ND)
    corners_CKD = x_ND[cells_CK]
    size_C = np.linalg.det(corners_CKD[:, 1:] - corners_CKD[:, :1])
    # VTK expects one orientation, which changes if two points change places.
    cells_CK[size_C < 0, :2] = cells_CK[size_C < 0, 1::-1]
    is_cell = np.abs(size_C) > FLAT * spacing**domain.dim
    is_cell &= domain.inside(corners_CKD.mean(1))
    used, cells_CK = np.unique(cells_CK[is_cell], return_inverse=True)
    return x_ND[used], cells_CK.reshape(-1, domain.dim + 1)


def _simplices(x_ND: np.ndarray) -> np.ndarray:
    """The simplices (C, D + 1) of the Delaunay triangulation of points."""
    from scipy.spatial import Delaunay

    if x_ND.shape[1] > 1:
        return Delaunay(x_ND).simplices
    order = np.argsort(x_ND[:, 0])
    return np.stack([order[:-1], order[1:]], 1)


def _within(domain: Domain, spacing: float, on_XD: np.ndarray) -> np.ndarray:
    """Points of an even grid that are inside, and not near to those on the boundary."""
    from scipy.spatial import KDTree

    counts = np.ceil((domain.high - domain.low) / spacing).astype(int) + 1
    x_ND = Grid(domain, counts.tolist())[:]
    x_ND = x_ND[inside(domain, x_ND)]
    if not len(on_XD):
        return x_ND
    return x_ND[KDTree(on_XD).query(x_ND)[0] > NEAR * spacing]


def _boundary(domain: Domain, spacing: float) -> np.ndarray:
    """Points on the boundary, about one for each spacing."""
    from scipy.spatial import KDTree

    if isinstance(domain, Shape):
        parts: list[Part] = list(domain.faces)
    else:
        parts = [part for name, part in domain.parts.items() if name == "boundary"]
    x_ND = np.concatenate([np.empty((0, domain.dim)), *(_spread(part, spacing) for part in parts)])
    if not len(x_ND):
        return x_ND
    pairs = KDTree(x_ND).query_pairs(TWICE * spacing, output_type="ndarray")
    kept = np.ones(len(x_ND), bool)
    for first, second in pairs[np.argsort(pairs[:, 0], kind="stable")]:
        kept[second] &= not kept[first]
    return x_ND[kept]


def _spread(part: Part, spacing: float) -> np.ndarray:
    """Points of a part of the boundary. The ends of a curve and its corners come first."""
    if part.dim == 0:
        return part.every_point()
    cells = max(1, math.ceil(part.measure / spacing**part.dim))
    unit_dim = part.unit_dim or part.dim
    breaks = part.breaks if unit_dim == 1 and isinstance(part, Piece) else ()
    side = [0.0, 1.0, *breaks, *np.linspace(0, 1, math.ceil(cells ** (1 / unit_dim)) + 1)[1:-1]]
    x_ND, accepted_N = part.points(np.array(list(itertools.product(side, repeat=unit_dim))))
    return x_ND[accepted_N]
