"""Speech as mel-cepstra, and how far two recordings of the same text are apart in them."""

from dataclasses import dataclass

import librosa
import numpy as np
from scipy.fft import dct
from scipy.spatial.distance import cdist

from daemon.values import F32, SAMPLE_RATE, Array, Pcm16

HOP_S = 0.01
_HOP = int(HOP_S * SAMPLE_RATE)
_WINDOW = 600
_FFT = 1024
_BANDS = 40
_LOWEST_HZ, _HIGHEST_HZ = 60, 8000
"""The teacher's speech ends at 8 kHz."""
_CEPSTRA = 13
_FLOOR_DB = 60.0
"""What is so far below the loudest is taken to be at that level: silence is alike, whatever its noise."""
_SILENCE_DB = 35.0
"""Steps so far below the loudest are silent (flite's stops and pauses; measured on its voices slt and rms)."""
_SOUND = 33
"""Of 32767: what never gets this loud is silent altogether."""
_MEL = librosa.filters.mel(
    sr=SAMPLE_RATE, n_fft=_FFT, n_mels=_BANDS, fmin=_LOWEST_HZ, fmax=_HIGHEST_HZ, dtype=np.float32
)


@dataclass(frozen=True, slots=True)
class Cepstra:
    """An utterance in steps of 10 ms, K of them."""

    shape: F32
    """float32 [K, 13]: the coefficients after the first (which is the level), dB."""
    spoken: Array
    """bool [K]: whether it is not silent."""

    @property
    def speech_s(self) -> float:
        """How long it is not silent."""
        return float(self.spoken.sum()) * HOP_S


def cepstra(pcm: Pcm16) -> Cepstra:
    """Analyse int16 [S], 24 kHz.

    The coefficients are scaled so that the distance between two vectors is the root mean square difference, in dB, of
    the smoothed mel spectra without their levels.
    """
    sound = pcm / np.float32(32768)
    spectrum = np.abs(librosa.stft(sound, n_fft=_FFT, hop_length=_HOP, win_length=_WINDOW, pad_mode="constant")) ** 2
    power = _MEL @ spectrum
    bands, level = (10 * np.log10(np.maximum(values, 1e-10)) for values in (power, power.sum(0)))
    bands = np.maximum(bands, bands.max() - _FLOOR_DB)
    shape = dct(bands, axis=0, norm="ortho")[1 : _CEPSTRA + 1].T / np.sqrt(_BANDS)
    is_sound = int(np.abs(pcm.astype(np.int32)).max(initial=0)) >= _SOUND
    return Cepstra(shape.astype(np.float32), (level > level.max() - _SILENCE_DB) & is_sound)


def distances(one: Cepstra, other: Cepstra) -> Array:
    """Between every step of one and every step of the other, float64 [K, K'], dB."""
    return np.asarray(cdist(one.shape, other.shape))


def distortion(teacher: Cepstra, speech: Cepstra) -> float:
    """Mel-cepstral distortion, dB: the mean distance along the best path, where the teacher is not silent.

    Of mel-frequency cepstra of 40 bands up to 8 kHz, coefficients 1 to 13, so it compares the rows of one table and not
    with figures that were made with another analysis.

    Source: Kubichek, "Mel-cepstral distance measure for objective speech quality assessment", PACRIM 1993; dynamic time
    warping by librosa.
    """
    matrix = distances(teacher, speech)
    _, path = librosa.sequence.dtw(C=matrix)
    along = matrix[path[:, 0], path[:, 1]]
    return float(along[teacher.spoken[path[:, 0]]].mean())
