"""TLSA records against chains: what matches, what leads to a trust anchor, and what only looks so."""

import datetime
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from engine.model.tls import TlsaRecord
from engine.model.tls_result import TlsResult
from engine.mta.net.dane_check import (
    CHAIN_CERTIFICATES_MAX,
    CHECKS_MAX,
    Walk,
    check_dane,
    key_info,
    names_match,
)
from tests.fakes.certificates import DAY, NOW, WALL, Identity, client_only, make

HOST = "mx.example.org"
NAMES = (HOST,)

ROOT = make("root", ca=True)
MIDDLE = make("middle", ROOT, ca=True)
LEAF = make("leaf", MIDDLE, names=(HOST,))
OTHER = make("other", ca=True)


def result(chain: list[bytes], *tlsa: TlsaRecord, names: tuple[str, ...] = NAMES) -> TlsResult | None:
    found = check_dane(chain, tlsa, names, WALL)
    return None if found is None else found.result


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
def test_an_end_entity_record_matches_the_leaf_by_certificate_or_key(selector: int, matching: int) -> None:
    assert result(LEAF.chain, LEAF.tlsa(3, selector, matching)) is None
    assert result(LEAF.chain, MIDDLE.tlsa(3, selector, matching)) is TlsResult.VALIDATION_FAILURE


def test_an_end_entity_record_asks_neither_name_nor_date() -> None:
    old = make("old", names=("somebody.else.test",), ends=NOW - DAY)
    assert result(old.chain, old.tlsa(3)) is None


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
def test_an_intermediate_that_is_sent_may_be_the_trust_anchor(selector: int, matching: int) -> None:
    assert result(LEAF.chain, MIDDLE.tlsa(2, selector, matching)) is None


@pytest.mark.parametrize(("selector", "matching"), [(0, 0), (1, 0)])
def test_a_full_record_brings_the_anchor_that_the_peer_did_not_send(selector: int, matching: int) -> None:
    assert result([LEAF.der, MIDDLE.der], ROOT.tlsa(2, selector, matching)) is None
    assert result([LEAF.der], MIDDLE.tlsa(2, selector, matching)) is None


def test_a_digest_of_an_anchor_that_was_not_sent_matches_nothing() -> None:
    assert result([LEAF.der, MIDDLE.der], ROOT.tlsa(2)) is TlsResult.VALIDATION_FAILURE


def test_a_chain_of_another_authority_is_not_trusted() -> None:
    stranger = make("leaf", OTHER, names=(HOST,))
    assert result(stranger.chain, ROOT.tlsa(2, 0, 0)) is TlsResult.NOT_TRUSTED
    assert result(stranger.chain, ROOT.tlsa(2, 1, 0)) is TlsResult.NOT_TRUSTED


def test_an_anchor_that_is_sent_but_vouches_for_nobody_does_not_help() -> None:
    stranger = make("leaf", OTHER, names=(HOST,))
    assert result([stranger.der, ROOT.der], ROOT.tlsa(2)) is TlsResult.NOT_TRUSTED


def test_an_issuer_of_the_right_name_and_another_key_is_not_the_issuer() -> None:
    false = make("root", ca=True)
    assert result([make("leaf", false, names=(HOST,)).der, ROOT.der], ROOT.tlsa(2)) is TlsResult.NOT_TRUSTED


def test_the_order_of_the_chain_is_no_matter() -> None:
    low = make("low", MIDDLE, ca=True)
    leaf = make("leaf", low, names=(HOST,))
    assert result([leaf.der, ROOT.der, OTHER.der, MIDDLE.der, low.der], ROOT.tlsa(2)) is None


