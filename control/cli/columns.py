"""From a CSV's header line to names: which column is the address, and what templates call the rest.

"First Name" is `first_name` in a template, "Größe" is `grosse`, a column without a name is
`column_3`; both forms stay in `Column`, so that messages can speak of either. Pure; mistakes are
`InputError`s that name the file.
"""

import re
import unicodedata
from collections.abc import Sequence

from msgspec import Struct

from control.cli.errors import InputError

COLUMNS_MAX = 1_000  # a spreadsheet may have more; a mailing list has tens
HEADER_SHOWN_MAX = 60  # characters of a header that messages repeat

# Letters and digits of a header, folded, that mean "the address", likeliest first.
ADDRESS_ALIASES = (
    "email", "emailaddress", "mailaddress", "mail", "emailadresse", "mailadresse", "emailaddresse",
    "subscriberemail", "contactemail", "useremail", "recipient", "recipientemail",
    "correo", "correoelectronico", "direcciondecorreo", "courriel", "adresseemail",
    "adressemail", "adresseelectronique", "adressedemessagerie", "indirizzoemail", "postaelettronica",
    "emailadres", "epost", "epostadresse", "epostadress", "eposta", "sahkoposti", "enderecodeemail",
    "adresemail", "empfanger", "destinatario", "destinataire",
    "электроннаяпочта", "почта", "メールアドレス", "メール", "邮箱", "电子邮件", "이메일",
)  # fmt: skip

# Words that a template cannot use as a name, or that mean something else there.
_RESERVED = frozenset({"and", "else", "false", "if", "in", "is", "loop", "none", "not", "or", "self", "true"})


class Column(Struct, frozen=True):
    """A column: where it is, what the file calls it, what templates call it."""

    index: int
    header: str
    field: str


def name_columns(header: Sequence[str], place: str) -> tuple[Column, ...]:
    """One Column per cell of the header line, every `field` once. `place` opens error messages."""
    if len(header) > COLUMNS_MAX:
        raise InputError(f"{place}: {len(header)} columns; at most {COLUMNS_MAX} are read")
    taken: set[str] = set()
    columns = []
    for index, text in enumerate(header):
        wanted = field_name(text) or f"column_{index + 1}"
        field, repeat = wanted, 2
        while field in taken:
            field, repeat = f"{wanted}_{repeat}", repeat + 1
        taken.add(field)
        columns.append(Column(index, text.strip(), field))
    return tuple(columns)


def find_address_column(columns: Sequence[Column], place: str, named: str | None = None) -> Column:
    """The column of addresses: the one `named` (by either form), else the likeliest alias."""
    if named is not None:
        chosen = [c for c in columns if named in (c.header, c.field)]
        if not chosen:
            raise InputError(f"{place}: no column is called {named!r}; there are {_list(columns)}")
        return chosen[0]
    aliases = {alias: rank for rank, alias in enumerate(ADDRESS_ALIASES)}
    ranked = sorted((aliases[_letters(c.header)], c.index) for c in columns if _letters(c.header) in aliases)
    if not ranked:
        hint = 'name the column "email" in the first line, or say which it is with --address-column'
        if any("@" in c.header for c in columns):
            hint = 'the first line must hold the names of the columns, for instance "email"'
        raise InputError(f"{place}: no column of addresses among {_list(columns)}; {hint}")
    best = [columns[index] for rank, index in ranked if rank == ranked[0][0]]
    exact = [c for c in best if c.field == "email"]
    if len(best) > 1 and not exact:
        raise InputError(
            f"{place}: columns {_list(best)} may both hold the address; choose with --address-column"
        )
    return (exact or best)[0]


def field_name(header: str) -> str:
    """The template identifier of a header: "First Name" -> first_name. Empty if nothing is left."""
    name = re.sub(r"[\W_]+", "_", _fold(header)).strip("_")
    if not name:
        return ""
    if not name.isidentifier():
        name = f"_{name}"
    if not name.isidentifier():  # a numeral of another script, for instance
        return ""
    return f"{name}_" if name in _RESERVED else name


def _letters(header: str) -> str:
    return re.sub(r"[\W_]+", "", _fold(header))


def _fold(text: str) -> str:
    """Lower case, without accents on Latin letters; marks of other scripts carry meaning and stay."""
    folded = []
    for char in unicodedata.normalize("NFKC", text).casefold():
        base = unicodedata.normalize("NFD", char)[:1]
        folded.append(base if base.isascii() else char)
    return unicodedata.normalize("NFC", "".join(folded))


def _list(columns: Sequence[Column]) -> str:
    shown = [repr(c.header[:HEADER_SHOWN_MAX]) for c in columns[:12]]
    return ", ".join(shown) + (", ..." if len(columns) > len(shown) else "")
