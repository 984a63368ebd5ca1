"""The sinks without a sound card, and what each does when its medium fails."""

import contextlib
import os
import resource
import subprocess
import sys
import threading
import time
import wave
from pathlib import Path

import numpy as np
import pytest

from daemon.audio import sink as sink_module
from daemon.audio.sink import FifoSink, NullSink, StdoutSink, WavSink, open_sink
from daemon.config_sections import AudioConfig
from daemon.errors import AudioError

BLOCK = np.arange(1, 481, dtype=np.int16)


def read_wav(path):
    with wave.open(str(path)) as wav:
        assert (wav.getframerate(), wav.getnchannels(), wav.getsampwidth()) == (24_000, 1, 2)
        return np.frombuffer(wav.readframes(wav.getnframes()), dtype=np.int16)


def write_many(sink, block):
    for _ in range(100):
        sink.write(block)


def test_the_factory_makes_what_the_config_asks_for(tmp_path):
    """Each name of [audio] sink gives its class, closed, and nothing but pyaudio loads PortAudio."""
    path = str(tmp_path / "x")
    for name, kind in (("wav", WavSink), ("fifo", FifoSink), ("null", NullSink)):
        assert isinstance(open_sink(AudioConfig(sink=name, path=path)), kind)
    assert not Path(path).exists()
    code = "import sys, daemon.audio.player; sys.exit('pyaudio' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_null_does_not_drift_and_forgets_a_pause():
    """Many small writes take as long as their samples, oversleeping included; a pause is not caught up."""
    sink = NullSink()
    start = time.monotonic()
    for _ in range(60):
        sink.write(BLOCK[:120])
    took = time.monotonic() - start
    assert took >= 60 * 120 / 24_000
    sink._pacer._due_s -= 10
    sink.write(BLOCK)
    assert sink._pacer._due_s >= time.monotonic() - 0.25


def test_wav_is_valid_after_every_block_and_goes_on_after_close(tmp_path):
    """One file over several openings; an older file of that name is begun anew."""
    path = tmp_path / "out.wav"
    path.write_bytes(b"something else that is longer than a header, by some margin")
    sink = WavSink(path)
    for count in range(1, 4):
        sink.open()
        sink.write(BLOCK)
        assert np.array_equal(read_wav(path), np.tile(BLOCK, count))
        sink.close()
    path.unlink()
    sink.open()
    sink.write(BLOCK)
    sink.close()
    assert np.array_equal(read_wav(path), BLOCK)


