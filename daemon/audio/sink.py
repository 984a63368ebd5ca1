"""Where the speech goes: one protocol, and the sinks that need no sound card.

Every sink keeps real time, as a sound card does: it takes a block when there is room for it, at most ``latency_s``
ahead of the clock. So a pause, a stop and an underrun mean the same in all of them. One thread uses a sink.
"""

import contextlib
import fcntl
import os
import select
import stat
import struct
import sys
import time
from pathlib import Path
from typing import Protocol

from daemon.config_sections import AudioConfig
from daemon.errors import AudioError
from daemon.values import SAMPLE_RATE, Pcm16

_PIPE_BYTES = 2 * os.sysconf("SC_PAGE_SIZE")
"""Asked for as a pipe's size; the default holds 1.4 s. A pipe of one page would poll as full from its first byte."""
_PIPE_LATENCY_S = 0.08
"""How much is kept in a pipe, so that its reader may be late and a stop is heard soon."""
_READER_WAIT_S = 1.0
"""How long a pipe may have no reader, or a reader that does not read."""
_LOOK_S = 0.02
"""Between two looks for a reader."""
_MAX_WAV_BYTES = 0xFFFFFFFF - 36


class Sink(Protocol):
    """Takes blocks of speech in real time."""

    name: str
    """For logs and messages."""
    latency_s: float
    """From ``write`` to what is heard; true while open."""

    def open(self) -> None:
        """Make ready to write, also again after ``close``.

        Raises:
            AudioError: there is no such device or file, or it cannot be used now.
        """
        ...

    def write(self, block: Pcm16) -> None:
        """Hand over ``block`` int16 [S], waiting until all of it is accepted.

        Raises:
            AudioError: the device has gone, the disk is full, the reader has left. Close, then open again.
        """
        ...

    def close(self) -> None:
        """Let go of the device at once; what it still holds may be lost. Closing twice does no harm."""
        ...


def open_sink(config: AudioConfig) -> Sink:
    """Make the sink that [audio] asks for; the caller opens it."""
    match config.sink:
        case "wav":
            return WavSink(Path(config.path))
        case "fifo":
            return FifoSink(Path(config.path))
        case "stdout":
            return StdoutSink(sys.stdout.fileno())
        case "null":
            return NullSink()
        case "pyaudio":
            from daemon.audio.pyaudio_sink import PyAudioSink  # noqa: PLC0415  # loads PortAudio: only where it is used

            return PyAudioSink(config.device, SAMPLE_RATE * config.block_ms // 1000)


def wav_header(num_bytes: int | None) -> bytes:
    """The 44 bytes before ``num_bytes`` of PCM16; None where the length is not known yet, as in a pipe."""
    size = _MAX_WAV_BYTES if num_bytes is None else num_bytes
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + size, b"WAVE", b"fmt ", 16),
        *(1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16),  # PCM, mono
        *(b"data", size),
    )


class _Pacer:
    """Sleeps so that samples pass no faster than real time, on a schedule that does not drift."""

    _GIVE_UP_S = 0.25
    """Further behind than this there was a pause, and its time is not caught up."""

    def __init__(self, ahead_s: float) -> None:
        self._ahead_s = ahead_s
        self._due_s = 0.0

    def wait(self, num_samples: int) -> None:
        now_s = time.monotonic()
        if self._due_s < now_s - self._GIVE_UP_S:
            self._due_s = now_s
        self._due_s += num_samples / SAMPLE_RATE
        delay_s = self._due_s - self._ahead_s - now_s
        if delay_s > 0:
            time.sleep(delay_s)


class NullSink:
    """Swallows samples in real time."""

    def __init__(self) -> None:
        self.name = "null"
        self.latency_s = 0.0
        self._pacer = _Pacer(0.0)

    def open(self) -> None:
        """Nothing to open."""

    def write(self, block: Pcm16) -> None:
        """Wait as long as the block lasts."""
        self._pacer.wait(len(block))

    def close(self) -> None:
        """Nothing to close."""


