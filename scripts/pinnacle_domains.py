"""The domains of PINNacle's problems that are not boxes, as classes of a user's own."""

from math import gamma, pi

import numpy as np
from scipy.special import ndtri

import nedhpc


class Perforated(nedhpc.Domain):
    """A rectangle without disjoint discs; parts "interior", "boundary" (its walls) and "rims".

    Args:
        low: lower left corner.
        high: upper right corner.
        discs: rows (x, y, radius).
    """

    def __init__(self, low, high, discs):
        box = nedhpc.Box(low, high)
        self.low, self.high = box.low, box.high
        self.centres, self.radii = np.split(np.asarray(discs, float), [2], axis=1)
        self.radii = self.radii[:, 0]
        whole = box.parts["interior"]
        area = whole.measure - pi * float((self.radii**2).sum())
        self.parts = {
            "interior": nedhpc.Part(dim=2, measure=area, place=whole.place, keep=self.outside),
            "boundary": box.parts["boundary"],
            "rims": nedhpc.Part(
                dim=1, measure=2 * pi * float(self.radii.sum()), place=self.rim, unit_dim=2
            ),
        }

    def outside(self, x_ND):
        """True for points outside all discs, (N,)."""
        distance = np.linalg.norm(x_ND[:, None] - self.centres, axis=2)
        return (distance > self.radii).all(1)

    def rim(self, unit_N2):
        """Points on the rims: the first number chooses the disc, the second the angle."""
        disc_N = choose(self.radii, unit_N2[:, 0])
        angle_N = 2 * pi * unit_N2[:, 1]
        circle = np.stack([np.cos(angle_N), np.sin(angle_N)], 1)
        return self.centres[disc_N] + self.radii[disc_N, None] * circle


class BackStep(nedhpc.Domain):
    """[0, 4] x [0, 2] without [0, 2] x [1, 2]; parts "interior", "inlet", "outlet", "walls"."""

    low, high = np.array([0.0, 0.0]), np.array([4.0, 2.0])

    def __init__(self):
        walls = [
            ((0, 0), (4, 0)),
            ((2, 2), (4, 2)),
            ((2, 1), (2, 2)),
            ((0, 1), (2, 1)),
        ]
        self.parts = {
            "interior": nedhpc.Part(dim=2, measure=6.0, place=self.rectangle, keep=self.inside),
            "inlet": segments([((0, 0), (0, 1))]),
            "outlet": segments([((4, 0), (4, 2))]),
            "walls": segments(walls),
        }

    def rectangle(self, unit_ND):
        return self.high * unit_ND

    def inside(self, x_ND):
        return (x_ND[:, 0] > 2) | (x_ND[:, 1] < 1)


class BallTime(nedhpc.Domain):
    """The unit ball in `dim` dimensions at times [0, end]; parts as in nedhpc.SpaceTime."""

    def __init__(self, dim, end):
        self.num_space, self.end = dim, end
        self.low, self.high = np.array([-1.0] * dim + [0.0]), np.array([1.0] * dim + [end])
        volume = pi ** (dim / 2) / gamma(dim / 2 + 1)
        self.parts = {
            "interior": nedhpc.Part(
                dim=dim + 1, measure=volume * end, place=self.inside, unit_dim=dim + 2
            ),
            "boundary": nedhpc.Part(
                dim=dim,
                measure=dim * volume * end,
                place=self.sphere,
                unit_dim=dim + 1,
                outward=self.normal,
            ),
            "initial": nedhpc.Part(dim=dim, measure=volume, place=self.first, unit_dim=dim + 1),
        }

    @property
    def coordinates(self):
        return (*(f"x{i + 1}" for i in range(self.num_space)), "t")

    def direction(self, unit_ND):
        """Even unit vectors (N, dim): normally distributed vectors, scaled to length 1."""
        vector = ndtri(np.clip(unit_ND[:, : self.num_space], 1e-12, 1 - 1e-12))
        length = np.linalg.norm(vector, axis=1, keepdims=True)
        return vector / np.maximum(length, 1e-12)

    def inside(self, unit_ND):
        radius = unit_ND[:, -2:-1] ** (1 / self.num_space)
        return np.hstack([radius * self.direction(unit_ND), self.end * unit_ND[:, -1:]])

    def first(self, unit_ND):
        radius = unit_ND[:, -1:] ** (1 / self.num_space)
        return np.hstack([radius * self.direction(unit_ND), np.zeros_like(radius)])

    def sphere(self, unit_ND):
        return np.hstack([self.direction(unit_ND), self.end * unit_ND[:, -1:]])

    def normal(self, x_ND):
        return np.hstack([x_ND[:, :-1], np.zeros_like(x_ND[:, -1:])])


def choose(sizes, unit_N):
    """Numbers of things, (N,), each as often as its size says."""
    shares = np.cumsum(sizes) / np.sum(sizes)
    return np.minimum(np.searchsorted(shares, unit_N, side="right"), len(sizes) - 1)


def segments(pairs):
    """The part that consists of line segments, given by their end points."""
    ends = np.asarray(pairs, float)
    lengths = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)

    def place(unit_N2):
        chosen = ends[choose(lengths, unit_N2[:, 0])]
        return chosen[:, 0] + unit_N2[:, 1:] * (chosen[:, 1] - chosen[:, 0])

    return nedhpc.Part(dim=1, measure=float(lengths.sum()), place=place, unit_dim=2)
