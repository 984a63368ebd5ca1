"""Naming what something is, where that is known."""

from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""The target of what is not known; what cross_entropy ignores."""


def classify(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and share of right answers over all targets that are not IGNORED; 0 where there are none.

    Args:
        logits: float32 [..., classes].
        target: int64 [...].
    """
    logits, target = logits.flatten(0, -2), target.flatten()
    count = (target != IGNORED).sum().clamp(min=1)
    loss = functional.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum") / count
    return loss, (logits.detach().argmax(dim=-1) == target).sum() / count
