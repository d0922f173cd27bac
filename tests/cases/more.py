"""Problems in the units in which people write them; the sizes of their quantities differ much."""

import torch

import nedhpc


class Beam(nedhpc.Problem):
    """A beam on two supports under an even load: E I w'' = -M, M'' = -q, w = M = 0 at both ends.

    In m, N and N m. The deflection is 1 cm and the moment 10 kN m.
    """

    outputs = ("w", "M")
    length, stiffness, load = 4.0, 2.1e11 * 8e-6, 5e3
    domain = nedhpc.Box([0.0], [length])

    @nedhpc.residual("interior")
    def balance(self, j):
        return torch.stack([self.stiffness * j.w_xx + j.M, j.M_xx + self.load], 1)

    @nedhpc.residual("boundary")
    def supports(self, j):
        return torch.stack([j.w, j.M], 1)


class Logistic(nedhpc.Problem):
    """N' = r N (1 - N / K), N(0) = 1e4; the capacity K is a million."""

    outputs = ("N",)
    rate, capacity, first, end = 0.8, 1e6, 1e4, 15.0
    domain = nedhpc.SpaceTime([], [], end)

    @nedhpc.residual("interior")
    def growth(self, j):
        return j.N_t - self.rate * j.N * (1 - j.N / self.capacity)

    @nedhpc.residual("initial")
    def start(self, j):
        return j.N - self.first


class MichaelisMenten(nedhpc.Problem):
    """S' = -V S / (K + S), S(0) = 1e-3, in mol/l and s."""

    outputs = ("S",)
    fastest, half, first, end = 2e-6, 2.5e-4, 1e-3, 1000.0
    domain = nedhpc.SpaceTime([], [], end)

    @nedhpc.residual("interior")
    def reaction(self, j):
        return j.S_t + self.fastest * j.S / (self.half + j.S)

    @nedhpc.residual("initial")
    def start(self, j):
        return j.S - self.first


class Pendulum(nedhpc.Problem):
    """angle'' = -(g / l) sin angle from an angle of 1.5 at rest, about five periods."""

    outputs = ("angle",)
    gravity, length, first, end = 9.81, 1.0, 1.5, 11.6
    domain = nedhpc.SpaceTime([], [], end)

    @nedhpc.residual("interior")
    def swing(self, j):
        return j.angle_tt + self.gravity / self.length * torch.sin(j.angle)

    @nedhpc.residual("initial")
    def start(self, j):
        return torch.stack([j.angle - self.first, j.angle_t], 1)


class Channel(nedhpc.Problem):
    """v c' = D c'' in a channel of a micrometre, c = 0 and 5 mol/m^3 at its ends; v L / D = 10."""

    outputs = ("c",)
    length, speed, diffusivity, last = 1e-6, 1e-2, 1e-9, 5.0
    domain = nedhpc.Box([0.0], [length])

    @nedhpc.residual("interior")
    def transport(self, j):
        return self.speed * j.c_x - self.diffusivity * j.c_xx

    @nedhpc.residual("boundary")
    def ends(self, x, j):
        return j.c - self.last * (x[:, 0] > self.length / 2)


class Wall(nedhpc.Problem):
    """A wall of 10 cm cools from both sides: rho c T_t = k T_xx, k T_n = h (300 - T) at the faces.

    In SI units; it starts at 300 K + 60 K cos(mu x / half), where mu tan mu = h half / k = 1.
    """

    outputs = ("T",)
    half, end, outside, above, mu = 0.05, 3600.0, 300.0, 60.0, 0.8603335890193798
    capacity, conductivity, transfer = 2e6, 1.0, 20.0
    domain = nedhpc.SpaceTime([-half], [half], end)

    @nedhpc.residual("interior")
    def conduction(self, j):
        return self.capacity * j.T_t - self.conductivity * j.T_xx

    @nedhpc.residual("boundary")
    def faces(self, j, n):
        return self.conductivity * n[:, 0] * j.T_x + self.transfer * (j.T - self.outside)

    @nedhpc.residual("initial")
    def start(self, x, j):
        return j.T - self.outside - self.above * torch.cos(self.mu * x[:, 0] / self.half)


class Brusselator(nedhpc.Problem):
    """u' = 1 + u^2 v - 4 u, v' = 3 u - u^2 v, u(0) = 1.5, v(0) = 3: a limit cycle."""

    outputs = ("u", "v")
    end = 10.0
    domain = nedhpc.SpaceTime([], [], end)

    @nedhpc.residual("interior")
    def reaction(self, j):
        cubic = j.u**2 * j.v
        return torch.stack([j.u_t - 1 - cubic + 4 * j.u, j.v_t - 3 * j.u + cubic], 1)

    @nedhpc.residual("initial")
    def start(self, j):
        return torch.stack([j.u - 1.5, j.v - 3], 1)
