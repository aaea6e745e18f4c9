"""Signatures verify with an independent implementation, and break when anything signed changes."""

import base64
import hashlib
import re
from collections.abc import Callable
from functools import lru_cache

import dkim
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.content import BodyCanon, DkimAlgorithm, DkimIdentity
from engine.mta.compose import CompiledContent, ContentError, compile_content
from engine.mta.compose.dkim import body_hash, folded_signature, relaxed_field, signed_names
from tests.engine.mta.compose.test_mime import AWKWARD
from tests.fakes.letters import NOW, big_letter, content, envelope, token_keys

RSA = DkimIdentity("example.org", "m2026q4", "rsa")
RSA_RELAXED = DkimIdentity("example.org", "m2026q4", "rsa", body=BodyCanon.RELAXED)
ED = DkimIdentity("platform.example", "e1", "ed", DkimAlgorithm.ED25519_SHA256)
ED_RELAXED = DkimIdentity("platform.example", "e1", "ed", DkimAlgorithm.ED25519_SHA256, BodyCanon.RELAXED)


@lru_cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@lru_cache
def ed_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def dns(name: bytes, timeout: int = 5) -> bytes:
    if b"m2026q4" in name:
        spki = (
            rsa_key()
            .public_key()
            .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        return b"v=DKIM1; k=rsa; p=" + base64.b64encode(spki)
    raw = ed_key().public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return b"v=DKIM1; k=ed25519; p=" + base64.b64encode(raw)


def sign(key: str, digest: bytes) -> bytes:
    if key == "ed":
        return ed_key().sign(digest)
    return rsa_key().sign(digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))


def signed(compiled: CompiledContent, **changes: object) -> bytes:
    draft = compiled.compose(envelope(**changes), NOW)  # type: ignore[arg-type]
    message = draft.finish([sign(request.key, request.digest) for request in draft.digests])
    assert len(message) == draft.size
    return message


def verifies(message: bytes, signatures: int = 1) -> bool:
    verifier = dkim.DKIM(message)
    try:
        return all(verifier.verify(idx=index, dnsfunc=dns) for index in range(signatures))
    except dkim.ValidationError:  # how dkimpy tells a wrong body hash
        return False


@pytest.mark.parametrize("identities", [(RSA,), (RSA_RELAXED,), (ED,), (ED_RELAXED,), (RSA, ED_RELAXED)])
@pytest.mark.parametrize("letter", [big_letter, content])
def test_every_algorithm_and_canonicalisation_verifies(
    identities: tuple[DkimIdentity, ...], letter: Callable[..., object]
) -> None:
    message = signed(compile_content(letter(dkim=identities), token_keys()))  # type: ignore[arg-type]
    assert message.count(b"DKIM-Signature:") == len(identities)
    assert verifies(message, len(identities))


LETTERS = {
    canon: compile_content(
        content(
            html=None,
            text="{{ first_name }} \n\n  {{ city }}\t {{ plan }}\n\n\n{{ balance }}",
            subject="{{ first_name }}  {{ code }}",
            dkim=(DkimIdentity("platform.example", "e1", "ed", DkimAlgorithm.ED25519_SHA256, canon),),
        ),
        token_keys(),
    )
    for canon in BodyCanon
}


@settings(max_examples=60)
@given(st.sampled_from(list(BodyCanon)), st.lists(AWKWARD, min_size=5, max_size=5))
def test_whatever_the_values_are_the_signature_verifies(canon: BodyCanon, row: list[str]) -> None:
    assert verifies(signed(LETTERS[canon], row=tuple(row)))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.replace(b"Subject: ", b"Subject: x", 1),
        lambda m: m.replace(b"/u/", b"/v/", 1),
        lambda m: m.replace(b"One-Click", b"Two-Click"),
        lambda m: m.replace(b"workshop", b"worksh0p", 1),
        lambda m: m + b"more\r\n",
        *(
            lambda m, name=name: m.replace(b"From: ", name + b": x@evil.example\r\nFrom: ", 1)
            for name in (
                b"From",
                b"To",
                b"Cc",
                b"Subject",
                b"Date",
                b"Reply-To",
                b"Message-ID",
                b"Content-Type",
            )
        ),
        *(
            lambda m, name=name: m.replace(b"From: ", name + b": x\r\nFrom: ", 1)
            for name in (
                b"List-Unsubscribe",
                b"List-Unsubscribe-Post",
                b"List-Id",
                b"Feedback-ID",
                b"MIME-Version",
            )
        ),
    ],
)
def test_changes_and_added_fields_break_the_signature(change: Callable[[bytes], bytes]) -> None:
    message = signed(compile_content(big_letter(dkim=(ED,)), token_keys()))
    changed = change(message)
    assert changed != message
    assert verifies(message)
    assert not verifies(changed)


