"""A playback on a sink that remembers, for tests that count samples."""

import numpy as np

from daemon.audio.playback import Playback
from daemon.audio.ring import PcmRing
from daemon.audio.utterance import Utterance
from daemon.config_sections import AudioConfig
from daemon.errors import AudioError

BLOCK = 480
LEAD, TAIL, GAP, LATENCY = 5 * BLOCK, 5 * BLOCK, 13 * BLOCK, 4 * BLOCK  # 250 ms is 12.5 blocks


class MemorySink:
    """Keeps what it gets; fails when told to."""

    def __init__(self):
        self.name, self.latency_s = "memory", LATENCY / 24_000
        self.got, self.opened, self.closed, self.broken = [], 0, 0, False

    def open(self):
        if self.broken:
            raise AudioError("no such device")
        self.opened += 1

    def write(self, block):
        if self.broken:
            raise AudioError("unplugged")
        self.got.append(block.copy())

    def close(self):
        self.closed += 1

    @property
    def pcm(self):
        return np.concatenate(self.got) if self.got else np.zeros(0, dtype=np.int16)


class Rig:
    """A playback on a memory sink, and the calls a player makes."""

    def __init__(self, capacity=48_000, **config):
        self.sink, self.ring, self.events = MemorySink(), PcmRing(capacity), []
        self.playback = Playback(self.sink, self.ring, AudioConfig(**config), self)

    def on_started(self, utterance, _time_s):
        self.events.append(("started", utterance))

    def on_done(self, utterance, outcome, played_samples):
        self.events.append((utterance, outcome, played_samples))

    def on_audio_ok(self, ok):
        self.events.append(("ok", ok))

    def begin(self, name="a", pcm=None, *, finish=True, **options):
        self.playback.begin(Utterance(name, self.ring.total_written, **options))
        if pcm is not None:
            assert self.ring.write(pcm, 0) == len(pcm)
        if finish:
            self.playback.finish(name, self.ring.total_written)

    def cut(self, name="a"):
        self.playback.cut(name, self.ring.total_written)

    def steps(self, count):
        for _ in range(count):
            assert self.playback.step() == 0

    def rest(self):
        """Go on until there is nothing to do; return how many samples that wrote."""
        before = len(self.sink.pcm)
        for _ in range(10_000):
            if self.playback.step() > 0:
                return len(self.sink.pcm) - before
        raise AssertionError("never rests")


def speech(count, seed=1):
    """Nowhere zero, so that speech and silence can be told apart."""
    return np.random.default_rng(seed).integers(1, 20_000, count).astype(np.int16)
