"""One SMTP session: leases in, dispositions out, octets in between.

The shell around the sans-IO client. Once `dialler` has a host that is Ready, it goes round: take what
was leased, compose ahead (at most a few messages, within the engine's memory for them), have them
signed, submit, write all that may be written, read, settle. Decides when to ask its site for more and
when it is of no more use. Touches: one socket, the signers, the spooler.

On a stop it takes no more, finishes what is on the wire, returns the rest and says QUIT. On a crash
its observer (`ended`) settles what its holder still holds: ambiguous on the wire, else returned.
"""

from collections.abc import Callable
from typing import Any

import structlog
import trio

from engine.actors.dialler import Crowded, Dialler, Reached, located, requiretls_problem
from engine.actors.feedback import Feedback
from engine.actors.gate import Gate
from engine.actors.handover import settle_remains
from engine.actors.holder import Holder
from engine.actors.messages import ConnectionEnded, ConnectionReady, Settle, Want
from engine.actors.parts import Parts
from engine.actors.preparing import PREPARE_BELOW, Fitness, Preparing
from engine.actors.terms import Terms
from engine.actors.transcript import Dispositions
from engine.model.disposition import DelayReason
from engine.model.envelope import Envelope
from engine.model.reply import FailureKind, Reply, TransportFailure, Verb
from engine.mta.net.addresses import is_public
from engine.mta.net.network import Wire
from engine.mta.net.session import SessionError
from engine.mta.policy.lease import LeaseSize
from engine.mta.proto.smtp_client import SmtpClient
from engine.mta.proto.smtp_options import Closed, Event, Result, ResultKind, Transaction
from engine.mta.spool.api import LEASE_ENVELOPES_MAX
from engine.runtime.dynamic import EndObserver
from engine.runtime.mailbox import MailboxClosed
from engine.runtime.ref import Ref
from engine.runtime.spec import Context, Start

MAILBOX_CAPACITY = 8  # bells only
SHUTDOWN_SECONDS = 15.0  # for the last replies; then open final dots are ambiguous
SETTLE_COUNT = 32  # dispositions told at once
SETTLE_SECONDS = 0.05
DEADLINE_SLACK_SECONDS = 1.0  # moving a deadline costs 2 us: it moves once a second

_FINAL_VERBS = frozenset({Verb.CONTENT, Verb.BDAT})  # what follows a whole message

log = structlog.get_logger("connection")


def connection(site: Any, holder: Holder, parts: Parts, peer: Callable[[str], Ref[Any]]) -> Start:
    """A connection for `site` (its route, source, memory are read as they stand)."""

    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await Connection(site, holder, parts, peer, context).live()

    return start


def ended(
    parts: Parts, holder: Holder, site: Ref[Any], spooler: Ref[Any], leave: Callable[[], None]
) -> EndObserver:
    """The observer of a connection: gives up its place (`leave`), settles its remains, tells its site."""

    def observer(name: str, error: Exception | None) -> None:
        leave()
        crashed = error is not None
        settle_remains(parts, holder, spooler, crashed=crashed, reason=DelayReason.CONNECTION_LOST)
        site.try_tell(ConnectionEnded(name, holder.reached, holder.served, holder.trouble, crashed))

    return observer


