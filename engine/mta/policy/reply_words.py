"""A receiver's text as plain words: what rules, caches and people compare.

Lower case, no accents, no punctuation, at most TEXT_MAX characters. What differs from recipient to
recipient (addresses, IPs, host names, ids, numbers, dates) goes, so that two answers of one kind are
one text; host names that the rules know (block lists, providers) stay. Codes are taken out and told
apart, a delay that the text asks for is read. Pure; any text of any length gives some words.
"""

import re
import unicodedata

from msgspec import Struct

from engine.config.reply_patterns import TEXT_MAX
from engine.model.reply import Verb

RETRY_SECONDS_MIN = 1.0
RETRY_SECONDS_MAX = 86_400.0  # who says "in a week" means "never"; our own curve decides then
ID_MIN = 8  # characters; shorter marks with digits (s3150, tss04) are codes that providers publish
NUMBER_MAX = 5  # digits; 86400 seconds is a delay, longer ones are ids

STOP = " | "  # stands where a sentence or another reply begins: words on its two sides are not one phrase

Enhanced = tuple[int, int, int]


class Words(Struct, frozen=True):
    """A text made comparable. `text` has a space around every word."""

    text: str
    code: int | None = None
    enhanced: Enhanced | None = None
    verb: Verb | None = None


# Each begins with a set of characters that it must consume: the matcher skips to those, which is what makes
# a text cost microseconds. So texts get a space in front.
_ADDRESS = re.compile(r"[\s<>,;:()\"\[\]][^\s<>@,;:()\"\[\]]{1,64}@[^\s<>@,;:()\"'\]]{1,255}")
_URL = re.compile(r"\bhttps?:\s?//([^\s/?#<>\"'():]{0,255})[^\s<>\"')]{0,500}")
_QUERY_REFUSED = re.compile(r"\b127\.255\.255\.\d{1,3}\b")
_IP = re.compile(r"[^\w.]\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\.\d)")
_IP6 = re.compile(r"[^\w:](?:[0-9a-f]{1,4}:){2,7}(?::?[0-9a-f]{1,4}){0,7}(?![\w:])")
_CODES = re.compile(r"(?<![\w.=/-])(?:([2-5]\d\d)[- ]{1,2})?\(?#?([245])\.(\d{1,3})\.(\d{1,3})(?![\w]|\.\d)")
_FIRST_CODE = re.compile(r"\A\s*\W{0,2}([2-5]\d\d)(?=[ -]|$)")
# A number before a thing counted ("450 seconds", "500 messages") is no code.
_LATER_CODE = re.compile(
    r"[\s:>(]([45]\d\d)[- ](?=\S)"
    r"(?!(?:sec|min|hour|day|mess|mail|email|conn|recip|rcpt|byte|char|line|kb|mb))"
)
_ELISION = re.compile(r"\b(?:l|d|n|s|qu|un|dell|all)'(?=[a-z]{3})")  # "n'existe", "l'utente"
_DOTTED = re.compile(r"\d\.\d")
_COLONS = re.compile(r"[0-9a-f:]:[0-9a-f]{0,4}:?[0-9a-f]")
_DIGIT = re.compile(r"\d")
_HOST = re.compile(r"[^\w.-]([^\W_][\w-]*(?:\.[\w-]+)+)")
_SENTENCE = re.compile(r"[.;!?][.;!?]*(?=\s|\Z)")
_WORD = re.compile(r"[^\W_]+(?:\.[^\W_]+)*|[|]")
_SPACES = {n: " " for n in range(128) if not chr(n).isalnum() and chr(n) not in "|."}
_CLOCK = re.compile(r"\b(in|for|after|within) (\d\d):(\d\d):(\d\d)\b")
_AFTER = re.compile(
    r"(?:after|in (?:reply|response) to|to the|stage:) (?:smtp )?(?:initial |end of )?"
    r"(banner|connection|ehlo|helo|mail from|rcpt to|data|message body)\b"
)
# Exim's words around a remote's answer; they say nothing of its reason.
_EXIM_FRAME = re.compile(
    r"smtp error from remote (?:mail server|mailer) after (?:end of |initial )?[a-z ]{4,12}:?"
)
_VERBS = {
    "connection": Verb.BANNER,
    "banner": Verb.BANNER,
    "ehlo": Verb.EHLO,
    "helo": Verb.HELO,
    "mail from": Verb.MAIL,
    "rcpt to": Verb.RCPT,
    "data": Verb.CONTENT,
    "message body": Verb.CONTENT,
}
# Top-level names that make a dotted word a host name. A missing space after a full stop ("rejected.See")
# looks the same, so short words that open sentences count only from the third label on.
_GENERIC = "com net org edu gov mil int info biz name arpa local lan internal test example invalid"
_COUNTRIES = (
    "de fr uk jp cn ru it es pl cz nl ch at br ca au se dk fi eu hu ro gr tr ua kr tw hk sg nz za mx ar cl"
)
_TOP = frozenset((*_GENERIC.split(" "), *_COUNTRIES.split(" "), "co", "io", "app", "cloud"))


