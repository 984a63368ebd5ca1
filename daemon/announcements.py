"""What is spoken next: the rules of PROTOCOL.md ("What the queue does") as a pure state machine.

No thread, clock or I/O: the caller holds a lock and passes ``now`` in monotonic seconds. Whatever decides about those
who wait first lets expire what is due by then, so that no outcome depends on when a timer fires.

Where PROTOCOL.md leaves a choice:

- A low that is not to be spoken is accepted all the same: ``queued``, then ``cancelled``. So it is never refused for an
  overflow; and as a low waits only where nothing else does, an overflow never finds one to drop.
- A request that replaces one of its key takes that one's place in line if both have the same priority. One that is
  interrupted while a newer one of its key waits is replaced by it. A low that gives way to others replaces nothing.
- A critical request that cuts a normal one of which nothing has been heard does not use up its one replay.
- The interrupted one always finds room: one more than ``max_waiting`` may wait while the critical one speaks.
- The ``rejected`` event of a duplicate carries the id of the first; it says nothing about how the first ends.
  An id that was refused because the queue was full may be tried again.
- A stop does not end a pause. What waits during a pause is muted when the pause ends.
"""

from dataclasses import dataclass

from daemon.config_sections import QueueConfig
from daemon.queue_item import RANK, Item
from daemon.recent_ids import RecentIds
from daemon.values import Event, EventType, Priority, Reason, SpeakRequest

DUPLICATE_WINDOW_S = 600.0
_MAX_KNOWN_IDS = 10_000

