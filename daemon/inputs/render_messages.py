"""Jobs for renderers and the speech that comes back: bytes to values and values to bytes (docs/speakers.md).

Pure: no I/O and no clock. Whatever the bytes are, ``parse_job`` returns a request or raises BadRequestError, and
``parse_audio`` returns a part or None.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from daemon.errors import BadRequestError
from daemon.inputs.messages import build_request, check_size, parse_object, to_json
from daemon.values import SAMPLE_RATE, Pcm16, SpeakRequest

JOB_KEYS = ("text", "id", "voice", "seed", "speed", "lang")
"""What a job may say; the rest of a request is the player's own matter."""
PART_SAMPLES = SAMPLE_RATE // 2
"""The most in one message."""
BUSY = "busy"
"""The error of a renderer that has enough to do: ask another."""
NOBODY = "nobody"
"""The error where the broker has no renderer; never sent."""

_MAX_DIGITS = 9
_MAX_ERROR_CHARS = 500
_SILENCE: Pcm16 = np.zeros(0, dtype=np.int16)


class RenderTopics:
    """Where the players and renderers of one group meet.

    Args:
        base: the first part of all topics.
        group: as in [share].
    """

    def __init__(self, base: str, group: str) -> None:
        prefix = f"{base}/render/{group}/"
        self.jobs = prefix + "jobs"
        """Players ask here."""
        self.shared_jobs = f"$share/{group}/{self.jobs}"
        """What renderers subscribe to: each job reaches one of them."""
        self.cancel = prefix + "cancel"
        """The payload is a job's correlation data."""
        self.ready = prefix + "ready"
        """A renderer has come."""
        self._audio = prefix + "audio/"

    def audio(self, node: str) -> str:
        """Where a player wants its speech."""
        return self._audio + node

    def is_audio(self, topic: str) -> bool:
        """Whether a renderer may publish there: a job must not make it speak on other topics."""
        return topic.startswith(self._audio) and len(topic) > len(self._audio) and not {"+", "#"} & set(topic)


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioPart:
    """One message of a renderer's answer."""

    seq: int
    """Counts the messages of one answer from 0."""
    pcm: Pcm16 = field(default_factory=lambda: _SILENCE)
    """int16 [S], at most PART_SAMPLES."""
    end: bool = False
    """Nothing follows."""
    error: str = ""
    """Why nothing follows: ``busy`` or a code of the wire."""
    message: str = ""
    """The error in words."""
    renderer: str = ""
    """The node that answers."""
    rtf: float = 0.0
    """How fast it makes speech, as far as it knows."""


def encode_job(request: SpeakRequest) -> bytes:
    """A request as a job's payload."""
    return to_json(request.model_dump(mode="json", include=set(JOB_KEYS), exclude_none=True))


def parse_job(payload: bytes) -> SpeakRequest:
    """The request of a job.

    Raises:
        BadRequestError: always and only this, with the wire's code.
    """
    check_size(payload)
    data = parse_object(payload)
    unknown = next((key for key in data if key not in JOB_KEYS), None)
    if unknown is not None:
        raise BadRequestError("bad_request", f"a job takes {', '.join(JOB_KEYS)}, got {ascii(unknown)[:80]}")
    return build_request(data)


def encode_audio(part: AudioPart) -> tuple[bytes, dict[str, str]]:
    """The payload and the user properties of a part."""
    user = {"seq": str(part.seq), "renderer": part.renderer, "rtf": f"{part.rtf:.3f}"}
    if part.end:
        user["end"] = "true"
    if part.error:
        user["error"] = part.error
        return part.message[:_MAX_ERROR_CHARS].encode("utf-8", "replace"), user
    return part.pcm.astype("<i2", copy=False).tobytes(), user


def parse_count(text: str, default: int = 0) -> int:
    """A number that is written as such."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else default


def parse_audio(payload: bytes, user: Mapping[str, str]) -> AudioPart | None:
    """The part that a message is; None if it is none."""
    if "seq" not in user or (seq := parse_count(user["seq"], -1)) < 0:
        return None
    error, renderer = user.get("error", ""), user.get("renderer", "")
    if error:
        message = payload[: 4 * _MAX_ERROR_CHARS].decode("utf-8", "replace")[:_MAX_ERROR_CHARS]
        return AudioPart(seq=seq, error=error, message=message, renderer=renderer, rtf=_rtf(user))
    if len(payload) % 2 or len(payload) > 2 * PART_SAMPLES:
        return None
    pcm = np.frombuffer(payload, "<i2").astype(np.int16, copy=False)
    return AudioPart(seq=seq, pcm=pcm, end=user.get("end") == "true", renderer=renderer, rtf=_rtf(user))


def _rtf(user: Mapping[str, str]) -> float:
    try:
        rtf = float(user.get("rtf", ""))
    except ValueError:
        return 0.0
    return rtf if 0 <= rtf < float("inf") else 0.0
