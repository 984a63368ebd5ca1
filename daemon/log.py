"""Logging: ``event key=value`` lines on stderr, as the journal wants them or readable on a terminal."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TextIO

_SYSLOG = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_ONCE_S = 600.0
_MAX_THINGS = 100


class _JournalFormatter(logging.Formatter):
    """``<N>`` before every line, tracebacks included: the journal reads the priority line by line."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_SYSLOG.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines() or [""])


def setup(level: str, *, stream: TextIO | None = None, environ: Mapping[str, str]) -> None:
    """Send all logging to ``stream`` (stderr), in the journal's format if that is where the stream leads."""
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    if _is_journal(stream, environ.get("JOURNAL_STREAM", "")):
        handler.setFormatter(_JournalFormatter("%(name)s: %(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.getLogger().handlers[:] = [handler]
    set_level(level)


def set_level(level: str) -> None:
    """Log from this level on: debug, info, warning or error."""
    logging.getLogger().setLevel(level.upper())


def _is_journal(stream: TextIO, journal_stream: str) -> bool:
    """Whether the stream is the one of ``$JOURNAL_STREAM``; a terminal or file may be inherited beside the variable."""
    try:
        stat = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return journal_stream == f"{stat.st_dev}:{stat.st_ino}"


class RateLimited:
    """A logger for what may repeat without end: each message once in ``seconds``, with a count of what was left out.

    Messages are told apart by their format, so that ``underrun ms=%s`` is one message whatever the number.
    """

    def __init__(self, logger: logging.Logger, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[str, tuple[float, int]] = {}
        """When each format was last written, and how often it was left out since."""

    def log(self, level: int, message: str, *args: object) -> None:
        """As ``logging.Logger.log``, unless the same format was written less than ``seconds`` ago."""
        now = self._clock()
        with self._lock:
            written, omitted = self._last.get(message, (-float("inf"), 0))
            if now - written < self._seconds:
                self._last[message] = (written, omitted + 1)
                return
            self._last[message] = (now, 0)
        if omitted:
            message += f" repeats_omitted={omitted}"
        self._logger.log(level, message, *args, stacklevel=2)


class OnceLog:
    """Warns about each new trouble of a thing once, and again when it lasts."""

    def __init__(self, logger: logging.Logger, event: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._event = event
        self._clock = clock
        self._logged: dict[str, tuple[str, float]] = {}

    def warn(self, thing: str, trouble: str) -> None:
        """Log, unless the same was logged within ten minutes."""
        last, when = self._logged.get(thing, ("", 0.0))
        if trouble != last or self._clock() - when > _ONCE_S:
            self._logged.pop(thing, None)
            if len(self._logged) >= _MAX_THINGS:  # some are named by strangers
                self._logged.pop(next(iter(self._logged)))
            self._logged[thing] = (trouble, self._clock())
            self._logger.warning("event=%s %s: %s", self._event, thing, trouble, stacklevel=2)

    def forget(self, thing: str) -> None:
        """All is well again."""
        self._logged.pop(thing, None)
