"""Work that is spread over processes and can be stopped between two pieces."""

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import track

from training.stopping import SIGNALS, Stopped, StopRequest

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


class Crew:
    """Processes that do one kind of work after the other; with one process, the work is done in place.

    Args:
        processes: how many.
        request: asked between two pieces of work.
    """

    def __init__(self, processes: int, request: StopRequest) -> None:
        self._request = request
        # Not multiprocessing.Pool: that waits forever for a worker that was killed.
        self._pool = ProcessPoolExecutor(processes, get_context("spawn"), _ignore_signals) if processes > 1 else None

    def each(self, function: Callable[[_Job], _Result], jobs: Sequence[_Job], label: str) -> Iterator[_Result]:
        """The results in the order of the jobs; function, jobs and results are picklable.

        Raises:
            Stopped: asked to; what was yielded is all there is.
        """
        results = map(function, jobs) if self._pool is None else self._pool.map(function, jobs)
        for result in track(results, label, total=len(jobs), console=Console(stderr=True)):
            yield result
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


def _ignore_signals() -> None:
    """A terminal's Ctrl-C reaches every process; the first one ends the others."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
