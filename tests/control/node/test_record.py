"""What is known of a process: facts that change with a ring, and who waits is woken."""

import trio
import trio.testing

from control.node.record import ProcessRecord, ProcessState
from tests.fakes.node_children import shell


def made(times: list[float]) -> ProcessRecord:
    return ProcessRecord(shell("a", "true"), lambda: times[-1])


def test_a_state_has_the_time_since_which_it_holds():
    times = [1.0]
    record = made(times)
    times.append(5.0)
    record.become(ProcessState.STARTING)
    times.append(9.0)
    record.become(ProcessState.STARTING)
    assert record.facts.since == 5.0
    record.pid = 7
    record.last_exit = "exit code 1"
    assert repr(record) == "<Process a pid 7: starting, 0 restarts, last exit code 1>"


def test_a_long_error_is_cut_for_others():
    record = made([1.0])
    record.last_error = "x" * 2_000
    assert len(record.facts.last_error) == 500


async def test_who_waits_is_woken_by_each_change_and_observers_hear_all():
    record = made([1.0])
    heard: list[ProcessState] = []
    record.observe(lambda: heard.append(record.state))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(record.until, lambda: record.state is ProcessState.READY)
        for state in (ProcessState.STARTING, ProcessState.READY):
            await trio.testing.wait_all_tasks_blocked()
            record.become(state)
    assert heard == [ProcessState.STARTING, ProcessState.READY]
