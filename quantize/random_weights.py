"""Random weights, made when they are asked for: the same seed and name have the same numbers."""

import math
import zlib

import numpy as np

from daemon.values import F32

BRANCH_GAIN = 0.3
"""Of what a layer adds, so that sixteen of them do not drown what came in."""
_TABLE_ROWS = 256
"""Rows of a table that are made at a time."""


class Random:
    """Normally distributed arrays: the same name has the same numbers."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __call__(self, name: str, *shape: int, scale: float = 1.0) -> F32:
        """float32 of ``shape`` with standard deviation ``scale``."""
        rng = np.random.default_rng([self._seed, zlib.crc32(name.encode())])
        values = rng.standard_normal(shape, dtype=np.float32)
        values *= np.float32(scale)
        return values

    def matrix(self, name: str, rows: int, columns: int, gain: float = 1.0) -> F32:
        """[out, in] that keeps the size of what it multiplies, times ``gain``."""
        return self(name, rows, columns, scale=gain / math.sqrt(columns))


class RandomRows:
    """A table of random rows, made in blocks."""

    def __init__(self, random: Random, name: str, rows: int, width: int, scale: float) -> None:
        self._random, self._name, self._scale = random, name, scale
        self.shape = (rows, width)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> F32:
        start, stop, step = rows.indices(len(self))
        first, last = start // _TABLE_ROWS, -(-stop // _TABLE_ROWS)
        blocks = [
            self._random(f"{self._name}.{block}", _TABLE_ROWS, self.shape[1], scale=self._scale)
            for block in range(first, last)
        ]
        if not blocks:
            return np.zeros((0, self.shape[1]), np.float32)
        offset = first * _TABLE_ROWS
        return np.concatenate(blocks)[start - offset : stop - offset : step]
