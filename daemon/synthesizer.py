"""Text to PCM in the ring: normalise, segment, run the session, and keep back-pressure and cancellation honest."""

import json
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from time import monotonic, perf_counter
from typing import Protocol

from daemon.engine.engine import Engine
from daemon.engine.session import TtsSession
from daemon.errors import BadRequestError
from daemon.text.normalize import normalize
from daemon.text.segment import TextSegmenter
from daemon.values import SAMPLE_RATE, Pcm16, SpeakRequest, Turn

logger = logging.getLogger(__name__)

WAIT_S = 0.25
"""Longest wait for room in the ring or for more text before looking around."""
OPEN_TEXT_TIMEOUT_S = 30.0
"""A request whose text is left open this long is taken to have ended."""
MAX_RETRIES = 2


class Ring(Protocol):
    """Where the samples go."""

    def write(self, pcm: Pcm16, timeout_s: float) -> int:
        """Copy in what fits, waiting for room; return how many samples."""
        ...

    def unwrite(self, count: int) -> bool:
        """Take back the last samples if none of them has been read."""
        ...


class TextSource:
    """The text of one request, which may still be growing. One reader; any thread may add."""

    def __init__(self, text: str, *, more: bool) -> None:
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self.text = text
        self.open = more
        self._pieces.put(text)
        if not more:
            self._pieces.put(None)

    def append(self, text: str, max_chars: int) -> None:
        """Add text.

        Raises:
            BadRequestError: it has ended, or would become too long.
        """
        with self._lock:
            if not self.open:
                raise BadRequestError("bad_request", "the text of this request has ended")
            if len(self.text) + len(text) > max_chars:
                raise BadRequestError("too_long", f"more than {max_chars} characters")
            self.text += text
            self._pieces.put(text)

    def end(self) -> None:
        """Nothing more comes; may be called again."""
        with self._lock:
            if self.open:
                self.open = False
                self._pieces.put(None)

    def take(self, timeout_s: float) -> str | None:
        """The next piece, None when the text has ended.

        Raises:
            queue.Empty: nothing came in time.
        """
        return self._pieces.get(timeout=timeout_s) if timeout_s else self._pieces.get_nowait()


@dataclass(slots=True)
class Spoken:
    """What became of one synthesis."""

    samples: int = 0
    truncated: bool = False
    synthesis_s: float = 0.0
    """Without waiting for room in the ring or for text."""

    @property
    def audio_s(self) -> float:
        """Length of the speech."""
        return self.samples / SAMPLE_RATE

    @property
    def rtf(self) -> float | None:
        """Synthesis time over audio time."""
        return self.synthesis_s / self.audio_s if self.samples else None


class Synthesizer:
    """Runs one request at a time on the synth thread.

    Args:
        engine: the loaded bundle.
        profile: log a JSON line with the milliseconds of every stage after each utterance.
    """

    def __init__(self, engine: Engine, *, profile: bool) -> None:
        self._engine = engine
        self._profile = profile
        self._alphabet = engine.bundle.manifest.text.alphabet
        self._max_tokens = engine.bundle.manifest.limits.max_text_tokens

    def expected_s(self, text: str) -> float:
        """How long a text is expected to last when spoken; 0 if nothing of it can be."""
        normalized = self._normalize(text)
        return self._engine.expected_s(self._engine.count_tokens(normalized)) if normalized else 0.0

    def segmenter(self) -> TextSegmenter:
        """A fresh segmenter for this bundle's alphabet and limits."""
        return TextSegmenter(self._normalize, self._engine.count_tokens, self._max_tokens)

    def _normalize(self, text: str) -> str:
        return normalize(text, alphabet=self._alphabet)

    def _context(self, entries: Sequence[str | Turn]) -> list[str | Turn]:
        """The entries with their texts as the model reads them; what has nothing to say is left out."""
        spoken = [
            entry
            if isinstance(entry, str)
            else Turn.model_construct(text=self._normalize(entry.text), speaker=entry.speaker)
            for entry in entries
        ]
        return [entry for entry in spoken if isinstance(entry, str) or entry.text]

    def speak(
        self,
        request: SpeakRequest,
        source: TextSource,
        ring: Ring,
        cancelled: Callable[[], bool],
        *,
        voice: str | None,
        beat: Callable[[], None],
        on_first_sample: Callable[[float], None],
    ) -> Spoken:
        """Synthesise a request into the ring until it is said or cancelled.

        Args:
            request: gives the seed.
            source: gives the text.
            ring: takes the samples; while it is full this waits.
            cancelled: asked once a frame and while waiting.
            voice: the voice to speak with.
            beat: the synth thread's heartbeat.
            on_first_sample: called with the time when the first sample is in the ring.

        Raises:
            EngineError: a native library failed.
            BadRequestError: the model cannot take the text.
        """

        def stop() -> bool:
            beat()
            return cancelled()

        session = self._engine.session(
            self.segmenter(), voice=voice, seed=request.seed, context=self._context(request.context), stop=stop
        )
        times = self._engine.reset_times()
        speech = _Speech(session, source, ring, cancelled, beat, keep_times=self._profile)
        spoken = speech.run(on_first_sample)
        if spoken.truncated:
            logger.warning("runaway request_id=%s: cut", request.id)
        self._engine.history.add(request.id, session.conversation())
        if not cancelled():
            # A recording or context that had to be read first says nothing of how fast speech comes.
            self._engine.note_rtf(spoken.synthesis_s - times.prefill, spoken.audio_s)
        if self._profile:
            stages = {name: round(value * 1000, 3) for name, value in asdict(times).items() if name != "frames"}
            logger.info("profile %s", json.dumps({"id": request.id, **stages, "frames_ms": speech.frames_ms}))
        return spoken


