"""How long playback is held back so that it does not starve of samples."""

from daemon.values import SAMPLE_RATE

COMFORTABLE_RTF = 0.5
"""Below this, speech starts with the first frame; above, some audio is kept ahead."""
CUSHION_S = 0.3


def wait_s(rtf: float, expected_s: float) -> float | None:
    """Seconds that are told beforehand, where synthesis is slower than real time; None where it is not."""
    return round(expected_s * (rtf - 1), 1) if rtf > 1 else None


def prebuffer_samples(rtf: float, expected_s: float) -> int:
    """Samples of speech to have before it starts."""
    if rtf <= COMFORTABLE_RTF:
        return 0
    behind_s = expected_s * (1 - 1 / rtf) if rtf > 1 else 0.0
    return int((behind_s + CUSHION_S) * SAMPLE_RATE)
