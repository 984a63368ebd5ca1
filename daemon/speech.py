"""One request on its way from text to samples: feeds a session, and tries again what ran away."""

import logging
import queue
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from daemon.engine.session import MAX_RETRIES, TtsSession
from daemon.forecast import Outlook
from daemon.output import WAIT_S, Output, Writer
from daemon.text_source import OPEN_TEXT_TIMEOUT_S, TextSource
from daemon.values import SAMPLE_RATE, Pcm16

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Spoken:
    """What became of one synthesis."""

    samples: int = 0
    truncated: bool = False
    synthesis_s: float = 0.0
    """Without waiting for room in the ring or for text."""
    cached: bool = False
    """It came from the phrase cache."""
    remote: bool = False
    """It was made elsewhere."""
    keep: Callable[[], None] = lambda: None
    """Writes it into the phrase cache, if it belongs there; for the time when nobody waits for the disk."""

    @property
    def audio_s(self) -> float:
        """Length of the speech."""
        return self.samples / SAMPLE_RATE

    @property
    def rtf(self) -> float | None:
        """Synthesis time over audio time; None where nothing was synthesised here."""
        here = self.samples and not self.cached and not self.remote
        return self.synthesis_s / self.audio_s if here else None


class Speech:
    """One request on its way from text to ring."""

    def __init__(
        self,
        session: TtsSession,
        source: TextSource,
        output: Output,
        writer: Writer,
        outlook: Outlook,
        *,
        keep_times: bool,
    ) -> None:
        self._session = session
        self._source = source
        self._outlook = outlook
        self._output = output
        self._writer = writer
        self._keep_times = keep_times
        self._spoken = Spoken()
        self.frames_ms: list[float] = []

    def run(self) -> Spoken:
        """Speak until all is said or it is cancelled."""
        while self._feed():
            chunk = self._next_chunk()
            if not self._output.deliver(chunk):
                break
            if chunk is not None and self._session.chunk.truncated:
                self._after_runaway()
        self._outlook.close()
        self._spoken.samples = self._output.samples
        return self._spoken

    def _next_chunk(self) -> Pcm16 | None:
        began = perf_counter()
        chunk = self._session.next_audio_chunk()
        took = perf_counter() - began
        self._spoken.synthesis_s += took
        if chunk is not None:
            self._outlook.note(self._session, len(chunk), took)
        if self._keep_times:
            self.frames_ms.append(round(took * 1000, 3))
        return chunk

    def _feed(self) -> bool:
        """Move waiting text into the session; wait for more only when there is nothing to say. False: all is over."""
        session, source = self._session, self._source
        waited_s = 0.0
        while not session.finished and not self._writer.stopped():
            timeout_s = 0.0 if session.has_work or not source.open else WAIT_S
            try:
                piece = source.take(timeout_s)
            except queue.Empty:
                if session.has_work:
                    return True
                waited_s += timeout_s
                if waited_s >= OPEN_TEXT_TIMEOUT_S:
                    logger.warning("text left open for %.0f s; taken as ended", waited_s)
                    source.end()
                continue
            if piece is None:
                session.flush()
            else:
                session.push_text(piece)
                waited_s = 0.0
        return False

    def _after_runaway(self) -> None:
        """Say a segment again with another seed if that can help and nobody has heard it; else keep the cut."""
        session = self._session
        if session.greedy or session.attempt >= MAX_RETRIES or not self._output.take_back():
            self._spoken.truncated = True
        else:
            session.retry_segment()
