"""Lists of addresses and hashes: what is read, what is refused and where, in which order keys come out."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from control.cli import suppress_list
from control.cli.errors import InputError
from control.cli.suppress_list import LINE_OCTETS_MAX, Piles, Tally, read_into
from control.cli.verdicts import VerdictFile
from engine.mta.policy.suppression import ORDER_KEYS_MAX
from engine.mta.policy.suppression_codec import AddressHasher
from tests.contract.suppressions import HASHER


@pytest.fixture
def piles(tmp_path: Path) -> Iterator[Piles]:
    with Piles(tmp_path) as made:
        yield made


def read(
    piles: Piles, path: Path, content: str | bytes, column: str | None = None
) -> tuple[Tally, list[tuple[str, ...]]]:
    """What was read of a file with this content, and the verdicts: line, address, reason."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with VerdictFile(path.with_suffix(".refused")) as verdicts:
        tally = read_into(piles, path, column, HASHER, verdicts, lambda text, share: None)
    if not verdicts.count:
        return tally, []
    lines = verdicts.path.read_text("utf-8-sig").splitlines()[1:]
    return tally, [tuple(line.split(",")) for line in lines]


def keys_of(*recipients: str) -> list[bytes]:
    return sorted(HASHER.key_of(recipient) for recipient in recipients)


def test_lines_are_addresses_or_hashes_and_the_rest_is_refused_with_its_line(
    piles: Piles, tmp_path: Path
) -> None:
    digest = HASHER.key_of("zoe@x.test")[1:].hex()
    text = f"\ufeffAnn@X.test\n\n  bob@x.test \r\nbroken\n{digest}\nann@x.test\nzo\u00eb@x.test"
    tally, refused = read(piles, tmp_path / "list.txt", text)
    assert (tally.rows, tally.keys, tally.hashes) == (6, 5, 1)
    assert refused == [("4", "broken", "address has no @")]
    (keys,) = piles_cut(piles)
    assert keys == keys_of("ann@x.test", "bob@x.test", "zoe@x.test", "zo\u00eb@x.test")


def piles_cut(piles: Piles) -> list[list[bytes]]:
    portions = [list(portion) for portion in piles.cut()]
    return [[key for portion in portions for key in portion]] if portions else []


def test_long_lines_and_foreign_encodings_are_refused_alone(piles: Piles, tmp_path: Path) -> None:
    content = b"x" * (3 * LINE_OCTETS_MAX) + b"\nann@x.test\n\xff\xfe@x.test\nbob@x.test\n"
    tally, refused = read(piles, tmp_path / "list.txt", content)
    assert tally.keys == 2
    assert refused == [("1", "", "is too long for an address"), ("3", "", "is not UTF-8")]


def test_a_csv_file_has_a_column_of_addresses_and_doubles_do_no_harm(piles: Piles, tmp_path: Path) -> None:
    text = "name;email\nAnn;ann@x.test\nAnn again;ANN@x.test\nBob;bob\n"
    tally, refused = read(piles, tmp_path / "list.csv", text)
    assert (tally.keys, tally.hashes) == (2, 0)
    assert refused == [("4", "bob", "address has no @")]
    assert piles_cut(piles) == [keys_of("ann@x.test")]
    assert piles.keys == 1


def test_a_csv_file_may_hold_hashes_alone(piles: Piles, tmp_path: Path) -> None:
    digest = HASHER.key_of("zoe@x.test")[1:].hex()
    tally, refused = read(piles, tmp_path / "list.csv", f"digest,n\n{digest},1\n", "digest")
    assert (tally.keys, tally.hashes, refused) == (1, 1, [])
    assert piles_cut(piles) == [keys_of("zoe@x.test")]


def test_hashes_of_another_key_are_refused_before_they_do_nothing(piles: Piles, tmp_path: Path) -> None:
    title = suppress_list.HASHES_TITLE
    own = f"{title}{HASHER.check.hex()}\n{'00' * 16}\n"
    assert read(piles, tmp_path / "own.txt", own)[0].hashes == 1
    foreign = f"{title}{AddressHasher(bytes(32)).check.hex()}\n{'00' * 16}\n"
    with pytest.raises(InputError, match="another master key"):
        read(piles, tmp_path / "foreign.txt", foreign)


@pytest.mark.parametrize(
    ("name", "content", "column", "says"),
    [
        ("list.txt", "", None, "holds no address"),
        ("list.txt", "nobody\n", None, "holds no address"),
        ("list.txt", "a@x.test\n", "email", "only a CSV file"),
        ("list.csv", "", None, "is empty"),
        ("list.csv", "email\nnobody\n", None, "none of its 1 addresses"),
    ],
)
def test_a_file_that_holds_nothing_is_refused(
    piles: Piles, tmp_path: Path, name: str, content: str, column: str | None, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        read(piles, tmp_path / name, content, column)


def test_a_file_that_is_not_there_is_refused(piles: Piles, tmp_path: Path) -> None:
    with VerdictFile(tmp_path / "refused") as verdicts, pytest.raises(InputError, match="cannot be read"):
        read_into(piles, tmp_path / "no.txt", None, HASHER, verdicts, lambda text, share: None)


def test_piles_that_outgrow_memory_come_out_in_order(
    piles: Piles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suppress_list, "PILE_OCTETS", 64)
    names = [f"a{number}@x.test" for number in range(5_000)]
    for name in (*names, *names[:100]):
        piles.add(HASHER.key_of(name))
    portions = list(piles.cut())
    assert all(len(portion) <= ORDER_KEYS_MAX for portion in portions)
    assert [key for portion in portions for key in portion] == keys_of(*names)
    assert piles.keys == 5_000
    assert not [path for path in tmp_path.iterdir() if path.is_file()]  # nameless files leave nothing