Events = tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a call to the queue led to."""

    events: Events = ()
    cut: bool = False
    """What plays now must fall silent; its final event, or its new place in line, is settled."""


class AnnouncementQueue:
    """Who speaks, who waits, who gives way. Not thread-safe: the caller locks."""

    def __init__(self, config: QueueConfig) -> None:
        self._config = config
        self._waiting: list[Item] = []
        """In the order in which they will be spoken: criticals, normals, the low."""
        self._current: Item | None = None
        self._paused = False
        self._muted = False
        self._quiet = False
        self._known = RecentIds(DUPLICATE_WINDOW_S, _MAX_KNOWN_IDS)

    @property
    def current(self) -> SpeakRequest | None:
        """What was taken and has not ended, even if it has just been cut."""
        return self._current.request if self._current else None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def paused(self) -> bool:
        """Whether only critical requests are taken."""
        return self._paused

    @property
    def silent(self) -> bool:
        """Whether only critical requests are heard, be it for mute or for quiet hours."""
        return self._muted or self._quiet

    @property
    def ready(self) -> bool:
        """Whether, after ``hush``, there is somebody to take."""
        return bool(self._current is None and self._waiting and (not self._paused or self._waiting[0].critical))

    def position(self, request_id: str) -> int:
        """How many are heard before this one, the one being spoken included; 0 also if it does not wait."""
        return len(self.before(request_id))

    def before(self, request_id: str) -> list[str]:
        """Who is heard before this one, the one being spoken included; nobody also if it does not wait."""
        ids = [item.request.id for item in self._waiting]
        if request_id not in ids:
            return []
        playing = self._playing
        return ([playing.request.id] if playing else []) + ids[: ids.index(request_id)]

    def update(self, config: QueueConfig) -> None:
        """Use another configuration; what already waits keeps its TTL and its place."""
        self._config = config

    def submit(self, request: SpeakRequest, now: float, *, expiry_s: float | None = None) -> Decision:
        """Accept (a ``queued`` event) or refuse (a ``rejected`` event) a request; ``expiry_s`` caps its TTL."""
        events = self.expire(now)
        if self._is_duplicate(request.id, now):
            return Decision((*events, _rejected(request, Reason.DUPLICATE)))
        queued = Event(event_type=EventType.QUEUED, id=request.id)
        if self._is_unwanted(request):
            self._known.add(request.id, now)
            lost = Event(event_type=EventType.CANCELLED, id=request.id, reason=Reason.PREEMPTED)
            return Decision((*events, queued, lost))
        losers = self._losers(request)
        if losers is None:
            return Decision((*events, _rejected(request, Reason.QUEUE_FULL)))
        self._known.add(request.id, now)
        self._waiting.insert(self._place(request), Item(request, now + self._ttl_s(request, expiry_s)))
        events += tuple(self._end(item, EventType.CANCELLED, reason) for item, reason in losers)
        playing = self._playing
        if playing is None or RANK[request.priority] >= playing.rank:
            return Decision((*events, queued))
        return Decision((*events, queued, *self._interrupt(playing)), cut=True)

    def take(self, now: float) -> tuple[SpeakRequest | None, Events]:
        """What is to be spoken now, if anything; it is the current one until ``ended``."""
        events = self.hush(now)
        if not self.ready:
            return None, events
        self._current = self._waiting.pop(0)
        self._current.heard = False
        return self._current.request, events

    def hush(self, now: float) -> Events:
        """End those whose turn it is and who are not to be heard, as ``take`` does."""
        events = self.expire(now)
        if self._current is not None or self._paused or not self.silent:
            return events
        silent = [item for item in self._waiting if not item.critical]
        return events + tuple(self._end(item, EventType.FINISHED, Reason.MUTED) for item in silent)

    def started(
        self,
        request_id: str,
        now: float,  # noqa: ARG002 (every report of the player has its time)
        *,
        ttfa_ms: float | None = None,
        wait_s: float | None = None,
    ) -> Events:
        """The current one begins to be heard. A replay is not announced again."""
        item = self._playing
        if item is None or item.request.id != request_id:
            return ()
        item.heard = True
        if item.announced:
            return ()
        item.announced = True
        return (Event(event_type=EventType.STARTED, id=request_id, ttfa_ms=ttfa_ms, wait_s=wait_s),)

    def ended(
        self,
        request_id: str,
        now: float,  # noqa: ARG002 (as in started)
        event_type: EventType,
        *,
        reason: Reason | None = None,
        audio_s: float | None = None,
        truncated: bool | None = None,
    ) -> Events:
        """The current one's audio has ended or been cut: to be called once for everything taken.

        Returns:
            Its final event, unless it already had one or was put back to be spoken again. One that was heard to its
            end before the cut reached the device is not spoken again: it has finished.
        """
        item = self._current
        if item is None or item.request.id != request_id:
            return ()
        self._current = None
        put_back = item in self._waiting and event_type is not EventType.FINISHED
        if item.done or put_back:
            return ()
        return (self._end(item, event_type, reason, audio_s=audio_s, truncated=truncated),)

    def expire(self, now: float) -> Events:
        """End what has waited longer than its TTL."""
        late = [item for item in self._waiting if item.deadline <= now]
        return tuple(self._end(item, EventType.EXPIRED, Reason.TTL) for item in late)

    def stop(self, what: str, now: float) -> Decision:
        """End ``all``, the ``current`` one or the one with this id, if it is still to be heard."""
        events = self.expire(now)
        playing = self._playing
        if what == "current":
            what = self._current.request.id if self._current else ""
        alive = [*([playing] if playing else []), *self._waiting]
        stopped = [item for item in alive if what in ("all", item.request.id)]
        events += tuple(self._end(item, EventType.CANCELLED, Reason.STOPPED) for item in stopped)
        return Decision(events, cut=playing in stopped)

    def pause(self) -> None:
        """From now on take critical requests only; TTLs run on."""
        self._paused = True

    def resume(self) -> None:
        """Take everything again."""
        self._paused = False

    def set_mute(self, muted: bool, now: float) -> Decision:  # noqa: FBT001 (the value is all there is)
        """Mute or unmute; a normal or low one that plays is cut by muting."""
        events = self.expire(now)
        self._muted = muted
        playing = self._playing
        if not muted or playing is None or playing.critical:
            return Decision(events)
        return Decision((*events, self._end(playing, EventType.FINISHED, Reason.MUTED)), cut=True)

    def set_quiet(self, quiet: bool) -> None:  # noqa: FBT001 (likewise)
        """Begin or end quiet hours: as if muted, but what plays is heard to its end."""
        self._quiet = quiet

    @property
    def _playing(self) -> Item | None:
        """The current one, unless it was cut and its audio is only fading out."""
        item = self._current
        return None if item is None or item.done or item in self._waiting else item

    def _is_duplicate(self, request_id: str, now: float) -> bool:
        alive = (item.request.id for item in (self._current, *self._waiting) if item is not None)
        return self._known.known(request_id, now) or request_id in alive

    def _is_unwanted(self, request: SpeakRequest) -> bool:
        """Whether this is a low while anything else plays or waits, but for what it would itself replace."""
        if request.priority is not Priority.LOW:
            return False
        others = [self._playing, *(item for item in self._waiting if not item.shares_key(request))]
        return any(item is not None and item.request.priority is not Priority.LOW for item in others)

    def _losers(self, request: SpeakRequest) -> list[tuple[Item, Reason]] | None:
        """Who of the waiting ends because of a newcomer, and why; None: there is no room for it."""
        low = Reason.REPLACED if request.priority is Priority.LOW else Reason.PREEMPTED
        losers = [
            (item, Reason.REPLACED if item.shares_key(request) else low)
            for item in self._waiting
            if item.shares_key(request) or item.request.priority is Priority.LOW
        ]
        excess = len(self._waiting) - len(losers) + 1 - self._config.max_waiting
        if excess <= 0:
            return losers
        leaving = [item for item, _ in losers]
        droppable = [i for i in reversed(self._waiting) if not i.critical and i not in leaving]  # newest first
        if request.priority is not Priority.CRITICAL or len(droppable) < excess:
            return None
        return losers + [(item, Reason.QUEUE_FULL) for item in droppable[:excess]]

    def _place(self, request: SpeakRequest) -> int:
        """The place in line of a newcomer, while those who lose it theirs still stand there."""
        for index, item in enumerate(self._waiting):
            if item.shares_key(request) and item.request.priority is request.priority:
                return index
        return sum(item.rank <= RANK[request.priority] for item in self._waiting)

    def _ttl_s(self, request: SpeakRequest, expiry_s: float | None) -> float:
        default_s = self._config.critical_ttl_s if request.priority is Priority.CRITICAL else self._config.ttl_s
        ttl_s = default_s if request.ttl_s is None else request.ttl_s
        return ttl_s if expiry_s is None else min(ttl_s, expiry_s)

    def _interrupt(self, playing: Item) -> Events:
        """Put a normal back to the head of the normals if it may be spoken again, else end it."""
        if playing.request.priority is Priority.LOW:
            return (self._end(playing, EventType.CANCELLED, Reason.PREEMPTED),)
        if any(item.shares_key(playing.request) for item in self._waiting):
            return (self._end(playing, EventType.CANCELLED, Reason.REPLACED),)
        if playing.heard and (playing.replayed or self._config.interrupted == "drop"):
            return (self._end(playing, EventType.CANCELLED, Reason.PREEMPTED),)
        playing.replayed |= playing.heard
        self._waiting.insert(sum(item.critical for item in self._waiting), playing)
        return ()

    def _end(
        self,
        item: Item,
        event_type: EventType,
        reason: Reason | None,
        *,
        audio_s: float | None = None,
        truncated: bool | None = None,
    ) -> Event:
        item.done = True
        self._waiting = [other for other in self._waiting if other is not item]
        if event_type is EventType.FINISHED and reason is Reason.MUTED and not item.announced:
            audio_s = 0.0
        return Event(event_type=event_type, id=item.request.id, reason=reason, audio_s=audio_s, truncated=truncated)


def _rejected(request: SpeakRequest, reason: Reason) -> Event:
    return Event(event_type=EventType.REJECTED, id=request.id, reason=reason)
