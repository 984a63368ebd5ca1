"""The daemon's behaviour as the inputs see it: implements ``Speaker`` over queue, synthesizer and player."""

import logging
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from daemon.audio.chimes import Chimes
from daemon.audio.player import Player
from daemon.audio.ring import PcmRing
from daemon.audio.sink import Sink
from daemon.checks import Checks, refused
from daemon.config import Config
from daemon.desk import EVENT_REASONS, Desk, Entry
from daemon.engine.engine import Engine
from daemon.errors import BadRequestError, SpeechError
from daemon.metrics import Metrics
from daemon.phrases import PhraseCache
from daemon.ports import RenderListener
from daemon.rendering import Render, Renders
from daemon.settings import load_settings, save_settings
from daemon.speaking import SpeakingLoop, SpeechMaker
from daemon.synthesizer import Estimate, Synthesizer
from daemon.text_source import TextSource
from daemon.values import (
    SAMPLE_RATE,
    Accepted,
    Event,
    EventType,
    Priority,
    Reason,
    SettingsChange,
    SpeakRequest,
    State,
    VoiceInfo,
)
from daemon.waiting import expected_wait_s

if TYPE_CHECKING:
    from daemon.inputs.render_player import RenderPlayer
    from daemon.remote import RemoteSynthesizer

logger = logging.getLogger(__name__)

RING_S = 90
"""Seconds of speech that may lie ahead: a voice slower than real time makes most of an utterance before it is played,
and a fast one is soon free for the renders of others. 4.3 MB."""


