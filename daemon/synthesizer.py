"""Text to PCM in the ring: read, run the session or find the phrase, and keep back-pressure and cancellation honest."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from daemon.audio import tempo
from daemon.config_sections import TextConfig
from daemon.engine.engine import Engine
from daemon.engine.session import TtsSession, default_seed
from daemon.errors import BadRequestError
from daemon.forecast import Forecaster, Outlook
from daemon.metrics import Metrics
from daemon.output import Output, Writer, pace
from daemon.phrases import Phrase, PhraseCache, phrase_key
from daemon.reading import Reader, ReadSegments
from daemon.speech import Speech, Spoken
from daemon.text_source import TextSource
from daemon.values import SAMPLE_RATE, Priority, Segment, Segmenter, SpeakRequest, Turn

logger = logging.getLogger(__name__)

PIECE_SAMPLES = SAMPLE_RATE // 10
"""A phrase is written in pieces of this length, so that a cancel is seen."""
_WARM_UP_TEXT = "It's 7:30, isn't it? On the 5th of May - with 21.5 °C -- all's well; [pause 1s] (really)!"
NO_SONIC = "speed needs libsonic0: apt-get install libsonic0"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known of an utterance before it is spoken."""

    audio_s: float
    """How long it is expected to last; 0 if there is nothing to say."""
    made_s: float = 0.0
    """How much speech the model has to make for that: twice as much at twice the speed, none for pauses."""
    wait_s: float = 0.0
    """How long it will be held back once it is its turn, so that it does not run dry."""
    cached: bool = False
    """All of it plays from the phrase cache, at once."""


