"""config.toml -> frozen sections. Unknown keys, wrong types and ranges are refused with the key's name.

config.toml at the top of the repository holds every key with its default and a comment; a test keeps both the same.
"""

import difflib
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

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
        ConfigError: unreadable, or not TOML.
    """
    try:
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
            message = item["msg"].removeprefix("Value error, ")
            yield f"{key}: {message}, got {item['input']!r}" if _is_plain(item["input"]) else f"{key}: {message}"


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _suggestion(loc: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """A "did you mean" for the last part of an unknown key."""
    table: Any = model
    for part in loc[:-1]:
        if isinstance(part, str):  # a number is a place in a list
            kind = table.model_fields[part].annotation
            table = next(each for each in (kind, *get_args(kind)) if hasattr(each, "model_fields"))
    close = difflib.get_close_matches(str(loc[-1]), table.model_fields, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
