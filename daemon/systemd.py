"""What systemd and the daemon tell each other: readiness, the watchdog, passed sockets. No dependency.

The environment comes in as a mapping, so that only the composition root decides which one it is.
"""

import logging
import os
import socket
import time
from collections.abc import Mapping, MutableMapping

from daemon.errors import ConfigError
from daemon.log import RateLimited

_FIRST_FD = 3
_SEND_TIMEOUT_S = 1.0
_WARN_EVERY_S = 60.0

logger = logging.getLogger(__name__)


class Notifier:
    """sd_notify: one datagram per message to ``$NOTIFY_SOCKET``; without that variable every call does nothing.

    A message that cannot be sent is logged and dropped: it must not end the daemon.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._log = RateLimited(logger, _WARN_EVERY_S)
        self._address = "\0" + path[1:] if path.startswith("@") else path

    def ready(self) -> None:
        """Started, or done with reloading."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Reloading; ``ready`` follows."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """On the way out."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """The line that ``systemctl status`` shows."""
        self._send("STATUS=" + " ".join(text.splitlines()))

    def watchdog(self) -> None:
        """Alive."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(_SEND_TIMEOUT_S)
                sock.connect(self._address)  # only a connected socket can wait for a full queue without spinning
                sock.send(message.encode())
        except OSError as err:
            self._log.log(logging.WARNING, "notify_failed message=%r error=%s", message.partition("\n")[0], err)


def watchdog_interval_s(environ: Mapping[str, str], pid: int) -> float | None:
    """How often to call ``Notifier.watchdog``: half of what systemd allows; None where it does not watch ``pid``."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    usec = environ.get("WATCHDOG_USEC", "")
    return int(usec) / 2e6 if usec.isascii() and usec.isdigit() and int(usec) > 0 else None


def listen_sockets(environ: MutableMapping[str, str], pid: int) -> list[socket.socket]:
    """The sockets systemd listens on for us, now ours to close; none if they are meant for another process.

    Removes the variables from ``environ``, and no child inherits the sockets.

    Raises:
        ConfigError: what was passed is not a socket.
    """
    names = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    listen_pid, count, _ = (environ.pop(name, "") for name in names)
    if listen_pid != str(pid) or not (count.isascii() and count.isdigit()):
        return []
    return [_adopt(fd) for fd in range(_FIRST_FD, _FIRST_FD + int(count))]


def _adopt(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        return socket.socket(fileno=fd)
    except OSError as err:
        raise ConfigError(f"file descriptor {fd} passed by systemd is not a socket: {err.strerror}") from err


class Heartbeats:
    """When each thread last showed that it is alive. ``beat`` may be called from any thread and takes no lock."""

    def __init__(self) -> None:
        self._beats: dict[str, float] = {}

    def beat(self, name: str) -> None:
        """The thread ``name`` is alive; its first beat is also what makes it watched."""
        self._beats[name] = time.monotonic()

    def late(self, now: float, limit_s: float) -> list[str]:
        """The threads that have been silent for longer than ``limit_s``, the longest silent first."""
        beats = sorted((beat, name) for name, beat in self._beats.copy().items())
        return [name for beat, name in beats if now - beat > limit_s]
