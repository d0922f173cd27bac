"""The network of a config's table [network], with what the program chooses. Local."""

from collections.abc import Sequence

import numpy as np
import torch

from nedhpc.ansatz import embeddings
from nedhpc.ansatz.constraints import Singular
from nedhpc.ansatz.mlp import MLP
from nedhpc.ansatz.module import ModuleNetwork
from nedhpc.ansatz.traced import NotLayersError, TracedNetwork
from nedhpc.config import Config
from nedhpc.errors import UsageError
from nedhpc.problems import construct
from nedhpc.problems.base import Problem
from nedhpc.problems.conditions import hard_layer, some_points
from nedhpc.user_calls import called
from nedhpc.user_code import load_class

USUAL_ACTIVATION = "tanh"


def with_network(config: Config, problem: Problem) -> Config:
    """The config with the hidden layers that are chosen if it names none. Local.

    In one coordinate one layer is enough, and its last-layer fit is nearly exact. In more, two
    layers of 24 units resolve fronts that one layer of 64 does not, for as many parameters.
    """
    if config.network.hidden is not None or config.network.name is not None:
        return config
    hidden = [64] if problem.domain.dim == 1 else [24, 24]
    network = config.network.model_copy(update={"hidden": hidden})
    return config.model_copy(update={"network": network})


def make_network(config: Config, problem: Problem):
    """The ansatz of the config's [network]: constraint(x, network(embedding(x))). Local.

    Raises:
        ConfigError: the user's network class is missing, or its constructor raises.
        UsageError: the user's network returns a wrong shape, or the embedding does not fit.
    """
    settings, domain, seed = config.network, problem.domain, config.run.seed
    num_outputs, embedding = len(problem.outputs), make_embedding(config, problem)
    constraint = hard_layer(problem)
    if settings.name is None:
        return MLP(
            domain.dim,
            settings.hidden,
            num_outputs,
            settings.activation or USUAL_ACTIVATION,
            settings.init,
            settings.init_scale,
            embedding=embedding,
            constraint=constraint,
            singular=make_singular(problem),
        )
    if problem.has_singular:
        raise UsageError(
            f"network.name = {settings.name!r}: `singular` needs the built-in network; add these "
            "functions in your network's forward, or remove `network.name`"
        )
    cls = load_class(settings.name, torch.nn.Module, "network.name")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = construct(cls, dict(settings.arguments), "network.arguments", settings.name)
    width = domain.dim if embedding is None else embedding.width
    x = torch.zeros(2, width, dtype=torch.float64)
    with torch.no_grad():
        u = called(f"network.name = {settings.name!r}: its forward", module.double(), x)
    shape = tuple(u.shape) if isinstance(u, torch.Tensor) else type(u).__name__
    if shape != (2, num_outputs):
        name, given = settings.name, (2, width)
        raise UsageError(
            f"network.name = {name!r}: maps {given} to {shape}; needed is (2, {num_outputs})"
        )
    try:
        return TracedNetwork(module, num_outputs, domain.dim, embedding, constraint)
    except NotLayersError as error:
        found = ModuleNetwork(module, num_outputs, embedding, constraint)
        found.slow = str(error)
        return found


def make_singular(problem: Problem) -> Singular | None:
    """The layer of the problem's singular functions; None if it has none. Local.

    Raises:
        UsageError: `singular` does not return (N, F) float64 numbers that are finite.
    """
    if not problem.has_singular:
        return None
    x = some_points(problem.domain.parts["interior"])
    s = called("`singular`", problem.singular, x)
    if not (
        isinstance(s, torch.Tensor)
        and s.ndim == 2
        and len(s) == len(x)
        and s.shape[1]
        and s.dtype == torch.float64
        and s.isfinite().all()
    ):
        shape = tuple(getattr(s, "shape", ()))
        raise UsageError(
            f"`singular` returns {type(s).__name__} {shape} for {len(x)} points of the interior; "
            f"needed is a tensor ({len(x)}, F) of finite float64 numbers with a column for each "
            "function"
        )
    return Singular(problem.singular, s.shape[1])


def singular_coefficients(ansatz, outputs: Sequence[str], theta_P: np.ndarray) -> dict[str, float]:
    """The trained coefficients of singular functions, {"singular_u_1": value}. Local.

    Args:
        ansatz: of `make_network`.
        outputs: names of the outputs.
        theta_P: parameters of the network, (P,).
    """
    if not isinstance(ansatz, MLP):
        return {}
    C_MF = ansatz.singular_coefficients(theta_P)
    return {
        f"singular_{output}_{k + 1}": float(C_F[k])
        for output, C_F in zip(outputs, C_MF, strict=True)
        for k in range(len(C_F))
    }


def make_embedding(config: Config, problem: Problem):
    """The embedding that precedes the network: periodic waves, Fourier features or None. Local.

    Raises:
        UsageError: the domain is periodic and the config asks for another embedding.
    """
    settings, domain = config.network, problem.domain
    is_periodic = any(period is not None for period in domain.periods)
    if is_periodic and settings.embedding != "none":
        raise UsageError(
            f"network.embedding = {settings.embedding!r}: the domain is periodic, and an embedding "
            'of its own makes the solution periodic; use embedding = "none"'
        )
    if is_periodic:
        return embeddings.periodic(domain.periods, settings.periodic.harmonics)
    if settings.embedding == "fourier":
        features = settings.fourier
        return embeddings.fourier(
            domain.dim, features.num_features, features.scale, config.run.seed
        )
    return None
