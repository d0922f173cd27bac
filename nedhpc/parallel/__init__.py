"""Communicator helpers, placement of ranks, the parameter vector, PETSc and timing."""
