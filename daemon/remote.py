"""A player's voice: speech that a renderer elsewhere makes, or the local bundle where there is no renderer.

The text goes out in pieces of whole sentences, one after the other, so that little of it waits anywhere and little is
lost with a renderer that dies. What a piece sounds like must not depend on how often it was asked for: a second answer
goes on from what has been heard only if it begins with the very same samples.
"""

import logging
import time
import zlib
from collections import deque
from collections.abc import Iterator
from enum import Enum, auto
from time import monotonic

from daemon.engine.voices import Voices
from daemon.errors import BadRequestError, RemoteError
from daemon.inputs.render_messages import BUSY, NOBODY, AudioPart
from daemon.inputs.render_player import Answer, RenderPlayer
from daemon.metrics import Metrics
from daemon.output import WAIT_S, Writer
from daemon.prebuffer import COMFORTABLE_RTF, prebuffer_samples
from daemon.sentences import SentenceCutter
from daemon.speech import Spoken
from daemon.synthesizer import Synthesizer
from daemon.text_source import TextSource
from daemon.values import Pcm16, SpeakRequest

logger = logging.getLogger(__name__)

PIECE_CHARS = 600
"""Sentences are asked for together up to this length: less than a minute."""
MAX_PIECE_S = 120.0
"""A piece that is expected to last longer, as SSML with long pauses may, is spoken by the local voice."""
RETRY_S = 30.0
"""When no renderer has answered, none is asked for so long, unless one says that it has come."""
_RECOVER_S = 10.0
"""How long what has been heard in part may wait for a renderer that goes on with it."""
_STALL_S = 3.0
"""How long a renderer may be silent in the middle, at least; it sends what it holds back once a second."""
_ASK_AGAIN_S = 0.1
_NETWORK_RTF = COMFORTABLE_RTF + 0.01
"""However fast the renderer, a cushion is kept for the network."""


class _Outcome(Enum):
    """What came of asking for a piece."""

    DONE = auto()
    """All of it is in the ring, or it was cancelled."""
    TRY_AGAIN = auto()
    """The renderer is busy, or another has come or may come."""
    NONE = auto()
    """No renderer has begun."""
    BROKEN = auto()
    """A renderer has begun and not ended."""


class _Intake:
    """One piece's samples on their way into the ring, over as many answers as it takes.

    Args:
        writer: takes them.
        expected_s: how much speech follows, if all of it is to start here; 0 where it has started already.
    """

    def __init__(self, writer: Writer, expected_s: float) -> None:
        self.writer = writer
        self._expected_s = expected_s
        self._written = 0
        self._checksum = 0
        self.restart()

    @property
    def samples(self) -> int:
        """How much of it is in the ring."""
        return self._written

    def restart(self) -> None:
        """Another answer begins, from the first sample."""
        self._passed = self._passed_checksum = 0
        self._held: list[Pcm16] = []
        self._held_samples = 0

    def take(self, part: AudioPart) -> bool:
        """Take a part; False if it was cancelled, or is not what was heard before."""
        pcm = part.pcm
        if self._passed < self._written:
            known, pcm = pcm[: self._written - self._passed], pcm[self._written - self._passed :]
            self._passed += len(known)
            self._passed_checksum = zlib.crc32(known.tobytes(), self._passed_checksum)
            if self._passed == self._written and self._passed_checksum != self._checksum:
                return False
        self._held.append(pcm)
        self._held_samples += len(pcm)
        wanted = prebuffer_samples(max(part.rtf, _NETWORK_RTF), self._expected_s) if self._expected_s else 0
        if self._held_samples < wanted and not part.end:
            return True
        return self._release() and (self._passed == self._written or not part.end)

    def take_back(self) -> bool:
        """Have nothing of it in the ring; False if some has been heard."""
        if self._written and not self.writer.unwrite(self._written):
            return False
        self._written = self._checksum = 0
        return True

    def _release(self) -> bool:
        """Write what was held back until there was enough."""
        self._expected_s = 0.0
        held, self._held, self._held_samples = self._held, [], 0
        for pcm in held:
            if not self.writer.write(pcm):
                return False
            self._written += len(pcm)
            self._passed += len(pcm)
            self._checksum = zlib.crc32(pcm.tobytes(), self._checksum)
        return True


