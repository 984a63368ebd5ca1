"""A player's voice, with renderers that do as a test says and a local voice that only remembers."""

import contextlib
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pytest

from daemon import remote
from daemon.audio.ring import PcmRing
from daemon.errors import BadRequestError, RemoteError
from daemon.inputs.render_messages import BUSY, NOBODY, AudioPart
from daemon.inputs.render_player import Answer
from daemon.metrics import Metrics
from daemon.output import Writer
from daemon.remote import MAX_PIECE_S, PIECE_CHARS, RemoteSynthesizer
from daemon.speech import Spoken
from daemon.synthesizer import Estimate
from daemon.text_source import TextSource
from daemon.values import SAMPLE_RATE, SpeakRequest, VoiceInfo

SENTENCE = "The quick brown fox jumps over the lazy dog near the river bank."


class Voices:
    """One voice, in English."""

    def get(self, name, language=None):
        if name not in (None, "slt") or language not in (None, "en"):
            raise BadRequestError("unknown_voice", "no such voice")
        return VoiceInfo(name="slt", description="", language="en", default=True)


@dataclass
class Local:
    """Remembers what it was to say; expects a second of speech for each sentence."""

    said: list = field(default_factory=list)
    piece_s: float = 1.0

    def estimate(self, _request, *, voice, speed):
        assert (voice in (None, "slt"), speed) == (True, 1.0)
        return Estimate(self.piece_s)

    def speak(self, _request, source, writer, *, voice, speed):
        assert speed == 1.0
        self.said.append((source.text, voice))
        writer.write(np.full(10, 7, np.int16))
        return Spoken(samples=10)


@dataclass
class Renderers:
    """Answers each job with the next of ``answers``: the parts, or None for no connection."""

    answers: deque
    reachable: bool = True
    arrivals: int = 1
    asked: list = field(default_factory=list)
    cancelled: int = 0

    def ask(self, request, *, heard_samples):
        self.asked.append((request, heard_samples))
        parts = self.answers.popleft() if self.answers else []
        if parts is None:
            return None
        answer = Answer(self._closed)
        for part in parts:
            answer.put(part)
        return answer

    def _closed(self, ended):
        self.cancelled += not ended


def tone(count, start=0):
    """Samples that tell where they belong."""
    return (np.arange(count) + start + 1).astype(np.int16)


def parts(*pcm, end=True, rtf=0.0):
    """An answer."""
    return [AudioPart(seq=seq, pcm=each, end=end and seq == len(pcm) - 1, rtf=rtf) for seq, each in enumerate(pcm)]


class Scene:
    """One RemoteSynthesizer and its ring, with nobody reading."""

    def __init__(self, *answers, **renderers):
        self.local, self.metrics = Local(), Metrics()
        self.renderers = Renderers(deque(answers), **renderers)
        self.ring = PcmRing(SAMPLE_RATE * 30)
        self.remote = RemoteSynthesizer(self.local, Voices(), self.renderers, wait_s=0.1, metrics=self.metrics)
        self.first = []
        self.cancelled = lambda: False

    def speak(self, text=SENTENCE, *, more=False, voice=None, **fields):
        request = SpeakRequest(text=text, id="x", **fields)
        source = TextSource(text, more=more)
        writer = Writer(self.ring, self.cancelled, on_first_sample=self.first.append)
        return self.remote.speak(request, source, writer, voice=voice, speed=1.0)

    @property
    def heard(self):
        block = np.zeros(self.ring.available, np.int16)
        self.ring.read_into(block)
        return block

    @property
    def counted(self):
        snapshot = self.metrics.snapshot()
        return snapshot["remote_jobs"], snapshot["remote_fallbacks"]


class HeardAtOnce(PcmRing):
    """A ring that cannot be taken back from."""

    def unwrite(self, count):
        return count == 0


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A renderer that is silent is soon given up."""
    monkeypatch.setattr(remote, "_STALL_S", 0.05)
    monkeypatch.setattr(remote, "_RECOVER_S", 0.05)


def test_a_renderers_speech_goes_to_the_ring():
    """All of it, in order, told as first heard once; nothing is left to the local voice."""
    scene = Scene(parts(tone(12_000), tone(12_000, 12_000)))
    spoken = scene.speak(voice="slt", seed=3)
    assert (spoken.samples, spoken.remote, spoken.rtf) == (24_000, True, None)
    assert np.array_equal(scene.heard, tone(24_000))
    assert len(scene.first) == 1
    request, heard = scene.renderers.asked[0]
    assert (request.text, request.voice, request.seed, request.speed, heard) == (SENTENCE, "slt", 3, 1.0, 0)
    assert (scene.local.said, scene.counted) == ([], (1, 0))


def test_long_texts_are_asked_for_in_pieces():
    """Whole sentences, in order, none too long; what no renderer says any more is the local voice's."""
    text = " ".join([SENTENCE] * 25)
    scene = Scene(parts(tone(10)), parts(tone(10, 10)), None)
    scene.speak(text)
    asked = [request.text for request, _ in scene.renderers.asked]
    assert len(asked) == 3
    assert all(len(piece) <= PIECE_CHARS and piece.endswith(".") for piece in asked)
    (rest, voice), *more = scene.local.said
    assert (" ".join([*asked[:2], rest]), voice, more) == (text, None, [])
    assert np.array_equal(scene.heard, np.concatenate([tone(20), np.full(10, 7)]))
    assert len(scene.first) == 1
    assert scene.counted == (0, 1)


