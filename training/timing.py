"""How fast an utterance is spoken, and where it is silent."""

from dataclasses import dataclass

import numpy as np

from training.distortion import HOP_S, Cepstra

_PAUSE_S = 0.1
"""Shorter silences belong to stops, and to the speech around them."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one utterance."""

    before_s: float
    """Silence before the first sound."""
    after_s: float
    """Silence after the last."""
    pauses_s: float
    """Silence in between, of at least 0.1 s at a time."""
    speech_s: float
    """The rest."""


def measure(speech: Cepstra) -> Timing:
    """The timing of an utterance; one without a sound is silence before."""
    spoken = np.flatnonzero(speech.spoken)
    if not len(spoken):
        return Timing(len(speech.spoken) * HOP_S, 0.0, 0.0, 0.0)
    first, last = int(spoken[0]), int(spoken[-1])
    gaps = (np.diff(spoken) - 1) * HOP_S
    pauses_s = float(gaps[gaps >= _PAUSE_S - HOP_S / 2].sum())
    length_s = (last - first + 1) * HOP_S
    after_s = (len(speech.spoken) - 1 - last) * HOP_S
    return Timing(first * HOP_S, after_s, pauses_s, length_s - pauses_s)
