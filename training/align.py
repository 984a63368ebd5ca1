"""Which character is being said when: letters laid on the phones that were spoken, by dynamic programming."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from daemon.values import F32
from training.phones import PHONES, SILENCE

_SOUNDS = {
    "a": "ae ey aa ao ax eh ah aw ih",
    "b": "b",
    "c": "k s ch sh",
    "d": "d t jh dx",
    "e": "eh iy ax er ih ey ah",
    "f": "f v",
    "g": "g jh zh ng",
    "h": "hh",
    "i": "ih iy ay ax y",
    "j": "jh y hh",
    "k": "k",
    "l": "l",
    "m": "m",
    "n": "n ng",
    "o": "ow aa ao ah uw uh ax aw oy w er",
    "p": "p f",
    "q": "k",
    "r": "r er",
    "s": "s z sh zh",
    "t": "t ch sh th dh dx",
    "u": "ah uh uw ax y w er ih",
    "v": "v f",
    "w": "w uw aw ow",
    "x": "k z g s",
    "y": "y ay iy ih",
    "z": "z s",
}
"""What a letter is usually said as."""
_VOWELS = frozenset(["ae", "ey", "aa", "ao", "ax", "eh", "ah", "aw", "ih", "iy", "ay", "uh", "uw", "oy", "ow", "er"])
_MATCH, _VOWEL, _PAUSE, _MISMATCH, _NOT_A_LETTER = 2.0, 0.6, 3.0, -1.2, -2.0
_SILENT_CHARACTER, _EXTRA_PHONE = -0.5, -0.6
FRAME_S = 0.08


def _score(char: str, phone: str) -> float:
    if phone == PHONES[SILENCE]:
        return _PAUSE if char in ",.?!" else _NOT_A_LETTER
    if char not in _SOUNDS:
        return _NOT_A_LETTER
    if phone in _SOUNDS[char].split():
        return _MATCH
    return _VOWEL if char in "aeiouy" and phone in _VOWELS else _MISMATCH


_SCORES = {char: [_score(char, phone) for phone in PHONES] for char in "abcdefghijklmnopqrstuvwxyz' ,.?!"}


def pairs(text: str, phones: Sequence[int]) -> list[tuple[int, int]]:
    """The best monotonic pairing: (character, index into ``phones``), a character or a phone at most once."""
    num_phones = len(phones)
    previous = [0.0]
    for phone in phones:
        previous.append(previous[-1] + (0.0 if phone == SILENCE else _EXTRA_PHONE))
    steps = [bytearray([2]) * (num_phones + 1)]
    for char in text:
        scores, silent = _SCORES[char], 0.0 if char in " '" else _SILENT_CHARACTER
        best, step = [previous[0] + silent], bytearray([1]) * (num_phones + 1)
        for j, phone in enumerate(phones):
            value, kind = previous[j] + scores[phone], 0
            if (other := previous[j + 1] + silent) > value:
                value, kind = other, 1
            if (other := best[j] + (0.0 if phone == SILENCE else _EXTRA_PHONE)) > value:
                value, kind = other, 2
            best.append(value)
            step[j + 1] = kind
        steps.append(step)
        previous = best
    found: list[tuple[int, int]] = []
    i, j = len(text), num_phones
    while i or j:
        kind = steps[i][j] if i else 2
        if kind == 0:
            i, j = i - 1, j - 1
            found.append((i, j))
        elif kind == 1:
            i -= 1
        else:
            j -= 1
    return found[::-1]


def characters(text: str, phones: Sequence[tuple[int, float]], num_frames: int) -> F32:
    """The character that is said at the centre of every frame, and the last one at the end: float32 [T + 1].

    Fractional between centres of phones; nan throughout where too little is paired to tell.
    """
    paired = pairs(text, [phone for phone, _ in phones])
    if len(paired) < 2:
        return np.full(num_frames + 1, np.nan, np.float32)
    ends = [end for _, end in phones]
    starts = [0.0, *ends[:-1]]
    times = [(starts[j] + ends[j]) / 2 for _, j in paired]
    at: F32 = np.interp((np.arange(num_frames + 1) + 0.5) * FRAME_S, times, [i for i, _ in paired]).astype(np.float32)
    at[-1] = len(text) - 1
    return at


def character_phones(text: str, phones: Sequence[tuple[int, float]]) -> NDArray[np.int8]:
    """Up to two phones that every character is said as, int8 [N, 2]; 0 where there is none.

    A phone without a character of its own belongs to the character before it, or to the one after it if that is said
    so (the k of "x").
    """
    names = [phone for phone, _ in phones]
    said: list[list[int]] = [[] for _ in text]
    owner = {j: i for i, j in pairs(text, names)}
    last = 0
    for j, phone in enumerate(names):
        following = owner.get(j + 1, last)
        if j in owner:
            last = owner[j]
        elif said and _SCORES[text[following]][phone] == _MATCH:
            last = following
        if said and phone != SILENCE:
            said[last].append(phone)
    return np.array([(found + [SILENCE] * 2)[:2] for found in said], np.int8).reshape(len(text), 2)


def frame_phones(phones: Sequence[tuple[int, float]], num_frames: int) -> NDArray[np.int8]:
    """The phone in the middle of every quarter of a frame, int8 [T, 4]; silence after the last."""
    if not phones:
        return np.zeros((num_frames, 4), np.int8)
    names = np.array([phone for phone, _ in phones] + [SILENCE], np.int8)
    times = (np.arange(num_frames * 4) + 0.5) * FRAME_S / 4
    at: NDArray[np.intp] = np.searchsorted([end for _, end in phones], times, side="right")
    return names[at].reshape(num_frames, 4)
