"""Speed, pauses and loudness on the way from text to ring, with the starter voice."""

import threading
import time
import tracemalloc

import numpy as np
import pytest

from daemon.audio import tempo
from daemon.audio.ring import PcmRing
from daemon.config_sections import EngineConfig
from daemon.engine.engine import Engine
from daemon.errors import BadRequestError
from daemon.output import Output, Writer
from daemon.reading import ReadSegments
from daemon.synthesizer import Synthesizer
from daemon.text_source import TextSource
from daemon.values import Segment, SpeakRequest

pytestmark = pytest.mark.engine

FIRST, SECOND = "Dinner is ready.", "The front door has been left open."


@pytest.fixture(scope="module")
def engine():
    """The starter voice."""
    with Engine(EngineConfig()) as opened:
        yield opened


class Taken(PcmRing):
    """A ring that takes everything at once and keeps it."""

    def __init__(self):
        super().__init__(24_000 * 60)

    @property
    def pcm(self):
        """All that was written."""
        return self._buffer[: self.total_written].copy()


def speak(engine, text, *, speed=1.0, ring=None, seed=None, asked=None):
    """Synthesise into a ring; what it holds then, and the result. ``asked`` is the request's own speed."""
    ring = ring or Taken()
    spoken = Synthesizer(engine).speak(
        SpeakRequest(text=text, id="a", seed=seed, speed=asked),
        TextSource(text, more=False),
        Writer(ring),
        voice=None,
        speed=speed,
    )
    return (ring.pcm if isinstance(ring, Taken) else None), spoken


