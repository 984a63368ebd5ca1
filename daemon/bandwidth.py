"""What a frame of speech reads from memory, and what this machine's memory gives."""

import threading
from time import perf_counter

import numpy as np

from daemon.engine.bundle import Manifest

_BUFFER_BYTES = 256 * 2**20
_PASSES = 6


def bytes_per_frame(manifest: Manifest) -> int:
    """Weight bytes that one frame reads: backbone once, depth decoder once for each codebook, heads, codec."""
    files = manifest.files
    return step_bytes_per_frame(manifest) + files["heads"].bytes + files["codec_decoder"].bytes


def step_bytes_per_frame(manifest: Manifest) -> int:
    """Those of them that llama.cpp reads."""
    files = manifest.files
    return files["backbone"].bytes + manifest.audio.num_codebooks * files["depth_decoder"].bytes


def bandwidth_rtf(manifest: Manifest, bandwidth: float) -> float:
    """The real-time factor at which memory that gives ``bandwidth`` bytes a second is never idle.

    No machine is faster with a depth decoder that is larger than its caches; one that fits may be.
    """
    return bytes_per_frame(manifest) * manifest.audio.frame_rate / bandwidth


class BandwidthMeter:
    """Reads a buffer from memory, the same number of bytes in every thread, and keeps what came in a second.

    The buffer is many times the largest cache, so nothing of one pass is left for the next. Other readers give the same
    within 3 %: OpenBLAS' products, C's memchr, sums and maxima of other types; llama.cpp's steps come near it.

    Args:
        num_threads: as many as the engine runs, for one alone is often given less than the memory has.
    """

    def __init__(self, num_threads: int) -> None:
        self._parts = [np.ones(_BUFFER_BYTES // 8 // num_threads, np.int64) for _ in range(num_threads)]
        self._passes: list[float] = []

    def measure(self) -> float:
        """Read the buffer once; returns bytes a second."""
        threads = [threading.Thread(target=np.bitwise_or.reduce, args=(part,)) for part in self._parts]
        began = perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        speed = sum(part.nbytes for part in self._parts) / (perf_counter() - began)
        self._passes.append(speed)
        return speed

    @property
    def best(self) -> float:
        """The fastest pass, bytes a second: what the memory can give when nobody else asks."""
        return max(self._passes)

    @property
    def median(self) -> float:
        """The middle one of the passes, bytes a second."""
        return sorted(self._passes)[len(self._passes) // 2]


def memory_bandwidth(num_threads: int) -> float:
    """Bytes a second that ``num_threads`` threads can read from memory (the best of a few passes)."""
    meter = BandwidthMeter(num_threads)
    return max(meter.measure() for _ in range(_PASSES))
