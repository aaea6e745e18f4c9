"""Prometheus' own verdict on a page of numbers: promtool reads it and finds nothing to mend."""

from collections.abc import Callable

import pytest
import trio

from bench.peers.place import home
from engine.actors.metering import Meter
from tests.engine.actors.test_measuring import child, statistics
from tests.fakes.engine_house import accepted, memory_parts, numbered

pytestmark = pytest.mark.peers


async def test_promtool_has_nothing_to_say(require_peer: Callable[[str], None]) -> None:
    require_peer("prometheus")
    parts = memory_parts()
    await accepted(parts, numbered(10))
    page = await Meter(parts, lambda: statistics(child("spooler"))).metrics("")
    said = await trio.run_process(
        [home("prometheus") / "usr/bin/promtool", "check", "metrics"],
        stdin=page.body,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, b"", b"")