@pytest.mark.parametrize("fields", [{"more": True}, {"context": ("earlier",)}])
def test_what_cannot_be_sent_whole_is_spoken_here(fields):
    """Open texts and those with a context; nobody is asked, nothing is counted."""
    scene = Scene(parts(tone(10)))
    scene.speak(**fields)
    assert (scene.renderers.asked, scene.counted) == ([], (0, 0))
    assert scene.local.said == [(SENTENCE, None)]


def test_a_piece_that_would_be_too_long_is_spoken_here():
    """Pauses can make any text as long as they like."""
    scene = Scene(parts(tone(10)))
    scene.local.piece_s = MAX_PIECE_S + 1
    scene.speak()
    assert (scene.renderers.asked, len(scene.local.said)) == ([], 1)


@pytest.mark.parametrize(
    "answer", [None, [], [AudioPart(seq=0, error="engine")], [AudioPart(seq=1)], [AudioPart(seq=0, pcm=tone(5))]]
)
def test_the_local_voice_takes_over(answer):
    """No connection, silence, an error, a part missing, or an end while all of it can still be taken back."""
    scene = Scene(answer, answer)
    scene.speak(voice="aunt")
    assert scene.local.said == [(SENTENCE, None)]
    assert np.array_equal(scene.heard, np.full(10, 7))


def test_silence_is_remembered_until_a_renderer_comes():
    """Nobody is asked a second time in vain, but at once when there is news."""
    scene = Scene([], parts(tone(10)))
    scene.speak()
    scene.speak()
    assert len(scene.renderers.asked) == 1
    scene.renderers.arrivals += 1
    scene.speak()
    assert (len(scene.renderers.asked), scene.counted) == (2, (1, 2))


def test_without_a_broker_nobody_is_asked():
    """Not even once."""
    scene = Scene(reachable=False)
    scene.speak()
    assert (scene.renderers.asked, len(scene.local.said)) == ([], 1)


def test_busy_is_asked_again():
    """Until somebody is not, or time is up."""
    busy = [AudioPart(seq=0, error=BUSY)]
    scene = Scene(busy, parts(tone(10)))
    scene.speak()
    assert (len(scene.renderers.asked), scene.local.said) == (2, [])


def test_where_there_is_no_renderer_nobody_is_waited_for():
    """The local voice speaks at once, and the next text asks again; in the middle of one a renderer may come back."""
    nobody = [AudioPart(seq=0, error=NOBODY)]
    scene = Scene(nobody, parts(tone(10)))
    scene.speak()
    scene.speak()
    assert (len(scene.renderers.asked), len(scene.local.said), scene.counted) == (2, 1, (1, 1))

    scene = Scene(parts(tone(10)), nobody, parts(tone(10, 10)), parts(tone(10, 20)))
    scene.speak(" ".join([SENTENCE] * 25))
    assert (len(scene.renderers.asked), scene.local.said) == (4, [])
    assert np.array_equal(scene.heard, tone(30))


@pytest.mark.parametrize(
    ("count", "rtf", "expected_s", "begins"),
    [(2, 0.0, 1, False), (4, 0.0, 1, True), (52, 2.0, 10, False), (54, 2.0, 10, True)],
)
def test_speech_waits_until_enough_has_come(count, rtf, expected_s, begins):
    """Three tenths of a second for the network, and all that a slow renderer will be behind: half of ten seconds."""
    scene = Scene(parts(*[tone(2400)] * count, end=False, rtf=rtf), None)
    scene.ring = HeardAtOnce(SAMPLE_RATE * 30)
    scene.local.piece_s = expected_s
    with pytest.raises(RemoteError) if begins else contextlib.nullcontext():
        scene.speak()
    assert len(scene.heard) == (count * 2400 if begins else 10)


@pytest.mark.parametrize("sizes", [(24_000,), (12_000, 12_000), (1000, 11_500, 11_500), (12_001, 11_999)])
def test_a_second_answer_goes_on_from_what_was_heard(sizes):
    """However it is cut into parts, and only if it begins with the same samples."""
    cuts = np.split(tone(24_000), np.cumsum(sizes)[:-1])
    scene = Scene(parts(tone(12_000), end=False), parts(*cuts))
    scene.ring = HeardAtOnce(SAMPLE_RATE * 30)
    scene.speak()
    assert np.array_equal(scene.heard, tone(24_000))
    assert scene.renderers.asked[1][1] == 12_000
    assert scene.renderers.cancelled == 1

    scene = Scene(parts(tone(12_000), end=False), parts(*[cut ^ 1 for cut in cuts]))
    scene.ring = HeardAtOnce(SAMPLE_RATE * 30)
    with pytest.raises(RemoteError):
        scene.speak()
    assert np.array_equal(scene.heard, tone(12_000))


def test_a_second_answer_that_is_shorter_than_what_was_heard_is_another():
    """It ends before it could go on."""
    scene = Scene(parts(tone(12_000), end=False), parts(tone(6000)))
    scene.ring = HeardAtOnce(SAMPLE_RATE * 30)
    with pytest.raises(RemoteError):
        scene.speak()


def test_a_stop_cancels():
    """While it waits and while it writes; the local voice says nothing."""
    for answer in ([], parts(tone(12_000), tone(12_000), end=False)):
        scene = Scene(answer)
        calls = iter([False] * 3)
        scene.cancelled = lambda calls=calls: next(calls, True)
        scene.speak()
        assert (scene.renderers.cancelled, scene.local.said) == (1, [])


def test_a_language_that_nobody_has_is_refused():
    """Read in another it would make no sense."""
    scene = Scene([AudioPart(seq=0, error="unknown_voice")])
    with pytest.raises(BadRequestError):
        scene.speak(lang="de")
