"""How the learning rate changes over a stage: up, constant, down.

Source: "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", arXiv:2405.18392: as good as a
cosine, and what was learned before the decay can be trained on for longer.
"""

FLOOR = 0.03
"""What is left of the rate at the last step."""


def decay_begins(total: int, decay: float) -> int:
    """The first step of the decay, where a stage keeps a checkpoint from which a longer run can go on.

    Args:
        total: steps in all.
        decay: share of them that the decay takes, 0..1.
    """
    return total - round(total * decay)


def rate(step: int, total: int, warmup: int, decay: float) -> float:
    """The factor of the learning rate at ``step`` (0..total - 1), 0..1: linear up, constant, linear down to FLOOR."""
    begin = decay_begins(total, decay)
    if step >= begin:
        return 1.0 - (1.0 - FLOOR) * (step + 1 - begin) / (total - begin)
    return min(1.0, (step + 1) / warmup) if warmup > 0 else 1.0
