"""A worker's start, and what it says when it cannot be: its life is in test_session."""

import socket
from pathlib import Path

import pytest
import trio

from engine.config.tables import Config, KeysTable, NodeTable
from services.submission.config import SubmissionTable
from services.submission.worker import WorkerError, serve, tls_context
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
