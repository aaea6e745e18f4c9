"""Names of the bus become subjects of NATS and back, and no two meet."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.bus import nats_names as names

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
SAFE = re.compile(r"[A-Za-z0-9_=.-]+")


@given(TEXT)
def test_a_name_is_one_token_and_comes_back(name: str) -> None:
    token = names.enc(name)
    assert SAFE.fullmatch(token)
    assert "." not in token
    assert token != names.EMPTY
    assert names.dec(token) == name


@given(TEXT)
def test_a_key_comes_back_with_every_slash(key: str) -> None:
    tokens = names.enc_key(key)
    assert SAFE.fullmatch(tokens)
    assert ".." not in f".{tokens}."
    assert names.dec_key(tokens) == key


@given(TEXT, TEXT)
def test_different_names_have_different_tokens(one: str, other: str) -> None:
    assert (names.enc(one) == names.enc(other)) == (one == other)
    assert (names.enc_key(one) == names.enc_key(other)) == (one == other)


@pytest.mark.parametrize("token", ["a=2g", "a=2", "a=2e", "a b", "*", ">", "a.b", "="[:0]])
def test_what_is_no_token_of_ours_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="no token"):
        names.dec(token)


def test_subjects_are_what_permissions_are_written_for() -> None:
    assert names.stream_subject("events.a", "a.agent") == "emass.s.events=2Ea.a=2Eagent"
    assert names.stream_subjects("events.a") == "emass.s.events=2Ea.*"
    assert names.stream_name("events.a") == "s-events=2Ea"
    assert names.table_subject("dkim", "a/news example") == "emass.t.dkim.a.news=20example"
    assert names.table_subject("cursors", "intake/chunks.a/") == "emass.t.cursors.intake.chunks=2Ea.="
    assert names.table_subjects("dkim") == "emass.t.dkim.>"
    assert names.table_name("dkim.a") == "t-dkim=2Ea"
    assert names.blob_subject("ab", "0") == "emass.b.ab.0"
    assert names.ask_subject("engine.a") == "emass.q.engine=2Ea"
    assert names.inbox_prefix("a.agent") == "emass.i.a=2Eagent"


def test_writers_and_keys_are_read_from_subjects() -> None:
    assert names.writer_of(names.stream_subject("events.a", "a.agent")) == "a.agent"
    assert names.key_of(names.table_subject("status", "a/engine.x")) == "a/engine.x"


def test_a_name_too_long_for_jetstream_is_refused() -> None:
    assert len(names.stream_name("a" * 120)) < names.STREAM_NAME_OCTETS_MAX
    with pytest.raises(ValueError, match="too long"):
        names.stream_name("a" + "." * 119)
