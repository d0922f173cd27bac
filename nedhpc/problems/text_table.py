"""Text files of columns: how a file separates, names and writes its numbers. Local.

What a file leaves open is inferred from its first lines, and logged. An option settles it instead.
"""

import csv
import io
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nedhpc.errors import UsageError
from nedhpc.problems.cells import Table, is_consecutive, kind, short

log = logging.getLogger("nedhpc")

SEPARATORS = {"tab": "\t", "semicolon": ";", "comma": ",", "bar": "|", "blank": " "}
"""Separators by name. If two of them suit a file, the first is chosen."""
COMMENT = re.compile(r"\s*(?:#(?!N/A|DIV/0!|VALUE!|REF!|NAME\?|NUM!|NULL!)|%|!|//)")
"""The beginning of a comment line. Errors of a spreadsheet, such as #N/A, are values."""
TRAILING = re.compile(r"(?<!\s)\s*#(?!N/A|DIV/0!|VALUE!|REF!|NAME\?|NUM!|NULL!).*")
MAX_COLUMNS = 4096
"""pandas needs a millisecond for a column, and a file without line ends has a million."""
NUM_SAMPLED = 200
"""Number of rows that the inference sees."""
BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


@dataclass(slots=True)
class TextOptions:
    """What the user knows about a text file; empty or None: inferred."""

    separator: str = ""
    decimal: str = ""
    header: bool | None = None

    def __post_init__(self):
        self.separator = SEPARATORS.get(self.separator, self.separator)
        if self.separator and self.separator not in SEPARATORS.values():
            names = ", ".join(SEPARATORS)
            raise UsageError(f"separator = {self.separator!r}: allowed are {names}")
        if self.decimal not in ("", ".", ","):
            raise UsageError(f"decimal = {self.decimal!r}: allowed are '.' and ','")
        if self.decimal == "," == self.separator:
            raise UsageError("separator and decimal cannot both be a comma")


@dataclass(slots=True)
class Records:
    """The lines of a file that are neither blank nor comments, with their numbers in the file."""

    lines: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    comment: str = ""
    """The last comment line before the first record; it may name the columns."""
    separator: str = ""
    """What a spreadsheet's first line `sep=;` says."""


def read_text(path: Path, options: TextOptions) -> Table:
    """Columns of a text file, as text.

    Args:
        path: the file.
        options: what the user knows about the file.

    Raises:
        UsageError: the file is empty, binary or ragged, or names two columns alike; or pandas is
            not installed.
    """
    records = split_records(decode(path.read_bytes(), path.name))
    if not records.lines:
        raise UsageError("the file is empty; needed are rows of numbers")
    sample = records.lines[:NUM_SAMPLED]
    refuse_wide_rows(sample, records.numbers)
    separator = options.separator or records.separator or find_separator(sample, path.name)
    rows = [fields(line, separator) for line in sample]
    decimal = options.decimal or find_decimal(rows, separator, path.name)
    names, start = find_names(rows, records, separator, options.header, path.name)
    if start == len(records.lines):
        raise UsageError(f"there are no rows of numbers below line {records.numbers[start - 1]}")
    lines, numbers = records.lines[start:], records.numbers[start:]
    columns = parse(lines, numbers, separator)
    table = Table(names, columns, list(range(1, len(columns) + 1)), numbers, decimal=decimal)
    _drop_empty_columns(table)
    if names and len(table.columns) != len(table.names):
        raise UsageError(
            f"line {records.numbers[0]} names {len(names)} columns, but line {numbers[0]} has "
            f"{len(table.columns)}; quote names that contain a separator, or begin the line with #"
        )
    _drop_index_column(table, path.name)
    refuse_short_rows(table, lines, separator)
    return table


def refuse_wide_rows(lines: Sequence[str], numbers: Sequence[int]) -> None:
    """Refuse a line of more columns than can be read in seconds, before anything is inferred."""
    for line, number in zip(lines, numbers, strict=False):
        count = max(len(line.split(mark.strip() or None)) for mark in SEPARATORS.values())
        if count > MAX_COLUMNS:
            raise UsageError(
                f"line {number} has {count} columns; a text file may have {MAX_COLUMNS}. If its "
                "line ends are not lost, store the columns as Parquet or NPZ"
            )


