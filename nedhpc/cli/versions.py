"""Versions of nedhpc and of the libraries that it computes with, found without starting any. Local.

Importing torch takes seconds, and importing petsc4py.PETSc or mpi4py.MPI starts MPI.
"""

import importlib.util
import re
import runpy
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

MISSING = "is not installed"


def versions() -> dict[str, str]:
    """{library: version}, with MISSING for those that are not there."""
    found = {name: _package(name) for name in ("nedhpc", "torch", "numpy")}
    found["CUDA of torch"] = _cuda()
    found["PETSc"] = _petsc()
    found |= {name: _package(name) for name in ("petsc4py", "mpi4py")}
    found["MPI"] = _mpi()
    found["h5py"], found["HDF5"] = _package("h5py"), _hdf5()
    return found


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return MISSING


def _cuda() -> str:
    """The CUDA version of torch's build, from the file that torch keeps it in."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return MISSING
    cuda = runpy.run_path(str(Path(spec.origin).with_name("version.py"))).get("cuda")
    return cuda or "none: torch is a build for CPUs"


def _petsc() -> str:
    """PETSc's version, from its header; that of petsc4py if there is no header."""
    try:
        import petsc4py

        folder = petsc4py.get_config()["PETSC_DIR"]
        text = Path(folder, "include", "petscversion.h").read_text()
    except ImportError:
        return MISSING
    except (OSError, KeyError):
        return f"{_package('petsc4py')}, by petsc4py"
    parts = ("MAJOR", "MINOR", "SUBMINOR")
    return ".".join(re.findall(rf"#define PETSC_VERSION_{part}\s+(\d+)", text)[0] for part in parts)


def _mpi() -> str:
    """The name and version of the MPI library, which this loads and does not start."""
    try:
        import mpi4py

        if "mpi4py.MPI" not in sys.modules:
            mpi4py.rc.initialize = mpi4py.rc.finalize = False
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        return f"cannot be loaded: {error}"
    return MPI.Get_library_version().split("\0")[0].splitlines()[0].split(", package")[0]


def _hdf5() -> str:
    try:
        import h5py
    except ImportError:
        return MISSING
    return h5py.version.hdf5_version
