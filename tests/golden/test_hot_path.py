"""From the model to the sound card: once warm, a frame leaves nothing behind and makes no array on its way."""

import gc
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from daemon.audio.playback import Playback
from daemon.audio.ring import PcmRing
from daemon.audio.utterance import Utterance
from daemon.config_sections import AudioConfig, EngineConfig
from daemon.engine.engine import Engine
from daemon.output import Output, Writer
from daemon.values import Segment

pytestmark = pytest.mark.engine

STARTER = Path(__file__).resolve().parents[2] / "models" / "starter"
TEXT = "the front door has been left open for ten minutes, and it is cold."
FRAMES = 500
WARM_UP = 200
ARRAY_BYTES = 2 * 480
"""The smallest array that could hold samples: a block, int16. numpy's own are counted by tracemalloc."""


class RepeatedSegment:
    """The same segment again and again, so that there are frames enough."""

    def push(self, text):
        return [Segment(text, 0)] * 160

    def flush(self):
        return []


class FixedSink:
    """Takes blocks as a sound card does that copies them at once."""

    def __init__(self):
        self.name, self.latency_s, self.samples = "fixed", 0.0, 0
        self._memory = np.zeros(4800, np.int16)

    def open(self):
        pass

    def write(self, block):
        self._memory[: len(block)] = block
        self.samples += len(block)

    def close(self):
        pass


class Listener:
    """Hears of the beginning and the end."""

    def on_started(self, utterance, time_s):
        pass

    def on_done(self, utterance, outcome, played_samples):
        pass

    def on_audio_ok(self, ok):
        pass


class Way:
    """The whole of it on one thread: every frame is made, written, and played in blocks."""

    def __init__(self, engine, *, volume):
        self.session = engine.session(RepeatedSegment())
        self.session.push_text(TEXT)
        self.session.flush()
        self.ring, self.sink = PcmRing(24_000), FixedSink()
        self.playback = Playback(self.sink, self.ring, AudioConfig(lead_ms=0, volume=volume), Listener())
        self.playback.begin(Utterance("a", 0))
        self.output = Output(self.session, Writer(self.ring), speed=1.0)

    def pass_frame(self):
        """One chunk from the model into the sink; whether it was inside a segment, neither its first nor its last."""
        chunk = self.session.next_audio_chunk()
        first = self.session.segment_samples == len(chunk)
        assert self.output.deliver(chunk)
        while self.ring.available:
            self.playback.step()
        return not first and not self.session.segment_ended


@pytest.fixture(scope="module")
def engine():
    """The starter voice."""
    with Engine(EngineConfig(bundle=str(STARTER))) as engine:
        yield engine


@pytest.mark.parametrize("volume", [100, 50])
def test_no_frame_makes_an_array_on_its_way(engine, volume):
    """tracemalloc's peak over every one of 500 frames stays below the smallest array of samples."""
    way, peaks = Way(engine, volume=volume), []
    tracemalloc.start()
    try:
        for _ in range(WARM_UP):
            way.pass_frame()
        while len(peaks) < FRAMES:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            inside = way.pass_frame()
            peak = tracemalloc.get_traced_memory()[1] - before
            if inside:
                peaks.append(peak)
    finally:
        tracemalloc.stop()
    assert way.sink.samples > (WARM_UP + FRAMES) * 1800
    assert max(peaks) < ARRAY_BYTES, sorted(peaks)[-10:]


def test_frames_leave_nothing_behind(engine):
    """After 500 frames and the segments they are of: no more than what free lists keep, which is none a frame.

    Free lists, onnxruntime's among them, take some hundred frames to fill, so the least of a few rounds counts.
    """
    way = Way(engine, volume=50)
    tracemalloc.start()
    try:
        rounds = [_growth(way) for _ in range(4)]
    finally:
        tracemalloc.stop()
    uncollected, blocks, grown = (min(each) for each in zip(*rounds, strict=True))
    assert uncollected <= 5, rounds
    assert blocks < FRAMES / 2, rounds
    assert grown < FRAMES * 24, rounds  # no object is smaller


def _growth(way):
    """Objects, memory blocks and bytes more after 500 frames, each time at the end of a segment."""
    while way.pass_frame():
        pass
    gc.collect()
    objects, blocks, memory = len(gc.get_objects()), sys.getallocatedblocks(), tracemalloc.get_traced_memory()[0]
    for _ in range(FRAMES):
        way.pass_frame()
    while way.pass_frame():
        pass
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - memory
    return len(gc.get_objects()) - objects, sys.getallocatedblocks() - blocks, grown
