"""doctor, --version and completion: what is wrong is found, with its remedy."""

import os
import subprocess

import pytest

from nedhpc.cli import doctor
from nedhpc.cli.main import main, parser
from nedhpc.cli.versions import versions


def program(folder, name, text):
    """Put a shell script in front of PATH."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_nothing_is_wrong_here(tmp_path, monkeypatch, capsys):
    """The whole command: two ranks start, torch computes, a file is written and read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert main(["doctor"]) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    assert out.count("\n") == len(doctor.CHECKS) and "WRONG" not in out
    assert "PETSc sees them" in out and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "prints, remedy",
    [
        ("echo sizes 1 1; echo sizes 1 1", "another MPI than this mpirun"),
        ("echo sizes 2 1; echo sizes 2 1", "PETSc was built without this MPI"),
        ("echo 'mpirun was asked to run as root'; exit 1", "OMPI_ALLOW_RUN_AS_ROOT=1"),
        ("echo broken >&2; exit 1", "see the message"),
    ],
)
def test_a_wrong_mpi_is_found(prints, remedy, programs):
    program(programs, "mpirun", prints)
    assert remedy in doctor.mpi().remedy


def test_a_missing_mpi_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "load the MPI module" in doctor.mpi().remedy


def test_a_gpu_that_torch_does_not_see_is_found(programs, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    program(programs, "nvidia-smi", "for k in 1 2 3 4 5 6 7 8 9; do echo GPU $k: test; done")
    found = doctor.gpu()
    assert "nvidia-smi shows 9" in found.text and "NEDHPC_TORCH=torch" in found.remedy


def test_too_many_threads_are_found(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "100000")
    assert "unset OMP_NUM_THREADS" in doctor.threads().remedy
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert doctor.threads().remedy == ""


def test_srun_without_a_plugin_is_wrong_only_if_it_is_used(programs, monkeypatch):
    program(programs, "sbatch", "")
    program(programs, "srun", "echo MPI plugin types are...; echo none")
    monkeypatch.delenv("NEDHPC_LAUNCHER", raising=False)
    assert "no PMI plugin" in doctor.slurm().text and doctor.slurm().remedy == ""
    monkeypatch.setenv("NEDHPC_LAUNCHER", "srun")
    assert "unset NEDHPC_LAUNCHER" in doctor.slurm().remedy
    program(programs, "srun", "echo pmix")
    assert doctor.slurm().remedy == ""


def test_a_full_disk_and_a_lost_folder_are_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "MIN_DISK", 2**80)
    assert "free space" in doctor.disk().remedy
    lost = tmp_path / "lost"
    lost.mkdir()
    monkeypatch.setattr(doctor.tempfile, "TemporaryDirectory", refused)
    assert "--out FOLDER" in doctor.hdf5().remedy
    monkeypatch.setattr(doctor, "CHECKS", (doctor.disk, doctor.threads))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert main(["doctor"]) == 1
    shown = capsys.readouterr()
    assert "WRONG  disk" in shown.out and "mend it: free space" in shown.out
    assert "1 of 2 checks failed" in shown.err


def refused(**options):
    raise PermissionError(13, "Permission denied")


def test_a_library_that_is_missing_is_found(monkeypatch):
    monkeypatch.setattr(doctor, "versions", lambda: {"torch": doctor.MISSING, "numpy": "2"})
    assert "install torch: run `scripts/setup`" in doctor.packages().remedy


def test_versions_are_those_of_the_libraries(capsys):
    import h5py
    import torch
    from mpi4py import MPI

    from nedhpc.parallel.petsc import PETSc

    found = versions()
    assert found["torch"] == torch.__version__ and found["HDF5"] == h5py.version.hdf5_version
    assert found["CUDA of torch"].startswith(str(torch.version.cuda or "none"))
    assert found["PETSc"] == ".".join(map(str, PETSc.Sys.getVersion()))
    assert MPI.Get_library_version().startswith(found["MPI"])
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.splitlines() == [f"{k} {text}" for k, text in found.items()]


def test_bash_completes_commands_options_and_files(tmp_path, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "case.toml").touch()

    def completed(*words):
        code = (
            f"source ./script; COMP_WORDS=(nedhpc {' '.join(words)}); "
            "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _shtab_nedhpc; printf '%s\\n' ${COMPREPLY[@]}"
        )
        shell = ["bash", "-O", "extglob", "-c", code]
        done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        return done.stdout.split()

    commands = set(next(iter(parser()._subparsers._group_actions)).choices)
    assert set(completed("''")) >= commands
    assert completed("run", "--o") == ["--out"]
    assert completed("init", "plate", "--kind", "m") == ["march"]
    assert "case.toml" in completed("run", "ca")
