"""Several rooms in step: a real snapserver and two snapclients, configured as docs/speakers.md says."""

import contextlib
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from broker import free_port
from daemon_process import render, run_daemon
from recipe_pages import ROOT, blocks
from soundcard import contains, wait_until

from daemon.values import SAMPLE_RATE

PAGE = ROOT / "docs" / "speakers.md"
FIFO = "/run/crier/snapcast.fifo"
TEXT = "The laundry is done."
IN_STEP_S = 0.025
MISSING = [name for name in ("snapserver", "snapclient") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.audio,
    pytest.mark.skipif(bool(MISSING) and not os.environ.get("CI"), reason=f"not installed: {', '.join(MISSING)}"),
]


class Room:
    """A snapclient that plays to a pipe in real time; every piece is kept with the time at which it was played."""

    def __init__(self, folder: Path, port: int, name: str) -> None:
        self.log = folder / f"{name}.log"
        self._pieces: list[tuple[float, bytes]] = []
        command = ["snapclient", "-h", "127.0.0.1", "-p", str(port), "--hostID", name, "-i", "1"]
        command += ["--player", "file:filename=stdout", "--logsink", f"file:{self.log}"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_env(folder))
        self._reader = threading.Thread(target=self._read, name=name)
        self._reader.start()

    def _read(self) -> None:
        while piece := os.read(self._process.stdout.fileno(), 65_536):
            self._pieces.append((time.monotonic(), piece))

    def recording(self) -> np.ndarray:
        """All that was played so far, int16 [S]."""
        data = b"".join(piece for _, piece in list(self._pieces))
        return np.frombuffer(data[: len(data) // 2 * 2], np.int16)

    def wait_for(self, pcm: np.ndarray, after: int = 0) -> int:
        """Wait until ``pcm`` was played, whole and to the bit, and return where it begins."""
        wait_until(lambda: contains(self.recording()[after:], pcm) >= 0, 15)
        return after + contains(self.recording()[after:], pcm)

    def onset_s(self, begin: int, length: int) -> float:
        """When the sample at ``begin`` was played, by the piece of ``length`` samples that came least late."""
        times, position = [], 0
        for played_s, piece in list(self._pieces):
            if begin <= position < begin + length:
                times.append(played_s - (position - begin) / SAMPLE_RATE)
            position += len(piece) // 2
        return min(times)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._reader.join(5)
        self._process.stdout.close()


class Server:
    """A snapserver with the page's configuration, at a path and a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.fifo = folder / "snapcast.fifo"
        self.log = folder / "snapserver.log"
        self._folder = folder
        self._config = folder / "snapserver.conf"
        self._config.write_text(blocks(PAGE, "ini")[0].text.replace(FIFO, str(self.fifo)))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        options = {
            "stream.port": self.port,
            "stream.bind_to_address": "127.0.0.1",
            "http.enabled": "false",
            "tcp.enabled": "false",
            "server.datadir": self._folder,
        }
        command = ["snapserver", "-c", str(self._config), *(f"--{name}={value}" for name, value in options.items())]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=_env(self._folder))
        wait_until(lambda: "stream acceptor" in self.log.read_text())

    def wait_rooms(self, count: int) -> None:
        """Wait until so many clients get its stream."""
        wait_until(lambda: self.log.read_text().count("Hello from") >= count, 20)
        time.sleep(0.5)  # its clock is compared with theirs, half a dozen times

    def kill(self) -> None:
        """End it without a goodbye."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _env(folder: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(folder), "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent"}


@pytest.fixture
def house(tmp_path):
    """A server and two rooms; the FIFO is not there yet."""
    with contextlib.ExitStack() as stack:
        server = Server(tmp_path)
        stack.callback(server.kill)
        server.start()
        rooms = []
        for name in ("kitchen", "bath"):
            rooms.append(Room(tmp_path, server.port, name))
            stack.callback(rooms[-1].close)
        server.wait_rooms(2)
        yield server, rooms


def speaker(server: Server, folder: Path, extra: str = ""):
    """A daemon with the page's configuration."""
    audio = next(block.text for block in blocks(PAGE, "toml") if block.argument == "/etc/crier/config.toml")
    config = audio.replace(FIFO, str(server.fifo)) + extra + '[socket]\npath = "{socket}"\n'
    (folder / "daemon").mkdir(exist_ok=True)
    return run_daemon(folder / "daemon", config)


def say(daemon, text: str = TEXT) -> dict[str, object]:
    """Have something said to its end; the final event."""
    client = daemon.client()
    request_id = client.say(text)
    while (event := client.line()).get("event_type") in ("queued", "started") or event.get("id") != request_id:
        pass
    return event


@pytest.mark.parametrize("extra", ["", "keep_open = true\n"])
def test_every_room_plays_every_announcement_in_step(house, tmp_path, extra):
    """To the bit, also after a silence, and at the same time, as far as a pipe can tell."""
    server, rooms = house
    apart_s = []
    with speaker(server, tmp_path, extra) as daemon:
        ends = [0, 0]
        for text in (TEXT, "Somebody is at the door.", TEXT):
            assert say(daemon, text)["event_type"] == "finished"
            pcm = render(text)
            begins = [room.wait_for(pcm, end) for room, end in zip(rooms, ends, strict=True)]
            ends = [begin + len(pcm) for begin in begins]
            onsets = [room.onset_s(begin, len(pcm)) for room, begin in zip(rooms, begins, strict=True)]
            apart_s.append(abs(onsets[0] - onsets[1]))
            time.sleep(1.5)  # the stream runs dry
    print("apart_ms", [round(1000 * apart, 2) for apart in apart_s])
    assert max(apart_s) < IN_STEP_S


def test_a_server_that_is_restarted_is_found_again(house, tmp_path):
    """What is said meanwhile fails with a reason; the next announcement is whole in every room."""
    server, rooms = house
    with speaker(server, tmp_path, "device_wait_s = 1.0\n") as daemon:
        assert say(daemon)["event_type"] == "finished"
        for room in rooms:
            room.wait_for(render(TEXT))
        server.kill()
        event = say(daemon)
        assert (event["event_type"], event["reason"]) == ("failed", "audio")
        lengths = [len(room.recording()) for room in rooms]
        server.start()
        server.wait_rooms(2)
        text = "And here we are again."
        assert say(daemon, text)["event_type"] == "finished"
        for room, length in zip(rooms, lengths, strict=True):
            room.wait_for(render(text), length)


def test_a_server_that_comes_late_is_waited_for(tmp_path):
    """An announcement that finds nobody reading is spoken when the server is there."""
    server = Server(tmp_path)
    try:
        with speaker(server, tmp_path) as daemon:
            client = daemon.client()
            request_id = client.say(TEXT)
            wait_until(lambda: "nobody reads it" in daemon.log.read_text())
            server.start()
            assert client.wait_for("finished", request_id)["audio_s"] == pytest.approx(
                len(render(TEXT)) / SAMPLE_RATE, abs=0.001
            )
    finally:
        server.kill()
