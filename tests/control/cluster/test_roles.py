"""Roles as subjects; that a server enforces them is seen in test_roles_enforced."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.cluster.roles import Grant, Role, grant_of, streams_of, subjects_of, tables_of
from engine.bus import nats_names as names

NODE_ROLES = [Role.BROADCASTER, Role.AGENT, Role.SUBMISSION, Role.JOINER]
NODE_NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}", fullmatch=True)


@settings(max_examples=40)
@given(st.sampled_from(NODE_ROLES), NODE_NAME, NODE_NAME)
def test_two_nodes_share_no_subject_that_is_one_nodes_own(role, one, other):
    if one == other:
        return
    mine = {*subjects_of(grant_of(role, one)).publish, *subjects_of(grant_of(role, one)).subscribe}
    theirs = {*subjects_of(grant_of(role, other)).publish, *subjects_of(grant_of(role, other)).subscribe}
    shared = ("claims", "campaigns", "retired", "status", "config", "cursors", "blobs", "suppressions")
    common = ("emass.q.join", "emass.q.desk", "emass.b.*.*", "emass.t.claims.*")
    for subject in mine & theirs:
        assert (
            subject in common
            or subject.split(".")[-1].split("-")[-1] in shared
            or subject.endswith(tuple(f"{kind}-{name}.*" for kind in "st" for name in shared))
        ), subject


@pytest.mark.parametrize("role", NODE_ROLES)
def test_nobody_but_an_operator_makes_streams_or_may_do_anything(role):
    subjects = subjects_of(grant_of(role, "a"))
    for subject in (*subjects.publish, *subjects.subscribe):
        assert ".STREAM.CREATE." not in subject
        assert ".STREAM.UPDATE." not in subject
        assert ".STREAM.DELETE." not in subject
        assert subject not in (">", "emass.>", "$JS.API.>")


@pytest.mark.parametrize("role", NODE_ROLES)
def test_nobody_follows_what_it_writes(role):
    """A reader may have what it reads sent on; what it has written itself it could forge that way."""
    grant = grant_of(role, "a")
    written = {*map(names.stream_name, grant.writes), *(names.table_name(table) for table, _ in grant.rows)}
    followed = {
        subject.rpartition(".")[2] for subject in subjects_of(grant).publish if "CONSUMER.CREATE" in subject
    }
    assert not written & followed


def test_an_operator_may_do_everything():
    subjects = subjects_of(grant_of(Role.OPERATOR, "hub"))
    assert subjects.publish == ("emass.>", "$JS.API.>")
    assert subjects.subscribe == ("emass.>",)


def test_who_holds_a_code_may_ask_and_hear_its_answer():
    subjects = subjects_of(grant_of(Role.JOINER, "c"))
    assert subjects.publish == ("emass.q.join",)
    assert subjects.subscribe == ("emass.i.c=2Ejoiner.>",)


def test_a_row_is_one_subject_and_a_star_is_one_part():
    subjects = subjects_of(Grant(members=("m",), rows=(("status", "a/agent"), ("claims", "*"))))
    assert {"emass.t.status.a.agent", "emass.t.claims.*"} <= set(subjects.publish)


def test_every_stream_and_table_that_a_node_uses_is_made_for_it():
    made = {*map(names.stream_name, streams_of("a")), *map(names.table_name, tables_of("a"))}
    made |= {names.table_name("cursors"), names.table_name("config"), names.BLOBS}
    for role in NODE_ROLES:
        for subject in subjects_of(grant_of(role, "a")).publish:
            if ".STREAM.INFO." in subject:
                assert subject.rpartition(".")[2] in made