@pytest.mark.parametrize(
    ("leaf", "names", "expected"),
    [
        (LEAF, ("other.example.org",), TlsResult.HOST_MISMATCH),
        (LEAF, ("other.example.org", "MX.example.org."), None),
        (make("leaf", ROOT, names=("*.example.org",)), NAMES, None),
        (make("leaf", ROOT, names=("*.example.org",)), ("a.mx.example.org",), TlsResult.HOST_MISMATCH),
        (make(HOST, ROOT), NAMES, None),  # RFC 7672 3.2.3: the common name, where there is no DNS name
        (make(HOST, ROOT, names=("other.test",)), NAMES, TlsResult.HOST_MISMATCH),
        (make("leaf", ROOT, names=(HOST,), ends=NOW - DAY), NAMES, TlsResult.EXPIRED),
        (make("leaf", ROOT, names=(HOST,), starts=NOW + DAY), NAMES, TlsResult.VALIDATION_FAILURE),
        (make("leaf", ROOT, names=(HOST,), extensions=(client_only(),)), NAMES, TlsResult.VALIDATION_FAILURE),
    ],
)
def test_below_a_trust_anchor_name_date_and_purpose_count(
    leaf: Identity, names: tuple[str, ...], expected: TlsResult | None
) -> None:
    assert result([*leaf.chain, ROOT.der], ROOT.tlsa(2), names=names) is expected


def constrained(permitted: list[str] | None, excluded: list[str] | None) -> Identity:
    def trees(names: list[str] | None) -> list[x509.GeneralName] | None:
        return None if names is None else [x509.DNSName(each) for each in names]

    constraints = x509.NameConstraints(trees(permitted), trees(excluded))
    return make("bound", ROOT, ca=True, extensions=((constraints, True),))


def key_usage(*, cert_sign: bool) -> tuple[x509.ExtensionType, bool]:
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return usage, True


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")


@pytest.mark.parametrize(
    ("issuer", "expected"),
    [
        (make("no authority", ROOT), TlsResult.NOT_TRUSTED),
        (make("middle", ROOT, ca=True, ends=NOW - DAY), TlsResult.EXPIRED),
        (make("middle", ROOT, ca=True, extensions=(key_usage(cert_sign=False),)), TlsResult.NOT_TRUSTED),
        (make("middle", ROOT, ca=True, extensions=(key_usage(cert_sign=True),)), None),
        (make("middle", ROOT, ca=True, extensions=((UNKNOWN, True),)), TlsResult.VALIDATION_FAILURE),
        (make("middle", ROOT, ca=True, extensions=((UNKNOWN, False),)), None),
        (make("middle", ROOT, ca=True, path_length=0), None),
        (make("low", make("short", ROOT, ca=True, path_length=0), ca=True), TlsResult.NOT_TRUSTED),
        (constrained(["example.org"], None), None),
        (constrained([".example.org"], None), None),
        (constrained(["example.net"], None), TlsResult.NOT_TRUSTED),
        (constrained(None, ["mx.example.org"]), TlsResult.NOT_TRUSTED),
        (constrained(None, ["example.net"]), None),
    ],
)
def test_an_issuer_needs_the_right_to_issue(issuer: Identity, expected: TlsResult | None) -> None:
    leaf = make("leaf", issuer, names=(HOST,))
    assert result(leaf.chain, ROOT.tlsa(2)) is expected


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_keys_of_other_kinds_sign_as_well(kind: str) -> None:
    key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ed25519.Ed25519PrivateKey.generate()
    if kind == "rsa":
        root = make("root", ca=True, key=key)
        leaf = make("leaf", root, names=(HOST,))
        assert result(leaf.chain, root.tlsa(2)) is None
        assert result([leaf.der], root.tlsa(2, 1, 0)) is None
    leaf = make("leaf", ROOT, names=(HOST,), key=key)
    assert result(leaf.chain, leaf.tlsa(3)) is None
    assert result(leaf.chain, ROOT.tlsa(2)) is None


def test_no_chain_no_records_and_nonsense_are_mismatches() -> None:
    assert result([], LEAF.tlsa(3)) is TlsResult.VALIDATION_FAILURE
    assert result(LEAF.chain) is TlsResult.VALIDATION_FAILURE
    assert result([b"nonsense", ROOT.der], ROOT.tlsa(2)) is TlsResult.VALIDATION_FAILURE
    assert result(LEAF.chain, TlsaRecord(2, 0, 0, b"nonsense")) is TlsResult.VALIDATION_FAILURE
    assert result(LEAF.chain, TlsaRecord(2, 1, 0, b"nonsense")) is TlsResult.VALIDATION_FAILURE
    assert result(LEAF.chain, TlsaRecord(3, 1, 9, b"")) is TlsResult.VALIDATION_FAILURE
    assert result([LEAF.der, b"nonsense", MIDDLE.der], MIDDLE.tlsa(2)) is None


