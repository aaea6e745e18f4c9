"""`--route`: literals need no DNS, and a name that does not resolve is the user's mistake."""

import pytest

from control.cli.errors import InputError
from control.cli.route import find_route
from engine.config import Config, Duration, HostPort, ResolverTable
from engine.model.egress import MxHost

NO_SERVER = Config(
    resolver=ResolverTable(servers=(HostPort.parse("127.0.0.1:9"),), timeout=Duration(0.2), attempts=1)
)


async def test_an_address_is_its_own_route() -> None:
    route = await find_route("127.0.0.1:2525", NO_SERVER)
    assert route is not None
    assert route.hosts == (MxHost("127.0.0.1", ("127.0.0.1",), 0, 2525),)


async def test_no_route_is_none() -> None:
    assert await find_route("", NO_SERVER) is None


async def test_a_name_that_does_not_resolve_is_named() -> None:
    with pytest.raises(InputError, match=r"--route relay\.example\.org:25: "):
        await find_route("relay.example.org:25", NO_SERVER)
