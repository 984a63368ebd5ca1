"""One segment on its way through the models; several may go side by side."""

from dataclasses import dataclass, field

import numpy as np

from daemon.engine.sampling import Sampling
from daemon.values import I32

_GREEDY = Sampling(0.0, 1)


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """How many frames a segment may have, from the number of its text tokens."""

    least: int
    """No end of speech before this many."""
    most: int
    """Speech is cut after this many: it has run away."""
    fixed: bool = False
    """It always has as many, for it is noise that never ends: of random weights."""


@dataclass(slots=True, eq=False)
class Lane:
    """What the next frame of a segment depends on, beside the KV cache of its sequence."""

    number: int
    """Its sequence in the backbone; the model moves it."""
    codes: I32
    """int32 [Q], the newest frame; overwritten by the next."""
    kept: I32
    """int32 [T, Q], room for all its frames where they are to be kept; else empty."""
    tokens: list[int] = field(default_factory=list)
    limits: FrameLimits = FrameLimits(0, 0)
    rng: np.random.Generator = field(default_factory=np.random.default_rng)
    sampling: Sampling = _GREEDY
    depth_sampling: Sampling = _GREEDY
    frames: int = 0
    """How many it has; before the first, its text alone has been read."""
    ended: bool = False
    """Speech has ended by itself: ``codes`` is no frame of it."""

    @property
    def full(self) -> bool:
        """Whether it has had all the frames it may have."""
        return self.frames >= self.limits.most

    @property
    def ran_away(self) -> bool:
        """Whether it has, and should have ended before."""
        return self.full and not self.limits.fixed