def test_the_field_says_what_it_should() -> None:
    message = signed(compile_content(big_letter(dkim=(RSA,)), token_keys()))
    field = re.sub(rb"\s+", b"", message[: message.index(b"\r\nFrom:")])
    tags = dict(tag.split(b"=", 1) for tag in field.removeprefix(b"DKIM-Signature:").split(b";"))
    assert tags[b"a"] == b"rsa-sha256"
    assert tags[b"c"] == b"relaxed/simple"
    assert int(tags[b"t"]) == int(NOW)
    assert int(tags[b"x"]) == int(NOW) + 7 * 86_400
    assert set(tags) == {b"v", b"a", b"c", b"d", b"s", b"t", b"x", b"h", b"bh", b"b"}
    names = tags[b"h"].split(b":")
    assert names.count(b"from") == 2
    assert names.count(b"reply-to") == 1
    assert all(len(line) <= 78 for line in message[: message.index(b"\r\nFrom:")].split(b"\r\n"))


def test_every_field_of_the_message_is_signed() -> None:
    letter = big_letter(
        dkim=(ED,), cfbl_domain="fbl.example.org", list_help="https://x.example", headers=(("X-A", "b"),)
    )
    message = signed(compile_content(letter, token_keys()))
    head = message.partition(b"\r\n\r\n")[0].decode()
    names = {line.partition(":")[0].lower() for line in head.split("\r\n") if line[0] not in " \t"}
    names.discard("dkim-signature")
    listed = re.sub(r"\s", "", head[head.index("h=") + 2 : head.index("bh=")]).rstrip(";").split(":")
    assert names <= set(listed)
    assert [name for name in names if listed.count(name) < 2] == ["x-a"]


def test_body_hashes_of_empty_and_spaced_bodies_are_those_of_rfc_6376() -> None:
    def sha(octets: bytes) -> str:
        return base64.b64encode(hashlib.sha256(octets).digest()).decode()

    assert body_hash(b"\r\n", BodyCanon.SIMPLE) == "frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY="  # 3.4.3
    assert body_hash(b"\r\n", BodyCanon.RELAXED) == "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="  # 3.4.4
    body = b" C \r\nD \t E\r\n\r\n\r\n"  # the example of 3.4.5
    assert body_hash(body, BodyCanon.SIMPLE) == sha(b" C \r\nD \t E\r\n")
    assert body_hash(body, BodyCanon.RELAXED) == sha(b" C\r\nD E\r\n")


def test_relaxed_fields_are_those_of_rfc_6376() -> None:
    assert relaxed_field("A", " X") == "a:X\r\n"  # the examples of 3.4.5
    assert relaxed_field("B ".strip(), " Y\t\r\n\tZ  ") == "b:Y Z\r\n"


def test_names_that_may_occur_once_are_named_once_more() -> None:
    names = signed_names(["From", "X-A"])
    assert names[:3] == ["from", "x-a", "from"]
    assert names.count("to") == 1


@pytest.mark.parametrize(
    "identity",
    [
        DkimIdentity("example.org;x", "s", "k"),
        DkimIdentity("Example.org", "s", "k"),
        DkimIdentity("example.org", "s\r\nBcc: x@y.example", "k"),
        DkimIdentity("example.org", "", "k"),
        DkimIdentity("example.org", "s", "k", expire_days=-1),
    ],
)
def test_an_identity_that_cannot_stand_in_a_header_is_refused(identity: DkimIdentity) -> None:
    with pytest.raises(ContentError, match="dkim"):
        compile_content(content(dkim=(identity,)), token_keys())


def test_long_signatures_are_folded() -> None:
    folded = folded_signature(bytes(256))
    assert all(len(line) <= 76 for line in folded.split(b"\r\n"))
    assert base64.b64decode(folded) == bytes(256)
