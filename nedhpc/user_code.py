"""Python files that a config names: their classes, their digests, and whether they changed. Local.

A file is run only if the user named it, or if it has not changed since the checkpoint was written
and this user has run it before.
"""

import hashlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable, Mapping
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import Any

from nedhpc.config import Config
from nedhpc.errors import ConfigError, UsageError
from nedhpc.files import familiar
from nedhpc.names import unknown
from nedhpc.user_calls import called

GIVEN = "python"
"""Replaces the file in the name of a class that was given as an object: "python:MyProblem"."""
_neighbours: dict[Path, dict[str, Path]] = {}
"""For each file that was loaded, the modules of its folder that it imported, by name."""


def load_class(name: str, base: type, key: str) -> type:
    """Run a Python file and return one of its classes. Local.

    The file may import modules of its own folder. They are removed from sys.modules afterwards, so
    that a file of another folder can import modules with the same names.

    Args:
        name: "file.py:Class".
        base: class that the class must derive from.
        key: config key that holds the name, for messages.

    Raises:
        ConfigError: the file is missing, raises, or has no such class.
    """
    file, _, cls_name = name.rpartition(":")
    path = Path(file)
    if file == GIVEN:
        raise ConfigError(
            [
                f"{key} = {name!r}: this class was given as an object in Python; give it again as "
                "`problem=`"
            ]
        )
    if not os.path.isfile(path):
        raise ConfigError(
            [f"{key} = {name!r}: there is no file {path} (paths are relative to the config file)"]
        )
    spec = importlib.util.spec_from_file_location(f"nedhpc_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError([f"{key} = {name!r}: {path} is not a Python file"])
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    folder, before = str(path.resolve().parent), set(sys.modules)
    sys.path.insert(0, folder)
    try:
        called(f"{key} = {name!r}: the file", spec.loader.exec_module, module)
    except UsageError as error:
        raise ConfigError([str(error)]) from error
    finally:
        sys.path.remove(folder)
        _neighbours[path.resolve()] = _take_neighbours(folder, set(sys.modules) - before)
    cls = getattr(module, cls_name, None)
    if not (inspect.isclass(cls) and issubclass(cls, base)):
        raise ConfigError(
            [
                f"{key} = {name!r}: {path} has no class {cls_name} that derives from "
                f"nedhpc.{base.__name__}"
            ]
        )
    return cls


def _take_neighbours(folder: str, new: Iterable[str]) -> dict[str, Path]:
    """Remove the new modules of the folder from sys.modules. Returns {module name: file}.

    A library in a subfolder, such as that of a virtual environment, is not of the folder: its
    modules are imported from elsewhere.
    """
    found = {}
    for name in sorted(new):
        file = getattr(sys.modules[name], "__file__", None)
        is_ours = name.partition(".")[0] == "nedhpc"
        if file and not is_ours and Path(file).resolve() in _places(folder, name):
            found[name] = Path(file).resolve()
            del sys.modules[name]
    return found


def _places(folder: str | Path, name: str) -> list[Path]:
    """The files from which Python may import a module of a folder."""
    path = Path(folder, *name.split("."))
    stems = (path / "__init__", path)
    return [Path(f"{stem}{suffix}").resolve() for stem in stems for suffix in all_suffixes()]


def find_class(name: str, base: type, builtin: Mapping[str, type], key: str) -> type:
    """A class by its short name, or from a file. Local.

    Args:
        name: a key of `builtin`, or "file.py:Class".
        base: class that a class from a file must derive from.
        builtin: {short name: class}.
        key: config key that holds the name, for messages.

    Raises:
        ConfigError: the name is unknown, or the file has no such class.
    """
    if ":" in name:
        return load_class(name, base, key)
    if name in builtin:
        return builtin[name]
    message = unknown(f"{key} = {name!r}", "value", name, builtin)
    raise ConfigError([f'{message}, or a class of your own as "file.py:Class"'])


def user_files(config: Config) -> dict[str, Path]:
    """{key: path} of the Python files that a config names. Local."""
    names = {"problem.name": config.problem.name, "network.name": config.network.name or ""}
    files = {key: name.rpartition(":")[0] for key, name in names.items() if ":" in name}
    return {key: Path(file) for key, file in files.items() if file != GIVEN}


def digests(config: Config) -> dict[str, str]:
    """{key: SHA-256} of the files that a config names; "missing" if one cannot be read. Local.

    Keys are problem.name, network.name and problem.file; "problem.name:helper" is a module that the
    problem file imported from its own folder when it was loaded.
    """
    files = user_files(config)
    for key, path in list(files.items()):
        neighbours = _neighbours.get(Path(os.path.realpath(path)), {})
        files |= {f"{key}:{name}": file for name, file in neighbours.items()}
    data: Any = getattr(config.problem, "file", None)
    if isinstance(data, str) and data:
        files["problem.file"] = Path(data)
    return {key: _digest(path) for key, path in files.items()}


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "missing"


def remember(config: Config, known: Mapping[str, str]) -> None:
    """Record that this user has run the Python files that a config names, and their neighbours.

    Local.

    Args:
        config: the config that names the files.
        known: its `digests`, after the files were loaded.
    """
    familiar.remember(_fingerprint(key, path, known) for key, path in user_files(config).items())


def check_unchanged(config: Config, known: Mapping[str, str], named: Iterable[str] = ()) -> None:
    """Refuse Python files that have changed since the checkpoint was written. Local.

    Args:
        config: the config that names the files.
        known: digests of the files that ran, as the checkpoint holds them.
        named: keys whose file the user has just named. These files may have changed.

    Raises:
        UsageError: naming the file that changed or is missing.
    """
    for key, path in user_files(config).items():
        if key in named:
            continue
        remedy = f"name it with --set {key}=FILE.py:CLASS"
        if not os.path.isfile(path):
            raise UsageError(f"{key}: {path} is missing; restore it, or {remedy}")
        for each, file in _with_neighbours(key, path, known).items():
            if _digest(file) != known.get(each):
                raise UsageError(
                    f"{key}: {file} is not the file that the run was started with, so the run does "
                    f"not continue with it; restore it, or {remedy}"
                )


def check_familiar(config: Config, known: Mapping[str, str], named: Iterable[str] = ()) -> None:
    """Refuse to run Python files that a checkpoint names and that this user has not run before.

    Otherwise the person who gives away a run folder could run code as its reader. A file is known
    by its path, its content and those of the modules that it imports from its folder. Local.

    Args:
        config: the config that names the files.
        known: digests of the files that ran, as the checkpoint holds them.
        named: keys whose file the user has just named.

    Raises:
        UsageError: naming the file, and what to do.
    """
    check_unchanged(config, known, named)
    ran = familiar.familiar()
    for key, path in user_files(config).items():
        if key not in named and _fingerprint(key, path, known) not in ran:
            raise UsageError(
                f"{key}: {path} is Python code that you have not run before from this place, so "
                "it is not run; read it, then name it yourself: `nedhpc check CONFIG.toml` with a "
                f"config that names it, `nedhpc resume RUN_DIR --set {key}=FILE.py:CLASS`, or "
                "problem=CLASS in Python"
            )


def _with_neighbours(key: str, path: Path, known: Mapping[str, str]) -> dict[str, Path]:
    """{key: path} of a file and of the modules beside it that `known` has digests of."""
    files = {key: path}
    for other in known:
        if other.startswith(f"{key}:"):
            places = _places(path.resolve().parent, other.partition(":")[2])
            files[other] = next((file for file in places if file.is_file()), places[-1])
    return files


def _fingerprint(key: str, path: Path, known: Mapping[str, str]) -> str:
    """SHA-256 of the paths and digests of a file and of its neighbours."""
    lines = [
        f"{os.path.realpath(file)}\0{known.get(each)}"
        for each, file in sorted(_with_neighbours(key, path, known).items())
    ]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