def decode(raw: bytes, file: str) -> str:
    """Text of a file in UTF-8, in UTF-16 or UTF-32 with a byte-order mark, or in Latin-1."""
    marks = [name for mark, name in BYTE_ORDER_MARKS if raw.startswith(mark)]
    encoding = marks[0] if marks else "utf-8"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        if marks:
            raise UsageError(f"it begins as {encoding} but is not valid: {error.reason}") from None
        text = raw.decode("latin-1")
        if "\0" not in text:
            log.info("%s: read as Latin-1, because it is not UTF-8", file)
    if "\0" in text:
        raise UsageError(
            "it holds zero bytes, so it is binary, or UTF-16 without a byte-order mark; save it as "
            "text in UTF-8"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def split_records(text: str) -> Records:
    """The records of a file. A quoted field may contain line ends."""
    found, begun, first, is_open = Records(), [], 0, False
    for number, line in enumerate(text.split("\n"), 1):
        if is_open:
            begun.append(line)
        elif not found.lines and (said := re.fullmatch(r"sep=(.)", line.strip("\n"))):
            found.separator = said[1]
            continue
        elif COMMENT.match(line):
            found.comment = found.comment if found.lines else line
            continue
        else:
            begun, first = [line], number
        # Each line is counted once, because a damaged quote may open a record of all other lines.
        is_open ^= line.count('"') % 2 == 1
        if not is_open:
            _add_record(found, " ".join(begun), first)
    if is_open:
        raise UsageError(f'line {first}: the quote " is not closed')
    return found


def _add_record(found: Records, record: str, number: int) -> None:
    """Add a record without its comment, unless a spreadsheet wrote a row of separators only."""
    if record.strip(' \t,;|"'):
        if "#" in record and record.lstrip()[0] in '0123456789+-."':
            record = TRAILING.sub("", record)
        found.lines.append(record)
        found.numbers.append(number)


def fields(line: str, separator: str) -> list[str]:
    """The fields of a line without surrounding blanks and quotes."""
    if separator == " ":
        line = " ".join(line.split())
    if '"' not in line:
        return [part.strip() for part in line.split(separator)]
    (row,) = csv.reader([line], delimiter=separator, skipinitialspace=True)
    return [part.strip() for part in row]


def find_separator(lines: Sequence[str], file: str) -> str:
    """The separator with which most lines have the same number of fields, and most are numbers."""
    best, chosen = 0.0, ","
    for separator in SEPARATORS.values():
        rows = [fields(line, separator) for line in lines]
        widths = [len(row) for row in rows]
        width = max(set(widths), key=widths.count)
        if width == 1:
            continue
        decimals = ".," if separator != "," else "."
        kinds = [loose_kind(part, decimals) for row in rows for part in row]
        numeric = kinds.count("number") + kinds.count("missing")
        score = widths.count(width) / len(rows) * (0.01 + numeric / len(kinds))
        if score > best:
            best, chosen = score, separator
    name = next(name for name, mark in SEPARATORS.items() if mark == chosen)
    if best and chosen != ",":
        log.info("%s: columns are separated by %s", file, name)
    return chosen


def find_decimal(rows: Sequence[Sequence[str]], separator: str, file: str) -> str:
    """A comma if numbers are written with commas and none with a point."""
    if separator == ",":
        return "."
    parts = [part for row in rows for part in row if "," in part or "." in part]
    comma = any(kind(part, ",") == "number" for part in parts)
    point = any(kind(part, ".") == "number" for part in parts)
    if not comma or point:
        return "."
    log.info("%s: decimal comma, as in %s; if it is wrong, set decimal", file, _example(parts))
    return ","


def loose_kind(text: str, decimals: str = ".,") -> str:
    """The kind of a text, in which a number may have any of some decimal marks."""
    kinds = [kind(text, mark) for mark in decimals]
    return "number" if "number" in kinds else kinds[0]


def _example(parts: Sequence[str]) -> str:
    return next(part for part in parts if kind(part, ",") == "number")


def find_names(
    rows, records: Records, separator: str, header: bool | None, file: str
) -> tuple[list[str], int]:
    """Names of the columns, and the number of records before the first row of numbers.

    Args:
        rows: fields of the first records.
        records: the records.
        separator: separator of the fields.
        header: whether the first record names the columns; None: inferred.
        file: name of the file, for the log.
    """
    line = records.numbers[0]
    if header is None:
        header = is_header(rows[0], rows[1:], line, file)
    is_row = not header or all(loose_kind(part) == "number" for part in rows[0])
    in_comment = names_in_comment(records.comment, separator, len(rows[0])) if is_row else []
    if in_comment and not is_header(rows[0], rows[1:], line, file) or not header:
        if in_comment:
            shown = short(", ".join(in_comment))
            log.info("%s: the columns are named by a comment: %s", file, shown)
        return in_comment, 0
    names = [re.sub(r"\s+", " ", name) for name in rows[0]]
    for column, name in enumerate(names):
        if name and name in names[:column]:
            first = names.index(name) + 1
            raise UsageError(
                f"line {line}: columns {first} and {column + 1} are both named {short(name)}; "
                "rename one"
            )
    if is_units(rows[1:]):
        units = ", ".join(rows[1])
        log.info("%s: line %d is read as units: %s", file, records.numbers[1], short(units))
        return names, 2
    return names, 1


def is_header(first, others, line: int, file: str) -> bool:
    """True if the first row names the columns.

    It names them if it holds no number and no date, or if it numbers them 0, 1, 2, ... while all
    other rows are written with decimals. pandas writes such a header for columns without names.
    """
    kinds = [loose_kind(part) for part in first]
    if "number" not in kinds:
        # A row of missing values is data.
        return "text" in kinds and "date" not in kinds
    # In pandas, the column of row numbers has no name, or one of its own.
    names_index = first[0] == "" or kinds[0] == "text"
    numbered = first[1:] if names_index else first
    if len(first) < 2 or not others or numbered != [str(i) for i in range(len(numbered))]:
        return False
    below = [row[1:] if names_index else row for row in others]
    values = [part for row in below for part in row if loose_kind(part) == "number"]
    found = bool(values) and not any(re.fullmatch(r"[+-]?\d+", part) for part in values)
    found = found or first[0] == "" and is_consecutive([row[0] for row in others])
    text = "%s: line %d (%s) is read as a header; if it is data, set header = false"
    if not found:
        text = "%s: line %d (%s) is read as data; if it is a header, set header = true"
    log.warning(text, file, line, short(", ".join(first)))
    return found


def is_units(rows) -> bool:
    """True if the first of the rows below a header holds units.

    It holds no number, but text in columns that hold no text in the next row.
    """
    if not rows or any(loose_kind(part) in ("number", "date") for part in rows[0]):
        return False
    texts = [i for i, part in enumerate(rows[0]) if loose_kind(part) == "text"]
    below = rows[1] if len(rows) > 1 else []
    return bool(texts) and not any(loose_kind(below[i]) == "text" for i in texts if below[i:])


def names_in_comment(comment: str, separator: str, width: int) -> list[str]:
    """Names of the columns in a comment line above the rows, as numpy.savetxt writes them."""
    names = fields(comment.strip().lstrip("#%!/ \t"), separator)
    kinds = {loose_kind(name) for name in names}
    if len(names) != width or kinds != {"text"} or len(set(names)) != width:
        return []
    return names


def parse(lines: list[str], numbers: list[int], separator: str) -> list[np.ndarray]:
    """The columns of the rows as arrays of text."""
    pandas = import_pandas()
    width = len(fields(lines[0], separator))
    try:
        frame = pandas.read_csv(
            io.StringIO("\n".join(lines)),
            sep=r"\s+" if separator == " " else separator,
            names=list(range(width)),
            header=None,
            dtype=object,
            na_filter=False,
            skipinitialspace=True,
            skip_blank_lines=False,
        )
    except pandas.errors.ParserError as error:
        for number, line in zip(numbers, lines):
            if (count := len(fields(line, separator))) > width:
                raise UsageError(
                    f"line {number} has {count} columns, but line {numbers[0]} has {width}"
                ) from None
        raise UsageError(f"pandas cannot read it: {short(str(error))}") from None
    return [frame[column].to_numpy(object) for column in range(width)]


def import_pandas():
    """pandas, which is an optional dependency and slow to import."""
    try:
        import pandas
    except ImportError:
        raise UsageError(
            "reading tables needs pandas, which is not installed: pip install 'nedhpc[data]'"
        ) from None
    return pandas


def _drop_empty_columns(table: Table) -> None:
    """Drop unnamed columns without a value; separators at the ends of lines make them."""
    while len(table.columns) > 1 and not any(table.columns[-1]):
        if len(table.names) >= len(table.columns):
            if table.names[-1]:
                return
            table.names = table.names[:-1]
        table.drop(len(table.columns) - 1)
    while len(table.names) > len(table.columns) and not table.names[-1]:
        table.names = table.names[:-1]


def _drop_index_column(table: Table, file: str) -> None:
    """Drop an unnamed first column of row numbers, which pandas and R write."""
    name = table.names[0] if table.names else "x"
    if len(table.columns) < 2 or (name and not re.fullmatch(r"Unnamed: \d+", name)):
        return
    if is_consecutive(table.columns[0]):
        log.info("%s: column 1 is left out, because it only numbers the rows", file)
        table.names = table.names[1:]
        table.drop(0)
    else:
        log.warning("%s: column 1 has no name and is kept; `inputs` chooses columns", file)


def refuse_short_rows(table: Table, lines: list[str], separator: str) -> None:
    """Refuse a row that lacks its last columns. An empty last field is not such a row."""
    width = len(fields(lines[0], separator))
    last = table.columns[-1]
    for row in np.flatnonzero([not value for value in last]):
        if (count := len(fields(lines[row], separator))) < width:
            first = table.lines[0]
            raise UsageError(
                f"line {table.lines[row]} has {count} columns, but line {first} has {width}"
            )
