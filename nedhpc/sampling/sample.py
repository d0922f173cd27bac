"""The sample of a run: which draw it is, and the points that were chosen for it by the residual."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from nedhpc.config import ResidualTable
from nedhpc.errors import NotAStateError
from nedhpc.sampling.adaptive import choose
from nedhpc.sampling.points import ADAPTED, Points, Sampler

if TYPE_CHECKING:  # importing MPI initialises it, and commands that only read need none
    from mpi4py import MPI


class Sample:
    """The points of the current draw.

    Args:
        comm: communicator; only a choice by the residual uses it.
        sampler: draws the points.
        by_residual: True if every draw but number 0 is chosen by the residual.
        settings: settings of rule `residual`.
        residual_size: |r| (N,) as a function of theta, the part's name and points (N, D).
    """

    def __init__(
        self,
        comm: MPI.Comm,
        sampler: Sampler,
        by_residual: bool,
        settings: ResidualTable,
        residual_size: Callable[[torch.Tensor, str, torch.Tensor], torch.Tensor],
    ) -> None:
        self.comm, self.sampler, self.settings = comm, sampler, settings
        self.by_residual = by_residual
        self.residual_size = residual_size
        self.points: dict[str, Points] = {}
        """This rank's share of the current draw; empty before the first."""
        self._number: int | None = None
        self._selection: dict[str, int | np.ndarray] = {}

    def at(self, draw: int, theta: torch.Tensor | None = None) -> bool:
        """Hold the points of a draw. Collective on comm if they are chosen by the residual.

        Args:
            draw: number of the draw.
            theta: parameters whose residual the points are chosen by. Draw 0 needs none.

        Returns:
            True if the points are new, False if that draw was held already.
        """
        if draw == self._number:
            return False
        selection = {}
        if self.by_residual and draw:
            index, weight = choose(
                self.comm, self.residual_size, theta, self.sampler, ADAPTED, draw, self.settings
            )
            selection = {"draw": draw, "index": index, "weight": weight}
        self._hold(draw, selection)
        return True

    def state(self) -> dict[str, int | np.ndarray]:
        """What was chosen by the residual, for a checkpoint: {} or {"draw", "index", "weight"}."""
        return self._selection

    def load(self, selection: dict[str, int | np.ndarray]) -> None:
        """Restore the points that a checkpoint's `state()` describes; {} changes nothing. Local.

        Raises:
            NotAStateError: they are not points of this sample's pool.
        """
        if not selection:
            return
        draw, index = int(selection["draw"]), selection["index"]
        count = self.sampler.count(ADAPTED, draw) if ADAPTED in self.sampler.counts else 0
        if len(index) != count or index[-1] >= self.settings.pool * count:
            raise NotAStateError("the checkpoint's chosen points are not those of this sample")
        self._hold(draw, selection)

    def _hold(self, draw, selection):
        chosen = {ADAPTED: (selection["index"], selection["weight"])} if selection else None
        self.points = self.sampler.draw(draw, chosen)
        self._number, self._selection = draw, selection
