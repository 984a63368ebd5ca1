"""Sentences that are made side by side sound as if each had been made alone."""

import numpy as np
import pytest
from small_csm import FIRST, SECOND, WholePieces, speaking_bundle
from test_conversation import recorded, speak

from daemon.audio.ring import PcmRing
from daemon.config_sections import EngineConfig
from daemon.engine.engine import Engine, Folders
from daemon.errors import BadRequestError
from daemon.forecast import Forecaster, Outlook
from daemon.output import Output, Writer
from daemon.reading import ReadSegments
from daemon.speech import Speech
from daemon.text_source import TextSource
from daemon.values import SAMPLE_RATE, Segment, Turn

pytestmark = pytest.mark.engine

TEXTS = [FIRST, SECOND, "Yes.", FIRST + SECOND, "No, thank you.", SECOND, "Tea.", FIRST, "It is late."]
"""Of many lengths, so that some end while others go on."""
RANDOM = {"temperature": 0.8, "depth_temperature": 0.8, "top_k": 20}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A small random CSM of float32 that ends its speech after a few frames."""
    return speaking_bundle(tmp_path_factory.mktemp("csm") / "small")


@pytest.fixture(scope="module")
def engines(bundle):
    """One sentence at a time, and up to three together."""
    config = EngineConfig(bundle=str(bundle), link_sentences=False)
    with (
        Engine(config.model_copy(update={"batch": 1})) as alone,
        Engine(config.model_copy(update={"batch": 3})) as together,
    ):
        yield alone, together


def pcm_of(engine, segments, **options):
    """All samples of some segments, the codes of every frame, and the session."""
    session = engine.session(ReadSegments(tuple(segments)), **options)
    session.flush()
    pcm, codes = [], []
    while (chunk := session.next_audio_chunk()) is not None:
        pcm.append(chunk.copy())
        if session.chunk.frames:
            codes.append((session.chunk.segment, *session.codes))
    return np.concatenate(pcm), codes, session


@pytest.mark.parametrize("sampling", [None, RANDOM], ids=["greedy", "random"])
def test_sentences_together_are_those_alone(engines, sampling):
    """Every sample, every code and all that others may go on from, with pauses between and without."""
    segments = [Segment(text, 10 * n) for n, text in enumerate(TEXTS)]
    segments.insert(4, Segment("", 35, pause_s=0.3))
    (alone, codes, first), (pcm, other_codes, second) = (
        pcm_of(engine, segments, sampling=sampling and engine.sampling(**sampling)) for engine in engines
    )
    assert second.together
    assert not first.together
    assert codes == other_codes
    np.testing.assert_array_equal(pcm, alone)
    for one, other in zip(first.conversation(), second.conversation(), strict=True):
        assert one.tokens == other.tokens
        np.testing.assert_array_equal(one.codes, other.codes)


def test_all_begin_with_the_same_recording_and_conversation(engines):
    """What was read before the first sentence is in front of each of them."""
    context = [Turn(text=FIRST), Turn(text=SECOND, speaker=1)]
    (alone, _), (together, session), (plain, _) = (
        speak(engine, *TEXTS, voice=recorded(engine) if voice else None, context=context if voice else ())
        for engine, voice in zip([*engines, engines[0]], [True, True, False], strict=True)
    )
    assert session.together
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(len(one) != len(other) or (one != other).any() for one, other in zip(alone, plain, strict=True))


def test_text_in_pieces_gives_the_same(engines):
    """How much of the text is known at a time decides what is made together, and nothing else."""
    whole, _ = speak(engines[1], *TEXTS)
    session = engines[1].session(WholePieces())
    pieces = [[] for _ in TEXTS]
    for number, text in enumerate([*TEXTS, None]):
        session.flush() if text is None else session.push_text(text)
        for _ in range(3 if number % 2 else 1000):
            if session.next_audio_chunk() is None:
                break
            if session.chunk.frames:
                pieces[session.chunk.segment].append(session.codes.copy())
    while session.next_audio_chunk() is not None:
        if session.chunk.frames:
            pieces[session.chunk.segment].append(session.codes.copy())
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_utterance_that_is_left_leaves_no_trace(engines):
    """The next one has all lanes, and the same sound."""
    expected, _ = speak(engines[1], *TEXTS)
    session = engines[1].session(WholePieces())
    for text in TEXTS:
        session.push_text(text)
    for _ in range(12):
        session.next_audio_chunk()
    assert session.together
    session.cancel()
    again, _ = speak(engines[1], *TEXTS)
    for one, other in zip(expected, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_runaways_are_tried_again_with_the_same_seeds(engines, monkeypatch):
    """What runs away before its turn is tried again then; heard is what is heard one at a time."""
    limits = engines[0].bundle.manifest.limits.model_copy(update={"max_ratio": 0.35, "slack_s": 0.0})
    for engine in engines:
        monkeypatch.setattr(engine._model, "_manifest", engine.bundle.manifest.model_copy(update={"limits": limits}))
    (alone, attempts), (together, other_attempts) = map(_speech_of, engines)
    assert max(attempts) > 0
    assert attempts == other_attempts
    np.testing.assert_array_equal(alone, together)


def _speech_of(engine):
    """What comes into the ring, and how often each segment was tried again."""
    attempts = {}
    segments = ReadSegments(tuple(Segment(text, 0) for text in TEXTS))
    session = engine.session(segments, sampling=engine.sampling(**RANDOM))
    ring = PcmRing(60 * SAMPLE_RATE)
    writer = Writer(ring)
    with Output(session, writer, speed=1.0) as output:
        original = session.next_audio_chunk

        def counting():
            chunk = original()
            attempts[session.chunk.segment] = session.attempt
            return chunk

        session.next_audio_chunk = counting
        source = TextSource("x", more=False)
        outlook = Outlook(Forecaster(engine), source, None, voice="", speed=1.0, cautious=False)
        Speech(session, source, output, writer, outlook, keep_times=False).run()
    pcm = np.zeros(ring.available, np.int16)
    ring.read_into(pcm)
    return pcm, [attempts[n] for n in range(len(TEXTS))]


def test_a_sentence_that_is_too_long_is_refused_in_its_turn(engines):
    """Those before it are heard."""
    session = engines[1].session(WholePieces())
    for text in [FIRST, SECOND, "word " * 2000, "Yes."]:
        session.push_text(text)
    segments = set()

    def speak_all():
        while session.next_audio_chunk() is not None:
            segments.add(session.chunk.segment)

    with pytest.raises(BadRequestError, match="tokens"):
        speak_all()
    assert segments == {0, 1}


def test_linked_sentences_are_made_one_after_the_other(bundle):
    """Each hears those before it, so none can begin before they are over."""
    with Engine(EngineConfig(bundle=str(bundle), batch=3)) as engine:
        _, session = speak(engine, *TEXTS)
        assert not session.together


def test_noise_of_fixed_length_does_not_run_away(engines, monkeypatch):
    """Random weights never end speech: where the manifest gives the length itself, nothing is to be tried again."""
    fixed = {"seconds_per_token": 0.03, "min_ratio": 1.0, "max_ratio": 1.0, "slack_s": 0.0}
    limits = engines[0].bundle.manifest.limits.model_copy(update=fixed)
    for engine in engines:
        monkeypatch.setattr(engine._model, "_manifest", engine.bundle.manifest.model_copy(update={"limits": limits}))
        monkeypatch.setattr(engine._model.frames, "_stops_by_code", False)
    (alone, attempts), (together, other_attempts) = map(_speech_of, engines)
    assert set(attempts) == set(other_attempts) == {0}
    np.testing.assert_array_equal(alone, together)


def test_none_is_begun_ahead_where_it_may_not(engines):
    """The one whose turn it is goes alone, and sounds the same."""
    segments = [Segment(text, 0) for text in TEXTS]
    expected, _, _ = pcm_of(engines[0], segments)
    pcm, _, session = pcm_of(engines[1], segments, may_run_ahead=lambda: False)
    assert not session.together
    np.testing.assert_array_equal(pcm, expected)


def test_a_recording_from_its_file_is_in_front_of_each(bundle, engines, tmp_path):
    """Read back into one sequence, and copied from there into the others."""
    config = EngineConfig(bundle=str(bundle), link_sentences=False, batch=3)
    expected, _ = speak(engines[0], *TEXTS, voice=recorded(engines[0]))
    for _ in range(2):  # the first writes the file
        with Engine(config, Folders(cache=tmp_path)) as engine:
            found, session = speak(engine, *TEXTS, voice=recorded(engine))
        assert session.together
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one, other)
    assert list(tmp_path.rglob("*.kv"))
