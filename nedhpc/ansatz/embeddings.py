"""Embeddings: maps of x that precede a network's first layer. They have no parameters. Local."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

import numpy as np
import torch

from nedhpc.ansatz.activations import cos, sin
from nedhpc.ansatz.algebra import Channels, compose, concatenate
from nedhpc.ansatz.layers import Layer, Push


class Embedding(Layer):
    """A layer that stands before a network's first layer."""

    width: int
    """Number of entries for each point."""


@dataclass(frozen=True, eq=False)
class Waves(Embedding):
    """(cos(B x), sin(B x), the coordinates that are passed on)."""

    B_FD: np.ndarray
    """Wave numbers, (F, D), float64."""
    passed: tuple[int, ...] = ()
    """Numbers of the coordinates that are passed on unchanged."""

    @property
    def width(self) -> int:
        return 2 * len(self.B_FD) + len(self.passed)

    def push(self, channels: Channels, push: Push) -> Channels:
        B_FD = torch.as_tensor(self.B_FD, dtype=push.x_ND.dtype, device=push.x_ND.device)
        z = [None if v is None else v @ B_FD.T for v in channels]
        waves = [compose(wave, z, push.layout) for wave in (cos, sin)]
        rest = [None if v is None else v[:, list(self.passed)] for v in channels]
        return concatenate([*waves, rest], len(push.x_ND))


def periodic(periods: Sequence[float | None], harmonics: int = 2) -> Waves:
    """The embedding that makes u and all its derivatives exactly periodic.

    A coordinate of period L becomes cos and sin of 2 pi k x / L for k = 1 .. harmonics.

    Args:
        periods: The period of each coordinate; None: it is not periodic and is passed on.
        harmonics: Multiples of the lowest wave number.
    """
    unit = np.eye(len(periods))
    rows = [
        2 * pi * k / L * unit[i]
        for i, L in enumerate(periods)
        if L is not None
        for k in range(1, harmonics + 1)
    ]
    passed = tuple(i for i, L in enumerate(periods) if L is None)
    return Waves(np.array(rows).reshape(-1, len(periods)), passed)


def fourier(num_inputs: int, num_features: int, scale: float, seed: int) -> Waves:
    """Random Fourier features cos(B x), sin(B x) with a fixed B = scale N(0, 1).

    Reference: Tancik et al. 2020, without their factor 2 pi.

    Args:
        num_inputs: D, or the width of what is embedded.
        num_features: Rows of B; there are twice as many features.
        scale: Standard deviation of the wave numbers, in units of 1 / x.
        seed: Gives B.
    """
    rng = np.random.Generator(np.random.Philox(key=(seed, 2)))
    return Waves(scale * rng.standard_normal((num_features, num_inputs)))
