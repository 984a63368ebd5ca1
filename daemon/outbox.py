"""Events and states on their way to whoever listens, in the order in which they happened."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from daemon.values import Event, State

logger = logging.getLogger(__name__)


class Outbox:
    """Filled under the lock that orders things, emptied without it, so that no listener can hold up the speaker."""

    def __init__(self) -> None:
        self._on_event: list[Callable[[Event], None]] = []
        self._on_state: list[Callable[[State], None]] = []
        self._items: deque[Event | State] = deque()
        self._delivering = threading.Lock()

    def listen(self, on_event: Callable[[Event], None], on_state: Callable[[State], None] | None = None) -> None:
        """Call these from now on: in order, one at a time, from any thread. They must not block."""
        self._on_event.append(on_event)
        if on_state is not None:
            self._on_state.append(on_state)

    def put(self, item: Event | State) -> None:
        """Add one; the caller holds the lock that gives the order."""
        self._items.append(item)

    def deliver(self) -> None:
        """Hand all to the listeners; a thread that finds another at it leaves it the rest. Call without the lock."""
        while self._items and self._delivering.acquire(blocking=False):
            try:
                while self._items:
                    self._tell(self._items.popleft())
            finally:
                self._delivering.release()

    def _tell(self, item: Event | State) -> None:
        calls = [partial(call, item) for call in self._on_event] if isinstance(item, Event) else []
        calls += [partial(call, item) for call in self._on_state] if isinstance(item, State) else []
        for call in calls:
            try:
                call()
            except Exception:
                logger.exception("bug in a listener")
