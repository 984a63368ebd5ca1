"""The engine in this process: texts spoken frame by frame, with what every frame and stage took."""

from dataclasses import dataclass, field, fields
from time import perf_counter

from daemon.bandwidth import BandwidthMeter
from daemon.bench.texts import TEXTS
from daemon.engine.engine import Engine
from daemon.engine.frames import StageTimes
from daemon.engine.native_time import NATIVE
from daemon.synthesizer import Synthesizer
from daemon.values import SAMPLE_RATE

STAGES = tuple(entry.name for entry in fields(StageTimes) if entry.name != "frames")
TEXT_S = 10.0
"""A text is cut after so long: a voice that is slower than real time, or does not end, is measured in a minute too."""
TOTAL_S = 30.0
"""After so long no other text is begun."""


@dataclass(slots=True)
class Frames:
    """Frames of speech, each from one call to the next; the first of a segment is told apart, it reads the text too."""

    seconds: list[float] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds in each stage, of all of them together."""
    native_s: float = 0.0
    """Seconds in llama.cpp and onnxruntime, likewise."""

    def add(self, seconds: float, native_s: float, before: dict[str, float], after: dict[str, float]) -> None:
        """One frame, with the stages' counters before and after it."""
        self.seconds.append(seconds)
        self.native_s += native_s
        for name, value in after.items():
            self.stages[name] = self.stages.get(name, 0.0) + value - before[name]


@dataclass(slots=True)
class Spoken:
    """One text."""

    text: str
    synthesis_s: float = 0.0
    audio_s: float = 0.0
    first_audio_s: float = 0.0
    frames: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds in each stage."""
    cut: bool = False


@dataclass(slots=True)
class Speech:
    """All texts."""

    texts: list[Spoken] = field(default_factory=list)
    steady: Frames = field(default_factory=Frames)
    """The frames that are not the first of their segment."""


def speak_all(engine: Engine, meter: BandwidthMeter, rounds: int) -> Speech:
    """Speak the texts ``rounds`` times, or for ``TOTAL_S``; the memory is measured after each.

    Machines that share their memory with others drift by a third within minutes: only a bandwidth measured in between
    can be compared with.
    """
    synthesizer, speech = Synthesizer(engine, profile=False), Speech()
    meter.measure()
    began = perf_counter()
    for text in TEXTS * rounds:
        if speech.texts and perf_counter() - began > TOTAL_S:
            break
        speech.texts.append(_speak(engine, synthesizer, text, speech.steady))
        meter.measure()
    return speech


def _speak(engine: Engine, synthesizer: Synthesizer, text: str, steady: Frames) -> Spoken:
    spoken, segment = Spoken(text), -1
    engine.reset_times()
    mark = perf_counter()
    session = engine.session(synthesizer.segmenter())
    session.push_text(text)
    session.flush()
    spoken.synthesis_s = perf_counter() - mark
    while not spoken.cut:
        before, native_s = _counters(engine), NATIVE.seconds
        mark = perf_counter()
        chunk = session.next_audio_chunk()
        seconds, native_s = perf_counter() - mark, NATIVE.seconds - native_s
        spoken.synthesis_s += seconds
        if chunk is None:
            break
        spoken.first_audio_s = spoken.first_audio_s or spoken.synthesis_s
        if session.chunk.frames:
            if session.chunk.segment == segment:
                steady.add(seconds, native_s, before, _counters(engine))
            segment = session.chunk.segment
        spoken.cut = spoken.synthesis_s > TEXT_S
    spoken.audio_s = session.num_samples / SAMPLE_RATE
    spoken.frames = engine.times.frames
    spoken.stages = _counters(engine)
    return spoken


def _counters(engine: Engine) -> dict[str, float]:
    """Seconds in each stage so far."""
    times = engine.times
    return {name: getattr(times, name) for name in STAGES}
