"""From MAIL to the reply to the final dot: what a provider makes of an envelope and its content.

Decides the answer to MAIL, RCPT, DATA, BDAT and to a whole message, asks the provider for its manners,
collects what was accepted. Out-of-sequence commands are protocol errors; what a pipelining client
cannot avoid (RCPT or DATA behind a refused command) is answered alike, but not counted as one.
No IO; the session owns framing and the connection.
"""

from enum import Enum
from time import time

from bench.world.answers import Answer, Step
from bench.world.content import framing_faults, message_id, undo_dot_stuffing
from bench.world.manners import Gate, Moment, Starttls, Trouble
from bench.world.parse import MAIL, MAIL_PARAMETERS, RCPT, RCPT_PARAMETERS, parse_parameters
from bench.world.provider import Provider
from bench.world.records import Accepted, digest, text_of
from bench.world.sources import Standing

OK_MAIL = Answer("250 2.1.0 Ok")
OK_RCPT = Answer("250 2.1.5 Ok")
OK_QUEUED = Answer("250 2.0.0 Ok: queued")
NEED_MAIL = Answer("503 5.5.1 Need MAIL command")
TOO_LARGE = Answer("552 5.3.4 Message size exceeds fixed limit")
TOO_MANY = Answer("421 4.7.0 Too many messages on this connection", Step.CLOSE)


class _Mail(Enum):
    NONE = 0
    OPEN = 1
    REFUSED = 2  # what was pipelined behind a refused MAIL is no fault of the client


