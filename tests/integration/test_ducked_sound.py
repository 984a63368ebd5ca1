"""Ducking by a real PulseAudio, by commands of a real daemon, and by messages through a real broker."""

import contextlib
import shutil
import subprocess
import tempfile

import numpy as np
import pytest
from broker import Watcher, start_broker, wait_online
from daemon_process import NULL_CONFIG, mqtt_section, run_daemon
from soundcard import start_pulse, wait_until

from daemon.values import SAMPLE_RATE

PULSE_CONFIG = """
[audio]
sink = "pyaudio"
tail_ms = 0
[socket]
path = "{socket}"
[duck]
role = "announce"
"""
MUSIC, TONE = 6000, 2 * np.pi * 10_500 / SAMPLE_RATE
TEXT = "The washing machine has finished, and the dryer will be done in ten minutes."


@pytest.fixture
def pulse(tmp_path):
    """A PulseAudio that turns music down for announcements."""
    with start_pulse(tmp_path) as card:
        card.load("module-role-ducking", "trigger_roles=announce", "ducking_roles=music", "volume=50%")
        yield card


@pytest.mark.audio
def test_pulseaudio_turns_music_down_while_we_speak(pulse, tmp_path):
    """Our stream has its role; in the recording the music is down to an eighth with it, and back after it."""
    pulse.record()
    with play_music(pulse), run_daemon(tmp_path, PULSE_CONFIG, env=pulse.env) as daemon:
        wait_until(lambda: loudness(pulse) > 0.9)
        client = daemon.client()
        request_id = client.say(TEXT)
        client.wait_for("started", request_id)
        assert 'media.role = "announce"' in pulse.sink_inputs()
        wait_until(lambda: loudness(pulse) == pytest.approx(0.125, abs=0.02))
        client.wait_for("finished", request_id)
        wait_until(lambda: loudness(pulse) > 0.9)


@contextlib.contextmanager
def play_music(pulse):
    """A high tone, which no voice has, from a process of its own."""
    command = ["pacat", "--raw", "--rate=24000", "--channels=1", "--format=s16le", "--property=media.role=music"]
    tone = np.round(MUSIC * np.sin(TONE * np.arange(40 * SAMPLE_RATE))).astype(np.int16)
    with tempfile.TemporaryFile() as file:
        file.write(tone.tobytes())
        file.seek(0)
        music = subprocess.Popen(command, env=pulse.environment(), stdin=file)
    try:
        yield
    finally:
        music.kill()
        music.wait()


def loudness(pulse):
    """How loud the tone is in the latest 0.1 s of the recording; 1 is as loud as it is played."""
    latest = pulse.recording()[-SAMPLE_RATE // 10 :].astype(float)
    return 2 * abs(latest @ np.exp(1j * TONE * np.arange(len(latest)))) / max(len(latest), 1) / MUSIC


def test_commands_run_around_the_speech(tmp_path):
    """The start before the first sound, the end after the last of two announcements; again for the next."""
    notes = tmp_path / "notes"
    touch = shutil.which("sh")
    duck = "".join(f'{name} = ["{touch}", "-c", "echo {name} >>{notes}"]\n' for name in ("start", "end"))
    with run_daemon(tmp_path, NULL_CONFIG + "[duck]\nhold_ms = 300\n" + duck) as daemon:
        client = daemon.client()
        for request_id in [client.say("Yes."), client.say("No.")]:
            client.wait_for("finished", request_id)
        assert notes.read_text().split() == ["start"]
        wait_until(lambda: notes.read_text().split() == ["start", "end"])
        client.wait_for("started", client.say(TEXT))
        daemon.terminate()
        assert notes.read_text().split() == ["start", "end"] * 2


@pytest.mark.broker
def test_messages_go_out_and_the_end_does_so_at_shutdown_too(tmp_path):
    """Whoever dims an amplifier hears the end even if the daemon is stopped in mid-sentence."""
    broker = start_broker(tmp_path)
    with contextlib.ExitStack() as stack, Watcher(broker.port, "amp/dim") as watcher:
        stack.callback(broker.kill)
        config = NULL_CONFIG + mqtt_section(broker.port) + '[duck]\ntopic = "amp/dim"\nstart_payload = "dim"\n'
        with run_daemon(tmp_path, config) as daemon:
            client = daemon.client()
            wait_online(broker, "kitchen")
            client.wait_for("finished", client.say("Yes."))
            wait_until(lambda: [m.payload for m in watcher.messages] == [b"dim", b"OFF"])
            client.wait_for("started", client.say(TEXT))
            wait_until(lambda: len(watcher.messages) == 3)
            daemon.terminate()
        wait_until(lambda: [m.payload for m in watcher.messages] == [b"dim", b"OFF"] * 2)
