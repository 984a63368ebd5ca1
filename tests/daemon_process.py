"""A real crierd in a process of its own, with a configuration and folders of its own, for the integration tests."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
HEADER_BYTES = 44


class Client:
    """A connection to the daemon's socket: one request line, one reply line; events in between are kept."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")
        self.events: list[dict[str, Any]] = []

    def patience(self, seconds: float) -> None:
        """Wait so long for a line, where speech is slow to come."""
        self._socket.settimeout(seconds)

    def raw(self, data: bytes) -> dict[str, Any]:
        """Send bytes (a newline is added) and return the reply."""
        self._socket.sendall(data + b"\n")
        while "ok" not in (line := self.line()):
            self.events.append(line)
        return line

    def line(self) -> dict[str, Any]:
        """The next line."""
        text = self._lines.readline()
        assert text, "the daemon closed the connection"
        return json.loads(text)

    def op(self, op: str, **fields: Any) -> dict[str, Any]:
        """Send an operation and return the reply."""
        return self.raw(json.dumps({"op": op, **fields}).encode())

    def say(self, text: str, **fields: Any) -> str:
        """Have something said; returns its id."""
        reply = self.op("say", text=text, **fields)
        assert reply["ok"], reply
        return str(reply["id"])

    def wait_for(self, event_type: str, request_id: str) -> dict[str, Any]:
        """Wait for an event of a request (after ``subscribe``); everything on the way is kept in ``events``."""
        index = 0
        while True:
            while index < len(self.events):
                event = self.events[index]
                if event["event_type"] == event_type and event["id"] == request_id:
                    return event
                index += 1
            self.events.append(self.line())

    def close(self) -> None:
        """Disconnect."""
        self._lines.close()
        self._socket.close()


class Daemon:
    """The process, its files, and what it says to systemd."""

    def __init__(self, folder: Path, config: str, env: dict[str, str]) -> None:
        self.folder = folder
        self.wav = folder / "out.wav"
        self.socket = folder / "c.sock"
        self.config = folder / "config.toml"
        self.config.write_text(config.format(wav=self.wav, socket=self.socket))
        notify = folder / "notify.sock"
        notify.unlink(missing_ok=True)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(notify))
        self._notify.settimeout(0.2)
        self.notes: list[str] = []
        self._clients: list[Client] = []
        self.log = folder / "daemon.log"
        home = folder / "home"
        home.mkdir(exist_ok=True)
        clean = {k: v for k, v in os.environ.items() if not k.startswith("XDG_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "daemon", "--config", str(self.config)],
                cwd=ROOT,
                env={**clean, "HOME": str(home), "NOTIFY_SOCKET": str(notify), **env},
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def wait_note(self, wanted: str, patience_s: float = 20) -> None:
        """Wait until systemd would have been told this."""
        end = time.monotonic() + patience_s
        while wanted not in self.notes:
            gone = self.process.poll() is not None
            try:
                self.notes += self._notify.recv(4096).decode().split("\n")
            except TimeoutError:
                assert not gone, f"crierd exited with {self.process.returncode}: {self.log.read_text()[-2000:]}"
                assert time.monotonic() < end, f"no {wanted!r} in {self.notes}"

    def client(self, *, subscribe: bool = True) -> Client:
        """A new connection."""
        client = Client(self.socket)
        self._clients.append(client)
        if subscribe:
            assert client.op("subscribe")["ok"]
        return client

    def recording(self) -> np.ndarray:
        """What the WAV sink has been given so far, int16 [S]."""
        data = self.wav.read_bytes()[HEADER_BYTES:] if self.wav.exists() else b""
        return np.frombuffer(data[: len(data) // 2 * 2], np.int16)

    def info(self) -> psutil.Process:
        """The process as the system sees it."""
        return psutil.Process(self.process.pid)

    def terminate(self) -> float:
        """SIGTERM; returns the seconds until it was gone."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(15)
        return time.monotonic() - began

    def close(self) -> None:
        """End it, whatever state it is in."""
        for client in self._clients:
            client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._notify.close()


NULL_CONFIG = """
[audio]
sink = "null"
[socket]
path = "{socket}"
requests_per_second = 10000
"""
WAV_CONFIG = """
[audio]
sink = "wav"
path = "{wav}"
[socket]
path = "{socket}"
requests_per_second = 1000
"""


def mqtt_section(port: int, node: str = "kitchen") -> str:
    """What a configuration needs for a broker on this machine."""
    return f'[mqtt]\nenabled = true\nhost = "127.0.0.1"\nport = {port}\nnode = "{node}"\n'


@contextlib.contextmanager
def run_daemon(
    folder: Path,
    config: str = WAV_CONFIG,
    *,
    env: dict[str, str] | None = None,
    ready: bool = True,
    patience_s: float = 20,
) -> Iterator[Daemon]:
    """A daemon that has said READY; killed at the end if the test has not ended it."""
    daemon = Daemon(folder, config, env or {})
    try:
        if ready:
            daemon.wait_note("READY=1", patience_s)
        yield daemon
    finally:
        daemon.close()


def render(text: str, *options: str) -> np.ndarray:
    """The PCM of ``crier render``, int16 [S]: what the daemon must play to the bit."""
    command = [sys.executable, "-m", "daemon.client", "render", text, "--out", "-", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return np.frombuffer(done.stdout[HEADER_BYTES:], np.int16)
