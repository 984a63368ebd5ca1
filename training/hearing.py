"""How pocketsphinx is given an utterance to listen to."""

from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray
from pocketsphinx import Decoder

from daemon.values import F32

RATE = 16_000
"""Hz."""
PADDING_S = 0.2
"""Of silence before and after: the recogniser expects some."""


def padded(audio: F32, rate: int) -> F32:
    """float32 [S'] at ``rate`` as float32 [S] at 16 kHz, between silences."""
    return np.pad(soxr.resample(audio, rate, RATE), round(PADDING_S * RATE))


def listen(decoder: Decoder, audio: NDArray[np.floating[Any]]) -> None:
    """Have it hear one utterance, [S] -1..1 at 16 kHz, whole."""
    decoder.start_utt()
    decoder.process_raw((audio.clip(-1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
