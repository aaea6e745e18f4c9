"""One message composed ahead: ready at once without signatures, and with them when the last one is there."""

import trio

from engine.actors.messages import SignSlot
from engine.actors.prepared import Prepared
from engine.model.content import Content, DkimIdentity
from engine.model.envelope import Envelope
from engine.mta.compose.message import Draft
from tests.fakes.engine_house import Desk, letter, memory_parts

ENVELOPE = Envelope(11, 7, 1, "ann@x.test", "x.test", ("Ann",), 0.0, 4e9)


async def draft(content: Content) -> Draft:
    parts = memory_parts()
    await parts.spool.put_content(content, 0.0)
    await trio.lowlevel.checkpoint()
    return parts.compiled(content.campaign).compose(ENVELOPE, 1_800_000_000.0)


async def test_an_unsigned_message_is_ready_at_once(autojump_clock: object) -> None:
    made = await draft(letter())
    item = Prepared(3, ENVELOPE, made, None)
    assert item.ready
    assert item.octets == len(made.unsigned)
    assert item.content == made.finish()


async def test_a_signed_one_waits_for_its_last_signature(autojump_clock: object) -> None:
    identities = tuple(DkimIdentity("x.test", name, "key") for name in ("a", "b"))
    made = await draft(letter(dkim=identities))
    slot = SignSlot([(item.key, item.digest) for item in made.digests], Desk().peer("connection"))
    item = Prepared(3, ENVELOPE, made, slot)
    slot.put(0, b"s" * 128)
    assert not item.ready
    slot.put(1, b"s" * 128)
    assert item.ready
    assert item.octets == len(made.unsigned), "signatures do not matter for the account of memory"
