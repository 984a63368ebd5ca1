"""What is known of all requests, under one lock: the queue, the one being spoken, the settings, the outbox.

``Service`` (commands from the inputs) and ``SpeakingLoop`` (the synth thread and the player's reports) both work on it.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from daemon.announcements import AnnouncementQueue, Decision
from daemon.audio.playback import PlayOutcome
from daemon.audio.player import Player
from daemon.config_sections import QueueConfig
from daemon.metrics import Metrics
from daemon.outbox import Outbox
from daemon.settings import Settings
from daemon.synthesizer import TextSource
from daemon.values import Event, EventType, Priority, Reason, SpeakerState, SpeakRequest, State

EVENT_REASONS = {"too_long": Reason.TOO_LONG, "empty": Reason.EMPTY, "unknown_voice": Reason.UNKNOWN_VOICE}
"""What an event says of a refusal by its wire code; the queue publishes its own."""


@dataclass(slots=True)
class Job:
    """One attempt to speak a request; a replay is another."""

    request: SpeakRequest
    source: TextSource
    utterance: str
    """The player's name for it, unlike that of any other attempt."""
    accepted_at: float
    cancelled: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    """The player will play no more of it."""
    outcome: PlayOutcome = PlayOutcome.CUT
    played_samples: int = 0
    ttfa_ms: float | None = None
    wait_s: float | None = None
    speaking: bool = False


@dataclass(slots=True)
class Entry:
    """What is kept of a request from acceptance to its final event."""

    source: TextSource
    accepted_at: float
    expected_s: float
    """How long its text, as far as it is known, is expected to last; reckoned before the lock is taken."""
    attempts: int = 0


class Desk:
    """Shared state; every attribute is read and written under ``open()`` only.

    Attributes:
        changed: the lock, and the condition that wakes the synth thread.
        player: set once, before any thread starts.
        job: what is being spoken.
        last: the last request that was heard, with all its text.
        stopping: no new work.
        version: counts the calls of ``wake``, so that a waiting thread sees that it has missed one.
        failed: the engine is beyond repair.
    """

    def __init__(self, queue: QueueConfig, settings: Settings, metrics: Metrics, *, default_voice: str) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.player: Player
        self.queue = AnnouncementQueue(queue)
        self.queue.set_mute(settings.mute, monotonic())
        self.settings = settings
        self.entries: dict[str, Entry] = {}
        self.job: Job | None = None
        self.last: SpeakRequest | None = None
        self.audio_ok = True
        self.stopping = False
        self.failed = False
        self.version = 0
        self.outbox = Outbox()
        self._metrics = metrics
        self._default_voice = default_voice
        self._published: State | None = None

    @contextmanager
    def open(self) -> Iterator[None]:
        """Hold the lock; publish the state if it has changed; deliver what was put into the outbox."""
        try:
            with self.changed:
                yield
                self._publish_state()
        finally:
            self.outbox.deliver()

    def will_speak(self, request: SpeakRequest) -> bool:
        """Whether a request just accepted is about to be heard, rather than muted, held by a pause, or dropped."""
        held = self.queue.paused or self.settings.mute
        return request.id in self.entries and (request.priority is Priority.CRITICAL or not held)

    def wake(self) -> None:
        """There may be something to do for the synth thread."""
        self.version += 1
        self.changed.notify_all()

    def apply(self, decision: Decision, *, wait_s: float | None = None) -> None:
        """Carry out what the queue decided."""
        if decision.cut and self.job is not None:
            self.job.cancelled.set()
            self.player.cut(self.job.utterance)
        self.publish(decision.events, wait_s=wait_s)

    def publish(self, events: Sequence[Event], *, wait_s: float | None = None) -> None:
        """Put events into the outbox; ``wait_s`` is told with the queued one."""
        for event in events:
            if event.event_type.final and event.event_type is not EventType.REJECTED:  # that may be a duplicate's
                self.entries.pop(event.id, None)
            self._metrics.count_event(event)
            told = wait_s is not None and event.event_type is EventType.QUEUED
            self.outbox.put(event.model_copy(update={"wait_s": wait_s}) if told else event)

    def state(self) -> State:
        """The state right now."""
        with self.changed:
            return State(
                state=self._speaker_state(),
                id=self.job.request.id if self.job else None,
                queue=self.queue.waiting,
                last_text=self.last.text if self.last else None,
                volume=self.settings.volume,
                mute=self.settings.mute,
                voice=self.settings.voice or self._default_voice,
                audio_ok=self.audio_ok,
            )

    def _speaker_state(self) -> SpeakerState:
        job = self.job
        if self.failed or (not self.audio_ok and job is None):
            return SpeakerState.ERROR
        if job is not None and (job.request.priority is Priority.CRITICAL or not self.queue.paused):
            return SpeakerState.SPEAKING if job.speaking else SpeakerState.SYNTHESIZING
        if self.queue.paused:
            return SpeakerState.PAUSED
        return SpeakerState.MUTED if self.settings.mute else SpeakerState.IDLE

    def _publish_state(self) -> None:
        state = self.state()
        if state != self._published:
            self._published = state
            self.outbox.put(state)
