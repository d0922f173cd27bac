"""A config made concrete on one rank: problem, network, energy, flow, sampler, and the error against the reference."""


import numpy as np
import torch

from nedhpc import jets, problems, sampling
from nedhpc.energy import Energy
from nedhpc.errors import ConfigError, UsageError
from nedhpc.flow import Flow
from nedhpc.networks import MLP, ModuleNetwork
from nedhpc.parallel import block, choose_device, total
from nedhpc.solvers import choose

EVALUATION_CHUNK = 16384


def point_counts(config, problem):
    """{point set: global number of points} for the sets that the problem's terms use."""
    counts, errors = {}, []
    for on in dict.fromkeys(term.on for term in problem.terms):
        given = getattr(config.sampling, on)
        if on == "data":
            most = len(problem.data.x_ND)
            if given is not None and given > most:
                errors.append(f"sampling.data = {given}: the data set has {most} rows to train on")
            counts[on] = given or most
        elif on == "boundary" and problem.domain.dim == 1:
            counts[on] = 2  # the two ends
        elif given is None:
            errors.append(f"sampling.{on}: missing; the problem has terms on {on!r} and needs its number of points")
        else:
            counts[on] = given
            if config.sampling.rule == "grid":
                try:
                    sampling.grid(problem.domain, on, given, 0, 0)
                except UsageError as error:
                    errors.append(str(error))
    if errors:
        raise ConfigError(errors)
    return counts


def make_network(config, problem):
    settings = config.network
    if settings.name is None:
        return MLP(problem.domain.dim, settings.hidden, len(problem.outputs), settings.activation, settings.init, settings.init_scale)
    cls = problems.load_class(settings.name, torch.nn.Module, "network.name")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        module = cls()
    with torch.no_grad():
        shape = tuple(module.double()(torch.zeros(2, problem.domain.dim, dtype=torch.float64)).shape)
    if shape != (2, len(problem.outputs)):
        raise UsageError(f"network.name = {settings.name!r}: maps points of shape (2, {problem.domain.dim}) to {shape}; "
                         f"needed is (2, {len(problem.outputs)})")
    return ModuleNetwork(module, len(problem.outputs))


def count_rows(problem, counts):
    """Rows of the scaled Jacobian, taking one residual component a term (the choice of a solver needs no more)."""
    return sum(counts[term.on] for term in problem.terms)


class Case:
    """The objects of a run. Collective on comm."""

    def __init__(self, comm, config):
        self.comm, self.config = comm, config
        self.problem = problem = problems.build(config.problem.model_dump())
        self.user_files = problems.digests(config)
        self.counts = point_counts(config, problem)
        self.network = make_network(config, problem)
        self.device = choose_device(comm, config.device.type, config.device.threads)
        self.dtype = getattr(torch, config.device.dtype)
        self.energy = Energy(problem, self.network, config.solver.chunk)
        self.solver = choose(config.solver.type, count_rows(problem, self.counts), self.energy.num_parameters, comm.size,
                             config.flow.metric, self.energy.chunk, config.solver.krylov.rank, self.energy.point_bytes)
        self.flow = Flow(comm, self.energy, config.flow.metric, config.flow.metric_eps, self.solver, config.solver.rtol, config.solver.krylov)
        self.sampler = sampling.Sampler(comm.rank, comm.size, problem, self.counts, config.sampling.rule, config.run.seed,
                                        self.device, self.dtype)
        self._drawn = None
        self._evaluation = self._evaluation_set()

    def draw(self, number):
        """Put draw `number` in the flow; False if it was there already. Local."""
        if number == self._drawn:
            return False
        with self.flow.phases("sample"):
            self._drawn, self.flow.sample = number, self.sampler.draw(number)
        return True

    def draw_number(self, step):
        every = self.config.sampling.resample_every
        return step // every if every else 0

    def parameters(self, state):
        """(theta, c) of a checkpoint.State as one tensor on the device."""
        return torch.as_tensor(np.concatenate([state.theta_P, list(state.coefficients.values())]), dtype=self.dtype, device=self.device)

    def split(self, parameters):
        """(theta_P, {coefficient: value}) of one vector, float64 numpy."""
        values = parameters.double().cpu().numpy()
        P = self.energy.num_network
        return values[:P].copy(), dict(zip(self.problem.coefficients, map(float, values[P:])))

    def _evaluation_set(self):
        """This rank's share of (x, reference), or None."""
        problem = self.problem
        if problem.has_exact:
            x = torch.as_tensor(sampling.evaluation_points(problem.domain))
            start, stop = block(len(x), self.comm.rank, self.comm.size)
            x = x[start:stop]
            u = problem.exact(x)
            u = u.unsqueeze(1) if u.ndim == 1 else u
        elif problem.data is not None and len(problem.data.held_out_x):
            start, stop = block(len(problem.data.held_out_x), self.comm.rank, self.comm.size)
            x, u = (torch.as_tensor(part[start:stop]) for part in (problem.data.held_out_x, problem.data.held_out_y))
        else:
            return None
        return x.to(self.device, self.dtype), u.to(self.device, self.dtype)

    def u(self, parameters, x_ND):
        """Network values (N, m). Local."""
        layout = jets.parse(self.problem.outputs, self.problem.outputs, self.problem.coordinates)
        theta_P = parameters[:self.energy.num_network]
        parts = [self.network.jets(theta_P, x, layout)[:, 0] for x in x_ND.split(EVALUATION_CHUNK)]
        return torch.cat(parts)

    def relative_l2(self, parameters):
        """|u - u*| / |u*| on the fixed evaluation set, None without a reference. Collective."""
        if self._evaluation is None:
            return None
        x, exact = self._evaluation
        with torch.no_grad():
            difference = self.u(parameters, x) - exact if len(x) else exact
        squares = total(self.comm, [float(difference.double().square().sum()), float(exact.double().square().sum())])
        return float(np.sqrt(squares[0] / squares[1])) if squares[1] > 0 else float(np.sqrt(squares[0]))
