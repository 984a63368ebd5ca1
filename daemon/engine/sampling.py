"""Choosing one code from logits: greedy, or top-k at a temperature, seeded, without allocating."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daemon.errors import BadRequestError
from daemon.values import F32

COLDEST = 1e-3
"""Below this temperature the largest logit always wins (and dividing by it would overflow)."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one part (backbone or depth decoder) chooses.

    Raises:
        BadRequestError: outside 0..2 or 1..1000.
    """

    temperature: float
    """0 is greedy."""
    top_k: int

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= 2.0:
            raise BadRequestError("bad_request", f"temperature must be 0..2, got {self.temperature}")
        if not 1 <= self.top_k <= 1000:
            raise BadRequestError("bad_request", f"top_k must be 1..1000, got {self.top_k}")

    @property
    def greedy(self) -> bool:
        """Whether the same logits always give the same code."""
        return self.temperature < COLDEST or self.top_k == 1


class Sampler:
    """Scratch memory for logits of up to ``vocab`` classes.

    Source: the exponential-noise form of multinomial sampling in SesameAILabs/csm models.py ``sample_topk``
    (revision 2d72082): argmax of p_i / e_i with e_i ~ Exp(1) draws i with probability p_i.
    """

    def __init__(self, vocab: int) -> None:
        self._work = np.zeros(vocab, np.float32)
        self._order = np.zeros(vocab, np.float32)
        self._noise = np.zeros(vocab, np.float32)
        self._below: NDArray[np.bool_] = np.zeros(vocab, np.bool_)

    def sample(self, logits: F32, sampling: Sampling, rng: np.random.Generator) -> int:
        """One class of ``logits`` float32 [V], which is left as it was; -inf excludes a class."""
        if sampling.greedy:
            return int(logits.argmax())
        size = len(logits)
        work, order, noise, below = self._work[:size], self._order[:size], self._noise[:size], self._below[:size]
        if sampling.top_k < size:
            np.copyto(order, logits)
            order.partition(size - sampling.top_k)
            np.less(logits, order[size - sampling.top_k], out=below)
        else:
            below[:] = False
        np.subtract(logits, logits.max(), out=work)
        np.divide(work, np.float32(sampling.temperature), out=work)
        np.exp(work, out=work)
        np.copyto(work, np.float32(0), where=below)
        rng.standard_exponential(dtype=np.float32, out=noise)
        np.maximum(noise, np.float32(1e-20), out=noise)
        np.divide(work, noise, out=work)
        return int(work.argmax())
