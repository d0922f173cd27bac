"""Any config gives a plan, or errors that tell the user what to change; never a traceback.

After errors, the exit code is 2.
"""

import contextlib
import datetime
import io
import subprocess
import sys
import typing

import pytest
import tomli_w
from conftest import repeatable
from hypothesis import given
from hypothesis import strategies as st

from nedhpc import config
from nedhpc.cli.main import main

BASES = [
    {"problem": {"name": "poisson", "dim": 1}, "sampling": {"interior": 50, "rule": "grid"}},
    {"problem": {"name": "poisson", "dim": 2}, "sampling": {"interior": 49, "boundary": 16}},
    {
        "problem": {"name": "poisson", "dim": 5},
        "sampling": {"interior": 100, "boundary": 50, "resample_every": 1},
        "stepper": {"type": "spring"},
    },
    {
        "problem": {"name": "heat"},
        "sampling": {"interior": 64, "boundary": 16, "initial": 8},
        "stepper": {"type": "rk"},
    },
    {
        "problem": {"name": "regression", "function": "sinc", "num_points": 30},
        "stepper": {"type": "adam"},
    },
]


def fields(model, path=()):
    """{path: annotation} of all keys of a config model, including those of nested tables."""
    found = {}
    for name, field in model.model_fields.items():
        found[*path, name] = field.annotation
        if isinstance(field.annotation, type) and issubclass(field.annotation, config.BaseModel):
            found |= fields(field.annotation, (*path, name))
    return found


def sane(annotation):
    """Values that a key of this type mostly allows."""
    kinds = {annotation, *typing.get_args(annotation)}
    if typing.get_origin(annotation) is typing.Literal:
        return st.sampled_from(annotation.__args__)
    if bool in kinds:
        return st.booleans()
    if int in kinds:
        return st.integers(1, 60)
    if float in kinds:
        return st.sampled_from([0.5, 1e-6, 0.9, 1, "00:10:00"])
    return VALUES


FIELDS = fields(config.Config)
OPTIONS = [
    ("problem", key)
    for key in (
        "dim",
        "solution",
        "function",
        "file",
        "num_points",
        "targets",
        "held_out",
        "split_seed",
        "boundary_weight",
        "initial_weight",
        "end",
    )
]
WORDS = sorted(
    {
        word
        for annotation in FIELDS.values()
        for word in typing.get_args(annotation)
        if isinstance(word, str)
    }
    | {
        "poisson",
        "heat",
        "regression",
        "digits",
        "sin",
        "sinc",
        "borehole",
        "square",
        "",
        "a.py:B",
        ":",
        "x:y:z",
        "/",
        "00:10:00",
        "9-99:99:99",
        "-ts_rk_type 4",
        "-- -",
        "\0",
        "ä" * 40,
        "None",
        "nan",
    }
)
VALUES = st.recursive(
    st.one_of(
        st.sampled_from(WORDS),
        st.integers(-3, 40),
        st.sampled_from([10**6, 10**9, 10**12, 2**31, 2**63 - 1, -(2**63)]),
        st.booleans(),
        st.floats(),
        st.sampled_from([0.0, -0.0, 1e-300, 1e300, 0.5]),
        st.text(max_size=8),
        st.just(datetime.time(0, 10)),
        st.just(datetime.date(2020, 1, 1)),
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("abchidden_", min_size=1, max_size=6), inner, max_size=3)
    ),
    max_leaves=5,
)
NAMES = st.lists(st.text("abcrun_", min_size=1, max_size=5), min_size=1, max_size=3).map(tuple)
SANE = st.sampled_from(sorted(FIELDS)).flatmap(
    lambda path: st.tuples(st.just(path), sane(FIELDS[path]))
)
ANY = st.tuples(st.sampled_from([*FIELDS, *OPTIONS]) | NAMES, VALUES)
CHANGES = st.lists(SANE, min_size=1, max_size=4) | st.lists(SANE | ANY, min_size=1, max_size=4)


def build(base, changes):
    """A copy of the base with the changes. Tables that are missing are made."""
    table = {section: dict(values) for section, values in base.items()}
    for path, value in changes:
        target = table
        for key in path[:-1]:
            if not isinstance(target.get(key), dict):
                target[key] = {}
            target = target[key]
        target[path[-1]] = value
    return table


@repeatable(2000)
@given(st.sampled_from(BASES), CHANGES, st.integers(1, 5))
def check_config(path, base, changes, ranks):
    path.write_text(tomli_w.dumps(build(base, changes)))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["check", str(path), "--ranks", str(ranks)])
    assert (code, bool(out.getvalue()), bool(err.getvalue())) in (
        (0, True, False),
        (2, False, True),
    ), (code, out.getvalue(), err.getvalue())
    FOUND[code] += 1


FOUND = {0: 0, 2: 0}


def test_any_config_gives_a_plan_or_errors(tmp_path):
    check_config(tmp_path / "case.toml")
    assert min(FOUND.values()) > 200, FOUND  # both kinds occurred


@repeatable(500)
@given(
    st.binary(max_size=60) | st.text(max_size=60).map(str.encode),
    st.lists(st.text(max_size=20), max_size=2),
)
def check_bytes(path, content, overrides):
    path.write_bytes(content)
    with contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(["check", str(path), *(f"--set={text}" for text in overrides)])
    assert code == 2 and "Traceback" not in err.getvalue() and err.getvalue()


def test_random_bytes_give_errors(tmp_path):
    check_bytes(tmp_path / "case.toml")


@repeatable(20)
@given(st.sampled_from(BASES), CHANGES)
def check_command(path, base, changes):
    path.write_text(tomli_w.dumps(build(base, changes)))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "nedhpc", "check", path], capture_output=True, timeout=120
    )
    assert (done.returncode, bool(done.stdout), bool(done.stderr)) in (
        (0, True, False),
        (2, False, True),
    ), done
    assert b"Traceback" not in done.stderr, done


@pytest.mark.slow
def test_the_command_gives_a_plan_or_errors(tmp_path):
    check_command(tmp_path / "case.toml")
