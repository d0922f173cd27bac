"""Memory is what `nedhpc check` predicts, and it does not grow with the number of points.

In the dual form, it does not grow as P^2 either.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "bench_memory.py"
MIB = 2**20


def measure(**table):
    child = subprocess.run(
        [sys.executable, SCRIPT, "--child", json.dumps(table)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gram", "tsqr", "krylov"])
def test_large_rows_are_streamed(kind):
    """Rows of 0.36 GiB are held; rows of 1.43 GiB are recomputed chunk by chunk.

    The size of a chunk is bounded. Holes in the heap may add up to 100 MiB.
    """
    few, many = (
        measure(
            problem={"name": "poisson", "dim": 2},
            network={"hidden": [300]},
            sampling={"interior": n, "boundary": 400},
            solver={"type": kind, "krylov": {"rank": 4, "max_iterations": 2}},
        )
        for n in (40_000, 160_000)
    )
    assert many["measured"] < few["measured"] + 0.25 * 8 * many["P"] * (many["N"] - few["N"])
    assert many["measured"] < 1.2 * many["predicted"] + 100 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gram", "tsqr", "dual", "krylov"])
def test_check_predicts_the_memory_of_held_rows(kind):
    """With P = 2501 and N = 1700, P x P and N x N matrices are about as large as the rows."""
    found = measure(
        problem={"name": "poisson", "dim": 2},
        network={"hidden": [48, 48]},
        sampling={"interior": 1500, "boundary": 200},
        solver={"type": kind},
    )
    assert found["measured"] < 1.2 * found["predicted"] + 100 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gram", "tsqr"])
def test_check_predicts_the_memory_of_many_points(kind):
    """With P = 65 and N = 10^6, the copies of the rows count most."""
    found = measure(
        problem={"name": "poisson", "dim": 2},
        network={"hidden": [16]},
        sampling={"interior": 1_000_000, "boundary": 400, "rule": "sobol"},
        solver={"type": kind},
    )
    assert found["measured"] < 1.2 * found["predicted"] + 100 * MIB


@pytest.mark.slow
def test_dual_holds_no_parameter_matrix():
    """With P = 265,000, the rows need 0.2 GiB; a P x P matrix would need 500 GiB."""
    found = measure(
        problem={"name": "poisson", "dim": 10},
        network={"hidden": [512, 512]},
        sampling={"interior": 80, "boundary": 20},
        solver={"type": "dual"},
    )
    assert found["measured"] < 1.2 * found["predicted"] + 100 * MIB < 2**31
