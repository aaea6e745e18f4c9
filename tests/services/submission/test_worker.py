"""A worker's start, and what it says when it cannot be: its life is in test_session."""

import socket
from pathlib import Path

import pytest
import structlog
import trio
import trio_asyncio

from engine.config.tables import Config, KeysTable, NodeTable
from services.submission.config import SubmissionTable
from services.submission.worker import Troubles, WorkerError, serve, tls_context
from tests.fakes.submission_house import furnish


def config_of(folder: Path) -> Config:
    return Config(node=NodeTable(name="node", data=str(folder / "data")), keys=KeysTable(folder=str(folder)))


async def test_a_certificate_that_is_none_is_said(tmp_path: Path) -> None:
    table = furnish(tmp_path)
    Path(table.tls_cert).write_text("nothing")
    with pytest.raises(WorkerError, match=r"\[submission\] tls_cert .* cannot be used"):
        await serve(config_of(tmp_path), table, 1, trio.Event())


async def test_accounts_that_others_may_read_are_said(tmp_path: Path) -> None:
    table = furnish(tmp_path)
    Path(table.accounts).chmod(0o644)
    with pytest.raises(WorkerError, match="chmod 600"):
        await serve(config_of(tmp_path), table, 1, trio.Event())


async def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    table = furnish(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", table.listen[0].port))
        other.listen()
        with pytest.raises(WorkerError, match=r"\[submission\] listen 127\.0\.0\.1:\d+: cannot be used"):
            await serve(config_of(tmp_path), table, 1, trio.Event())


def test_old_tls_is_not_spoken(tmp_path: Path) -> None:
    context = tls_context(furnish(tmp_path))
    assert context.minimum_version.name == "TLSv1_2"


def test_a_table_alone_has_no_certificate() -> None:
    with pytest.raises(WorkerError):
        tls_context(SubmissionTable())


async def test_a_connections_trouble_is_one_line_of_its_kind_and_nobodys_end() -> None:
    async with trio_asyncio.open_loop() as loop:
        troubles = Troubles()
        loop.set_exception_handler(troubles)
        with structlog.testing.capture_logs() as lines:
            for error in (OSError(24, "too many open files"), OSError(24, "again"), TypeError("a bug")):
                loop.call_exception_handler({"message": "accept", "exception": error})
            loop.call_exception_handler({"message": "something was left"})
    assert [line["why"] for line in lines] == ["[Errno 24] too many open files", "a bug", ""]
    assert [line["exc_info"] is not None for line in lines] == [False, True, False]
    assert repr(troubles) == "<Troubles of 3 kinds>"