def normalise(text: str, hosts: frozenset[str] = frozenset(), marks: frozenset[str] = frozenset()) -> Words:
    """`text` as words, with the codes and the verb that stood in it. Never raises.

    `hosts`: host names (suffixes) that stay; `marks`: words that stay though they look like ids.
    """
    text = f" {fold(text[:TEXT_MAX])[:TEXT_MAX]}"
    code, enhanced, verb = None, None, None
    digits = _DIGIT.search(text) is not None
    if digits:
        if first := _FIRST_CODE.match(text):
            code = int(first[1])
        if "." in text and _DOTTED.search(text) and (found := _CODES.search(text)):
            enhanced, told = _told(text, found)
            code = code or told
            text = _CODES.sub(lambda match: " " if match[1] is None or int(match[1]) == code else STOP, text)
        text = _FIRST_CODE.sub(" ", text, count=1)
        if later := _LATER_CODE.search(text):
            code = code or int(later[1])
            text = _LATER_CODE.sub(lambda match: " " if int(match[1]) == code else STOP, text)
    text = _SENTENCE.sub(STOP, text)
    if "to the" in text or "after" in text or "reply to" in text or "response to" in text or "stage:" in text:
        after = _AFTER.search(text)
        if after:
            verb = _VERBS[after[1]]
            text = _EXIM_FRAME.sub(" ", text)
    if "@" in text:
        text = _ADDRESS.sub(" ", text)
    if "//" in text:
        text = _URL.sub(r" \1 ", text)
    if ":" in text and _COLONS.search(text):
        text = _IP6.sub(" ip ", _CLOCK.sub(_seconds, text))
    if "." in text:
        if digits and _DOTTED.search(text):
            text = _IP.sub(" ip ", _QUERY_REFUSED.sub(" queryrefused ", text))
        text = _HOST.sub(lambda match: _host(match[1], hosts), text)
    if "'" in text:
        text = _ELISION.sub(" ", text).replace("'", "")
    text = text.replace("e-mail", "email")
    # Cutting at punctuation is three times as fast where no name with dots stays and all is ASCII.
    kept = text.translate(_SPACES).split() if "." not in text and text.isascii() else _WORD.findall(text)
    if digits:
        kept = [word for word in kept if _stays(word, marks)]
    return Words(f" {' '.join(kept)} ".replace(" ip ip ", " ip "), code, enhanced, verb)


def _stays(word: str, marks: frozenset[str]) -> bool:
    if word.isalpha() or word in marks or "." in word:
        return True
    return len(word) <= NUMBER_MAX if word.isdecimal() else len(word) < ID_MIN


def fold(text: str) -> str:
    """Lower case, without accents and with plain apostrophes: how rules and texts meet."""
    text = text.lower()
    if text.isascii():
        return text
    text = text.replace("\u2019", "'").replace("\u00df", "ss")
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _told(text: str, found: re.Match[str]) -> tuple[Enhanced, int | None]:
    """The first enhanced code that says something; x.0.0 only when there is no other."""
    best = found
    if found[3] == "0" and found[4] == "0":
        best = next((m for m in _CODES.finditer(text) if (m[3], m[4]) != ("0", "0")), found)
    return (int(best[2]), int(best[3]), int(best[4])), int(found[1]) if found[1] else None


def _host(name: str, hosts: frozenset[str]) -> str:
    labels = name.strip(".-").split(".")
    for start in range(len(labels) - 1):
        suffix = ".".join(labels[start:])
        if suffix in hosts:
            return f" {suffix} "
    if labels[-1] in _TOP or (len(labels) > 2 and 2 <= len(labels[-1]) <= 3):
        return " "
    return name.replace(".", " ")


def _seconds(match: re.Match[str]) -> str:
    return f"{match[1]} {int(match[2]) * 3600 + int(match[3]) * 60 + int(match[4])} seconds"


# --- the delay that a text asks for ----------------------------------------------------------------------

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_UNIT_WORDS = (
    r"(?:(?P<s>s|secs?|seconds?|sekunden?|secondes?|segundos?|secondi|сек\w*)"
    r"|(?P<m>m|mins?|minutes?|minuten?|minutos?|minuti|мин\w*)"
    r"|(?P<h>h|hrs?|hours?|stunden?|heures?|horas?|ore|час\w*)"
    r"|(?P<d>d|days?))"
)
_LONG_UNITS = ("hour", "minute", "second", "stunde", "heure", "hora", "ora ", "час", "мин")
_NUMBER = r"(?P<n>\d{1,5}|an?|one|a few|few|several)"
_DELAY = re.compile(
    rf" (?:in|after|for|wait|within|about|dans|apres|en|nach|tra|fra|через|least|another|seconds|retry|"
    rf"delay) "
    rf"(?:about |at least |approximately |the next )?{_NUMBER} ?{_UNIT_WORDS} "
)
_ASKS = re.compile(
    r" (?:try|retry|retried|again|wait|back|later|resend|deferred|greylist\w*|delayed|erneut|"
    r"versuchen|reessay\w*|nouveau|intent\w*|reintent\w*|tente|riprova\w*|"
    r"повтор\w*|позже|попроб\w*|temporar\w*|reconnect)(?= )"
)
_CJK_DELAY = re.compile(r"(\d{1,5})\s?(?:(秒)|(分)|(時間|小時|小时))")


def retry_seconds(words: str) -> float | None:
    """The delay that a normalised text asks for ("try again in 10 minutes"), 1 s to 24 h; else None."""
    if not _DIGIT.search(words) and not any(unit in words for unit in _LONG_UNITS):
        return None
    if words.isascii() or not (cjk := _CJK_DELAY.search(words)):
        found = _DELAY.search(words)
        if found is None or not _ASKS.search(words):
            return None
        number = (
            {"a": 1, "an": 1, "one": 1}.get(found["n"], 5) if found["n"][0].isalpha() else int(found["n"])
        )
        unit = found.lastgroup or "s"
    else:
        number, unit = int(cjk[1]), "s" if cjk[2] else "m" if cjk[3] else "h"
    seconds = float(number * _UNITS[unit])
    return seconds if RETRY_SECONDS_MIN <= seconds <= RETRY_SECONDS_MAX else None
