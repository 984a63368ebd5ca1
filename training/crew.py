"""Work that is spread over processes and can be stopped between two pieces."""

import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import track

from daemon.errors import SpeechError
from training.stopping import Stopped, StopRequest

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")
_AHEAD = 16
"""Jobs for each process that are given out before the oldest of them is done: results wait for their turn in memory."""


class Crew:
    """Processes that do one kind of work after the other; with one process, the work is done in place.

    Args:
        processes: how many.
        request: asked between two pieces of work.
    """

    def __init__(self, processes: int, request: StopRequest) -> None:
        self._request = request
        self._ahead = _AHEAD * processes
        # Not multiprocessing.Pool: that waits forever for a worker that was killed.
        self._pool = ProcessPoolExecutor(processes, get_context("spawn"), _ignore_interrupts) if processes > 1 else None

    def each(self, function: Callable[[_Job], _Result], jobs: Sequence[_Job], label: str) -> Iterator[_Result]:
        """The results in the order of the jobs; function, jobs and results are picklable.

        Raises:
            Stopped: asked to; what was yielded is all there is.
            SpeechError: a process was killed; likewise.
        """
        results = map(function, jobs) if self._pool is None else self._spread(self._pool, function, jobs)
        for result in track(results, label, total=len(jobs), console=Console(stderr=True)):
            yield result
            self._obey()

    def _spread(
        self, pool: ProcessPoolExecutor, function: Callable[[_Job], _Result], jobs: Sequence[_Job]
    ) -> Iterator[_Result]:
        given: deque[Future[_Result]] = deque()
        try:
            for job in jobs:
                given.append(pool.submit(function, job))
                if len(given) == self._ahead:
                    yield given.popleft().result()
            while given:
                yield given.popleft().result()
        except BrokenProcessPool:
            self._obey()  # a signal to all processes also ends those that were not yet ready for it
            raise SpeechError(
                "a process was killed (too little memory?); what was done is kept, and the same command goes on"
            ) from None

    def _obey(self) -> None:
        if self._request.asked:
            self._request.obey()
            raise Stopped

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    """A terminal's Ctrl-C reaches every process; the first one ends the others.

    Not SIGTERM: with that, the pool ends those that are left when one was killed, and it waits for them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
