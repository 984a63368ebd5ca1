"""A service in this process: queue, synth thread and player with the real voice and a sink that plays at once."""

import contextlib
import threading
import time

import numpy as np

from daemon.config import Config
from daemon.config_sections import AudioConfig, EngineConfig, TextConfig
from daemon.engine.engine import Engine
from daemon.errors import AudioError
from daemon.metrics import Metrics
from daemon.service import Service
from daemon.values import SpeakRequest

CONFIG = Config(audio=AudioConfig(lead_ms=0, tail_ms=0, gap_ms=0, device_wait_s=0.2), text=TextConfig(max_chars=300))


class QuickSink:
    """Takes everything at four times real time, as the voice can on a busy machine too; can fail, or wait."""

    name = "quick"
    latency_s = 0.0

    def __init__(self):
        self.blocks = []
        self.broken = False
        self.gate = threading.Event()
        self.gate.set()

    def open(self):
        if self.broken:
            raise AudioError("unplugged")

    def write(self, block):
        self.gate.wait(10)
        if self.broken:
            raise AudioError("unplugged")
        self.blocks.append(block.copy())
        time.sleep(0.005)

    def close(self):
        pass

    def heard(self):
        return np.concatenate(self.blocks) if self.blocks else np.zeros(0, np.int16)


class Running:
    """A service with its sink and everything it told."""

    def __init__(self, engine, tmp_path, config=CONFIG, phrases=None, sink=None):
        self.sink = sink or QuickSink()
        self.events, self.states = [], []
        self.metrics = Metrics()
        self._news = threading.Condition()
        self.service = Service(
            config,
            engine,
            self.sink,
            settings_path=tmp_path / "settings.json",
            phrases=phrases,
            metrics=self.metrics,
            beat=lambda _name: None,
        )
        self.service.listen(self._on_event, self._on_state)
        self.service.start()

    def _on_event(self, event):
        with self._news:
            self.events.append(event)
            self._news.notify_all()

    def _on_state(self, state):
        with self._news:
            self.states.append(state)
            self._news.notify_all()

    def wait(self, request_id, kind):
        """Wait for an event of a request."""
        with self._news:

            def find():
                return next((e for e in self.events if e.id == request_id and e.event_type is kind), None)

            assert self._news.wait_for(find, 20), self.events
            return find()

    def final(self, request_id):
        """Wait for the final event of a request."""
        with self._news:

            def find():
                return next((e for e in self.events if e.id == request_id and e.event_type.final), None)

            assert self._news.wait_for(find, 20), self.events
            return find()


def request(text="Dinner is ready.", request_id="a", **fields):
    """A request to say something."""
    return SpeakRequest(text=text, id=request_id, **fields)


@contextlib.contextmanager
def open_engine():
    """The starter voice, warm."""
    with Engine(EngineConfig()) as engine:
        engine.self_test()
        yield engine


@contextlib.contextmanager
def run_service(engine, tmp_path, config=CONFIG, phrases=None):
    """A running service, closed at the end."""
    made = Running(engine, tmp_path, config, phrases)
    try:
        yield made
    finally:
        made.sink.gate.set()
        made.service.close(drain_s=0)
