"""A box that is periodic in all coordinates."""

from collections.abc import Sequence

import numpy as np

from nedhpc.domains.box import Box


class Periodic(Box):
    """The box [low, high], periodic in all coordinates: its only part is "interior"."""

    def __init__(self, low: Sequence[float], high: Sequence[float]) -> None:
        super().__init__(low, high, periodic=range(np.size(low)))
