"""A config made concrete on one rank: problem, network, energy, flow, sampler, and the error against the reference."""

import hashlib

import numpy as np
import torch

from nedhpc import problems
from nedhpc.ansatz import jets
from nedhpc.ansatz.mlp import MLP, ModuleNetwork
from nedhpc.errors import ConfigError, UsageError
from nedhpc.flows.descent import Flow
from nedhpc.flows.energy import Energy
from nedhpc.parallel.comm import block, total
from nedhpc.parallel.placement import choose_device
from nedhpc.problems.base import CrossEntropy
from nedhpc.sampling import adaptive
from nedhpc.sampling import points as sampling
from nedhpc.solvers import choose
from nedhpc.steppers.first_order import BASELINES

EVALUATION_CHUNK = 16384
ADAPTED = "interior"
"""The point set that rule `residual` chooses; the others stay Sobol sets."""


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
        elif problem.domain.face_dim(on) == 0:
            counts[on] = len(problem.domain.faces(on))  # the two ends
        elif given is None:
            errors.append(
                f"sampling.{on}: missing; the problem has terms on {on!r} and needs its number of points"
            )
        else:
            counts[on] = given
            if config.sampling.rule == "grid":
                try:
                    sampling.grid(problem.domain, on, given, 0, 0)
                except UsageError as error:
                    errors.append(str(error))
    if config.sampling.rule == "residual":
        inside = [term for term in problem.terms if term.on == ADAPTED]
        if not inside or not all(isinstance(term, problems.Residual) for term in inside):
            errors.append(
                f"sampling.rule = 'residual': needs nedhpc.Residual terms on {ADAPTED!r}, and none of another kind there; use 'sobol'"
            )
    if errors:
        raise ConfigError(errors)
    return counts


def make_network(config, problem):
    settings = config.network
    if settings.name is None:
        return MLP(
            problem.domain.dim,
            settings.hidden,
            len(problem.outputs),
            settings.activation,
            settings.init,
            settings.init_scale,
        )
    cls = problems.load_class(settings.name, torch.nn.Module, "network.name")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        module = cls()
    with torch.no_grad():
        shape = tuple(
            module.double()(torch.zeros(2, problem.domain.dim, dtype=torch.float64)).shape
        )
    if shape != (2, len(problem.outputs)):
        raise UsageError(
            f"network.name = {settings.name!r}: maps points of shape (2, {problem.domain.dim}) to {shape}; "
            f"needed is (2, {len(problem.outputs)})"
        )
    return ModuleNetwork(module, len(problem.outputs))


def choose_solver(config, energy, counts, num_ranks):
    """The solver's name; "none" for first-order steppers, which solve no system."""
    if config.stepper.type in BASELINES:
        return "none"
    return choose(
        config.solver.type,
        count_rows(energy.problem, counts),
        energy.num_parameters,
        num_ranks,
        config.flow.metric,
        energy.chunk,
        config.solver.krylov.rank,
        energy.point_bytes,
    )


def method(config, solver):
    """ "metric/stepper/solver"."""
    metric = "euclidean" if config.stepper.type in BASELINES else config.flow.metric
    return f"{metric}/{config.stepper.type}/{solver}"


def count_rows(problem, counts):
    """Rows of the scaled Jacobian, as `term_rows` takes them."""
    return sum(term_rows(problem, counts))


def term_rows(problem, counts):
    """Rows by term, taking one residual component a point, a logit an output (the choice of a solver needs no more)."""
    return [
        counts[term.on] * (len(problem.outputs) if isinstance(term, CrossEntropy) else 1)
        for term in problem.terms
    ]


def split_digest(data):
    """SHA-256 of a data set's split: the inputs trained on, then those held out."""
    digest = hashlib.sha256()
    for x_ND in (data.x_ND, data.held_out_x):
        digest.update(f"{x_ND.shape}".encode() + np.ascontiguousarray(x_ND, np.float64).tobytes())
    return digest.hexdigest()


