"""Reads `emass.toml` and the shaping file that it names; one clear error or a whole `Config`.

The file is read, then the environment over it; defaults hold where neither speaks.

What another package owns (`[landing]`, `[dns]`, ...) is named by the caller and left to that
package. Environment variables `EMASS_<TABLE>__<KEY>` override single values; a list or a number is
written as in TOML, a text without quotes. Every mistake becomes a `ConfigError` that names file (or
variable), table, key, and a hint; the running configuration of a caller is never touched.
"""

import difflib
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import msgspec
from msgspec import Struct
from msgspec.structs import fields, replace

from engine.config.shaping import ShapingFile, ShapingPath, ShapingRule
from engine.config.tables import Config
from engine.config.units import PARSERS

FILE_OCTETS_MAX = 1024 * 1024  # a node's file is a few KB; more is not a configuration
SHAPING_OCTETS_MAX = 4 * 1024 * 1024  # some 50,000 rules; reading them takes seconds
OTHER_TABLES = ("submission",)  # which other packages own and check
ENVIRONMENT_PREFIX = "EMASS_"

TableKind = TypeVar("TableKind", bound=Struct)

_UNITS: dict[type, Any] = {**PARSERS, ShapingPath: ShapingPath.parse}
_LOCATED = re.compile(r"(?s)(?P<problem>.*?)(?: - at `\$(?P<path>[^`]*)`)?\Z")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`\Z")
_MISSING = re.compile(r"Object missing required field `(.*)`\Z")
_KEYED = re.compile(r"([a-z_]+): (.*)\Z", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(.*)`, got `(.*)`\Z")
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text in quotes",
    "bool": "true or false",
    "array": "a list in [ ]",
    "object": "a table",
    "null": "nothing",
}


class ConfigError(Exception):
    """The configuration cannot be used. `str` is one line: file, table, key, problem, hint."""

    def __init__(self, file: str, table: str, key: str, problem: str, hint: str = "") -> None:
        self.file, self.table, self.key, self.problem, self.hint = file, table, key, problem, hint
        place = " ".join(part for part in (f"[{table}]" if table else "", key) if part)
        line = f"{file}: {place}: {problem}" if place else f"{file}: {problem}"
        super().__init__(f"{line} ({hint})" if hint else line)


def load_config(
    path: Path | None, environ: Mapping[str, str], *, others: Collection[str] = OTHER_TABLES
) -> Config:
    """The node's configuration; defaults where neither file nor environment says anything.

    `others` are tables that other packages own and check. Relative folders are resolved against the
    file's folder (without a file they stay relative to the working folder). The file that
    `[engine] shaping` names is read, too. Raises ConfigError.
    """
    document = read_document(path, environ)
    own = {name: value for name, value in document.items() if name not in others}
    try:
        config = msgspec.convert(own, Config, dec_hook=_parse_unit)
    except msgspec.ValidationError as error:
        raise _explain(error, Config, path, environ) from error
    base = Path() if path is None else path.resolve().parent
    if config.engine.shaping:
        shaping = _resolve_path(base, config.engine.shaping)
        read = ShapingPath(str(shaping), load_shaping(shaping))
        config = replace(config, engine=replace(config.engine, shaping=read))
    if config.engine.replies:
        replies = str(_resolve_path(base, config.engine.replies))
        config = replace(config, engine=replace(config.engine, replies=replies))
    if config.tls.ca_file:
        ca_file = str(_resolve_path(base, config.tls.ca_file))
        config = replace(config, tls=replace(config.tls, ca_file=ca_file))
    if config.bus.folder:
        config = replace(config, bus=replace(config.bus, folder=str(_resolve_path(base, config.bus.folder))))
    if path is None:
        return config
    return replace(
        config,
        node=replace(config.node, data=str(_resolve_path(base, config.node.data))),
        keys=replace(config.keys, folder=str(_resolve_path(base, config.keys.folder))),
    )


def load_table(path: Path | None, environ: Mapping[str, str], name: str, kind: type[TableKind]) -> TableKind:
    """One table that another package owns, read as ours are; its paths stay relative. Raises ConfigError."""
    document = read_document(path, environ)
    root = msgspec.defstruct("Root", [(name, kind, msgspec.field(default_factory=kind))], frozen=True)
    try:
        decoded = msgspec.convert({name: document.get(name, {})}, root, dec_hook=_parse_unit)
    except msgspec.ValidationError as error:
        raise _explain(error, root, path, environ) from error
    table: TableKind = getattr(decoded, name)
    return table


def load_shaping(path: Path) -> ShapingFile:
    """An operator's shaping file. Raises ConfigError; a caller keeps what it had."""
    document = _read_file(path, SHAPING_OCTETS_MAX, hint="[engine] shaping names it")
    try:
        return msgspec.convert(document, ShapingFile, dec_hook=_parse_unit)
    except msgspec.ValidationError as error:
        raise _explain(error, ShapingFile, path, {}) from error


def parse_rule(said: Mapping[str, str], name: str = "rule") -> ShapingRule:
    """A rule of `[[engine.site]]` from texts, as an environment variable has them.

    Raises ConfigError; `name` stands for the file in it.
    """
    document = {key: _parse_override(text, ("engine", "site", key)) for key, text in said.items()}
    try:
        return msgspec.convert({"site": [document]}, ShapingFile, dec_hook=_parse_unit).site[0]
    except msgspec.ValidationError as error:
        told = _explain(error, ShapingFile, None, {})
        raise ConfigError(name, "", told.key, told.problem, told.hint) from error


