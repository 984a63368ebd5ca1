"""A Speaker that remembers what it is asked and speaks nothing."""

import threading
from typing import Any

from daemon.errors import BadRequestError
from daemon.values import (
    Accepted,
    Event,
    EventType,
    Reason,
    SettingsChange,
    SpeakerState,
    SpeakRequest,
    State,
    VoiceInfo,
)


class RecordingSpeaker:
    """Thread-safe. ``finish`` is the event type each request ends with at once; None leaves it queued."""

    def __init__(self, *, finish: EventType | None = None, reason: Reason | None = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.listeners: list[Any] = []
        self.finish = finish
        self.reason = reason
        self.last_text: str | None = None
        self._changed = threading.Condition()

    @property
    def said(self) -> list[str]:
        """The texts, in order."""
        return [call[1].text for call in list(self.calls) if call[0] == "say"]

    def wait(self, *call: Any, timeout: float = 10) -> tuple[Any, ...]:
        """Wait for a call that starts like this."""
        with self._changed:
            found = lambda: [made for made in self.calls if made[: len(call)] == call]  # noqa: E731 a predicate
            assert self._changed.wait_for(found, timeout), f"{call} not in {self.calls}"
            return found()[0]

    def wait_said(self, text: str, timeout: float = 10) -> SpeakRequest:
        """Wait for this text; return its request."""
        with self._changed:
            assert self._changed.wait_for(lambda: text in self.said, timeout), f"{text!r} not in {self.calls}"
        return next(call[1] for call in self.calls if call[0] == "say" and call[1].text == text)

    def emit(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)

    def _record(self, *call: Any) -> None:
        with self._changed:
            self.calls.append(call)
            self._changed.notify_all()

    def say(self, request: SpeakRequest, *, more: bool = False, expiry_s: float | None = None) -> Accepted:
        if len(request.text) > 2000:
            self._refuse(Reason.TOO_LONG, request.id, "text is limited to 2000 characters")
        if not more and not request.text.strip():
            self._refuse(Reason.EMPTY, request.id, "nothing to say")
        if request.voice == "nobody":
            raise BadRequestError("unknown_voice", "no voice nobody")
        if request.text == "bug":
            raise RuntimeError("bug")
        self.last_text = request.text
        self._record("say", request, more, expiry_s)
        self.emit(Event(event_type=EventType.QUEUED, id=request.id))
        if not more:
            self._finish(request.id)
        return Accepted(id=request.id, queue=0)

    def _finish(self, request_id: str) -> None:
        if self.finish is not None:
            self.emit(Event(event_type=EventType.STARTED, id=request_id))
            self.emit(Event(event_type=self.finish, id=request_id, reason=self.reason))

    def _refuse(self, reason: Reason, request_id: str, message: str) -> None:
        self.reject(reason, request_id)
        raise BadRequestError(str(reason), message)

    def append(self, request_id: str, text: str) -> None:
        self._record("append", request_id, text)

    def end(self, request_id: str) -> None:
        self._record("end", request_id)
        self._finish(request_id)

    def stop(self, what: str) -> None:
        self._record("stop", what)

    def pause(self) -> None:
        self._record("pause")

    def resume(self) -> None:
        self._record("resume")

    def repeat(self) -> Accepted:
        if self.last_text is None:
            raise BadRequestError("bad_request", "nothing has been said yet")
        self._record("repeat")
        return Accepted(id="again", queue=0)

    def set(self, change: SettingsChange) -> None:
        self._record("set", change)

    def state(self) -> State:
        return State(
            state=SpeakerState.IDLE,
            id=None,
            queue=0,
            last_text=self.last_text,
            volume=70,
            mute=False,
            voice="starter",
            audio_ok=True,
        )

    def status(self) -> dict[str, Any]:
        return self.state().to_wire()

    def voices(self) -> list[VoiceInfo]:
        return [VoiceInfo(name="starter", description="The starter voice", language="en", default=True)]

    def reject(self, reason: Reason, request_id: str | None = None, message: str | None = None) -> None:
        assert message is None or message
        self._record("reject", reason, request_id)