def test_wav_on_a_full_disk_stays_valid(tmp_path):
    """What does not fit is refused whole, with a reason; with room again it goes on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "out.wav"
    sink = WavSink(path)
    sink.open()
    resource.setrlimit(resource.RLIMIT_FSIZE, (44 + 2 * BLOCK.nbytes + 100, hard))
    try:
        sink.write(BLOCK)
        sink.write(BLOCK)
        with pytest.raises(AudioError, match=r"cannot write .*out.wav: File too large"):
            sink.write(BLOCK)
        sink.close()
        assert np.array_equal(read_wav(path), np.tile(BLOCK, 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    sink.open()
    sink.write(BLOCK)
    sink.close()
    assert np.array_equal(read_wav(path), np.tile(BLOCK, 3))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk of 16 kB")
def test_wav_on_a_disk_without_space_is_an_audio_error(tmp_path):
    """ENOSPC, from a real file system, leaves a valid file too."""
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(tmp_path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        sink, block = WavSink(tmp_path / "out.wav"), np.ones(2400, dtype=np.int16)
        sink.open()
        with pytest.raises(AudioError, match="No space left on device"):
            write_many(sink, block)
        sink.close()
        assert len(read_wav(tmp_path / "out.wav")) in (2400, 4800, 7200)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_wav_stops_at_what_its_header_can_say(tmp_path, monkeypatch):
    """Past 4 GiB (here: less) the sink refuses instead of writing a header that lies."""
    monkeypatch.setattr(sink_module, "_MAX_WAV_BYTES", 2 * BLOCK.nbytes)
    sink = WavSink(tmp_path / "out.wav")
    sink.open()
    sink.write(BLOCK)
    sink.write(BLOCK)
    with pytest.raises(AudioError, match="is full"):
        sink.write(BLOCK)
    sink.close()


def test_wav_that_cannot_be_made_is_an_audio_error(tmp_path):
    """A missing folder is named in one line."""
    sink = WavSink(tmp_path / "missing" / "out.wav")
    with pytest.raises(AudioError, match="No such file or directory"):
        sink.open()
    sink.close()


def test_stdout_is_raw_pcm_and_stays_open():
    """The bytes are the samples; close leaves the descriptor; a reader that has gone is an AudioError."""
    reader, writer = os.pipe()
    sink = StdoutSink(writer)
    for _ in range(2):
        sink.open()
        sink.write(BLOCK)
        sink.close()
    assert np.array_equal(np.frombuffer(os.read(reader, 4096), dtype=np.int16), np.tile(BLOCK, 2))
    os.close(reader)
    sink.open()
    with pytest.raises(AudioError, match="stdout: Broken pipe"):
        sink.write(BLOCK)
    os.close(writer)


def test_stdout_on_a_full_disk_is_an_audio_error():
    """/dev/full takes nothing."""
    fd = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(AudioError, match="No space left on device"):
        StdoutSink(fd).write(BLOCK)
    os.close(fd)


def test_a_reader_that_does_not_read_is_an_audio_error(monkeypatch):
    """A full pipe blocks for a moment, not for ever, even in blocking mode."""
    monkeypatch.setattr(sink_module, "_READER_WAIT_S", 0.05)
    reader, writer = os.pipe()
    sink = StdoutSink(writer)
    sink.open()
    with pytest.raises(AudioError, match="the reader does not read"):
        write_many(sink, BLOCK)
    os.close(reader)
    os.close(writer)


def test_fifo_survives_readers_coming_and_going(tmp_path, monkeypatch):
    """Made where missing; no reader, or one that leaves, is an AudioError; the next reader gets whole samples."""
    monkeypatch.setattr(sink_module, "_READER_WAIT_S", 0.05)
    path = tmp_path / "snap.fifo"
    sink = FifoSink(path)
    with pytest.raises(AudioError, match="nobody reads it"):
        sink.open()
    for _ in range(2):
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        sink.open()
        sink.write(BLOCK)
        assert np.array_equal(np.frombuffer(os.read(reader, 4096), dtype=np.int16), BLOCK)
        os.close(reader)
        with pytest.raises(AudioError, match="Broken pipe"):
            sink.write(BLOCK)
        sink.close()
    assert path.is_fifo()


def test_fifo_waits_a_moment_for_its_reader(tmp_path):
    """A reader that comes within the wait is found."""
    path = tmp_path / "snap.fifo"
    os.mkfifo(path)
    got = []
    reader = threading.Timer(0.1, lambda: got.append(path.read_bytes()))
    reader.start()
    sink = FifoSink(path)
    sink.open()
    sink.write(BLOCK)
    sink.close()
    reader.join()
    assert got == [BLOCK.tobytes()]


def test_fifo_finds_a_reader_that_looks_in_now_and_then(tmp_path):
    """As snapserver does: one that opens the FIFO ten times a second and stays only where there is a writer."""
    path = tmp_path / "snap.fifo"
    os.mkfifo(path)
    done = threading.Event()
    got = bytearray()

    def look_in():
        while not done.is_set():
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                while data := os.read(fd, 4096):
                    got.extend(data)
            except BlockingIOError:  # there is a writer
                while not done.wait(0.02):
                    with contextlib.suppress(BlockingIOError):
                        got.extend(os.read(fd, 4096))
            finally:
                os.close(fd)
            done.wait(0.1)

    reader = threading.Thread(target=look_in)
    reader.start()
    time.sleep(0.05)
    sink = FifoSink(path)
    try:
        sink.open()
        sink.write(BLOCK)
        time.sleep(0.1)
    finally:
        done.set()
        reader.join()
    sink.close()
    assert bytes(got) == BLOCK.tobytes()


def test_fifo_refuses_what_is_no_fifo(tmp_path):
    """A file of that name is not overwritten."""
    path = tmp_path / "precious"
    path.write_text("text")
    with pytest.raises(AudioError, match="no FIFO"):
        FifoSink(path).open()
    assert path.read_text() == "text"
