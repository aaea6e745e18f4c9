"""Rules that say what a receiver's answer means: `replies.toml` beside this file, and the operator's own.

A rule names an answer by provider, verb, codes and words, and gives it a category; the first rule that
fits decides, the operator's before ours. Rules are data with their samples beside them. Nothing is
matched here: `engine.mta.policy.reply_matcher` does that. Whatever cannot be used is a ConfigError that
names file, table, key and a hint; the rules that a caller holds already stay as they are.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import fields, replace

from engine.config.load import ConfigError
from engine.config.reply_patterns import PatternError, check_pattern
from engine.model.category import Action, Category, Key
from engine.model.reply import Verb

FILE_OCTETS_MAX = 1024 * 1024  # ours has about 100 KB; more is not a rule file
RULES_MAX = 2_000  # in all; ours are about 200
WORDS_MAX = 200  # phrases of one rule
PHRASE_MAX = 300  # characters of one phrase, word sets not written out
WORD_SET_MAX = 100  # words of one set
RETRY_SECONDS_MAX = 86_400  # a day: later than that the retry curve knows better
BUILT_IN_FILE = Path(__file__).with_name("replies.toml")

Words = tuple[Annotated[str, Meta(min_length=1, max_length=PHRASE_MAX)], ...]
Id = Annotated[str, Meta(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)]
Words_ = Annotated[Words, Meta(max_length=WORDS_MAX)]


class Provider(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A mailbox company: `hosts` are suffixes of its MX names, `marks` words of a text that betray it."""

    name: Id
    hosts: Words_ = ()
    marks: Words_ = ()


class BlockList(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A published list that receivers ask; `words` are how texts name it, `kind` what it lists."""

    name: Id
    kind: Key = Key.IP
    words: Words_


class ReplyRule(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One rule. All conditions given must hold; of `any` one phrase, of `all` every one, of `unless` none.

    A phrase is whole words in order: `a|b` either word, `@name` any word of a set, `word*` a beginning,
    `...` up to four words between. Here sets are already written out.
    """

    id: Id
    category: Category
    provider: str = ""
    verbs: tuple[Verb, ...] = ()
    codes: tuple[str, ...] = ()  # "550", "4xx"
    enhanced: tuple[str, ...] = ()  # "5.7.1", "x.2.2", "5.7.606-649", "x.7.x"
    any: Words_ = ()
    all: Words_ = ()
    unless: Words_ = ()
    pattern: str = ""
    listed: bool = False  # the text names a block list
    key: Key | None = None
    action: Action | None = None
    retry_seconds: Annotated[int, Meta(ge=1, le=RETRY_SECONDS_MAX)] | None = None
    keep: bool = False  # worth another attempt even when the code says 5yz
    samples: tuple[Annotated[str, Meta(min_length=1)], ...] = ()
    source: str = ""


class ReplyRules(Struct, frozen=True):
    """Everything a judge needs, rules in the order in which they are asked."""

    rules: tuple[ReplyRule, ...]
    providers: tuple[Provider, ...]
    lists: tuple[BlockList, ...]
    version: str = ""


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    version: str
    words: dict[str, Annotated[tuple[str, ...], Meta(min_length=1, max_length=WORD_SET_MAX)]] = {}
    provider: tuple[Provider, ...] = ()
    list: tuple[BlockList, ...] = ()
    rule: tuple[ReplyRule, ...] = ()


def load_reply_rules(path: Path | None = None) -> ReplyRules:
    """The built-in rules; with `path` the operator's before them. Raises ConfigError, then nothing changed.

    A provider or list of the operator's with a built-in name replaces that one; rule ids must be new.
    """
    ours = _read(BUILT_IN_FILE)
    if path is None:
        return _joined(ours, None, BUILT_IN_FILE)
    return _joined(ours, _read(path, ours.words), path)


def parse_reply_rules(text: str, name: str = "rules") -> ReplyRules:
    """The rules of one TOML text alone, without the built-in ones; `name` stands for the file in errors."""
    return _joined(_parse(text, name, {}), None, Path(name))


def _read(path: Path, sets: Mapping[str, tuple[str, ...]] | None = None) -> _File:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_OCTETS_MAX + 1)
    except OSError as error:
        raise ConfigError(str(path), "", "", f"cannot be read: {error.strerror}") from error
    if len(data) > FILE_OCTETS_MAX:
        raise ConfigError(str(path), "", "", f"is larger than {FILE_OCTETS_MAX} octets")
    try:
        return _parse(data.decode("utf-8-sig"), str(path), sets or {})
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(str(path), "", "", f"line {line} is not UTF-8") from error


