#!/usr/bin/env python
"""Compute the reference of the problem `cavity`: nedhpc/problems/cavity_re_100.csv.

    scripts/cavity_reference.py            # print its convergence
    scripts/cavity_reference.py --write    # write the file, too

The stream function psi is a lift that has the velocity of the lid, plus a sum of products of
polynomials that vanish with their slopes on the walls. Galerkin's method makes
nu lap psi lap phi + lap psi (u phi_x + v phi_y), with u = psi_y and v = -psi_x, have the integral
zero for each product phi; Newton's method solves for the coefficients.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.polynomial import Legendre, Polynomial
from numpy.polynomial.legendre import leggauss

FILE = Path(__file__).resolve().parent.parent / "nedhpc" / "problems" / "cavity_re_100.csv"
NU = 0.01
COUNTS = (10, 15, 20, 25, 30, 35)
"""Numbers of polynomials in each direction; the last one makes the file."""
SIDE = 21
"""The file has SIDE x SIDE points: an even grid, walls included."""
ORDERS = {"psi": (0, 0), "x": (1, 0), "y": (0, 1), "xx": (2, 0), "yy": (0, 2)}
"""The derivatives that are used, by their orders in x and y."""


def polynomials(count, x):
    """Derivatives 0, 1, 2 of the polynomials at points x in (0, 1), (3, N, count).

    The second derivatives are Legendre polynomials of degree 2, 3, ..., so that values and slopes
    vanish at both ends.
    """
    each = [Legendre.basis(k + 2, [0, 1]).integ(2, lbnd=0) for k in range(count)]
    return np.array([[p.deriv(order)(x) for p in each] for order in range(3)]).swapaxes(1, 2)


def lift(x, y):
    """Derivatives of 16 x^2 (1 - x)^2 y^2 (y - 1), {name: (N,)}."""
    along, up = Polynomial([0, 0, 16, -32, 16]), Polynomial([0, 0, -1, 1])
    return {name: along.deriv(i)(x) * up.deriv(k)(y) for name, (i, k) in ORDERS.items()}


def stream_function(count):
    """The coefficients (count^2,) of the products."""
    nodes, weights = leggauss(count + 10)
    nodes, w = (nodes + 1) / 2, np.kron(weights, weights)[:, None]
    x, y = (a.ravel() for a in np.meshgrid(nodes, nodes, indexing="ij"))
    one, fixed = polynomials(count, nodes), lift(x, y)
    phi = {name: np.kron(one[i], one[k]) for name, (i, k) in ORDERS.items()}
    lap, c = phi["xx"] + phi["yy"], np.zeros(count**2)
    for _ in range(30):
        psi = {name: (phi[name] @ c + fixed[name])[:, None] for name in ORDERS}
        omega, carried = psi["xx"] + psi["yy"], psi["y"] * phi["x"] - psi["x"] * phi["y"]
        residual = (w * (NU * lap + carried)).T @ omega
        slope = (w * (NU * lap + carried)).T @ lap
        slope += (w * omega * phi["x"]).T @ phi["y"] - (w * omega * phi["y"]).T @ phi["x"]
        step = np.linalg.solve(slope, -residual[:, 0])
        c += step
        if np.abs(step).max() < 1e-12 * np.abs(c).max():
            return c
    raise RuntimeError(f"Newton's method does not converge with {count} polynomials")


def reference(count):
    """x, y, u, v on the grid, (SIDE^2, 4)."""
    side, c = np.linspace(0, 1, SIDE), stream_function(count)
    x, y = (a.ravel() for a in np.meshgrid(side, side, indexing="ij"))
    one, fixed = polynomials(count, side), lift(x, y)
    u = np.kron(one[0], one[1]) @ c + fixed["y"]
    v = -np.kron(one[1], one[0]) @ c - fixed["x"]
    return np.stack([x, y, u, v], 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write {FILE.name}")
    write, found = parser.parse_args().write, [reference(count) for count in COUNTS]
    for count, table in zip(COUNTS, found[:-1]):
        change = np.abs(table - found[-1]).max()
        print(f"{count} polynomials: the velocity differs from the last by at most {change:.1e}")
    if write:
        table = found[-1].round(12) + 0.0  # without -0
        np.savetxt(FILE, table, "%.12g", ",", header="x,y,u,v", comments="")


if __name__ == "__main__":
    main()
