"""The ready queue of one path: spool ids in its care that nobody has leased yet, transactional mail first.

Bookkeeping only; the site decides who gets what. A crash of the site loses nothing: the scheduler kept them.
"""

from collections import deque
from collections.abc import Sequence


class ReadyQueue:
    """Ids in the order in which they are leased."""

    __slots__ = ("_ordinary", "_urgent")

    def __init__(self) -> None:
        self._urgent: deque[int] = deque()  # transactional mail
        self._ordinary: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._urgent) + len(self._ordinary)

    def __repr__(self) -> str:
        return f"{len(self._urgent)} + {len(self._ordinary)} ready"

    @property
    def urgent(self) -> int:
        """How many are transactional mail."""
        return len(self._urgent)

    def add(self, ids: Sequence[int], urgent: int) -> None:
        """The first `urgent` of them are transactional mail."""
        self._urgent.extend(ids[:urgent])
        self._ordinary.extend(ids[urgent:])

    def take(self, count: int) -> list[int]:
        """The next `count` ids, or all."""
        urgent, ordinary = self._urgent, self._ordinary
        taken = [urgent.popleft() for _ in range(min(count, len(urgent)))]
        taken.extend(ordinary.popleft() for _ in range(min(count - len(taken), len(ordinary))))
        return taken

    def put_back(self, ids: Sequence[int], urgent: int) -> None:
        """Undo takes: `ids` is all that was taken since `urgent` ids were urgent, in order."""
        taken = urgent - len(self._urgent)
        self._urgent.extendleft(reversed(ids[:taken]))
        self._ordinary.extendleft(reversed(ids[taken:]))

    def all(self) -> list[int]:
        return [*self._urgent, *self._ordinary]

    def clear(self) -> None:
        self._urgent.clear()
        self._ordinary.clear()
