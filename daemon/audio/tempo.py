"""Owner of libsonic: speech faster or slower at the same pitch, frame by frame."""

import ctypes
import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from daemon.errors import EngineError
from daemon.values import SAMPLE_RATE, Pcm16

logger = logging.getLogger(__name__)

MIN_SPEED, MAX_SPEED = 0.5, 2.0
_LIBRARY = "libsonic.so.0"
_MAPS = Path("/proc/self/maps")
_OUT_SAMPLES = 4096
_FUNCTIONS = {
    "sonicCreateStream": (ctypes.c_void_p, [ctypes.c_int, ctypes.c_int]),
    "sonicDestroyStream": (None, [ctypes.c_void_p]),
    "sonicSetSpeed": (None, [ctypes.c_void_p, ctypes.c_float]),
    "sonicWriteShortToStream": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]),
    "sonicReadShortFromStream": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]),
    "sonicFlushStream": (ctypes.c_int, [ctypes.c_void_p]),
}


@cache
def _library() -> ctypes.CDLL | None:
    """The library with its functions declared; None where it is not installed."""
    try:
        library = ctypes.CDLL(_LIBRARY)
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as err:
        logger.warning("speech has one speed, as libsonic0 is not installed (%s)", err)
        return None
    return library


def available() -> bool:
    """Whether libsonic is installed."""
    return _library() is not None


@cache
def version() -> str:
    """What decides the bits of the result: the library's file, as in libsonic.so.0.2.0; empty where there is none."""
    if not available():
        return ""
    try:
        names = (line.rpartition("/")[2] for line in _MAPS.read_text(encoding="utf-8", errors="replace").splitlines())
        return next((name for name in names if name.startswith("libsonic")), _LIBRARY)
    except OSError:
        return _LIBRARY


class Tempo:
    """Speech at another speed, one segment after another; a segment's samples depend on nothing before it.

    One thread. The samples that come back are in a buffer that the next ones overwrite.

    Raises:
        EngineError: libsonic is missing, or has no memory.
    """

    def __init__(self) -> None:
        library = _library()
        if library is None:
            raise EngineError(f"{_LIBRARY} is not installed")
        self._library = library
        self._out: Pcm16 = np.empty(_OUT_SAMPLES, np.int16)
        self._out_address = self._out.ctypes.data
        self._stream: int | None = None

    def begin(self, speed: float) -> None:
        """Begin a segment at ``speed``, 0.5..2; one that was not ended is forgotten."""
        self.close()
        self._stream = self._library.sonicCreateStream(SAMPLE_RATE, 1)
        if self._stream is None:
            raise EngineError(f"{_LIBRARY}: out of memory")
        self._library.sonicSetSpeed(self._stream, speed)

    def stretch(self, pcm: Pcm16) -> Iterator[Pcm16]:
        """Take the segment's next samples, int16 [S]; give what can be given now."""
        if not self._library.sonicWriteShortToStream(self._stream, pcm.ctypes.data, len(pcm)):
            raise EngineError(f"{_LIBRARY}: out of memory")
        yield from self._ready()

    def end(self) -> Iterator[Pcm16]:
        """The segment has ended; give what was held back."""
        if not self._library.sonicFlushStream(self._stream):
            raise EngineError(f"{_LIBRARY}: out of memory")
        yield from self._ready()
        self.close()

    def _ready(self) -> Iterator[Pcm16]:
        while count := self._library.sonicReadShortFromStream(self._stream, self._out_address, _OUT_SAMPLES):
            yield self._out[:count]

    def close(self) -> None:
        """Forget a segment that was not ended; may be called again."""
        if self._stream is not None:
            self._library.sonicDestroyStream(self._stream)
            self._stream = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