class Case:
    """The objects of a run. Collective on comm."""

    def __init__(self, comm, config):
        self.comm, self.config = comm, config
        self.problem = problem = problems.build(config.problem.model_dump())
        self.user_files = problems.digests(config)
        self.data_digest = "" if problem.data is None else split_digest(problem.data)
        self.counts = point_counts(config, problem)
        self.network = make_network(config, problem)
        self.device = choose_device(comm, config.device.type, config.device.threads)
        self.dtype = getattr(torch, config.device.dtype)
        self.energy = Energy(problem, self.network, config.solver.chunk)
        self.solver = choose_solver(config, self.energy, self.counts, comm.size)
        factored = (
            self.solver == "dual"
            and config.flow.metric == "euclidean"
            and self.energy.factors_pay(term_rows(problem, self.counts))
        )
        self.flow = Flow(
            comm,
            self.energy,
            config.flow.metric,
            config.flow.metric_eps,
            self.solver,
            config.solver.rtol,
            config.solver.krylov,
            factored,
        )
        self.sampler = sampling.Sampler(
            comm.rank,
            comm.size,
            problem,
            self.counts,
            config.sampling.rule,
            config.run.seed,
            self.device,
            self.dtype,
            config.sampling.grow_draws,
        )
        self._drawn, self.selection = None, {}
        self._evaluation = self._evaluation_set()
        self._training = (
            None if problem.data is None else self._share(problem.data.x_ND, problem.data.y_NM)
        )

    def draw(self, number, parameters=None):
        """Put draw `number` in the flow; False if it was there already. Collective with rule `residual`, else local.

        That rule chooses by the residual at `parameters`; draw 0, which has none to go by, is a Sobol set.
        """
        if number == self._drawn:
            return False
        with self.flow.phases("sample"):
            selection = {}
            if self.config.sampling.rule == "residual" and number:
                index, weight = adaptive.choose(
                    self.comm,
                    self.energy,
                    parameters,
                    self.sampler,
                    ADAPTED,
                    number,
                    self.config.sampling.residual,
                )
                selection = {"draw": number, "index": index, "weight": weight}
            self._put(number, selection)
        return True

    def restore(self, selection):
        """Put the draw that a checkpoint's State.selection holds back in the flow. Local."""
        if selection:
            self._put(int(selection["draw"]), selection)

    def _put(self, number, selection):
        self._drawn, self.selection = number, selection
        self.flow.sample = self.sampler.draw(
            number, {ADAPTED: (selection["index"], selection["weight"])} if selection else None
        )

    def draw_number(self, step):
        every = self.config.sampling.resample_every
        return step // every if every else 0

    def parameters(self, state):
        """(theta, c) of a checkpoint.State as one tensor on the device."""
        return torch.as_tensor(
            np.concatenate([state.theta_P, list(state.coefficients.values())]),
            dtype=self.dtype,
            device=self.device,
        )

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
            x = x[slice(*block(len(x), self.comm.rank, self.comm.size))]
            u = problem.exact(x)
            return self._place(x, u.unsqueeze(1) if u.ndim == 1 else u)
        if problem.data is not None and len(problem.data.held_out_x):
            return self._share(problem.data.held_out_x, problem.data.held_out_y)
        return None

    def _share(self, *arrays):
        part = slice(*block(len(arrays[0]), self.comm.rank, self.comm.size))
        return self._place(*(torch.as_tensor(array[part]) for array in arrays))

    def _place(self, *tensors):
        return tuple(tensor.to(self.device, self.dtype) for tensor in tensors)

    def u(self, parameters, x_ND):
        """Network values (N, m). Local."""
        layout = jets.parse(self.problem.outputs, self.problem.outputs, self.problem.coordinates)
        theta_P = parameters[: self.energy.num_network]
        parts = [self.network.jets(theta_P, x, layout)[:, 0] for x in x_ND.split(EVALUATION_CHUNK)]
        return torch.cat(parts)

    def relative_l2(self, parameters):
        """|u - u*| / |u*| on the fixed evaluation set; None without a reference and for logits. Collective."""
        if self._evaluation is None or any(
            isinstance(term, CrossEntropy) for term in self.problem.terms
        ):
            return None
        x, exact = self._evaluation
        with torch.no_grad():
            difference = self.u(parameters, x) - exact if len(x) else exact
        squares = total(
            self.comm,
            [float(difference.double().square().sum()), float(exact.double().square().sum())],
        )
        return (
            float(np.sqrt(squares[0] / squares[1]))
            if squares[1] > 0
            else float(np.sqrt(squares[0]))
        )

    def metrics(self, parameters):
        """{name: mean} of the problem's metrics over the evaluation set, and of `train_name` over the training data. Collective."""
        found = {}
        for prefix, points in (("", self._evaluation), ("train_", self._training)):
            if points is None or not self.problem.has_metrics:
                continue
            x, y = points
            with torch.no_grad():
                values = self.problem.metrics(x, self.u(parameters, x), y)
            sums = total(
                self.comm, [len(x), *(float(value.double().sum()) for value in values.values())]
            )
            found |= {prefix + name: float(s / sums[0]) for name, s in zip(values, sums[1:])}
        return found
