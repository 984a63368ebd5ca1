"""A recording of a voice as the codec's encoder takes it: 24 kHz mono, without silence around it, at a fixed level."""

import math
from pathlib import Path

import numpy as np
import soxr

from daemon.errors import BadRequestError
from daemon.sound_file import read_sound
from daemon.values import F32, SAMPLE_RATE, Array

MIN_S = 0.5
"""Less holds no syllable to take a voice from."""
MAX_S = 30.0
"""Of the whole file: more fills the context of the model with the prompt."""
FRAME_S = 0.02
"""Speech is steady over 20 ms, so that is what is called active or not."""
ACTIVE_DB = -30.0
"""A frame is active above this, relative to the loud ones: quiet consonants are, rooms and breath are not."""
LOUD_SHARE = 0.05
"""The loud ones: the level that so many frames exceed, so that a single click does not count."""
SILENT_DB = -50.0
"""dBFS (RMS) of the loud frames: a microphone that hears no speech is below, the quietest usable speech above."""
MIN_ACTIVE = 0.3
"""Share of the file's frames: speech with its pauses has 0.7 to 0.8; below 0.3 most of the file is something else."""
MAX_CLIPPED = 0.005
"""Share of samples. Speech of the starter voice has 0, driven over full scale by a fifth under 0.004, twofold 0.017."""
MIN_CEILING = 0.25
"""Below it nothing is called clipped: a quiet signal is flat at its peak for want of bits."""
CLIPPED_RUN = 3
"""So many samples in a row at the ceiling are a cut peak; one or two are a peak that just reached it."""
KEEP_S = 0.08
"""Silence that is left around speech: a frame of the codec, in which onsets and fades lie."""
LEVEL_DB = -20.0
"""dBFS (RMS of the active frames) of what is given to the codec: speech as it is usually mastered."""
PEAK = 0.95
"""No peak is raised above this: the level is lower where it would be."""

_TINY = 1e-10
"""Keeps the logarithm of silence finite."""


def load_recording(path: Path) -> F32:
    """Read a recording of any rate, mono or stereo, in any format that soundfile knows.

    Returns:
        float32 [S], 24 kHz, -1..1: speech with at most 80 ms of silence at either end, its active frames at -20 dBFS.

    Raises:
        BadRequestError: it is no recording of a voice; the message says why, with the figures.
    """
    try:
        samples, rate = read_sound(path, MAX_S)
        return prepare(samples, rate)
    except BadRequestError as err:
        raise BadRequestError(err.code, f"{path}: {err}") from err


def prepare(samples: F32, rate: int) -> F32:
    """What ``load_recording`` does with the samples of a file, float32 [S, channels], ``rate`` Hz.

    Raises:
        BadRequestError: likewise, without the file's name.
    """
    if not np.isfinite(samples).all():
        raise _refused(f"{np.count_nonzero(~np.isfinite(samples))} of {samples.size} samples are not numbers")
    seconds = len(samples) / rate
    if seconds < MIN_S:
        raise _refused(f"{seconds:.2f} s long; at least {MIN_S} s are needed")
    mono = samples.mean(axis=1, dtype=np.float64)  # samples of a file in floating point may be enormous
    mono -= mono.mean()  # a constant offset is no sound, and would count as level
    active = find_active(frame_levels(mono, rate))
    share = float(active.mean())
    if share < MIN_ACTIVE:
        raise _refused(f"{share:.0%} of its {seconds:.1f} s are speech; at least {MIN_ACTIVE:.0%} are needed")
    begin, end = speech_span(active, rate, len(mono))
    if end - begin < MIN_S * rate:
        raise _refused(f"{(end - begin) / rate:.2f} s of speech; at least {MIN_S} s are needed")
    clipped = max(clipped_share(channel) for channel in samples[begin:end].T)
    if clipped > MAX_CLIPPED:
        raise _refused(f"clipped: {clipped:.1%} of its samples are at the ceiling, {MAX_CLIPPED:.1%} may be")
    keep = round(KEEP_S * rate)
    kept = mono[max(begin - keep, 0) : end + keep].astype(np.float32)
    return normalise(soxr.resample(kept, rate, SAMPLE_RATE, quality="VHQ"))


def frame_levels(mono: Array, rate: int) -> Array:
    """The RMS of each 20 ms of ``mono`` float [S] in dBFS, float64 [frames]; the last frame may be shorter."""
    starts = np.arange(0, len(mono), max(round(FRAME_S * rate), 1))
    lengths = np.diff(starts, append=len(mono))
    power = np.add.reduceat(np.square(mono, dtype=np.float64), starts) / lengths
    return 10 * np.log10(power + _TINY)


def find_active(levels: Array) -> Array:
    """Which frames (dBFS) hold sound, bool [frames].

    Raises:
        BadRequestError: even the loud ones are silent.
    """
    loud = float(np.quantile(levels, 1 - LOUD_SHARE))
    if loud < SILENT_DB:
        raise _refused(f"silent: its loud parts are at {loud:.0f} dBFS, speech is above {SILENT_DB:.0f}")
    return np.asarray(levels > loud + ACTIVE_DB)


def speech_span(active: Array, rate: int, num_samples: int) -> tuple[int, int]:
    """From the first active frame to the last: first sample, and the one after the last."""
    size = max(round(FRAME_S * rate), 1)
    found = np.flatnonzero(active)
    return int(found[0]) * size, min((int(found[-1]) + 1) * size, num_samples)


def clipped_share(channel: F32) -> float:
    """The share of samples float32 [S] in runs at the ceiling: full scale, or the highest peak if that is lower.

    A cut that was made quieter afterwards, or by a format whose full scale is less, is flat all the same. Of
    whole sounds only pure tones below 150 Hz are flat for so long, and no voice is one.
    """
    size = np.abs(channel)
    ceiling = min(float(size.max()), 1.0)
    if ceiling < MIN_CEILING:
        return 0.0
    flat = np.concatenate([[False], size >= ceiling * (1 - 1e-4), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    runs = edges[1::2] - edges[::2]
    return float(runs[runs >= CLIPPED_RUN].sum()) / len(channel)


def active_level(pcm: F32) -> float:
    """The level (dBFS, RMS) of the active frames of ``pcm`` float32 [S], 24 kHz.

    Raises:
        BadRequestError: it is silent.
    """
    levels = frame_levels(pcm, SAMPLE_RATE)
    power = np.power(10, levels[find_active(levels)] / 10)
    return 10 * math.log10(float(power.mean()))


def normalise(pcm: F32) -> F32:
    """``pcm`` float32 [S], 24 kHz, at the fixed level, or at the one where its highest peak is ``PEAK``."""
    gain = 10 ** ((LEVEL_DB - active_level(pcm)) / 20)
    peak = float(np.abs(pcm).max())
    return np.ascontiguousarray(pcm * np.float32(min(gain, PEAK / peak)))


def _refused(reason: str) -> BadRequestError:
    return BadRequestError("bad_request", reason)
