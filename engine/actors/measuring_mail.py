"""Counts the envelopes of an engine by state: those of each class, and of the campaigns that are under way.

The spool keeps a row of counts for each campaign; they are read in pages. Classes are three, so their numbers
are all there is; campaigns come and go, and only the largest that still have something to do are told, the
others as one. Touches: reads of the spool.
"""

from heapq import nlargest

import trio

from engine.actors.parts import Parts
from engine.model.content import MessageClass
from engine.mta.spool.api import STATE_OF_OUTCOME, StateCounts
from engine.observe.metrics import Family, Labels, counter, gauge

FINAL = tuple(STATE_OF_OUTCOME.values())
OPEN = ("deferred", "ambiguous", "quarantined")
CAMPAIGNS_SHOWN = 50  # with nine states each they are 450 series
CAMPAIGNS_PER_PASS = 50  # 10 us each; the first time 200, since its content is read
OTHER = "other"


async def mail_families(parts: Parts) -> list[Family]:
    """All envelopes that the spool ever took, by class and state."""
    accepted: dict[Labels, float] = {(each.value,): 0.0 for each in MessageClass}
    finished: dict[Labels, float] = {(each.value, state): 0.0 for each in MessageClass for state in FINAL}
    unfinished: dict[Labels, float] = {(each.value, state): 0.0 for each in MessageClass for state in OPEN}
    doubtful: dict[Labels, float] = {(each.value,): 0.0 for each in MessageClass}
    under_way: dict[int, StateCounts] = {}
    for number, campaign in enumerate(parts.spool.campaigns(), 1):
        counts = parts.spool.counts(campaign)
        of_class = parts.standing(campaign).message_class.value
        accepted[of_class,] += counts.accepted
        doubtful[of_class,] += counts.was_ambiguous
        for state in FINAL:
            finished[of_class, state] += getattr(counts, state)
        for state in OPEN:
            unfinished[of_class, state] += getattr(counts, state)
        if _open(counts):
            under_way[campaign] = counts
        if number % CAMPAIGNS_PER_PASS == 0:
            await trio.lowlevel.checkpoint()
    return [
        counter("emass_envelopes_accepted_total", "Envelopes that the spool took.", accepted, "class"),
        counter(
            "emass_envelopes_finished_total", "Envelopes that are over, by end.", finished, "class", "state"
        ),
        gauge(
            "emass_envelopes_unfinished",
            "Envelopes in the spool: deferred (waiting, tried or not), ambiguous (held) or quarantined.",
            unfinished,
            "class",
            "state",
        ),
        counter(
            "emass_envelopes_ambiguous_total",
            "Envelopes of which it was unknown, for a while or still, whether they were taken.",
            doubtful,
            "class",
        ),
        gauge(
            "emass_campaign_envelopes",
            f"Envelopes of the {CAMPAIGNS_SHOWN} campaigns with most to do, and of the others with any.",
            _by_campaign(under_way),
            "campaign",
            "state",
        ),
    ]


def _open(counts: StateCounts) -> int:
    return counts.deferred + counts.ambiguous + counts.quarantined


def _by_campaign(under_way: dict[int, StateCounts]) -> dict[Labels, float]:
    shown = set(nlargest(CAMPAIGNS_SHOWN, under_way, key=lambda each: (_open(under_way[each]), each)))
    found: dict[Labels, float] = {}
    for campaign, counts in under_way.items():
        name = str(campaign) if campaign in shown else OTHER
        for state in (*FINAL, *OPEN):
            found[name, state] = found.get((name, state), 0.0) + getattr(counts, state)
    return found
