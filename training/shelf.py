"""Utterances that were made to be judged, kept as files: what has been made once is not made again."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import soundfile
from numpy.typing import NDArray

from daemon.errors import StoreError
from daemon.values import SAMPLE_RATE, Pcm16
from training.crew import Crew
from training.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Made:
    """One utterance that has been made."""

    path: Path
    """FLAC, 24 kHz, 16 bits."""
    num_samples: int
    starts: tuple[int, ...] = (0,)
    """First samples of its segments."""
    truncated: bool = False
    """A segment reached its limit of frames and was cut: it had run away."""

    @property
    def ends(self) -> tuple[int, ...]:
        """Where its segments end, in samples."""
        return (*self.starts[1:], self.num_samples)

    def edges(self, frame: int, delay: int) -> NDArray[np.int64]:
        """Where clicks can be expected, int64 [N]: the first samples of frames, and of what a call of the codec gave.

        Args:
            frame: samples of a frame.
            delay: samples that the codec holds back.
        """
        found: set[int] = set()
        for start, end in zip(self.starts, self.ends, strict=True):
            found.update(range(start + frame, end, frame), range(start + frame - delay, end, frame))
        return np.array(sorted(found), np.int64)


class Order(Protocol):
    """What is to be made; picklable."""

    @property
    def path(self) -> Path:
        """The file it goes to."""


_Order = TypeVar("_Order", bound=Order)


class Shelf:
    """A folder of utterances from one source.

    Args:
        folder: where they are, and the list of them.
        crew: who makes what is missing.
    """

    def __init__(self, folder: Path, crew: Crew) -> None:
        self._folder = folder
        self._list = Ledger(folder / "made.jsonl")
        self._crew = crew

    def get(self, make: Callable[[_Order], Made], orders: Sequence[_Order], label: str) -> list[Made]:
        """The utterances ordered, made if need be.

        Raises:
            StoreError: the list cannot be written.
            Stopped: asked to; what was made is kept.
        """
        names = [str(order.path.relative_to(self._folder)) for order in orders]
        new = {name: order for name, order in zip(names, orders, strict=True) if name not in self._list}
        for name, made in zip(new, self._crew.each(make, list(new.values()), label), strict=True):
            self._list[name] = [made.num_samples, made.starts, made.truncated]
        return [_from_list(self._folder / name, self._list[name]) for name in names]


def _from_list(path: Path, entry: list[Any]) -> Made:
    num_samples, starts, truncated = entry
    return Made(path, num_samples, tuple(starts), truncated)


def read(path: Path) -> Pcm16:
    """int16 [S] of a file that ``write`` wrote.

    Raises:
        StoreError: it is gone or damaged.
    """
    try:
        pcm, _ = soundfile.read(path, dtype="int16")
    except soundfile.LibsndfileError as err:
        raise StoreError(f"{path}: {err}; remove the folder evaluation and evaluate again") from err
    return np.asarray(pcm, np.int16)


def write(path: Path, pcm: Pcm16) -> None:
    """Write int16 [S], 24 kHz, as FLAC, whole or not at all.

    Raises:
        StoreError: the disk is full.
    """
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(part, pcm, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        part.replace(path)
    except (OSError, soundfile.LibsndfileError) as err:
        raise StoreError(f"{path}: cannot be written: {err}") from err
