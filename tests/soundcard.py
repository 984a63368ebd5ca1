"""Sound cards for tests, with no kernel module: a real PulseAudio with a null sink, and a FIFO read at 48 kB/s.

Both record, byte for byte, what PyAudio plays. ``env`` of a handle is what the playing process needs.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from daemon.values import SAMPLE_RATE, Pcm16

_FORMAT = ("--format=s16le", "--rate=24000", "--channels=1")
_PULSE_ALSA = """
pcm.!default { type pulse hint.description "Test speaker" }
pcm.speaker { type pulse hint.description "Test speaker" }
ctl.!default { type pulse }
"""
_FIFO_ALSA = """
pcm.speaker {{
  type plug
  slave {{
    pcm {{ type file  slave.pcm {{ type null }}  file "{fifo}"  format "raw" }}
    format S16_LE
    rate 24000
    channels 1
  }}
}}
pcm.!default {{ type plug slave.pcm "speaker" }}
"""


def contains(recording: Pcm16, pcm: Pcm16) -> int:
    """Index of the first place where ``recording`` holds ``pcm`` bit for bit; -1 if nowhere."""
    index = recording.tobytes().find(pcm.tobytes())
    while index % 2 and index >= 0:
        index = recording.tobytes().find(pcm.tobytes(), index + 1)
    return index // 2


def wait_until(condition, timeout_s=10.0):
    """Wait until ``condition()`` is true, and return what it gave; fail after ``timeout_s``."""
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return value


class Pulse:
    """A private PulseAudio daemon with the null sink ``spk`` (24 kHz s16 mono) and a recorder of what it plays."""

    def __init__(self, tmp_path: Path) -> None:
        self._raw = tmp_path / "recording.raw"
        self._log = (tmp_path / "pulse.log").open("ab")
        self._dir = Path(tempfile.mkdtemp(prefix="pulse"))  # short: it holds a socket
        (self._dir / "asound.conf").write_text(_PULSE_ALSA)
        self._server: subprocess.Popen[bytes] | None = None
        self._recorder: subprocess.Popen[bytes] | None = None
        self._raw.touch()
        self.env = {
            "PULSE_SERVER": f"unix:{self._dir}/native",
            "PULSE_RUNTIME_PATH": str(self._dir),
            "PULSE_COOKIE": str(self._dir / "cookie"),
            "ALSA_CONFIG_PATH": str(self._dir / "asound.conf"),
            "JACK_NO_START_SERVER": "1",
        }

    def restart(self) -> None:
        """Start the server (again)."""
        with contextlib.suppress(FileNotFoundError):
            (self._dir / "pid").unlink()
        modules = [
            "module-null-sink sink_name=spk rate=24000 format=s16le channels=1 channel_map=mono",
            f"module-native-protocol-unix auth-anonymous=1 socket={self._dir}/native",
        ]
        loads = [word for module in modules for word in ("-L", module)]
        options = ["--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--disable-shm=yes", "-n", *loads]
        self._server = subprocess.Popen(
            ["pulseaudio", *options], env=self.environment(), stdout=self._log, stderr=self._log
        )
        wait_until(lambda: self._pactl("info"))

    def record(self) -> None:
        """Begin to record; what is recorded is appended."""
        with self._raw.open("ab") as out:
            self._recorder = subprocess.Popen(
                ["parec", "--device=spk.monitor", "--raw", "--latency-msec=20", *_FORMAT],
                env=self.environment(),
                stdout=out,
                stderr=self._log,
            )
        size = self._raw.stat().st_size
        wait_until(lambda: self._raw.stat().st_size > size)

    def recording(self) -> Pcm16:
        """What has been recorded so far."""
        data = self._raw.read_bytes()
        return np.frombuffer(data[: len(data) // 2 * 2], dtype=np.int16)

    def kill(self) -> None:
        """Kill the server at once, as if the sound card were pulled; the recorder ends with it."""
        for process in (self._server, self._recorder):
            if process is not None:
                process.kill()
                process.wait()
        self._server = self._recorder = None

    def close(self) -> None:
        """End everything and remove the private folder."""
        self.kill()
        self._log.close()
        shutil.rmtree(self._dir, ignore_errors=True)

    def load(self, module: str, *arguments: str) -> None:
        """Load a module into the server."""
        assert self._pactl("load-module", module, *arguments)

    def sink_inputs(self) -> str:
        """Who plays what, as ``pactl`` lists it."""
        command = ["pactl", "list", "sink-inputs"]
        return subprocess.run(command, env=self.environment(), capture_output=True, check=True, text=True).stdout

    def environment(self) -> dict[str, str]:
        """All variables of a process that plays to this server."""
        return {**os.environ, "HOME": str(self._dir), **self.env}

    def _pactl(self, *words: str) -> bool:
        command = ["pactl", *words]
        return subprocess.run(command, env=self.environment(), capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def start_pulse(tmp_path: Path) -> Iterator[Pulse]:
    """A running ``Pulse``, ended when the block is left."""
    pulse = Pulse(tmp_path)
    try:
        pulse.restart()
        yield pulse
    finally:
        pulse.close()


class FifoCard:
    """An ALSA device that writes to a FIFO, which is read in real time: needs no sound server."""

    def __init__(self, tmp_path: Path) -> None:
        self._fifo = tmp_path / "card.fifo"
        os.mkfifo(self._fifo)
        (tmp_path / "asound.conf").write_text(_FIFO_ALSA.format(fifo=self._fifo))
        self.env = {"ALSA_CONFIG_PATH": str(tmp_path / "asound.conf"), "JACK_NO_START_SERVER": "1"}
        self._fd = os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK)  # RDWR: writers may come and go
        fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, 4096)
        self._data = bytearray()
        self._stop = threading.Event()
        self._reader = threading.Thread(target=self._read, name="fifo-card")
        self._reader.start()

    def recording(self) -> Pcm16:
        """What has been played so far."""
        data = bytes(self._data)
        return np.frombuffer(data[: len(data) // 2 * 2], dtype=np.int16)

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._reader.join()
        os.close(self._fd)

    def _read(self) -> None:
        tick_s = 0.02
        due_s = time.monotonic()
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            with contextlib.suppress(BlockingIOError):
                self._data += os.read(self._fd, int(2 * SAMPLE_RATE * tick_s))
            due_s += tick_s
