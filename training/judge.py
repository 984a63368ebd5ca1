"""How well speech is understood: a speech recogniser writes it down, and the wrong words are counted.

The recogniser is pocketsphinx with the American English model it comes with: it hears worse than people do, so that
only the ratio of two error rates on the same texts says something.
"""

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jiwer
import numpy as np
from numpy.typing import NDArray
from pocketsphinx import Decoder

from daemon.values import SAMPLE_RATE, Pcm16
from training.crew import Crew
from training.hearing import RATE, listen, padded
from training.ledger import Ledger

_NOISE = 1e-4
"""Standard deviation, of full scale: digital silence confuses the recogniser."""
_WORD = re.compile(r"[a-z']+")

Tally = NDArray[np.int64]
"""int64 [N]: something counted in each of N texts."""


class Interval(NamedTuple):
    """An estimate with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class Judge:
    """The recogniser with its memory: the same samples are not heard twice.

    Args:
        memory: file of what has been heard, by the sha256 of the samples.
        crew: who listens.
    """

    def __init__(self, memory: Path, crew: Crew) -> None:
        self._memory = Ledger(memory)
        self._crew = crew

    def hear(self, sounds: Iterable[Pcm16]) -> list[str]:
        """What is heard of each utterance, int16 [S] at 24 kHz.

        Raises:
            Stopped: asked to; what was heard until then is remembered.
            StoreError: the memory cannot be written.
        """
        keys: list[str] = []
        new: dict[str, Pcm16] = {}
        for sound in sounds:
            keys.append(hashlib.sha256(sound.tobytes()).hexdigest())
            if keys[-1] not in self._memory:
                new[keys[-1]] = sound
        heard = self._crew.each(recognise, list(new.values()), "listening")
        for key, text in zip(new, heard, strict=True):
            self._memory[key] = text
        return [self._memory[key] for key in keys]


@cache
def _decoder() -> Decoder:
    return Decoder(samprate=RATE, loglevel="FATAL")


def recognise(sound: Pcm16) -> str:
    """What pocketsphinx hears of int16 [S], 24 kHz, between silences and with a little noise."""
    audio = padded((sound / np.float32(32768)).astype(np.float32), SAMPLE_RATE)
    noise = np.random.default_rng(0).normal(0, _NOISE, len(audio))
    decoder = _decoder()
    decoder.reinit_feat()  # it adapts to what it has heard, and every utterance is to be judged alike
    listen(decoder, audio + noise)
    hypothesis = decoder.hyp()
    return hypothesis.hypstr if hypothesis else ""


def count_errors(text: str, heard: str) -> tuple[int, int]:
    """Wrong words (wrong, missing or too many) and words of the text, which has at least one."""
    done = jiwer.process_words(_words(text), _words(heard))
    return done.substitutions + done.deletions + done.insertions, done.hits + done.substitutions + done.deletions


def _words(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def ratio(above: Tally, below: Tally, resamples: int) -> Interval:
    """Sum over sum, with texts drawn anew (both sides of a text together) for the interval.

    That is a word error rate for wrong words over words, and a ratio of two for wrong words over the teacher's.

    Args:
        above: int64 [N], a number for each text.
        below: int64 [N], the same texts'; nan comes out where they are all 0.
        resamples: how many draws.

    Source: Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004.
    """
    if not below.sum():
        return Interval(np.nan, np.nan, np.nan)
    draws = np.random.default_rng(0).integers(0, len(above), (resamples, len(above)))
    ratios = above[draws].sum(1) / np.maximum(1, below[draws].sum(1))
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Interval(float(above.sum() / below.sum()), float(low), float(high))
