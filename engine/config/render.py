"""Writes configurations: the commented default file of `emass init`, and what is in force.

The default file is `default.toml` beside this module: prose starts with "# ", a setting with "#"
and no space, so that taking away those single "#" gives a file that equals the defaults (a test
holds it to that, and to mentioning every key). What `render_toml` prints can be pasted back.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path

from msgspec import Struct
from msgspec.structs import fields

from engine.config.load import overrides, read_document
from engine.config.tables import Config
from engine.config.units import CountRange, Duration, HostPort, Rate, RateRange, Size

_DEFAULT_FILE = Path(__file__).with_name("default.toml")


def render_commented_default() -> str:
    """The text of a fresh `emass.toml`: every key with its default, commented out, and what it does."""
    return _DEFAULT_FILE.read_text(encoding="utf-8")


def find_origins(path: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Dotted key -> "file" or the environment variable, for every value that is no default."""
    found = {".".join(key): "file" for key in _leaves(read_document(path, {}))}
    return found | {".".join(place): name for name, place in overrides(environ).items()}


def render_toml(config: Config, origins: Mapping[str, str], *, resolved: bool) -> str:
    """The configuration as TOML, each value that is no default with its origin behind it.

    `resolved` = every value; else only what file or environment set.
    """

    def wanted(key: str) -> bool:
        return resolved or any(name == key or name.startswith(f"{key}.") for name in origins)

    lines: list[str] = []
    for table in fields(Config):
        lines += _render_table(table.name, getattr(config, table.name), origins, wanted)
    return "\n".join(lines).lstrip("\n") + ("\n" if lines else "")


def _render_table(
    name: str, table: Struct, origins: Mapping[str, str], wanted: Callable[[str], bool]
) -> Iterator[str]:
    values = {field.name: getattr(table, field.name) for field in fields(table)}
    inner = {key: value for key, value in values.items() if _holds_tables(value)}
    plain = {
        key: value
        for key, value in values.items()
        if key not in inner and value is not None and wanted(f"{name}.{key}")
    }
    if plain:
        yield from ("", f"[{name}]")
        for key, value in plain.items():
            origin = origins.get(f"{name}.{key}")
            yield f"{key} = {_render_value(value)}" + (f"  # from {origin}" if origin else "")
    for key, value in inner.items():
        if isinstance(value, Struct):
            yield from _render_table(f"{name}.{key}", value, origins, wanted)
        elif isinstance(value, dict):
            if wanted(f"{name}.{key}"):
                yield from ("", f"[{name}.{key}]")
                yield from (
                    f"{_render_value(inside)} = {_render_value(each)}" for inside, each in value.items()
                )
        elif wanted(f"{name}.{key}"):
            for element in value:
                yield from ("", f"[[{name}.{key}]]")
                for field in fields(element):
                    item = getattr(element, field.name)
                    if item is not None and item != field.default:
                        yield f"{field.name} = {_render_value(item)}"


def _holds_tables(value: object) -> bool:
    if isinstance(value, tuple):
        return bool(value) and isinstance(value[0], Struct)
    return isinstance(value, Struct | dict)


def _render_value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case Enum():
            return _render_value(value.value)
        case CountRange(floor=1):
            return str(value.ceiling)
        case Duration() | Size() | Rate() | HostPort() | CountRange() | RateRange():
            return json.dumps(str(value))
        case int() | float():
            return repr(value)
        case str():
            # TOML basic strings escape as JSON does, but for DEL, which TOML wants escaped, too.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case dict():
            pairs = (f"{_render_value(key)} = {_render_value(each)}" for key, each in value.items())
            return "{ " + ", ".join(pairs) + " }"
        case tuple() | list():
            return "[" + ", ".join(_render_value(element) for element in value) + "]"
    raise AssertionError(f"no TOML form for {type(value).__name__}")


def _leaves(document: Mapping[str, object], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*prefix, key))
        else:
            yield (*prefix, key)
