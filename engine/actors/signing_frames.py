"""The words between the signer actor and its processes: both sides import them, neither the other.

A request frame is a sequence of (key number u16, digest 32 octets); its answer a sequence of
(length u16, signature), in the same order. Length 0 means that the process has no key of that number.
A frame that begins with the key number KEY_CHANGE changes what the process has: a key that is sealed to its
box is added under a number, or one is removed. Its answer is empty, or the text of what is wrong.
"""

import struct

REQUEST = struct.Struct(">H32s")
LENGTH = struct.Struct(">H")
CHANGE = struct.Struct(">HHH")  # KEY_CHANGE, key number, octets of `bound`; then `bound`, then the sealed key
KEY_CHANGE = 0xFFFF
KEYS_MAX = 4_096  # a key is some 4 KB in each process
KEYS_REFUSED = 2  # the process's exit code when it cannot use its keys
READY = b"ready"  # the first frame, followed by the public halves of the box keys, the current one first


def add_key(number: int, bound: bytes, sealed: bytes) -> bytes:
    """The frame that adds a sealed key, or puts it in another's place."""
    assert number < KEYS_MAX
    return CHANGE.pack(KEY_CHANGE, number, len(bound)) + bound + sealed


def remove_key(number: int) -> bytes:
    """The frame that removes a key."""
    return CHANGE.pack(KEY_CHANGE, number, 0)


def is_key_change(frame: bytes) -> bool:
    """Whether a frame is no request."""
    return frame.startswith(b"\xff\xff")


def read_key_change(frame: bytes) -> tuple[int, bytes, bytes]:
    """Key number, what the key is bound to, the sealed key; the latter two are empty for a removal."""
    _, number, length = CHANGE.unpack_from(frame)
    start = CHANGE.size + length
    return number, frame[CHANGE.size : start], frame[start:]
