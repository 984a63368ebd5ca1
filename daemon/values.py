"""Values that cross between parts: requests, events, state, segments, array types.

Shape letters, the same everywhere: T frames, Q codebooks, C codebook size, D width, S samples, V vocabulary.
Batch is 1 and has no letter.
"""

import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

Pcm16 = NDArray[np.int16]
"""int16 [S], 24 kHz mono."""
F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
Array = NDArray[Any]

MAX_CONTEXT = 32
"""Entries of a request's context."""
SAMPLE_RATE = 24_000
"""Hz, of everything between codec and sink."""


def _one_line(name: str) -> str:
    """Names are written to logs and topics: no control characters, no line breaks."""
    if any(unicodedata.category(char) in {"Cc", "Zl", "Zp"} for char in name):
        raise ValueError("control characters and line breaks are not allowed")
    return name


def _no_keyword(request_id: str) -> str:
    """What ``stop`` takes for something else is no id."""
    if request_id in ("all", "current"):
        raise ValueError('"all" and "current" cannot be ids')
    return request_id


RequestId = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_one_line)]
Speed = Annotated[float, Field(ge=0.5, le=2.0, allow_inf_nan=False)]
"""Of speech: 2 takes half the time."""
VoiceName = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_one_line)]


class Priority(StrEnum):
    """How a request queues (PROTOCOL.md)."""

    CRITICAL = "critical"
    NORMAL = "normal"
    LOW = "low"


_SSIP = {"important": "critical", "message": "normal", "text": "normal", "notification": "low", "progress": "low"}


def _priority(value: Any) -> Any:
    return Priority(_SSIP.get(value, value)) if isinstance(value, str) else value


def _context(value: Any) -> Any:
    """The wire has lists, and null for nothing."""
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(entry, str | dict | Turn) for entry in value):
        raise ValueError('must be a list of request ids and {"text": ..., "speaker": ...}')
    if len(value) > MAX_CONTEXT:
        raise ValueError(f"at most {MAX_CONTEXT} entries, got {len(value)}")
    return tuple(value)


class EventType(StrEnum):
    """What happened to a request; all but the first two are final."""

    QUEUED = "queued"
    STARTED = "started"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REJECTED = "rejected"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """Whether no event follows for the same request."""
        return self not in (EventType.QUEUED, EventType.STARTED)


class Reason(StrEnum):
    """Why, in an event."""

    RETAINED = "retained"
    QUEUE_FULL = "queue_full"
    TOO_LONG = "too_long"
    EMPTY = "empty"
    BAD_JSON = "bad_json"
    UNKNOWN_VOICE = "unknown_voice"
    DUPLICATE = "duplicate"
    STOPPED = "stopped"
    PREEMPTED = "preempted"
    REPLACED = "replaced"
    MUTED = "muted"
    TTL = "ttl"
    AUDIO = "audio"
    ENGINE = "engine"


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Turn(_Value):
    """Something said before, in a conversation, of which there is only the text."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    text: Annotated[str, Field(min_length=1)]
    speaker: Annotated[int, Field(ge=0, le=99)] = 0
    """Who said it, by the number the model knows."""


ContextEntry = Annotated[
    Annotated[RequestId, Tag("id")] | Annotated[Turn, Tag("turn")],
    Discriminator(lambda value: "id" if isinstance(value, str) else "turn"),
]


class SpeakRequest(_Value):
    """One thing to say, as it came from the wire. Strict JSON types: ``"volume": "50"`` is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    text: str
    id: Annotated[RequestId, AfterValidator(_no_keyword)]
    priority: Annotated[Priority, BeforeValidator(_priority)] = Priority.NORMAL
    voice: VoiceName | None = None
    key: RequestId | None = None
    ttl_s: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] | None = None
    """Seconds until speech must have started; None is the priority's default."""
    volume: Annotated[int, Field(ge=0, le=100)] | None = None
    """Percent, in place of the speaker's volume for this request alone."""
    speed: Speed | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    lang: Annotated[str, Field(min_length=2, max_length=16)] | None = None
    chime: Annotated[str, Field(max_length=64), AfterValidator(_one_line)] | None = None
    """Name of the sound before the speech, in place of the configured one; "none" for none."""
    context: Annotated[tuple[ContextEntry, ...], BeforeValidator(_context)] = ()
    """What was said before, oldest first: ids of earlier requests, or texts; for voices that go on from it."""


class Event(_Value):
    """What became of a request. ``to_wire`` leaves out what is not known."""

    event_type: EventType
    id: str
    reason: Reason | None = None
    message: str | None = None
    """What was wrong with a request that is refused, for people."""
    audio_s: float | None = None
    """Seconds that were heard: speech, and the chimes around it."""
    ttfa_ms: float | None = None
    """Request accepted to its first speech sample in the ring."""
    wait_s: float | None = None
    """Queued: how long until its speech is expected to begin; started: how long that took. None where it is brief."""
    underrun_ms: float | None = None
    """Silence within it, because its speech was not made in time."""
    truncated: bool | None = None
    """A segment ran away and was cut."""

    def to_wire(self) -> dict[str, Any]:
        """The event as the JSON object of PROTOCOL.md."""
        return self.model_dump(mode="json", exclude_none=True)


class SpeakerState(StrEnum):
    """What the speaker is doing."""

    IDLE = "idle"
    SYNTHESIZING = "synthesizing"
    SPEAKING = "speaking"
    PAUSED = "paused"
    MUTED = "muted"
    ERROR = "error"


class State(_Value):
    """The retained state of the speaker (PROTOCOL.md)."""

    state: SpeakerState
    id: str | None
    """The request being spoken."""
    queue: int
    """How many wait."""
    last_text: str | None
    volume: int
    mute: bool
    voice: str
    audio_ok: bool
    speed: float = 1.0
    """Has a topic of its own; not part of the JSON object."""

    def to_wire(self) -> dict[str, Any]:
        """The state as a JSON object."""
        return self.model_dump(mode="json", exclude={"speed"})


class SettingsChange(_Value):
    """What ``set`` and the ``*/set`` topics change; None leaves a setting alone."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    volume: Annotated[int, Field(ge=0, le=100)] | None = None
    volume_step: Annotated[int, Field(ge=-100, le=100)] | None = None
    """Added to the volume, then clamped to 0..100."""
    mute: bool | None = None
    voice: VoiceName | None = None
    speed: Speed | None = None


class VoiceInfo(_Value):
    """A voice of the loaded bundle."""

    name: str
    description: str
    language: str
    default: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to a request that was taken."""

    id: str
    queue: int
    """How many are to be spoken before it."""
    wait_s: float | None = None
    """Seconds until its speech is expected to begin; None where that is brief."""


class Segment(NamedTuple):
    """Normalised text that is synthesised in one go, or a pause."""

    text: str
    """Empty for a pause."""
    offset: int
    """Where it begins in the raw text that was pushed, in characters."""
    pause_s: float = 0.0
    """Seconds of silence, where it is a pause."""
    rate: float = 1.0
    """How fast it is spoken, times the request's speed; 0.5 to 2."""
    volume: int = 100
    """Percent of the request's volume."""


class Segmenter(Protocol):
    """Text in pieces to segments; the same segments however the text is cut into pieces."""

    def push(self, text: str) -> list[Segment]:
        """Take more text; return the segments that are now complete."""
        ...

    def flush(self) -> list[Segment]:
        """The text has ended; return what is left."""
        ...
