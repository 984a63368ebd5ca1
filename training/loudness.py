"""Speech as training wants it: the silence at its ends cut, at an even level, 24 kHz."""

import numpy as np
import soxr
from numpy.typing import NDArray

from daemon.values import F32, SAMPLE_RATE
from training.config import SpeechConfig

_BLOCK_S = 0.01
_SILENCE_SHARE = 0.02
"""What is under this share of the loudest block is silence."""
_PEAK = 0.95
_SHORTEST_S = 0.15


def sounding(audio: F32, rate: int) -> tuple[int, int] | None:
    """The first sample of what is not silent and the one after the last; None where nothing is.

    Args:
        audio: float32 [S], mono.
        rate: its sample rate, Hz.
    """
    block = round(rate * _BLOCK_S)
    num_blocks = len(audio) // block
    loudness = np.sqrt((audio[: num_blocks * block].reshape(-1, block) ** 2).mean(axis=1) + 1e-12)
    loud = np.flatnonzero(loudness > _SILENCE_SHARE * loudness.max()) if num_blocks else np.zeros(0, int)
    if len(loud) * _BLOCK_S < _SHORTEST_S / 3:
        return None
    return int(loud[0]) * block, (int(loud[-1]) + 1) * block


def prepare(audio: F32, rate: int, speech: SpeechConfig) -> tuple[NDArray[np.int16], float]:
    """Cut the silence at both ends down to the margin, set the level, resample.

    Args:
        audio: float32 [S'] at ``rate``.
        rate: its sample rate, Hz.
        speech: margin and level.

    Returns:
        int16 [S] at 24 kHz, and how many seconds were cut from the start.
    """
    found = sounding(audio, rate)
    if found is None:
        return np.zeros(round(_SHORTEST_S * SAMPLE_RATE), np.int16), 0.0
    margin = round(speech.margin_s * rate)
    start, end = max(0, found[0] - margin), min(len(audio), found[1] + margin)
    audio = audio[start:end]
    loud = audio[np.abs(audio) > 0.01 * np.abs(audio).max()]
    audio = audio * (10 ** (speech.level_db / 20) / np.sqrt((loud**2).mean()))
    audio = audio * min(1.0, _PEAK / np.abs(audio).max())
    resampled = soxr.resample(audio, rate, SAMPLE_RATE)
    return (np.clip(resampled, -1, 1) * 32767).astype(np.int16), start / rate
