"""Finds the first rule that fits an answer, without trying them all.

Every phrase of every rule hangs on its rarest word; the words of a text fetch the few phrases that can
fit at all, and only those are tried, in the order of the rules. What rules ask of provider, verb and
codes is worked out once for each combination and kept. All tables are bounded; regular expressions are
compiled when first needed. Pure, and safe on any text: patterns were checked when they were loaded.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator

from msgspec import Struct

from engine.config.replies import BlockList, ReplyRule, ReplyRules
from engine.model.category import TREATMENTS, Group, Key
from engine.model.reply import Verb
from engine.mta.policy.reply_words import Enhanced, Words, fold, normalise

GAP_WORDS = 4  # what `...` may stand for: "user <name> in this domain is unknown"
MEMO_WORDS_MAX = 20_000  # words of real texts: a few thousand; ids with digits are cut before
MEMO_FACTS_MAX = 1_000  # combinations of provider, verb and codes: a few hundred
PHRASES_TRIED_MAX = 400  # a text that names everything is no answer; the codes decide then
SESSION_VERBS = frozenset(
    {Verb.CONNECT, Verb.BANNER, Verb.EHLO, Verb.HELO, Verb.STARTTLS, Verb.TLS, Verb.AUTH, Verb.MAIL}
)
_ABOUT_RECIPIENT = frozenset({Group.ADDRESS, Group.FULL, Group.REFUSED})
FIRST_CJK = "\u2e80"  # from here on words have no spaces between them


# Words that most answers hold, whatever they mean: poor handles for a phrase.
_COMMON = frozenset(
    (
        *("a", "an", "and", "are", "at", "be", "been", "by", "for", "from", "has", "have", "in", "is", "it"),
        *(
            "not",
            "of",
            "on",
            "or",
            "that",
            "the",
            "this",
            "to",
            "was",
            "with",
            "you",
            "your",
            "please",
            "see",
        ),
        *("account", "address", "email", "host", "ip", "mail", "mailbox", "message", "recipient", "rejected"),
        *("sender", "server", "user"),
    )
)
_COMMON_WEIGHT = 200  # more than any other word has phrases


def _common(word: str) -> int:
    return _COMMON_WEIGHT if word in _COMMON else 0


class Facts(Struct, frozen=True):
    """What an answer says besides its words."""

    provider: str = ""
    verb: Verb | None = None
    code: int | None = None
    enhanced: Enhanced | None = None


class Hits(Struct, frozen=True):
    """What the words of a text fetched: entries to try, block lists and a provider that it names."""

    entries: list[int]
    lists: tuple[BlockList, ...] = ()
    provider: str = ""


class Match(Struct, frozen=True):
    """The rule that decided and the words that made it; `lists` are the block lists that the text names."""

    rule: ReplyRule | None
    span: str
    lists: tuple[BlockList, ...]


class _Phrase:
    """One phrase: plain words are compared as text, others by a small regex compiled late."""

    __slots__ = ("_pattern", "plain", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        if max(source) > FIRST_CJK:
            self.plain = source  # no spaces between words there
        else:
            self.plain = "" if any(sign in source for sign in "*|") or "..." in source else f" {source} "
        self._pattern: re.Pattern[str] | None = None

    def find(self, text: str) -> str | None:
        if self.plain:
            return self.source if self.plain in text else None
        if self._pattern is None:
            self._pattern = re.compile(_regex(self.source))
        found = self._pattern.search(text)
        return found[0].strip() if found else None


def _regex(phrase: str) -> str:
    parts = []
    for word in phrase.split(" "):
        if word == "...":
            parts.append(rf"(?: [^ |]+){{0,{GAP_WORDS}}}?")
        else:
            choices = [
                re.escape(choice[:-1]) + "[^ ]{0,40}" if choice.endswith("*") else re.escape(choice)
                for choice in word.split("|")
            ]
            parts.append(f" (?:{'|'.join(choices)})")
    return "".join(parts) + "(?= )"


class _Entry:
    """A phrase of `any` with its rule's number, or a rule without such phrases."""

    __slots__ = ("number", "phrase")

    def __init__(self, number: int, phrase: _Phrase | None) -> None:
        self.number, self.phrase = number, phrase


