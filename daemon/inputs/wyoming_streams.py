"""What comes into the Wyoming server's event loop: bounded messages from a client, audio from the synth thread."""

import asyncio
import contextlib
from collections.abc import Callable

from daemon.errors import SpeechError
from daemon.inputs.messages import MAX_MESSAGE_BYTES
from daemon.values import Pcm16


class GarbageError(Exception):
    """What a client sent is not the protocol."""


class BoundedReader(asyncio.StreamReader):
    """A reader that refuses to collect long messages, and tells at once when the client has left.

    (At the end of the input that was read so far it would be told too late: the client may have sent more before.)
    """

    def __init__(self) -> None:
        super().__init__(limit=MAX_MESSAGE_BYTES)
        self.left = False
        self.on_left: Callable[[], None] = lambda: None
        self.num_headers = 0

    async def readline(self) -> bytes:
        """The next header.

        Raises:
            GarbageError: it is too long.
        """
        try:
            line = await super().readline()
        except ValueError as err:
            raise GarbageError(f"a header is limited to {MAX_MESSAGE_BYTES} bytes") from err
        self.num_headers += bool(line)
        return line

    async def readexactly(self, n: int) -> bytes:
        """What a header announced.

        Raises:
            GarbageError: it is too long.
        """
        if n > MAX_MESSAGE_BYTES:
            raise GarbageError(f"a message is limited to {MAX_MESSAGE_BYTES} bytes, not {n}")
        return await super().readexactly(n)

    def feed_eof(self) -> None:
        """The client has closed its side."""
        super().feed_eof()
        self._leave()

    def set_exception(self, exc: Exception) -> None:
        """The connection broke."""
        super().set_exception(exc)
        self._leave()

    def _leave(self) -> None:
        self.left = True
        self.on_left()


class Speech:
    """Takes a render's audio from the synth thread to the event loop."""

    def __init__(self, max_unsent_bytes: int, on_overflow: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._max_unsent_bytes = max_unsent_bytes
        self._on_overflow = on_overflow
        self._items: asyncio.Queue[bytes | SpeechError | None] = asyncio.Queue()
        self._unsent_bytes = 0

    def on_audio(self, pcm: Pcm16) -> None:
        """More samples. The synth thread."""
        self._pass(pcm.tobytes())

    def on_end(self, error: SpeechError | None) -> None:
        """No more. The synth thread, or whoever cancels."""
        self._pass(error)

    def _pass(self, item: bytes | SpeechError | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: the daemon is on its way out
            self._loop.call_soon_threadsafe(self._add, item)

    def _add(self, item: bytes | SpeechError | None) -> None:
        if isinstance(item, bytes):
            self._unsent_bytes += len(item)
        self._items.put_nowait(item)
        if self._unsent_bytes > self._max_unsent_bytes:
            self._on_overflow()

    async def take(self) -> bytes | None:
        """The next samples; None at the end.

        Raises:
            SpeechError: what went wrong.
        """
        item = await self._items.get()
        if isinstance(item, SpeechError):
            raise item
        self._unsent_bytes -= len(item or b"")
        return item
