"""Speech for others than the sound card: renders, a sentence at a time, when no announcement wants the voice."""

import logging
import queue
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from daemon.desk import Desk
from daemon.errors import BadRequestError, EngineError, SpeechError
from daemon.metrics import Metrics
from daemon.output import Writer
from daemon.ports import RenderListener
from daemon.sentences import SentenceCutter
from daemon.speech import Spoken
from daemon.synthesizer import Synthesizer
from daemon.text_source import OPEN_TEXT_TIMEOUT_S, TextSource
from daemon.values import Pcm16, SpeakRequest

logger = logging.getLogger(__name__)

MAX_RENDERS = 16


@dataclass(frozen=True, slots=True)
class Manner:
    """What a request leaves open is decided when it is accepted, so that all its sentences sound alike."""

    voice: str | None
    speed: float
    language: str
    """Of the voice."""


class Render:
    """One render: a ``RenderTicket`` for its door, a list of sentences for the synth thread.

    Attributes:
        cancelled: nobody wants the rest.
        handed: samples of the current sentence that the listener has.
    """

    def __init__(
        self, request: SpeakRequest, listener: RenderListener, manner: Manner, desk: Desk, *, more: bool, max_chars: int
    ) -> None:
        self.request = request
        self.manner = manner
        self.cancelled = False
        self.handed = 0
        self._listener = listener
        self._desk = desk
        self._max_chars = max_chars
        self._source = TextSource(request.text, more=more)
        self._cutter = SentenceCutter(manner.language)
        self._sentences: deque[str] = deque()
        self._read_all = False
        self._waiting_since: float | None = None

    # RenderTicket: any thread

    def append(self, text: str) -> None:
        """Add text."""
        self._source.append(text, self._max_chars)
        self._wake()

    def end(self) -> None:
        """No more text comes."""
        self._source.end()
        self._wake()

    def cancel(self) -> None:
        """Nobody wants the rest."""
        self.cancelled = True
        self._source.end()
        self._wake()

    def _wake(self) -> None:
        with self._desk.changed:
            self._desk.wake()

    # The synth thread

    @property
    def over(self) -> bool:
        """Whether nothing more is to be made."""
        return self.cancelled or (self._read_all and not self._sentences)

    def sentence(self) -> str | None:
        """What is to be said next; None if that is not known yet, or ``over``."""
        while not self._read_all:
            try:
                piece = self._source.take(0.0)
            except queue.Empty:
                break
            self._waiting_since = None
            self._read_all = piece is None
            self._sentences.extend(self._cutter.flush() if piece is None else self._cutter.push(piece))
        if self._sentences:
            self._waiting_since = None
            return self._sentences[0]
        if not self._read_all:
            self._watch_silence()
        return None

    def said(self) -> None:
        """The sentence is made."""
        self._sentences.popleft()
        self.handed = 0

    def give(self, pcm: Pcm16) -> None:
        """Hand samples over; a listener that raises gets no more."""
        self.handed += len(pcm)
        try:
            self._listener.on_audio(pcm)
        except Exception:
            logger.exception("bug in a listener of render request_id=%s", self.request.id)
            self.cancelled = True

    def finish(self, error: SpeechError | None) -> None:
        """Tell the end."""
        self._source.end()
        try:
            self._listener.on_end(error)
        except Exception:
            logger.exception("bug in a listener of render request_id=%s", self.request.id)

    def _watch_silence(self) -> None:
        now = monotonic()
        if self._waiting_since is None:
            self._waiting_since = now
        elif now - self._waiting_since >= OPEN_TEXT_TIMEOUT_S:
            logger.warning(
                "render request_id=%s: text left open for %.0f s; taken as ended", self.request.id, OPEN_TEXT_TIMEOUT_S
            )
            self._source.end()


