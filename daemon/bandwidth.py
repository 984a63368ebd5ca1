"""What a frame of speech reads from memory, and what this machine's memory gives."""

import threading
from time import perf_counter

import numpy as np

from daemon.engine.bundle import Manifest

_BYTES_PER_THREAD = 128 * 2**20


def bytes_per_frame(manifest: Manifest) -> int:
    """Weight bytes that one frame reads: backbone once, depth decoder once for each further codebook, heads, codec."""
    files = manifest.files
    return step_bytes_per_frame(manifest) + files["heads"].bytes + files["codec_decoder"].bytes


def step_bytes_per_frame(manifest: Manifest) -> int:
    """Those of them that llama.cpp reads."""
    files = manifest.files
    return files["backbone"].bytes + (manifest.audio.num_codebooks - 1) * files["depth_decoder"].bytes


def bandwidth_rtf(manifest: Manifest, bandwidth: float) -> float:
    """The real-time factor at which memory that gives ``bandwidth`` bytes a second is never idle.

    No machine is faster with a depth decoder that is larger than its caches; one that fits may be.
    """
    return bytes_per_frame(manifest) * manifest.audio.frame_rate / bandwidth


def memory_bandwidth(num_threads: int) -> float:
    """Bytes a second that ``num_threads`` threads can read from memory (the best of a few passes)."""
    arrays = [np.ones(_BYTES_PER_THREAD // 8, np.int64) for _ in range(num_threads)]
    best = 0.0
    for _ in range(4):
        threads = [threading.Thread(target=np.bitwise_or.reduce, args=(array,)) for array in arrays]
        began = perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = max(best, num_threads * _BYTES_PER_THREAD / (perf_counter() - began))
    return best
