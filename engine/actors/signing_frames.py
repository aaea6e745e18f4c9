"""The words between the signer actor and its processes: both sides import them, neither the other.

A request frame is a sequence of (key number u16, digest 32 octets); its answer a sequence of
(length u16, signature), in the same order.
"""

import struct

REQUEST = struct.Struct(">H32s")
LENGTH = struct.Struct(">H")
KEYS_REFUSED = 2  # the process's exit code when it cannot use its keys
