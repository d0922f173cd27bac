"""A config gives all errors at once, each with the key, what is allowed and the nearest name."""

import subprocess
import sys
from pathlib import Path

import pytest

from nedhpc import config
from nedhpc.cli.main import main
from nedhpc.errors import ConfigError, UsageError

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.toml"))


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "case.toml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_ready_configs_are_valid(path, capsys):
    assert main(["check", str(path), "--ranks", "4"]) == 0
    assert "parameters" in capsys.readouterr().out
    resolved = config.load(path)
    assert config.validate(config.tomllib.loads(resolved.toml())) == resolved


def test_all_errors_come_at_once(file, capsys):
    path = file(
        '[problem]\nname = "poisson"\ndimm = 2\n[network]\nhiden = [3]\n'
        '[sampling]\nrule = "sobl"\ninterior = -3\n'
        '[solver]\nrtol = "x"\n[extra]\na = 1\n'
    )
    assert main(["check", str(path)]) == 2
    text = capsys.readouterr().err
    for part in (
        "network.hiden: unknown key; did you mean 'hidden'?",
        "sampling.rule = 'sobl': unknown value; did you mean 'sobol'?",
        "sampling.interior = -3",
        "solver.rtol = 'x'",
        "extra: unknown key",
        "problem.dimm: unknown key; did you mean 'dim'?",
        "6 errors",
    ):
        assert part in text, part
    assert "Traceback" not in text


@pytest.mark.parametrize(
    "text, part",
    [
        ("", "problem: missing"),
        ("[problem]\nname = 3\n", "problem.name"),
        ('[problem]\nname = "poison"\n', "did you mean 'poisson'"),
        ("[problem\n", "is not TOML"),
        (
            '[problem]\nname = "poisson"\n[sampling]\ninterior = 10\nrule = "grid"\nboundary = 4\n',
            "9, 16",
        ),
        ('[problem]\nname = "none.py:X"\n', "there is no file"),
        ('[problem]\nname = "poisson"\ndim = 0\n', "at least 1"),
        ('[problem]\nname = "regression"\n', "needs either function"),
        ('[problem]\nname = "regression"\nfile = "no.csv"\n', "no such file"),
        ('[problem]\nname = "poisson"\n[checkpoint]\nkeep = 1\n', "checkpoint.keep = 1"),
        ('[problem]\nname = "poisson"\n[run]\nmax_wall_time = "1h"\n', "HH:MM:SS"),
        ('[problem]\nname = "poisson"\n[sampling]\ngrow_draws = 9\n', "needs resample_every > 0"),
        (
            '[problem]\nname = "poisson"\n[sampling]\n'
            'grow_draws = 9\nresample_every = 1\ndata = 9\nrule = "grid"\n',
            "make no grid",
        ),
        ('[problem]\nname = "poisson"\n[stepper]\ntype = "adma"\n', "allowed: ptc"),
    ],
)
def test_bad_configs_exit_2(file, capsys, text, part):
    assert main(["check", str(file(text))]) == 2
    err = capsys.readouterr().err
    assert part in err and "Traceback" not in err


def test_durations_and_overrides_are_parsed():
    for value, expected in (("01:02:03", 3723), ("2-00:00:01", 172801), (90, 90)):
        assert config.seconds(value) == expected
    table = config.override(
        {"run": {"seed": 1}},
        ["run.seed=2", "problem.name=poisson", "network.hidden=[3,4]", "a.b.c=1.5"],
    )
    assert table == {
        "run": {"seed": 2},
        "problem": {"name": "poisson"},
        "network": {"hidden": [3, 4]},
        "a": {"b": {"c": 1.5}},
    }
    with pytest.raises(UsageError):
        config.override({}, ["seed"])
    with pytest.raises(ConfigError, match="run.seed"):
        config.validate(config.override({"problem": {"name": "poisson"}}, ["run.seed=x"]))


def test_config_needs_neither_torch_nor_mpi():
    code = (
        "import sys, nedhpc.config, nedhpc.cli; "
        "assert not {'torch', 'mpi4py', 'petsc4py'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
