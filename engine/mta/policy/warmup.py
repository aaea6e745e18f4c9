"""A warm-up plan in force: how many messages one source may send to one provider on each sending day.

A plan counts sending days, not calendar days: a day on which less than half of its quota went taught the
receiver little, and its quota is tried again. A new day begins when the day number grows; a clock that
goes back brings no new quota. After the plan's last day there is no limit.

Pure; `today` is a day number that only has to grow by one each day, in whatever time zone the caller
keeps. `state` is what has to survive a restart, or each start would hand out the day's quota again.
"""

from msgspec import Struct

UNLIMITED = 2**62  # more than anybody takes
COUNTED_SHARE = 0.5  # of a day's quota, for the day to count


class WarmUpState(Struct, frozen=True):
    """`used` messages were taken on `day` (None: not begun) under the quota number `day_index`."""

    day_index: int = 0
    day: int | None = None
    used: int = 0


class WarmUp:
    """The plan `per_day`: messages on sending day 1, 2, ...; an empty one limits nothing."""

    def __init__(self, per_day: tuple[int, ...], state: WarmUpState | None = None) -> None:
        assert all(quota >= 1 for quota in per_day)
        self.per_day = per_day
        self.state = WarmUpState() if state is None else state

    def __repr__(self) -> str:
        if self.finished:
            return f"<WarmUp finished after {len(self.per_day)} days>"
        state = self.state
        done = f"{state.used}/{self.per_day[state.day_index]}"
        return f"<WarmUp sending day {state.day_index + 1} of {len(self.per_day)}, {done}>"

    @property
    def finished(self) -> bool:
        return self.state.day_index >= len(self.per_day)

    def room(self, today: int) -> int:
        """How many messages may still go today; UNLIMITED after the plan's end."""
        self._turn(today)
        if self.finished:
            return UNLIMITED
        return max(0, self.per_day[self.state.day_index] - self.state.used)

    def take(self, today: int, wanted: int) -> int:
        """How many of `wanted` messages may go now; they are counted as sent."""
        assert wanted >= 0
        allowed = min(wanted, self.room(today))
        if not self.finished:
            self._use(allowed)
        return allowed

    def give_back(self, taken_on: int, count: int) -> None:
        """Messages that were taken on that day and not sent; no later day's quota grows by them."""
        assert count >= 0
        if taken_on == self.state.day and not self.finished:
            self._use(-count)

    def ahead(self, today: int) -> tuple[int, ...]:
        """What may go today and on each later day of the plan, if every day is used; () = no limit."""
        room = self.room(today)
        return () if self.finished else (room, *self.per_day[self.state.day_index + 1 :])

    def _use(self, count: int) -> None:
        state = self.state
        self.state = WarmUpState(state.day_index, state.day, max(0, state.used + count))

    def _turn(self, today: int) -> None:
        """Begin `today` if it is a later day than the one that is counted."""
        state = self.state
        if state.day is not None and today <= state.day:
            return
        index = state.day_index
        if state.day is not None and not self.finished and state.used >= COUNTED_SHARE * self.per_day[index]:
            index += 1
        self.state = WarmUpState(index, today, 0)
