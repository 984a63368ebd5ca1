"""What a stage says while it runs: a progress bar or plain lines, and a log that plots are made of."""

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from daemon.errors import StoreError
from training.workspace import hold

_LINE_EVERY_S = 30.0
_KEEP = 0.98
"""How much of the smoothed value is left after a step."""


class Ranked(Protocol):
    """One process of several; the one of rank 0 speaks."""

    rank: int


class Journal:
    """Progress and log of one stage; in a process of another rank than 0 it does nothing.

    Appends one JSON object per call to the log: ``step``, ``time_s`` (seconds of training in all runs so far) and what
    was given.
    """

    def __init__(self, run: Ranked, path: Path, *, total: int, start: int = 0) -> None:
        """Open the log.

        Args:
            run: whose journal this is.
            path: the log; its stem is the name shown.
            total: number of steps of the stage.
            start: the step it goes on from.

        Raises:
            StoreError: the log cannot be written.
            BadRequestError: another run is writing it.
        """
        self._active = run.rank == 0
        if not self._active:
            return
        self._path, self._total, self._step, self._start = path, total, start, start
        self._smooth: dict[str, tuple[float, float]] = {}
        self._began_s = time.monotonic()
        self._said_s = self._began_s
        self._before_s = _time_until(path, start)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            cut_off = path.exists() and not path.read_bytes().endswith(b"\n")
            self._file = path.open("a", encoding="utf-8", buffering=1)
            hold(self._file)
            if cut_off:  # the process before was killed while it wrote
                self._file.write("\n")
        except OSError as err:
            raise StoreError(f"{path}: log cannot be written: {err.strerror}") from err
        console = Console(stderr=True)
        self._bar = console.is_terminal
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        times = (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[values]}"))
        self._progress = Progress(*columns, *times, console=console, disable=not self._bar)
        self._task = self._progress.add_task(path.stem, total=total, completed=start, values="")
        self._progress.start()

    def step(self, step: int, **metrics: float) -> None:
        """Log that ``step`` steps are done, and what was measured at the last."""
        if not self._active:
            return
        self._step = step
        self._write({"step": step, **{name: _short(value) for name, value in metrics.items()}})
        for name, value in metrics.items():
            total, weight = self._smooth.get(name, (0.0, 0.0))
            self._smooth[name] = (_KEEP * total + value, _KEEP * weight + 1)
        if self._bar:
            self._progress.update(self._task, completed=step, values=self._values())
        elif time.monotonic() - self._said_s >= _LINE_EVERY_S or step >= self._total:
            self._say_line()

    def note(self, **fields: float | str) -> None:
        """Log and show what is known once in a while, such as the loss on held-out sentences."""
        if not self._active:
            return
        short = {name: _short(value) if isinstance(value, float) else value for name, value in fields.items()}
        self._write({"step": self._step, **short})
        shown = "  ".join(f"{name} {value}" for name, value in short.items())
        self._progress.console.print(f"{self._path.stem} {self._step}: {shown}", markup=False, highlight=False)

    def close(self) -> None:
        """End the bar and the log.

        Raises:
            StoreError: the disk is full.
        """
        if self._active:
            self._progress.stop()
            try:
                self._file.close()
            except OSError as err:  # it still has a line that could not be written
                raise StoreError(f"{self._path}: log cannot be written: {err.strerror}") from err

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, fields: dict[str, float | str]) -> None:
        time_s = self._before_s + time.monotonic() - self._began_s
        try:
            self._file.write(json.dumps({"time_s": round(time_s, 2), **fields}) + "\n")
        except OSError as err:
            raise StoreError(f"{self._path}: log cannot be written: {err.strerror}") from err

    def _values(self) -> str:
        return "  ".join(f"{name} {total / weight:.4g}" for name, (total, weight) in self._smooth.items())

    def _say_line(self) -> None:
        now_s = time.monotonic()
        self._said_s = now_s
        each_s = (now_s - self._began_s) / max(1, self._step - self._start)
        left_min = each_s * (self._total - self._step) / 60
        position = f"{self._path.stem} {self._step}/{self._total}"
        print(
            f"{position}  {each_s:.3g} s/step  {left_min:.0f} min left  {self._values()}", file=sys.stderr, flush=True
        )


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def read_log(path: Path) -> list[dict[str, float | str]]:
    """The lines of a log in the order they were written, without those that were cut off.

    Raises:
        OSError: it cannot be read.
    """
    lines: list[dict[str, float | str]] = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def _time_until(path: Path, step: int) -> float:
    """Seconds of training that the runs before took to reach ``step``."""
    if step == 0 or not path.exists():
        return 0.0
    times = [float(line["time_s"]) for line in read_log(path) if float(line["step"]) <= step]
    return times[-1] if times else 0.0
