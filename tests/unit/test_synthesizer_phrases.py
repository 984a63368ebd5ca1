"""Speech that was said before comes from disk: the same samples, without the model, and as if it had been spoken."""

import dataclasses
import logging
import threading
import time

import numpy as np
import pytest
from small_csm import speaking_bundle

from daemon.audio.ring import PcmRing
from daemon.config_sections import EngineConfig, TextConfig
from daemon.engine.engine import Engine, Folders
from daemon.engine.voices import Voice, VoicePrompt
from daemon.errors import EngineError
from daemon.metrics import Metrics
from daemon.output import Writer
from daemon.phrases import PhraseCache
from daemon.synthesizer import Synthesizer
from daemon.text_source import TextSource
from daemon.values import SpeakRequest, Turn

pytestmark = pytest.mark.engine

TEXT = "Dinner is ready. [pause 300ms] Good night."


@pytest.fixture(scope="module")
def engine():
    """The starter voice."""
    with Engine(EngineConfig()) as opened:
        yield opened


class Speaker:
    """A synthesizer with a phrase cache in a folder."""

    def __init__(self, engine, folder, **options):
        self.engine = engine
        self.folder = folder
        self.metrics = Metrics()
        self.cache = PhraseCache(folder, 2**24)
        self.synthesizer = Synthesizer(engine, phrases=self.cache, metrics=self.metrics, **options)

    def __call__(self, text=TEXT, *, ring=None, cancelled=lambda: False, source=None, voice=None, speed=1.0, **keys):
        """Speak; the samples in the ring and the result."""
        ring = ring or PcmRing(24_000 * 60)
        spoken = self.synthesizer.speak(
            SpeakRequest(text=text, **{"id": "a", **keys}),
            source or TextSource(text, more=False),
            Writer(ring, cancelled, on_first_sample=self.firsts.append),
            voice=voice,
            speed=speed,
        )
        spoken.keep()
        pcm = np.empty(ring.available, np.int16)
        ring.read_into(pcm)
        return pcm, spoken

    firsts: list[float] = []  # noqa: RUF012

    @property
    def files(self):
        """Phrases on disk."""
        return list(self.folder.glob("*.phrase")) if self.folder.exists() else []

    @property
    def counts(self):
        """Hits and misses."""
        phrases = self.metrics.snapshot()["phrases"]
        return phrases["hits"], phrases["misses"]


@pytest.fixture
def speaker(engine, tmp_path):
    """One with an empty cache."""
    return Speaker(engine, tmp_path / "phrases")


@pytest.fixture
def no_model(engine, monkeypatch):
    """From now on the model must not be asked."""

    def forbid():
        def refuse(*_args, **_options):
            raise EngineError("the model was asked")

        monkeypatch.setattr(engine, "session", refuse)

    return forbid


@pytest.mark.parametrize("speed", [1.0, 1.5])
def test_a_phrase_is_made_once(engine, speaker, no_model, speed):
    """The second time the same samples come without the model, also with a new daemon; nothing is measured of it."""
    first, spoken = speaker(speed=speed)
    assert not spoken.cached
    assert spoken.rtf > 0
    no_model()
    for again in (speaker, Speaker(engine, speaker.folder)):
        pcm, spoken = again(speed=speed, id="b")
        np.testing.assert_array_equal(pcm, first)
        assert spoken.cached
        assert spoken.rtf is None
        assert spoken.samples == len(first)
    assert speaker.counts == (1, 1)
    assert again.counts == (1, 0)
    assert speaker.metrics.snapshot()["phrases"]["bytes"] == speaker.files[0].stat().st_size


def test_what_is_written_is_no_text(speaker):
    """Neither the file nor its name has the words."""
    speaker("Xylophone.")
    (path,) = speaker.files
    assert b"xylo" not in path.read_bytes().lower()
    assert "xylo" not in path.name


def test_the_same_words_are_the_same_phrase(speaker):
    """However they were written, and whatever else the request says; the default voice by its name, too."""
    speaker("Dinner is ready.")
    for text, keys in [
        ("dinner is READY.", {}),
        ("  **Dinner** is ready", {"priority": "critical", "volume": 5, "key": "k", "ttl_s": 3.0}),
        ("<speak>Dinner is ready.</speak>", {}),
        ("Dinner is ready.", {"voice": "slt"}),
    ]:
        assert speaker(text, **keys)[1].cached, text


def test_whatever_is_heard_makes_another_phrase(engine, speaker, monkeypatch):
    """Bundle, voice, seed, speed, a pause, rate and volume: each is made anew and kept beside the others."""
    variants = [
        ("Dinner is ready.", {}),
        ("Dinner was ready.", {}),
        ("Dinner is ready.", {"voice": "rms"}),
        ("Dinner is ready.", {"seed": 7}),
        ("Dinner is ready.", {"speed": 1.5}),
        ("Dinner is ready. [pause 1s]", {}),
        ("[pause 1s] Dinner is ready.", {}),
        ('<speak><prosody rate="80%">Dinner is ready.</prosody></speak>', {}),
        ('<speak><prosody volume="80%">Dinner is ready.</prosody></speak>', {}),
    ]
    for text, options in variants:
        assert not speaker(text, **options)[1].cached
    assert len(speaker.files) == len(variants)
    monkeypatch.setattr(engine, "identity", "another bundle's")
    assert not speaker("Dinner is ready.")[1].cached