class Connection:
    """One incarnation: one session."""

    def __init__(
        self,
        site: Any,
        holder: Holder,
        parts: Parts,
        peer: Callable[[str], Ref[Any]],
        context: Context[Any],
    ) -> None:
        self._parts = parts
        self._holder = holder
        self._memory = site.memory
        self._shaping = site.memory.shaping
        self._feedback: Feedback = site.feedback
        self._route = site.route
        self._source = site.source
        self._site: Ref[Any] = site.ref
        self._signers = peer("signers")
        self._spooler = peer("spooler")
        self._name = context.name
        self._mailbox = context.mailbox
        self._ref: Ref[Any] = context.ref
        self._stop = context.stop
        self._open: dict[int, tuple[int, Envelope, float, int]] = {}  # lease, envelope, since, octets
        self._done = Dispositions(
            parts, site.route.site, site.source.name, Terms(parts, self._memory), self._feedback
        )
        self._settled_at = 0.0
        self._asked = False  # a Want is out
        self._answers = 0  # of the holder's, that we have seen
        self._lease = LeaseSize(LEASE_ENVELOPES_MAX)
        self._client: SmtpClient
        self._session: Wire
        self._counted: Callable[[str], None]
        self._every = parts.timelines.every
        self._dialled = (0.0, 0.0, 0.0)  # begin and end of the dial, seconds of TLS in it
        self._scope = trio.CancelScope()
        self._deadline_verb: Verb | None = None
        self._deadline_fresh_until = 0.0
        self._deadline_heard = 0
        self._now = 0.0  # as of the last look at the clock: of this round or the one before
        self._closed: Closed | None = None
        self._leaving = False
        self._left = 0  # messages this connection may still take

    async def live(self) -> None:
        began = trio.current_time()
        reached = await self._dial()
        if isinstance(reached, Crowded):  # nobody is to blame: other sites have the places at its addresses
            self._memory.turned_away(trio.current_time())
            return
        if not isinstance(reached, Reached):
            self._holder.trouble = reached
            return
        self._client, self._session = reached.client, reached.session
        self._counted = reached.counted
        self._dialled = (began, trio.current_time(), reached.tls_seconds)
        self._prepared = Preparing(
            self._parts,
            self._holder,
            self._memory,
            self._done,
            Gate(self._parts, self._source.name, self._route.site),
            Fitness(
                public=is_public(reached.address),
                tls_problem=lambda content: requiretls_problem(content, reached),
            ),
            self._signers,
            self._ref,
        )
        self._known = self._client.learned
        self._done.mx_host = reached.host.name
        self._done.tls = self._client.tls
        self._parts.under_way[self._name] = self._under_way
        try:
            await self._converse()
        except trio.Cancelled:
            # Stopped firmly: the client knows which final dots are open; what is behind them was not sent.
            if not self._client.closed:
                cut_off = TransportFailure(FailureKind.STOPPED, self._client.awaited or Verb.IDLE)
                self._handle(self._client.connection_lost(cut_off))
            raise
        finally:
            del self._parts.under_way[self._name]
            self._tell_done()  # a crash must not take along what has its answer
            reached.close()
            self._remember()
            self._parts.prepared_octets -= self._prepared.octets
            self._parts.prepared_octets -= sum(octets for _, _, _, octets in self._open.values())

    def _under_way(self) -> list[Envelope]:
        """What the protocol has and no answer yet."""
        return [envelope for _, envelope, _, _ in self._open.values()]

    async def _dial(self) -> Reached | Reply | TransportFailure | Crowded | None:
        """A stop cuts it short: nothing is on the wire yet that anybody would wait for."""
        relay = self._parts.egress.relay_at(self._route.site)
        credentials = None if relay is None else relay.credentials
        dialler = Dialler(self._parts, self._memory, self._source, self._stop, credentials)
        reached: Reached | Reply | TransportFailure | Crowded | None = None
        try:
            async with trio.open_nursery() as nursery:

                async def heed_stop() -> None:
                    await self._stop.wait()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(heed_stop)
                reached = await dialler.connect(self._route)
                nursery.cancel_scope.cancel()
        except BaseException:
            if isinstance(reached, Reached):  # killed between two steps: nobody else would close it
                reached.close()
            raise
        return reached

    # --- conversing --------------------------------------------------------------------------------------

    async def _converse(self) -> None:
        self._holder.reached = True
        self._left = self._client.mail_max
        self._site.try_tell(ConnectionReady(self._name))
        self._now = trio.current_time()
        while self._closed is None:
            with trio.CancelScope() as self._scope:
                self._deadline_verb = None
                await self._rounds()
            if self._scope.cancelled_caught:
                self._time_is_up()
        if not (self._leaving and self._closed.clean):  # we said goodbye: its answer is no trouble
            self._holder.trouble = self._closed.reply or self._closed.failure
        self._return_unsent()
        await self._settle()

    async def _rounds(self) -> None:
        """Write what may go, compose the next messages while the peer works, read, and again."""
        client, session, holder = self._client, self._session, self._holder
        while self._closed is None:
            if self._stop.is_set() and not self._leaving:
                self._leave()
            if self._memory.hushed(self._now):
                self._return_unsent()  # what we hold would be refused as well
            elif self._prepared:
                self._submit()
            output = client.next_output()
            try:
                if output is not None:
                    await session.send(output, client.handed_over)
                holder.current = None
                if not self._asked or holder.answers != self._answers:
                    self._ask_for_more()
                if holder.granted and len(self._prepared) <= PREPARE_BELOW:
                    await self._prepared.prepare(self._left, busy=bool(self._open))
                awaited = client.awaited
                if awaited is None:
                    await self._rest()
                    continue
                if awaited is not self._deadline_verb or (
                    self._now > self._deadline_fresh_until and client.heard != self._deadline_heard
                ):
                    self._set_deadline(awaited, self._now)
                data = await session.receive()
                now = self._now = trio.current_time()
            except SessionError as error:
                self._handle(client.connection_lost(located(error.failure, client.awaited or Verb.IDLE)))
                break
            self._handle(client.receive_data(data))
            if self._done.count >= SETTLE_COUNT or (
                self._done.count and now - self._settled_at > SETTLE_SECONDS
            ):
                await self._settle()

    async def _rest(self) -> None:
        """Nothing is on the wire: settle, then wait for a lease, a signature or the end."""
        if self._done.count:
            await self._settle()
        if self._leaving or (not self._left and not self._prepared):
            self._client.quit()  # the next round writes it, and waits for the answer
            return
        if self._prepared.ready:
            return
        working = bool(self._prepared)
        if not working:
            self._ask_for_more()  # all that was leased has ended here: expired, or not to be sent
            if self._asked:
                self._lease.run_dry()
            self._set_deadline(Verb.IDLE, trio.current_time())
        try:
            await self._mailbox.get_batch(MAILBOX_CAPACITY)
        except MailboxClosed:
            self._leave()
            return
        self._now = trio.current_time()
        if not working and not self._holder.granted:
            return
        if not self._prepared and not self._open:
            self._look_for_a_close()

    def _look_for_a_close(self) -> None:
        """Before work on a connection that rested: the peer may have said 421 or gone."""
        heard = self._session.receive_nowait()
        if heard is not None:
            self._handle(self._client.receive_data(heard))

    def _leave(self) -> None:
        self._leaving = True
        self._client.quit()
        self._return_unsent()

    def _time_is_up(self) -> None:
        verb = self._deadline_verb or Verb.IDLE
        if verb is Verb.IDLE and not self._open:
            self._leave()
            return
        failure = TransportFailure(FailureKind.TIMEOUT, verb, "no answer in time")
        self._handle(self._client.connection_lost(failure))

    def _set_deadline(self, verb: Verb, now: float) -> None:
        """Move the scope's deadline; in the same verb that is done once in DEADLINE_SLACK_SECONDS.

        A piece of a reply moves nothing: whoever dribbles octets would stay for ever.
        """
        waiting = self._client.time_limit
        if waiting is None:
            seconds = self._shaping.idle_timeout_seconds
        elif verb in _FINAL_VERBS:
            seconds = self._shaping.final_timeout_seconds or waiting[1]
        else:
            seconds = self._shaping.reply_timeout_seconds or waiting[1]
        self._deadline_verb = verb
        self._deadline_heard = self._client.heard
        self._deadline_fresh_until = now + DEADLINE_SLACK_SECONDS
        self._scope.deadline = now + seconds

    # --- work in -----------------------------------------------------------------------------------------

    def _ask_for_more(self) -> None:
        """Prefetch: the next lease is ordered while half of this one is still to do."""
        holder = self._holder
        if self._asked and holder.answers != self._answers:
            self._answers = holder.answers
            self._asked = False  # what was asked for has come, or nothing of it was left
            if holder.granted:
                self._lease.granted(trio.current_time(), holder.served)
        waiting = len(holder.granted) + len(self._prepared)
        if self._asked or self._leaving or waiting > self._lease.size // 2:
            return
        count = min(self._lease.size, self._left - waiting)
        if count > 0 and self._site.try_tell(Want(self._name, count)):
            self._asked = True

    def _submit(self) -> None:
        client, holder = self._client, self._holder
        room = 0 if self._leaving else client.room()
        while room > 0:
            room -= 1
            item = self._prepared.next_ready()
            if item is None:
                break
            envelope = item.envelope
            key = envelope.spool_id
            self._counted(envelope.domain)
            holder.wire.add(key)
            holder.current = key
            self._open[key] = (item.lease_id, envelope, self._now, item.octets)
            if self._every and not key % self._every:
                self._parts.timelines.submitted(key, self._dialled)
            self._left -= 1
            events = client.submit(
                Transaction(
                    key=key,
                    mail_from=item.draft.mail_from,
                    recipient=item.draft.recipient,
                    content=item.content,
                    smtputf8=item.draft.smtputf8,
                    require_tls=item.draft.require_tls,
                    dotted=item.draft.dotted,
                    eight_bit=item.draft.eight_bit,
                )
            )
            if events:
                self._handle(events)

    # --- work out ----------------------------------------------------------------------------------------

    def _handle(self, events: list[Event]) -> None:
        blame = True
        count, seconds, campaign = 0, 0.0, 0
        for event in events:
            if isinstance(event, Result):
                lease_id, envelope, since, octets = self._open.pop(event.key)
                self._parts.prepared_octets -= octets
                if self._every and not event.key % self._every:
                    self._parts.timelines.answered(event.key)
                unsent = self._done.add_result(lease_id, envelope, event, self._now - since, blame=blame)
                if event.kind is ResultKind.DELIVERED:
                    if count and envelope.campaign != campaign:
                        self._feedback.delivered(self._now, campaign, count, seconds)
                        count, seconds = 0, 0.0
                    campaign = envelope.campaign
                    count += 1
                    seconds += self._now - since
                self._holder.drop(event.key)  # after it: until then the holder answers for it
                blame = False  # one attempt is counted of a lost connection, not one for all behind it
                if not unsent:
                    self._holder.served += 1
            elif isinstance(event, Closed):
                self._closed = event
        if count:
            self._feedback.delivered(self._now, campaign, count, seconds)

    def _return_unsent(self) -> None:
        """What never reached the client goes back; its lease ends."""
        reason = DelayReason.STOPPING if self._stop.is_set() else DelayReason.CONNECTION_LOST
        self._prepared.return_unsent(DelayReason.RATE_LIMIT if self._memory.hushed(self._now) else reason)

    def _remember(self) -> None:
        """What this connection has learnt helps the next one of its site."""
        learned = self._client.learned
        if learned is not self._known:
            self._memory.verdict = self._memory.verdict.after(self._known, learned)
            self._known = learned

    async def _settle(self) -> None:
        self._remember()
        self._settled_at = trio.current_time()
        message = self._tell_done()
        if message is not None:
            await self._spooler.tell(message)  # full: wait for it

    def _tell_done(self) -> Settle | None:
        """Tell the spooler what is done. The message if it had no room: it is kept where it will look."""
        batches = self._done.take()
        if not batches:
            return None
        message = Settle(batches)
        if self._spooler.try_tell(message):
            return None
        self._parts.unsettled[id(message)] = message
        return message
