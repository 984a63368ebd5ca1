"""One client of the Unix socket: bytes in to lines, lines out with a bound, and its share of requests."""

import socket
import struct
import time
from collections.abc import Iterator

_READ_BYTES = 65_536
_MAX_OUT_BYTES = 262_144
"""What a client may leave unread before it is disconnected; the kernel's buffer comes on top."""
_PEERCRED = struct.Struct("3i")


class TooSlowError(Exception):
    """The client does not read what it is sent."""


class Connection:
    """Non-blocking; used by the socket thread alone."""

    def __init__(self, sock: socket.socket, *, max_line_bytes: int, requests_per_second: float) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.subscribed = False
        self.open_ids: set[str] = set()
        """Requests whose text this client has not ended."""
        self._max_line_bytes = max_line_bytes
        self._in = bytearray()
        self._skipping = False
        self._out = bytearray()
        self._rate = requests_per_second
        self._tokens = self._burst = max(1.0, 2 * requests_per_second)
        self._refilled = time.monotonic()
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
        self.pid, self.uid, _ = _PEERCRED.unpack(credentials)

    @property
    def wants_write(self) -> bool:
        """Whether output waits for the client to read."""
        return bool(self._out)

    def read(self) -> bool:
        """Take what has arrived; false at the end of input.

        Raises:
            OSError: the connection is gone.
        """
        try:
            data = self.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return True
        self._in += data
        return bool(data)

    def lines(self, *, ended: bool = False) -> Iterator[bytes | None]:
        """The complete lines that have arrived, None for one that is too long; ``ended`` takes what is left too."""
        while (end := self._in.find(b"\n")) >= 0:
            line = bytes(self._in[:end])
            del self._in[: end + 1]
            if self._skipping:
                self._skipping = False
            else:
                yield None if len(line) > self._max_line_bytes else line.removesuffix(b"\r")
        if self._skipping:
            self._in.clear()
        elif len(self._in) > self._max_line_bytes:
            self._skipping = True
            self._in.clear()
            yield None
        elif ended and self._in:
            yield bytes(self._in)

    def may_ask(self) -> bool:
        """Whether the client's rate allows one more request; counts it if so (token bucket)."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._refilled) * self._rate)
        self._refilled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def send_line(self, line: bytes) -> None:
        """Queue one line and send what the client takes now.

        Raises:
            TooSlowError: too much is unread.
            OSError: the connection is gone.
        """
        self._out += line + b"\n"
        self.flush()
        if len(self._out) > _MAX_OUT_BYTES:
            raise TooSlowError

    def flush(self) -> None:
        """Send what the client takes now.

        Raises:
            OSError: the connection is gone.
        """
        while self._out:
            try:
                sent = self.sock.send(self._out)
            except BlockingIOError:
                return
            del self._out[:sent]
