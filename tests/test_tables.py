"""Data files: each form is read to the same numbers, or refused with its line and column."""

import builtins
import logging
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import ROOT

import nedhpc
from nedhpc import problems
from nedhpc.errors import UsageError
from nedhpc.problems import data

CASES = ROOT / "tests" / "cases" / "12-data-files"
X = np.array([[2.5], [3.25], [4.0], [5.125]])
Y = np.array([[1e-3], [0.5], [-7.25], [1.5e10]])
ROWS = [f"{x:.3f},{y!r}" for x, y in zip(X[:, 0], Y[:, 0].tolist())]


@pytest.fixture
def read(tmp_path):
    """Write a file, read it as a table, and compare it with X and Y."""

    def read(content, name="data.csv", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return nedhpc.read_table(path, **options)

    return read


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, logger="nedhpc")
    return lambda: " | ".join(caplog.messages)


def lines(*head, sep=",", comma=False, end="\n"):
    rows = [row.replace(",", "\0") for row in ROWS]
    rows = [row.replace(".", ",") if comma else row for row in rows]
    return end.join([*head, *(row.replace("\0", sep) for row in rows)]) + end


def assert_is_data(found):
    np.testing.assert_array_equal(found[0], X)
    np.testing.assert_array_equal(found[1], Y)
    assert found[0].dtype == found[1].dtype == np.float64


@pytest.mark.parametrize("file", sorted(path.name for path in CASES.iterdir()))
def test_a_measurement_is_read_from_each_sample_file(file):
    x, y = nedhpc.read_table(CASES / file, missing="drop")
    assert x.shape == y.shape == (200 - 2 * (file == "missing.csv"), 1)
    np.testing.assert_allclose(y, 3.8e-4 + 2e-4 * np.tanh(0.8 * (x - 6)), rtol=1e-12)


def test_a_missing_value_is_refused_with_its_place():
    with pytest.raises(UsageError, match=r'line 19, column 2 \(current\).*missing = "drop"'):
        nedhpc.read_table(CASES / "missing.csv")


SEPARATED = {
    "comma": ",",
    "comma and blanks": ", ",
    "semicolon": ";",
    "tab": "\t",
    "blank": " ",
    "several blanks": "   ",
    "bar": "|",
}


@pytest.mark.parametrize("header", [(), ("v (V),i (A)",), ("# v,i",), ("v,i", "V,A")])
@pytest.mark.parametrize("name", SEPARATED)
def test_each_separator_is_found(read, said, name, header):
    sep = SEPARATED[name]
    if sep.strip() == "" and header and " " in header[0]:
        header = ("v/V,i/A",)
    assert_is_data(read(lines(*(line.replace(",", sep) for line in header), sep=sep)))
    assert ("separated by" in said()) == (sep.strip() != ",")


@pytest.mark.parametrize("name", ["semicolon", "tab", "blank", "bar"])
def test_a_decimal_comma_is_inferred(read, said, name):
    text = lines(sep=SEPARATED[name], comma=True)
    assert_is_data(read(text))
    assert "decimal comma" in said() and name in said()
    assert_is_data(read(text, decimal=",", separator=name))
    with pytest.raises(UsageError, match="line 1, column 1.*decimal ','"):
        read(text, decimal=".", separator=name)


def test_mixed_decimal_marks_are_refused(read):
    with pytest.raises(UsageError, match="line 2, column 1: '3,5' has a decimal ','"):
        read("1.5;2\n3,5;4\n")


def test_a_point_beside_a_decimal_comma_is_refused(read):
    with pytest.raises(UsageError, match="line 1, column 1: '1.5' has a decimal '.'"):
        read("1.5;2\n2.5;3\n", decimal=",", header=False)