class Transaction:
    """One at a time, reused over a connection's life. `hello` is b"EHLO", b"HELO" or b""."""

    def __init__(self, provider: Provider, source: str, *, tls_possible: bool) -> None:
        self.accepted: list[Accepted] = []
        self.messages = 0  # MAIL commands taken on this connection
        self.hello = b""
        self.tls = False
        self.tls_possible = tls_possible
        self._provider = provider
        self._manners = provider.manners
        self._tally = provider.tally
        self._source = source
        self.account = provider.account(source)
        self.reset()

    def reset(self) -> None:
        self._mail = _Mail.NONE
        self._mail_from = b""
        self._recipients: list[str] = []
        self._rcpt_seen = False
        self._smtputf8 = False
        self._eight_bit = False
        self._content_trouble: Trouble | None = None
        self._content_judged = False
        self.chunking = False

    # --- the envelope ---

    def mail(self, rest: bytes, now: float) -> Answer:
        if not self.hello:
            return self._fault("mail_before_hello", "503 5.5.1 Say EHLO first")
        if self._mail is _Mail.OPEN:
            return self._fault("nested_mail", "503 5.5.1 Nested MAIL command")
        self._mail = _Mail.REFUSED  # until proved otherwise
        found = MAIL.match(rest)
        if found is None:
            return self._fault("mail_syntax", "501 5.5.4 Syntax: MAIL FROM:<address>")
        mail_from, parameters = found.groups()
        refusal = self._mail_parameters(mail_from, parameters)
        if refusal is None:
            refusal = self._mail_refusal(mail_from, now)
        if refusal is not None:
            return refusal
        self._mail = _Mail.OPEN
        self._mail_from = mail_from
        self.messages += 1
        return OK_MAIL

    def _mail_refusal(self, mail_from: bytes, now: float) -> Answer | None:
        manners, provider, counts = self._manners, self._provider, self._tally.counts
        counts["attempts"] += 1
        if manners.reputation is not None and (blocked := self.blocked(Gate.MAIL, now)) is not None:
            return blocked
        if manners.starttls is Starttls.REQUIRED and self.tls_possible and not self.tls:
            return self._refused("530 5.7.0 Must issue a STARTTLS command first")
        if manners.limits_mailmax and self.messages >= manners.limits_mailmax:
            self._fault("mailmax_exceeded")
            return TOO_MANY
        if manners.messages_per_connection and self.messages >= manners.messages_per_connection:
            counts["connections_used_up"] += 1
            return TOO_MANY
        if manners.troubles:
            trouble = provider.trouble(Moment.MAIL, text_of(mail_from).lower(), now)
            if trouble is not None:
                return self._struck(trouble)
        if manners.rate_per_minute and self.account.over_rate(now):
            counts["rate_refusals"] += 1
            return self._over_limit(manners.rate_reply, now)
        return None

    def blocked(self, gate: Gate, now: float) -> Answer | None:
        """What a blocked source hears at this gate; None if it may pass."""
        reputation = self._manners.reputation
        if reputation is None or reputation.block_gate is not gate:
            return None
        if self.account.standing(now) is not Standing.BLOCKED:
            return None
        self._tally.counts["blocked_refusals"] += 1
        return self._over_limit(reputation.block_reply, now)

    def _over_limit(self, line: str, now: float) -> Answer:
        self._provider.timeline.add(now, refused=1)
        return self._refused(line, Step.CLOSE if line.startswith("421") else Step.READ)

    def _mail_parameters(self, mail_from: bytes, text: bytes | None) -> Answer | None:
        if text is None and mail_from.isascii():
            return None
        parameters = parse_parameters(text or b"")
        refusal = self._unannounced(parameters, MAIL_PARAMETERS)
        if refusal is not None:
            return refusal
        size = parameters.get("SIZE", "0")
        if not size.isdigit():
            return self._fault("mail_syntax", "501 5.5.4 SIZE wants a number")
        if int(size) > self._manners.message_octets_max:
            return self._refused(TOO_LARGE.line)
        self._smtputf8 = "SMTPUTF8" in parameters
        self._eight_bit = self._smtputf8 or parameters.get("BODY", "").upper() == "8BITMIME"
        if not (self._smtputf8 or mail_from.isascii()):
            return self._fault("utf8_address_unannounced", "553 5.6.7 Address needs SMTPUTF8")
        return None

    def _unannounced(self, parameters: dict[str, str], known: dict[str, str]) -> Answer | None:
        manners = self._manners
        announced = {
            "SIZE": manners.size,
            "8BITMIME": manners.eight_bit,
            "SMTPUTF8": manners.smtputf8,
            "DSN": manners.dsn,
        }
        for name in parameters:
            if self.hello != b"EHLO" or not announced.get(known.get(name, "")):
                return self._fault("parameter_unannounced", f"555 5.5.4 {name} not supported")
        return None

    def rcpt(self, rest: bytes, now: float) -> Answer:
        self._rcpt_seen = True
        if self._mail is _Mail.REFUSED:
            return NEED_MAIL
        if self._mail is _Mail.NONE or self.chunking:
            return self._fault("rcpt_out_of_sequence", NEED_MAIL.line)
        found = RCPT.match(rest)
        if found is None:
            return self._fault("rcpt_syntax", "501 5.5.4 Syntax: RCPT TO:<address>")
        address, parameters = found.groups()
        if parameters is not None:
            refusal = self._unannounced(parse_parameters(parameters), RCPT_PARAMETERS)
            if refusal is not None:
                return refusal
        if not (self._smtputf8 or address.isascii()):
            return self._fault("utf8_address_unannounced", "553 5.6.7 Address needs SMTPUTF8")
        return self._recipient(text_of(address), now)

    def _recipient(self, recipient: str, now: float) -> Answer:
        provider, manners = self._provider, self._manners
        whom = recipient.lower()
        if not provider.serves(whom):
            self._tally.counts["relay_denied"] += 1
            return self._refused("550 5.7.1 Relaying denied")
        if manners.reputation is not None and (blocked := self.blocked(Gate.RCPT, now)) is not None:
            return blocked
        if len(self._recipients) >= manners.recipients_max:
            return self._refused("452 4.5.3 Too many recipients")
        if manners.greylist_seconds and provider.greylisted(self._source, self._mail_from, whom, now):
            self._tally.troubles["greylisted"] += 1
            return self._refused(manners.greylist_reply)
        trouble = provider.trouble(Moment.RCPT, whom, now) if manners.troubles else None
        if trouble is not None:
            return self._struck(trouble)
        self._recipients.append(recipient)
        return OK_RCPT

    # --- the content ---

    def sequence_refusal(self, verb: str) -> Answer | None:
        """Why DATA or BDAT cannot go on; None if it can."""
        if self._mail is _Mail.NONE or (self._mail is _Mail.OPEN and not self._rcpt_seen):
            return self._fault(f"{verb}_out_of_sequence", "503 5.5.1 Bad sequence of commands")
        if not self._recipients:
            return Answer("554 5.5.1 No valid recipients")
        return None

    def data_refusal(self, now: float) -> Answer | None:
        """What DATA meets instead of 354."""
        if self.chunking:
            return self._fault("data_after_bdat", "503 5.5.1 DATA after BDAT")
        refusal = self.sequence_refusal("data")
        if refusal is None and (trouble := self._trouble(Moment.DATA, now)) is not None:
            self._mail = _Mail.REFUSED
            self._recipients.clear()
            refusal = self._struck(trouble)
        return refusal

    def hangs_up_inside(self, now: float) -> Answer | None:
        """Asked with the first octets of content: a trouble that does not wait for the end."""
        if not self._content_judged:
            self._content_judged = True
            self._content_trouble = self._trouble(Moment.CONTENT, now)
        trouble = self._content_trouble
        return self._struck(trouble) if trouble is not None and not trouble.reply else None

    def message(self, content: bytes, now: float, *, stuffed: bool, too_large: bool) -> Answer:
        """Judge a whole message, take it or not, and end the transaction."""
        for kind in framing_faults(content, eight_bit_announced=self._eight_bit):
            self._fault(kind)
        answer = OK_QUEUED
        if too_large or len(content) > self._manners.message_octets_max:
            answer = self._refused(TOO_LARGE.line)
        elif self._content_trouble is not None:
            answer = self._struck(self._content_trouble)
        elif (trouble := self._trouble(Moment.REPLY, now)) is not None:
            if trouble.accepts:
                self._accept(content, now, stuffed=stuffed, answered=False)
            answer = self._struck(trouble)
        else:
            self._accept(content, now, stuffed=stuffed, answered=True)
        self.reset()
        return answer

    def _accept(self, content: bytes, now: float, *, stuffed: bool, answered: bool) -> None:
        provider, counts, number = self._provider, self._tally.counts, len(self._recipients)
        counts["accepted"] += number
        provider.timeline.add(now, accepted=number)
        if not answered:
            counts["accepted_unanswered"] += number
        if self.tls:
            counts["accepted_tls"] += number
        if provider.sink is None:
            return
        plain = undo_dot_stuffing(content) if stuffed else content
        identity, hashed, at = text_of(message_id(plain)), digest(plain), time()
        self.accepted += [
            Accepted(
                provider=provider.name,
                recipient=recipient,
                mail_from=text_of(self._mail_from),
                message_id=identity,
                at=at,
                octets=len(plain),
                sha256=hashed,
                source=self._source,
                tls=self.tls,
                answered=answered,
                content=plain if provider.keep_content else None,
            )
            for recipient in self._recipients
        ]

    # --- refusals ---

    def _trouble(self, moment: Moment, now: float) -> Trouble | None:
        if not (self._manners.troubles and self._recipients):
            return None
        return self._provider.trouble(moment, self._recipients[0].lower(), now)

    def _struck(self, trouble: Trouble) -> Answer:
        if trouble.reply:
            return self._refused(trouble.reply, Step.CLOSE if trouble.closes else Step.READ)
        self._tally.counts["hung_up"] += 1
        return Answer("", Step.ABORT)

    def _refused(self, line: str, step: Step = Step.READ) -> Answer:
        self._tally.counts["bounced" if line.startswith("5") else "deferred"] += 1
        return Answer(line, step)

    def _fault(self, kind: str, line: str = "") -> Answer:
        self._tally.protocol_errors[kind] += 1
        return Answer(line)