class _Speech:
    """One request on its way from text to ring."""

    def __init__(
        self,
        session: TtsSession,
        source: TextSource,
        ring: Ring,
        cancelled: Callable[[], bool],
        beat: Callable[[], None],
        *,
        keep_times: bool,
    ) -> None:
        self._session = session
        self._source = source
        self._ring = ring
        self._cancelled = cancelled
        self._beat = beat
        self._keep_times = keep_times
        self._spoken = Spoken()
        self.frames_ms: list[float] = []

    def run(self, on_first_sample: Callable[[float], None]) -> Spoken:
        """Speak until all is said or it is cancelled."""
        session, spoken, silent = self._session, self._spoken, True
        while not self._cancelled() and self._feed():
            self._beat()
            chunk = self._next_chunk()
            if chunk is None:
                continue
            if not self._write(chunk):
                break
            if silent:
                silent = False
                on_first_sample(monotonic())
            if session.chunk.truncated:
                self._after_runaway()
        spoken.samples = session.num_samples
        return spoken

    def _next_chunk(self) -> Pcm16 | None:
        began = perf_counter()
        chunk = self._session.next_audio_chunk()
        took = perf_counter() - began
        self._spoken.synthesis_s += took
        if self._keep_times:
            self.frames_ms.append(round(took * 1000, 3))
        return chunk

    def _feed(self) -> bool:
        """Move waiting text into the session; wait for more only when there is nothing to say. False: all said."""
        session, source = self._session, self._source
        waited_s = 0.0
        while not session.finished:
            timeout_s = 0.0 if session.has_work or not source.open else WAIT_S
            try:
                piece = source.take(timeout_s)
            except queue.Empty:
                if session.has_work:
                    return True
                waited_s += timeout_s
                self._beat()
                if waited_s >= OPEN_TEXT_TIMEOUT_S:
                    logger.warning("text left open for %.0f s; taken as ended", waited_s)
                    source.end()
                if self._cancelled():
                    return False
                continue
            if piece is None:
                session.flush()
            else:
                session.push_text(piece)
                waited_s = 0.0
        return False

    def _write(self, chunk: Pcm16) -> bool:
        """Put a chunk into the ring, waiting while it is full; False if cancelled meanwhile."""
        done = 0
        while done < len(chunk):
            if self._cancelled():
                return False
            done += self._ring.write(chunk[done:], WAIT_S)
            self._beat()
        return True

    def _after_runaway(self) -> None:
        """Say a segment again with another seed if that can help and nobody has heard it; else keep the cut."""
        session = self._session
        if session.greedy or session.attempt >= MAX_RETRIES or not self._ring.unwrite(session.segment_samples):
            self._spoken.truncated = True
        else:
            session.retry_segment()
