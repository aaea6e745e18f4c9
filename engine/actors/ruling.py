"""What an operator may do to the rules of a running engine: override them for a time, read them anew.

An override is kept (`overrides`), then the rules are laid out anew and hold on every path at once. A
reload reads the shaping file, the reply file and the tables for receivers of `emass.toml`; whatever is
wrong in them refuses all of it, with file, table and key, and the running rules stay. What else differs
in `emass.toml` is named: it needs a restart. One act at a time; files are read and checked in a thread,
since thousands of rules take seconds. Each act is noted as a change with author and reason.
Touches: configuration files; the bus table through `overrides`.
"""

from collections.abc import Iterable, Mapping
from math import isfinite
from pathlib import Path

import structlog
import trio
from msgspec import Struct
from msgspec.structs import fields, replace

from engine.actors.operating import TEXT_MAX, Author, Refused
from engine.actors.overrides import Override, TooManyOverrides, describe_said
from engine.actors.parts import ConfigFile, Parts
from engine.bus.api import BusFull
from engine.config.load import ConfigError, load_config, parse_rule
from engine.config.replies import load_reply_rules
from engine.config.shaping import MATCH_KEYS, ShapingRule
from engine.config.tables import Config
from engine.config.units import Duration
from engine.model.event import Adapted
from engine.mta.policy.classify import Judge
from engine.mta.policy.reply_lint import Severity, lint_rules
from engine.mta.policy.shaping import OVERRIDE, ShapingRules, shaping_rules
from engine.mta.policy.shaping_lint import Finding, Level, lint_shaping
from engine.storage import StorageError

READ_ANEW = ("shaping", "replies", "provider", "site", "share", "warmup")  # keys of [engine]
SAID_MAX = 1_000  # characters of one value; a site's name may have all its hosts
TOLD_MAX = 10  # findings and keys that an answer names
REFUSAL_MAX = 600  # characters

log = structlog.get_logger("ruling")


class Reloaded(Struct, frozen=True):
    """What a reload did; `restart` are keys of `emass.toml` that differ and were not taken over."""

    done: str
    restart: tuple[str, ...]
    warnings: tuple[str, ...]


class _Read(Struct, frozen=True):
    config: Config
    rules: ShapingRules
    judge: Judge
    reply_rules: int
    restart: tuple[str, ...]
    warnings: tuple[str, ...]


class Ruling:
    """The rules of one engine in an operator's hands."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lock = trio.Lock()

    def __repr__(self) -> str:
        return f"<Ruling {self._parts.shaping!r}>"

    async def override(
        self, said: dict[str, str], seconds: float | None, by: Author
    ) -> tuple[str, list[str]]:
        """Let a rule hold (for so many seconds): what was done, and what is odd about it."""
        rule = _parse(said)
        if seconds is not None and not (isfinite(seconds) and seconds > 0):
            raise Refused("the time must be longer than 0 s")
        parts = self._parts
        async with self._lock:
            found = await trio.to_thread.run_sync(lint_shaping, parts.config, [rule])
            odd = [finding for finding in found if finding.layer == OVERRIDE]
            _refuse_errors(odd)
            until = None if seconds is None else parts.clock.now() + seconds
            try:
                override = await parts.overrides.add(said, rule, until, by.reason, by.name)
            except TooManyOverrides as error:
                raise Refused(str(error)) from error
            await self._lay_out(f"override {override.number}")
        what = describe_said(rule, override.values)
        time = "until it is removed" if seconds is None else f"for {Duration(seconds)}"
        self._note(f"override {override.number} set: {what} ({time}): {by.reason}", by, rule)
        return f"override {override.number} holds {time}: {what}", _warnings(odd)

    async def end(self, number: int, by: Author) -> str:
        """An override ends now."""
        async with self._lock:
            standing = self._parts.overrides.all()
            override = next((each for each in standing if each.number == number), None)
            if override is None:
                there = ", ".join(str(each.number) for each in standing[:TOLD_MAX])
                raise Refused(
                    f"there is no override {number}; {f'there are: {there}' if there else 'nor another'}"
                )
            return await self._end(override, by)

    async def end_over(self) -> bool:
        """End the overrides whose time is over; whether there were any."""
        async with self._lock:
            wall = self._parts.clock.now()
            over = [each for each in self._parts.overrides.all() if each.is_over(wall)]
            for override in over:
                try:
                    await self._end(override, Author(override.author, "its time is over"))
                except (StorageError, BusFull) as error:
                    log.warning("an override that is over could not be removed", error=str(error))
        return bool(over)

    async def reload(self, by: Author) -> Reloaded:
        """Read the rules anew. Refused with file, table and key; then nothing has changed."""
        parts = self._parts
        if parts.config_file is None:
            raise Refused(
                "this engine was started without a configuration file: there is nothing to read anew"
            )
        async with self._lock:
            overrides = parts.overrides.rules(parts.clock.now())
            try:
                read = await trio.to_thread.run_sync(_read, parts.config_file, parts.config, overrides)
            except ConfigError as error:
                raise Refused(f"{str(error)[:REFUSAL_MAX]}; the running rules stay") from error
            parts.config, parts.judge = read.config, read.judge
            parts.set_shaping(read.rules, trio.current_time(), "the rules were read anew")
        layers = ", ".join(f"{len(layer.rules)} {layer.name}" for layer in read.rules.layers)
        done = f"read anew: rules for receivers: {layers}; rules for replies: {read.reply_rules}"
        self._note(f"{done}: {by.reason}", by, None, "reload")
        return Reloaded(done, read.restart, read.warnings)

    async def _end(self, override: Override, by: Author) -> str:
        rule = self._parts.overrides.rule(override)
        what = describe_said(rule, override.values)
        await self._parts.overrides.remove(override)
        await self._lay_out(f"override {override.number} has ended")
        self._note(f"override {override.number} ended: {what}: {by.reason}", by, rule)
        return f"override {override.number} holds no longer: {what}"

    async def _lay_out(self, why: str) -> None:
        """The files' rules with the overrides that stand now, on every path."""
        parts = self._parts
        overrides = parts.overrides.rules(parts.clock.now())
        rules = await trio.to_thread.run_sync(shaping_rules, parts.config, overrides)
        parts.set_shaping(rules, trio.current_time(), why)

    def _note(self, reason: str, by: Author, rule: ShapingRule | None, knob: str = "override") -> None:
        provider, campaign = ("", 0) if rule is None else (rule.provider, rule.campaign)
        self._parts.note(Adapted("", provider, knob, None, None, reason, author=by.name, campaign=campaign))


