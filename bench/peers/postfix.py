"""Postfix, privately: a receiver for every domain, and the relay that benchmarks measure against.

Both run the real `master` with a configuration of their own; only the services they need are
started. The receiver delivers through virtual(8) into a maildir; the relay hands everything to one
sink with the connection cache on and its concurrency raised, without DNS, which is the tuning a
busy site would give it. Rate and connection limits are off: the tests' client comes from one
address. Failing to start raises `PeerFailed` with the end of `maillog`.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.peers.certificate import Certificate, furnish
from bench.peers.place import home, library_path
from bench.peers.process import FOLDER_INSIDE, PROGRAMS_INSIDE, Namespace, free_port, running
from bench.peers.receiver import Receiver

ACCOUNTS = ("postfix", "mailbox")
GROUPS = ("postdrop",)

# smtp(8) processes of the relay. More than this only adds context switches on two cores.
RELAY_CONCURRENCY = 50

MESSAGE_BYTES_MAX = 50_000_000

_QUEUE_MAIL = (
    "active",
    "bounce",
    "corrupt",
    "defer",
    "deferred",
    "flush",
    "hold",
    "incoming",
    "saved",
    "trace",
)

_MAIN = """\
compatibility_level = 3.6
config_directory = {inside}/config
queue_directory = {inside}/queue
data_directory = {inside}/data
daemon_directory = {programs}/usr/lib/postfix/sbin
command_directory = {programs}/usr/sbin
shlib_directory = {programs}/usr/lib/postfix
meta_directory = {inside}/config
sendmail_path = {programs}/usr/sbin/sendmail
mail_owner = postfix
setgid_group = postdrop
default_privs = mailbox
import_environment = MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG LANG LD_LIBRARY_PATH
maillog_file = {inside}/log
maillog_file_prefixes = {inside}

myhostname = postfix.test
mydestination =
inet_interfaces = loopback-only
inet_protocols = all
mynetworks = 127.0.0.0/8, [::1]/128
alias_maps =
alias_database =
local_recipient_maps =
local_header_rewrite_clients =
append_dot_mydomain = no
smtpd_peername_lookup = no
smtp_dns_support_level = disabled
disable_dns_lookups = yes
biff = no
message_size_limit = {message_bytes_max}
mailbox_size_limit = 0
virtual_mailbox_limit = 0
queue_minfree = 0
in_flow_delay = 0
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_message_rate_limit = 0
smtpd_client_recipient_rate_limit = 0
smtpd_error_sleep_time = 0
smtputf8_enable = yes
"""

_RECEIVER = """
virtual_mailbox_domains = static:all
virtual_mailbox_maps = static:mails/
virtual_mailbox_base = {inside}
virtual_uid_maps = static:{mailbox}
virtual_gid_maps = static:{mailbox}
"""

_TLS = """
smtpd_tls_security_level = may
smtpd_tls_cert_file = {inside}/certificate.pem
smtpd_tls_key_file = {inside}/key.pem
"""

# Neither list has permit_mynetworks: the client under test is on loopback, and these are about it.
_REFUSE = """
smtpd_recipient_restrictions = check_recipient_access regexp:{inside}/refused{then}
"""

_POLICY = ", check_policy_service inet:{host}:{port}"

_RELAY = """
relayhost = [{sink_host}]:{sink_port}
smtpd_relay_restrictions = permit_mynetworks, reject
default_process_limit = {processes}
default_destination_concurrency_limit = {concurrency}
initial_destination_concurrency = {concurrency}
smtp_connection_cache_on_demand = yes
smtp_connection_cache_destinations = {sink_host}
smtp_connection_reuse_count_limit = 0
qmgr_message_active_limit = 20000
"""

_MASTER = """\
{address} inet n - n - {processes} smtpd
pickup    unix n - n 60 1 pickup
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
verify    unix - - n - 1 verify
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp      unix - - n - - smtp
relay     unix - - n - - smtp
showq     unix n - n - - showq
error     unix - - n - - error
retry     unix - - n - - error
discard   unix - - n - - discard
local     unix - n n - - local
virtual   unix - n n - - virtual
lmtp      unix - - n - - lmtp
anvil     unix - - n - 1 anvil
scache    unix - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""