def read_document(path: Path | None, environ: Mapping[str, str]) -> dict[str, Any]:
    """The file's tables with the environment's values laid over them, nothing checked but the form."""
    document = {} if path is None else _read_file(path, FILE_OCTETS_MAX, hint="`emass init` writes one")
    for variable, location in overrides(environ).items():
        table = document
        for name in location[:-1]:
            inner = table.setdefault(name, {})
            if not isinstance(inner, dict):
                raise ConfigError(variable, "", ".".join(location), f"{name} is no table")
            table = inner
        table[location[-1]] = _parse_override(environ[variable], location)
    return document


def overrides(environ: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Variable name -> location (table, ..., key) of every `EMASS_<TABLE>__<KEY>`."""
    found = {}
    for variable in sorted(environ):
        if variable.startswith(ENVIRONMENT_PREFIX) and "__" in variable:
            location = tuple(variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
            if not all(location):
                raise ConfigError(variable, "", "", "an environment variable is EMASS_<TABLE>__<KEY>")
            found[variable] = location
    return found


def _read_file(path: Path, octets_max: int, *, hint: str) -> dict[str, Any]:
    name = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(octets_max + 1)
    except FileNotFoundError as error:
        raise ConfigError(name, "", "", "does not exist", hint) from error
    except OSError as error:
        raise ConfigError(name, "", "", f"cannot be read: {error.strerror}") from error
    if len(data) > octets_max:
        raise ConfigError(name, "", "", f"is larger than {octets_max} octets")
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(name, "", "", f"line {line} is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(name, "", "", f"is not TOML: {error}") from error


def _resolve_path(base: Path, text: str) -> Path:
    try:
        return base / Path(text).expanduser()
    except RuntimeError:  # "~nobody": no such home folder; a plain name then
        return base / text


def _parse_unit(kind: type, value: object) -> object:
    return _UNITS[kind](value)


def _parse_override(text: str, location: tuple[str, ...]) -> Any:
    kind = _type_at(Config, location)
    if isinstance(kind, type) and (kind is str or kind in _UNITS or issubclass(kind, Enum)):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # the decoder says what was expected there


# --- what the decoder said, in the reader's words --------------------------------------------------------


def _explain(
    error: msgspec.ValidationError, root: type[Struct], path: Path | None, environ: Mapping[str, str]
) -> ConfigError:
    match = _LOCATED.match(str(error))
    assert match is not None
    problem = match["problem"]
    path_told = (match["path"] or "").replace("[...]", "")  # a key of the reader's own, which is not told
    location = tuple(part for part in path_told.split(".") if part)
    key, hint = "", ""
    if unknown := _UNKNOWN.match(problem):
        key = unknown[1]
        problem, hint = ("unknown key" if location else "unknown table"), _suggest(root, key, location)
    elif missing := _MISSING.match(problem):
        key, problem = missing[1], "is missing"
    elif (keyed := _KEYED.match(problem)) and keyed[1] in _keys_at(root, location):
        key, problem = keyed[1], keyed[2]
    elif location:
        location, key = location[:-1], location[-1]
        problem, hint = _reword(root, problem, (*location, key))
    plain = tuple(re.sub(r"\[.*", "", part) for part in (*location, key) if part)
    variable = next((name for name, place in overrides(environ).items() if place == plain), None)
    return ConfigError(variable or str(path or "configuration"), ".".join(location), key, problem, hint)


def _reword(root: type[Struct], problem: str, location: tuple[str, ...]) -> tuple[str, str]:
    if expected := _EXPECTED.match(problem):
        wanted = " or ".join(_WORDS.get(word, word) for word in expected[1].split(" | ") if word != "null")
        return f"must be {wanted}, not {_WORDS.get(expected[2], expected[2])}", ""
    kind = _type_at(root, location)
    if isinstance(kind, type) and issubclass(kind, Enum):
        choices = [str(member.value) for member in kind]
        given = re.findall(r"'(.*)'", problem)
        close = difflib.get_close_matches(given[0], choices, n=1) if given else []
        hint = f'did you mean "{close[0]}"?' if close else ""
        return "must be one of " + ", ".join(f'"{choice}"' for choice in choices), hint
    return problem, ""


def _suggest(root: type[Struct], key: str, location: tuple[str, ...]) -> str:
    known = sorted(_keys_at(root, location))
    homes = [table for table, keys in _tables_in(root) if key in keys]
    if homes:
        return "it belongs in " + " or ".join(f"[{home}]" for home in homes[:3])
    if close := difflib.get_close_matches(key, known, n=1):
        return f'did you mean "{close[0]}"?'
    return "known here: " + ", ".join(known)


def _tables_in(root: type[Struct], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, frozenset[str]]]:
    """Every table's name and keys; those that hold a table come before it."""
    names = sorted(_keys_at(root, prefix))
    inner = [(*prefix, name) for name in names if _keys_at(root, (*prefix, name))]
    for place in inner:
        yield ".".join(place), _keys_at(root, place)
    for place in inner:
        yield from _tables_in(root, place)


def _keys_at(root: type[Struct], location: tuple[str, ...]) -> frozenset[str]:
    kind = _type_at(root, location)
    if isinstance(kind, type) and issubclass(kind, Struct):
        return frozenset(f.encode_name for f in fields(kind))
    return frozenset()


def _type_at(root: type[Struct], location: tuple[str, ...]) -> Any:
    """The type of the value at a location, lists and `| None` stripped for Structs; None = unknown."""
    kind: Any = root
    for part in location:
        if not (isinstance(kind, type) and issubclass(kind, Struct)):
            return None
        name = re.sub(r"\[.*", "", part)
        kind = next((f.type for f in fields(kind) if f.encode_name == name), None)
        choices = [choice for choice in get_args(kind) if choice not in (type(None), Ellipsis)]
        if get_origin(kind) is tuple:
            element = choices[0]
            kind = element if isinstance(element, type) and issubclass(element, Struct) else kind
        elif choices:
            kind = choices[0]
    return kind
