"""The Unix socket: one thread, one selector, non-blocking, many clients (PROTOCOL.md)."""

import contextlib
import logging
import os
import selectors
import socket
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from daemon.config_sections import SocketConfig
from daemon.errors import BadRequestError, ConfigError
from daemon.inputs.connection import Connection, TooSlowError
from daemon.inputs.messages import MAX_MESSAGE_BYTES, Command, End, Say, execute, failure, parse_line, to_json
from daemon.inputs.wakeup import Wakeup
from daemon.ports import Speaker
from daemon.values import Event, EventType

logger = logging.getLogger(__name__)

_MODE = 0o660
_WAIT_S = 1.0
"""The longest wait between two beats."""
_MAX_EVENTS = 1024


class UnixSocketServer:
    """Serves ``speaker`` on a path, on sockets that systemd opened, or both."""

    def __init__(
        self,
        config: SocketConfig,
        speaker: Speaker,
        *,
        path: Path | None,
        activated: Sequence[socket.socket] = (),
        beat: Callable[[], None],
    ) -> None:
        self._config = config
        self._speaker = speaker
        self._path = path
        self._listeners = list(activated)
        self._beat = beat
        self._bound: tuple[int, int] | None = None
        self._clients: set[Connection] = set()  # socket thread
        self._events: deque[Event] = deque(maxlen=_MAX_EVENTS)  # any thread appends, the socket thread takes
        self._wakeup = Wakeup()
        self._selector = selectors.DefaultSelector()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="socket")

    def open(self) -> None:
        """Bind the path, if there is one.

        Raises:
            ConfigError: in use by a running daemon, not a socket, or not writable.
        """
        if self._path is not None:
            listener = bind(self._path)
            self._bound = identity(self._path)
            self._listeners.append(listener)
        for listener in self._listeners:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._wakeup, selectors.EVENT_READ)

    def start(self) -> None:
        """Serve in a thread."""
        self._thread.start()

    def close(self) -> None:
        """Disconnect everybody, and remove the path if this server made it."""
        self._closing.set()
        self._wakeup.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)
        for client in list(self._clients):
            self._drop(client)
        if self._path is not None and self._bound is not None and identity(self._path) == self._bound:
            with contextlib.suppress(OSError):
                self._path.unlink()
        for listener in self._listeners:
            listener.close()
        self._selector.close()
        self._wakeup.close()

    def on_event(self, event: Event) -> None:
        """Send an event to the subscribers. Any thread; never waits."""
        self._events.append(event)
        self._wakeup.set()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._beat()
                for key, ready in self._selector.select(_WAIT_S):
                    self._handle(key, ready)
                self._publish()
        except Exception:
            logger.exception("the socket thread ends")  # its beats end too, and the daemon acts on that
            raise

    def _handle(self, key: selectors.SelectorKey, ready: int) -> None:
        if isinstance(key.data, Connection):
            with self._dropped_on_failure(key.data):
                if ready & selectors.EVENT_WRITE:
                    key.data.flush()
                if ready & selectors.EVENT_READ:
                    self._read(key.data)
                self._watch(key.data)
        elif key.fileobj is self._wakeup:
            self._wakeup.clear()
        elif isinstance(key.fileobj, socket.socket):
            self._accept(key.fileobj)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as err:  # out of descriptors, most likely: the listener stays ready, so do not spin
            logger.warning("event=accept_failed error=%s", err.strerror)
            time.sleep(0.1)
            return
        rate = self._config.requests_per_second
        client = Connection(sock, max_line_bytes=MAX_MESSAGE_BYTES, requests_per_second=rate)
        if len(self._clients) >= self._config.max_clients:
            logger.warning("event=too_many_clients pid=%d uid=%d", client.pid, client.uid)
            refusal = BadRequestError("bad_request", f"too many clients ({self._config.max_clients})")
            with contextlib.suppress(OSError):
                client.send_line(to_json(failure(refusal)))
            sock.close()
            return
        logger.debug("event=client pid=%d uid=%d", client.pid, client.uid)
        self._clients.add(client)
        self._selector.register(sock, selectors.EVENT_READ, client)

    def _read(self, client: Connection) -> None:
        hung_up = False
        while True:
            try:
                ended = not client.read() or hung_up
            except OSError:  # likewise, with replies unread: the kernel tells of nothing else then
                ended = True
            for line in client.lines(ended=ended):
                reply = self._answer(client, line)
                try:
                    client.send_line(to_json(reply))
                except OSError:  # has hung up; what was sent before that is served all the same
                    hung_up = True
            if ended or not hung_up:
                break
        if ended:
            self._drop(client)

    def _answer(self, client: Connection, line: bytes | None) -> dict[str, Any]:
        """The one reply to one line (None: it was too long)."""
        try:
            return self._obey(client, line)
        except BadRequestError as err:
            return failure(err)
        except Exception:
            logger.exception("bug in the socket input")
            return failure(BadRequestError("bad_request", "internal error; the daemon's log has the details"))

    def _obey(self, client: Connection, line: bytes | None) -> dict[str, Any]:
        if not client.may_ask():
            rate = self._config.requests_per_second
            raise BadRequestError("bad_request", f"rate limit: more than {rate:g} requests a second")
        if line is None:
            raise BadRequestError("too_long", f"a line is limited to {MAX_MESSAGE_BYTES} bytes")
        op = parse_line(line)
        reply = execute(op, self._speaker)
        if reply["ok"]:
            if isinstance(op, Say) and op.more:
                client.open_ids.add(op.request.id)
            elif isinstance(op, End):
                client.open_ids.discard(op.id)
            elif op == Command(name="subscribe"):
                client.subscribed = True
        return reply

    def _publish(self) -> None:
        """Send what happened to the subscribers; forget requests that are over."""
        while self._events:
            event = self._events.popleft()
            line = to_json(event.to_wire())
            for client in list(self._clients):
                if (
                    event.event_type.final and event.event_type is not EventType.REJECTED
                ):  # a duplicate's is not its end
                    client.open_ids.discard(event.id)
                if client.subscribed:
                    with self._dropped_on_failure(client):
                        client.send_line(line)
                        self._watch(client)

    def _watch(self, client: Connection) -> None:
        """Ask the selector for writability only while something is unsent."""
        if client in self._clients:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.wants_write else 0)
            self._selector.modify(client.sock, wanted, client)

    @contextlib.contextmanager
    def _dropped_on_failure(self, client: Connection) -> Iterator[None]:
        try:
            yield
        except TooSlowError:
            logger.warning("event=slow_client_dropped pid=%d uid=%d", client.pid, client.uid)
            self._drop(client)
        except OSError:  # it went away
            self._drop(client)

    def _drop(self, client: Connection) -> None:
        if client not in self._clients:
            return
        self._clients.discard(client)
        self._selector.unregister(client.sock)
        client.sock.close()
        for request_id in client.open_ids:
            with contextlib.suppress(BadRequestError):  # it was over already
                self._speaker.end(request_id)


def bind(path: Path) -> socket.socket:
    """Listen on ``path`` with mode 0660, in place of a socket that nobody serves any more.

    Raises:
        ConfigError: in use by a running daemon, not a socket, or not writable.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir(mode=0o700)
        _remove_stale(path)
        os.fchmod(sock.fileno(), _MODE)  # bind takes it over, less the umask: never too open, not even for a moment
        sock.bind(str(path))
        path.chmod(_MODE)  # what the umask took away
        sock.listen(64)
    except OSError as err:
        sock.close()
        raise ConfigError(f"socket path {path}: {err.strerror or err}") from err
    except ConfigError:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"socket path {path}: exists and is not a socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except TimeoutError:
            pass  # something listens, however busy
    raise ConfigError(f"socket path {path}: in use by a running daemon")


def identity(path: Path) -> tuple[int, int] | None:
    """What tells the socket at a path from another one that took its place; None where there is nothing."""
    try:
        info = path.lstat()
    except OSError:
        return None
    return info.st_dev, info.st_ino