class _Handover:
    """The ``Ring`` of one sentence: passes on what its listener does not have yet. Samples cannot be taken back.

    A sentence that was interrupted is made again, and the same request gives the same samples.
    """

    def __init__(self, render: Render) -> None:
        self._render = render
        self._position = 0

    def write(self, pcm: Pcm16, timeout_s: float) -> int:  # noqa: ARG002 (it never waits)
        """Pass on int16 [S]."""
        fresh = pcm[max(self._render.handed - self._position, 0) :]
        self._position += len(pcm)
        if len(fresh) and not self._render.cancelled:
            self._render.give(fresh)
        return len(pcm)

    def unwrite(self, count: int) -> bool:
        """Samples that were handed over stay where they are."""
        return count == 0


class Renders:
    """All renders under way, in the order of their turns. ``begin`` may be called from any thread.

    Args:
        desk: its lock guards the list; it is woken when there is something to do.
        synthesizer: used on the synth thread.
        metrics: counts how renders end.
        beat: the synth thread's heartbeat.
    """

    def __init__(self, desk: Desk, synthesizer: Synthesizer, *, metrics: Metrics, beat: Callable[[], None]) -> None:
        self._desk = desk
        self._synthesizer = synthesizer
        self._metrics = metrics
        self._beat = beat
        self._live: deque[Render] = deque()

    def begin(
        self, request: SpeakRequest, listener: RenderListener, manner: Manner, *, more: bool, max_chars: int
    ) -> Render:
        """Take a render.

        Raises:
            BadRequestError: queue_full.
        """
        desk = self._desk
        with desk.changed:
            if desk.stopping or desk.failed:
                raise BadRequestError("queue_full", "the daemon is shutting down")
            if len(self._live) >= MAX_RENDERS:
                raise BadRequestError("queue_full", f"{MAX_RENDERS} renders are under way")
            render = Render(request, listener, manner, desk, more=more, max_chars=max_chars)
            self._live.append(render)
            desk.wake()
        return render

    def step(self, interrupted: Callable[[], bool]) -> bool:
        """Make the next sentence; False if there is none.

        Args:
            interrupted: asked once a frame; if true the sentence is left, and made again another time.

        Raises:
            EngineError: its render has ended with it; the engine must be rebuilt.
        """
        for _ in range(len(self._live)):
            render = self._live[0]
            sentence = None if render.over else render.sentence()
            if render.over:
                self._end(render, None)
            elif sentence is None:
                self._live.rotate(-1)
            else:
                self._make(render, sentence, interrupted)
                return True
        return False

    def close(self, error: SpeechError) -> None:
        """End them all; ``begin`` refuses by now."""
        while self._live:
            self._end(self._live[0], error)

    def _make(self, render: Render, sentence: str, interrupted: Callable[[], bool]) -> None:
        stopped = False

        def stop() -> bool:
            nonlocal stopped
            stopped = stopped or render.cancelled or interrupted()
            return stopped

        try:
            spoken = self._speak(render, sentence, stop)
        except SpeechError as err:
            logger.error("render failed request_id=%s: %s", render.request.id, err)  # noqa: TRY400 (one line says it)
            self._end(render, err)
            if isinstance(err, EngineError):
                raise
            return
        if stopped:
            return  # its turn is not over
        if spoken.rtf is not None:
            self._metrics.add_rtf(spoken.rtf)
        if spoken.truncated:
            self._metrics.count_runaway()
        spoken.keep()
        render.said()
        with self._desk.changed:
            self._live.rotate(-1)

    def _speak(self, render: Render, sentence: str, stop: Callable[[], bool]) -> Spoken:
        """One sentence to its listener; whatever goes wrong is a SpeechError."""
        try:
            return self._synthesizer.speak(
                render.request.model_copy(update={"text": sentence}),
                TextSource(sentence, more=False),
                Writer(_Handover(render), stop, self._beat),
                voice=render.manner.voice,
                speed=render.manner.speed,
            )
        except SpeechError:
            raise
        except Exception as err:
            logger.exception("bug in synthesis request_id=%s", render.request.id)
            raise EngineError(f"bug: {err}") from err

    def _end(self, render: Render, error: SpeechError | None) -> None:
        with self._desk.changed:
            self._live.remove(render)
        outcome = "failed" if error else "cancelled" if render.cancelled else "finished"
        self._metrics.count_render(outcome)
        logger.info("render request_id=%s outcome=%s", render.request.id, outcome)
        render.finish(error)
