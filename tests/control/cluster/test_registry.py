"""Who may join, when and once; what is refused and in which words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.cluster.registry import (
    CODE_KEPT_SECONDS,
    CODES_MAX,
    PROCESSES,
    Applicant,
    NodeRole,
    Registry,
    RegistryError,
    check_node_name,
    joined,
    known_node,
    member_name,
    new_registry,
    retired,
    users,
    with_boxes,
    with_code,
    with_key,
    with_newest_keys,
)
from control.cluster.roles import Role
from engine.bus.nkeys import new_seed, public_of

NOW = 1_700_000_000.0


def key() -> str:
    return public_of(new_seed())


def applicant(node: str, role: NodeRole = NodeRole.BROADCASTER) -> Applicant:
    return Applicant(node, {process: key() for process in PROCESSES[role]}, "ab" * 32, "cd" * 32)


@pytest.fixture
def registry() -> Registry:
    return new_registry(applicant("hub", NodeRole.HUB), NOW)


@pytest.fixture
def code() -> str:
    return key()


def with_b(registry: Registry, code: str) -> Registry:
    return with_code(registry, "b", NodeRole.BROADCASTER, code, NOW, 3_600)


def refusal(call, *arguments, **named) -> str:
    with pytest.raises(RegistryError) as told:
        call(*arguments, **named)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_a_machine_joins_by_its_code_and_is_let_in(registry, code):
    machine = applicant("b")
    after = joined(with_b(registry, code), code, machine, NOW + 60)
    assert known_node(after, "b").joined_at == NOW + 60
    let_in = {user.public: (user.member, user.role) for user in users(after, NOW + 60)}
    assert let_in[machine.keys["engine"]] == ("b", Role.BROADCASTER)
    assert let_in[machine.keys["agent"]] == ("b.agent", Role.AGENT)
    assert let_in[machine.keys["submission"]] == ("b.submission", Role.SUBMISSION)
    assert let_in[code] == ("b.joiner", Role.JOINER)


def test_the_same_machine_may_ask_again_since_its_answer_may_have_been_lost(registry, code):
    machine = applicant("b")
    once = joined(with_b(registry, code), code, machine, NOW)
    assert joined(once, code, machine, NOW + 5) == once


def test_a_used_code_is_refused_to_another_machine(registry, code):
    once = joined(with_b(registry, code), code, applicant("b"), NOW)
    assert "used already" in refusal(joined, once, code, applicant("b"), NOW)


def test_a_code_is_over_by_the_hubs_clock(registry, code):
    told = refusal(joined, with_b(registry, code), code, applicant("b"), NOW + 3_600 + 120)
    assert "expired 2 min ago by the hub's clock" in told


def test_a_code_is_for_one_name(registry, code):
    assert "is for b, not for c" in refusal(joined, with_b(registry, code), code, applicant("c"), NOW)


def test_an_unknown_code_is_refused(registry, code):
    assert "knows no such join code" in refusal(joined, registry, code, applicant("b"), NOW)


def test_who_is_late_is_let_in_to_be_told_so_and_later_not(registry, code):
    out = with_b(registry, code)
    assert code in {user.public for user in users(out, NOW + 7_200)}
    assert code not in {user.public for user in users(out, NOW + 3_600 + CODE_KEPT_SECONDS)}


@pytest.mark.parametrize("name", ["hub", "b"])
def test_a_name_that_is_taken_gets_no_code(registry, code, name):
    full = joined(with_b(registry, code), code, applicant("b"), NOW)
    told = refusal(with_code, full, name, NodeRole.BROADCASTER, key(), NOW, 60)
    assert f"{name} is in the cluster: choose another name" in told


def test_a_retired_name_stays_with_its_mail(registry, code):
    full = retired(joined(with_b(registry, code), code, applicant("b"), NOW), "b", NOW + 1)
    assert "has been retired" in refusal(with_code, full, "b", NodeRole.BROADCASTER, key(), NOW, 60)


def test_a_second_code_for_a_name_is_refused_while_the_first_holds(registry, code):
    out = with_b(registry, code)
    assert "is out already" in refusal(with_code, out, "b", NodeRole.BROADCASTER, key(), NOW, 60)
    with_code(out, "b", NodeRole.BROADCASTER, key(), NOW + 3_601, 60)


@pytest.mark.parametrize("name", ["", "a b", "a.b", "operator", "operator-1", "x" * 64, "é"])
def test_what_is_no_name_of_a_node_is_refused(registry, name):
    refusal(with_code, registry, name, NodeRole.BROADCASTER, key(), NOW, 60)
    with pytest.raises(ValueError):
        check_node_name(name)


@pytest.mark.parametrize("seconds", [0, -1, 8 * 86_400])
def test_a_code_lasts_seven_days_at_most(registry, seconds):
    assert "7 d" in refusal(with_code, registry, "b", NodeRole.BROADCASTER, key(), NOW, seconds)


def test_there_is_one_hub(registry):
    assert "one hub" in refusal(with_code, registry, "b", NodeRole.HUB, key(), NOW, 60)


def test_codes_are_limited(registry):
    for number in range(CODES_MAX):
        registry = with_code(registry, f"n{number}", NodeRole.BROADCASTER, key(), NOW, 60)
    assert "codes are out" in refusal(with_code, registry, "b", NodeRole.BROADCASTER, key(), NOW, 60)


def test_a_copied_folder_shows_keys_that_are_known(registry, code):
    hub = registry.nodes["hub"]
    copied = Applicant(
        "b",
        {process: hub.keys[process][0] for process in ("engine", "agent", "submission")},
        "ab" * 32,
        "cd" * 32,
    )
    assert "has its folder been copied" in refusal(joined, with_b(registry, code), code, copied, NOW)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"keys": {"engine": "U"}}, "keys of engine"),
        ({"signer_public": "xy"}, "box key"),
        ({"box_public": "ab"}, "box key"),
        ({"box_public": "ab" * 31 + "  "}, "box key"),
    ],
)
def test_a_machine_that_does_not_show_what_it_should_is_refused(registry, code, change, word):
    from msgspec.structs import replace

    machine = replace(applicant("b"), **change)
    assert word in refusal(joined, with_b(registry, code), code, machine, NOW)


def test_one_key_is_for_one_process_and_is_a_key(registry, code):
    one = key()
    same = Applicant("b", dict.fromkeys(PROCESSES[NodeRole.BROADCASTER], one), "ab" * 32, "cd" * 32)
    assert "one key for two" in refusal(joined, with_b(registry, code), code, same, NOW)
    none = Applicant("b", {**applicant("b").keys, "engine": "nobody"}, "ab" * 32, "cd" * 32)
    assert "a key that is none" in refusal(joined, with_b(registry, code), code, none, NOW)


def test_a_retired_node_is_shut_out_and_stays_known(registry, code):
    machine = applicant("b")
    after = retired(joined(with_b(registry, code), code, machine, NOW), "b", NOW + 9)
    assert not {user.node for user in users(after, NOW + 9)} - {"hub"}
    assert after.nodes["b"].retired_at == NOW + 9
    assert retired(after, "b", NOW + 20) == after
    assert "has been retired" in refusal(known_node, after, "b")


def test_retiring_takes_a_code_back(registry, code):
    assert retired(with_b(registry, code), "b", NOW) == registry
    assert "no node is called c; there are: hub" in refusal(retired, registry, "c", NOW)


def test_the_hub_is_never_retired(registry):
    assert "without it there is no cluster" in refusal(retired, registry, "hub", NOW)


def test_a_key_is_replaced_in_two_steps(registry):
    old, new = registry.nodes["hub"].keys["engine"][0], key()
    both = with_key(registry, "hub", "engine", new)
    assert {old, new} <= {user.public for user in users(both, NOW)}
    assert with_key(both, "hub", "engine", new) == both
    newest = {process: keys[-1] for process, keys in both.nodes["hub"].keys.items()}
    assert "newest copy" in refusal(with_newest_keys, both, "hub", {**newest, "engine": old})
    only = {user.public for user in users(with_newest_keys(both, "hub", newest), NOW)}
    assert new in only
    assert old not in only
    assert "--finish" in refusal(with_key, both, "hub", "engine", key())  # one of the two may be in use
    assert "no process" in refusal(with_key, registry, "hub", "web", key())
    assert "the key of hub" in refusal(
        with_key, registry, "hub", "engine", registry.nodes["hub"].keys["agent"][0]
    )


def test_box_keys_are_noted(registry):
    after = with_boxes(registry, "hub", signer_public="ef" * 32)
    assert (after.nodes["hub"].signer_public, after.nodes["hub"].box_public) == ("ef" * 32, "cd" * 32)
    refusal(with_boxes, registry, "hub", box_public="short")


def test_names_on_the_bus():
    assert [member_name("b", each) for each in ("engine", "agent", "operator")] == [
        "b",
        "b.agent",
        "operator",
    ]


@settings(max_examples=40)
@given(st.lists(st.sampled_from(["code", "join", "again", "retire", "later"]), max_size=12))
def test_nobody_is_let_in_twice_or_after_retiring(steps):
    registry, now = new_registry(applicant("hub", NodeRole.HUB), NOW), NOW
    public, machine = key(), applicant("b")
    for step in steps:
        try:
            match step:
                case "code":
                    registry = with_code(registry, "b", NodeRole.BROADCASTER, public, now, 60)
                case "join":
                    registry = joined(registry, public, machine, now)
                case "again":
                    registry = joined(registry, public, applicant("b"), now)
                case "retire":
                    registry = retired(registry, "b", now)
                case _:
                    now += 61
        except RegistryError:
            pass
        let_in = [user.public for user in users(registry, now)]
        assert len(let_in) == len(set(let_in))
        if "b" in registry.nodes and not registry.nodes["b"].active:
            assert "b" not in {user.node for user in users(registry, now) if user.role is not Role.JOINER}
