"""Columns of a data file, and what a cell of them is: a number, missing, a date or text. Local."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nedhpc.errors import UsageError

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+)?", re.ASCII)
"""A finite decimal number, with the exponent of Fortran too."""
INFINITY = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
DATE = re.compile(r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}\b.*|\d{1,2}:\d{2}.*")
MISSING = {"", "nan", "na", "n/a", "#n/a", "<na>", "nat", "null", "none", "-", "--", "?", "."}
"""What stands for a missing value, in lower case."""
KINDS = {
    "c": "complex numbers",
    "V": "structured records",
    "O": "text or objects",
    "S": "text",
    "U": "text",
    "T": "text",
    "M": "dates",
    "m": "time spans",
}
"""Kinds of arrays that are not real numbers."""


@dataclass(slots=True)
class Table:
    """Columns of a file.

    Args:
        names: a name for each column, or none at all.
        columns: arrays (N,) of text, or of any type that the file holds.
        numbers: number of each column in the file, from 1.
        lines: line of each row in a text file; empty for other files.
        num_targets: number of target columns, if the file says it.
        decimal: decimal mark of text.
    """

    names: list[str]
    columns: list[np.ndarray]
    numbers: list[int]
    lines: Sequence[int] = ()
    num_targets: int | None = None
    decimal: str = "."

    def drop(self, column: int) -> None:
        """Remove a column, but not its name."""
        del self.columns[column], self.numbers[column]

    def where(self, row: int, column: int) -> str:
        """Where a value is in the file."""
        line = f"line {self.lines[row]}" if len(self.lines) else f"row {row + 1}"
        return f"{line}, {self.title(column)}"

    def title(self, column: int) -> str:
        """Number and name of a column."""
        name = self.names[column] if self.names else ""
        return f"column {self.numbers[column]}" + (f" ({short(name)})" if name else "")


def short(text: str, limit: int = 40) -> str:
    """A text for a message, of bounded length and on one line."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def kind(text: str, decimal: str) -> str:
    """One of number, missing, date, text."""
    text = text.strip()
    if text.lower() in MISSING:
        return "missing"
    if decimal == ",":
        if "." in text:
            return "date" if DATE.fullmatch(text) else "text"
        text = text.replace(",", ".")
    if NUMBER.fullmatch(text) or INFINITY.fullmatch(text):
        return "number"
    return "date" if DATE.fullmatch(text) else "text"


def is_consecutive(values: Sequence[str] | np.ndarray) -> bool:
    """True if the texts are 0, 1, 2, ... or 1, 2, 3, ..."""
    first = values[0].strip()
    if first not in ("0", "1"):
        return False
    return all(value.strip() == str(i) for i, value in enumerate(values, int(first)))


def to_numbers(table: Table, column: int) -> np.ndarray:
    """A column as float64, (N,), in which NaN is a missing value.

    Raises:
        UsageError: a value is infinite, a date, text, or not a real number.
    """
    values = table.columns[column]
    if values.dtype != object or not len(table.lines):
        return real(values, table.title(column))
    if table.decimal == "." and not any("_" in value for value in values):
        try:
            numbers = values.astype(float)
            if np.isfinite(numbers).all():
                return numbers
        except ValueError:
            pass  # find the cause below
    return np.array([_number(table, row, column) for row in range(len(values))])


def _number(table: Table, row: int, column: int) -> float:
    """The number in one cell, NaN if it is missing."""
    text = table.columns[column][row].strip()
    found = kind(text, table.decimal)
    if found == "missing":
        return np.nan
    if found == "number":
        if table.decimal == ",":
            text = text.replace(",", ".")
        return float(text.lower().replace("d", "e") if not INFINITY.fullmatch(text) else text)
    where, shown = table.where(row, column), repr(short(text))
    other = {".": ",", ",": "."}[table.decimal]
    if found == "date":
        raise UsageError(
            f"{where}: {shown} is a date or a time; convert it to a number, or choose other "
            "columns with `inputs` and `targets`"
        )
    if kind(text, other) == "number":
        raise UsageError(
            f"{where}: {shown} has a decimal '{other}', but decimal is '{table.decimal}'; "
            "write all numbers alike, or set `decimal`"
        )
    remedy = "; if this line names the columns, set header = true" if row == 0 else ""
    raise UsageError(f"{where}: {shown} is text, not a finite number{remedy}")


def real(array: np.ndarray, what: str) -> np.ndarray:
    """An array as float64.

    Raises:
        UsageError: it does not hold real numbers.
    """
    if array.dtype.kind not in "biuf":
        found = KINDS.get(array.dtype.kind, str(array.dtype))
        raise UsageError(f"{what} holds {found}; needed are real numbers")
    return array.astype(np.float64)
