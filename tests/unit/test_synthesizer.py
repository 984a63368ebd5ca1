"""From text to ring: runaways, cancellation, back-pressure, the profile line."""

import json
import logging
import threading
import time

import numpy as np
import pytest

from daemon import speech as module
from daemon.audio.ring import PcmRing
from daemon.config_sections import EngineConfig
from daemon.engine.engine import Engine
from daemon.errors import BadRequestError
from daemon.output import Writer
from daemon.synthesizer import Synthesizer
from daemon.text_source import TextSource
from daemon.values import SpeakRequest

pytestmark = pytest.mark.engine


@pytest.fixture
def engine():
    """The starter voice."""
    with Engine(EngineConfig()) as opened:
        yield opened


def speak(engine, ring, text="Dinner is ready.", *, source=None, cancelled=lambda: False, profile=False):
    """Synthesise into the ring."""
    return Synthesizer(engine, profile=profile).speak(
        SpeakRequest(text=text, id="a"),
        source or TextSource(text, more=False),
        Writer(ring, cancelled),
        voice=None,
        speed=1.0,
    )


@pytest.fixture
def runaway(engine, monkeypatch):
    """The voice with sampling that draws, and limits so tight that every segment runs away."""
    limits = engine.bundle.manifest.limits.model_copy(update={"max_ratio": 0.5, "slack_s": 0.0, "min_ratio": 0.0})
    monkeypatch.setattr(engine._model, "_manifest", engine.bundle.manifest.model_copy(update={"limits": limits}))
    monkeypatch.setattr(engine, "_defaults", engine.sampling(temperature=0.8, depth_temperature=0.8))
    starts = []
    for name in ("start", "restart"):
        original = getattr(engine._model, name)
        monkeypatch.setattr(engine._model, name, lambda *args, call=original: starts.append(1) or call(*args))
    return starts


def test_an_unheard_runaway_is_tried_again(engine, runaway):
    """Two more seeds are tried; the ring holds only the last attempt, and the result says truncated."""
    ring = PcmRing(24_000 * 10)
    spoken = speak(engine, ring)
    assert len(runaway) == 1 + module.MAX_RETRIES
    assert spoken.truncated
    assert ring.available == spoken.samples


def test_a_runaway_that_was_heard_is_not_taken_back(engine, runaway):
    """Once a sample of it has been read, the cut stands."""

    class Heard(PcmRing):
        def unwrite(self, count):
            self.read_into(np.zeros(1, np.int16))
            return super().unwrite(count)

    spoken = speak(engine, Heard(24_000 * 10))
    assert len(runaway) == 1
    assert spoken.truncated


def test_a_greedy_runaway_is_not_tried_again(engine, runaway, monkeypatch):
    """The same codes would come again."""
    monkeypatch.setattr(engine, "_defaults", engine.sampling(temperature=0.0, depth_temperature=0.0))
    assert speak(engine, PcmRing(24_000 * 10)).truncated
    assert len(runaway) == 1


def test_a_full_ring_holds_synthesis_back_and_a_cancel_ends_the_wait(engine):
    """Nothing is lost or overwritten; cancelled while waiting, it comes back at once."""
    ring, cancel = PcmRing(4000), threading.Event()
    result = []
    worker = threading.Thread(target=lambda: result.append(speak(engine, ring, cancelled=cancel.is_set)))
    worker.start()
    end = time.monotonic() + 10
    while ring.free:
        assert time.monotonic() < end
        time.sleep(0.01)
    cancel.set()
    worker.join(10)
    assert not worker.is_alive()
    assert ring.available == 4000


def test_text_left_open_is_taken_as_ended(engine, monkeypatch):
    """A client that never says end does not hold the speaker for ever."""
    monkeypatch.setattr(module, "OPEN_TEXT_TIMEOUT_S", 0.4)
    source = TextSource("Dinner is ready", more=True)
    ring = PcmRing(24_000 * 10)
    assert speak(engine, ring, source=source).samples > 24_000 // 2
    with pytest.raises(BadRequestError, match="has ended"):
        source.append("more", 100)


def test_the_profile_is_a_json_line(engine, caplog):
    """Stages in milliseconds, and one number a chunk; the text is not in it."""
    with caplog.at_level(logging.INFO):
        spoken = speak(engine, PcmRing(24_000 * 10), profile=True)
    line = next(r.getMessage() for r in caplog.records if r.getMessage().startswith("profile "))
    profile = json.loads(line.removeprefix("profile "))
    assert {"id", "prefill", "backbone", "depth", "heads", "sampling", "codec", "frames_ms"} == profile.keys()
    assert len(profile["frames_ms"]) == spoken.samples // 1920 + 1
    assert "inner" not in line
