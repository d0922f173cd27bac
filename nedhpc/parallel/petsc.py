"""PETSc for the whole package: `from nedhpc.parallel.petsc import PETSc` is the only import of it.

The first import of petsc4py.PETSc initialises PETSc. By default PETSc then installs handlers for
SIGTERM, SIGHUP, SIGPIPE and others, which end the process without a checkpoint;
`-no_signal_handler` leaves all signals as they are. By default PETSc also reads .petscrc of the
current folder, which may belong to somebody else; `-skip_petscrc` reads no such file.
"""

import os

import petsc4py

from nedhpc.parallel.petsc_options import check_environment

check_environment(os.environ)
petsc4py.init(["nedhpc", "-no_signal_handler", "-skip_petscrc"])

from petsc4py import PETSc  # noqa: E402

__all__ = ["PETSc"]