class Matcher:
    """Rules made ready. Not for several threads at once."""

    def __init__(self, rules: ReplyRules) -> None:
        self.rules = rules.rules
        self._lists = rules.lists
        self._entries: list[_Entry] = []
        self._all: list[tuple[_Phrase, ...]] = []
        self._unless: list[tuple[_Phrase, ...]] = []
        self._patterns: dict[int, re.Pattern[str]] = {}
        anchored: list[tuple[str, int]] = []
        self._wordless: list[int] = []  # entries
        for number, rule in enumerate(self.rules):
            any_of = rule.any or rule.all[:1]
            self._all.append(tuple(_Phrase(fold(p)) for p in (rule.all if rule.any else rule.all[1:])))
            self._unless.append(tuple(_Phrase(fold(p)) for p in rule.unless))
            for phrase in map(fold, any_of):
                anchored.append((phrase, len(self._entries)))
                self._entries.append(_Entry(number, _Phrase(phrase)))
            if not any_of:
                self._wordless.append(len(self._entries))
                self._entries.append(_Entry(number, None))
        self._list_base = len(self._entries)
        for number, listing in enumerate(self._lists):
            for phrase in map(fold, listing.words):
                anchored.append((phrase, len(self._entries)))
                self._entries.append(_Entry(number, _Phrase(phrase)))
        self._mark_base = len(self._entries)
        self._marked = rules.providers
        for number, provider in enumerate(rules.providers):
            for phrase in map(fold, provider.marks):
                anchored.append((phrase, len(self._entries)))
                self._entries.append(_Entry(number, _Phrase(phrase)))
        self._exact: dict[str, list[int]] = {}
        self._beginnings: dict[str, list[int]] = {}
        self._cjk: list[tuple[str, int]] = []
        self._index(anchored)
        self._lengths = sorted({len(beginning) for beginning in self._beginnings})
        vocabulary = set(self._exact) | {
            choice.rstrip("*")
            for phrase, _ in anchored
            for word in phrase.split(" ")
            for choice in word.split("|")
        }
        self.hosts = frozenset(word for word in vocabulary if "." in word.strip("."))
        self.marks = frozenset(word for word in vocabulary if not word.isalpha())
        self._memo_words: dict[str, tuple[int, ...]] = {}
        self._memo_facts: dict[Facts, tuple[frozenset[int], list[int]]] = {}

    def _index(self, anchored: list[tuple[str, int]]) -> None:
        counts: Counter[str] = Counter()
        for phrase, _ in anchored:
            counts.update({choice for word in phrase.split(" ") for choice in word.split("|")})
        for phrase, entry in anchored:
            if max(phrase) > FIRST_CJK:
                self._cjk.append((phrase, entry))
                continue
            words = [word.split("|") for word in phrase.split(" ") if word != "..."]
            # The rarest word fetches the phrase least often in vain.
            best = min(words, key=lambda choices: sum(counts[one] + _common(one) for one in choices))
            for choice in best:
                table = self._beginnings if choice.endswith("*") else self._exact
                table.setdefault(choice.rstrip("*"), []).append(entry)

    def read(self, text: str) -> Words:
        """The text normalised with the names that these rules know kept in it."""
        return normalise(text, self.hosts, self.marks)

    def look(self, text: str) -> Hits:
        """What a normalised text may be about: entries to try, block lists and a provider that it names."""
        entries: set[int] = set()
        memo = self._memo_words
        for word in text.split():
            found = memo.get(word)
            if found is None:
                found = self._look_up(word)
            if found:
                entries.update(found)
        if not text.isascii():
            entries.update(entry for phrase, entry in self._cjk if phrase in text)
        ordered = sorted(entries)
        lists = bisect_left(ordered, self._list_base)
        if lists == len(ordered):
            return Hits(ordered)
        marks = bisect_left(ordered, self._mark_base, lists)
        named = dict.fromkeys(self._found(ordered[lists:marks], text))
        provider = next(self._found(ordered[marks:], text), None)
        return Hits(
            ordered[:lists],
            tuple(self._lists[number] for number in named),
            self._marked[provider].name if provider is not None else "",
        )

    def match(self, text: str, hits: Hits, facts: Facts) -> Match:
        """The first rule that fits, and why; `rule` is None when none does."""
        rule, span = next(self.matching(text, hits, facts), (None, ""))
        return Match(rule, span, hits.lists)

    def matching(self, text: str, hits: Hits, facts: Facts) -> Iterator[tuple[ReplyRule, str]]:
        """Every rule that fits, with the words that made it, in the order of the rules."""
        allowed, wordless = self._admitted(facts)
        tried, decided = 0, -1
        for entry_number in sorted(hits.entries + wordless) if wordless else hits.entries:
            entry = self._entries[entry_number]
            number = entry.number
            if number == decided or number not in allowed:
                continue
            rule = self.rules[number]
            if rule.listed and not hits.lists:
                continue
            words: str | None = ""
            if entry.phrase is not None:
                tried += 1
                words = entry.phrase.find(text) if tried <= PHRASES_TRIED_MAX else None
            if words is not None and (span := self._rest(number, rule, text, words)) is not None:
                decided = number
                yield rule, span

    def _found(self, entries: Iterable[int], text: str) -> Iterator[int]:
        for entry_number in entries:
            entry = self._entries[entry_number]
            if entry.phrase is not None and entry.phrase.find(text) is not None:
                yield entry.number

    def _rest(self, number: int, rule: ReplyRule, text: str, span: str) -> str | None:
        """The matched words when the rule's other conditions hold, too."""
        for phrase in self._all[number]:
            found = phrase.find(text)
            if found is None:
                return None
            span = span or found
        for phrase in self._unless[number]:
            if phrase.find(text) is not None:
                return None
        if rule.pattern:
            pattern = self._patterns.get(number)
            if pattern is None:
                pattern = self._patterns[number] = re.compile(rule.pattern)
            match = pattern.search(text)
            if match is None:
                return None
            span = span or match[0].strip()
        return span

    def _look_up(self, word: str) -> tuple[int, ...]:
        entries = list(self._exact.get(word, ()))
        for length in self._lengths:
            if length > len(word):
                break
            entries += self._beginnings.get(word[:length], ())
        if len(self._memo_words) >= MEMO_WORDS_MAX:
            self._memo_words.clear()
        found = self._memo_words[word] = tuple(entries)
        return found

    def _admitted(self, facts: Facts) -> tuple[frozenset[int], list[int]]:
        """The rules whose facts fit, and which of their entries need no word."""
        known = self._memo_facts.get(facts)
        if known is None:
            allowed = frozenset(n for n, rule in enumerate(self.rules) if fits(rule, facts))
            wordless = [e for e in self._wordless if self._entries[e].number in allowed]
            if len(self._memo_facts) >= MEMO_FACTS_MAX:
                self._memo_facts.clear()
            known = self._memo_facts[facts] = (allowed, wordless)
        return known


