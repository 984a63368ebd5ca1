"""config.toml -> frozen sections. Unknown keys, wrong types and ranges are refused with the key's name.

config.toml at the top of the repository holds every key with its default and a comment; a test keeps both the same.
"""

import difflib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from daemon.errors import ConfigError


class Section(BaseModel):
    """A table of a configuration file: unknown keys and other types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class EngineConfig(Section):
    """[engine]: the bundle and how it is run."""

    bundle: Annotated[str, Field(min_length=1)] = "starter"
    """Name (looked for in bundle_path) or path of a folder with manifest.toml."""
    bundle_path: list[str] = []
    """Folders that hold bundles; empty: the repository's models/, then /var/lib/crier/models."""
    threads: Annotated[int, Field(ge=0, le=64)] = 0
    """llama.cpp threads; 0 chooses from the model's size and the cores."""
    verify: Literal["auto", "full", "size"] = "auto"
    """sha256 at start: of every file up to 64 MiB, of every file, or of none (sizes are always checked)."""
    kv_cache_mb: Annotated[int, Field(ge=0, le=100_000)] = 256
    """Disk space for the state of recorded voices, so that the next start need not compute it; 0 keeps none."""
    profile: bool = False
    """One JSON line in the log per utterance: milliseconds per stage and per frame."""


class SocketConfig(Section):
    """[socket]: the Unix socket."""

    path: str = ""
    """Empty: the systemd-activated socket, else $XDG_RUNTIME_DIR/crier.sock (service: /run/crier/control.sock)."""
    max_clients: Annotated[int, Field(ge=1, le=256)] = 32
    requests_per_second: Annotated[float, Field(gt=0, le=10_000)] = 20
    """Sustained rate a client; bursts of twice as many are taken."""


class MqttConfig(Section):
    """[mqtt]: the broker."""

    enabled: bool = False
    host: Annotated[str, Field(min_length=1)] = "localhost"
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    node: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")] = "speaker"
    """This speaker's part of the topics: crier/NODE/say."""
    base_topic: Annotated[str, Field(pattern=r"^[^+#\x00/]+(/[^+#\x00/]+)*$")] = "crier"
    username: str = ""
    password_file: str = ""
    """File whose first line is the password (systemd: $CREDENTIALS_DIRECTORY/mqtt-password is found by itself)."""
    tls_ca: str = ""
    """CA file; TLS is used when this is set."""
    tls_cert: str = ""
    tls_key: str = ""
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 30
    publish_text: bool = True
    """Put the last spoken text into the retained state; switch off where the broker is not private."""


class AudioConfig(Section):
    """[audio]: where the speech goes."""

    sink: Literal["pyaudio", "wav", "stdout", "fifo", "null"] = "pyaudio"
    device: str = ""
    """Part of a device's name (crier doctor lists them); empty: the system's default."""
    path: str = ""
    """File of the wav and fifo sinks."""
    volume: Annotated[int, Field(ge=0, le=100)] = 100
    """Percent, until the first volume/set."""
    lead_ms: Annotated[int, Field(ge=0, le=10_000)] = 100
    """Silence before speech on a device that was closed; HDMI and Bluetooth need 1000 and more."""
    tail_ms: Annotated[int, Field(ge=0, le=10_000)] = 100
    """Silence after speech, on top of the device's latency."""
    gap_ms: Annotated[int, Field(ge=0, le=10_000)] = 250
    """Silence between two announcements."""
    keep_open: bool = False
    """Keep the device open and fed with silence (some amplifiers cut the first syllable otherwise)."""
    block_ms: Annotated[int, Field(ge=5, le=100)] = 20
    """Samples handed to the device at a time; a stop waits for at most one block and the device's latency."""
    device_wait_s: Annotated[float, Field(ge=0, le=300)] = 5.0
    """How long an utterance waits for a device that has gone before it fails."""

    @model_validator(mode="after")
    def _path_where_needed(self) -> "AudioConfig":
        if self.sink in ("wav", "fifo") and not self.path:
            raise ValueError(f'sink = "{self.sink}" needs path')
        return self


class QueueConfig(Section):
    """[queue]: what waits, and how long."""

    max_waiting: Annotated[int, Field(ge=1, le=1000)] = 32
    ttl_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """Seconds until speech must have started (normal and low)."""
    critical_ttl_s: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    interrupted: Literal["replay", "drop"] = "replay"
    """What becomes of a normal announcement that a critical one cut."""


class TextConfig(Section):
    """[text]: limits and reading."""

    max_chars: Annotated[int, Field(ge=1, le=20_000)] = 2000
    """Longer texts are refused (too_long)."""


class LogConfig(Section):
    """[log]."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Section):
    """The whole of config.toml."""

    engine: EngineConfig = EngineConfig()
    socket: SocketConfig = SocketConfig()
    mqtt: MqttConfig = MqttConfig()
    audio: AudioConfig = AudioConfig()
    queue: QueueConfig = QueueConfig()
    text: TextConfig = TextConfig()
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
