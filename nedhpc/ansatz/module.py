"""Any torch module as an ansatz, through torch.func. It is slower than the MLP. Local."""

from math import inf

import numpy as np
import torch

from nedhpc.ansatz.algebra import function_jets
from nedhpc.ansatz.constraints import HardCondition
from nedhpc.ansatz.embeddings import Embedding
from nedhpc.ansatz.jets import JetLayout
from nedhpc.ansatz.layout import block_layout
from nedhpc.ansatz.linearisation import stacked
from nedhpc.ansatz.scaling import Scaling
from nedhpc.errors import UsageError


class ModuleNetwork:
    """u = offset + size module(x) for a torch module that maps (N, D) to (N, M) point by point.

    The module sees the coordinates in the user's units, since it may contain e.g. sin(x). The
    attribute `scaling`, of which only the outputs are used, may be changed between steps.

    Args:
        module: The module, whose parameters are evolved.
        num_outputs: M.
        embedding: A map of x that precedes the module.
        constraint: A last layer that makes u satisfy conditions exactly.

    Raises:
        UsageError: The module has no parameters.
    """

    scales_coordinates = False
    """False, because the module may contain functions of the user's coordinates."""
    linear_columns = None
    """None, because it is not known in which columns of theta u is linear."""
    slow = ""
    """Why the rows are computed by torch.func and not by layers, for messages."""

    def __init__(
        self,
        module: torch.nn.Module,
        num_outputs: int,
        embedding: Embedding | None = None,
        constraint: HardCondition | None = None,
    ):
        self.module, self.num_outputs = module.double(), num_outputs
        self.scaling = Scaling.identity(0, num_outputs)
        self.embedding, self.constraint = embedding, constraint
        self.layout = block_layout((name, p.shape) for name, p in module.named_parameters())
        if not self.layout:
            raise UsageError("network.name: the module has no parameters to evolve")
        self.num_parameters = self.layout[-1].end

    def initial(self, seed: int) -> np.ndarray:
        """The module's own parameters (P,), float64. The module was built with torch's seed set."""
        parameters = [p.detach().reshape(-1) for p in self.module.parameters()]
        return torch.cat(parameters).double().cpu().numpy()

    def values(self, theta_P: torch.Tensor, x_ND: torch.Tensor) -> torch.Tensor:
        """u, (N, M)."""
        parameters = {block.name: block.of(theta_P) for block in self.layout}
        h = self.embedding(x_ND) if self.embedding else x_ND
        v = torch.func.functional_call(self.module, parameters, (h,))
        u = self.scaling.sized([v])[0]
        return self.constraint(u, x_ND) if self.constraint else u

    def jets(self, theta_P: torch.Tensor, x_ND: torch.Tensor, layout: JetLayout) -> torch.Tensor:
        """Jet tensor (N, C, M). Arguments as for `MLP.jets`."""
        self._place(theta_P)
        if not len(x_ND):
            return x_ND.new_zeros(0, layout.num_channels, self.num_outputs)
        return self._jets(theta_P, x_ND, layout)

    def _jets(self, theta_P, x_ND, layout):
        return stacked(function_jets(lambda x: self.values(theta_P, x), x_ND, layout), len(x_ND))

    def _place(self, theta_P):
        """Bring the module's buffers and parameters to theta's device and dtype.

        It must not be called inside a transform of torch.func.
        """
        own = next(self.module.parameters())
        if (own.device, own.dtype) != (theta_P.device, theta_P.dtype):
            self.module.to(theta_P.device, theta_P.dtype)

    def point_bytes(self, layout: JetLayout) -> int:
        """Bytes of a point's jets, float64, without what the module keeps inside."""
        return 8 * layout.num_channels * self.num_outputs

    @staticmethod
    def factor_cost() -> float:
        """Infinite, because the rows are not known as outer products."""
        return inf

    def linearise(
        self, theta_P: torch.Tensor, x_ND: torch.Tensor, layout: JetLayout
    ) -> "ModuleLinearisation":
        """Jets together with their parameter Jacobian at theta. Arguments as for `jets`."""
        return ModuleLinearisation(self, theta_P, x_ND, layout)


class ModuleLinearisation:
    """The same as `Linearisation`, but computed by torch.func.vjp and without `factors`."""

    def __init__(self, network, theta_P, x_ND, layout):
        self.network, self.theta_P, self.x_ND, self.layout = network, theta_P, x_ND, layout
        self.j_NCM = network.jets(theta_P, x_ND, layout)

    @property
    def tape_bytes(self) -> int:
        """Bytes of this object, which holds only the jets."""
        return len(self.x_ND) * self.network.point_bytes(self.layout)

    def rows(self, seed_NCM: torch.Tensor, out: torch.Tensor, columns: slice | None = None):
        """The same as `Linearisation.rows`, for any slice of columns."""
        columns = slice(None) if columns is None else columns

        def row(x_D, seed_CM):
            _, pull = torch.func.vjp(
                lambda theta: self.network._jets(theta, x_D.unsqueeze(0), self.layout)[0],
                self.theta_P,
            )
            return pull(seed_CM)[0][columns]

        if len(self.x_ND):
            out[:] = torch.func.vmap(row)(self.x_ND, seed_NCM)
        return out

    def jvp(self, v_P: torch.Tensor) -> torch.Tensor:
        """d j / d theta . v, (N, C, M)."""
        return torch.func.jvp(
            lambda theta: self.network.jets(theta, self.x_ND, self.layout), (self.theta_P,), (v_P,)
        )[1]

    def vjp(self, seed_NCM: torch.Tensor) -> torch.Tensor:
        """sum_n rows(seed)[n], (P,)."""
        if not len(self.x_ND):
            return torch.zeros_like(self.theta_P)
        _, pull = torch.func.vjp(
            lambda theta: self.network.jets(theta, self.x_ND, self.layout), self.theta_P
        )
        return pull(seed_NCM)[0]