def test_a_recording_that_was_replaced_is_another_voice(engine):
    """A voice of the same name with another recording, transcript or speaker has another digest."""
    codes = np.arange(80, dtype=np.int32).reshape(20, 4)
    voice = Voice("guest", "", "en", 0, VoicePrompt("Hello.", codes))
    others = [
        dataclasses.replace(voice, speaker=1),
        dataclasses.replace(voice, prompt=VoicePrompt("Hello!", codes)),
        dataclasses.replace(voice, prompt=VoicePrompt("Hello.", codes + 1)),
        dataclasses.replace(voice, prompt=VoicePrompt("Hello.", codes.reshape(10, 8))),
        dataclasses.replace(voice, prompt=None),
        dataclasses.replace(voice, name="host"),
    ]
    assert len({each.digest() for each in [voice, *others]}) == 7
    assert dataclasses.replace(voice, description="a guest").digest() == voice.digest()


def test_text_that_is_still_open_is_not_kept(speaker):
    """Neither looked for nor written; the same text once it is whole is."""
    source = TextSource(TEXT, more=True)
    source.end()
    assert speaker(source=source)[1].samples
    assert len(speaker.files) == 1  # it had ended when its turn came
    source = TextSource("Good morning. ", more=True)
    timer = threading.Timer(0.3, source.end)
    timer.start()
    assert speaker("Good morning. ", source=source)[1].samples
    timer.join()
    assert len(speaker.files) == 1
    assert speaker.counts == (0, 1)


def test_what_was_cancelled_or_cut_is_not_kept(engine, speaker, monkeypatch):
    """Half an announcement never comes from the cache."""
    calls = []
    speaker(cancelled=lambda: calls.append(1) or len(calls) > 12)
    assert not speaker.files
    limits = engine.bundle.manifest.limits.model_copy(update={"max_ratio": 0.5, "slack_s": 0.0, "min_ratio": 0.0})
    monkeypatch.setattr(engine._model, "_manifest", engine.bundle.manifest.model_copy(update={"limits": limits}))
    assert speaker()[1].truncated
    assert not speaker.files


def test_a_damaged_phrase_is_spoken_and_made_again(speaker):
    """One bit that has flipped: it counts as a miss, and is right the next time."""
    first, _ = speaker()
    (path,) = speaker.files
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    pcm, spoken = speaker()
    assert not spoken.cached
    np.testing.assert_array_equal(pcm, first)
    assert speaker()[1].cached
    assert speaker.counts == (1, 2)


def test_a_folder_that_cannot_be_written_does_not_matter(engine, tmp_path, caplog):
    """Speech comes all the same; one line in the log."""
    (tmp_path / "phrases").touch()
    speaker = Speaker(engine, tmp_path / "phrases")
    with caplog.at_level(logging.WARNING):
        assert speaker()[1].samples
        assert speaker()[1].samples
    assert len(caplog.records) == 1


def test_the_estimate_knows_what_is_there(speaker):
    """Only the whole utterance counts, and only where its text has ended."""
    request = SpeakRequest(text=TEXT, id="a")

    def cached(**keys):
        return speaker.synthesizer.estimate(request, **{"voice": None, "speed": 1.0, **keys}).cached

    assert not cached()
    speaker()
    assert cached()
    assert cached(voice="slt")
    assert not cached(speed=1.25)
    assert not cached(voice="rms")
    assert not cached(more=True)
    assert speaker.counts == (0, 1)


def test_a_phrase_waits_for_room_and_is_cut_in_the_middle(speaker, no_model):
    """A full ring holds it back; a cancel ends it within the wait."""
    speaker()
    no_model()
    ring, cancel, result = PcmRing(4000), threading.Event(), []
    worker = threading.Thread(
        target=lambda: result.append(
            speaker.synthesizer.speak(
                SpeakRequest(text=TEXT, id="b"),
                TextSource(TEXT, more=False),
                Writer(ring, cancel.is_set),
                voice=None,
                speed=1.0,
            )
        )
    )
    worker.start()
    end = time.monotonic() + 5
    while ring.free and time.monotonic() < end:
        time.sleep(0.005)
    assert ring.available == 4000
    cancel.set()
    worker.join(2)
    assert not worker.is_alive()
    assert result[0].samples == 4000


def test_the_first_sample_of_a_phrase_is_told_once(speaker):
    """When it is in the ring."""
    speaker()
    speaker.firsts.clear()
    before = time.monotonic()
    speaker()
    assert len(speaker.firsts) == 1
    assert before <= speaker.firsts[0] <= time.monotonic()


def test_another_lexicon_is_another_phrase(speaker, tmp_path):
    """What the words are read as counts; a lexicon that is bad changes nothing."""
    speaker("Nginx is up.")
    lexicon = tmp_path / "lexicon.toml"
    lexicon.write_text('[words]\nnginx = "engine x"\n')
    speaker.synthesizer.set_text(TextConfig(lexicon=str(lexicon)))
    assert not speaker("Nginx is up.")[1].cached
    assert speaker("Engine x is up.")[1].cached


def test_a_phrase_is_remembered_like_speech(tmp_path):
    """With a voice that goes on from earlier speech, the next request hears the same, spoken or from disk."""
    bundle = speaking_bundle(tmp_path / "small")
    answers = []
    for number in range(2):
        with Engine(EngineConfig(bundle=str(bundle)), Folders(cache=tmp_path)) as engine:
            speaker = Speaker(engine, tmp_path / "phrases")
            assert engine.takes_context
            assert speaker("Hello there. How are you?", id="first")[1].cached is bool(number)
            said = engine.history.get("first")
            answer, spoken = speaker("Very well.", id="second", context=("first",))
            assert not spoken.cached
            answers.append((said, answer))
            speaker("Very well.", id="third", context=(Turn(text="Hello."),))
            assert len(speaker.files) == 1
    (spoken, first), (played, second) = answers
    assert [part.digest() for part in spoken] == [part.digest() for part in played]
    assert len(spoken) == 2
    np.testing.assert_array_equal(first, second)
