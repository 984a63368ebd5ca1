"""A sink that comes back: opens it, notices that it has gone, and tries again with backoff. Audio thread only."""

import logging
import random
import time
from collections.abc import Callable

from daemon.audio.sink import Sink
from daemon.errors import AudioError
from daemon.values import Pcm16

logger = logging.getLogger(__name__)

_BACKOFF_MIN_S = 0.5
_BACKOFF_MAX_S = 30.0


class Device:
    """Owns a sink on behalf of the player.

    Args:
        sink: closed.
        on_ok: told on every change whether the device works; it is taken to work until it fails.
    """

    def __init__(self, sink: Sink, on_ok: Callable[[bool], None]) -> None:
        self._sink = sink
        self._on_ok = on_ok
        self.ok = True
        """What ``on_ok`` was told last."""
        self._failures = 0
        self._retry_at_s = 0.0
        self.is_open = False

    @property
    def latency_s(self) -> float:
        """The sink's."""
        return self._sink.latency_s

    def retry_in_s(self) -> float:
        """Seconds until ``open`` will try again; not positive: now."""
        return self._retry_at_s - time.monotonic()

    def retry_now(self) -> None:
        """Let the next ``open`` try at once: there is something to say."""
        self._retry_at_s = 0.0
        self._failures = 0

    def open(self) -> bool:
        """Open the sink, unless it failed too short a time ago; return whether it is open."""
        if not self.is_open and self.retry_in_s() <= 0:
            try:
                self._sink.open()
            except AudioError as err:
                self._failed(err)
            else:
                self.is_open = True
                logger.debug("audio opened sink=%s latency_ms=%d", self._sink.name, 1000 * self._sink.latency_s)
        return self.is_open

    def write(self, block: Pcm16) -> bool:
        """Write to the open sink; False if the device has gone, which also closes it."""
        try:
            self._sink.write(block)
        except AudioError as err:
            self._failed(err)
            return False
        self._failures = 0
        if not self.ok:
            self.ok = True
            logger.info("audio back sink=%s", self._sink.name)
            self._on_ok(True)
        return True

    def close(self) -> None:
        """Close the sink."""
        self.is_open = False
        self._sink.close()

    def _failed(self, err: AudioError) -> None:
        self.close()
        delay_s = min(_BACKOFF_MAX_S, _BACKOFF_MIN_S * 2**self._failures)
        # Jitter keeps speakers that share a server apart; it is no secret.
        self._retry_at_s = time.monotonic() + delay_s * random.uniform(0.75, 1.0)  # noqa: S311
        self._failures = min(self._failures + 1, 10)
        if self.ok:
            self.ok = False
            logger.warning("audio lost sink=%s error=%s", self._sink.name, err)
            self._on_ok(False)
