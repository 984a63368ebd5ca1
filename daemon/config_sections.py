"""The tables of config.toml: every key, its type, range and default (config.toml itself has the comments)."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    """A table of a configuration file: unknown keys and other types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @field_validator("*", check_fields=False)
    @classmethod
    def _no_nul(cls, value: object) -> object:
        """Neither a path nor an argument can hold one; whoever gets it would raise."""
        parts = value if isinstance(value, list) else [*value.values()] if isinstance(value, dict) else [value]
        if any(isinstance(part, str) and "\0" in part for part in parts):
            raise ValueError("must not hold a NUL character")
        return value


_NAME = 'letters, digits, _ and -, 1 to 64 of them, as in "kitchen"'
_TOPIC = 'a topic without + and #, with no / at its ends nor two in a row, as in "home/crier"'


class EngineConfig(Section):
    """[engine]: the bundle and how it is run."""

    bundle: Annotated[str, Field(min_length=1)] = "starter"
    """Name (looked for in bundle_path) or path of a folder with manifest.toml."""
    bundle_path: list[str] = []
    """Folders that hold bundles; empty: the repository's models/, then /var/lib/crier/models."""
    threads: Annotated[int, Field(ge=0, le=64)] = 0
    """The most llama.cpp threads; 0 chooses from the model's size and the cores."""
    adapt_threads: bool = True
    """Fewer of them while other programs want the cores."""
    batch: Annotated[int, Field(ge=0, le=16)] = 0
    """Sentences of a text that are made side by side; 0 decides by what was measured at start, 1 is one at a time."""
    link_sentences: bool = True
    """Each sentence of a text hears those before it, where the model was trained for that; then ``batch`` is 1."""
    verify: Literal["auto", "full", "size"] = "auto"
    """sha256 at start: of every file up to 64 MiB, of every file, or of none (sizes are always checked)."""
    kv_cache_mb: Annotated[int, Field(ge=0, le=100_000)] = 256
    """Disk space for the state of recorded voices, so that the next start need not compute it; 0 keeps none."""
    cpus: Annotated[list[Annotated[int, Field(ge=0, le=4095)]], Field(max_length=4096)] = []
    """Cores to run on; empty: all there are."""
    mlock: bool = False
    """Keep in memory what has been used once."""
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
    node: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$", description=_NAME)] = "speaker"
    """This speaker's part of the topics: crier/NODE/say."""
    base_topic: Annotated[str, Field(pattern=r"^[^+#\x00/]+(/[^+#\x00/]+)*$", description=_TOPIC)] = "crier"
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
    discovery: bool = True
    """Make the speaker appear in Home Assistant by itself."""
    discovery_prefix: Annotated[str, Field(pattern=r"^[^+#\x00/]+(/[^+#\x00/]+)*$", description=_TOPIC)] = (
        "homeassistant"
    )
    name: Annotated[str, Field(max_length=100)] = ""
    """What Home Assistant calls the speaker; empty: made from node ("kitchen" is "Kitchen speaker")."""
    area: Annotated[str, Field(max_length=100)] = ""
    """The room that Home Assistant is to suggest."""
    stats_s: Annotated[int, Field(ge=5, le=3600)] = 60
    """Seconds between two messages on ``stats``."""

    @field_validator("node")
    @classmethod
    def _one_speaker(cls, node: str) -> str:
        if node == "all":
            raise ValueError('"all" stands for every speaker')
        return node


class HermesConfig(Section):
    """[hermes]: the topics of Snips and Rhasspy, on the broker of [mqtt]."""

    enabled: bool = False
    site_id: Annotated[str, Field(max_length=100)] = ""
    """The siteId that is served; empty: [mqtt] node."""


class WyomingConfig(Section):
    """[wyoming]: a server that returns audio, for Home Assistant's voice pipelines."""

    enabled: bool = False
    uri: Annotated[str, Field(pattern=r"^(tcp|unix)://.+$", description='"tcp://HOST:PORT" or "unix:///PATH"')] = (
        "tcp://127.0.0.1:10200"
    )
    max_clients: Annotated[int, Field(ge=1, le=64)] = 8
    zeroconf: bool = False
    """Announce the server on the local network, so that Home Assistant finds it (tcp only)."""


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
    realtime_priority: Annotated[int, Field(ge=0, le=99)] = 0
    """Of the thread that feeds the device, SCHED_RR; 0: as every other thread."""
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
    emoji: Literal["drop", "name"] = "drop"
    """Leave emoji out, or read their names."""
    lexicon: str = ""
    """A lexicon.toml: words and how they are to be read."""


ChimeName = Annotated[str, Field(max_length=1000)]
"""A built-in chime, one of [chimes.sounds], a path, or "" for none."""


class ChimesOf(Section):
    """[chimes.before] and [chimes.after]: one for each priority."""

    critical: ChimeName = ""
    normal: ChimeName = ""
    low: ChimeName = ""


class ChimesConfig(Section):
    """[chimes]: short sounds around the speech."""

    before: ChimesOf = ChimesOf()
    after: ChimesOf = ChimesOf()
    sounds: dict[str, str] = {}
    """Further chimes that requests may name: name -> path of a sound file."""


ClockTime = Annotated[
    str, Field(pattern=r"^(|([01][0-9]|2[0-3]):[0-5][0-9])$", description='a time of day as in "07:00"')
]


class QuietConfig(Section):
    """[quiet]: hours in which only critical announcements are heard."""

    start: ClockTime = ""
    """Local time, as in "22:00"; empty: no quiet hours."""
    end: ClockTime = ""
    volume: Annotated[int, Field(ge=0, le=100)] = 0
    """Percent that others are spoken with at most; 0: they are not spoken at all."""

    @model_validator(mode="after")
    def _both_or_neither(self) -> "QuietConfig":
        if bool(self.start) != bool(self.end):
            raise ValueError("quiet hours need both start and end")
        return self


class DuckConfig(Section):
    """[duck]: turn other sound down while Crier speaks."""

    start: list[str] = []
    """Command and its arguments, run when speech begins; no shell."""
    end: list[str] = []
    topic: Annotated[str, Field(pattern=r"^[^+#\x00]*$", description="a topic without + and #")] = ""
    """MQTT topic that gets the payloads below."""
    start_payload: str = "ON"
    end_payload: str = "OFF"
    role: Annotated[str, Field(pattern=r"^[A-Za-z-]*$", description='letters and -, as in "announce"')] = ""
    """The media role that PulseAudio and PipeWire see, as in "announce"."""
    hold_ms: Annotated[int, Field(ge=0, le=60_000)] = 500
    """Silence after speech before the end is told."""


class PhrasesConfig(Section):
    """[phrases]: speech that was made before is played from disk."""

    cache: bool = True
    """Off: nothing that is spoken is written to disk."""
    max_mb: Annotated[int, Field(ge=1, le=100_000)] = 64


class ShareConfig(Section):
    """[share]: speech made on another machine, over the broker of [mqtt]."""

    role: Literal["", "renderer", "player"] = ""
    """renderer: make speech for others too; player: let a renderer make it."""
    group: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$", description=_NAME)] = "crier"
    """Players and renderers of one group work together."""
    wait_s: Annotated[float, Field(gt=0, le=60)] = 3.0
    """How long a player waits for a renderer's audio before it speaks with its own voice."""


class LogConfig(Section):
    """[log]."""

    level: Literal["debug", "info", "warning", "error"] = "info"
