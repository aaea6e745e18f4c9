"""Header lines: which column is the address, and what templates call the rest."""

import pytest

from control.cli.columns import COLUMNS_MAX, field_name, find_address_column, name_columns
from control.cli.errors import InputError


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ("First Name", "first_name"),
        (" first-name ", "first_name"),
        ("FIRST.NAME", "first_name"),
        ("Größe (cm)", "grosse_cm"),
        ("Prénom", "prenom"),
        ("2nd name", "_2nd_name"),
        ("if", "if_"),
        ("名前", "名前"),
        ("がくせい", "がくせい"),
        ("---", ""),
        ("", ""),
        ("٣", "_٣"),
    ],
)
def test_a_header_becomes_a_template_identifier(header: str, field: str) -> None:
    assert field_name(header) == field


@pytest.mark.parametrize(
    "header",
    [
        "email",
        "Email Address",
        "e-mail",
        "E-Mail",
        "MAIL",
        "E-Mail-Adresse",
        "correo",
        "Correo electrónico",
        "メールアドレス",
    ],
)
def test_the_address_column_goes_by_many_names(header: str) -> None:
    columns = name_columns(["Name", header], "f.csv")
    assert find_address_column(columns, "f.csv").index == 1


def test_email_beats_mail_and_a_named_column_beats_both() -> None:
    columns = name_columns(["Mail", "email", "Other"], "f.csv")
    assert find_address_column(columns, "f.csv").index == 1
    assert find_address_column(columns, "f.csv", "other").index == 2
    with pytest.raises(InputError, match="no column is called 'x'"):
        find_address_column(columns, "f.csv", "x")


def test_two_likely_columns_are_a_question_to_the_user() -> None:
    with pytest.raises(InputError, match="--address-column"):
        find_address_column(name_columns(["Mail-Adresse", "mail adresse"], "f.csv"), "f.csv")


def test_a_list_without_a_header_is_told_so() -> None:
    with pytest.raises(InputError, match=r"f\.csv: no column.*first line must hold the names"):
        find_address_column(name_columns(["ann@example.org", "Ann"], "f.csv"), "f.csv")


def test_repeated_and_unnamed_columns_still_have_their_own_field() -> None:
    columns = name_columns(["Name", "name", "", "Name"], "f.csv")
    assert [column.field for column in columns] == ["name", "name_2", "column_3", "name_3"]
    assert [column.header for column in columns] == ["Name", "name", "", "Name"]


def test_too_many_columns_are_refused() -> None:
    with pytest.raises(InputError, match="columns"):
        name_columns(["x"] * (COLUMNS_MAX + 1), "f.csv")
