"""A session's samples on their way out: tempo, loudness, back-pressure, and a copy for the phrase cache."""

from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Protocol, Self

from daemon.audio import tempo
from daemon.audio.pcm import scale
from daemon.audio.utterance import Hold
from daemon.engine.session import TtsSession
from daemon.values import Pcm16, Segment

WAIT_S = 0.25
"""Longest wait for room in the ring or for more text before looking around."""


class Ring(Protocol):
    """Where the samples go."""

    def write(self, pcm: Pcm16, timeout_s: float) -> int:
        """Copy in what fits, waiting for room; return how many samples."""
        ...

    def unwrite(self, count: int) -> bool:
        """Take back the last samples if none of them has been read."""
        ...


def pace(segment: Segment, speed: float) -> float:
    """How fast a segment is spoken within a request of ``speed``; 1 for a pause, which lasts as long as it says."""
    wanted = round(min(max(speed * segment.rate, tempo.MIN_SPEED), tempo.MAX_SPEED), 3)
    return wanted if segment.text and wanted != 1.0 and tempo.available() else 1.0


class Writer:
    """Writes samples into a ring, waiting while it is full.

    Args:
        ring: takes them.
        cancelled: asked once a frame and while waiting.
        beat: the thread's heartbeat.
        on_first_sample: called with the time when the first sample is in the ring.
        hold: how much must be in the ring before speech is heard; None where nobody listens.

    Attributes:
        hold: the same, for whoever makes the speech.
        samples: in the ring, or read from it.
    """

    def __init__(
        self,
        ring: Ring,
        cancelled: Callable[[], bool] = lambda: False,
        beat: Callable[[], None] = lambda: None,
        on_first_sample: Callable[[float], None] = lambda _time_s: None,
        hold: Hold | None = None,
    ) -> None:
        self._ring = ring
        self._cancelled = cancelled
        self._beat = beat
        self._on_first_sample = on_first_sample
        self.hold = hold
        self._silent = True
        self.samples = 0

    def stopped(self) -> bool:
        """Whether it was cancelled; the thread lives."""
        self._beat()
        return self._cancelled()

    def write(self, pcm: Pcm16) -> bool:
        """Write int16 [S]; False if cancelled meanwhile."""
        done = 0
        while done < len(pcm):
            if self.stopped():
                return False
            count = self._ring.write(pcm[done:], WAIT_S)
            done += count
            self.samples += count
            if self._silent and count:
                self._silent = False
                self._on_first_sample(monotonic())
        return True

    def unwrite(self, count: int) -> bool:
        """Take back the last ``count`` samples, unless one of them has been read."""
        if not self._ring.unwrite(count):
            return False
        self.samples -= count
        return True


class Output:
    """Takes what a session gives, segment by segment. At speed 1 and full volume every bit passes.

    Args:
        session: gives the chunks, and says what they are of.
        writer: takes the samples.
        speed: of the request.
        keep_bytes: so many bytes of what is written are kept for ``kept``; of more, nothing.
    """

    def __init__(self, session: TtsSession, writer: Writer, *, speed: float, keep_bytes: int = 0) -> None:
        self._session = session
        self._writer = writer
        self._speed = speed
        self._keep_bytes = keep_bytes
        self._kept = bytearray()
        self._tempo: tempo.Tempo | None = None
        self._stretches = False
        self._before = writer.samples
        self._segment_start = self._before
        """Samples written before the segment."""

    @property
    def samples(self) -> int:
        """What has come of the session."""
        return self._writer.samples - self._before

    @property
    def kept(self) -> bytearray | None:
        """All that was written, int16; None if that is more than was to be kept."""
        return self._kept if 2 * self.samples == len(self._kept) else None

    def deliver(self, chunk: Pcm16 | None) -> bool:
        """Write what the session gave, None where it had nothing to say; False if cancelled meanwhile."""
        session = self._session
        if chunk is None:
            return self._end()
        if session.segment_samples == len(chunk):  # the first of its segment, or of another attempt at it
            if not self._end():
                return False
            self._begin(session.segment)
        if session.segment.volume != 100:
            scale(chunk, session.segment.volume)
        if self._tempo is not None and self._stretches:
            written = all(map(self._write, self._tempo.stretch(chunk)))
        else:
            written = self._write(chunk)
        return written and (not session.segment_ended or self._end())

    def take_back(self) -> bool:
        """Take back what was written of the segment; False if some of it has been heard."""
        count = self._writer.samples - self._segment_start
        if not self._writer.unwrite(count):
            return False
        del self._kept[2 * self.samples :]
        return True

    def _begin(self, segment: Segment) -> None:
        self._segment_start = self._writer.samples
        speed = pace(segment, self._speed)
        self._stretches = speed != 1.0
        if self._stretches:
            self._tempo = self._tempo or tempo.Tempo()
            self._tempo.begin(speed)

    def _end(self) -> bool:
        """The segment has ended: write what the tempo holds back."""
        if self._tempo is None or not self._stretches:
            return True
        self._stretches = False
        return all(map(self._write, self._tempo.end()))

    def _write(self, pcm: Pcm16) -> bool:
        if not self._writer.write(pcm):
            return False
        if len(self._kept) + pcm.nbytes <= self._keep_bytes:
            self._kept += pcm.data
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tempo is not None:
            self._tempo.close()
