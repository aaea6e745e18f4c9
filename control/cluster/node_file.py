"""A fresh `emass.toml` in which some values are set: the commented default, filled in where it must be.

A value takes the place of its commented line, under its own explanation; one whose line is not there is put
right below the heading of its table. What came out is read back by the loader before anybody writes it. Pure
but for that; raises ConfigError when a value cannot be, naming table and key.
"""

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.config import Config, ConfigError, load_config, render_commented_default

Values = Mapping[str, Mapping[str, str]]  # table -> key -> value as TOML


def toml_value(value: str | int | bool | Sequence[str]) -> str:
    """A text, number, truth value or list of texts in TOML."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def filled_default(values: Values, more: str = "") -> str:
    """The text of an `emass.toml` with these values; `more` is put at its end. Raises ConfigError."""
    lines = render_commented_default().splitlines()
    for table, keys in values.items():
        for key, value in keys.items():
            _set(lines, table, key, value)
    text = "\n".join(lines) + "\n" + more
    check_text(text)
    return text


def check_text(text: str) -> Config:
    """What a configuration's text says. Raises ConfigError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "emass.toml"
        path.write_text(text, encoding="utf-8")
        try:
            return load_config(path, {})
        except ConfigError as error:
            raise ConfigError("emass.toml", error.table, error.key, error.problem, error.hint) from None


def parse_setting(text: str) -> tuple[str, str, str]:
    """`table.key=value` of a command line: table, key, and the value in TOML. Raises ConfigError."""
    name, equals, value = text.partition("=")
    table, dot, key = name.strip().rpartition(".")
    if not equals or not dot or not re.fullmatch(r"[a-z_.]+", table) or not re.fullmatch(r"[a-z_]+", key):
        raise ConfigError(
            "--set", "", text[:80], "is no setting: write TABLE.KEY=VALUE, as in engine.smtp_port=2525"
        )
    value = value.strip()
    if "\n" in value:
        raise ConfigError("--set", table, key, "has more than one line")
    plain = re.fullmatch(r'-?\d+(\.\d+)?|true|false|".*"|\[.*\]|\{.*\}', value)
    return table, key, value if plain else toml_value(value)


def with_settings(values: Values, settings: Sequence[tuple[str, str, str]]) -> Values:
    """The values with settings of a command line over them."""
    merged = {table: dict(keys) for table, keys in values.items()}
    for table, key, value in settings:
        merged.setdefault(table, {})[key] = value
    return merged


def _set(lines: list[str], table: str, key: str, value: str) -> None:
    heading = f"[{table}]"
    if heading not in lines:
        lines += ["", heading]
    start = lines.index(heading) + 1
    end = next((i for i in range(start, len(lines)) if lines[i].startswith("[")), len(lines))
    place = re.compile(rf"#?\s?{re.escape(key)} = ")
    for number in range(start, end):
        if place.match(lines[number]):
            lines[number] = f"{key} = {value}"
            return
    lines.insert(start, f"{key} = {value}")
