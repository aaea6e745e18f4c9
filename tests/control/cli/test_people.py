"""Reading people: any text survives, every refusal names its line, and the rest goes on."""

import contextlib
import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control.cli.csv_source import inspect_csv
from control.cli.errors import InputError
from control.cli.people import FIELD_CHARS_MAX, RECORD_CHARS_MAX, People, Person, Refused
from engine.model.address import Address, canonical_v1, parse_address


def read(folder: Path, data: bytes, **named: object) -> list[Person | Refused]:
    path = folder / "people.csv"
    path.write_bytes(data)
    return list(People(inspect_csv(path), **named))  # type: ignore[arg-type]


def test_each_record_is_a_person_with_its_line_record_row_and_domain(tmp_path: Path) -> None:
    found = read(
        tmp_path, "Name;E-Mail;Stadt\r\nJörg;joerg@Bücher.example;Köln\r\n;b@example.org;\r\n".encode()
    )
    assert found == [
        Person(2, 1, "joerg@xn--bcher-kva.example", ("Jörg", "Köln"), "xn--bcher-kva.example"),
        Person(3, 2, "b@example.org", ("", ""), "example.org"),
    ]


@pytest.mark.parametrize(
    ("fields", "row"),
    [((), ()), (("city",), ("C",)), (("city", "name"), ("C", "N")), (None, ("N", "C", "X"))],
)
def test_a_row_holds_the_fields_asked_for(tmp_path: Path, fields: object, row: tuple[str, ...]) -> None:
    found = read(tmp_path, b"name,email,city,x\nN,a@example.org,C,X\n", fields=fields)
    assert found[0] == Person(2, 1, "a@example.org", row, "example.org")


@pytest.mark.parametrize(
    ("record", "address", "reason"),
    [
        ("anna,x", "anna", "address has no @"),
        (",x", "", "address is missing"),
        ("a@b,x", "a@b", "address domain has no dot"),
        ("OK@Example.org ,x", "OK@Example.org", "doubled"),
        ('"a\0@example.org",x', "a\0@example.org", "NUL"),
        ("n@example.org,a\0b", "n@example.org", "NUL"),
        ("n@example.org,Smith, John", "n@example.org", "has 3 cells, the header line has 2"),
        ('"n@example.org" x,y', "", "text follows a closing quote"),
        (f"n@example.org,{'x' * (FIELD_CHARS_MAX + 1)}", "n@example.org", "more than 32767 characters"),
        (f"n@example.org,{'x' * (RECORD_CHARS_MAX + 500)}", "", "longer than"),
        ('n@example.org,"never closed', "", "a quote is not closed"),
        (f"{'x' * 400}@example.org,y", ("x" * 400 + "@example.org")[:320], "local part is longer"),
    ],
)
def test_a_record_that_cannot_be_used_is_refused_with_its_line_and_the_rest_goes_on(
    tmp_path: Path, record: str, address: str, reason: str
) -> None:
    found = read(
        tmp_path, f'email,name\nok@example.org,"two\nlines"\n{record}\nlast@example.org,z\n'.encode()
    )
    assert [type(item) for item in found] == [Person, Refused, Person]
    refused = found[1]
    assert isinstance(refused, Refused)
    assert (refused.line, refused.address) == (4, address)
    assert reason in refused.reason
    last = found[2]
    assert isinstance(last, Person)
    assert (last.line, last.record, last.recipient) == (5, 3, "last@example.org")


@pytest.mark.parametrize("record", ["n@example.org", "n@example.org,x,", "n@example.org,x, ,"])
def test_short_records_and_empty_extra_cells_are_tolerated(tmp_path: Path, record: str) -> None:
    assert isinstance(read(tmp_path, f"email,name\n{record}\n".encode())[0], Person)


def test_blank_lines_are_no_records(tmp_path: Path) -> None:
    found = read(tmp_path, b"email,name\n\n , \n,\n  \na@example.org,x\n\n")
    assert found == [Person(6, 1, "a@example.org", ("x",), "example.org")]


def test_an_unclosed_quote_costs_one_line_only(tmp_path: Path) -> None:
    lines = "".join(f"p{n}@example.org,n\n" for n in range(20_000))
    found = read(tmp_path, f'email,name\na@example.org,"oops\n{lines}'.encode())
    assert isinstance(found[0], Refused)
    assert found[0].line == 2
    assert len(found) == 20_001
    assert found[-1] == Person(20_002, 20_001, "p19999@example.org", ("n",), "example.org")


