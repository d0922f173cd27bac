"""What a checkpoint holds beside the state: config, history, files, origin, results."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import h5py

from nedhpc import config as configs
from nedhpc import config_text
from nedhpc.config import Config
from nedhpc.errors import shortened
from nedhpc.files import possible
from nedhpc.files.tables import read_table, text, value, write_table

TABLES = ("user_files", "sampling", "provenance", "stats")
"""Flat groups of a checkpoint that are stored as they are."""

MAX_LINES = 2000
"""Longest layout that is stored as an array of texts; a longer one is one text."""

FIRST_EDITION = (
    ("network", "scaling", "none"),
    ("weights", "balance", "none"),
    ("sampling", "adapt", "none"),
    ("run", "start", "random"),
    ("run", "windows", 1),
)
"""Settings that a config of schema 1 does not have, with what the first edition did."""


def migrated(config: str) -> str:
    """The TOML of a config of schema 1 with the settings that keep its meaning. Local."""
    table = config_text.parse(config)
    for section, key, known in FIRST_EDITION:
        table.setdefault(section, {}).setdefault(key, known)
    return config_text.write(table)


def _lines(layout) -> list[str]:
    """The lines of a stored layout. Local."""
    return layout.split("\n") if isinstance(layout, str) else [str(line) for line in layout]


@dataclass(slots=True)
class RunRecord:
    """Everything that a checkpoint holds beside its State."""

    config: str
    """The resolved config, as TOML."""
    history: list[str] = field(default_factory=list)
    """The configs of the run, as TOML: the first, and one for each resume that changed it."""
    changes: list[str] = field(default_factory=list)
    """The change in words, for each entry of `history`."""
    layout: list[str] = field(default_factory=list)
    """"name shape offset" of each array in theta."""
    user_files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the files that the config names, by config key."""
    sampling: dict[str, str | int] = field(default_factory=dict)
    """How points are drawn: `rule`, `seed` and `data_sha256`."""
    provenance: dict[str, str | int] = field(default_factory=dict)
    """Versions, hosts and job of the last start."""
    stats: dict[str, str | int | float] = field(default_factory=dict)
    """The facts that `nedhpc info` reports."""
    threads: int | None = None
    """CPU threads of a rank; None in files of the first edition.

    A resumed run keeps the number, because another one gives different rounding errors. The file
    stores it as /provenance/threads.
    """

    @classmethod
    def start(cls, config: Config) -> Self:
        """The record of a new run."""
        return cls(config.toml(), [config.toml()], ["start"])

    def changed(self, config: Config, note: str) -> Self:
        """This record with a change of the config, described by `note`, in its history."""
        text = config.toml()
        return replace(
            self, config=text, history=[*self.history, text], changes=[*self.changes, note]
        )

    def parsed(self, source: str | Path | None = None) -> Config:
        """The Config of the record's TOML. Raises ConfigError, which names `source`, if invalid."""
        return configs.validate(config_text.parse(self.config), source)

    @property
    def parameters(self) -> str:
        """The layout for a message. Local."""
        return shortened(", ".join(self.layout))

    def write(self, file: h5py.File) -> None:
        """Write the groups that do not belong to the state."""
        file["config"] = self.config
        for name, lines in (("config_history", self.history), ("config_changes", self.changes)):
            file.create_dataset(name, data=lines, dtype=h5py.string_dtype())
        # An attribute has at most 64 KiB, and each entry of an array of texts takes 16 bytes.
        is_long = len(self.layout) > MAX_LINES
        file["state/theta"].attrs["layout"] = "\n".join(self.layout) if is_long else self.layout
        for name in TABLES:
            write_table(file.create_group(name, track_order=True), getattr(self, name))
        if self.threads is not None:
            file["provenance/threads"] = self.threads

    @classmethod
    def read(cls, file: h5py.File) -> Self:
        """The record in a checkpoint. If it is malformed, raises h5py's errors or ValueError."""
        config = text(file, "config")
        config_text.parse(config)
        if int(file.attrs["schema_version"]) == 1:
            config = migrated(config)
        tables = {
            name: possible.scalars(read_table(file[name]), name)
            for name in TABLES
            if name != "sampling"
        }
        sampling = {
            name: value(file["sampling"], name)
            for name in file["sampling"]
            if name not in ("draw", "selection", "growth")  # they belong to the state
        }
        threads = tables["provenance"].pop("threads", None)
        return cls(
            config,
            [str(line) for line in value(file, "config_history")],
            [str(line) for line in value(file, "config_changes")],
            _lines(file["state/theta"].attrs["layout"]),
            **tables,
            sampling=possible.scalars(sampling, "sampling"),
            threads=None if threads is None else possible.count(threads, "threads"),
        )