class Service:
    """Everything between the inputs and the sink.

    Args:
        config: the whole configuration.
        engine: loaded and self-tested.
        sink: where the audio goes; opened and closed on the audio thread.
        settings_path: file of volume, mute, voice and speed.
        phrases: where speech is kept; None: nowhere.
        renderers: make the speech of announcements, where there are any; None: it is made here.
        metrics: what ``status`` shows.
        beat: called with a thread's name when it is alive.
    """

    def __init__(
        self,
        config: Config,
        engine: Engine,
        sink: Sink,
        *,
        settings_path: Path,
        phrases: PhraseCache | None = None,
        renderers: "RenderPlayer | None" = None,
        metrics: Metrics,
        beat: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._settings_path = settings_path
        settings = load_settings(settings_path, volume=config.audio.volume)
        settings = settings.model_copy(update={"voice": engine.voices.known(settings.voice)})
        self._synthesizer = Synthesizer(
            engine, text=config.text, phrases=phrases, metrics=metrics, profile=config.engine.profile
        )
        ring = PcmRing(SAMPLE_RATE * RING_S)
        self._desk = Desk(config, settings, metrics, default_voice=engine.voices.default)
        self._checks = Checks(
            self._desk, engine, self._synthesizer, config.text.max_chars, any_voice=renderers is not None
        )
        self._remote: RemoteSynthesizer | None = None
        self._renders = Renders(self._desk, self._synthesizer, metrics=metrics, beat=lambda: beat("synth"))
        maker: SpeechMaker = self._synthesizer
        if renderers is not None:
            from daemon import remote  # noqa: PLC0415 (for players of [share] alone)

            maker = self._remote = remote.RemoteSynthesizer(
                self._synthesizer, engine.voices, renderers, wait_s=config.share.wait_s, metrics=metrics
            )
        self._loop = SpeakingLoop(
            self._desk, engine, maker, ring, self._renders, metrics=metrics, beat=lambda: beat("synth")
        )
        self._player = self._desk.player = Player(sink, ring, config.audio, self._loop, lambda: beat("audio"))
        self._player.set_volume(settings.volume)
        self._saved = settings
        self._synthesizer.warm_up()

    @property
    def fatal(self) -> SpeechError | None:
        """Set when the engine failed for good; the process should then exit with its code."""
        return self._loop.fatal

    def listen(self, on_event: Callable[[Event], None], on_state: Callable[[State], None] | None = None) -> None:
        """Tell of every event, and of every change of state, from now on; the calls must not block."""
        self._desk.outbox.listen(on_event, on_state)

    def start(self) -> None:
        """Start the audio and synth threads."""
        self._player.start()
        self._loop.start()

    def close(self, *, drain_s: float) -> bool:
        """Stop. What is being heard may go on for ``drain_s`` seconds, then it is cut; all else ends as stopped.

        Returns:
            Whether both threads have ended. If not, the engine is still in use and must not be closed.
        """
        desk = self._desk
        with desk.open():
            desk.stopping = True
            job = desk.job
            for request_id in [key for key in desk.entries if job is None or key != job.request.id]:
                desk.apply(desk.queue.stop(request_id, monotonic()))
            desk.wake()
        if job is not None:
            if job.speaking and not desk.queue.paused:
                job.done.wait(drain_s)
            self.stop("all")
        self._save_settings()
        return all([self._loop.join(2.0), self._player.close(1.0)])

    def reload(self, config: Config) -> None:
        """Take what may change while the daemon runs: [queue], [quiet], [chimes], [text].

        Raises:
            ConfigError: a file that it names is of no use; nothing changes.
        """
        desk = self._desk
        chimes = Chimes(config.chimes)
        self._synthesizer.set_text(config.text)
        self._checks.max_chars = config.text.max_chars
        with desk.open():
            desk.queue.update(config.queue)
            desk.chimes = chimes
            desk.quiet_hours = config.quiet
            desk.look_at_clock()

    def tick(self) -> None:
        """Once a second, from main: let what has waited too long expire, and write changed settings.

        Not in ``set``: waiting for a slow disk there would hold the lock that the audio thread needs.
        """
        with self._desk.open():
            self._desk.look_at_clock()
            self._desk.publish(self._desk.queue.expire(monotonic()))
        self._save_settings()

    def _save_settings(self) -> None:
        settings = self._desk.settings
        if settings is not self._saved:
            save_settings(self._settings_path, settings)
            self._saved = settings

    def say(self, request: SpeakRequest, *, more: bool = False, expiry_s: float | None = None) -> Accepted:
        """Queue a request; a refusal is published as an event, and raised."""
        try:
            _, estimate = self._checks.check(request, more=more, to_play=True)
        except BadRequestError as err:
            self.reject(EVENT_REASONS.get(err.code, Reason.BAD_JSON), request.id, str(err))
            raise
        return self._submit(request, estimate, more=more, expiry_s=expiry_s)

    def render(self, request: SpeakRequest, listener: RenderListener, *, more: bool = False) -> Render:
        """Make speech for ``listener``; a refusal is raised, and no event tells of any of it."""
        manner, _ = self._checks.check(request, more=more)
        return self._renders.begin(request, listener, manner, more=more, max_chars=self._checks.max_chars)

    def _submit(self, request: SpeakRequest, estimate: Estimate, *, more: bool, expiry_s: float | None) -> Accepted:
        desk = self._desk
        with desk.open():
            if desk.stopping:
                raise BadRequestError("queue_full", "the daemon is shutting down")
            desk.look_at_clock()
            now = monotonic()
            desk.publish(desk.queue.expire(now))  # first, as one of these may have had the same id, long ago
            decision = desk.queue.submit(request, now, expiry_s=expiry_s)
            refusal = next((e for e in decision.events if e.event_type is EventType.REJECTED), None)
            if refusal is None:
                source = TextSource(request.text, more=more, expected_s=estimate.made_s)
                held_s = 0.0 if self._remote is not None and self._remote.elsewhere else estimate.wait_s
                desk.entries[request.id] = Entry(request, source, now, estimate.audio_s, held_s)
            wait_s = expected_wait_s(desk, request.id, now)
            desk.apply(decision, wait_s=wait_s)
            if refusal is not None:
                raise refused(refusal)
            if desk.job is None and desk.will_speak(request):
                self._player.wake()
            desk.wake()
            return Accepted(request.id, desk.queue.position(request.id), wait_s)

    def append(self, request_id: str, text: str) -> None:
        """Add text to an open request."""
        with self._desk.changed:
            entry = self._entry(request_id)
            entry.source.append(text, self._checks.max_chars)
        estimate = self._checks.estimate(entry.request, text)
        with self._desk.changed:
            entry.expected_s += estimate.audio_s
            entry.source.expected_s += estimate.made_s

    def end(self, request_id: str) -> None:
        """Close an open request's text."""
        with self._desk.changed:
            self._entry(request_id).source.end()

    def _entry(self, request_id: str) -> Entry:
        entry = self._desk.entries.get(request_id)
        if entry is None:
            raise BadRequestError("bad_request", f"no request {request_id!r} is open")
        return entry

    def stop(self, what: str) -> None:
        """Stop ``all``, ``current`` or one id."""
        with self._desk.open():
            self._desk.apply(self._desk.queue.stop(what, monotonic()))

    def pause(self) -> None:
        """Stop at the sample; a critical request goes on."""
        desk = self._desk
        with desk.open():
            desk.queue.pause()
            if desk.job is not None and desk.job.request.priority is not Priority.CRITICAL:
                self._player.pause()

    def resume(self) -> None:
        """Go on."""
        desk = self._desk
        with desk.open():
            desk.queue.resume()
            self._player.resume()
            desk.wake()

    def repeat(self) -> Accepted:
        """Say the last spoken text again."""
        last = self._desk.last
        if last is None:
            raise BadRequestError("empty", "nothing has been said yet")
        return self.say(last.model_copy(update={"id": f"{last.id[:100]}-{monotonic():.6f}"}))

    def set(self, change: SettingsChange) -> None:
        """Change volume, mute, voice or speed."""
        if change.voice is not None:
            self._engine.voices.get(change.voice)
        if change.speed is not None:
            self._synthesizer.check_speed(change.speed)
        desk = self._desk
        with desk.open():
            before = desk.settings
            desk.settings = before.changed(change)
            if desk.settings != before:
                self._player.set_volume(desk.settings.volume)
                desk.apply(desk.queue.set_mute(desk.settings.mute, monotonic()))
                desk.wake()

    def state(self) -> State:
        """The state right now."""
        return self._desk.state()

    def status(self) -> dict[str, Any]:
        """State and metrics."""
        manifest = self._engine.bundle.manifest
        return {
            **self.state().to_wire(),
            "audio_latency_ms": round(self._player.latency_s * 1000),
            "bundle": manifest.name,
            "recipe": manifest.recipe,
            "threads": self._engine.num_threads,
            "threads_now": self._engine.threads_now,
            "speed": self._desk.settings.speed,
            "chimes": self._desk.chimes.names,
            "quiet": self._desk.quiet,
            "metrics": self._metrics.snapshot(),
        }

    def stats(self) -> dict[str, Any]:
        """The latest figures, all of them numbers, or None where there is none yet (for the topic ``stats``)."""
        return self._metrics.summary()

    def voices(self) -> list[VoiceInfo]:
        """The bundle's voices."""
        return self._engine.voices.list()

    def reject(self, reason: Reason, request_id: str | None = None, message: str | None = None) -> None:
        """Publish a ``rejected`` event for what never entered the queue."""
        event = Event(event_type=EventType.REJECTED, id=request_id or "", reason=reason, message=message)
        with self._desk.open():
            self._desk.publish([event])
