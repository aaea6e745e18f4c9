"""What an operator may do to the control loop: pin a knob, let it go, start anew, lift a hold or a rest.

Each act is kept where it must survive (pins: `controls`), takes effect at once, and is noted as a change
with its author and reason, like the loop's own. An act that makes no sense (an unknown path, a hold that
is not there) raises `Refused` with what would. Touches: the bus table through `controls`.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from math import isfinite

from engine.actors.controls import Pin, TooManyPins
from engine.actors.memory import PathMemory
from engine.actors.parts import Parts
from engine.actors.path import NO_ROUTE
from engine.model.event import Adapted
from engine.mta.policy.governor import Knob
from engine.mta.policy.holds import Subject
from engine.mta.policy.reactions import ReactionKind

TEXT_MAX = 200  # of a reason or an author
NEAREST = 3
RATE_PER_SECOND_MAX = 1_000_000.0
CONNECTIONS_MAX = 10_000
_HOLDS = {
    Subject.DOMAIN: ReactionKind.HOLD_DOMAIN,
    Subject.CAMPAIGN: ReactionKind.HOLD_CAMPAIGN,
    Subject.WORKSPACE: ReactionKind.HOLD_WORKSPACE,
}


class Refused(Exception):
    """The act makes no sense; the message says why, and what would."""


class Author:
    """Who acts, and why: no act without a reason."""

    __slots__ = ("name", "reason")

    def __init__(self, name: str, reason: str) -> None:
        if not reason.strip():
            raise Refused("say why: an act without a reason helps nobody who reads of it later")
        self.name = name[:TEXT_MAX] or "operator"
        self.reason = reason[:TEXT_MAX]

    def __repr__(self) -> str:
        return f"<Author {self.name}: {self.reason}>"


def find_path(parts: Parts, said: str) -> str:
    """The path that an operator means: its name, or its site's or provider's where that is one path."""
    known = [key for key in dict.fromkeys([*parts.paths, *parts.memory]) if not key.startswith(NO_ROUTE)]
    if said in known:
        return said
    short = [key for key in known if said == _provider_of(parts, key) or _is_meant(said, key)]
    if len(short) == 1:
        return short[0]
    if short:
        raise Refused(f"{said!r} has {len(short)} paths, name one: {_some(short)}")
    raise Refused(f"no path is called {said[:TEXT_MAX]!r}; {_nearest(said, known)}")


async def pin(
    parts: Parts, key: str, knob: str, value: float, seconds: float | None, by: Author, now: float
) -> str:
    """Hold `knob` at `value` (for so many seconds); what holds now, in words."""
    which = _knob(knob)
    most = CONNECTIONS_MAX if which is Knob.CONNECTIONS else RATE_PER_SECOND_MAX
    if not isfinite(value) or not 0 < value <= most or (which is Knob.CONNECTIONS and value != int(value)):
        raise Refused(f"{value:g} is no number of {knob}")
    if seconds is not None and not (isfinite(seconds) and seconds > 0):
        raise Refused("the time must be longer than 0 s")
    until = None if seconds is None else parts.clock.now() + seconds
    try:
        await parts.controls.put(Pin(key, which, value, until, by.reason, by.name))
    except (TooManyPins, ValueError) as error:
        raise Refused(str(error)) from error
    memory = parts.memory.get(key)
    if memory is None:
        _note(parts, key, knob, None, value, f"pinned: {by.reason}", by.name)
        return f"{knob} of {key} will be pinned at {value:g} when mail goes there"
    before = _value(memory, which)
    memory.publish_changes(now)
    memory.governor.pin(which, value, now, by.reason)
    after = _quietly(memory, which, now)
    _note(parts, key, knob, before, after, f"pinned: {by.reason}", by.name)
    bounded = "" if after == value else f": its bounds allow no {value:g}"
    return f"{knob} of {key} is pinned at {after:.3g}{bounded}"


async def unpin(parts: Parts, key: str, knob: str, by: Author, now: float) -> str:
    """Let `knob` go ("" = all knobs of the path)."""
    freed = []
    for which in [_knob(knob)] if knob else list(Knob):
        if await parts.controls.remove(key, which) is not None:
            release(parts, key, which, by, now)
            freed.append(which.value)
    if not freed:
        raise Refused(f"{knob or 'nothing'} of {key} is {'not ' if knob else ''}pinned")
    return f"{' and '.join(freed)} of {key} may move again"


def release(parts: Parts, key: str, which: Knob, by: Author, now: float) -> None:
    """A pin that is no longer in the table stops to hold."""
    memory = parts.memory.get(key)
    before = after = None
    if memory is not None:
        before = _value(memory, which)
        memory.publish_changes(now)
        memory.governor.unpin(which, now, by.reason)
        after = _quietly(memory, which, now)
    _note(parts, key, which.value, before, after, f"no longer pinned: {by.reason}", by.name)


async def reset(parts: Parts, key: str, by: Author, now: float) -> str:
    """Forget all that was learnt of a path, its pins and its own rest."""
    memory = parts.memory.get(key)
    if memory is None:
        raise Refused(f"nothing has gone over {key} yet: there is nothing to forget")
    for which in Knob:
        await parts.controls.remove(key, which)
    memory.publish_changes(now)
    before = memory.governor.rate_per_second
    memory.governor.reset(now, by.reason)
    after = _quietly(memory, Knob.RATE, now)
    memory.failures, memory.suspended_until, memory.suspended_why = 0, 0.0, ""
    _note(parts, key, "reset", before, after, f"started anew: {by.reason}", by.name)
    return f"{key} starts anew: {memory.governor!r}"


def lift(parts: Parts, said: str, subject: str, value: str, by: Author, now: float) -> str:
    """End a hold of `subject` `value` at a provider; without a subject, the rests of a provider or path."""
    return _lift_hold(parts, said, subject, value, by, now) if subject else _lift_rest(parts, said, by, now)


def _lift_hold(parts: Parts, provider: str, subject: str, value: str, by: Author, now: float) -> str:
    if subject not in {each.value for each in Subject}:
        raise Refused(f"holds are of a campaign, domain or workspace, not of a {subject!r}")
    hold = parts.holds.lift(provider, Subject(subject), value)
    if hold is None or hold.until <= now:
        standing = [f"{each.subject.value} {each.value} at {each.provider}" for each in parts.holds.all(now)]
        there = f"held are: {_some(standing)}" if standing else "nothing is held anywhere"
        raise Refused(f"{subject} {value} is not held at {provider}; {there}")
    for (name, _), door in parts.providers.items():
        if name == provider:
            door.reactions.lifted(now, _HOLDS[hold.subject], value)
    campaign = int(value) if subject == Subject.CAMPAIGN.value else 0
    reason = f"{subject} {value} is held no longer: {by.reason}"
    parts.note(
        Adapted("", provider, "hold", hold.until - now, None, reason, author=by.name, campaign=campaign)
    )
    return f"{subject} {value} is no longer held at {provider}"


def _lift_rest(parts: Parts, said: str, by: Author, now: float) -> str:
    doors = [door for (name, _), door in parts.providers.items() if name == said]
    lanes = [memory for memory in parts.memory.values() if memory.provider.name == said]
    if not doors:
        memory = parts.memory.get(find_path(parts, said))
        if memory is None:
            raise Refused(f"nothing has gone over {said} yet: it does not rest")
        doors, lanes = [memory.provider], [memory]
    lifted = 0
    for door in doors:
        if door.rest_until > now:
            reason = f"rests no longer: {by.reason}"
            note = Adapted("", door.name, "rest", door.rest_until - now, None, reason, author=by.name)
            parts.note(note)
            door.rest_until, door.rest_reason = 0.0, ""
            door.reactions.lifted(now, ReactionKind.REST_PATH)
            lifted += 1
    asked = 0.0
    for memory in lanes:
        if memory.suspended_until > now:
            _note(parts, memory.key, "rest", memory.suspended_until - now, None, by.reason, by.name)
            memory.suspended_until, memory.suspended_why, memory.failures = 0.0, "", 0
            lifted += 1
        asked = max(asked, memory.governor.paused_until - now)
    if not lifted and asked > 0:
        raise Refused(f"the receiver asked for a pause of {asked:.0f} s more; `reset` forgets it")
    if not lifted:
        quota = next((why for memory in lanes if (why := memory.rest(now)[1])), "")
        raise Refused(f"{said} rests: {quota}; its plan says so" if quota else f"{said} does not rest")
    return f"{said} rests no longer"


def _is_meant(said: str, key: str) -> bool:
    """Whether the site behind a path has this name, or a host of it, or all its hosts in this domain."""
    site = key.partition(">")[2]
    hosts = site.partition("/")[0].split("+")
    return said == site or said in hosts or all(host.endswith(f".{said}") for host in hosts)


def _quietly(memory: PathMemory, which: Knob, now: float) -> float | None:
    """Let what the governor did take effect; its own words for it are left out, ours have the author."""
    memory.governor.take_changes()
    memory.throttle.set_rate(memory.governor.rate_per_second, now)
    return _value(memory, which)


def _value(memory: PathMemory, which: Knob) -> float | None:
    governor = memory.governor
    return float(governor.connections) if which is Knob.CONNECTIONS else governor.rate_per_second


def _knob(said: str) -> Knob:
    try:
        return Knob(said)
    except ValueError:
        raise Refused(f"{said[:TEXT_MAX]!r} cannot be pinned: connections and rate can") from None


def _note(
    parts: Parts, key: str, knob: str, before: float | None, after: float | None, reason: str, author: str
) -> None:
    parts.note(Adapted(key, _provider_of(parts, key), knob, before, after, reason, author=author))


def _provider_of(parts: Parts, key: str) -> str:
    memory, path = parts.memory.get(key), parts.paths.get(key)
    return memory.provider.name if memory is not None else "" if path is None else path.provider


def _nearest(said: str, known: list[str]) -> str:
    if not known:
        return "nothing has been sent anywhere yet"
    sites = {key.partition(">")[2]: key for key in known}
    near = get_close_matches(said, [*known, *sites], NEAREST, 0.4)
    near += [key for key in known if said and said in key]
    return f"known are: {_some(dict.fromkeys(sites.get(name, name) for name in near) or known)}"


def _some(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - NEAREST:,} more" if len(every) > NEAREST else ""
    return ", ".join(every[:NEAREST]) + more
