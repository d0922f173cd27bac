"""The observer that keeps the states of a march at output.times. Collective."""

import numpy as np

from nedhpc.files import march
from nedhpc.parallel.comm import on_rank_0
from nedhpc.running.observers import Observer


class States(Observer):
    """Appends the parameters to march.h5 if a step has met one of output.times."""

    def start(self, run, moment):
        self._path = run.run_dir / march.NAME
        times, theta_KP = on_rank_0(run.comm, march.read, self._path)
        # A run that was killed may have stored states after its last checkpoint.
        kept = times <= moment.state.time * (1 + 1e-12) if run.is_resumed else slice(0)
        self._times, self._theta = list(times[kept]), list(theta_KP[kept])

    def step(self, run, moment):
        state = moment.state
        if not any(np.isclose(state.time, t, rtol=1e-12, atol=0) for t in run.config.output.times):
            return
        self._times.append(state.time)
        self._theta.append(state.theta_P)
        times, theta_KP = np.array(self._times), np.array(self._theta)
        run.writer.submit(lambda: march.write(self._path, times, theta_KP))
