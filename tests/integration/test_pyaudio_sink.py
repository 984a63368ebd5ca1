"""PyAudio against a real PulseAudio daemon, and against ALSA's file device: what is played is what was in the ring."""

import os
import threading

import numpy as np
import pyaudio
import pytest
import soundcard
from soundcard import contains, wait_until

from daemon.audio import pyaudio_sink
from daemon.audio.player import Player
from daemon.audio.pyaudio_sink import PyAudioSink, list_devices
from daemon.audio.ring import PcmRing
from daemon.audio.utterance import PlayOutcome
from daemon.config_sections import AudioConfig
from daemon.errors import AudioError
from daemon.native_noise import quiet_stderr
from daemon.values import SAMPLE_RATE

pytestmark = pytest.mark.audio

CONFIG = AudioConfig()


class Listener:
    def __init__(self):
        self.events = []
        self.done = threading.Event()

    def on_started(self, utterance, _time_s):
        self.events.append(("started", utterance))

    def on_done(self, utterance, outcome, played_samples):
        self.events.append((outcome, utterance, played_samples))
        self.done.set()

    def on_audio_ok(self, ok):
        self.events.append(("ok", ok))


def use(monkeypatch, card):
    for name, value in card.env.items():
        monkeypatch.setenv(name, value)
    return card


@pytest.fixture
def pulse(tmp_path, monkeypatch):
    with soundcard.start_pulse(tmp_path) as card:
        yield use(monkeypatch, card)


@pytest.fixture
def fifo_card(tmp_path, monkeypatch):
    card = soundcard.FifoCard(tmp_path)
    try:
        yield use(monkeypatch, card)
    finally:
        card.close()


def noise(seconds, seed=1):
    """Speech that is nowhere silent: a lost sample at either end would show."""
    samples = np.random.default_rng(seed).integers(1, 12_000, int(seconds * SAMPLE_RATE))
    return samples.astype(np.int16)


@pytest.fixture
def player():
    ring = PcmRing(4 * SAMPLE_RATE)
    listener = Listener()
    player = Player(PyAudioSink("", 480), ring, CONFIG, listener, lambda: None)
    player.ring, player.listener = ring, listener
    player.start()
    yield player
    assert player.close(5)


def play(player, name, pcm):
    player.listener.done.clear()
    player.begin(name)
    assert player.ring.write(pcm, 1) == len(pcm)
    player.finish(name)


@pytest.mark.parametrize("seconds", [0.9137, 0.03])
def test_pulseaudio_gets_every_sample_of_every_utterance(pulse, player, seconds):
    """The recording holds each utterance bit for bit, its first and last 50 ms included, also on a reopened device."""
    pulse.record()
    spoken = [noise(seconds, seed) for seed in range(2)]
    for index, pcm in enumerate(spoken):
        play(player, str(index), pcm)
        assert player.listener.done.wait(10)
        wait_until(lambda: not player._playback.device.is_open)  # the tail is over: the second one opens it again
    wait_until(lambda: contains(pulse.recording(), spoken[1]) >= 0)
    assert 0 <= contains(pulse.recording(), spoken[0]) < contains(pulse.recording(), spoken[1])
    assert player.underrun_count == 0


def test_alsa_file_device_gets_every_sample(fifo_card, player):
    """Without any sound server the same holds, and lead and tail silence surround the speech."""
    pcm = noise(0.5)
    play(player, "a", pcm)
    assert player.listener.done.wait(10)
    start = wait_until(lambda: max(0, contains(fifo_card.recording(), pcm)))
    recording = fifo_card.recording()
    assert start >= CONFIG.lead_ms * SAMPLE_RATE // 1000
    assert not recording[:start].any()
    assert not recording[start + len(pcm) :].any()


@pytest.mark.parametrize("allowed", [48_000, 44_100])
def test_a_card_that_refuses_24_khz_is_fed_resampled(fifo_card, player, monkeypatch, caplog, allowed):
    """The next rate is tried, the log says so once, and the speech keeps its length, its pitch and its end."""
    opened = pyaudio.PyAudio.open

    def picky(self, *, rate, **options):
        if rate != allowed:
            raise OSError(-9997, "Invalid sample rate")
        return opened(self, rate=rate, **options)

    monkeypatch.setattr(pyaudio.PyAudio, "open", picky)
    caplog.set_level("INFO")
    seconds = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    play(player, "a", (8000 * np.sin(2 * np.pi * 500 * seconds)).astype(np.int16))
    assert player.listener.done.wait(10)
    wait_until(lambda: not player._playback.device.is_open)
    recording = fifo_card.recording()
    loud = np.flatnonzero(np.abs(recording.astype(int)) > 2000)
    heard = recording[loud[0] : loud[-1] + 1]
    assert abs(len(heard) - SAMPLE_RATE) < 60
    spectrum = np.abs(np.fft.rfft(heard))
    assert abs(spectrum.argmax() * SAMPLE_RATE / len(heard) - 500) < 2
    assert f"rate={allowed}" in caplog.text


