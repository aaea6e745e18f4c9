"""The compact set of digests behaves as a set."""

from hashlib import blake2b

from hypothesis import given
from hypothesis import strategies as st

from control.cli.digest_set import DigestSet


@given(st.lists(st.integers(0, 300)))
def test_it_is_a_set(numbers: list[int]) -> None:
    digests = [blake2b(str(n).encode(), digest_size=16).digest() for n in numbers]
    known: set[bytes] = set()
    compact = DigestSet()
    for digest in digests:
        assert compact.add(digest) is (digest not in known)
        known.add(digest)
    assert len(compact) == len(known)


@given(st.lists(st.binary(min_size=14, max_size=14).map(lambda b: bytes(x & 1 for x in b)), max_size=60))
def test_the_end_of_one_entry_and_the_start_of_the_next_are_no_entry(rests: list[bytes]) -> None:
    known: set[bytes] = set()
    compact = DigestSet()
    for rest in rests:  # one bucket, entries that overlap in every way
        assert compact.add(b"\0\0" + rest) is (rest not in known)
        known.add(rest)
