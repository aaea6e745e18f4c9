"""The parent of several workers; one that dies and comes back is in tests/loopback/test_submission_flow."""

from pathlib import Path

import pytest
import trio

from engine.runtime.supervisor import SupervisorGaveUp
from services.submission.workers import run_workers

pytestmark = pytest.mark.slow


async def test_workers_that_cannot_start_end_the_parent(tmp_path: Path) -> None:
    file = tmp_path / "emass.toml"
    file.write_text("[submission]\n")
    with pytest.RaisesGroup(SupervisorGaveUp), trio.fail_after(60):
        await run_workers(file, 2, trio.Event())
