"""The text of a request on its way from the doors to the synth thread."""

import queue
import threading

from daemon.errors import BadRequestError

OPEN_TEXT_TIMEOUT_S = 30.0
"""A request whose text is left open this long is taken to have ended."""


class TextSource:
    """The text of one request, which may still be growing. One reader; any thread may add.

    Attributes:
        text: all of it so far.
        open: more may come.
        expected_s: how much speech all of it so far is expected to take; whoever adds text sees to it.
    """

    def __init__(self, text: str, *, more: bool, expected_s: float = 0.0) -> None:
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self.text = text
        self.open = more
        self.expected_s = expected_s
        self._pieces.put(text)
        if not more:
            self._pieces.put(None)

    def append(self, text: str, max_chars: int) -> None:
        """Add text.

        Raises:
            BadRequestError: it has ended, or would become too long.
        """
        with self._lock:
            if not self.open:
                raise BadRequestError("bad_request", "the text of this request has ended")
            if len(self.text) + len(text) > max_chars:
                raise BadRequestError("too_long", f"more than {max_chars} characters")
            self.text += text
            self._pieces.put(text)

    def end(self) -> None:
        """Nothing more comes; may be called again."""
        with self._lock:
            if self.open:
                self.open = False
                self._pieces.put(None)

    def wake(self) -> None:
        """Let ``take`` return at once if it waits."""
        self._pieces.put("")

    def take(self, timeout_s: float) -> str | None:
        """The next piece, None when the text has ended.

        Raises:
            queue.Empty: nothing came in time.
        """
        return self._pieces.get(timeout=timeout_s) if timeout_s else self._pieces.get_nowait()
