"""Pieces of speech of one length, as the codec is trained on them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from daemon.errors import ModelError
from daemon.values import F32
from training.classify import IGNORED
from training.phones import SILENCE
from training.speech import FRAME_SAMPLES, Speech, evenly

_QUARTERS = 4
_QUARTER_SAMPLES = FRAME_SAMPLES // _QUARTERS


class Pieces(NamedTuple):
    """A batch of speech."""

    audio: Tensor
    """float32 [B, S]."""
    phones: Tensor
    """Of every quarter of a frame, int64 [B, T, 4]; IGNORED where they are not known."""


class CodedPieces(NamedTuple):
    """A batch of speech with its codes."""

    audio: Tensor
    """float32 [B, S]."""
    codes: Tensor
    """int64 [B, T, Q]."""


class Cutter:
    """Draws pieces from anywhere in the speech of a split, every second of it as often as any other.

    Args:
        speech: all of it.
        split: train or held.
        num_frames: of a piece.
        repeats: by speaker, so many times as often as that; none: all alike.

    Raises:
        ModelError: the split is empty.
    """

    def __init__(self, speech: Speech, split: str, num_frames: int, repeats: Sequence[int] = ()) -> None:
        self._speech = speech
        self._numbers = speech.split(split)
        if not self._numbers:
            raise ModelError(f"speech: expected utterances of the split {split}, found none; run the stage speak")
        items = [speech.utterances[number] for number in self._numbers]
        self._ends = np.cumsum([item.num_frames * (repeats[item.speaker] if repeats else 1) for item in items])
        self._num_frames = num_frames
        self._phones: dict[int, NDArray[np.int8]] = {}

    def draw(self, generator: np.random.Generator, batch: int) -> Pieces:
        """So many pieces; they begin at any quarter of a frame, sometimes a little before or after the speech."""
        span = self._num_frames * _QUARTERS
        audio = np.zeros((batch, span * _QUARTER_SAMPLES), np.float32)
        phones = np.full((batch, span), SILENCE, np.int64)
        for row, number in enumerate(self._choose(generator, batch)):
            free = self._speech.utterances[number].num_frames * _QUARTERS - span
            start = int(generator.integers(min(free, 0) - _QUARTERS, max(free, 0) + _QUARTERS + 1))
            _copy(self._speech.audio(number), start * _QUARTER_SAMPLES, audio[row])
            if self._speech.utterances[number].phones:
                _copy(self._quarters(number), start, phones[row])
            else:
                phones[row] = IGNORED
        return Pieces(torch.from_numpy(audio), torch.from_numpy(phones).view(batch, -1, _QUARTERS))

    def draw_coded(self, generator: np.random.Generator, batch: int, codes: NDArray[np.int16]) -> CodedPieces:
        """So many pieces that begin at a frame; beyond either end the outermost frame, which is silent, goes on.

        Args:
            generator: of random numbers.
            batch: how many.
            codes: of all speech, int16 [frames, Q].
        """
        span = self._num_frames
        audio = np.zeros((batch, span * FRAME_SAMPLES), np.float32)
        chosen = np.zeros((batch, span, codes.shape[1]), np.int64)
        for row, number in enumerate(self._choose(generator, batch)):
            item = self._speech.utterances[number]
            free = item.num_frames - span
            start = int(generator.integers(min(free, 0), max(free, 0) + 1))
            _copy(self._speech.audio(number), start * FRAME_SAMPLES, audio[row])
            frames = np.clip(np.arange(start, start + span), 0, item.num_frames - 1)
            chosen[row] = codes[item.first_frame + frames]
        return CodedPieces(torch.from_numpy(audio), torch.from_numpy(chosen))

    def _choose(self, generator: np.random.Generator, batch: int) -> list[int]:
        frames = generator.integers(self._ends[-1], size=batch)
        return [self._numbers[place] for place in np.searchsorted(self._ends, frames, side="right")]

    def _quarters(self, number: int) -> NDArray[np.int8]:
        if number not in self._phones:
            self._phones[number] = self._speech.frame_phones(number).reshape(-1)
        return self._phones[number]


def _copy(source: F32 | NDArray[np.int8], start: int, target: NDArray[np.float32] | NDArray[np.int64]) -> None:
    """Copy what of ``source[start:]`` there is to where it belongs in ``target``; ``start`` may be negative."""
    begin, end = max(start, 0), min(start + len(target), len(source))
    if begin < end:
        target[begin - start : end - start] = source[begin:end]


def held_batch(speech: Speech, count: int, num_frames: int) -> F32:
    """The beginnings of held-out utterances, float32 [count or fewer, num_frames * 1920].

    Of every speaker as many, the last one's first: recordings come last, and they are what one wants to see.
    """
    by_speaker: dict[int, list[int]] = {}
    for number in speech.split("held"):
        by_speaker.setdefault(speech.utterances[number].speaker, []).append(number)
    each = max(1, count // max(1, len(by_speaker)))
    numbers = [number for speaker in sorted(by_speaker, reverse=True) for number in evenly(by_speaker[speaker], each)]
    audio = np.zeros((len(numbers), num_frames * FRAME_SAMPLES), np.float32)
    for row, number in enumerate(numbers):
        _copy(speech.audio(number), 0, audio[row])
    return audio
