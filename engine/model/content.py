"""A campaign's content as it is submitted: templates and the facts that headers need.

`Content` is stored once per campaign in the spool and compiled once per process by
`engine.mta.compose`. Texts are template source; nothing in here is rendered or encoded yet.
"""

from enum import Enum

from msgspec import Struct


class MessageClass(Enum):
    """Priority class. All but TRANSACTIONAL carry one-click unsubscribe and `Precedence: bulk`.

    DEFAULT is for mail to a list that should not wait behind campaigns: alerts, digests, receipts of a
    subscription.
    """

    TRANSACTIONAL = "transactional"
    DEFAULT = "default"
    BULK = "bulk"


class DkimAlgorithm(Enum):
    RSA_SHA256 = "rsa-sha256"
    ED25519_SHA256 = "ed25519-sha256"


class BodyCanon(Enum):
    SIMPLE = "simple"
    RELAXED = "relaxed"


class DkimIdentity(Struct, frozen=True):
    """One DKIM signature to make: `key` names the private key a signer process holds."""

    domain: str
    selector: str
    key: str
    algorithm: DkimAlgorithm = DkimAlgorithm.RSA_SHA256
    body: BodyCanon = BodyCanon.SIMPLE
    expire_days: int = 7


class Content(Struct, frozen=True, kw_only=True):
    """Everything one campaign's messages share.

    `fields` are the placeholder names, in the order of each envelope's merge row. `email` is always
    available to templates and need not be among them. `text` None = derived from `html`; `html`
    None = a text-only message; not both None. Hosts are names without scheme.
    """

    campaign: int
    name: str
    message_class: MessageClass = MessageClass.BULK
    workspace: str = "default"
    from_address: str
    from_name: str = ""
    reply_to: str = ""
    subject: str
    html: str | None = None
    text: str | None = None
    fields: tuple[str, ...] = ()
    return_path_domain: str
    sending_domain: str = ""  # id that tokens are bound to; empty = return_path_domain
    list_id: str = ""  # RFC 2919 identifier without angle brackets, e.g. news.example.org
    list_name: str = ""
    list_help: str = ""  # URL (https: or mailto:) for List-Help
    unsubscribe_host: str = ""  # https host of /u/<token>; empty = no List-Unsubscribe
    tracking_host: str = ""  # https host of /c/<token>/<n> and /o/<token>.gif; empty = links stay
    open_pixel: bool = False
    cfbl_domain: str = ""  # RFC 9477; empty = no CFBL headers
    headers: tuple[tuple[str, str], ...] = ()  # static extra headers
    dkim: tuple[DkimIdentity, ...] = ()
    require_tls: bool = False  # RFC 8689: only over TLS to servers that prove who they are, on the whole way
    single: bool = False  # its envelopes are single messages: where a subscriber stands, a message id does
    raw: bool = False  # a row is a whole message, sent as it is but for signatures and return path
