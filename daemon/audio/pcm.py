"""What is done to PCM16: volume and fades. Nothing here allocates an array while speech runs."""

import numpy as np

from daemon.values import I32, SAMPLE_RATE, Pcm16

FADE_SAMPLES = SAMPLE_RATE * 5 // 1000
"""Length of the fade of a cut: 5 ms."""

_UNITY = 1 << 15
"""A gain of 1 in the fixed point of ``Gain``."""


def fade_out(block: Pcm16, num_samples: int) -> None:
    """Fade the first ``num_samples`` of ``block`` int16 [S] linearly to zero, in place; silence follows them."""
    head = block[:num_samples]
    length = len(head)
    for index in range(length):  # 120 samples, once per cut
        head[index] = int(head[index]) * (length - 1 - index) // length
    block[num_samples:] = 0


class Gain:
    """Volume in percent, applied in place. A change is spread linearly over one block, so that it does not click.

    The curve is cubic, as in PulseAudio and ALSA mixers, because loudness is heard that way: 50 % is -18 dB, 25 % is
    -36 dB. 100 % passes every bit, 0 % is silence, and nothing can clip as no gain is above 1.

    Args:
        block_samples: the longest block that will be given to ``apply``.
        percent: the volume to begin with, 0..100.
    """

    def __init__(self, block_samples: int, percent: int = 100) -> None:
        self._steps: I32 = np.arange(1, block_samples + 1, dtype=np.int32)
        self._gains: I32 = np.empty(block_samples, dtype=np.int32)
        self._samples: I32 = np.empty(block_samples, dtype=np.int32)
        self._gain = _fixed_point(percent)

    def reset(self, percent: int) -> None:
        """Go to a volume at once: for the start of speech, where there is nothing to click."""
        self._gain = _fixed_point(percent)

    def apply(self, block: Pcm16, percent: int) -> None:
        """Scale ``block`` int16 [S] in place, moving from the last volume to ``percent``."""
        target = _fixed_point(percent)
        length = len(block)
        if length == 0 or target == self._gain == _UNITY:
            return
        gains, samples = self._gains[:length], self._samples[:length]
        np.multiply(self._steps[:length], target - self._gain, out=gains)
        np.floor_divide(gains, length, out=gains)
        np.add(gains, self._gain, out=gains)
        np.copyto(samples, block)
        np.multiply(samples, gains, out=samples)  # at most 2**15 * 2**15: fits
        np.add(samples, _UNITY // 2, out=samples)
        np.right_shift(samples, 15, out=samples)
        np.copyto(block, samples, casting="unsafe")
        self._gain = target


def _fixed_point(percent: int) -> int:
    return round(_UNITY * (min(max(percent, 0), 100) / 100) ** 3)


def scale(block: Pcm16, percent: int) -> None:
    """Scale ``block`` int16 [S] in place to ``percent`` (0..100) of its amplitude: SSML's volume is linear."""
    np.multiply(block, percent / 100, out=block, casting="unsafe")
