"""What native libraries print on file descriptor 2, kept out of the journal and off the terminal."""

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator

logger = logging.getLogger(__name__)

_NOISE = (
    b"ALSA lib ",
    b"Cannot connect to server",
    b"jack server",
    b"JackShm",
    b"Expression '",
    b"connect(2) call to",
    b"Note: ",  # libmpg123, about what is no MP3
    b"Warning: ",
    b"[src/libmpg123/",
    b"[src/libout123/",
)
_one_at_a_time = threading.RLock()
"""Two threads that redirect would each restore what the other has put there."""


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep the noise of ALSA, JACK and libmpg123 off file descriptor 2; lines of other threads come late."""
    with _one_at_a_time:
        sys.stderr.flush()
        saved = os.dup(2)
        memory = os.memfd_create("stderr")
        os.dup2(memory, 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            with os.fdopen(memory, "rb") as printed:
                printed.seek(0)
                for line in printed:
                    if not line.strip() or line.startswith(_NOISE):
                        logger.debug("a native library printed: %s", line.decode(errors="replace").rstrip())
                    else:
                        os.write(2, line)