def test_a_card_that_takes_no_rate_is_an_audio_error(fifo_card, monkeypatch):
    """The message names the device and what helps."""

    def refuse(self, **_options):
        raise OSError(-9997, "Invalid sample rate")

    monkeypatch.setattr(pyaudio.PyAudio, "open", refuse)
    with pytest.raises(AudioError, match="takes none of"):
        PyAudioSink("speaker", 480).open()


def test_a_killed_sound_server_is_found_again(pulse, player):
    """An utterance whose sound server dies goes on when it is back: only what the device held is lost."""
    pcm = noise(3.0)
    play(player, "a", pcm)
    wait_until(lambda: ("started", "a") in player.listener.events)
    pulse.kill()
    wait_until(lambda: ("ok", False) in player.listener.events)
    pulse.restart()
    pulse.record()
    assert player.listener.done.wait(20)
    assert player.listener.events[-1] == (PlayOutcome.FINISHED, "a", len(pcm))
    assert ("ok", True) in player.listener.events
    wait_until(lambda: contains(pulse.recording(), pcm[-SAMPLE_RATE // 4 :]) >= 0)


def test_cut_is_silent_within_150_ms(pulse, player):
    """After a cut at most 150 ms more of the utterance are recorded, faded at their end."""
    pulse.record()
    pcm = noise(3.0)
    play(player, "a", pcm)
    wait_until(lambda: contains(pulse.recording(), pcm[:480]) >= 0)
    heard = np.count_nonzero(pulse.recording())
    player.cut("a")
    assert player.listener.done.wait(5)
    wait_until(lambda: not player._playback.device.is_open)
    outcome, _, played = player.listener.events[-1]
    assert outcome is PlayOutcome.CUT
    assert contains(pulse.recording(), pcm[: played - 120]) >= 0
    # 80 ms in the device, 20 ms under way, 5 ms of fade; the recorder itself runs some 50 ms behind what is heard.
    assert played - heard < SAMPLE_RATE // 4


def test_no_device_is_an_audio_error_that_says_what_there_is(pulse):
    """An unknown name fails with the list of devices; part of a name in any case, or a number, finds one."""
    with pytest.raises(AudioError, match=r"no sound device kitchen; there is 0: "):
        PyAudioSink("kitchen", 480).open()
    names = {device.name: device for device in list_devices()}
    for wanted in ("SPEAK", str(names["speaker"].index)):
        sink = PyAudioSink(wanted, 480)
        sink.open()
        assert 0.06 <= sink.latency_s <= 0.1
        sink.close()
        sink.close()


def test_no_device_at_all_is_an_audio_error(pulse):
    """Without the sound server there is no device: open fails with one line, and works when it is back."""
    sink = PyAudioSink("", 480)
    pulse.kill()
    for _ in range(2):
        with pytest.raises(AudioError, match="none at all"):
            sink.open()
    assert list_devices() == []
    pulse.restart()
    sink.open()
    sink.close()


def test_stderr_of_the_libraries_is_kept_back_and_ours_is_not(pulse, capfd):
    """Opening prints nothing, and what another thread writes to file descriptor 2 meanwhile still comes out."""
    with quiet_stderr():
        os.write(2, b"ALSA lib confmisc.c: noise\nours\n")
    sink = PyAudioSink("", 480)
    sink.open()
    sink.close()
    assert capfd.readouterr().err == "ours\n"


_STEREO_ALSA = """
pcm.speaker {{ type file slave.pcm {{ type null }} file "{raw}" format "raw" }}
pcm.card {{
  type multi
  slaves.a {{ pcm speaker channels 2 }}
  bindings.0 {{ slave a channel 0 }}
  bindings.1 {{ slave a channel 1 }}
}}
pcm.!default {{ type plug slave.pcm speaker }}
"""


def test_a_card_without_a_mixer_gets_speech_on_both_channels(tmp_path, monkeypatch):
    """One that takes two channels only is told from a plugin; both channels then carry every sample."""
    raw = tmp_path / "out.raw"
    (tmp_path / "asound.conf").write_text(_STEREO_ALSA.format(raw=raw))
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(tmp_path / "asound.conf"))
    direct = {info.name: pyaudio_sink._is_direct(info) for info in list_devices()}
    assert direct == {"speaker": False, "card": True, "default": False}
    # PortAudio shifts the channels of ALSA's multi plugin, so the file stands for a card here.
    monkeypatch.setattr(pyaudio_sink, "_DIRECT_CHANNELS", range(2, 1000))
    pcm = np.random.default_rng(0).integers(-9000, 9000, 4800).astype(np.int16)
    sink = PyAudioSink("speaker", 480)
    sink.open()
    for start in range(0, len(pcm), 480):
        sink.write(pcm[start : start + 480])
    sink.write(np.zeros(9600, np.int16))
    sink.close()
    played = np.frombuffer(raw.read_bytes(), np.int16).reshape(-1, 2)
    assert contains(np.ascontiguousarray(played[:, 0]), pcm) >= 0
    assert contains(np.ascontiguousarray(played[:, 1]), pcm) >= 0
