"""The client's side of SOCKS version 5 (RFC 1928, with user and password of RFC 1929), without IO.

Asks a proxy to connect to one address. The caller writes what `next_output` has, reads exactly `wanted`
octets and hands them to `receive_data`, until `wanted` is 0: then `trouble` says how it ended. It never
asks for an octet too many, so that the peer's banner, which may come right behind the proxy's answer,
stays in the socket. An answer that is no SOCKS is the proxy's fault, as is a refused login.

    GREETING -> [LOGIN] -> CONNECT -> ADDRESS -> done
"""

import ipaddress
from enum import Enum

from engine.model.reply import FailureKind, TransportFailure, Verb

VERSION = 5
LOGIN_VERSION = 1
NO_LOGIN, LOGIN, NONE_ACCEPTABLE = 0x00, 0x02, 0xFF  # methods
COMMAND_CONNECT = 1
IPV4, NAME, IPV6 = 1, 3, 4  # address types
TEXT_OCTETS_MAX = 255  # RFC 1929 2

# RFC 1928 6. Whom an answer is about: 5 of these are the receiver's or the network's doing. A rule of the
# proxy (2) is about that receiver alone, too: whoever points an MX there must not suspend our source.
_ANSWERS = {
    1: (FailureKind.UNREACHABLE, "it failed"),
    2: (FailureKind.UNREACHABLE, "its rules do not allow this receiver"),
    3: (FailureKind.UNREACHABLE, "network unreachable"),
    4: (FailureKind.UNREACHABLE, "host unreachable"),
    5: (FailureKind.CONNECT_REFUSED, "connection refused"),
    6: (FailureKind.CONNECT_TIMEOUT, "no answer from the receiver"),
    7: (FailureKind.SOURCE, "it does not connect for others"),
    8: (FailureKind.UNREACHABLE, "it has no addresses of this family"),
}


class _Step(Enum):
    GREETING = "greeting"
    LOGIN = "login"
    CONNECT = "connect"
    ADDRESS = "address"
    DONE = "done"


class Socks5:
    """One connection. `asked` = the proxy is at work for us, so that silence is the receiver's."""

    __slots__ = ("_login", "_output", "_step", "_target", "trouble", "wanted")

    def __init__(self, address: str, port: int, user: str = "", password: str = "") -> None:
        assert 0 < port < 65_536
        packed = ipaddress.ip_address(address).packed
        kind = IPV4 if len(packed) == 4 else IPV6
        self._target = bytes((VERSION, COMMAND_CONNECT, 0, kind)) + packed + port.to_bytes(2, "big")
        self._login = b""
        if user:
            name, secret = user.encode(), password.encode()
            assert len(name) <= TEXT_OCTETS_MAX
            assert len(secret) <= TEXT_OCTETS_MAX
            self._login = bytes((LOGIN_VERSION, len(name))) + name + bytes((len(secret),)) + secret
        methods = bytes((NO_LOGIN, LOGIN)) if user else bytes((NO_LOGIN,))
        self._output = bytes((VERSION, len(methods))) + methods
        self._step = _Step.GREETING
        self.wanted = 2
        self.trouble: TransportFailure | None = None

    def __repr__(self) -> str:
        return f"<Socks5 {self._step.value}{'' if self.trouble is None else f', {self.trouble}'}>"

    @property
    def asked(self) -> bool:
        return self._step in (_Step.CONNECT, _Step.ADDRESS)

    def next_output(self) -> bytes:
        """What is to be written before anything is read; empty when nothing is."""
        output, self._output = self._output, b""
        return output

    def receive_data(self, data: bytes) -> None:
        """Take `wanted` octets."""
        assert len(data) == self.wanted > 0
        match self._step:
            case _Step.GREETING:
                self._greeted(data)
            case _Step.LOGIN:
                # RFC 1929 2: the version of this answer is 1; some proxies say 5, and mean the same.
                if data[1] != 0:
                    self._end(FailureKind.SOURCE, "the proxy refused user and password")
                else:
                    self._connect()
            case _Step.CONNECT:
                self._answered(data)
            case _Step.ADDRESS:
                self._step, self.wanted = _Step.DONE, 0
            case _Step.DONE:
                raise AssertionError("nothing is wanted any more")

    def _greeted(self, data: bytes) -> None:
        if data[0] != VERSION:
            self._end(FailureKind.SOURCE, "what answers is no SOCKS 5 proxy")
        elif data[1] == NO_LOGIN:
            self._connect()
        elif data[1] == LOGIN and self._login:
            self._output, self._step = self._login, _Step.LOGIN
        elif data[1] in (LOGIN, NONE_ACCEPTABLE) and not self._login:
            self._end(
                FailureKind.SOURCE, "the proxy asks for a login: set proxy_user and proxy_password_file"
            )
        else:
            self._end(FailureKind.SOURCE, "the proxy takes no user and password")

    def _connect(self) -> None:
        # As far as the address's first octet, which tells a name's length: every answer has that much.
        self._output, self._step, self.wanted = self._target, _Step.CONNECT, 5

    def _answered(self, data: bytes) -> None:
        version, code, _, kind, first = data
        if version != VERSION:
            self._end(FailureKind.SOURCE, "what answers is no SOCKS 5 proxy")
        elif code:
            trouble, text = _ANSWERS.get(code, (FailureKind.UNREACHABLE, f"it failed with code {code}"))
            self._end(trouble, f"the proxy says: {text}")
        elif kind in (IPV4, NAME, IPV6):
            octets = {IPV4: 4, NAME: 1 + first, IPV6: 16}[kind]
            self._step, self.wanted = _Step.ADDRESS, octets - 1 + 2
        else:
            self._end(FailureKind.SOURCE, "what answers is no SOCKS 5 proxy")

    def _end(self, kind: FailureKind, detail: str) -> None:
        self.trouble = TransportFailure(kind, Verb.CONNECT, detail)
        self._step, self.wanted = _Step.DONE, 0