class WavSink:
    """One WAV file over the daemon's life: the first ``open`` begins it anew, later ones go on at its end.

    The header is brought up to date with every block, so the file is valid whenever it is looked at.
    """

    def __init__(self, path: Path) -> None:
        self.name = f"wav {path}"
        self.latency_s = 0.0
        self._path = path
        self._pacer = _Pacer(0.0)
        self._fd = -1
        self._data_bytes = 0

    def open(self) -> None:
        """Open or make the file."""
        mode = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if self._data_bytes else os.O_TRUNC)
        try:
            self._fd = os.open(self._path, mode, 0o644)
            self._data_bytes = max(0, os.fstat(self._fd).st_size - 44) & ~1
            os.pwrite(self._fd, wav_header(self._data_bytes), 0)
        except OSError as err:
            self.close()
            raise AudioError(f"cannot write {self._path}: {err.strerror}") from err

    def write(self, block: Pcm16) -> None:
        """Append the block, whole or not at all."""
        self._pacer.wait(len(block))
        if self._data_bytes + block.nbytes > _MAX_WAV_BYTES:
            raise AudioError(f"{self._path} is full: a WAV file holds 4 GiB")
        left = block.data.cast("B")
        try:
            while left:
                left = left[os.pwrite(self._fd, left, 44 + self._data_bytes + block.nbytes - len(left)) :]
            self._data_bytes += block.nbytes
            os.pwrite(self._fd, wav_header(self._data_bytes), 0)
        except OSError as err:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 44 + self._data_bytes)
            raise AudioError(f"cannot write {self._path}: {err.strerror}") from err

    def close(self) -> None:
        """Close the file, which is complete."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class StdoutSink:
    """Raw PCM16 to the standard output, which ``close`` leaves open.

    Args:
        fd: the file descriptor of the standard output.
    """

    def __init__(self, fd: int) -> None:
        self.name = "stdout"
        self.latency_s = _PIPE_LATENCY_S
        self._fd = fd
        self._pacer = _Pacer(self.latency_s)

    def open(self) -> None:
        """Shorten the pipe, if it is one."""
        _shorten_pipe(self._fd)

    def write(self, block: Pcm16) -> None:
        """Write all of the block."""
        self._pacer.wait(len(block))
        _write_all(self._fd, block, self.name)

    def close(self) -> None:
        """Leave the standard output to the process."""


class FifoSink:
    """Raw PCM16 to a FIFO, made where it is missing (Snapcast's ``pipe`` source). Readers may come and go.

    A reader sees the end of the file when the sink closes, a moment after each announcement (not with ``keep_open``).
    """

    def __init__(self, path: Path) -> None:
        self.name = f"fifo {path}"
        self.latency_s = _PIPE_LATENCY_S
        self._path = path
        self._fd = -1
        self._pacer = _Pacer(self.latency_s)

    def open(self) -> None:
        """Open the FIFO, waiting a second at most for a reader."""
        try:
            if not self._path.exists():
                os.mkfifo(self._path, 0o660)
            if not stat.S_ISFIFO(self._path.stat().st_mode):
                raise AudioError(f"{self._path} is there but is no FIFO")
            self._fd = _open_writer(self._path)
            _shorten_pipe(self._fd)
        except OSError as err:
            raise AudioError(f"cannot write to FIFO {self._path}: {err.strerror}") from err
        if not _is_read(self._fd, _READER_WAIT_S):
            self.close()
            raise AudioError(f"cannot write to FIFO {self._path}: nobody reads it")

    def write(self, block: Pcm16) -> None:
        """Write all of the block."""
        self._pacer.wait(len(block))
        _write_all(self._fd, block, self.name)

    def close(self) -> None:
        """Close our end; the FIFO stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open_writer(path: Path) -> int:
    """The writing end of a FIFO, whether anyone has it open to read or not.

    A reader that finds no writer may leave at once and look again later, as snapserver does every 100 ms: it stays only
    where a writer was there first.
    """
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(reader)


def _is_read(fd: int, timeout_s: float) -> bool:
    """Whether a FIFO has a reader, or gets one in time."""
    deadline_s = time.monotonic() + timeout_s
    broken = select.poll()
    broken.register(fd, 0)  # reports an error while there is no reader
    while broken.poll(0):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_LOOK_S)
    return True


def _shorten_pipe(fd: int) -> None:
    with contextlib.suppress(OSError):  # no pipe, or more in it than would fit
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _write_all(fd: int, block: Pcm16, name: str) -> None:
    """Write ``block`` to a pipe or file that may be in blocking mode, but never wait for ever."""
    left = block.data.cast("B")
    waiting = select.poll()
    waiting.register(fd, select.POLLOUT)
    try:
        while left:
            if not waiting.poll(_READER_WAIT_S * 1000):
                raise AudioError(f"{name}: the reader does not read")
            with contextlib.suppress(BlockingIOError):
                left = left[os.write(fd, left[: select.PIPE_BUF]) :]
    except OSError as err:
        raise AudioError(f"{name}: {err.strerror}") from err