def fits(rule: ReplyRule, facts: Facts) -> bool:
    """Whether provider, verb and codes are what the rule asks for. What a session's verb was told is
    never about the recipient, whatever the words."""
    if rule.provider and rule.provider != facts.provider:
        return False
    if rule.verbs and facts.verb not in rule.verbs:
        return False
    if facts.verb in SESSION_VERBS and TREATMENTS[rule.category].group in _ABOUT_RECIPIENT:
        return False
    if rule.codes and not any(_code_fits(code, facts.code) for code in rule.codes):
        return False
    return not rule.enhanced or any(_enhanced_fits(one, facts.enhanced) for one in rule.enhanced)


def _code_fits(wanted: str, code: int | None) -> bool:
    if code is None:
        return False
    return code // 100 == int(wanted[0]) if wanted.endswith("xx") else code == int(wanted)


def _enhanced_fits(wanted: str, enhanced: Enhanced | None) -> bool:
    if enhanced is None:
        return False
    for part, value in zip(wanted.split("."), enhanced, strict=True):
        if part == "x":
            continue
        low, _, high = part.partition("-")
        if not int(low) <= value <= int(high or low):
            return False
    return True


def list_key(lists: Iterable[BlockList]) -> Key | None:
    """What the named block lists list: the narrowest thing, so that an IP is not paused for a URL."""
    kinds = {listing.kind for listing in lists}
    return next((kind for kind in (Key.URL, Key.DOMAIN, Key.IP) if kind in kinds), None)
