"""DANE for SMTP in words: what a host's TLSA records demand of it (RFC 7672 3.1, RFC 7671 9).

Decides which records are usable, which digests count, and what follows: a match of one of them, or
encryption with whoever answers when none is usable, since the domain did say that its host speaks TLS.
Pure: records are asked for elsewhere (`net.tlsa`), certificates are held against them elsewhere
(`net.dane_check`). Only records that DNSSEC proves may come here.
"""

from collections.abc import Sequence

from engine.model.tls import HostDemand, HostTls, TlsaRecord

TRUST_ANCHOR, END_ENTITY = 2, 3  # certificate usages; 0 and 1 have no meaning for SMTP (RFC 7672 3.1.3)
WHOLE, SHA_256, SHA_512 = 0, 1, 2  # matching types (RFC 6698 2.1.3)
DIGEST_OCTETS = {SHA_256: 32, SHA_512: 64}


def is_usable(record: TlsaRecord) -> bool:
    """Whether a certificate can be held against it at all."""
    if record.usage not in (TRUST_ANCHOR, END_ENTITY) or record.selector not in (0, 1):
        return False
    if record.matching == WHOLE:
        return bool(record.data)
    return len(record.data) == DIGEST_OCTETS.get(record.matching, -1)


def usable_records(records: Sequence[TlsaRecord]) -> tuple[TlsaRecord, ...]:
    """Those that count, in a fixed order.

    Of several digests for one usage and selector only the strongest counts (RFC 7671 9), so that a broken
    digest cannot speak for a host that publishes a better one.
    """
    usable = sorted({record for record in records if is_usable(record)}, key=_order)
    strongest: dict[tuple[int, int], int] = {}
    for record in usable:
        place = record.usage, record.selector
        strongest[place] = max(record.matching, strongest.get(place, WHOLE))
    return tuple(
        record for record in usable if record.matching in (WHOLE, strongest[record.usage, record.selector])
    )


def host_demand(records: Sequence[TlsaRecord], base: str, host: str, domain: Sequence[str]) -> HostDemand:
    """What the TLSA records at `base` demand of the MX host `host`, for mail to `domain` (RFC 7672 3.2.2).

    `base` is the host or the end of its alias. `domain`: the domain and the end of its alias. A usage 3
    record needs no name, so only those with usage 2 carry the domain's: hosts with usage 3 alone demand
    the same for all their domains.
    """
    assert records, "no record demands nothing"
    usable = usable_records(records)
    if not usable:
        return HostDemand(HostTls.ENCRYPTED, (base,))
    names = [base]
    if any(record.usage == TRUST_ANCHOR for record in usable):
        names += [host, *domain]
    return HostDemand(HostTls.DANE, tuple(dict.fromkeys(names)), usable)


def record_text(record: TlsaRecord) -> str:
    """A record as reports quote it (RFC 8460 4.4)."""
    return f"{record.usage} {record.selector} {record.matching} {record.data.hex()}"


def _order(record: TlsaRecord) -> tuple[int, int, int, bytes]:
    return record.usage, record.selector, record.matching, record.data
