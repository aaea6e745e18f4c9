"""What the actors share: compiled contents are few and made once."""

import pytest
from trio.testing import MockClock

from engine.actors import parts as parts_module
from engine.mta.compose.errors import ContentError
from tests.fakes.engine_house import letter, memory_parts


async def test_a_content_is_compiled_once(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    await parts.spool.put_content(letter(), 0.0)
    assert parts.compiled(7) is parts.compiled(7)


async def test_a_campaign_without_content_is_an_error(autojump_clock: MockClock) -> None:
    with pytest.raises(ContentError, match="campaign 9 has no content"):
        memory_parts().compiled(9)


async def test_contents_in_memory_are_bounded(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "CONTENTS_COMPILED_MAX", 2)
    parts = memory_parts()
    for campaign in (1, 2, 3):
        await parts.spool.put_content(letter(campaign), 0.0)
    first = parts.compiled(1)
    parts.compiled(2)
    parts.compiled(3)
    assert parts.compiled(1) is not first
