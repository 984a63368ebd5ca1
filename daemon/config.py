"""config.toml -> frozen sections. Unknown keys, wrong types and ranges are refused with the key's name.

config.toml at the top of the repository holds every key with its default and a comment; a test keeps both the same.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from daemon.config_sections import (
    AudioConfig,
    ChimesConfig,
    DuckConfig,
    EngineConfig,
    HermesConfig,
    LogConfig,
    MqttConfig,
    PhrasesConfig,
    QueueConfig,
    QuietConfig,
    Section,
    ShareConfig,
    SocketConfig,
    TextConfig,
    WyomingConfig,
)
from daemon.errors import ConfigError

_SHOWN_CHARS = 100
"""Of a value in a message."""
_EXPECTED = {
    "bool_type": "expected true or false",
    "dict_type": "expected a table",
    "finite_number": "expected a finite number",
    "float_type": "expected a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "expected a whole number",
    "int_type": "expected a whole number",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": "expected a list",
    "literal_error": "expected {expected}",
    "model_type": "expected a table",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "must not be empty",
    "string_type": "expected a string",
}
"""What pydantic's kinds of error are called here."""


class Config(Section):
    """The whole of config.toml."""

    engine: EngineConfig = EngineConfig()
    socket: SocketConfig = SocketConfig()
    mqtt: MqttConfig = MqttConfig()
    hermes: HermesConfig = HermesConfig()
    wyoming: WyomingConfig = WyomingConfig()
    share: ShareConfig = ShareConfig()
    audio: AudioConfig = AudioConfig()
    chimes: ChimesConfig = ChimesConfig()
    duck: DuckConfig = DuckConfig()
    queue: QueueConfig = QueueConfig()
    quiet: QuietConfig = QuietConfig()
    text: TextConfig = TextConfig()
    phrases: PhrasesConfig = PhrasesConfig()
    log: LogConfig = LogConfig()


def load_config(path: Path | None) -> Config:
    """Read and check a config file; None gives the defaults.

    Raises:
        ConfigError: unreadable, not TOML, or a key that is unknown, of the wrong type or out of range.
    """
    if path is None:
        return Config()
    try:
        return Config.model_validate(read_toml(path))
    except ValidationError as err:
        raise ConfigError(f"{path}: " + "; ".join(explain(err, Config))) from err


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: unreadable, no regular file, or not TOML.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir() or str(path) == os.devnull):
            raise ConfigError(f"{path}: not a regular file")  # to read a FIFO would wait for its writer
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise ConfigError(f"{path}: {err.strerror}") from err
    except (ValueError, RecursionError) as err:  # also a number too long to be read
        raise ConfigError(f"{path}: not valid TOML: {err}") from err


def user_path(name: str) -> Path:
    """A path as the user wrote it, with ~ for a home folder; that of a user who does not exist stays as it is."""
    return Path(os.path.expanduser(name))  # noqa: PTH111 (Path's raises for such a user)


def explain(err: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    """What is wrong with a configuration, key by key, with the nearest known key for an unknown one."""
    for item in err.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            yield f"unknown key {key}{_suggestion(item['loc'], model)}"
        else:
            yield f"{key}: {_expected(item, model)}{_got(item['input'])}"


def _expected(item: ErrorDetails, model: type[BaseModel]) -> str:
    """What the value should have been; keys with a pattern say it in their description."""
    kind = item["type"]
    if kind == "string_pattern_mismatch":
        return _table(item["loc"], model).model_fields[str(item["loc"][-1])].description or item["msg"]
    if kind in _EXPECTED:
        context = {name: _bare(value) for name, value in item.get("ctx", {}).items()}
        return _EXPECTED[kind].format_map(context).replace("'", '"')
    return item["msg"].removeprefix("Value error, ")


def _bare(value: Any) -> Any:
    """A limit as people write it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _got(value: Any) -> str:
    """A plain value as TOML has it; nothing for tables and lists."""
    if isinstance(value, str):
        shown = value if len(value) <= _SHOWN_CHARS else value[:_SHOWN_CHARS] + "…"
        return f", got {json.dumps(shown, ensure_ascii=False)}"
    if isinstance(value, bool | int | float):
        return f", got {str(value).lower()[:_SHOWN_CHARS]}"
    return ""


def _suggestion(loc: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """A "did you mean" for the last part of an unknown key."""
    close = difflib.get_close_matches(str(loc[-1]), _table(loc, model).model_fields, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _table(loc: tuple[int | str, ...], model: type[BaseModel]) -> Any:
    """The model of the table that a key is in."""
    table: Any = model
    for part in loc[:-1]:
        if isinstance(part, str):  # a number is a place in a list
            kind = table.model_fields[part].annotation
            table = next(each for each in (kind, *get_args(kind)) if hasattr(each, "model_fields"))
    return table
