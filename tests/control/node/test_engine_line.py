"""Asking the engine of a node: an answer, or quickly none; nothing stays behind."""

import json
from pathlib import Path

import trio

from control.node.engine_line import ask_engine, is_written, visit
from engine.bus.local import LocalBus
from engine.storage import Environment


async def test_without_an_engine_nobody_waits(tmp_path):
    assert await ask_engine(tmp_path, "n1", {}, 60.0) is None
    LocalBus(tmp_path / "bus", "n1").close_files()
    with trio.fail_after(10):
        assert await ask_engine(tmp_path, "n1", {}, 60.0) is None
    async with visit(tmp_path / "absent") as bus:
        assert bus is None


async def test_the_engine_is_asked_and_the_asker_leaves_no_folder(tmp_path: Path):
    spool = Environment(tmp_path / "spool", kind="x", version=1, databases=("a",))
    assert is_written(tmp_path / "spool")
    bus = LocalBus(tmp_path / "bus", "n1")
    asked: list[bytes] = []

    async def engine() -> None:
        questions = bus.serve("engine.n1")
        for question in await questions.receive(1):
            asked.append(question.payload)
            await question.answer(b'{"done": 1}')

    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        nursery.start_soon(engine)
        with trio.fail_after(30):
            assert await ask_engine(tmp_path, "n1", {"command": "x"}, 20.0) == {"done": 1}
        assert await ask_engine(tmp_path, "n1", {"command": "x"}, 0.1) is None
        bus.close()
    bus.close_files()
    spool.close()
    assert json.loads(asked[0]) == {"command": "x"}
    assert [path.name for path in (tmp_path / "bus").iterdir() if not path.name.startswith(".")] == ["n1"]
    assert not is_written(tmp_path / "spool")