def _parse(text: str, name: str, sets: Mapping[str, tuple[str, ...]]) -> _File:
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(name, "", "", f"is not TOML: {error}") from error
    try:
        file = msgspec.convert(document, _File)
    except msgspec.ValidationError as error:
        raise _explain(error, document, name) from error
    if len(file.rule) > RULES_MAX:
        raise ConfigError(name, "rule", "", f"are more than {RULES_MAX}")
    for rule in file.rule:
        _check_rule(rule, name)
    for kind, named in (("provider", file.provider), ("list", file.list)):
        _check_unique(kind, "name", [one.name for one in named], name)
    _check_unique("rule", "id", [rule.id for rule in file.rule], name)
    for listing in file.list:
        _check_phrases(f"list {listing.name}", "words", listing.words, name)
    for provider in file.provider:
        _check_phrases(f"provider {provider.name}", "marks", provider.marks, name)
    sets = {**sets, **file.words}
    for set_name, words in file.words.items():
        _check_phrases("words", set_name, words, name)
    return replace(file, rule=tuple(_write_out(rule, sets, name) for rule in file.rule), words=sets)


def _joined(ours: _File, theirs: _File | None, path: Path) -> ReplyRules:
    rules, providers, lists, version = ours.rule, ours.provider, ours.list, ours.version
    if theirs is not None:
        taken = {rule.id for rule in ours.rule}
        for rule in theirs.rule:
            if rule.id in taken:
                raise ConfigError(
                    str(path), f"rule {rule.id}", "id", "is a built-in rule's", "give yours another name"
                )
        rules = theirs.rule + ours.rule
        names = {one.name for one in theirs.provider}
        providers = theirs.provider + tuple(one for one in ours.provider if one.name not in names)
        listed = {one.name for one in theirs.list}
        lists = theirs.list + tuple(one for one in ours.list if one.name not in listed)
        version = f"{theirs.version}+{ours.version}"
    known = {provider.name for provider in providers}
    for rule in rules:
        if rule.provider and rule.provider not in known:
            close = difflib.get_close_matches(rule.provider, known, n=1)
            raise ConfigError(
                str(path),
                f"rule {rule.id}",
                "provider",
                f"{rule.provider!r} is no [[provider]]",
                f'did you mean "{close[0]}"?' if close else "add a [[provider]] with this name",
            )
    return ReplyRules(rules, providers, lists, version)


# --- what a rule must be ---------------------------------------------------------------------------------

CODE = re.compile(r"[2-5](?:\d\d|xx)")
ENHANCED = re.compile(r"[245x]\.(?:\d{1,3}|x)\.(?:\d{1,3}(?:-\d{1,3})?|x)")
PHRASE_WORD = re.compile(r"\.\.\.|@?[\w.*'-]+(?:\|@?[\w.*'-]+)*")


def _check_rule(rule: ReplyRule, name: str) -> None:
    table = f"rule {rule.id}"
    if not (rule.any or rule.all or rule.codes or rule.enhanced or rule.pattern or rule.listed or rule.verbs):
        raise ConfigError(
            name, table, "", "matches everything", "give it words, codes, enhanced or a pattern"
        )
    for code in rule.codes:
        if not CODE.fullmatch(code):
            raise ConfigError(name, table, "codes", f"{code!r} is no reply code", '"550" or "4xx"')
    for status in rule.enhanced:
        if not ENHANCED.fullmatch(status):
            raise ConfigError(
                name,
                table,
                "enhanced",
                f"{status!r} is no enhanced code",
                '"5.1.1", "x.2.2" or "5.7.606-649"',
            )
    for key, phrases in (("any", rule.any), ("all", rule.all), ("unless", rule.unless)):
        _check_phrases(table, key, phrases, name)
    if rule.pattern:
        try:
            check_pattern(rule.pattern)
        except PatternError as error:
            raise ConfigError(name, table, "pattern", str(error), error.hint) from error