class Synthesizer:
    """Runs one request at a time on the synth thread.

    Args:
        engine: the loaded bundle.
        text: how text is read.
        phrases: where speech is kept; None: nowhere.
        metrics: counts what ``phrases`` had.
        profile: log a JSON line with the milliseconds of every stage after each utterance.

    Raises:
        ConfigError: the lexicon is bad.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        text: TextConfig | None = None,
        phrases: PhraseCache | None = None,
        metrics: Metrics | None = None,
        profile: bool = False,
    ) -> None:
        self._engine = engine
        self._phrases = phrases
        self._metrics = metrics or Metrics()
        self._profile = profile
        self._frame_rate = engine.bundle.manifest.audio.frame_rate
        self._forecaster = Forecaster(engine)
        self._reader = self._make_reader(text or TextConfig())
        if phrases is not None:
            self._metrics.set_phrase_bytes(phrases.num_bytes)

    def set_text(self, text: TextConfig) -> None:
        """Read text in another way from now on. Callable from any thread.

        Raises:
            ConfigError: the lexicon is bad; nothing changes.
        """
        self._reader = self._make_reader(text)

    def _make_reader(self, text: TextConfig) -> Reader:
        manifest = self._engine.bundle.manifest
        return Reader(
            text,
            alphabet=manifest.text.alphabet,
            count_tokens=self._engine.count_tokens,
            max_tokens=manifest.limits.max_text_tokens,
        )

    def segmenter(self, voice: str | None = None) -> Segmenter:
        """A fresh segmenter for a voice's language and this bundle's alphabet and limits."""
        return self._reader.segmenter(self._engine.voices.get(voice).language)

    def warm_up(self) -> None:
        """Read a text of every kind, so that the first request finds all patterns compiled (2 ms of its 12)."""
        self._reader.segments(_WARM_UP_TEXT, self._engine.voices.get(None).language)

    def check_speed(self, speed: float) -> None:
        """Whether a speed can be had. Callable from any thread.

        Raises:
            BadRequestError: libsonic is missing.
        """
        if speed != 1.0 and not tempo.available():
            raise BadRequestError("bad_request", NO_SONIC)

    def estimate(self, request: SpeakRequest, *, voice: str | None, speed: float, more: bool = False) -> Estimate:
        """How long a request is expected to last, and whether it was said before. Callable from any thread.

        Args:
            request: its text is all there is so far.
            voice: the voice that it will be spoken with.
            speed: likewise.
            more: its text is still open, so that SSML without an end is no error.

        Raises:
            BadRequestError: bad SSML, or a speed that cannot be had.
        """
        self._check_wish(request)
        try:
            segments = self._reader.segments(request.text, self._engine.voices.get(voice).language)
        except BadRequestError:
            if not more:
                raise
            segments = ()
        if not any(segment.text for segment in segments):
            return Estimate(0.0)
        key = None if more else self._key(request, segments, voice, speed)
        cached = key is not None and self._phrases is not None and self._phrases.has(key)
        forecaster, name = self._forecaster, self._engine.voices.get(voice).name
        pieces = [forecaster.piece(segment, speed) for segment in segments]
        wait_s = 0.0 if cached else forecaster.wait_s(pieces, name, cautious=is_cautious(request))
        made_s = sum(piece.expected_s for piece in pieces)
        return Estimate(forecaster.audio_s(pieces, name), made_s, wait_s, cached)

    def _check_wish(self, request: SpeakRequest) -> None:
        """A speed that was set once and cannot be had any more is no reason to fall silent; one that is asked for is.

        Raises:
            BadRequestError: libsonic is missing.
        """
        if request.speed is not None:
            self.check_speed(request.speed)

    def _key(
        self, request: SpeakRequest, segments: Sequence[Segment], voice_name: str | None, speed: float
    ) -> bytes | None:
        """The phrase that a request is, whatever it was written like; None for one that is not kept."""
        first = next((segment.text for segment in segments if segment.text), None)
        if self._phrases is None or request.context or first is None:
            return None
        voice = self._engine.voices.get(voice_name)
        seed = default_seed(first, voice.name) if request.seed is None else request.seed
        spoken = [(s.text, s.pause_s, pace(s, speed), s.volume) for s in segments]
        sonic = tempo.version() if any(paced != 1.0 for _, _, paced, _ in spoken) else ""
        return phrase_key(self._engine.identity, voice.digest(), seed, sonic, spoken)

    def _context(self, entries: Sequence[str | Turn], language: str) -> list[str | Turn]:
        """The entries with their texts as the model reads them; what has nothing to say is left out."""
        normalize = self._reader.normalizer(language)
        spoken = [
            entry if isinstance(entry, str) else Turn.model_construct(text=normalize(entry.text), speaker=entry.speaker)
            for entry in entries
        ]
        return [entry for entry in spoken if isinstance(entry, str) or entry.text]

    def speak(
        self, request: SpeakRequest, source: TextSource, writer: Writer, *, voice: str | None, speed: float
    ) -> Spoken:
        """Speak a request until it is said or cancelled.

        Args:
            request: gives the seed.
            source: gives the text.
            writer: takes the samples.
            voice: the voice to speak with.
            speed: the request's, or the one that is set.

        Raises:
            EngineError: a native library failed.
            BadRequestError: bad SSML, a speed that cannot be had, or a text that the model cannot take.
        """
        self._check_wish(request)
        language = self._engine.voices.get(voice).language
        if source.open:
            return self._synthesize(request, source, writer, self.segmenter(voice), voice=voice, speed=speed)
        segments = self._reader.segments(source.text, language)
        key = self._key(request, segments, voice, speed)
        phrase = self._find(key)
        if phrase is not None:
            return self._play(request, phrase, segments, writer, voice=voice)
        return self._synthesize(request, source, writer, ReadSegments(segments), voice=voice, speed=speed, key=key)

    def _find(self, key: bytes | None) -> Phrase | None:
        if key is None or self._phrases is None:
            return None
        phrase = self._phrases.get(key)
        self._metrics.count_phrase(hit=phrase is not None)
        return phrase

    def _play(
        self, request: SpeakRequest, phrase: Phrase, segments: Sequence[Segment], writer: Writer, *, voice: str | None
    ) -> Spoken:
        """Say what was said before; it counts as said, also for requests that go on from it."""
        if writer.hold is not None:
            writer.hold.samples = 0
        before = writer.samples
        for start in range(0, len(phrase.pcm), PIECE_SAMPLES):
            if not writer.write(phrase.pcm[start : start + PIECE_SAMPLES]):
                break
        texts = [segment.text for segment in segments if segment.text]
        self._engine.remember(request.id, voice, texts, phrase.codes)
        return Spoken(samples=writer.samples - before, cached=True)

    def _synthesize(
        self,
        request: SpeakRequest,
        source: TextSource,
        writer: Writer,
        segmenter: Segmenter,
        *,
        voice: str | None,
        speed: float,
        key: bytes | None = None,
    ) -> Spoken:
        spoken_by, hold = self._engine.voices.get(voice), writer.hold
        outlook = Outlook(
            self._forecaster,
            source,
            hold,
            voice=spoken_by.name,
            speed=speed,
            cautious=is_cautious(request),
        )
        session = self._engine.session(
            outlook.overhear(segmenter),
            voice=voice,
            seed=request.seed,
            context=self._context(request.context, spoken_by.language),
            stop=writer.stopped,
            # Once speech is heard, the sentence whose turn it is must not be slowed down by those after it.
            may_run_ahead=lambda: hold is None or not hold.begun,
        )
        times = self._engine.reset_times()
        keep_bytes = self._phrases.max_bytes if self._phrases is not None and key is not None else 0
        with Output(session, writer, speed=speed, keep_bytes=keep_bytes) as output:
            speech = Speech(session, source, output, writer, outlook, keep_times=self._profile)
            spoken = speech.run()
        if spoken.truncated:
            logger.warning("runaway request_id=%s: cut", request.id)
        self._engine.history.add(request.id, session.conversation())
        if not writer.stopped():
            # A recording or context that had to be read first says nothing of how fast speech comes, nor do sentences
            # that were made together of how fast the next one alone will.
            if not session.together:
                self._engine.note_rtf(spoken.synthesis_s - times.prefill, times.frames / self._frame_rate)
            spoken.keep = self._keeper(key, output, session, spoken)
        if self._profile:
            stages = {name: round(value * 1000, 3) for name, value in asdict(times).items() if name != "frames"}
            logger.info("profile %s", json.dumps({"id": request.id, **stages, "frames_ms": speech.frames_ms}))
        return spoken

    def _keeper(self, key: bytes | None, output: Output, session: TtsSession, spoken: Spoken) -> Callable[[], None]:
        """Puts an utterance into the cache, if it is whole."""
        pcm, phrases = output.kept, self._phrases
        if key is None or phrases is None or pcm is None or spoken.truncated or not session.finished:
            return spoken.keep
        codes = [segment.codes for segment in session.conversation() if segment.codes is not None]
        if self._engine.takes_context and len(codes) != session.chunk.segment + 1:
            return spoken.keep  # a part of it was of no use as context

        def keep() -> None:
            phrases.put(key, pcm, codes)
            self._metrics.set_phrase_bytes(phrases.num_bytes)

        return keep


def is_cautious(request: SpeakRequest) -> bool:
    """Whether speech that is made slowly is held back with margins; what is critical is not to come late for those."""
    return request.priority is not Priority.CRITICAL