@contextmanager
def receiving(
    folder: Path,
    host: str = "127.0.0.1",
    port: int | None = None,
    *,
    tls: bool | Certificate = False,
    refuse: str | None = None,
    policy: tuple[str, int] | None = None,
) -> Iterator[Receiver]:
    """A Postfix that takes mail for every domain and delivers it into `folder/mails/new`.

    `folder` is its own and made if need be. Port None means a free one. `tls` offers STARTTLS, with a
    certificate of its own signature or the given one. Recipients whose local part begins with `refuse`
    get 550; the others are put to the policy service at `policy`, if any.
    """
    port = port or free_port(host)
    namespace = _namespace()
    mailbox = namespace.account_id("mailbox")
    mails = folder / "mails"
    mails.mkdir(parents=True)
    os.chown(mails, mailbox, mailbox)
    facts = _RECEIVER.format(inside=FOLDER_INSIDE, mailbox=mailbox)
    if tls:
        furnish(folder, host, tls)
        facts += _TLS.format(inside=FOLDER_INSIDE)
    if refuse or policy:
        (folder / "refused").write_text(f"/^{refuse}/ 550 5.1.1 no such mailbox here\n" if refuse else "")
        then = _POLICY.format(host=policy[0], port=policy[1]) if policy else ""
        facts += _REFUSE.format(inside=FOLDER_INSIDE, then=then)
    _furnish(folder, namespace, host, port, facts, processes=100)
    with _started(folder, namespace, host, port):
        yield Receiver("postfix", host, port, mails, folder / "log")


@contextmanager
def relaying(
    folder: Path,
    sink: tuple[str, int],
    host: str = "127.0.0.1",
    port: int | None = None,
    *,
    concurrency: int = RELAY_CONCURRENCY,
) -> Iterator[tuple[str, int]]:
    """A Postfix that relays all it takes from loopback to `sink`; yields the address it listens on."""
    port = port or free_port(host)
    namespace = _namespace()
    facts = _RELAY.format(
        sink_host=sink[0], sink_port=sink[1], concurrency=concurrency, processes=2 * concurrency
    )
    _furnish(folder, namespace, host, port, facts, processes=2 * concurrency)
    with _started(folder, namespace, host, port):
        yield host, port


def version() -> str:
    """The version of the unpacked Postfix, for reports."""
    root = home("postfix")
    done = subprocess.run(
        [root / "usr/sbin/postconf", "-c", root / "usr/share/postfix", "-dh", "mail_version"],
        env={"LD_LIBRARY_PATH": library_path(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def _namespace() -> Namespace:
    return Namespace(home("postfix"), accounts=ACCOUNTS, groups=GROUPS)


def _furnish(folder: Path, namespace: Namespace, host: str, port: int, facts: str, *, processes: int) -> None:
    """Write the configuration, and the folders that `postfix set-permissions` would make."""
    owner, postdrop = namespace.account_id("postfix"), namespace.account_id("postdrop")
    config, queue, data = folder / "config", folder / "queue", folder / "data"
    for path in (config, queue, data, queue / "pid"):
        path.mkdir(parents=True, exist_ok=True)
    os.chown(data, owner, owner)
    for name in (*_QUEUE_MAIL, "private"):
        (queue / name).mkdir(mode=0o700)
        os.chown(queue / name, owner, -1)
    for name, mode in (("public", 0o710), ("maildrop", 0o1730)):
        (queue / name).mkdir()
        os.chown(queue / name, owner, postdrop)
        (queue / name).chmod(mode)
    main = _MAIN.format(inside=FOLDER_INSIDE, programs=PROGRAMS_INSIDE, message_bytes_max=MESSAGE_BYTES_MAX)
    (config / "main.cf").write_text(main + facts)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    (config / "master.cf").write_text(_MASTER.format(address=address, processes=processes))
    (config / "dynamicmaps.cf").write_text("")


@contextmanager
def _started(folder: Path, namespace: Namespace, host: str, port: int) -> Iterator[None]:
    command = [
        str(PROGRAMS_INSIDE / "usr/lib/postfix/sbin/master"),
        "-c",
        str(FOLDER_INSIDE / "config"),
        "-d",
    ]
    environment = {"LD_LIBRARY_PATH": library_path(namespace.programs, seen_as=PROGRAMS_INSIDE)}
    with running(
        command, address=(host, port), log=folder / "log", environment=environment, namespace=namespace
    ):
        yield
