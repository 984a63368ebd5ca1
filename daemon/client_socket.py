"""The client's conversation with the daemon: finding its socket, requests, events. Imports nothing that is slow."""

import json
import os
import socket
import tomllib
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from daemon.errors import BadRequestError, ConfigError, UnreachableError
from daemon.places import SYSTEM_SOCKET, find_places

_REPLY_S = 10.0


def find_socket(named: str | None, config: str | None, environ: Mapping[str, str]) -> Path:
    """The socket that is named, else the configured one, else the user's daemon's if it answers, else the service's.

    Raises:
        ConfigError: the named config cannot be read.
    """
    if named:
        return Path(named)
    places = find_places(environ)
    configured = _configured_socket(Path(config)) if config else ""
    if not config and places.config is not None and os.access(places.config, os.R_OK):
        configured = _configured_socket(places.config)
    if configured:
        return Path(configured)
    return places.socket if _answers(places.socket) else SYSTEM_SOCKET


def _answers(path: Path) -> bool:
    """Whether a daemon listens there; a crashed one leaves its socket behind."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _configured_socket(config: Path) -> str:
    """``[socket] path``; the daemon is the one that checks the rest of the file."""
    try:
        section = tomllib.loads(config.read_text(encoding="utf-8")).get("socket", {})
    except OSError as err:
        raise ConfigError(f"{config}: {err.strerror}") from err
    except ValueError as err:
        raise ConfigError(f"{config}: not valid TOML: {err}") from err
    return str(section.get("path", "")) if isinstance(section, dict) else ""


class Connection:
    """One connection: requests are answered in order, events of a subscription wait until they are asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._events: deque[dict[str, Any]] = deque()
        self._sock = socket.socket(socket.AF_UNIX)
        try:
            self._sock.settimeout(_REPLY_S)
            self._sock.connect(str(path))
        except PermissionError as err:
            self._sock.close()
            raise UnreachableError(f"no permission for {path}; join the group that owns it") from err
        except OSError as err:
            self._sock.close()
            hint = "start it with: systemctl start crier, or: crierd"
            raise UnreachableError(f"no daemon answers at {path} ({err.strerror or err}); {hint}") from err
        self._file = self._sock.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._sock.close()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request and wait for its reply.

        Raises:
            BadRequestError: the daemon refused it.
            UnreachableError: the daemon is gone, or silent for ten seconds.
        """
        self._sock.settimeout(_REPLY_S)
        try:
            self._sock.sendall(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            pass  # it hung up on us; why is still to be read
        except OSError as err:
            raise UnreachableError(f"the daemon at {self._path} does not answer ({err})") from err
        while "ok" not in (line := self._read()):
            self._events.append(line)
        if not line["ok"]:
            raise BadRequestError(line["error"]["code"], line["error"]["message"])
        return line

    def events(self) -> Iterator[dict[str, Any]]:
        """The events of a subscription, as they come.

        Raises:
            UnreachableError: the daemon has gone.
        """
        self._sock.settimeout(None)
        while True:
            while self._events:
                yield self._events.popleft()
            self._events.append(self._read())

    def _read(self) -> dict[str, Any]:
        try:
            line = self._file.readline()
        except OSError as err:
            raise UnreachableError(f"the daemon at {self._path} does not answer ({err})") from err
        if not line:
            raise UnreachableError(f"the daemon at {self._path} closed the connection")
        parsed: dict[str, Any] = json.loads(line)
        return parsed
