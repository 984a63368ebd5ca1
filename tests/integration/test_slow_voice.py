"""A voice that is slower than real time, heard in real time: the transformers of CSM at a thirtieth of their size, with
every frame made to take longer. What is counted are samples of the recording."""

import contextlib
import logging
import subprocess
import sys
import time

import numpy as np
import pytest
from daemon_process import HEADER_BYTES, ROOT
from service_scene import CONFIG, Running, request
from soundcard import contains

from daemon.audio.sink import WavSink
from daemon.config_sections import EngineConfig
from daemon.engine.engine import Engine
from daemon.values import SAMPLE_RATE, EventType

pytestmark = pytest.mark.engine

TEXT = "Dinner is ready, and the table is laid."
FRAME_S = 0.08


def small(folder, quant):
    """csm-small: noise that lasts as long as its text has letters."""
    command = [sys.executable, "-m", "quantize", "synthesize", "--shape", "csm-small", "--quant", quant]
    subprocess.run([*command, "--out", str(folder)], cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Of 8 bits."""
    return small(tmp_path_factory.mktemp("small") / "csm-small", "q8_0")


class Slow:
    """An engine whose frames take ``pace`` times their length, or as long as they take; a service that plays it."""

    def __init__(self, engine, tmp_path):
        self.engine, self.pace, self.frames, self.took_s = engine, 2.0, 0, 0.0
        self.change = {}
        """Frame of the utterance -> the pace from there on."""
        self._next_frames = engine._model.next_frames
        engine._model.next_frames = self._frame
        engine.rtf = self.pace
        self.wav = tmp_path / "out.wav"
        self.made = Running(engine, tmp_path, CONFIG, sink=WavSink(self.wav))

    def _frame(self, lanes):
        began = time.monotonic()
        self._next_frames(lanes)
        self.pace = self.change.get(self.frames, self.pace)
        self.frames += 1
        time.sleep(max(0.0, began + self.pace * FRAME_S - time.monotonic()))
        self.took_s += time.monotonic() - began

    def say(self, text=TEXT, name="a", **fields):
        """Speak; returns (reply, started event, finished event)."""
        self.frames, self.took_s = 0, 0.0
        reply = self.made.service.say(request(text, request_id=name, **fields))
        done = self.made.final(name)
        assert done.event_type is EventType.FINISHED
        return reply, self.made.wait(name, EventType.STARTED), done

    def close(self):
        self.made.service.close(drain_s=0)

    @property
    def recording(self):
        return np.frombuffer(self.wav.read_bytes()[HEADER_BYTES:], np.int16)


@pytest.fixture
def slow(bundle, tmp_path):
    """A running one."""
    with Engine(EngineConfig(bundle=str(bundle))) as engine:
        engine.self_test()
        scene = Slow(engine, tmp_path)
        with contextlib.closing(scene):
            yield scene


def speech(slow, text=TEXT):
    """What the text sounds like, made without a pause, one sentence after the other."""
    slow.engine._model.next_frames = slow._next_frames
    segmenter = slow.made.service._synthesizer.segmenter()
    session = slow.engine.session(segmenter, may_run_ahead=lambda: False)
    session.push_text(text)
    session.flush()
    pcm = []
    while (chunk := session.next_audio_chunk()) is not None:
        pcm.append(chunk.copy())
    return np.trim_zeros(np.concatenate(pcm))


def test_speech_at_half_of_real_time_is_heard_whole_and_the_wait_was_told(slow):
    """Not one sample is missing in the recording; it began when it was said that it would, not after all was made."""
    reply, started, done = slow.say()
    assert done.underrun_ms is None
    assert slow.made.metrics.snapshot()["underruns"] == 0
    recording, pcm = slow.recording, speech(slow)
    assert contains(recording, pcm)
    pace = slow.took_s / (slow.frames * FRAME_S)  # on a busy machine more than was to be expected
    assert started.wait_s == pytest.approx(reply.wait_s * (pace - 1) / (slow.pace - 1), rel=0.35)
    silent = int(np.flatnonzero(recording)[0])
    assert silent < 2 * len(pcm) - SAMPLE_RATE // 2


def test_a_machine_that_gets_slower_before_the_start_is_waited_for(slow):
    """From the tenth frame on every one takes twice as long: the start moves, and nothing is missing."""
    slow.pace, slow.change = 1.5, {10: 3.0}
    slow.engine.rtf = 1.5
    reply, started, done = slow.say()
    assert done.underrun_ms is None
    assert started.wait_s > reply.wait_s
    assert contains(slow.recording, speech(slow))


def test_what_starves_all_the_same_is_silent_once_and_says_so(slow, caplog):
    """Four times slower, when speech has begun: one silence of the length that event, log and metrics tell."""
    slow.pace, slow.change = 1.2, {22: 5.0}
    slow.engine.rtf = 1.2
    with caplog.at_level(logging.INFO, logger="daemon.speaking"):
        _, _, done = slow.say()
    recording, pcm = slow.recording, speech(slow)
    heard = np.flatnonzero(recording)
    silence = int(heard[-1] - heard[0] + 1) - len(pcm)
    assert done.underrun_ms == pytest.approx(1000 * silence / SAMPLE_RATE, abs=25)
    metrics = slow.made.metrics.snapshot()
    assert (metrics["underruns"], metrics["underrun_ms"]) == (1, done.underrun_ms)
    assert f"underrun_ms={done.underrun_ms:.0f}" in caplog.text
    middle = recording[heard[0] :]
    cut = int(np.argmax(middle[: len(pcm)] != pcm))
    assert np.array_equal(middle[:cut], pcm[:cut])
    assert np.array_equal(middle[cut + silence :][: len(pcm) - cut], pcm[cut:])


def test_sentences_are_made_together_until_they_are_heard(tmp_path):
    """A text of several is made in fewer steps than it has frames; not one sample is missing, nor is any another."""
    text = "Dinner is ready. The table is laid. Come in. It gets cold. There is soup. And bread."
    config = EngineConfig(bundle=str(small(tmp_path / "exact", "f32")), link_sentences=False, batch=4)
    with Engine(config) as engine:
        engine.self_test()
        scene = Slow(engine, tmp_path)
        with contextlib.closing(scene):
            _, _, done = scene.say(text)
            steps, recording, pcm = scene.frames, scene.recording, speech(scene, text)
    assert done.underrun_ms is None
    assert contains(recording, pcm)
    assert steps < 0.7 * len(pcm) / (FRAME_S * SAMPLE_RATE)
