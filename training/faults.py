"""Words that are missing, said twice or not reached: an utterance is laid along the teacher's, and leaps are counted.

The alignment lets steps of either side go unmatched at a fixed price. Differences in speed take such a step here and
there; what was left out or said twice takes many at once. A word that is merely said wrong is matched all the same, or
leaps on both sides, and the leaps cancel out: this is about speech that is there or not, and the judge about the rest.
"""

from dataclasses import dataclass

import librosa
import numpy as np

from daemon.values import Array
from training.distortion import HOP_S, Cepstra, distances

_PRICE_DB = 5.0
"""Of an unmatched step; two that match are 2 dB apart in the median, and 4.5 dB at most in 95 %."""
_CALM = 5
"""Matched steps that a leap may hold: chance matches break it."""
_LEAP_S = 0.16
"""A leap over so much speech (silence does not count) is a skip or a repeat.

Planted in 80 sentences of the prototype, beside the teacher's: 86 % of those of 0.3 s are found and 99 % of those of
0.4 s; 3 in 80 without any were reported. (The limits here were chosen on these sentences, so expect a little less.)
"""
_TAIL_S = 0.12
"""Speech of the teacher that is left over after the last sound: an early end.

Planted likewise: 90 % of those of 0.2 s are found and 96 % of longer ones, and none in 80 without any.
"""
_NEAR_END_S = 0.2
"""A skip that begins so shortly before the end of a segment is an early end."""
_SHORT = 0.75
"""Less speech than this share of the teacher's is an early end too.

The prototype's sentences have 0.89 to 1.13. In single words it is a matter of 0.1 s, so that what is said a fifth
faster can be reported (1 in 60), though nothing that is said a tenth faster was.
"""


@dataclass(frozen=True, slots=True)
class Leap:
    """Speech that only one of two utterances has."""

    teacher_s: float
    """Where it begins in the teacher's."""
    speech_s: float
    """Where it begins in the other."""
    length_s: float
    """How much speech is missing; negative: how much there is too much."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong with one utterance."""

    early_end: bool
    skips: tuple[Leap, ...]
    repeats: tuple[Leap, ...]


def find(teacher: Cepstra, speech: Cepstra, ends_s: tuple[float, ...]) -> Faults:
    """Compare an utterance with the teacher's of the same text.

    Args:
        teacher: complete speech.
        speech: what is to be judged.
        ends_s: where its segments end, seconds, in order; the last is the end of all.
    """
    if not speech.spoken.any():
        return Faults(early_end=True, skips=(), repeats=())
    path = _align(teacher, speech)
    leaps = _leaps(path, teacher, speech)
    at_end = [leap for leap in leaps if leap.length_s > 0 and _ends_there(leap, ends_s)]
    skips = tuple(leap for leap in leaps if leap.length_s > 0 and leap not in at_end)
    repeats = tuple(leap for leap in leaps if leap.length_s < 0)
    short = speech.speech_s < _SHORT * teacher.speech_s
    early_end = bool(at_end) or short or _tail_s(path, teacher, speech) >= _TAIL_S - HOP_S / 2
    return Faults(early_end, skips, repeats)


def _align(teacher: Cepstra, speech: Cepstra) -> Array:
    """The cheapest path, int64 [P, 2]: steps of the teacher's and of the speech, from the first to the last."""
    _, path = librosa.sequence.dtw(
        C=distances(teacher, speech),
        step_sizes_sigma=np.array([[1, 1], [0, 1], [1, 0]]),
        weights_mul=np.array([1.0, 0.0, 0.0]),
        weights_add=np.array([0.0, _PRICE_DB, _PRICE_DB]),
    )
    return np.asarray(path[::-1])


def _advance(path: Array, teacher: Cepstra, speech: Cepstra) -> tuple[Array, Array]:
    """How far the teacher's speech is ahead at each point of a path (int64 [P], steps), and steps matched so far."""
    moves = np.diff(path, axis=0)
    ahead = moves[:, 0] * teacher.spoken[path[1:, 0]] - moves[:, 1] * speech.spoken[path[1:, 1]]
    return np.append(0, np.cumsum(ahead)), np.append(0, np.cumsum(moves.sum(1) == 2))


def _leaps(path: Array, teacher: Cepstra, speech: Cepstra) -> list[Leap]:
    """All leaps, the largest first, none overlapping another."""
    ahead, matched = _advance(path, teacher, speech)
    ends = np.searchsorted(matched, matched + _CALM, side="right")
    leaps: list[Leap] = []
    free = np.ones(len(path), bool)
    while True:
        begin, end = _largest(ahead, ends, free)
        length_s = float(ahead[end] - ahead[begin]) * HOP_S
        if abs(length_s) < _LEAP_S - HOP_S / 2:
            return leaps
        leaps.append(Leap(float(path[begin, 0]) * HOP_S, float(path[begin, 1]) * HOP_S, length_s))
        free[begin : end + 1] = False


def _largest(ahead: Array, ends: Array, free: Array) -> tuple[int, int]:
    """Where the largest change of ``ahead`` within the given ends begins and ends, over free points only."""
    best, where = 0, (0, 0)
    for begin in np.flatnonzero(free):
        stop = ends[begin]
        taken = np.flatnonzero(~free[begin:stop])
        change = np.abs(ahead[begin : begin + taken[0] if len(taken) else stop] - ahead[begin])
        if change.max() > best:
            best, where = change.max(), (int(begin), int(begin + change.argmax()))
    return where


def _ends_there(leap: Leap, ends_s: tuple[float, ...]) -> bool:
    return any(end_s - _NEAR_END_S <= leap.speech_s <= end_s for end_s in ends_s)


def _tail_s(path: Array, teacher: Cepstra, speech: Cepstra) -> float:
    """Speech of the teacher's that comes after the last that was matched."""
    ahead, matched = _advance(path, teacher, speech)
    last = int(np.searchsorted(matched, matched[-1] - _CALM))
    return float(ahead[-1] - ahead[last:].min()) * HOP_S