def test_lines_that_each_open_a_quote_are_each_refused(tmp_path: Path) -> None:
    found = read(tmp_path, b"email,name\n" + b'x,"y\n' * 50 + b"a@example.org,n\n")
    assert sum(isinstance(item, Refused) for item in found) >= 25
    assert isinstance(found[-1], Person)
    assert found[-1].line == 52


@pytest.mark.slow
def test_many_empty_lines_in_a_quote_do_not_take_quadratic_time(tmp_path: Path) -> None:
    found = read(tmp_path, b'email,name\nb@example.org,"' + b"\n" * 300_000 + b"a@example.org,n\n")
    assert isinstance(found[-1], Person)
    assert found[-1].line == 300_002


def test_a_list_without_one_usable_address_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"people\.csv: holds no addresses"):
        read(tmp_path, b"email\n")
    with pytest.raises(InputError, match="none of its 2 addresses"):
        read(tmp_path, b"email\nx\ny\n")


def test_a_file_that_changed_since_it_was_looked_at_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(b"email\na@example.org\n")
    people = People(inspect_csv(path))
    path.write_bytes(b"email\na@example.org\nb@example.org\n")
    with pytest.raises(InputError, match="changed"):
        list(people)


def test_two_passes_give_the_same_records(tmp_path: Path) -> None:
    data = b"email,n\na@example.org,1\nbad,2\na@example.org,3\nb@example.org,4\n"
    assert read(tmp_path, data) == read(tmp_path, data)


@pytest.mark.slow
def test_the_estimate_ends_at_the_number_of_records(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(b"email,n\n" + b"".join(b"p%d@example.org,x\n" % n for n in range(50_000)))
    people = People(inspect_csv(path))
    assert people.total_estimate == 0
    records = iter(people)
    for _ in range(10_000):
        next(records)
    assert 10_000 < people.total_estimate < 60_000
    list(records)
    assert people.total_estimate == pytest.approx(50_000, rel=0.01)
    assert people.accepted == 50_000


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
CP1252 = st.text(st.sampled_from("aB ,;\t\"'\r\n=@äöüß€é\u2019"), max_size=40)


def round_trip(folder: Path, cells: list[tuple[str, str]], delimiter: str, encoding: str, end: str) -> None:
    out = io.StringIO(newline="")
    # Python's writer quotes only the line ends that it writes itself.
    quoting = csv.QUOTE_MINIMAL if end == "\r\n" else csv.QUOTE_ALL
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow(("First Name", "Email", "Note"))
    for number, (first, last) in enumerate(cells):
        writer.writerow((first, f"p{number}@example.org", last))
    found = read(folder, out.getvalue().encode(encoding))
    assert [item.row for item in found if isinstance(item, Person)] == cells
    assert len(found) == len(cells)


CELLS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    CELLS,
    st.sampled_from(",;\t"),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_any_text_in_cells_survives(
    tmp_path: Path, cells: list[tuple[str, str]], delimiter: str, encoding: str, end: str
) -> None:
    round_trip(tmp_path, cells, delimiter, encoding, end)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(CP1252, CP1252), min_size=1, max_size=6), st.sampled_from(",;\t"))
def test_any_text_in_cells_survives_windows_1252(
    tmp_path: Path, cells: list[tuple[str, str]], delimiter: str
) -> None:
    round_trip(tmp_path, cells, delimiter, "cp1252", "\r\n")


@given(
    st.text(
        st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='@"(),:;<>[\\]'), min_size=1
    )
)
def test_the_shortcut_to_the_canonical_form_agrees_with_it(local: str) -> None:
    try:
        address: Address = parse_address(f"{local}@Example.ORG")
    except ValueError:
        return
    assert str(address).lower().encode() == canonical_v1(address)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_octets_give_people_refusals_or_one_clear_error(tmp_path: Path, octets: bytes) -> None:
    found: list[Person | Refused] = []
    with contextlib.suppress(InputError):
        found = read(tmp_path, b"email,n\na@example.org,x\n" + octets)
    assert all(isinstance(item, Person | Refused) for item in found)
