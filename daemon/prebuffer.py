"""How much of speech that comes over the network is kept ahead; ``forecast`` has what is made here."""

from daemon.values import SAMPLE_RATE

COMFORTABLE_RTF = 0.5
"""Below this, speech starts with the first frame; above, some audio is kept ahead."""
CUSHION_S = 0.3


def prebuffer_samples(rtf: float, expected_s: float) -> int:
    """Samples of speech to have before it starts."""
    if rtf <= COMFORTABLE_RTF:
        return 0
    behind_s = expected_s * (1 - 1 / rtf) if rtf > 1 else 0.0
    return int((behind_s + CUSHION_S) * SAMPLE_RATE)