def _check_phrases(table: str, key: str, phrases: Iterable[str], name: str) -> None:
    for phrase in phrases:
        words = phrase.split(" ")
        if phrase != phrase.lower():
            raise ConfigError(
                name, table, key, f"{phrase!r} has capitals", "texts are compared in lower case"
            )
        if not all(PHRASE_WORD.fullmatch(word) for word in words):
            raise ConfigError(
                name,
                table,
                key,
                f"{phrase!r} is no phrase",
                "words with single spaces; a|b, word* and ... are the only signs",
            )
        if words[0] == "..." or words[-1] == "..." or any(w.startswith(("*", "|")) for w in words):
            raise ConfigError(
                name, table, key, f"{phrase!r} begins or ends open", "begin and end with a word"
            )


def _write_out(rule: ReplyRule, sets: Mapping[str, tuple[str, ...]], name: str) -> ReplyRule:
    """The rule with the words of a set in the place of its `@name`."""

    def written(key: str, phrases: Words) -> Words:
        return tuple(" ".join(one(word, key) for word in phrase.split(" ")) for phrase in phrases)

    def one(word: str, key: str) -> str:
        if "@" not in word:
            return word
        choices: list[str] = []
        for choice in word.split("|"):
            if not choice.startswith("@"):
                choices.append(choice)
            elif choice[1:] in sets:
                choices += sets[choice[1:]]
            else:
                hint = "known here: " + ", ".join(sorted(sets))
                raise ConfigError(name, f"rule {rule.id}", key, f"{choice!r} is no set of [words]", hint)
        return "|".join(choices)

    return replace(
        rule,
        any=written("any", rule.any),
        all=written("all", rule.all),
        unless=written("unless", rule.unless),
    )


def _check_unique(kind: str, key: str, names: list[str], file: str) -> None:
    seen: set[str] = set()
    for one in names:
        if one in seen:
            raise ConfigError(file, f"{kind} {one}", key, "is there twice", "names are used once")
        seen.add(one)


# --- what the decoder said, in the reader's words --------------------------------------------------------

_AT = re.compile(r"(?s)(?P<problem>.*?)(?: - at `\$(?P<path>[^`]*)`)?\Z")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`\Z")
_MISSING = re.compile(r"Object missing required field `(.*)`\Z")
_TABLES: dict[str, type[Struct]] = {"provider": Provider, "list": BlockList, "rule": ReplyRule}
_CHOICES = {"category": Category, "action": Action, "key": Key, "kind": Key, "verbs": Verb}


def _explain(error: msgspec.ValidationError, document: dict[str, Any], name: str) -> ConfigError:
    found = _AT.match(str(error))
    assert found is not None
    problem, path = found["problem"], found["path"] or ""
    place = re.match(r"\.?(\w*)(?:\[(\d+|\.\.\.)\])?\.?(\w*)", path)
    assert place is not None
    kind, number, key = place.groups()
    table, hint = kind, ""
    if number is not None:
        table = _named(document, kind, number, key, problem)
    elif kind in {"version", ""}:
        table, key = "", kind
    if unknown := _UNKNOWN.match(problem):
        known = [field.name for field in fields(_TABLES.get(kind, _File))]
        close = difflib.get_close_matches(unknown[1], known, n=1)
        hint = f'did you mean "{close[0]}"?' if close else "known here: " + ", ".join(known)
        return ConfigError(name, table, unknown[1], "unknown key", hint)
    if missing := _MISSING.match(problem):
        return ConfigError(name, table, missing[1], "is missing")
    if key in _CHOICES and "Invalid enum value" in problem:
        choices = [str(member.value) for member in _CHOICES[key]]
        given = re.findall(r"'(.*)'", problem)
        close = difflib.get_close_matches(given[0], choices, n=1) if given else []
        hint = f'did you mean "{close[0]}"?' if close else "one of " + ", ".join(choices)
        problem = f"{given[0]!r} is no {key}" if given else problem
    return ConfigError(name, table, key, problem, hint)


def _named(document: dict[str, Any], kind: str, number: str, key: str, problem: str) -> str:
    """`rule full-text` for the rule that the decoder stumbled over; its number where it has no name.

    The decoder tells the number of a list's item or, for arrays of tables, only `...`; then the first
    item that fails alone is the one.
    """
    items = document.get(kind)
    if not isinstance(items, list):
        return kind
    for position, item in enumerate(items):
        if number.isdigit() and position != int(number):
            continue
        if not number.isdigit():
            try:
                msgspec.convert(item, _TABLES[kind])
            except msgspec.ValidationError:
                pass
            else:
                continue
        label = item.get("id", item.get("name")) if isinstance(item, dict) else None
        return f"{kind} {label}" if isinstance(label, str) else f"{kind} number {position + 1}"
    return kind
