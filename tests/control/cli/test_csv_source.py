"""Looking at a CSV file: encoding, delimiter, header, and the clear errors."""

import codecs
from pathlib import Path

import pytest

from control.cli.csv_source import inspect_csv
from control.cli.errors import InputError


def write(folder: Path, data: bytes) -> Path:
    path = folder / "people.csv"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("encode", "found"),
    [
        (lambda t: t.encode(), "utf-8"),
        (lambda t: codecs.BOM_UTF8 + t.encode(), "utf-8-sig"),
        (lambda t: t.encode("utf-16"), "utf-16"),
        (lambda t: codecs.BOM_UTF16_BE + t.encode("utf-16-be"), "utf-16"),
        (lambda t: t.encode("utf-16-le"), "utf-16-le"),
        (lambda t: t.encode("utf-16-be"), "utf-16-be"),
        (lambda t: t.encode("cp1252"), "cp1252"),
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_encoding_and_delimiter_are_found(tmp_path: Path, encode: object, found: str, delimiter: str) -> None:
    text = "Größe|E-Mail\r\n1,5;x|anna@example.org\r\n".replace("|", delimiter).replace("1,5;x", '"1,5;x"')
    source = inspect_csv(write(tmp_path, encode(text)))  # type: ignore[operator]
    assert (source.encoding, source.delimiter) == (found, delimiter)
    assert source.address.header == "E-Mail"
    assert source.fields == ("grosse",)
    assert source.header_lines == 1


def test_a_list_of_one_column_needs_no_delimiter(tmp_path: Path) -> None:
    source = inspect_csv(write(tmp_path, b"email\na@example.org\n"))
    assert (source.delimiter, source.fields) == (",", ())


def test_a_told_delimiter_and_blank_lines_above_the_header_are_skipped(tmp_path: Path) -> None:
    source = inspect_csv(write(tmp_path, b'\r\n\r\nsep=;\r\n"e\r\nmail";name, first\r\na@example.org;x\r\n'))
    assert (source.delimiter, source.header_lines) == (";", 5)
    assert source.fields == ("name_first",)


def test_the_hash_and_size_are_those_of_the_octets(tmp_path: Path) -> None:
    source = inspect_csv(write(tmp_path, b"email\n"))
    assert source.size == 6
    assert len(source.sha256) == 64


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"name,city\nAnn,Rome\n", "line 1: no column of addresses"),
        (b"a@example.org\nb@example.org\n", "first line must hold the names"),
        (b"PK\x03\x04abc", "Excel"),
        (b"\x1f\x8babc", "compressed"),
        ("email\n".encode("utf-32"), "UTF-32"),
        (codecs.BOM_UTF8 + b"email\n\xff@x\n", "line 2: is not UTF-8"),
        ("email,n\na@x.org,ü\nb@x.org,ä\n".encode() + b"c@x.org,\xfc\n", "line 4: is not UTF-8, though"),
        ("email,n\na@x.org,äü".encode()[:-1], "line 2: is not UTF-8"),
        (b"email,n\na@x.org,\xfc\nb@x.org,\x81\n", "line 3: is neither UTF-8 nor Windows-1252"),
        ("email\n".encode("utf-16") + b"a", "is not UTF-16"),
        (codecs.BOM_UTF16_LE + "email\na\n".encode("utf-16-le") + b"\x00\xdcx\x00", "line 3: is not UTF-16"),
    ],
)
def test_what_is_no_list_is_a_clear_error_with_its_place(tmp_path: Path, data: bytes, problem: str) -> None:
    path = write(tmp_path, data)
    with pytest.raises(InputError) as caught:
        inspect_csv(path)
    assert str(caught.value).startswith(str(path))
    assert problem in str(caught.value)


def test_a_missing_file_and_a_folder_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        inspect_csv(tmp_path / "none.csv")
    with pytest.raises(InputError, match="cannot be read"):
        inspect_csv(tmp_path)


def test_a_broken_octet_far_into_a_large_file_is_found(tmp_path: Path) -> None:
    line = "anna@example.org,Jörg\n".encode()
    path = write(tmp_path, b"email,name\n" + line * 60_000 + b"\xff\n")
    with pytest.raises(InputError, match="line 60002: is not UTF-8"):
        inspect_csv(path)
