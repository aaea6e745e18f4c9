"""A running world: names lead to hosts, mail that follows them ends as foreseen."""

import smtplib
import socket
from collections import Counter

import dns.message
import dns.query
import pytest
import trio

from bench.world.demo import demo_world
from bench.world.manners import Manners, bounced, busy
from bench.world.records import read_records
from bench.world.spec import Host, ProviderSpec, Site, WorldSpec
from bench.world.world import listen_everywhere, open_world

pytestmark = pytest.mark.slow  # real sockets and processes on the real clock: seconds

SPEC = WorldSpec(
    name="small",
    providers=(
        ProviderSpec(
            "box",
            (Site((Host("mx1.box.test", listens=False), Host("mx2.box.test", 20)), {"box.test": 2}),),
            Manners(troubles=(bounced(0.3), busy(0.3, 0.05))),
        ),
        ProviderSpec("plain", (Site((Host("mx.plain.test"),), {"plain.test": 1, "also.test": 1}),)),
    ),
)


def hosts_of(domain, resolver):
    """Addresses of a domain's MX hosts in order of preference, as a sender would find them."""
    query = dns.message.make_query(domain, "MX")
    response = dns.query.udp(query, resolver[0], port=resolver[1], timeout=5)
    exchanges = sorted(response.answer[0], key=lambda record: record.preference)
    addresses = {rrset.name: rrset[0].address for rrset in response.additional}
    return [addresses[record.exchange] for record in exchanges]


def deliver(recipients, resolver, port):
    """The final state of each recipient, sent by the standard library, trying again without end."""
    states = Counter()
    for recipient in recipients:
        for address in hosts_of(recipient.rpartition("@")[2], resolver):
            try:
                client = smtplib.SMTP(address, port, timeout=5)
            except ConnectionRefusedError:
                continue
            with client:
                while True:
                    try:
                        client.sendmail(
                            "s@from.test", [recipient], f"Message-ID: <{recipient}>\r\n\r\nHi\r\n"
                        )
                    except smtplib.SMTPRecipientsRefused as refused:
                        code = refused.recipients[recipient][0]
                        if code < 500:
                            continue
                        states["bounced"] += 1
                    else:
                        states["delivered"] += 1
                    break
            break
    return states


async def test_mail_through_the_world_ends_as_foreseen(tmp_path):
    record = tmp_path / "record"
    accepted = []
    recipients = [person.email for person in SPEC.addresses(30)]
    async with open_world(SPEC, record=record, accepted=accepted, keep_content=True) as world:
        states = await trio.to_thread.run_sync(deliver, recipients, world.resolver, world.smtp_port)
        statistics = world.statistics()
    assert dict(states) == SPEC.expected(recipients).final
    assert statistics["totals"]["accepted"] == states["delivered"] == len(accepted)
    assert statistics["totals"]["protocol_errors"] == 0
    assert set(read_records(record)) == set(accepted)
    assert {message.message_id for message in accepted} <= {f"<{recipient}>" for recipient in recipients}


async def test_a_host_that_does_not_listen_refuses():
    async with open_world(SPEC) as world:
        dead, alive = await trio.to_thread.run_sync(hosts_of, "box.test", world.resolver)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((dead, world.smtp_port), timeout=5)
        socket.create_connection((alive, world.smtp_port), timeout=5).close()


async def test_two_demo_worlds_run_side_by_side_on_unprivileged_ports():
    async with open_world(demo_world()) as one, open_world(demo_world()) as other:
        assert one.smtp_port != other.smtp_port
        assert min(one.smtp_port, other.smtp_port, one.resolver[1], other.resolver[1]) >= 1024
        assert "demo" in repr(one)


def test_a_port_taken_on_a_later_address_is_given_up_for_another():
    first = listen_everywhere(["127.83.9.1", "127.83.9.2"])
    taken = first[0].getsockname()[1]
    try:
        with pytest.raises(OSError):
            listen_everywhere(["127.83.9.3", "127.83.9.2"], taken)
        again = listen_everywhere(["127.83.9.1", "127.83.9.2"])
        assert {listener.getsockname()[1] for listener in again} != {taken}
    finally:
        for listener in first + again:
            listener.close()
