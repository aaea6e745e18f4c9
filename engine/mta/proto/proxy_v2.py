"""The header of the PROXY protocol, version 2: one binary line that says from where to where.

Sent ahead of everything to a proxy that was set up to connect onwards by it (haproxy: `accept-proxy`,
`source 0.0.0.0 usesrc clientip`, a server of address 0.0.0.0). There is no answer: a proxy that cannot reach
the receiver closes. The format is section 2.2 of haproxy's doc/proxy-protocol.txt. Pure.
"""

import ipaddress

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
VERSION_AND_PROXY = 0x21  # version 2, command PROXY: the connection is on behalf of another node
TCP_OVER = {4: 0x11, 6: 0x21}


def proxy_v2_header(source: str, address: str, port: int) -> bytes:
    """The header for a connection from `source` (its port is the proxy's to choose) to address and port.

    Both are literals of one family: asserted, since the caller has chosen the address by the source.
    """
    assert 0 < port < 65_536
    ours, theirs = ipaddress.ip_address(source), ipaddress.ip_address(address)
    assert ours.version == theirs.version
    body = ours.packed + theirs.packed + bytes(2) + port.to_bytes(2, "big")
    return (
        SIGNATURE + bytes((VERSION_AND_PROXY, TCP_OVER[ours.version])) + len(body).to_bytes(2, "big") + body
    )