class RemoteSynthesizer:
    """Speaks as ``Synthesizer`` does, on the synth thread.

    A text that is still open, and a request with a context, are the local voice's: neither can be sent as a whole.

    Args:
        local: speaks where nobody else does.
        voices: the local ones.
        renderers: asked for each piece.
        wait_s: how long for the first samples, and for those that follow.
        metrics: counts who has spoken.
    """

    def __init__(
        self, local: Synthesizer, voices: Voices, renderers: RenderPlayer, *, wait_s: float, metrics: Metrics
    ) -> None:
        self._local = local
        self._voices = voices
        self._renderers = renderers
        self._wait_s = wait_s
        self._metrics = metrics
        self._silent_until = 0.0
        self._arrivals = 0
        self._trouble = ""
        """Why the last piece was spoken here."""
        self._told: bool | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether a renderer is likely to make what comes next. Any thread."""
        return self._told is not False and self._renderers.reachable

    def speak(
        self, request: SpeakRequest, source: TextSource, writer: Writer, *, voice: str | None, speed: float
    ) -> Spoken:
        """Speak a request into the ring until it is said or cancelled, as ``Synthesizer.speak`` does.

        Raises:
            RemoteError: a renderer left off in the middle, and no other goes on from there.
            SpeechError: what the local voice raises.
        """
        rest = source
        if not source.open and not request.context:
            if writer.hold is not None:
                writer.hold.samples = 0  # what comes is held back before it gets there
            left = self._have_made(request.model_copy(update={"voice": voice, "speed": speed}), source.text, writer)
            if not left or writer.stopped():
                return Spoken(samples=writer.samples, remote=True)
            rest = TextSource(left, more=False)
        voice = local_voice(self._voices, voice, request.lang)
        return self._local.speak(request, rest, writer, voice=voice, speed=speed)

    def _have_made(self, request: SpeakRequest, text: str, writer: Writer) -> str:
        """Have as much of a text made as renderers will; returns the rest."""
        pieces = deque(self._cut(request, text))
        while pieces and not writer.stopped():
            piece, expected_s = pieces[0]
            total_s = 0.0 if writer.samples else sum(seconds for _, seconds in pieces)
            asked = request.model_copy(update={"text": piece})
            if expected_s > MAX_PIECE_S or not self._have_piece_made(asked, _Intake(writer, total_s)):
                self._metrics.count_remote(fallback=True)
                self._tell(remote=False)
                break
            pieces.popleft()
        else:
            self._metrics.count_remote(fallback=False)
            self._tell(remote=True)
        return " ".join(piece for piece, _ in pieces)

    def _cut(self, request: SpeakRequest, text: str) -> Iterator[tuple[str, float]]:
        """The pieces of a text, with the seconds that each is expected to last."""
        voice = local_voice(self._voices, request.voice, None)
        cutter = SentenceCutter(request.lang or self._voices.get(voice).language)
        sentences = [*cutter.push(text), *cutter.flush()]
        while sentences:
            piece = sentences.pop(0)
            while sentences and len(piece) + len(sentences[0]) < PIECE_CHARS:
                piece += " " + sentences.pop(0)
            cut = request.model_copy(update={"text": piece, "speed": None})  # what cannot be had here may be had there
            yield piece, self._local.estimate(cut, voice=voice, speed=request.speed or 1.0).audio_s

    def _have_piece_made(self, request: SpeakRequest, intake: _Intake) -> bool:
        """Have a piece made and write it; False if no renderer will, and nothing of it is in the ring."""
        outcome = self._ask(request, intake, again=False)
        if outcome is _Outcome.BROKEN:
            logger.warning("event=share_broken request_id=%s: asking again", request.id)
            intake.take_back()
            outcome = self._ask(request, intake, again=True)
        if outcome is _Outcome.DONE:
            return True
        if not intake.take_back():
            raise RemoteError("a renderer left off in the middle, and no other goes on from there")
        return False

    def _ask(self, request: SpeakRequest, intake: _Intake, *, again: bool) -> _Outcome:
        """Ask renderers until one begins. What has begun is worth waiting for a broker that comes back."""
        until = monotonic() + (max(self._wait_s, _RECOVER_S) if again else self._wait_s)
        if not again and not self._is_promising():
            return _Outcome.NONE
        while not intake.writer.stopped():
            answer = self._renderers.ask(request, heard_samples=intake.samples)
            if answer is not None:
                with answer:
                    outcome = self._listen(answer, intake, until)
                if outcome is not _Outcome.TRY_AGAIN:
                    return outcome
            elif not again:
                return _Outcome.NONE
            if monotonic() >= until:
                return _Outcome.NONE
            time.sleep(_ASK_AGAIN_S)
        return _Outcome.DONE

    def _is_promising(self) -> bool:
        if not self._renderers.reachable:
            self._trouble = "no broker"
            return False
        return monotonic() >= self._silent_until or self._renderers.arrivals != self._arrivals

    def _listen(self, answer: Answer, intake: _Intake, until: float) -> _Outcome:
        """Take what comes, the first of it before ``until``."""
        intake.restart()
        failed, arrivals = _Outcome.NONE, self._renderers.arrivals
        while not intake.writer.stopped():
            part = answer.take(min(WAIT_S, max(until - monotonic(), 0.0)))
            if part is None:
                if failed is _Outcome.NONE and self._renderers.arrivals != arrivals:
                    return _Outcome.TRY_AGAIN
                if answer.broken or not self._renderers.reachable or monotonic() >= until:
                    self._note_silence(failed)
                    return failed
            elif part.error:
                self._trouble = f"{part.renderer}: {part.error}: {part.message}"
                heard = intake.writer.samples > 0  # a change of voice in the middle would be worse than waiting
                may_come = part.error == BUSY or (part.error == NOBODY and heard)
                return _Outcome.TRY_AGAIN if may_come and failed is _Outcome.NONE else failed
            else:
                failed = _Outcome.BROKEN
                if not intake.take(part):
                    return _Outcome.DONE if intake.writer.stopped() else failed
                if part.end:
                    return _Outcome.DONE
                until = monotonic() + max(self._wait_s, _STALL_S)
        return _Outcome.DONE

    def _note_silence(self, failed: _Outcome) -> None:
        if failed is _Outcome.NONE:
            self._trouble = "no renderer answers"
            self._silent_until, self._arrivals = monotonic() + RETRY_S, self._renderers.arrivals

    def _tell(self, *, remote: bool) -> None:
        """Log who speaks, when that changes."""
        if remote is self._told:
            return
        self._told = remote
        if remote:
            logger.info("event=share_voice voice=remote")
        else:
            logger.warning("event=share_voice voice=local: %s", self._trouble or "too long to be made elsewhere")


def local_voice(voices: Voices, name: str | None, language: str | None) -> str | None:
    """The voice that speaks here in place of one that a renderer may have: the default where there is none such.

    Raises:
        BadRequestError: unknown_voice; none speaks that language.
    """
    try:
        voices.get(name, language)
    except BadRequestError:
        voices.get(None, language)
        return None
    return name
