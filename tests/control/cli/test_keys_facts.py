"""What a hub shows of its nodes' keys."""

from control.cli.keys_facts import cluster_lines
from control.cluster.key_office import NodeKeys, missing
from engine.sealing import key_id

PUBLIC = bytes(range(32))
BOX = key_id(PUBLIC).hex()


def test_each_node_s_keys_and_troubles_are_lines() -> None:
    node = NodeKeys(
        node="a",
        role="broadcaster",
        signer_public=PUBLIC,
        serial=3,
        ids=(0, 1),
        dkim={"news": BOX, "old": "00" * 8},
        files=("own",),
        trouble={"dkim bad": "is damaged"},
    )
    assert cluster_lines({"a": node}) == [
        f"a (broadcaster): token keys 0, 1 (serial 3), signers' box {BOX}",
        "  DKIM key      own: a file of its own",
        "  DKIM key      news: opened",
        "  DKIM key      old: opened, sealed to a former box",
        "  trouble       dkim bad: is damaged",
    ]
    assert cluster_lines({"b": NodeKeys("b", "bounce")}) == [
        "b (bounce): token keys none told (serial 0), signers' box none told"
    ]
    assert missing([node], ["news", "own"]) == []
    assert missing([node], ["bad", "none"]) == [
        "a: bad: is damaged",
        "a: none: its signers have not opened it yet",
    ]
    assert missing([NodeKeys("w", "landing")], ["news"]) == []


def test_what_nodes_tell_moves_no_cursor() -> None:
    clear = "\x1b[2J"
    node = NodeKeys(
        "a", f"hub{clear}", dkim={f"n{clear}": ""}, files=(f"f{clear}",), trouble={f"t{clear}": clear}
    )
    lines = cluster_lines({"a": node})
    assert len(lines) == 4
    assert not any("\x1b" in line for line in lines)
    assert all("\\x1b[2J" in line for line in lines)