def _parse(said: Mapping[str, str]) -> ShapingRule:
    long = next((key for key, text in said.items() if len(key) + len(text) > SAID_MAX), None)
    if long is not None:
        raise Refused(f"{long[:TEXT_MAX]}: is longer than {SAID_MAX:,} characters")
    empty = next((key for key, text in said.items() if not text.strip()), None)
    if empty is not None:
        raise Refused(f"{empty[:TEXT_MAX]}: is empty")
    if not said.keys() - set(MATCH_KEYS):
        raise Refused("it says nothing: give it a value, as in connections=2..4")
    try:
        return parse_rule(said, "override")
    except ConfigError as error:
        raise Refused(str(error)[:REFUSAL_MAX]) from error


def _read(file: ConfigFile, running: Config, overrides: list[ShapingRule]) -> _Read:
    """Everything that a reload takes over, checked. Raises ConfigError or Refused."""
    fresh = load_config(file.path, file.environ)
    taken = {key: getattr(fresh.engine, key) for key in READ_ANEW}
    try:
        config = replace(running, engine=replace(running.engine, **taken))
    except ValueError as error:  # it does not go with a value that needs a restart
        key, _, problem = str(error).partition(": ")
        raise ConfigError(str(file.path), "engine", key, problem, "restart for what else differs") from error
    replies = load_reply_rules(Path(config.engine.replies) if config.engine.replies else None)
    findings = lint_shaping(config)
    _refuse_errors(findings)
    strays = [each for each in lint_rules(replies) if each.severity is Severity.ERROR]
    if strays:
        first = strays[0]
        raise ConfigError(config.engine.replies, f"rule {first.rule}", "", first.problem, first.hint)
    restart = tuple(_differing(file.at_start, fresh))
    rules = shaping_rules(config, overrides)
    return _Read(config, rules, Judge(replies), len(replies.rules), restart, tuple(_warnings(findings)))


def _refuse_errors(findings: Iterable[Finding]) -> None:
    errors = [str(finding) for finding in findings if finding.level is Level.ERROR]
    if errors:
        more = f" (and {len(errors) - 1:,} more)" if len(errors) > 1 else ""
        raise Refused(f"{errors[0][:REFUSAL_MAX]}{more}; the running rules stay")


def _warnings(findings: Iterable[Finding]) -> list[str]:
    return [str(finding) for finding in findings if finding.level is Level.WARNING][:TOLD_MAX]


def _differing(before: Config, after: Config) -> list[str]:
    """The keys, with their tables, that differ and are not read anew."""
    found = []
    for table in fields(before):
        ours, theirs = getattr(before, table.name), getattr(after, table.name)
        for key in fields(ours):
            taken = table.name == "engine" and key.name in READ_ANEW
            if not taken and getattr(ours, key.name) != getattr(theirs, key.name):
                found.append(f"[{table.name}] {key.name}")
    return found[:TOLD_MAX]
