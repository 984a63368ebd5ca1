"""Ending a stage early without losing what it learned: on a signal, or when its minutes are over."""

import ctypes
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ASKED, _OBEYED = 0, 1


class Stopped(Exception):  # noqa: N818  # nothing failed: the stage saved what it had and is to be called again
    """A stage ended before its last step because it was asked to; its checkpoint is written."""


class StopRequest:
    """Whether a stage is to end early; one for all its processes.

    Attributes:
        deadline_s: ``time.monotonic()`` (of the whole machine, so the same in every process) when it is to end.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self.deadline_s = None if minutes is None else time.monotonic() + 60 * minutes
        # Shared with spawned processes, and without a lock, which a signal handler could wait for forever.
        self._flags: ctypes.Array[ctypes.c_byte] = get_context("spawn").RawArray(ctypes.c_byte, 2)

    @property
    def asked(self) -> bool:
        """Whether a signal came or the time is over."""
        return bool(self._flags[_ASKED]) or (self.deadline_s is not None and time.monotonic() >= self.deadline_s)

    @property
    def obeyed(self) -> bool:
        """Whether the stage has been told to stop, and so has not reached its last step."""
        return bool(self._flags[_OBEYED])

    def ask(self) -> None:
        """Have the stage end after the step it is at; safe in a signal handler."""
        self._flags[_ASKED] = 1

    def obey(self) -> None:
        """Note that the stage ends early."""
        self._flags[_OBEYED] = 1


@contextmanager
def on_signals(request: StopRequest, *, insist: bool = True) -> Iterator[None]:
    """Let SIGINT and SIGTERM ask for a stop while the block runs; elsewhere than in the main thread, change nothing.

    Args:
        request: what is asked.
        insist: a second signal raises KeyboardInterrupt.
    """

    def ask(_number: int, _frame: FrameType | None) -> None:
        if insist and came:
            raise KeyboardInterrupt
        came.append(True)
        request.ask()

    came: list[bool] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
