"""A set of 16-octet digests that stays small: about 23 octets for each of a million.

Python's own set needs about 100. Digests are spread over 65,536 buckets by their first two octets
(a digest is uniform, so the buckets are even); a bucket is one bytearray of the other 14 octets,
searched as text: 15 entries for a million digests, 150 for ten million.
"""

DIGEST_OCTETS = 16
_REST_OCTETS = DIGEST_OCTETS - 2


class DigestSet:
    """Holds digests; `add` says whether one is new."""

    __slots__ = ("_buckets", "_count")

    def __init__(self) -> None:
        self._buckets: list[bytearray | None] = [None] * 65_536
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, digest: bytes) -> bool:
        """True if `digest` was not in the set; now it is."""
        buckets = self._buckets
        index = digest[0] << 8 | digest[1]
        rest = digest[2:]
        bucket = buckets[index]
        if bucket is None:
            assert len(digest) == DIGEST_OCTETS
            buckets[index] = bytearray(rest)
        elif rest in bucket and _stands_in(bucket, rest):
            return False
        else:
            bucket += rest
        self._count += 1
        return True


def _stands_in(bucket: bytearray, rest: bytes) -> bool:
    """True if `rest` is an entry, not merely the end of one and the beginning of the next."""
    place = bucket.find(rest)
    while place >= 0:
        if place % _REST_OCTETS == 0:
            return True
        place = bucket.find(rest, place + 1)
    return False
