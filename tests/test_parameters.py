"""PETSc holds all parameters on rank 0; every rank has them as the same tensor."""

import numpy as np
import pytest
import torch

from nedhpc.parallel.parameters import Parameters

pytestmark = pytest.mark.mpi


@pytest.fixture(params=[torch.float64, torch.float32])
def parameters(comm, request):
    return Parameters(comm, 5, ("nu", "k"), request.param, "cpu")


def test_split_undoes_join(parameters):
    theta_P = np.arange(5.0)
    joined = parameters.join(theta_P, {"k": 0.5, "nu": 0.25})  # matched by name
    assert joined.dtype == parameters.dtype and joined[5:].tolist() == [0.25, 0.5]
    found, coefficients = parameters.split(joined)
    assert found.dtype == np.float64 and np.array_equal(found, theta_P)
    assert list(coefficients.items()) == [("nu", 0.25), ("k", 0.5)]
    assert parameters.num_parameters == 7


def test_a_vec_holds_all_entries_on_rank_0(comm, parameters):
    vec = parameters.create_vec()
    try:
        assert vec.getSize() == 7 and vec.getLocalSize() == (7 if comm.rank == 0 else 0)
        # Only the values of rank 0 are stored.
        parameters.store(vec, torch.arange(7, dtype=parameters.dtype) + 100 * comm.rank)
        loaded = parameters.load(vec)
        assert loaded.dtype == parameters.dtype and loaded.tolist() == list(range(7))
        assert vec.norm() == np.linalg.norm(np.arange(7.0))
    finally:
        vec.destroy()


def test_split_is_a_copy(parameters):
    joined = parameters.join(np.zeros(5), {"nu": 0.0, "k": 0.0})
    theta_P, _ = parameters.split(joined)
    theta_P[:] = 1
    assert not joined.any()
