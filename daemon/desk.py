"""What is known of all requests, under one lock: the queue, the one being spoken, the settings, the outbox.

``Service`` (commands from the inputs) and ``SpeakingLoop`` (the synth thread and the player's reports) both work on it.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic, time

from daemon.announcements import AnnouncementQueue, Decision
from daemon.audio.chimes import Chimes
from daemon.audio.player import Player
from daemon.audio.utterance import Hold, PlayOutcome
from daemon.config import Config
from daemon.errors import BadRequestError, SpeechError
from daemon.metrics import Metrics
from daemon.outbox import Outbox
from daemon.quiet import is_quiet, local_minute
from daemon.settings import Settings
from daemon.speech import Spoken
from daemon.text_source import TextSource
from daemon.values import Event, EventType, Pcm16, Priority, Reason, SpeakerState, SpeakRequest, State

logger = logging.getLogger(__name__)

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
    chime: Pcm16
    """What is heard before the speech."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    """The player will play no more of it."""
    outcome: PlayOutcome = PlayOutcome.CUT
    played_samples: int = 0
    hold: Hold = field(default_factory=lambda: Hold(Hold.UNKNOWN))
    """Until then its speech is held back."""
    begun_at: float = field(default_factory=monotonic)
    ttfa_ms: float | None = None
    speaking_since: float | None = None
    """Its first speech sample went to the device."""
    spoken: Spoken = field(default_factory=Spoken)
    """Set when its synthesis has ended, and so is ``failure``."""
    failure: SpeechError | None = None

    @property
    def speaking(self) -> bool:
        """Whether some of its speech has been heard."""
        return self.speaking_since is not None

    @property
    def final(self) -> tuple[EventType, Reason | None]:
        """Its final event; the queue leaves it out where one has been given already."""
        if isinstance(self.failure, BadRequestError):
            return EventType.FAILED, EVENT_REASONS.get(self.failure.code, Reason.BAD_JSON)
        if self.failure is not None:
            return EventType.FAILED, Reason.ENGINE
        if self.outcome is PlayOutcome.FAILED:
            return EventType.FAILED, Reason.AUDIO
        if self.outcome is PlayOutcome.CUT:
            return EventType.CANCELLED, Reason.STOPPED
        return EventType.FINISHED, None


@dataclass(slots=True)
class Entry:
    """What is kept of a request from acceptance to its final event."""

    request: SpeakRequest
    source: TextSource
    accepted_at: float
    expected_s: float
    """How long its text, as far as it is known, is expected to last; reckoned before the lock is taken."""
    wait_s: float
    """How long its speech is expected to be held back, once it is its turn, so that it does not run dry."""
    attempts: int = 0


class Desk:
    """Shared state; every attribute is written, and several are read together, under the lock only.

    Attributes:
        changed: the lock, and the condition that wakes the synth thread.
        player: set once, before any thread starts.
        job: what is being spoken.
        chimes: the sounds around the speech.
        gap_s: the silence between two announcements.
        quiet: whether these are quiet hours.
        last: the last request that was heard, with all its text.
        stopping: no new work.
        version: counts the calls of ``wake``, so that a waiting thread sees that it has missed one.
        failed: the engine is beyond repair.
    """

    def __init__(self, config: Config, settings: Settings, metrics: Metrics, *, default_voice: str) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.player: Player
        self.queue = AnnouncementQueue(config.queue)
        self.queue.set_mute(settings.mute, monotonic())
        self.settings = settings
        self.chimes = Chimes(config.chimes)
        self.quiet_hours = config.quiet
        self.gap_s = config.audio.gap_ms / 1000
        self.quiet = False
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
        self.outbox.listen(self._log_unspoken)

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
        held = self.queue.paused or self.queue.silent
        return request.id in self.entries and (request.priority is Priority.CRITICAL or not held)

    def look_at_clock(self) -> None:
        """Begin or end the quiet hours if it is time."""
        quiet = is_quiet(self.quiet_hours, local_minute(time()))
        self.queue.set_quiet(quiet and self.quiet_hours.volume == 0)
        if quiet != self.quiet:
            self.quiet = quiet
            self.wake()

    def max_volume(self, request: SpeakRequest) -> int:
        """Percent that a request which is about to be spoken may have."""
        return self.quiet_hours.volume if self.quiet and request.priority is not Priority.CRITICAL else 100

    def wake(self) -> None:
        """There may be something to do for the synth thread."""
        self.version += 1
        self.changed.notify_all()

    def apply(self, decision: Decision, *, wait_s: float | None = None) -> None:
        """Carry out what the queue decided."""
        if decision.cut and self.job is not None:
            self.job.cancelled.set()
            self.job.source.wake()
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
                speed=self.settings.speed,
            )

    def _speaker_state(self) -> SpeakerState:
        job = self.job
        if self.failed or (not self.audio_ok and job is None):
            return SpeakerState.ERROR
        if job is not None and (job.request.priority is Priority.CRITICAL or not self.queue.paused):
            return SpeakerState.SPEAKING if job.speaking else SpeakerState.SYNTHESIZING
        if self.queue.paused:
            return SpeakerState.PAUSED
        return SpeakerState.MUTED if self.queue.silent else SpeakerState.IDLE

    def _publish_state(self) -> None:
        state = self.state()
        if state != self._published:
            self._published = state
            self.outbox.put(state)

    def _log_unspoken(self, event: Event) -> None:
        """One line for an announcement whose turn never came; the loop logs the others, the doors what they refuse."""
        job = self.job
        taken = (
            event.audio_s or event.event_type is EventType.FAILED or (job is not None and job.request.id == event.id)
        )
        if event.event_type.final and event.event_type is not EventType.REJECTED and not taken:
            logger.info("unspoken request_id=%s outcome=%s reason=%s", event.id, event.event_type, event.reason)
