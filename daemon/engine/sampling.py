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

    Only the k largest logits are worked on, as values: which class the winning value belongs to is looked up at the
    end. Where several classes share it, one of them is drawn: they are equally likely, and also at the edge of the top
    k, where some of them would have no place.

    Source: the exponential-noise form of multinomial sampling in SesameAILabs/csm models.py ``sample_topk``
    (revision 2d72082): argmax of p_i / e_i with e_i ~ Exp(1) draws i with probability p_i.
    """

    def __init__(self, vocab: int) -> None:
        self._order = np.zeros(vocab, np.float32)
        self._work = np.zeros(vocab, np.float32)
        self._noise = np.zeros(vocab, np.float32)
        self._same: NDArray[np.bool_] = np.zeros(vocab, np.bool_)

    def sample(self, logits: F32, sampling: Sampling, rng: np.random.Generator) -> int:
        """One class of ``logits`` float32 [V], which is left as it was; -inf excludes a class."""
        if sampling.greedy:
            return int(logits.argmax())
        size = len(logits)
        kept = min(sampling.top_k, size)
        order, work, noise = self._order[:size], self._work[:kept], self._noise[:kept]
        np.copyto(order, logits)
        if kept < size:
            order.partition(size - kept)
        largest = order[size - kept :]
        np.subtract(largest, largest.max(), out=work)
        np.divide(work, np.float32(sampling.temperature), out=work)
        np.exp(work, out=work)
        rng.standard_exponential(dtype=np.float32, out=noise)
        np.maximum(noise, np.float32(1e-20), out=noise)
        np.divide(work, noise, out=work)
        return self._class_of(logits, largest[work.argmax()], rng)

    def _class_of(self, logits: F32, value: np.float32, rng: np.random.Generator) -> int:
        """The class whose logit is ``value``; one of them at random where there are several."""
        same = self._same[: len(logits)]
        np.equal(logits, value, out=same)
        count = np.count_nonzero(same)
        if count > 1:  # rare: logits are float32
            return int(same.nonzero()[0][rng.integers(count)])
        return int(same.argmax())
