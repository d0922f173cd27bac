"""PETSc options: no one imports a module, runs a program or opens a connection."""

import subprocess
import sys

import pytest
from conftest import make_config, make_table
from processes import ROOT, run

from nedhpc import config, steppers
from nedhpc.errors import ConfigError, UsageError
from nedhpc.parallel.petsc_options import check_environment
from nedhpc.steppers.options import stepper_options

POISSON = ROOT / "configs" / "poisson_1d.toml"
FOREIGN = [
    "-ts_python_type os.X",
    "-TS_Python_Type os.X",
    "-mat_type python",
    "-mat_python_type os.X",
    "-pc_type python",
    "-pc_type PYTHON",
    "-pc_type shell",
    "-pc_type",
    "-pc_python_type os.X",
    "-snes_type python",
    "-snes_type shell",
    "-snes_python_type os.X",
    "-snes_linesearch_python_type os.X",
    "-snes_linesearch_type shell",
    "-ksp_type python",
    "-ksp_python_type os.X",
    "-ksp_gmres_python_type os.X",
    "-ts_adapt_python_type os.X",
    "-ts_monitor_python os.f",
    "-snes_monitor_python os.f",
    "-ned0_ts_python_type os.X",
    "-ned0_ts_type python",
    "-sub_pc_type python",
    "-ts_monitor 'ascii:|touch x'",
    "-ts_monitor '|touch x'",
    "-ts_view 'ascii:x.txt;touch y.gz'",
    "-ts_view ascii:x.gz",
    "-ts_view ascii:/etc/x.txt",
    "-ts_view ascii:../x.txt",
    "-ts_view ascii:.x.txt",
    "-ts_view ascii:train.py",
    "-ts_view socket:host:80",
    "-ts_view draw",
    "-ts_view saws",
    "-ts_view binary:x.txt",
    "-snes_view python:os",
    "-ts_save_trajectory",
    "-ts_trajectory_dirname x",
    "-options_file x",
    "-options_file_yaml x",
    "-options_string_yaml x",
    "-options_view ascii:x",
    "-prefix_push ned0_",
    "-on_error_attach_debugger",
    "-on_error_abort",
    "-start_in_debugger noxterm",
    "-stop_for_debugger",
    "-dll_prepend x.so",
    "-log_view",
    "-log_trace x",
    "-info x",
    "-help",
    "-malloc_dump",
    "-ksp_type [/tmp/lib.so]x",
]


@pytest.mark.parametrize("text", FOREIGN)
def test_options_that_may_run_code_or_do_nothing_are_refused(text):
    with pytest.raises(UsageError, match="not supported"):
        stepper_options(text)
    with pytest.raises(ConfigError, match=r"stepper.petsc_options: .* not supported"):
        steppers.settings(make_config(stepper={"type": "rk", "petsc_options": text}).stepper)


@pytest.mark.parametrize(
    "text",
    [
        "-ts_rk_type 5dp -ts_rtol 1e-8 -ts_adapt_type basic -ts_adapt_clip .5,2 -ts_monitor",
        "-snes_mf_operator -ksp_type gmres -ksp_rtol 1e-3 -ksp_gmres_restart 30 -pc_type none",
        "-ts_view ascii -snes_monitor ascii:::append -ksp_view ::ascii_info_detail",
        "-ts_monitor 'ascii:my file.txt' -ts_view ascii:a-1.log::append -mat_mffd_type ds",
        "-snes_linesearch_type basic -snes_lag_jacobian -2 -ts_exact_final_time stepover",
    ],
)
def test_options_of_the_integrator_are_supported(text):
    assert stepper_options(text)


def test_options_of_the_command_line_do_not_hide_an_error_of_the_config(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('stepper = 5\n[problem]\nname = "poisson"\n')
    with pytest.raises(ConfigError, match="stepper"):
        config.load(path, petsc_options=["-ts_rtol", "1"])
    table = make_table(stepper={"petsc_options": "-ts_view 'a"})
    table = config.with_petsc_options(table, ["-ts_rtol", "1"])
    with pytest.raises(ConfigError, match="quotation"):
        steppers.settings(config.validate(table).stepper)


@pytest.mark.parametrize(
    "options, part",
    [
        (["-ts_python_type", "planted.X"], "-ts_python_type"),
        (["-ts_type", "python"], "stepper.type"),
        (["5"], "'5' is a value without an option"),
        (["-ts_monitor", "'a"], "-ts_monitor 'a"),
    ],
)
def test_check_names_a_refused_option(tmp_path, options, part):
    (tmp_path / "planted.py").write_text("open('ran', 'w')\n")
    env = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    code, _, err = run("check", POISSON, "--", *options, cwd=tmp_path, env=env)
    assert code == 2 and part in err and "Traceback" not in err, err
    assert not (tmp_path / "ran").exists()


def test_options_of_a_checkpoint_are_checked_on_resume(tmp_path):
    """An option that an older version wrote into a run is refused when the run continues."""
    from mpi4py import MPI

    from nedhpc import api
    from nedhpc.files import checkpoint

    out = tmp_path / "run"
    api.run(make_config(run={"max_steps": 1}), out, MPI.COMM_SELF)
    _, state, record, _ = checkpoint.newest(out)
    planted = record.config.replace(
        'petsc_options = ""', 'petsc_options = "-ts_monitor_python os.f"'
    )
    assert planted != record.config
    record.config = planted
    checkpoint.write(out, state, record, 3)
    with pytest.raises(ConfigError, match="-ts_monitor_python"):
        api.resume(MPI.COMM_SELF, out, ["run.max_steps=2"])


@pytest.mark.parametrize(
    "value",
    [
        "-start_in_debugger",
        "-options_file x",
        "-ned0_ts_type python",
        "-log_view :|cmd",
        "-dll_append a",
        "5",
        "-log_view '",
    ],
)
def test_options_of_the_environment_are_refused(value):
    with pytest.raises(UsageError, match="variable PETSC_OPTIONS"):
        check_environment({"PETSC_OPTIONS": value})
    with pytest.raises(UsageError, match="PETSC_OPTIONS_YAML"):
        check_environment({"PETSC_OPTIONS_YAML": "a: 1"})
    check_environment({"PETSC_OPTIONS": "-use_gpu_aware_mpi 0 -log_view"})


def test_a_run_refuses_the_environment_and_reads_no_petscrc(tmp_path):
    (tmp_path / ".petscrc").write_text("-start_in_debugger noxterm\n-log_view\n")
    args = ("run", POISSON, "--set", "run.max_steps=1", "--out", tmp_path / "run")
    env = {"PETSC_OPTIONS": "-on_error_attach_debugger"}
    code, _, err = run(*args, cwd=tmp_path, env=env)
    assert code == 2 and "PETSC_OPTIONS" in err and "Traceback" not in err, err
    program = "from nedhpc.parallel.petsc import PETSc; print(sorted(PETSc.Options().getAll()))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "['no_signal_handler', 'skip_petscrc']\n", done.stderr
