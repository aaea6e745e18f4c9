"""The benchmark's clients against a real worker: every message once, told by its id."""

from pathlib import Path

import msgspec
import pytest
import trio

from bench.submission_load import Load, Report, main, run
from tests.fakes.submission_house import PASSWORD, running_worker

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("facts", [{}, {"pipelined": True}, {"reuse": False}, {"seconds": 0.5}])
async def test_all_messages_are_handed_in_once(tmp_path: Path, facts: dict[str, object]) -> None:
    async with running_worker(tmp_path) as house:
        load = Load(
            host="127.0.0.1",
            port=house.place.port,
            account="ann",
            password=PASSWORD,
            sender="ann@shop.test",
            recipient="to{}@x.test",
            messages=9,
            connections=3,
            message_bytes=500,
            **facts,  # type: ignore[arg-type]
        )
        report: Report = await trio.to_thread.run_sync(run, load)
        singles = house.singles()
    assert sorted(f"{each.id}.0" for each in report.handed) == sorted(single.id for single in singles)
    assert sorted(single.recipient for single in singles) == [f"to{number}@x.test" for number in range(9)]
    assert all(each.sent <= each.taken for each in report.handed)
    assert report.seconds > 0


def test_a_listener_that_is_not_there_is_an_error() -> None:
    load = Load(
        host="127.0.0.1",
        port=1,
        account="a",
        password="b",
        sender="c@d.test",
        recipient="e@f.test",
        messages=1,
        connections=1,
        message_bytes=1,
    )
    with pytest.raises(RuntimeError, match="a client failed"):
        main([msgspec.json.encode(load).decode()])
