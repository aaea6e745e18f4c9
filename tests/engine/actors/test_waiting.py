"""What an engine says of how much waits in it."""

from engine.actors.requests import Request
from engine.actors.waiting import acts
from tests.fakes.engine_house import Desk, accepted, memory_parts


async def test_what_was_accepted_waits_until_its_end_is_known() -> None:
    parts = memory_parts()
    ask = acts(parts, Desk().peer)["waiting"]
    assert (await ask(Request("waiting")))["queued"] == 0
    await accepted(parts, ["a@x.test", "b@x.test"])
    parts.membership.close("twin", "another engine has this name")
    assert await ask(Request("waiting")) == {
        "queued": 2,
        "held": 0,
        "on_the_wire": 0,
        "closed": "another engine has this name",
        "draining": False,
        "bus_online": True,
    }
