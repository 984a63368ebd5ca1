"""Weights into ggml's storage types by ggml's own C code, which knows every type and uses every core.

Source: ggml/include/ggml.h of the llama.cpp inside llama-cpp-python 0.3.36; gguf-py knows no K-quants.
"""

import ctypes
import functools
import os
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from daemon.errors import ModelError
from daemon.values import F32
from quantize.half import check_half

_HALVES = {
    GGMLQuantizationType.F16: slice(None),
    GGMLQuantizationType.Q8_0: slice(2),
    GGMLQuantizationType.Q4_0: slice(2),
    GGMLQuantizationType.Q4_K: slice(4),
    GGMLQuantizationType.Q6_K: slice(-2, None),
}
"""Which bytes of a block are float16: its scales.

Source: llama.cpp ggml/src/ggml-common.h.
"""
_THREAD_BYTES = 2**20
"""Float32 bytes that are worth a thread's start: about 10 ms of a K-quant."""


def row_bytes(width: int, kind: GGMLQuantizationType) -> int:
    """Bytes of one row of ``width`` numbers.

    Raises:
        ModelError: ``kind`` packs numbers in blocks that do not divide the row.
    """
    block, size = gguf.GGML_QUANT_SIZES[kind]
    if width % block:
        raise ModelError(f"expected a row length that is a multiple of {block} for {kind.name}, found {width}")
    return width // block * size


def quantize(weight: F32, kind: GGMLQuantizationType) -> NDArray[np.uint8]:
    """Store float32 [rows, width] as ``kind``: uint8 [rows, bytes of a row]. The rows are shared among the cores.

    Raises:
        ModelError: the rows do not divide into the blocks of ``kind``, or have numbers too large for its scales.
    """
    num_rows, width = weight.shape
    stored = np.empty((num_rows, row_bytes(width, kind)), np.uint8)
    source = np.ascontiguousarray(weight, np.float32)
    if kind is GGMLQuantizationType.F32:
        return source.view(np.uint8)
    num_threads = min(len(os.sched_getaffinity(0)), 1 + source.nbytes // _THREAD_BYTES)
    cuts = [num_rows * thread // num_threads for thread in range(num_threads + 1)]
    chunk = _library().ggml_quantize_chunk  # ctypes releases the GIL while it runs

    def run(first: int, end: int) -> None:
        chunk(kind, source.ctypes.data, stored.ctypes.data, first * width, end - first, width, None)

    with ThreadPoolExecutor(num_threads) as threads:
        list(threads.map(run, cuts[:-1], cuts[1:]))
    blocks = stored.reshape(-1, gguf.GGML_QUANT_SIZES[kind][1])
    check_half(np.ascontiguousarray(blocks[:, _HALVES[kind]]).view(np.float16), kind.name)
    return stored


@functools.cache
def _library() -> ctypes.CDLL:
    """libggml-base, found beside libllama without loading that."""
    spec = find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise ModelError("llama-cpp-python is not installed: its ggml library quantizes")
    folder = Path(spec.origin).parent / "lib"
    for path in (folder / "libggml-base.so", folder / "libggml-base.dylib"):
        if path.is_file():
            library = ctypes.CDLL(str(path))
            library.ggml_quantize_chunk.restype = ctypes.c_size_t
            library.ggml_quantize_chunk.argtypes = [
                ctypes.c_int,  # type
                ctypes.c_void_p,  # float32 source
                ctypes.c_void_p,  # destination
                ctypes.c_int64,  # first number
                ctypes.c_int64,  # rows
                ctypes.c_int64,  # numbers a row
                ctypes.c_void_p,  # importance of each number, or NULL
            ]
            return library
    raise ModelError(f"{folder}: no libggml-base; install llama-cpp-python as its wheel or by pip")
