"""What every sink promises, run on each of them; the sound card through a PulseAudio that the test starts."""

import contextlib
import os
import threading
import time

import numpy as np
import pytest
import soundcard

from daemon.audio.sink import open_sink
from daemon.config_sections import AudioConfig
from daemon.errors import AudioError

BLOCK = np.arange(1, 481, dtype=np.int16)
BLOCK_S = 0.02
KINDS = ["null", "wav", "stdout", "fifo", pytest.param("pyaudio", marks=pytest.mark.audio)]


@contextlib.contextmanager
def drained(path):
    """Somebody who reads the FIFO all the time."""
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    stop = threading.Event()

    def read():
        while not stop.wait(0.005):
            with contextlib.suppress(BlockingIOError):
                os.read(fd, 65_536)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        stop.set()
        reader.join()
        os.close(fd)


@pytest.fixture(params=KINDS)
def sink(request, tmp_path, monkeypatch):
    path = tmp_path / "sink"
    with contextlib.ExitStack() as stack:
        if request.param == "pyaudio":
            for name, value in stack.enter_context(soundcard.start_pulse(tmp_path)).env.items():
                monkeypatch.setenv(name, value)
        if request.param == "fifo":
            stack.enter_context(drained(path))
        if request.param == "stdout":
            out = stack.enter_context(path.open("wb"))
            monkeypatch.setattr("sys.stdout", out)
        sink = open_sink(AudioConfig(sink=request.param, path=str(path)))
        yield sink
        sink.close()


def test_close_is_idempotent_and_open_follows_close(sink):
    """Closing before opening or twice does no harm, and a closed sink can be opened again."""
    sink.close()
    for _ in range(2):
        sink.open()
        sink.write(BLOCK)
        sink.close()
        sink.close()


def test_samples_are_taken_in_real_time(sink):
    """A sink runs ahead of the clock by its latency at most, and says what that is and its name."""
    sink.open()
    assert 0 <= sink.latency_s < 0.5
    assert sink.name
    start, count = time.monotonic(), 25
    for _ in range(count):
        sink.write(BLOCK)
    took = time.monotonic() - start
    assert took >= count * BLOCK_S - sink.latency_s - 2 * BLOCK_S


def test_any_block_is_accepted_and_left_as_it_is(sink):
    """Blocks may be of any length and are only read; write returns nothing."""
    sink.open()
    for length in (1, 7, 480, 2400):
        block = np.resize(BLOCK, length)
        before = block.copy()
        assert sink.write(block) is None
        assert np.array_equal(block, before)


@pytest.mark.parametrize(
    "config",
    [
        {"sink": "wav", "path": "/proc/nowhere/x.wav"},
        {"sink": "fifo", "path": "/proc/nowhere/x.fifo"},
        pytest.param({"sink": "pyaudio", "device": "no such card"}, marks=pytest.mark.audio),
    ],
)
def test_a_sink_that_cannot_be_opened_says_so_and_may_be_asked_again(config):
    """open raises AudioError, in one line, each time, and close is still harmless."""
    sink = open_sink(AudioConfig(**config))
    for _ in range(2):
        with pytest.raises(AudioError) as caught:
            sink.open()
        assert "\n" not in str(caught.value)
        sink.close()