def test_a_loop_of_issuers_comes_to_an_end() -> None:
    first, second = make("a", ca=True), make("b", ca=True)
    crossed = [make("a", second, ca=True, key=first.key), make("b", first, ca=True, key=second.key)]
    leaf = make("leaf", first, names=(HOST,))
    chain = [leaf.der, *(each.der for each in crossed), ROOT.der]
    assert result(chain, ROOT.tlsa(2)) is TlsResult.NOT_TRUSTED


def test_look_alikes_cost_no_more_than_so_many_signatures() -> None:
    """All of one name: without a limit each would be tried below each other, 10! times."""
    twins = [make("a", ca=True) for _ in range(CHAIN_CERTIFICATES_MAX - 1)]
    leaf = make("leaf", twins[-1], names=(HOST,))
    walk = Walk([leaf.der, *(each.der for each in twins)], [OTHER.tlsa(2, 0, 0)], WALL)
    found = walk.check(NAMES)
    assert found is not None
    assert found.result is TlsResult.NOT_TRUSTED
    assert walk.checks <= CHECKS_MAX


@given(st.binary(max_size=200))
def test_whatever_is_sent_is_no_crash(octets: bytes) -> None:
    key_info(octets)
    assert result([octets], LEAF.tlsa(3), ROOT.tlsa(2, 0, 0)) is not None


@given(st.integers(0, len(LEAF.der) - 1), st.integers(1, 255))
def test_a_flipped_octet_is_no_crash_and_no_match(place: int, mask: int) -> None:
    der = bytearray(LEAF.der)
    der[place] ^= mask
    assert result([bytes(der)], LEAF.tlsa(3, 0)) is not None
    result([bytes(der), MIDDLE.der], MIDDLE.tlsa(2))
    key_info(bytes(der))


def test_the_key_is_cut_out_as_it_stands() -> None:
    for one in (ROOT, MIDDLE, LEAF):
        assert key_info(one.der) == one.key_der
    assert key_info(LEAF.der[:100]) is None


@pytest.mark.parametrize(
    ("certified", "names", "matches"),
    [
        (["mx.example.org"], ["mx.example.org"], True),
        (["MX.Example.org."], ["mx.example.org"], True),
        (["*.example.org"], ["mx.example.org"], True),
        (["*.example.org"], ["example.org"], False),
        (["*.example.org"], ["a.b.example.org"], False),
        (["*.example.org"], [".example.org"], False),
        (["m*.example.org"], ["mx.example.org"], False),
        (["*.*.example.org"], ["a.b.example.org"], False),
        (["*"], ["localhost"], False),
        (["*.org"], ["example.org"], False),
        (["192.0.2.1"], ["192.0.2.1"], True),
        (["2001:DB8:0:0:0:0:0:1"], ["[2001:db8::1]"], True),
        ([], ["mx.example.org"], False),
        (["mx.example.org"], [], False),
    ],
)
def test_a_wildcard_is_one_whole_left_label(certified: list[str], names: list[str], matches: bool) -> None:
    assert names_match(certified, names) is matches


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_chain_by_openssl_s_own_commands_is_judged_as_openssl_would(tmp_path: Path) -> None:
    """Certificates as administrators make them, without the identifiers that the public web has."""

    def openssl(line: str) -> None:
        subprocess.run(["openssl", *line.split()], cwd=tmp_path, check=True, capture_output=True, timeout=30)

    openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=ca")
    openssl(f"req -newkey rsa:2048 -nodes -keyout mx.key -out mx.csr -subj /CN={HOST}")
    openssl("x509 -req -in mx.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out mx.pem -days 10")
    for name in ("ca", "mx"):
        openssl(f"x509 -in {name}.pem -outform DER -out {name}.der")
    ca, mx = (tmp_path / "ca.der").read_bytes(), (tmp_path / "mx.der").read_bytes()
    wall = datetime.datetime.now(datetime.UTC).timestamp()
    anchor = TlsaRecord(2, 0, 0, ca)
    assert check_dane([mx, ca], [anchor], NAMES, wall) is None
    late = check_dane([mx, ca], [anchor], NAMES, wall + 20 * 86_400)
    assert late is not None
    assert late.result is TlsResult.EXPIRED
