"""The PCM ring between the synth thread (the one writer) and the audio thread (the one reader).

The lock is held for one copy of at most a frame. A lock-free ring would save microseconds, but only with a lock can the
writer take samples back (`unwrite`) and be sure that the reader has not just picked them up.
"""

import threading
import time

import numpy as np

from daemon.values import Pcm16


class PcmRing:
    """Fixed int16 ring. Positions are counted in samples since the start and never wrap.

    Args:
        capacity_samples: how many samples fit; all memory is taken here, ``write`` and ``read_into`` allocate no array.
    """

    def __init__(self, capacity_samples: int) -> None:
        if capacity_samples < 1:
            raise ValueError(f"a ring needs room for at least one sample, got {capacity_samples}")
        self._buffer: Pcm16 = np.zeros(capacity_samples, dtype=np.int16)
        self._written = 0
        self._read = 0
        self._changed = threading.Condition()

    @property
    def capacity(self) -> int:
        """Samples that fit."""
        return len(self._buffer)

    @property
    def available(self) -> int:
        """Samples that wait for the reader."""
        with self._changed:
            return self._written - self._read

    @property
    def free(self) -> int:
        """Samples that can be written without waiting."""
        with self._changed:
            return self._free()

    @property
    def total_written(self) -> int:
        """The writer's position: samples written so far, less those taken back."""
        return self._written

    @property
    def total_read(self) -> int:
        """The reader's position: samples read or dropped so far."""
        return self._read

    def write(self, pcm: Pcm16, timeout_s: float) -> int:
        """Copy in ``pcm`` int16 [S], waiting up to ``timeout_s`` for room; return how many samples that was."""
        deadline = time.monotonic() + timeout_s
        done = 0
        with self._changed:
            while done < len(pcm):
                if self._free() == 0:
                    left_s = deadline - time.monotonic()
                    if left_s <= 0 or not self._changed.wait_for(self._free, left_s):
                        break
                done += self._copy_in(pcm[done:])
                self._changed.notify_all()
        return done

    def read_into(self, block: Pcm16) -> int:
        """Fill the front of ``block`` int16 [S] without waiting; return how many samples that was.

        What is behind them is left as it was.
        """
        capacity = len(self._buffer)
        with self._changed:
            count = min(len(block), self._written - self._read)
            if count == 0:
                return 0
            start = self._read % capacity
            first = min(count, capacity - start)
            block[:first] = self._buffer[start : start + first]
            block[first:count] = self._buffer[: count - first]
            self._read += count
            self._changed.notify_all()
        return count

    def unwrite(self, count: int) -> bool:
        """Take back the last ``count`` samples written; False, and nothing done, if the reader has reached them."""
        with self._changed:
            if not 0 <= count <= self._written - self._read:
                return False
            self._written -= count
            self._changed.notify_all()
            return True

    def discard_to(self, position: int) -> None:
        """Drop what waits before ``position`` (as ``total_written`` gives it); a position already read does nothing."""
        with self._changed:
            self._read = max(self._read, min(position, self._written))
            self._changed.notify_all()

    def clear(self) -> None:
        """Drop everything that waits."""
        with self._changed:
            self._read = self._written
            self._changed.notify_all()

    def _free(self) -> int:
        return len(self._buffer) - (self._written - self._read)

    def _copy_in(self, pcm: Pcm16) -> int:
        capacity = len(self._buffer)
        count = min(len(pcm), self._free())
        start = self._written % capacity
        first = min(count, capacity - start)
        self._buffer[start : start + first] = pcm[:first]
        self._buffer[: count - first] = pcm[first:count]
        self._written += count
        return count
