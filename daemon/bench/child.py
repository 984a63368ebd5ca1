"""A crierd of the bench's own: a process with folders of its own, a null sink, and nothing kept from run to run."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from daemon.bench.environment import child_environment
from daemon.client_socket import Connection
from daemon.config import Config
from daemon.engine.toml_text import to_toml
from daemon.errors import EngineError

_READY_S = 180.0
_LOOK_S = 0.1
_GONE_S = 15.0
_LEFT_OUT = ("mqtt", "hermes", "wyoming", "share", "duck", "quiet", "chimes", "log")
"""Sections whose defaults hold: other doors, and what would change or hush the speech."""
_PROCESS_CLOCK = 2


class Child:
    """The process, from its start to READY and to its end.

    Attributes:
        ready_s: from the start of the process to READY=1.

    Raises:
        EngineError: it ended before it was ready, or was not within three minutes.
    """

    def __init__(self, config: Config, bundle: Path, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "crier.sock"
        self._log = folder / "crierd.log"
        settings = folder / "config.toml"
        settings.write_text(to_toml(child_config(config, bundle, self._socket)), encoding="utf-8")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, self._log.open("wb") as log:
            path = folder / "notify.sock"
            path.unlink(missing_ok=True)
            notify.bind(str(path))
            notify.settimeout(_LOOK_S)
            began = time.monotonic()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "daemon", "--config", str(settings)],
                env=child_environment(os.environ, folder) | {"NOTIFY_SOCKET": str(path)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
            try:
                self._wait_ready(notify, began + _READY_S)
            except BaseException:
                self.close()
                raise
            self.ready_s = time.monotonic() - began

    def _wait_ready(self, notify: socket.socket, deadline_s: float) -> None:
        notes: list[str] = []
        while "READY=1" not in notes:
            try:
                notes += notify.recv(4096).decode("utf-8", "replace").split("\n")
            except TimeoutError:
                if self._process.poll() is not None:
                    raise EngineError(
                        f"the bench's crierd ended with {self._process.returncode}: {self._last_words()}"
                    ) from None
                if time.monotonic() > deadline_s:
                    raise EngineError(f"the bench's crierd was not ready after {_READY_S:.0f} s") from None

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def connect(self) -> Connection:
        """A new connection to its socket."""
        return Connection(self._socket)

    def memory(self) -> dict[str, int | None]:
        """Bytes of it in memory: resident, its own alone, and with its share of what it shares."""
        try:
            text = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text(encoding="ascii")
        except OSError:
            text = ""
        return parse_smaps(text)

    def cpu_s(self) -> float:
        """Processor time of all its threads so far, to the nanosecond.

        Source: glibc sysdeps/unix/sysv/linux/clock_getcpuclockid.c, how a process's clock is numbered.
        """
        return time.clock_gettime(~self._process.pid << 3 | _PROCESS_CLOCK)

    def close(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_GONE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def child_config(config: Config, bundle: Path, socket_path: Path) -> dict[str, Any]:
    """The configuration under test, with its own socket, a null sink, no other door and no phrases from disk."""
    whole = {name: section for name, section in config.model_dump().items() if name not in _LEFT_OUT}
    whole["engine"] |= {"bundle": str(bundle)}
    whole["audio"] |= {"sink": "null", "path": ""}
    whole["socket"] |= {"path": str(socket_path), "requests_per_second": 10_000}
    whole["phrases"] |= {"cache": False}
    return {name: _without_none(section) for name, section in whole.items()}


def _without_none(section: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if value is not None}


def parse_smaps(text: str) -> dict[str, int | None]:
    """/proc/PID/smaps_rollup as bytes; None where it does not tell."""
    pairs = [line.split() for line in text.splitlines() if line.endswith(" kB")]
    num_bytes = {name.rstrip(":"): int(value) * 1024 for name, value, _ in pairs}
    own = [num_bytes[name] for name in ("Private_Clean", "Private_Dirty") if name in num_bytes]
    return {
        "rss_bytes": num_bytes.get("Rss"),
        "pss_bytes": num_bytes.get("Pss"),
        "uss_bytes": sum(own) if own else None,
    }
