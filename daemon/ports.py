"""What the doors may ask of the daemon, and what it tells them in return."""

from typing import Any, Protocol

from daemon.errors import SpeechError
from daemon.values import Accepted, Pcm16, Reason, SettingsChange, SpeakRequest, State, VoiceInfo


class RenderListener(Protocol):
    """Takes the speech of one render, on the synth thread; must not block."""

    def on_audio(self, pcm: Pcm16) -> None:
        """More samples, int16 [S], 24 kHz; the array is overwritten afterwards."""
        ...

    def on_end(self, error: SpeechError | None) -> None:
        """No more comes: all has been said (None), it was cancelled (None), or what went wrong. Called exactly once."""
        ...


class RenderTicket(Protocol):
    """A render under way. Every method is thread-safe and returns at once."""

    def append(self, text: str) -> None:
        """Add text to a render that was begun with ``more``.

        Raises:
            BadRequestError: it has ended, or its text would become too long.
        """
        ...

    def end(self) -> None:
        """No more text comes; may be called again."""
        ...

    def cancel(self) -> None:
        """Nobody wants the rest; ``on_audio`` may be called once more."""
        ...


class Speaker(Protocol):
    """What a door may ask of the daemon. Every method is thread-safe and returns without waiting for speech.

    Raises (all of them): BadRequestError with the wire's error code.
    """

    def say(self, request: SpeakRequest, *, more: bool = False, expiry_s: float | None = None) -> Accepted:
        """Queue a request. A refusal has been published as an event.

        Args:
            request: what to say.
            more: leave its text open for ``append``.
            expiry_s: what is left of its message's expiry: caps the TTL, whether that is its own or the default.
        """
        ...

    def append(self, request_id: str, text: str) -> None:
        """Add text to an open request."""
        ...

    def end(self, request_id: str) -> None:
        """Close an open request's text."""
        ...

    def stop(self, what: str) -> None:
        """``all``, ``current`` or a request's id; nothing of the stopped is heard after 150 ms."""
        ...

    def pause(self) -> None:
        """Stop at the sample; critical requests speak through."""
        ...

    def resume(self) -> None:
        """Go on from the sample."""
        ...

    def repeat(self) -> Accepted:
        """Say the last spoken text again."""
        ...

    def set(self, change: SettingsChange) -> None:
        """Change volume, mute, voice or speed; they survive a restart."""
        ...

    def state(self) -> State:
        """The state right now."""
        ...

    def status(self) -> dict[str, Any]:
        """State and metrics, for ``crier status --json``."""
        ...

    def voices(self) -> list[VoiceInfo]:
        """The voices that can be asked for."""
        ...

    def reject(self, reason: Reason, request_id: str | None = None, message: str | None = None) -> None:
        """Publish a ``rejected`` event for what never became a request (retained, broken JSON, too long)."""
        ...


class Renderer(Protocol):
    """What a door may ask for that wants the audio itself."""

    def render(self, request: SpeakRequest, listener: RenderListener, *, more: bool = False) -> RenderTicket:
        """Make speech and hand it to ``listener`` instead of the sound card, when no announcement wants the voice.

        The request's priority, key, TTL, volume and chime mean nothing here, and no event tells of it.
        """
        ...
