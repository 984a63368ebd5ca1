"""Short sounds around the speech: a few made here, others from files. All are loaded once, before anything is said."""

import os
from collections.abc import Sequence
from functools import cache, cached_property

import numpy as np

from daemon.config import user_path
from daemon.config_sections import ChimesConfig
from daemon.errors import BadRequestError, ConfigError
from daemon.values import SAMPLE_RATE, Array, Pcm16, Priority, SpeakRequest

MAX_S = 10.0
"""Of a sound file."""
NONE = "none"
PEAK = 0.355
"""-9 dBFS, about the peak of speech: a chime is not to be louder than what follows it."""
_LOUDEST_S = 0.2
"""How long a sound has to be as loud as it is heard to be."""
_ATTACK_S = 0.004
_RELEASE_S = 0.03
_EDGE_S = 0.003
"""Fade at both ends of a file, which may begin in the middle of a sound."""
_NAME_CHARS = 64

_BELL = ((1.0, 1.0, 0.28), (2.0, 0.45, 0.20), (3.01, 0.2, 0.12), (4.1, 0.1, 0.07))
"""Partials: the ratio to the pitch, the loudness, and the seconds in which it falls to a third."""
_GONG = ((1.0, 1.0, 0.55), (1.48, 0.6, 0.45), (2.09, 0.5, 0.35), (2.56, 0.35, 0.25), (3.9, 0.2, 0.15))
_BEEP = ((1.0, 1.0, 0.20), (2.0, 0.5, 0.15), (3.0, 0.25, 0.10))
_Numbers = tuple[float, ...]
_BUILT_IN: dict[str, tuple[Sequence[_Numbers], Sequence[_Numbers], float]] = {
    "ding": ([(0.0, 1046.5)], _BELL, 0.7),
    "dingdong": ([(0.0, 659.3), (0.42, 523.3)], _BELL, 1.2),
    "gong": ([(0.0, 196.0)], _GONG, 1.2),
    "alarm": ([(0.0, 880.0), (0.22, 1108.7), (0.44, 880.0), (0.66, 1108.7)], _BEEP, 1.0),
}
"""Struck notes (when in seconds, pitch in Hz), what they are made of, and the length in seconds."""


class Chimes:
    """The sounds of a configuration.

    Attributes:
        names: what a request may ask for.

    Raises:
        ConfigError: a sound cannot be had; names the key and the file.
    """

    def __init__(self, config: ChimesConfig) -> None:
        self._files = {name: self._load_named(name, path) for name, path in config.sounds.items()}
        self.names = sorted({*_BUILT_IN, *self._files})
        self._before = {priority: self._choose("before", priority, config.before) for priority in Priority}
        self._after = {priority: self._choose("after", priority, config.after) for priority in Priority}

    def check(self, name: str | None) -> None:
        """Whether a request may ask for this chime.

        Raises:
            BadRequestError: there is none of this name.
        """
        if name is not None and name != NONE and name not in self.names:
            raise BadRequestError(
                "bad_request", f'no chime {name!r}: the chimes are {", ".join(self.names)}; "{NONE}" is for silence'
            )

    def before(self, request: SpeakRequest) -> Pcm16:
        """What is heard before the speech, int16 [S]; one that is no longer there is silent."""
        if request.chime is None:
            return self._before[request.priority]
        return self._find(request.chime) if request.chime in self.names else _SILENCE

    def after(self, request: SpeakRequest) -> Pcm16:
        """What is heard after the speech, int16 [S]."""
        return self._after[request.priority]

    def _choose(self, when: str, priority: Priority, choices: object) -> Pcm16:
        name: str = getattr(choices, priority)
        if name in ("", NONE):
            return _SILENCE
        if name in self.names:
            return self._find(name)
        key = f"[chimes.{when}] {priority}"
        if "/" not in name and not os.path.exists(name):  # noqa: PTH110 (Path's raises where a name is too long)
            raise ConfigError(
                f"{key}: no chime {name!r}: the chimes are {', '.join(self.names)}; or give the path of a sound file"
            )
        return self._soften(_load(key, name))

    def _find(self, name: str) -> Pcm16:
        return self._files[name] if name in self._files else _built_in(name)

    def _load_named(self, name: str, path: str) -> Pcm16:
        if not name.isprintable() or not 0 < len(name) <= _NAME_CHARS or name == NONE:
            raise ConfigError(
                f"[chimes.sounds] {ascii(name)[:80]} is no name for a sound: at most {_NAME_CHARS} characters"
            )
        return self._soften(_load(f"[chimes.sounds] {name}", path))

    @cached_property
    def _loudest(self) -> float:
        return max(_loudness(_built_in(name)) for name in _BUILT_IN)

    def _soften(self, sound: Array) -> Pcm16:
        """A sound no louder than the loudest that is built in; a soft one stays as it is."""
        peak = float(np.abs(sound).max(initial=0.0))
        return _to_pcm(sound * min(1.0, PEAK / max(peak, PEAK), self._loudest / max(_loudness(sound), self._loudest)))


def _loudness(sound: Array) -> float:
    """Root mean square of the loudest _LOUDEST_S of a sound, 0..1 for floats as for int16."""
    samples = sound / 32768 if sound.dtype == np.int16 else sound
    width = round(_LOUDEST_S * SAMPLE_RATE)
    energy = np.cumsum(np.pad(samples.astype(np.float64) ** 2, (width, width)))
    return float(np.sqrt(max(0.0, (energy[width:] - energy[:-width]).max()) / width))


def _load(key: str, path: str) -> Array:
    """A sound file as float [S], 24 kHz.

    Raises:
        ConfigError: it cannot be read, or is longer than MAX_S.
    """
    import soxr  # noqa: PLC0415 (slow to import, and most configurations need neither)

    from daemon.sound_file import read_sound  # noqa: PLC0415

    try:
        samples, rate = read_sound(user_path(path), MAX_S)
    except BadRequestError as err:
        raise ConfigError(f"{key}: {path}: {err}") from err
    if not len(samples):
        raise ConfigError(f"{key}: {path}: there is no sound in it")
    mono = np.nan_to_num(samples.mean(axis=1, dtype=np.float32), posinf=0, neginf=0)
    sound = soxr.resample(mono, rate, SAMPLE_RATE, quality="VHQ")[: round(MAX_S * SAMPLE_RATE)]
    edge = np.minimum(np.arange(len(sound)) / (_EDGE_S * SAMPLE_RATE), 1)
    softened: Array = sound * edge * edge[::-1]
    return softened


def _to_pcm(samples: Array) -> Pcm16:
    """Float [S], -1..1, as int16."""
    return np.round(samples * 32767).astype(np.int16)


@cache
def _built_in(name: str) -> Pcm16:
    """A sound of ours, made when it is first wanted: each takes 3 ms, and most speakers have none."""
    notes, partials, length_s = _BUILT_IN[name]
    time_s = np.arange(round(length_s * SAMPLE_RATE)) / SAMPLE_RATE
    sound = np.zeros(len(time_s))
    for start_s, pitch_hz in notes:
        since = np.maximum(time_s - start_s, 0)
        attack = np.sin(np.minimum(since / _ATTACK_S, 1) * np.pi / 2) ** 2
        for ratio, loudness, decay_s in partials:
            sound += attack * loudness * np.exp(-since / decay_s) * np.sin(2 * np.pi * ratio * pitch_hz * since)
    sound *= np.clip((length_s - time_s) / _RELEASE_S, 0, 1)
    return _to_pcm(sound * (PEAK / np.abs(sound).max()))


_SILENCE: Pcm16 = np.zeros(0, np.int16)
