"""Hermes, the MQTT topics of Snips and Rhasspy: the speaker as the text-to-speech service of one site.

Every ``hermes/tts/say`` of the site whose id can be read is followed by one ``sayFinished``, whatever became of it:
dialogue managers wait for it.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from daemon.config_sections import HermesConfig
from daemon.errors import BadRequestError
from daemon.inputs.messages import build_request, check_size, make_id, parse_object, rejection, to_json
from daemon.inputs.mqtt_feature import Feature, Message, Publication
from daemon.log import RateLimited
from daemon.ports import Speaker
from daemon.values import Event, EventType, Reason, SettingsChange, SpeakRequest

logger = logging.getLogger(__name__)

_SAY = "hermes/tts/say"
_FINISHED = "hermes/tts/sayFinished"
_ERROR = "hermes/error/tts"
_GET_VOICES = "rhasspy/tts/getVoices"
_VOICES = "rhasspy/tts/voices"
_TOGGLE_OFF = "hermes/audioServer/toggleOff"
_TOGGLE_ON = "hermes/audioServer/toggleOn"
_SET_VOLUME = "rhasspy/audioServer/setVolume"

_EVERY_SITE = "default"
"""The siteId of a message that names none."""
_PREFIX = "hermes-"
"""Of our ids: those of Hermes' clients come again and would be taken for duplicates."""
_MAX_PENDING = 1024
"""More than can wait to be spoken."""
_REPEAT_LOG_S = 10.0

_Id = str | int


@dataclass(frozen=True, slots=True)
class _Ids:
    """What a client knows its request by; copied into all that is said of it."""

    id: _Id | None
    session_id: _Id | None
    snake: bool
    """It writes site_id, as some of Rhasspy's programs do, and they understand no other answer."""


class Hermes(Feature):
    """Speaks for one siteId."""

    topics: Sequence[str] = (_SAY, _GET_VOICES, _TOGGLE_OFF, _TOGGLE_ON, _SET_VOLUME)

    def __init__(self, config: HermesConfig, speaker: Speaker, *, node: str) -> None:
        self._site_id = config.site_id or node
        self._speaker = speaker
        self._log = RateLimited(logger, _REPEAT_LOG_S)
        self._silent = False
        """Switched off by ``toggleOff``: requests are accepted and at once finished."""
        self._pending: dict[str, _Ids] = {}
        """By our own id; oldest first."""

    def on_message(self, message: Message) -> Iterable[Publication]:
        """Serve what is meant for this site."""
        try:
            check_size(message.payload)
            data = parse_object(message.payload)
        except BadRequestError as err:  # for whom it was cannot be told, so nobody answers
            self._complain(message.topic, err)
            return
        if (_get(data, "siteId") or _EVERY_SITE) != self._site_id:
            return
        ids = _Ids(_get_id(data, "id"), _get_id(data, "sessionId"), "siteId" not in data and "site_id" in data)
        try:
            yield from self._serve(message, data, ids)
        except BadRequestError as err:
            self._complain(message.topic, err)
            yield from self._fail(message.topic, ids, str(err))
        except Exception:
            logger.exception("bug in the hermes input")
            yield from self._fail(message.topic, ids, "internal error")

    def on_event(self, event: Event) -> Iterable[Publication]:
        """Tell the client when its text has been spoken, or will not be."""
        if not event.event_type.final or event.id not in self._pending:
            return
        ids = self._pending.pop(event.id)
        if event.event_type is EventType.FAILED:
            yield self._error(ids, f"not spoken: {event.reason or 'failed'}")
        yield self._finished(ids)

    def _serve(self, message: Message, data: dict[str, Any], ids: _Ids) -> Iterator[Publication]:
        if message.retained:
            self._log.log(logging.WARNING, "event=hermes_retained: a retained message is not obeyed")
            if message.topic == _SAY:
                self._speaker.reject(Reason.RETAINED)
                yield self._finished(ids)
        elif message.topic == _SAY:
            yield from self._say(data, ids)
        elif message.topic == _GET_VOICES:
            voices = [{"voiceId": v.name, "description": v.description} for v in self._speaker.voices()]
            yield self._publication(_VOICES, ids, voices=voices)
        elif message.topic == _SET_VOLUME:
            volume = _percent(data)
            if volume is None:
                raise BadRequestError("bad_request", "volume is missing")
            self._speaker.set(SettingsChange(volume=volume))
        else:
            self._silent = message.topic == _TOGGLE_OFF
            self._log.log(logging.INFO, f"event=hermes_{'off' if self._silent else 'on'}")  # or the silence is a riddle

    def _say(self, data: dict[str, Any], ids: _Ids) -> Iterator[Publication]:
        if self._silent:
            yield self._finished(ids)
            return
        request_id = _PREFIX + make_id()
        try:
            request = _read_request(data, request_id)
        except BadRequestError as err:
            self._speaker.reject(rejection(err), request_id, str(err))
            raise
        yield from self._make_room()
        self._pending[request_id] = ids
        try:
            self._speaker.say(request)
        except BaseException:
            del self._pending[request_id]
            raise

    def _make_room(self) -> Iterator[Publication]:
        """Nobody waits for ever, even if the end of a request should have gone unheard."""
        if len(self._pending) >= _MAX_PENDING:
            yield self._finished(self._pending.pop(next(iter(self._pending))))

    def _fail(self, topic: str, ids: _Ids, error: str) -> Iterator[Publication]:
        if topic == _SAY:
            yield self._error(ids, error)
            yield self._finished(ids)

    def _finished(self, ids: _Ids) -> Publication:
        return self._publication(_FINISHED, ids)

    def _error(self, ids: _Ids, error: str) -> Publication:
        return self._publication(_ERROR, replace(ids, id=None), error=error, context=ids.id)

    def _publication(self, topic: str, ids: _Ids, **fields: Any) -> Publication:
        site, session = ("site_id", "session_id") if ids.snake else ("siteId", "sessionId")
        payload = {**fields, site: self._site_id, "id": ids.id, session: ids.session_id}
        return Publication(topic=topic, payload=to_json({k: v for k, v in payload.items() if v is not None}))

    def _complain(self, topic: str, err: BadRequestError) -> None:
        self._log.log(logging.WARNING, f"event=hermes_refused topic={topic} code={err.code}: %s", err)


def _get(data: dict[str, Any], key: str) -> Any:
    """By either spelling, siteId or site_id; nothing and "" are the same."""
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key)
    value = data.get(key)
    if value in (None, ""):
        value = data.get(snake)
    return None if value == "" else value


def _get_id(data: dict[str, Any], key: str) -> _Id | None:
    value = _get(data, key)
    return value if isinstance(value, str | int) else None


def _read_request(data: dict[str, Any], request_id: str) -> SpeakRequest:
    text = _get(data, "text")
    if text is None:
        raise BadRequestError("empty", "there is no text")
    if not isinstance(text, str):
        raise BadRequestError("bad_request", "text must be a string")
    fields = {"text": text.strip(), "lang": _get(data, "lang"), "volume": _percent(data), "id": request_id}
    return build_request(fields)


def _percent(data: dict[str, Any]) -> int | None:
    """``volume`` of 0 to 1."""
    volume = _get(data, "volume")
    if volume is None:
        return None
    if isinstance(volume, bool) or not isinstance(volume, int | float) or not 0 <= volume <= 1:
        raise BadRequestError("bad_request", "volume must be a number from 0 to 1")
    return round(100 * volume)
