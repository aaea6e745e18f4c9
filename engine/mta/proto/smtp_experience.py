"""What one connection knows about its peer's manners, and what a refusal teaches about them.

Starts from the site's `PipeliningVerdict`, answers which forms may be used now, and downgrades them: a
form that is answered oddly is REFUSED for good on this connection, and `verdict` carries that to the
site. Facts behind the rules, from real servers: Haraka takes a message but answers 503 to commands
behind its final dot; Exim crosses return paths when a MAIL follows a failed unit without RSET; some
peers announce PIPELINING and punish it; some announce CHUNKING and do not know BDAT.
"""

import re

from engine.model.reply import Reply, Verb
from engine.mta.proto.smtp_capabilities import Capabilities
from engine.mta.proto.smtp_options import ClientOptions, Knowledge, PipeliningVerdict

TRIAL_WINDOW = 2  # BDAT units in flight until one that overlapped another has come out right

_WORKS = Knowledge.WORKS
_UNTRIED = Knowledge.UNTRIED
_REFUSED = Knowledge.REFUSED

# A refused MAIL that counts messages: OpenSMTPD says "452 4.5.3 ... Too many messages sent" after 100.
_ABOUT_SESSION = re.compile(r"\b(?:per|this|in a) (?:session|connection)\b", re.IGNORECASE)
_ABOUT_FLIGHTS = re.compile(r"pipelin|synchroni[sz]", re.IGNORECASE)  # Postfix, Exim, Sendmail, Haraka
_NOT_HERE = frozenset({500, 502, 503})  # never about a mailbox (RFC 5321 4.2.2)
_NO_BDAT = frozenset({500, 502, 504})


class Experience:
    """Knowledge of one connection. `crossing` and `stepping` are the forms to use now."""

    __slots__ = ("_options", "_overlap", "across", "chunking", "inside", "note", "served", "windows")

    def __init__(self, options: ClientOptions, capabilities: Capabilities) -> None:
        known = options.verdict
        self._options = options
        self.inside = known.inside if capabilities.pipelining and options.pipelining else _REFUSED
        self._overlap = self.inside is not _REFUSED and options.across
        self.across = known.across
        self.chunking = known.chunking if capabilities.chunking and options.chunking else _REFUSED
        self.windows = known.windows
        self.served = known.served
        self.note = known.note

    def verdict(self, capabilities: Capabilities) -> PipeliningVerdict:
        """For the site. What the peer does not announce, or we do not allow, taught us nothing."""
        known, options = self._options.verdict, self._options
        return PipeliningVerdict(
            inside=self.inside if capabilities.pipelining and options.pipelining else known.inside,
            across=self.across,
            chunking=self.chunking if capabilities.chunking and options.chunking else known.chunking,
            windows=self.windows,
            served=self.served,
            note=self.note,
        )

    @property
    def stepping(self) -> bool:
        """One command at a time."""
        return self.inside is _REFUSED

    @property
    def units(self) -> bool:
        """BDAT instead of DATA."""
        return self.chunking is not _REFUSED

    def may_cross(self) -> bool:
        """Commands of the next message may stand behind the final dot of one that has no answer yet."""
        return self._overlap and (
            self.across is _WORKS or (self.across is _UNTRIED and self._seasoned(self.served))
        )

    def window(self) -> int:
        """How many BDAT units may be in flight; 1 = a unit starts when all before it is answered."""
        if not self._overlap or self.windows is _REFUSED:
            return 1
        if self.windows is _WORKS:
            return max(1, self._options.window_messages)
        return min(TRIAL_WINDOW, self._options.window_messages) if self._seasoned(self.served) else 1

    def _seasoned(self, served: int) -> bool:
        return served >= self._options.served_before_across

    def flight_came_back(self, crossed: bool, unit: bool) -> None:
        """All replies of a flight were read and made sense."""
        if self.inside is _UNTRIED:
            self.inside = _WORKS
        if crossed and unit and self.windows is _UNTRIED:
            self.windows = _WORKS
        elif crossed and not unit and self.across is _UNTRIED:
            self.across = _WORKS

    def is_about_form(self, verb: Verb, reply: Reply, *, flight: bool, crossed: bool, unit: bool) -> bool:
        """Whether the first refusal in a transaction is about how we spoke, not about the message.

        Then the form is given up and the envelope is worth sending again in a plainer one. Each answer
        True takes one form away, so a message is sent again at most four times on a connection.
        """
        text = str(reply)
        if crossed and (reply.code in _NOT_HERE or _ABOUT_FLIGHTS.search(text)):
            self.refuse_overlap(unit, text)
            return True
        if flight and (_ABOUT_FLIGHTS.search(text) or (reply.code == 503 and verb is not Verb.MAIL)):
            self.refuse_flights(text)
            return True
        if verb is Verb.BDAT and reply.code in _NO_BDAT:
            self.chunking = _REFUSED
            self.note = text
            return True
        return False

    def is_session_full(self, verb: Verb, reply: Reply) -> bool:
        """Whether the peer took all that it takes in one session; the message is fit for the next one.

        MAIL names no recipient, so x.5.3 ("too many recipients") there counts what went before. Never
        true for a session that carried nothing: a new one would fare no better.
        """
        if verb is not Verb.MAIL or not reply.transient or self.served <= self._options.verdict.served:
            return False
        counts = reply.enhanced is not None and reply.enhanced[1:] == (5, 3)
        return counts or _ABOUT_SESSION.search(reply.text) is not None

    def service_closed(self, reply: Reply, *, flight: bool, crossed: bool, unit: bool) -> None:
        """A 421 that came while a form was on trial, or that names it, is held against the form."""
        named = _ABOUT_FLIGHTS.search(str(reply)) is not None
        if crossed and (named or self.on_trial(unit)):
            self.refuse_overlap(unit, str(reply))
        elif flight and named:
            self.refuse_flights(str(reply))

    def on_trial(self, unit: bool) -> bool:
        """Whether overlapping transactions (units of BDAT, or flights) have not come out right yet."""
        return (self.windows if unit else self.across) is _UNTRIED

    def flight_got_stuck(self, note: str) -> None:
        """Part of a flight was answered and then nothing: held against a peer's first flight only."""
        if self.inside is _UNTRIED:
            self.refuse_flights(note)

    def served_by_bdat(self) -> None:
        self.served += 1
        if self.chunking is _UNTRIED:
            self.chunking = _WORKS

    def refuse_overlap(self, unit: bool, note: str) -> None:
        """Not here: no command behind a final dot, or no second BDAT unit in flight."""
        if unit:
            self.windows = _REFUSED
        else:
            self.across = _REFUSED
        self.note = note

    def refuse_flights(self, note: str) -> None:
        """One command at a time from now on."""
        self.inside = _REFUSED
        self._overlap = False
        self.note = note