def pitches(pcm):
    """Hz of every voiced 40 ms of speech, by autocorrelation."""
    found = []
    for start in range(0, len(pcm) - 960, 480):
        frame = pcm[start : start + 960].astype(float)
        if np.abs(frame).mean() < 600:
            continue
        correlation = np.fft.irfft(np.abs(np.fft.rfft(frame - frame.mean(), 2048)) ** 2)
        lags = np.arange(24_000 // 350, 24_000 // 90)
        best = lags[np.argmax(correlation[lags])]
        if correlation[best] > 0.5 * correlation[0]:
            found.append(24_000 / best)
    return np.array(found)


@pytest.mark.parametrize("speed", [0.5, 0.75, 1.25, 2.0])
def test_speed_changes_the_length_and_not_the_pitch(engine, speed):
    """Each segment takes 1 / speed of its time, within 3 %; the median pitch of the voice stays, within 3 %."""
    text = f"{FIRST} {SECOND}"
    plain, _ = speak(engine, text)
    pcm, spoken = speak(engine, text, speed=speed)
    assert spoken.samples == len(pcm)
    assert len(plain) / len(pcm) == pytest.approx(speed, rel=0.03)
    assert np.median(pitches(pcm)) == pytest.approx(np.median(pitches(plain)), rel=0.03)


def test_segments_join_without_a_click(engine):
    """At another speed every sentence is what it is alone, and no step is larger than those of the voice itself."""
    plain, _ = speak(engine, f"{FIRST} {SECOND}")
    pcm, _ = speak(engine, f"{FIRST} {SECOND}", speed=1.5)
    alone = [speak(engine, text, speed=1.5)[0] for text in (FIRST, SECOND)]
    np.testing.assert_array_equal(pcm, np.concatenate(alone))
    joint = len(alone[0])
    around = np.abs(np.diff(pcm[joint - 2400 : joint + 2400].astype(int)))
    assert around.max() <= np.abs(np.diff(plain.astype(int))).max()
    assert abs(int(pcm[joint]) - int(pcm[joint - 1])) < 500


def test_full_ring_changes_no_sample(engine):
    """Written in whatever bits there is room for, the samples are the same."""
    whole, _ = speak(engine, f"{FIRST} {SECOND}", speed=1.25)
    ring, taken, block, done = PcmRing(1111), [], np.empty(333, np.int16), threading.Event()

    def play():
        while not done.is_set() or ring.available:
            count = ring.read_into(block)
            taken.append(block[:count].copy())
            time.sleep(0.0005)

    player = threading.Thread(target=play)
    player.start()
    speak(engine, f"{FIRST} {SECOND}", speed=1.25, ring=ring)
    done.set()
    player.join(10)
    np.testing.assert_array_equal(np.concatenate(taken), whole)


def test_a_pause_is_exact_silence_and_changes_nothing_else(engine):
    """Before, between and after sentences, at any speed as long as it says; the speech around it is the same."""
    parts = [speak(engine, text)[0] for text in (FIRST, SECOND)]
    pcm, spoken = speak(engine, f"{FIRST} [pause 1.5s] {SECOND}")
    np.testing.assert_array_equal(pcm, np.concatenate([parts[0], np.zeros(36_000, np.int16), parts[1]]))
    assert spoken.samples == len(pcm)
    fast = [speak(engine, text, speed=2.0)[0] for text in (FIRST, SECOND)]
    pcm, _ = speak(engine, f'<speak>{FIRST}<break time="700ms"/>{SECOND}</speak>', speed=2.0)
    np.testing.assert_array_equal(pcm, np.concatenate([fast[0], np.zeros(16_800, np.int16), fast[1]]))


def test_a_pause_does_not_count_as_a_segment_where_sampling_draws(engine, monkeypatch):
    """The second sentence is drawn with the same numbers, with and without a pause before it."""
    monkeypatch.setattr(engine, "_defaults", engine.sampling(temperature=0.8, depth_temperature=0.8))
    plain, _ = speak(engine, f"{FIRST} {SECOND}", seed=3)
    paused, _ = speak(engine, f"{FIRST} [pause 100ms] {SECOND}", seed=3)
    silence = len(paused) - len(plain)
    assert silence == 2400
    starts = [at for at in range(0, len(plain), 120) if np.array_equal(plain[at:], paused[at + silence :])]
    assert starts
    assert not paused[starts[0] : starts[0] + silence].any()


def test_pauses_come_in_frames_that_say_where_they_belong(engine):
    """No chunk of a pause is longer than a frame or has codes; the session counts it among its samples."""
    segments = (Segment("", 3, 0.1), Segment("dinner is ready.", 9), Segment("", 20, 0.2), Segment("", 21, 0.0))
    session = engine.session(ReadSegments(segments))
    session.flush()
    chunks, samples = [], 0
    while (chunk := session.next_audio_chunk()) is not None:
        assert len(chunk) <= 1920
        assert session.chunk.sample_offset == samples
        samples += len(chunk)
        chunks.append((session.chunk, len(chunk), bool(chunk.any())))
    assert session.finished
    assert session.num_samples == samples
    silent = [(each.text_offset, length, each.segment, each.frames) for each, length, heard in chunks if not heard]
    assert silent == [(3, 1920, -1, 0), (3, 480, -1, 0), (20, 1920, 0, 0), (20, 1920, 0, 0), (20, 960, 0, 0)]


def test_rate_and_volume_of_a_part(engine):
    """SSML's rate multiplies the request's speed; its volume scales the amplitude, and neither touches other parts."""
    plain = [speak(engine, text)[0] for text in (FIRST, SECOND)]
    pcm, _ = speak(engine, f'<speak><s>{FIRST}</s><prosody volume="50%"><s>{SECOND}</s></prosody></speak>')
    np.testing.assert_array_equal(pcm[: len(plain[0])], plain[0])
    assert np.abs(pcm[len(plain[0]) :] - plain[1] / 2).max() <= 1
    pcm, _ = speak(engine, f'<speak><prosody rate="200%"><s>{FIRST}</s></prosody><s>{SECOND}</s></speak>', speed=0.5)
    slow = speak(engine, SECOND, speed=0.5)[0]
    np.testing.assert_array_equal(pcm, np.concatenate([plain[0], slow]))


def test_estimate_reckons_with_speed_and_pauses(engine):
    """What is played twice as fast takes half the time; a pause takes what it says; pauses alone are nothing to say."""
    synthesizer = Synthesizer(engine)

    def audio_s(text, speed):
        return synthesizer.estimate(SpeakRequest(text=text, id="a"), voice=None, speed=speed).audio_s

    assert audio_s(FIRST, 2.0) == pytest.approx(audio_s(FIRST, 1.0) / 2)
    assert audio_s(f"{FIRST} [pause 2s]", 2.0) == pytest.approx(audio_s(FIRST, 2.0) + 2, abs=0.01)
    fast = synthesizer.estimate(SpeakRequest(text=FIRST, id="a"), voice=None, speed=2.0)
    assert fast.made_s == pytest.approx(2 * fast.audio_s)
    assert audio_s("[pause 2s]", 1.0) == 0
    assert audio_s("😀", 1.0) == 0


def test_bad_ssml_is_refused_before_anything_is_said(engine):
    """By the estimate and by the synthesis; text that is still open may lack its end."""
    request = SpeakRequest(text="<speak>Dinner is", id="a")
    with pytest.raises(BadRequestError, match="SSML"):
        Synthesizer(engine).estimate(request, voice=None, speed=1.0)
    assert Synthesizer(engine).estimate(request, voice=None, speed=1.0, more=True).audio_s == 0
    ring = Taken()
    with pytest.raises(BadRequestError, match="SSML"):
        speak(engine, request.text, ring=ring)
    assert ring.available == 0


def test_a_runaway_at_another_speed_takes_back_what_the_ring_got(engine, monkeypatch):
    """The ring holds the last attempt alone, which is as long as it is played, not as it was made."""
    limits = engine.bundle.manifest.limits.model_copy(update={"max_ratio": 0.5, "slack_s": 0.0, "min_ratio": 0.0})
    monkeypatch.setattr(engine._model, "_manifest", engine.bundle.manifest.model_copy(update={"limits": limits}))
    monkeypatch.setattr(engine, "_defaults", engine.sampling(temperature=0.8, depth_temperature=0.8))
    restarts = []
    original = engine._model.restart
    monkeypatch.setattr(engine._model, "restart", lambda *args: restarts.append(1) or original(*args))
    plain, _ = speak(engine, f"{FIRST} {FIRST}")
    restarts.clear()
    ring = Taken()
    pcm, spoken = speak(engine, f"{FIRST} {FIRST}", speed=1.5, ring=ring)
    assert len(restarts) == 4
    assert spoken.truncated
    assert ring.available == spoken.samples == len(pcm)
    assert len(plain) / len(pcm) == pytest.approx(1.5, rel=0.03)


@pytest.mark.parametrize("speed", [1.0, 1.5])
def test_frames_leave_nothing_behind(engine, speed):
    """Once a segment is under way, its frames hold no array on their way into the ring."""
    text = "the front door has been left open for ten minutes."

    def begin():
        session = engine.session(ReadSegments((Segment(text, 0),)))
        session.flush()
        return session, Output(session, Writer(PcmRing(24_000 * 60), lambda: False), speed=speed)

    tracemalloc.start()
    try:
        for _ in range(6):
            session, output = begin()
            with output:
                while (chunk := session.next_audio_chunk()) is not None:
                    output.deliver(chunk)
        session, output = begin()
        with output:
            output.deliver(session.next_audio_chunk())
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            for _ in range(15):
                output.deliver(session.next_audio_chunk())
            after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1000
    assert peak - before < 1920 * 2


@pytest.fixture
def no_sonic(monkeypatch):
    """A machine without libsonic."""
    monkeypatch.setattr(tempo, "_library", lambda: None)


@pytest.mark.usefixtures("no_sonic")
def test_without_libsonic_a_request_for_speed_is_refused(engine):
    """By name of what to install, when it is asked for and when it is set; speed 1 goes on."""
    synthesizer = Synthesizer(engine)
    message = "speed needs libsonic0: apt-get install libsonic0"
    request = SpeakRequest(text=FIRST, id="a", speed=1.5)
    with pytest.raises(BadRequestError, match=message):
        synthesizer.estimate(request, voice=None, speed=1.5)
    with pytest.raises(BadRequestError, match=message):
        synthesizer.check_speed(1.5)
    with pytest.raises(BadRequestError, match=message) as caught:
        speak(engine, FIRST, speed=1.5, asked=1.5)
    assert caught.value.code == "bad_request"
    synthesizer.check_speed(1.0)


@pytest.mark.usefixtures("no_sonic")
def test_without_libsonic_what_was_set_or_marked_up_is_spoken_plainly(engine):
    """A speed that was set before the library went, or SSML's rate, never makes an announcement fail."""
    plain, _ = speak(engine, FIRST)
    np.testing.assert_array_equal(speak(engine, FIRST, speed=1.5)[0], plain)
    np.testing.assert_array_equal(speak(engine, f'<speak><prosody rate="fast">{FIRST}</prosody></speak>')[0], plain)
