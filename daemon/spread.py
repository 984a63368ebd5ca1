"""How far what comes is from what was expected, and how far the next may be: measured, not assumed."""

import math
from collections import deque
from statistics import NormalDist

RISK = 0.02
"""How often the next may be above what ``Spread.upper`` says."""
LEAST = 4
"""With fewer measurements nothing is said of the next."""

_Z = NormalDist().inv_cdf(1 - RISK)


class Spread:
    """Pairs of what was expected and what came. One thread adds; what others read may be one pair old.

    What comes is taken to be ``mean`` times what was expected, with an error whose square grows as that does: of twice
    the length, twice the square, so that the errors of many small parts make up for each other.

    Args:
        size: so many of the latest pairs count; None: all.
    """

    def __init__(self, size: int | None = None) -> None:
        self._pairs: deque[tuple[float, float]] | None = None if size is None else deque(maxlen=size)
        self.count = 0
        self._expected = 0.0
        self._came = 0.0
        self._squares = 0.0

    def add(self, expected: float, came: float) -> None:
        """Take in a pair; ``expected`` is above 0."""
        if self._pairs is not None:
            if len(self._pairs) == self._pairs.maxlen:
                self._sum(*self._pairs[0], -1)
            self._pairs.append((expected, came))
        self._sum(expected, came, 1)

    def _sum(self, expected: float, came: float, sign: int) -> None:
        self.count += sign
        self._expected += sign * expected
        self._came += sign * came
        self._squares += sign * came * came / expected

    @property
    def mean(self) -> float:
        """What comes for each that is expected; 1 as long as nothing has."""
        return self._came / self._expected if self.count else 1.0

    def upper(self, expected: float) -> float:
        """What will come where ``expected`` is expected, or less, but for ``RISK``; infinity if there is no telling."""
        count, total = self.count, self._expected
        if count < LEAST:
            return math.inf
        variance = max(0.0, self._squares - self._came * self._came / total) / (count - 1)
        error = math.sqrt(variance * (expected + expected * expected / total))
        return self.mean * expected + _student(count - 1) * error


def _student(degrees: int) -> float:
    """The quantile of Student's distribution at 1 - RISK, within 1 % from three degrees of freedom on.

    Source: the expansion by Peiser and by Fisher and Cornish; Abramowitz and Stegun 26.7.5.
    """
    z = _Z
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3
