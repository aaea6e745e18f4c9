"""Names, keys and sizes that the bus takes."""

import pytest

from engine.bus.api import (
    KEY_OCTETS_MAX,
    NAME_OCTETS_MAX,
    PAYLOAD_OCTETS_MAX,
    PUBLISH_OCTETS_MAX,
    check_key,
    check_name,
    check_payload,
    check_payloads,
    is_work_queue,
)


@pytest.mark.parametrize("name", ["chunks.node-1.single", "A", "7", "a_b", "x" * NAME_OCTETS_MAX])
def test_a_name_is_letters_digits_and_a_few_signs(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "-x", "a b", "a\0b", "a/b", "é", "a\n", "x" * (NAME_OCTETS_MAX + 1)]
)
def test_other_text_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="no name for the bus"):
        check_name(name)


@pytest.mark.parametrize("key", ["7", "dkim/node 1/é", "é" * (KEY_OCTETS_MAX // 2)])
def test_a_key_is_any_text_without_nul(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["", "a\0b", "é" * (KEY_OCTETS_MAX // 2 + 1)])
def test_other_text_is_no_key(key: str) -> None:
    with pytest.raises(ValueError, match="no key"):
        check_key(key)


def test_payloads_have_a_limit_each_and_together() -> None:
    largest = bytes(PAYLOAD_OCTETS_MAX)
    assert check_payload(largest) == largest
    check_payloads([largest] * (PUBLISH_OCTETS_MAX // PAYLOAD_OCTETS_MAX))
    with pytest.raises(ValueError, match="a payload has"):
        check_payloads([b"", largest + b"x"])
    with pytest.raises(ValueError, match="a publish has"):
        check_payloads([largest] * (PUBLISH_OCTETS_MAX // PAYLOAD_OCTETS_MAX) + [b"x"])


@pytest.mark.parametrize(
    ("stream", "work"),
    [
        ("chunks.node-1", True),
        ("chunks.node-1.single", True),
        ("commands.node-1", True),
        ("events.node-1", False),
        ("suppressions", False),
        ("chunks", False),
    ],
)
def test_chunks_and_commands_are_work(stream: str, work: bool) -> None:
    assert is_work_queue(stream) is work
