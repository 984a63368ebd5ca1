"""A way for any thread to end another thread's select at once."""

import contextlib
import socket


class Wakeup:
    """Readable for a selector after ``set``, from any thread, until ``clear``."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        """The descriptor to select on."""
        return self._reader.fileno()

    def set(self) -> None:
        """Wake the waiting thread; never blocks. Without effect once closed."""
        with contextlib.suppress(OSError):  # full means that it will wake up anyway
            self._writer.send(b"\0")

    def clear(self) -> None:
        """Forget every ``set`` so far."""
        with contextlib.suppress(OSError):
            self._reader.recv(4096)

    def close(self) -> None:
        """Release both ends."""
        self._reader.close()
        self._writer.close()
