"""A config gives all errors at once, each with the key, what is allowed and the nearest name."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from nedhpc import config, config_text
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
    assert config.validate(config_text.parse(resolved.toml())) == resolved


@pytest.mark.parametrize("ranks", ["0", "-3", "1.5", "two"])
def test_check_needs_at_least_one_rank(capsys, ranks):
    with pytest.raises(SystemExit) as ended:
        main(["check", str(CONFIGS[0]), f"--ranks={ranks}"])
    assert ended.value.code == 2 and "--ranks" in capsys.readouterr().err


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


HOSTILE = {
    "many brackets": ("a = " + "[" * 60000, "nested too deeply"),
    "a long integer": ("[problem]\nname = 'poisson'\ndim = " + "1" * 5000, "is not TOML"),
    "a large integer": ("[problem]\nname = 'poisson'\ndim = " + "9" * 23, "dim is an integer of"),
    "a hexadecimal integer": ("[problem]\nname = 'poisson'\ndim = 0x" + "f" * 9000, "64 bits"),
    "deep arrays": ("a = " + "[" * 150 + "]" * 150, "nested too deeply"),
    "deep tables": (f"[{'.'.join('a' * 99)}]\n{'.'.join('a' * 99)} = 1", "nested too deeply"),
    "a large number": ("[problem]\nname = 'poisson'\ndim = 1e23", "problem.dim"),
    "a deep key": (".".join("a" * 30000) + " = 1", "more than 100 dots"),
    "a deep quoted key": ("[" + " . ".join(['"a b"'] * 8000) + "]", "more than 100 dots"),
    "a deep key with commas": (".".join(['"a,"'] * 13_000) + " = 1", "more than 100 dots"),
    "a deep key after strings": (
        's = [\'"""\', """a"""", \'\'\'#\'\'\']\n' + ".".join(["'='"] * 13_000) + " = 1",
        "more than 100 dots",
    ),
    "a string without end": ('a = "' + '\\"' * 32_000, "is not TOML"),
    "many tables": ("".join(f"[t{k}]\n" for k in range(7000)), "and 6951 more"),
    "many keys": (
        "[problem]\nname='poisson'\n" + "".join(f"a{k}=1\n" for k in range(7000)),
        "6950 more",
    ),
    "a large file": ("# " + "a" * 2**16, "larger than 64 KiB"),
    "a null character": ("[problem]\nname = 'regression'\nfile = \"a\\u0000\"", "null character"),
    **{
        f"{key} that is {what}": (template.format(name), "file")
        for key, template in {
            "a problem": '[problem]\nname = "{}.py:A"',
            "a network": '[problem]\nname = "poisson"\n[network]\nname = "{}.py:A"',
            "a data file": '[problem]\nname = "regression"\nfile = "{}.csv"',
            "a data folder": '[problem]\nname = "regression"\nfile = "{}/a.csv"',
        }.items()
        for what, name in {"too long": "a" * 5000, "a loop": "loop"}.items()
    },
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_configs_are_refused_at_once_in_a_few_words(file, tmp_path, capsys, what):
    text, part = HOSTILE[what]
    for suffix in ("", ".py", ".csv"):
        (tmp_path / f"loop{suffix}").symlink_to(f"loop{suffix}")
    path, start = file(text), time.monotonic()
    assert main(["check", str(path)]) == 2
    assert time.monotonic() - start < 5
    message = capsys.readouterr().err
    assert part in message and len(message) < 60_000


def test_dots_in_strings_and_comments_are_no_dots_of_keys():
    dots = "." * 300
    text = f"a = '{dots}' # {dots}\nb = \"\"\"\n{dots}\"\"\"\nc.d = [\"{dots}\", '''{dots}''']"
    assert config_text.parse(text)["c"]["d"] == [dots, dots]


@pytest.mark.parametrize(
    "value, reason",
    [
        (list(range(60_000)), "characters; a config may have 262144"),
        (2**64, "more than 64 bits"),
        (object(), "cannot be stored as TOML"),
    ],
)
def test_a_config_that_could_not_be_read_again_is_refused_before_a_run(value, reason):
    network = {"name": "a:B", "arguments": {"a": value}}
    resolved = config.validate({"problem": {"name": "poisson"}, "network": network})
    with pytest.raises(UsageError, match=reason):
        resolved.toml()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_config_with_a_byte_order_mark_is_read(tmp_path, end):
    path = tmp_path / "case.toml"
    path.write_bytes(f"\ufeff[problem]{end}name = 'poisson'{end}".encode())
    assert config.read(path) == {"problem": {"name": "poisson"}}


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