def test_an_integer_is_read_beside_decimal_commas(read):
    x, y = read("1,5;2\n3;4,25\n")
    assert x.tolist() == [[1.5], [3.0]] and y.tolist() == [[2.0], [4.25]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("head", [(), ("Länge (µm),Strom",)])
def test_each_encoding_is_read(read, said, encoding, end, head):
    assert_is_data(read(lines(*head, end=end).encode(encoding)))
    assert ("Latin-1" in said()) == (encoding == "latin-1" and bool(head))


def test_the_byte_order_of_utf_16_is_read(read):
    assert_is_data(read("\ufeff".encode("utf-16-be") + lines().encode("utf-16-be")))


def test_a_binary_file_is_refused(read):
    for content in (b"PK\3\4\0\0\0\0\xff", lines().encode("utf-16-le")):
        with pytest.raises(UsageError, match="binary"):
            read(content)


@pytest.mark.parametrize("mark", ["#", "%", "//", "!", "  #"])
def test_comment_lines_are_left_out(read, mark):
    text = lines(f"{mark} measured, on Monday, by", "v,i")
    assert_is_data(read(text.replace("4.000", f"\n{mark} 9,9\n4.000") + f"{mark} end\n"))


def test_a_comment_after_a_number_is_left_out(read):
    assert_is_data(read(lines().replace("0.5\n", "0.5  # twice, it seems\n")))


def test_quotes_are_removed(read):
    quoted = "\n".join('"' + row.replace(",", '","') + '"' for row in ROWS)
    assert_is_data(read(quoted))
    assert_is_data(read('"voltage, in\nvolts","i"\n' + quoted))
    with pytest.raises(UsageError, match="line 2: the quote"):
        read('1,2\n"3,4\n5,6\n')


def test_a_row_of_units_is_said(read, said):
    assert_is_data(read(lines("v,i", "V,A")))
    assert "line 2 is read as units: V, A" in said()
    assert_is_data(read(lines("v,i", "V,-")))


def test_a_text_column_is_not_a_row_of_units(read):
    with pytest.raises(UsageError, match=r"line 2, column 1 \(name\): 'a' is text"):
        read("name,value\na,\nb,2\n")


def test_the_header_of_columns_without_names_is_said(read, said):
    frame = pd.DataFrame(np.hstack([X, Y]))
    text = frame.to_csv(index=False)
    assert text.startswith("0,1\n")
    assert_is_data(read(text))
    assert "line 1 (0, 1) is read as a header" in said()
    x, _ = read(text, header=False)
    assert x[0] == 0 and len(x) == 5
    assert_is_data(read(frame.to_csv()))  # with its index
    assert "column 1 is left out" in said()


@pytest.mark.parametrize("rows", ["0,1\n1,0.5\n2,0.25\n", "0,1\n1,2\n2,3\n", "0,1\n5,7\n9,3\n"])
def test_integers_may_be_data(read, rows):
    """Row "0,1" may well be the value at 0; only rows with decimals make it a header."""
    assert len(read(rows)[0]) == 3
    assert len(read(rows, header=True)[0]) == 2


def test_an_index_column_is_left_out_if_it_numbers_the_rows(read, said):
    rows = lambda numbers: "".join(f"{i},{row}\n" for i, row in zip(numbers, ROWS))
    for head in (",v,i\n", "Unnamed: 0,v,i\n", '"","v","i"\n'):
        assert_is_data(read(head + rows(range(4))))
        assert_is_data(read(head + rows(range(1, 5))))
    assert "column 1 is left out" in said()
    assert read(",v,i\n" + rows([3, 1, 0, 2]))[0].shape == (4, 2)
    assert "has no name and is kept" in said()
    assert read("n,v,i\n" + rows(range(4)))[0].shape == (4, 2)


def test_a_named_index_beside_columns_without_names_is_read(read):
    frame = pd.DataFrame(np.hstack([X, Y]), index=pd.Index([4, 7, 9, 5], name="run"))
    assert read(frame.to_csv())[0][:, 0].tolist() == [4, 7, 9, 5]
    for text in ("x,0\n3,4\n5,6\n", ",0\n3,4\n5,6\n", "NA,0\n3.5,4.5\n"):
        with pytest.raises(UsageError, match="line 1, column 1"):
            read(text)


MISSING = ["", "nan", "NaN", "NA", "n/a", "#N/A", "null", "-", "?"]


@pytest.mark.parametrize("word", MISSING)
def test_missing_values_are_refused_or_dropped(read, said, word):
    text = lines("v,i").replace("\n4.000", f"\n3.5,{word}\n4.000")
    with pytest.raises(UsageError, match=r'line 4, column 2 \(i\).*1 of 5 .*missing = "drop"'):
        read(text)
    assert_is_data(read(text, missing="drop"))
    assert "1 of 5 rows are left out" in said()


def test_a_value_that_is_missing_in_another_column_does_not_count(read):
    text = "".join(f"{row},{note}\n" for row, note in zip(ROWS, ["a", "", "2024-01-01", "5"]))
    assert_is_data(read("v,i,note\n" + text, inputs=["v"], targets=["i"]))


REFUSED = {
    "infinity": ("v,i\n1,2\n3,-inf\n", r"line 3, column 2 \(i\) is infinite"),
    "overflow": ("1,2\n3,1e999\n", "line 2, column 2 is infinite"),
    "date": ("t,i\n2024-01-02,2\n", r"line 2, column 1 \(t\): '2024-01-02' is a date"),
    "date without header": ("2024-01-02,2\n2024-01-03,3\n", "line 1, column 1: .* is a date"),
    "time": ("12:30:05;2\n12:30:06;3\n", "line 1, column 1: '12:30:05' is a date or a time"),
    "text": ("v,i\n1,2\n3,high\n", r"line 3, column 2 \(i\): 'high' is text"),
    "underscore": ("1,2\n3,1_000\n", "line 2, column 2: '1_000' is text"),
    "thousands": ('v,i\n"1,234",2\n"2,345",3\n', "'1,234' has a decimal ','"),
    "thousands of points": ("v;i\n1.234.567;2\n", "'1.234.567' is text, not a finite number"),
    "thousands and decimals": ("v;i\n1,234.5;2\n", "'1,234.5' is text, not a finite number"),
    "thousands without quotes": ("v,i\n1,234,2\n", "line 1 names 2 columns, but line 2 has 3"),
    "truth value": ("1,2\n3,True\n", "line 2, column 2: 'True' is text"),
    "text in line 1": ("x,2\n3,4\n", "line 1, column 1: 'x' is text.*header = true"),
    "too long a text": ("1,2\n3," + "z" * 5000 + "\n", r"z\.\.\.' is text"),
    "nothing": ("", "empty.*needed are"),
    "only comments": ("# a\n\n# b\n", "empty"),
    "only a header": ("v,i\n", "no rows of numbers below line 1"),
    "only header and units": ("v,i\nV,A\n", "no rows of numbers below line 2"),
    "one row": ("1,2\n", "1 usable rows"),
    "one column": ("1\n2\n", "1 column, of which 1 are targets"),
    "same names": ("v,w,v\n1,2,3\n", "line 1: columns 1 and 3 are both named v"),
    "long row": ("v,i\n1,2\n\n3,4,5\n", "line 4 has 3 columns, but line 2 has 2"),
    "short row": ("v,i\n1,2\n# c\n3\n5,6\n", "line 4 has 1 columns, but line 2 has 2"),
    "short header": ("v,i\n1,2,3\n4,5,6\n", "line 1 names 2 columns, but line 2 has 3"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_a_table_is_refused_with_its_place(read, what):
    text, message = REFUSED[what]
    with pytest.raises(UsageError, match=message) as error:
        read(text)
    assert len(str(error.value)) < 400 and str(error.value).count("\n") == 0
    assert error.value.exit_code == 2 and "data.csv" in str(error.value)


@given(st.text(alphabet='0123,.;|\t "#%\n\r-+enaxi\u00e9', max_size=60))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_text_is_read_or_refused_in_a_few_words(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text(text, encoding="utf-8", newline="")
    try:
        x, y = nedhpc.read_table(path)
    except UsageError as error:
        assert len(str(error)) < 600
    else:
        assert len(x) == len(y) >= 2 and np.isfinite(np.hstack([x, y])).all()


ROWS_OF_A_LARGE_FILE = "".join(f"{0.1 * k},{0.2 * k}\n" for k in range(100_000))
LARGE = {
    "open quote": ('1,2\n3,"4\n' + ROWS_OF_A_LARGE_FILE, 'line 2: the quote " is not closed'),
    "no line ends": (ROWS_OF_A_LARGE_FILE.replace("\n", ","), "line 1 has 200001 columns"),
    "long last row": (ROWS_OF_A_LARGE_FILE + "1,2,3\n", "line 100001 has 3 columns"),
    "text at the end": (ROWS_OF_A_LARGE_FILE + "1,a\n", "line 100001, column 2: 'a' is text"),
    "blanks": ("1,2" + " " * 100_000 + "x #N/A\n3,4\n", "line 1, column 2"),
    "a long field": ('"' + "a" * 200_000 + '",2\n3,4\n', "cannot be read"),
}


@pytest.mark.parametrize("what", LARGE)
def test_a_damaged_large_file_is_refused_within_seconds(read, what):
    text, message = LARGE[what]
    read(lines())  # pandas is imported
    start = time.monotonic()
    with pytest.raises(UsageError, match=message):
        read(text)
    assert time.monotonic() - start < 5


def test_a_short_row_is_refused_even_if_rows_may_be_dropped(read):
    with pytest.raises(UsageError, match="line 2 has 1 columns"):
        read("1,2\n3\n5,6\n7,8\n", missing="drop")


def test_a_file_of_errors_gives_one_short_message(read):
    with pytest.raises(UsageError) as error:
        read(lines() + "a,b,c,d\n" * 3000)
    assert len(str(error.value)) < 400


def test_separators_at_the_ends_of_lines_are_no_column(read):
    ended = lambda *head: "".join(f"{row},\n" for row in (*head, *ROWS))
    for text in (ended(), ended("v,i"), "v,i\n" + ended(), "v,i,\n" + lines()):
        assert_is_data(read(text))
    assert_is_data(read(lines("v,i") + ",\n,\n"))  # rows without a value, as spreadsheets write


def test_a_line_of_a_spreadsheet_names_the_separator(read):
    assert_is_data(read(lines("sep=;", "v;i", sep=";")))


def test_a_fortran_exponent_is_read(read):
    assert read("1.5D-03 2\n3 4\n", "data.dat")[0][0] == 1.5e-3


@pytest.mark.parametrize("name", ["data.csv", "data.dat", "data.txt", "data.tsv", "DATA.CSV"])
def test_each_suffix_of_text_is_read(read, name):
    assert_is_data(read(lines(sep="\t"), name))


def test_numbers_are_read_to_the_last_bit(read):
    numbers = np.random.default_rng(0).normal(size=(500, 3)) * 10.0 ** np.arange(-30, 31, 30)
    x, y = read("\n".join(",".join(map(repr, row)) for row in numbers.tolist()))
    np.testing.assert_array_equal(np.hstack([x, y]), numbers)


def test_columns_are_chosen_by_name(read):
    text = "a,b,c,d\n1,2,3,4\n5,6,7,8\n"
    chosen = lambda **options: [part[0].tolist() for part in read(text, **options)]
    assert chosen() == [[1, 2, 3], [4]] and chosen(targets=2) == [[1, 2], [3, 4]]
    assert chosen(targets="b") == [[1, 3, 4], [2]] and chosen(targets=["d", "a"])[1] == [4, 1]
    assert chosen(inputs=["c", "a"]) == [[3, 1], [4]]
    assert chosen(inputs=["b"], targets=["a"]) == [[2], [1]]
    for options, part in (
        ({"targets": ["e"]}, "unknown column.*a, b, c, d"),
        ({"inputs": ["d"]}, r"column 4 \(d\) is chosen twice"),
        ({"targets": 4}, "4 columns, of which 4 are targets"),
        ({"targets": 0}, "at least 1"),
    ):
        with pytest.raises(UsageError, match=part):
            read(text, **options)
    with pytest.raises(UsageError, match="does not name its columns"):
        read("1,2\n3,4\n", targets=["a"])


def test_a_comment_may_name_the_columns(read, said):
    text = "# a,b,c\n1,2,3\n4,5,6\n"
    assert read(text, targets=["a"])[1].tolist() == [[1], [4]] and "named by a comment" in said()


def test_a_comment_that_names_the_columns_is_the_header(read):
    """The first row of numbers is not lost if the user says that there is a header."""
    assert_is_data(read(lines("# v,i"), header=True, targets=["i"]))


def test_bad_options_are_refused(read):
    for options, part in (
        ({"separator": "x"}, "allowed are tab, semicolon"),
        ({"decimal": ";"}, "decimal"),
        ({"missing": "keep"}, "'refuse' and 'drop'"),
        ({"separator": "comma", "decimal": ","}, "both"),
    ):
        with pytest.raises(UsageError, match=part):
            read(lines(), **options)
    with pytest.raises(UsageError, match="options of text files"):
        read(b"", "data.npz", decimal=",")
    with pytest.raises(UsageError, match="ends in none of .csv"):
        read(b"", "data.xlsx")
    with pytest.raises(UsageError, match="no such file"):
        nedhpc.read_table("nowhere.csv")


def test_without_pandas_the_message_names_the_extra(read, monkeypatch):
    import_module = builtins.__import__

    def without_pandas(name, *rest, **options):
        if name == "pandas":
            raise ImportError(name)
        return import_module(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without_pandas)
    for name in ("data.csv", "data.parquet"):
        with pytest.raises(UsageError, match=r"pip install 'nedhpc\[data\]'"):
            read(lines(), name)


def test_rows_are_held_out_as_in_the_first_edition(tmp_path):
    """The seed and the number of rows determine the split, however the file is written."""
    rows = np.random.default_rng(1).normal(size=(50, 3))
    held, kept = np.split(np.random.Generator(np.random.Philox(key=7)).permutation(50), [10])
    for name, content in {
        "a.csv": "\n".join(",".join(map(repr, row)) for row in rows.tolist()),
        "b.dat": "a b c\nm m s\n" + "\n".join(" ".join(map(repr, row)) for row in rows.tolist()),
    }.items():
        (tmp_path / name).write_text(content)
        table = {"name": "regression", "file": str(tmp_path / name), "split_seed": 7}
        found = problems.build(table).data
        np.testing.assert_array_equal(found.held_out_x, rows[held, :2])
        np.testing.assert_array_equal(found.x_ND, rows[np.sort(kept), :2])
        np.testing.assert_array_equal(found.y_NM, rows[np.sort(kept), 2:])


def test_regression_passes_its_options_on(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("0;1;2\n1,5;2,5;9\n2,5;NA;9\n3,5;4,5;8\n4,5;1,5;7\n")
    build = lambda **more: problems.build({"name": "regression", "file": str(path), **more})
    options = {"separator": "semicolon", "decimal": ",", "header": True, "missing": "drop"}
    found = build(inputs=["1"], targets=["2", "0"], held_out=0.0, **options)
    assert found.outputs == ("u1", "u2")
    assert found.data.x_ND.tolist() == [[2.5], [4.5], [1.5]]
    assert found.data.y_NM.tolist() == [[9, 1.5], [8, 3.5], [7, 4.5]]
    with pytest.raises(UsageError, match="problem.file = .*data.csv.*line 3"):
        build(header=True)
    assert data.read(path, 1, missing="drop", header=True)[0].shape == (3, 2)


def test_check_says_what_was_inferred_and_refuses_with_exit_code_2(tmp_path):
    config = tmp_path / "case.toml"

    def check(file, *more):
        config.write_text(f'[problem]\nname = "regression"\nfile = "{CASES / file}"\n')
        words = [sys.executable, "-P", "-m", "nedhpc", "check", str(config), *more]
        return subprocess.run(words, capture_output=True, text=True, timeout=120)

    done = check("decimalcomma.csv")
    assert done.returncode == 0 and "decimal comma" in done.stderr and "valid" in done.stdout
    done = check("missing.csv")
    assert done.returncode == 2 and "line 19" in done.stderr and len(done.stderr) < 600
    assert check("missing.csv", "--set", "problem.missing=drop").returncode == 0
