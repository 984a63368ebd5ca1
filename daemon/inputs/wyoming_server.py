"""The Wyoming server: its listeners, its thread with an event loop, and who may be connected."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from daemon.config_sections import WyomingConfig
from daemon.errors import BadRequestError, ConfigError
from daemon.inputs.unix_socket import bind, identity
from daemon.inputs.wyoming import Conversation, RenderingSpeaker, warnings
from daemon.inputs.wyoming_streams import BoundedReader

logger = logging.getLogger(__name__)

_WAIT_S = 1.0
"""The longest wait between two beats."""
_CLOSE_S = 1.5
_BYTES_PER_CHAR = 6_000
"""Audio that a character of text becomes, at most and roughly: 0.125 s."""
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
RETRY_S = 5.0
"""How often an address that cannot be had is tried again."""


class WyomingServer:
    """Serves ``speaker`` on ``[wyoming] uri``.

    Args:
        config: the section.
        speaker: makes the speech.
        max_chars: of one text; bounds what a client may leave unread.
        beat: called about once a second from the server's thread.
    """

    def __init__(
        self, config: WyomingConfig, speaker: RenderingSpeaker, *, max_chars: int, beat: Callable[[], None]
    ) -> None:
        self._config = config
        self._speaker = speaker
        self._max_unsent_bytes = max_chars * _BYTES_PER_CHAR
        self._beat = beat
        self._listeners: list[socket.socket] = []
        self._path: Path | None = None
        self._bound: tuple[int, int] | None = None
        self._clients: dict[Conversation, asyncio.Task[None]] = {}  # wyoming thread
        self._announce: Callable[[str, int], Coroutine[Any, Any, None]] | None = None
        self._closing = asyncio.Event()
        self._closed = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="wyoming")

    def open(self) -> list[str]:
        """Listen; returns where. An address that cannot be had yet is none: once started, it is tried again.

        Raises:
            ConfigError: the uri is unusable, or its path is taken.
            ModuleNotFoundError: zeroconf is wanted and not installed.
        """
        uri = self._config.uri
        check_uri(self._config)
        if self._config.zeroconf:
            from daemon.inputs.wyoming_zeroconf import announce  # noqa: PLC0415 (large, and seldom wanted)

            self._announce = announce
        if uri.startswith("unix:"):
            self._path = _path(uri)
            try:
                self._listeners = [bind(self._path)]
            except ConfigError as err:
                raise ConfigError(f"[wyoming] uri: {err}") from err
            self._bound = identity(self._path)
            return [str(self._path)]
        try:
            self._listeners = _listen(uri)
        except OSError as err:
            logger.warning("event=wyoming_waits uri=%s error=%s: tried again until it is free", uri, reason(err))
        return [_address(listener) for listener in self._listeners]

    def start(self) -> None:
        """Serve in a thread."""
        self._loop = asyncio.new_event_loop()
        self._thread.start()
        if not self._listeners:  # in a thread that may be left behind: it may hang in the resolver
            threading.Thread(target=self._listen_later, name="wyoming-listen", daemon=True).start()

    def _listen_later(self) -> None:
        while not self._closed.wait(RETRY_S):
            with contextlib.suppress(OSError):
                self._listeners = _listen(self._config.uri)
                logger.info("wyoming uri=%s", ", ".join(map(_address, self._listeners)))
                break
        if self._closed.is_set():
            self._close_listeners()

    def close(self) -> None:
        """Disconnect everybody, and remove the path if this server made it."""
        self._closed.set()
        if self._loop is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has just ended
                self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join(timeout=2)
        self._close_listeners()

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        if self._path is not None and self._bound is not None and identity(self._path) == self._bound:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:  # type: ignore[arg-type, return-value]
                runner.run(self._serve())
        except Exception:
            logger.exception("the wyoming thread ends")  # its beats end too, and the daemon acts on that
            raise

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        servers: list[asyncio.Server] = []
        announcing: list[asyncio.Task[None]] = []
        while not self._closing.is_set():
            if self._listeners and not servers:
                servers = [await loop.create_server(self._protocol, sock=listener) for listener in self._listeners]
                announcing = self._begin_to_announce()
            self._beat()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), _WAIT_S)
        for server in servers:
            server.close()
        for task in announcing:
            task.cancel()
        for client in self._clients:
            client.drop()
        if ending := [*announcing, *self._clients.values()]:
            await asyncio.wait(ending, timeout=_CLOSE_S)

    def _begin_to_announce(self) -> list[asyncio.Task[None]]:
        if self._announce is None:
            return []
        host, port = self._listeners[0].getsockname()[:2]
        if _is_local(host):  # as Debian's own name of a machine is
            logger.warning("event=zeroconf_failed error=nobody else reaches %s", host)
            return []
        return [asyncio.get_running_loop().create_task(self._announce(host, port))]

    def _protocol(self) -> asyncio.StreamReaderProtocol:
        reader = BoundedReader()
        return asyncio.StreamReaderProtocol(reader, lambda _, writer: self._on_client(reader, writer))

    def _on_client(self, reader: BoundedReader, writer: asyncio.StreamWriter) -> None:
        client = Conversation(reader, writer, self._speaker, self._max_unsent_bytes)
        present = [other for other in self._clients if not other.dropped]
        room = len(present) < self._config.max_clients or _make_room(present)
        task = asyncio.get_running_loop().create_task(client.run() if room else self._refuse(client))
        self._clients[client] = task
        task.add_done_callback(lambda _: self._clients.pop(client, None))

    async def _refuse(self, client: Conversation) -> None:
        await client.refuse(BadRequestError("queue_full", f"too many clients ({self._config.max_clients})"))
        client.drop()


def _make_room(clients: list[Conversation]) -> bool:
    """Disconnect the one that has asked for nothing for the longest time."""
    idle = min((client for client in clients if not client.busy), key=lambda client: client.idle_since, default=None)
    if idle is None:
        return False
    warnings.log(logging.INFO, "event=wyoming_idle_dropped client=%s", idle.peer)
    idle.drop()
    return True


def check_uri(config: WyomingConfig) -> None:
    """Whether the uri is one.

    Raises:
        ConfigError: it is none, or none that can be announced.
    """
    if config.uri.startswith("unix:"):
        _path(config.uri)
        host = ""
    else:
        host, _port = _host_and_port(config.uri)
    if config.zeroconf and (not host or _is_local(host)):
        raise ConfigError(f"[wyoming] zeroconf: nobody else reaches {config.uri}; tcp://0.0.0.0:10200, say")


def try_address(config: WyomingConfig) -> str:
    """Why the uri's address cannot be had now; empty if it can, and for a path.

    Raises:
        ConfigError: it is no uri.
    """
    if config.uri.startswith("unix:"):
        return ""
    try:
        listeners = _listen(config.uri)
    except OSError as err:
        return reason(err)
    for listener in listeners:
        listener.close()
    return ""


def reason(err: OSError) -> str:
    """The system's words, or the resolver's; those of create_server repeat the address."""
    return os.strerror(err.errno) if err.errno is not None and err.errno > 0 else err.strerror or str(err)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _path(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.netloc or len(parts.path) < 2:
        raise ConfigError(f"[wyoming] uri {uri}: three slashes and an absolute path, as in unix:///run/crier/wyoming")
    return Path(parts.path)


def _host_and_port(uri: str) -> tuple[str, int]:
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
        if host:
            host.encode("idna")  # as the resolver will
    except ValueError as err:
        raise ConfigError(f"[wyoming] uri {uri}: {err}") from err
    if not host or port is None:
        raise ConfigError(f"[wyoming] uri {uri}: needs a host and a port, as in tcp://127.0.0.1:10200")
    return host, port


def _listen(uri: str) -> list[socket.socket]:
    """Listeners on every address of the uri's host.

    Raises:
        OSError: they cannot be had.
    """
    listeners: list[socket.socket] = []
    try:
        for family, address in _addresses(*_host_and_port(uri)):
            try:
                listeners.append(socket.create_server(address, family=family, backlog=64))
            except OSError as err:
                if err.errno not in _NO_SUCH_ADDRESS or not listeners:
                    raise
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _addresses(host: str, port: int) -> dict[tuple[int, Any], None]:
    """What the name stands for, IPv4 first: a machine may have lost its IPv6, and keep the names."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return dict.fromkeys(sorted((int(family), address) for family, _, _, _, address in found))


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
