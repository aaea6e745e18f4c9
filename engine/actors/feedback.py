"""From one connection's answers to whoever decides about its path: the sense organ of the control loop.

Counts what was answered in time; hands what was refused to the path's governor (rate, window), to the
provider's circuit breaker and to its reactions, and does what these say: the path rests, a campaign or
a sending domain is held at this provider. Each is noted as an event with its reason. While the breaker
is open a provider's word on addresses is not taken: it refuses too much to be believed, so such an
envelope is tried again later instead of being given up. Nothing here waits or fails.
"""

import trio
from msgspec.structs import replace

from engine.actors.memory import PathMemory
from engine.actors.parts import Parts
from engine.model.category import Category, Group, Key
from engine.model.disposition import DelayReason, Outcome
from engine.model.event import Adapted
from engine.model.reply import Reply, TransportFailure, Verb
from engine.mta.policy.classify import Verdict
from engine.mta.policy.holds import Hold, Subject
from engine.mta.policy.reactions import Reaction, ReactionKind

_SUBJECTS = {
    ReactionKind.HOLD_DOMAIN: Subject.DOMAIN,
    ReactionKind.HOLD_CAMPAIGN: Subject.CAMPAIGN,
    ReactionKind.HOLD_WORKSPACE: Subject.WORKSPACE,
}


class Feedback:
    """What one path's connections report to."""

    __slots__ = ("_campaign", "_count", "_memory", "_parts", "_seconds")

    def __init__(self, parts: Parts, memory: PathMemory) -> None:
        self._parts = parts
        self._memory = memory
        self._campaign = 0
        self._count = 0
        self._seconds = 0.0

    def delivered(self, now: float, campaign: int, count: int, seconds: float) -> None:
        """`count` messages had a good answer; `seconds` is the sum of their times on the wire.

        They are only counted here; `flush` tells of them, before anything else is told and when the site
        looks: several calls for each message would cost more than the message's own accounting.
        """
        if campaign != self._campaign:
            self.flush(now)
            self._campaign = campaign
        self._count += count
        self._seconds += seconds
        if self._memory.governor.asking:  # this is the answer that it waits for: go on at once
            self.flush(now)

    def flush(self, now: float) -> None:
        """Tell what was counted."""
        count = self._count
        if not count:
            return
        memory, provider = self._memory, self._memory.provider
        asking = memory.governor.asking
        memory.governor.delivered(now, count, self._seconds)
        if asking:
            memory.publish_changes(now)
        if provider.breaker.answered(now, count):
            self._note_breaker(now)
        provider.reactions.attempted(now, self._campaign, count)
        self._count = 0
        self._seconds = 0.0

    def refused(self, verdict: Verdict, text: str, campaign: int) -> Verdict:
        """A message was refused. Returns the verdict, softened where the provider is not to be believed."""
        now = trio.current_time()
        self.flush(now)
        memory, provider = self._memory, self._memory.provider
        if provider.breaker.count(now, verdict.group is Group.SENDER):
            self._note_breaker(now)
        provider.reactions.attempted(now, campaign)
        if verdict.category is Category.RATE_LIMITED and verdict.key in (Key.IP, Key.NONE):
            self._slow(now, verdict, text)
        elif verdict.category is not Category.RATE_LIMITED:
            self._memory.governor.delivered(now)  # an answer like any other, for the rate
        standing = self._parts.standing(campaign)
        reaction = provider.reactions.observe(
            now,
            category=verdict.category,
            key=verdict.key,
            action=verdict.action,
            rule=verdict.rule,
            text=text,
            campaign=campaign,
            sending_domain=standing.sending_domain,
            workspace=standing.workspace,
            retry_after_seconds=verdict.retry_after_seconds,
            for_now=text.startswith("4"),
        )
        if reaction is not None:
            self._react(now, reaction, campaign)
        memory.publish_changes(now)
        final = verdict.outcome is Outcome.BOUNCED and verdict.group is Group.ADDRESS
        if final and not provider.breaker.hard_allowed(now):
            return replace(verdict, outcome=Outcome.DEFERRED, reason=DelayReason.NOT_BELIEVED)
        return verdict

    def not_served(
        self, trouble: Reply | TransportFailure, verb: Verb, open_connections: int, mx_host: str
    ) -> Verdict:
        """A connection was turned away before it served anything, or closed on us."""
        now = trio.current_time()
        self.flush(now)
        governor = self._memory.governor
        if isinstance(trouble, TransportFailure):
            verdict = self._parts.judge.failure(trouble)
        else:
            verdict = self._parts.judge.reply(verb, trouble, mx_host=mx_host)
        text = str(trouble)
        if verdict.category is Category.REPUTATION_BLOCK:
            return self.refused(verdict, text, 0)
        if open_connections or verdict.category is Category.RATE_LIMITED:
            governor.connection_refused(now, open_connections, verdict.rule, text)
            self._memory.turned_away(now)
        self._memory.publish_changes(now)
        return verdict

    def closed(self, trouble: Reply | TransportFailure, open_connections: int) -> None:
        """A session that had served broke off with a message under way."""
        now = trio.current_time()
        self.flush(now)
        self._memory.governor.closed_mid_session(now, open_connections, "", str(trouble))
        self._memory.publish_changes(now)

    def _slow(self, now: float, verdict: Verdict, text: str) -> None:
        self._memory.governor.rate_limited(
            now, rule=verdict.rule, text=text, retry_after_seconds=verdict.retry_after_seconds
        )

    def _react(self, now: float, reaction: Reaction, campaign: int) -> None:
        memory, provider, parts = self._memory, self._memory.provider, self._parts
        until = now + reaction.seconds
        match reaction.kind:
            case ReactionKind.REST_PATH:
                memory.governor.reputation(now, rule=reaction.rule, text=reaction.reason)
                if until <= provider.rest_until:
                    return
                provider.rest_until, provider.rest_reason = until, reaction.reason
                self._note("rest", reaction, 0)
            case ReactionKind.HOLD_DOMAIN | ReactionKind.HOLD_CAMPAIGN | ReactionKind.HOLD_WORKSPACE:
                subject = _SUBJECTS[reaction.kind]
                if parts.holds.put(Hold(provider.name, subject, reaction.subject, until, reaction.reason)):
                    self._note("hold", reaction, campaign)
            case ReactionKind.SLOW | ReactionKind.RECONNECT | ReactionKind.NONE:
                pass  # the governor has heard of it, or there is nothing to do

    def _note_breaker(self, now: float) -> None:
        breaker, provider = self._memory.provider.breaker, self._memory.provider
        state = breaker.state(now).value
        reason = f"{state}: {breaker.reason}" if breaker.reason else state
        self._parts.note(Adapted(self._memory.key, provider.name, "breaker", None, None, reason))

    def _note(self, knob: str, reaction: Reaction, campaign: int) -> None:
        self._parts.note(
            Adapted(
                self._memory.key,
                self._memory.provider.name,
                knob,
                None,
                reaction.seconds,
                reaction.reason,
                reaction.rule,
                campaign=campaign,
            )
        )
