"""What is looked at before a request is taken, whoever asks."""

from daemon.desk import Desk
from daemon.engine.engine import Engine
from daemon.errors import BadRequestError
from daemon.rendering import Manner
from daemon.synthesizer import Estimate, Synthesizer
from daemon.values import Event, Reason, SpeakRequest


class Checks:
    """Refuses what cannot be spoken. Any thread.

    Args:
        desk: has the settings.
        engine: has the voices.
        synthesizer: knows what can be said.
        max_chars: [text].
        any_voice: what is played may be made elsewhere, in a voice that is not known here.
    """

    def __init__(
        self, desk: Desk, engine: Engine, synthesizer: Synthesizer, max_chars: int, *, any_voice: bool = False
    ) -> None:
        self._desk = desk
        self._engine = engine
        self._synthesizer = synthesizer
        self._any_voice = any_voice
        self.max_chars = max_chars

    def check(self, request: SpeakRequest, *, more: bool, to_play: bool = False) -> tuple[Manner, Estimate]:
        """How a request would be spoken now, and what is to be expected of it.

        Args:
            request: what is asked for.
            more: its text is still open.
            to_play: it is an announcement, not a render.

        Raises:
            BadRequestError: it cannot be spoken.
        """
        if len(request.text) > self.max_chars:
            raise BadRequestError(
                "too_long", f"text is limited to {self.max_chars} characters, got {len(request.text)}"
            )
        voice = request.voice or self.chosen_voice()
        try:
            language = self._engine.voices.get(voice, request.lang).language
        except BadRequestError:
            if more or not (to_play and self._any_voice):
                raise
            voice, language = None, self._engine.voices.get(None).language
        if to_play:
            self._desk.chimes.check(request.chime)
        self._check_context(request)
        speed = request.speed or self._desk.settings.speed
        estimate = self._synthesizer.estimate(request, voice=voice, speed=speed, more=more)
        if not more and not estimate.audio_s:
            raise BadRequestError("empty", "nothing in the text can be spoken")
        return Manner(voice, speed, language), estimate

    def estimate(self, request: SpeakRequest, text: str) -> Estimate:
        """What is to be expected of another piece of a request's text."""
        piece = request.model_copy(update={"text": text[: self.max_chars]})
        speed = request.speed or self._desk.settings.speed
        return self._synthesizer.estimate(piece, voice=request.voice or self.chosen_voice(), speed=speed, more=True)

    def chosen_voice(self) -> str | None:
        """The voice that was set, as long as there is such a voice; else the bundle's default, from now on."""
        chosen = self._desk.settings.voice
        known = self._engine.voices.known(chosen)
        if known != chosen:
            with self._desk.open():
                if self._desk.settings.voice == chosen:
                    self._desk.settings = self._desk.settings.model_copy(update={"voice": None})
        return known

    def _check_context(self, request: SpeakRequest) -> None:
        if request.context and not self._engine.takes_context:
            raise BadRequestError("bad_request", "context: the loaded voice model cannot go on from earlier speech")
        length = sum(len(entry.text) for entry in request.context if not isinstance(entry, str))
        if length > self.max_chars:
            message = f"the texts of context are limited to {self.max_chars} characters, got {length}"
            raise BadRequestError("too_long", message)


def refused(event: Event) -> BadRequestError:
    """What the sender of a request is told that the queue did not take."""
    if event.reason is Reason.QUEUE_FULL:
        return BadRequestError("queue_full", "too many announcements wait already")
    return BadRequestError("bad_request", f"duplicate: {event.id} was accepted less than ten minutes ago")
