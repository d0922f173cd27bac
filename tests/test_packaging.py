"""The wheel holds all packages, types and ready configs, and runs without a checkout."""

import ast
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from processes import ROOT

import nedhpc
from nedhpc.configs_path import configs_folder

CONFIGS = {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.toml")}


def command(*words, cwd, **variables):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_package_is_listed():
    with (ROOT / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    inits = (ROOT / "nedhpc").rglob("__init__.py")
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in inits}
    found |= {"nedhpc." + ".".join(Path(name).parent.parts) for name in CONFIGS}
    assert set(listed) == found


def test_type_checkers_see_the_names_of_the_package():
    tree = ast.parse(Path(nedhpc.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == nedhpc._WHERE
    assert all(hasattr(nedhpc, name) for name in seen)


def test_the_documents_name_the_version():
    assert f"version: {nedhpc.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## [{nedhpc.__version__}] - " in (ROOT / "CHANGELOG.md").read_text()


def test_the_configs_folder_is_that_of_the_checkout():
    assert configs_folder() == ROOT / "configs"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy, so that the build leaves nothing in the checkout."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    names = ("nedhpc", "configs", "pyproject.toml", "README.md", "LICENSE")
    subprocess.run(["cp", "-r", *(str(ROOT / name) for name in names), source], check=True)
    options = ("--no-build-isolation", "--no-deps", "--wheel-dir", folder)
    command("-m", "pip", "wheel", *options, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_configs_and_types(wheel):
    assert wheel.name.startswith(f"nedhpc-{nedhpc.__version__}-")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"nedhpc/{name}" for name in CONFIGS} | {"nedhpc/py.typed"} <= names
    assert not any(name.startswith(("configs/", "tests/")) for name in names)


@pytest.mark.slow
def test_the_wheel_runs_outside_a_checkout(wheel, tmp_path):
    """PYTHONPATH comes first, because this environment may hold an editable nedhpc."""
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    command("-m", "pip", "install", "--no-deps", "--target", site, wheel, cwd=tmp_path)

    def installed(*words):
        return command("-m", "nedhpc", *words, cwd=elsewhere, PYTHONPATH=str(site))

    where = "import nedhpc; print(nedhpc.__file__)"
    assert command("-c", where, cwd=elsewhere, PYTHONPATH=str(site)).startswith(str(site))
    listed = installed("problems")
    assert "poisson_1d" in listed and "options:" in listed
    assert "valid" in installed("check", site / "nedhpc" / "configs" / "poisson_1d.toml")
