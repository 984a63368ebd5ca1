"""The audio thread: commands from other threads, the heartbeat, the end."""

import threading
import time

import numpy as np
import pytest

from daemon.audio.player import Player
from daemon.audio.ring import PcmRing
from daemon.audio.sink import NullSink
from daemon.audio.utterance import PlayOutcome
from daemon.config_sections import AudioConfig

SPEECH = np.full(4800, 1000, dtype=np.int16)


class KeepingSink(NullSink):
    """The null sink, which keeps real time, with a memory."""

    def __init__(self):
        super().__init__()
        self.got, self.threads = [], set()

    def write(self, block):
        self.got.append(block.copy())
        self.threads.add(threading.current_thread().name)
        super().write(block)

    @property
    def speech(self):
        pcm = np.concatenate([np.zeros(0, dtype=np.int16), *self.got])
        return pcm[pcm != 0]


class Rig:
    def __init__(self):
        self.sink, self.ring, self.beats, self.done = KeepingSink(), PcmRing(24_000), 0, {}
        self.started, self.news = [], threading.Condition()
        self.player = Player(self.sink, self.ring, AudioConfig(sink="null", lead_ms=20, tail_ms=20), self, self.beat)

    def beat(self):
        self.beats += 1

    def on_started(self, utterance, time_s):
        with self.news:
            self.started.append((utterance, time_s))
            self.news.notify_all()

    def on_done(self, utterance, outcome, played_samples):
        with self.news:
            self.done[utterance] = (outcome, played_samples)
            self.news.notify_all()

    def on_audio_ok(self, _ok):
        raise AssertionError("the null sink does not fail")

    def wait(self, condition):
        with self.news:
            assert self.news.wait_for(condition, 10)


@pytest.fixture
def rig():
    rig = Rig()
    rig.player.start()
    yield rig
    assert rig.player.close(5)
    assert rig.player.close(0)  # a second time does no harm


def test_utterances_are_played_on_the_audio_thread(rig):
    """Two utterances written by another thread come out whole and in order, and are reported."""
    for name in ("a", "b"):
        rig.player.wake()
        before = time.monotonic()
        rig.player.begin(name)
        rig.ring.write(SPEECH, 1)
        rig.player.finish(name)
        rig.wait(lambda name=name: name in rig.done)
        assert rig.done[name] == (PlayOutcome.FINISHED, len(SPEECH))
        assert before <= rig.started[-1][1] <= time.monotonic()
    assert len(rig.sink.speech) == 2 * len(SPEECH)
    assert rig.sink.threads == {"audio"}
    assert rig.player.underrun_count == rig.player.underrun_samples == 0
    assert rig.player.latency_s == 0


def test_pause_resume_volume_and_cut_from_another_thread(rig):
    """Each is obeyed: nothing moves while paused, the new volume is heard, the cut ends it."""
    rig.player.set_volume(50)
    rig.player.pause()
    rig.player.begin("a")
    rig.ring.write(np.tile(SPEECH, 4), 1)
    rig.player.finish("a")
    time.sleep(0.05)
    assert rig.ring.available == 4 * len(SPEECH)
    rig.player.resume()
    rig.wait(lambda: rig.started)
    rig.player.cut("a")
    rig.wait(lambda: "a" in rig.done)
    outcome, played = rig.done["a"]
    assert outcome is PlayOutcome.CUT
    assert 0 < played < 4 * len(SPEECH)
    assert rig.sink.speech.max() == 125


def test_the_idle_thread_beats_and_sleeps(rig):
    """About one turn a second and no write: idling costs nothing."""
    time.sleep(0.3)
    assert 1 <= rig.beats <= 3
    assert rig.sink.got == []


def test_close_cuts_what_plays_and_reports_it():
    """Closing in the middle fades, reports the cut and ends the thread."""
    rig = Rig()
    rig.player.start()
    rig.player.begin("a")
    rig.ring.write(np.tile(SPEECH, 5), 1)
    rig.wait(lambda: rig.started)
    assert rig.player.close(5)
    assert rig.done["a"][0] is PlayOutcome.CUT
    assert rig.sink.speech[-1] < 100


def test_a_write_that_hangs_is_seen():
    """The heartbeat stops, and close says after its timeout that the thread is still there."""
    rig, writing, let_go = Rig(), threading.Event(), threading.Event()
    rig.sink.write = lambda _block: writing.set() or let_go.wait(10)
    rig.player.start()
    rig.player.wake()
    assert writing.wait(10)
    beats = rig.beats
    time.sleep(0.05)
    assert rig.beats == beats
    assert not rig.player.close(0.01)
    let_go.set()
    assert rig.player.close(5)


def test_a_bug_ends_the_thread_with_a_traceback(caplog):
    """What is not an AudioError is logged, the sink is closed, and the heartbeat stops."""
    rig = Rig()

    def write(block):
        raise ZeroDivisionError

    rig.sink.write = write
    rig.player.start()
    rig.player.wake()
    rig.player._thread.join(5)
    assert rig.player.close(0)
    assert "bug in the audio thread" in caplog.text
