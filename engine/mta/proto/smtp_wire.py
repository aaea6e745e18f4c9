"""The octets of one connection on their way out, and how many of them the kernel has.

Offsets count from the first octet of the connection, so "was the final dot handed over?" is one
comparison. Parts are joined once, when the shell takes them; a content is never copied twice.
"""


class Wire:
    """`built` octets were put, `taken` of them left with `take`, `handed` of those the kernel has."""

    __slots__ = ("_parts", "built", "handed", "taken")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.built = 0
        self.taken = 0
        self.handed = 0

    def put(self, part: bytes) -> None:
        self._parts.append(part)
        self.built += len(part)

    def take(self) -> bytes | None:
        """Everything that was put since the last call, as one piece; None when there is nothing."""
        parts = self._parts
        if not parts:
            return None
        self._parts = []
        self.taken = self.built
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def hand_over(self, count: int) -> None:
        self.handed += count
        assert count >= 0, "a negative count was handed over"
        assert self.handed <= self.taken, "more octets were handed over than taken"

    def drop(self) -> None:
        """Forget what was put and not taken: the connection is over."""
        self._parts = []
        self.built = self.taken
