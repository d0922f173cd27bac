"""The trained network of a run as a callable u(x), without MPI."""

from pathlib import Path

import numpy as np
import torch

from nedhpc import config, problems
from nedhpc.ansatz import jets
from nedhpc.files import checkpoint, series
from nedhpc.run.case import make_network


class Solution:
    """u(x) of a run folder or checkpoint: x (N, d) -> (N, m), numpy; `.series` holds the time series of a folder."""

    def __init__(self, path):
        path = Path(path)
        self.run_dir = path if path.is_dir() else path.parent
        if path.is_dir():
            _, self.state, self.about, _ = checkpoint.newest(path)
        else:
            self.state, self.about = checkpoint.read(path)
        self.config = config.validate(config.tomllib.loads(self.about["config"]), path)
        problems.check_unchanged(self.config, self.about["user_files"])
        self.problem = problems.build(self.config.problem.model_dump())
        self.network = make_network(self.config, self.problem)
        file = self.run_dir / "series.h5"
        self.series = series.read(file) if file.exists() else {}

    def __call__(self, x):
        x_ND = torch.as_tensor(np.asarray(x, float))
        layout = jets.parse(self.problem.outputs, self.problem.outputs, self.problem.coordinates)
        return self.network.jets(torch.as_tensor(self.state.theta_P), x_ND, layout)[:, 0].numpy()

    def exact(self, x):
        """The reference at x, (N, m), or None."""
        if not self.problem.has_exact:
            return None
        u = np.asarray(self.problem.exact(torch.as_tensor(np.asarray(x, float))))
        return u[:, None] if u.ndim == 1 else u
