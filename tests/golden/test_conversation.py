"""Speech that goes on from earlier speech: a recorded voice, the sentences before, and what other requests said."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from small_csm import FIRST, SECOND, WholePieces, edited, speaking_bundle

from daemon.config_sections import EngineConfig
from daemon.engine.engine import Engine, Folders
from daemon.engine.voices import Voice, VoicePrompt
from daemon.values import Turn

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A small random CSM that ends its speech after a few frames."""
    return speaking_bundle(tmp_path_factory.mktemp("csm") / "small")


@pytest.fixture
def engine(bundle, tmp_path):
    """An engine with a cache of its own."""
    with Engine(EngineConfig(bundle=str(bundle)), Folders(cache=tmp_path)) as opened:
        yield opened


def speak(engine, *texts, voice=None, context=()):
    """Each text is a segment; their codes [T, Q] by segment, and the session."""
    session = engine.session(WholePieces(), context=context)
    if voice is not None:
        session._voice = voice
    for text in texts:
        session.push_text(text)
    session.flush()
    segments = [[] for _ in texts]
    while session.next_audio_chunk() is not None:
        if session.chunk.frames:
            segments[session.chunk.segment].append(session.codes.copy())
    return [np.array(codes) for codes in segments], session


def recorded(engine, seed=0, frames=20):
    """A voice with a recording of random codes."""
    audio = engine.bundle.manifest.audio
    codes = np.random.default_rng(seed).integers(0, audio.codebook_size, (frames, audio.num_codebooks))
    return Voice("guest", "", "en", 0, VoicePrompt("Hello there.", codes.astype(np.int32)))


def test_every_sentence_hears_the_ones_before(engine):
    """The second sentence is what it would be as an answer to the first, and not what it is alone."""
    together, session = speak(engine, FIRST, SECOND)
    engine.history.add("first", session.conversation()[:1])
    answer, _ = speak(engine, SECOND, context=["first"])
    alone, _ = speak(engine, SECOND)
    np.testing.assert_array_equal(together[1], answer[0])
    assert together[1].shape != alone[0].shape or (together[1] != alone[0]).any()


def test_conversation_can_be_asked_for_again(engine):
    """What a session has said is kept with its codes; the last sentence as well."""
    codes, session = speak(engine, FIRST, SECOND)
    said = session.conversation()
    assert [segment.num_frames for segment in said] == [len(part) for part in codes]
    for segment, part in zip(said, codes, strict=True):
        np.testing.assert_array_equal(segment.codes, part)


def test_text_of_a_turn_is_heard(engine):
    """A turn of which only the text is known changes what follows; its speaker, too; an unknown id does not."""
    plain, one, two, unknown = (
        speak(engine, SECOND, context=context)[0][0]
        for context in ([], [Turn(text=FIRST, speaker=0)], [Turn(text=FIRST, speaker=1)], ["never said"])
    )
    np.testing.assert_array_equal(plain, unknown)
    assert not np.array_equal(plain, one)
    assert not np.array_equal(one, two)


def test_oldest_segments_leave_first_and_whole(bundle, engine):
    """With room for one earlier segment only the later one is heard; with room for both, both are."""
    said = [speak(engine, text)[1].conversation() for text in (FIRST, SECOND)]
    frames = max(segments[0].num_frames for segments in said)
    edited(bundle, context_s=round((frames + 0.5) / engine.bundle.manifest.audio.frame_rate, 3))
    try:
        with Engine(EngineConfig(bundle=str(bundle))) as forgetful:
            heard = [answers(opened, said) for opened in (engine, forgetful)]
    finally:
        edited(bundle, context_s=20.0)
    assert len(set(heard[0].values())) == 3
    assert heard[1] == {"": heard[0][""], "1": heard[0]["1"], "01": heard[0]["1"]}


def answers(engine, said):
    """The speech after none, the second, and both of the segments that were said."""
    for number, segments in enumerate(said):
        engine.history.add(str(number), segments)
    return {ids: speak(engine, FIRST, context=list(ids))[0][0].tobytes() for ids in ("", "1", "01")}


@pytest.mark.parametrize(("context_s", "sentences"), [(1000.0, 8), (20.0, 1)])
def test_earlier_speech_gives_way_where_it_is_too_much(bundle, context_s, sentences):
    """Turns leave until the text and its longest speech fit, and as many seconds as are allowed; nothing fails."""
    turn = Turn(text=" ".join([FIRST] * sentences))
    edited(bundle, context_s=context_s)
    try:
        with Engine(EngineConfig(bundle=str(bundle))) as engine:
            codes, _ = speak(engine, SECOND, context=[turn] * 32)
            fitting = [
                n for n in range(33) if np.array_equal(codes[0], speak(engine, SECOND, context=[turn] * n)[0][0])
            ]
    finally:
        edited(bundle, context_s=20.0)
    assert fitting[-1] == 32
    assert 0 < fitting[0] < 32
    assert fitting == list(range(fitting[0], 33))


def prefilled(engine, monkeypatch):
    """Counts the positions that are read in batches, a number a segment."""
    counts = []
    model = engine._model._backbone.model
    original = model.prefill
    monkeypatch.setattr(model, "prefill", lambda x, sequence=0: (counts.append(len(x)), original(x, sequence))[1])
    return counts


def test_a_long_text_does_not_read_itself_again_and_again(bundle, monkeypatch):
    """Once there is too much earlier speech, half of the room is made: few sentences wait for a prefill."""
    edited(bundle, context_s=4.0)
    try:
        with Engine(EngineConfig(bundle=str(bundle))) as engine:
            counts = prefilled(engine, monkeypatch)
            segments, _ = speak(engine, *[FIRST, SECOND] * 12)
    finally:
        edited(bundle, context_s=20.0)
    frames = sum(len(codes) for codes in segments)
    texts = sum(len(engine._model.encode(text, 0)) for text in [FIRST, SECOND] * 12)
    assert frames > 2 * 50  # the room is used up several times
    assert sum(counts) - texts < frames


def test_reading_can_be_stopped(engine):
    """A stop ends the reading of a long context, which is asked batch by batch; the next speech is as ever."""
    turns = [Turn(text=FIRST)] * 3
    expected, _ = speak(engine, SECOND)
    asked = []

    def stop():
        asked.append(1)
        return len(asked) == 2

    session = engine.session(WholePieces(), context=turns, stop=stop)
    session.push_text(SECOND)
    session.flush()
    assert session.next_audio_chunk() is None
    assert session.finished
    assert len(asked) == 2
    np.testing.assert_array_equal(speak(engine, SECOND)[0][0], expected[0])


def test_recorded_voice_is_heard_and_computed_once(engine, tmp_path):
    """A recording changes the speech; coming back to it, from memory or from its file, gives the same bits."""
    guest, other = recorded(engine), recorded(engine, seed=1)
    fresh, _ = speak(engine, FIRST, voice=guest)
    assert not np.array_equal(fresh[0], speak(engine, FIRST)[0][0])
    assert len(list((tmp_path / "kv").iterdir())) == 1
    for before in (guest, other):
        speak(engine, SECOND, voice=before)
        np.testing.assert_array_equal(fresh[0], speak(engine, FIRST, voice=guest)[0][0])


def test_recorded_voice_survives_a_restart_and_a_damaged_file(bundle, engine, tmp_path):
    """Another process uses the file; where that is damaged, the recording is read anew. Same codes every time."""
    guest = recorded(engine)
    fresh, _ = speak(engine, FIRST, SECOND, voice=guest)
    (path,) = (tmp_path / "kv").iterdir()
    for damage in (None, b"damaged"):
        if damage:
            path.write_bytes(damage)
        with Engine(EngineConfig(bundle=str(bundle)), Folders(cache=tmp_path)) as again:
            codes, _ = speak(again, FIRST, SECOND, voice=guest)
        for expected, found in zip(fresh, codes, strict=True):
            np.testing.assert_array_equal(expected, found)
    assert path.read_bytes() != b"damaged"


def test_recording_is_the_same_as_a_turn_of_its_own(engine):
    """The voice's recording is read exactly as an earlier segment of the same text and codes."""
    guest = recorded(engine)
    as_voice, _ = speak(engine, FIRST, voice=guest)
    segment = replace(engine._model.turn(guest.prompt.transcript, guest.speaker), codes=guest.prompt.codes)
    engine.history.add("recording", [segment])
    as_context, _ = speak(engine, FIRST, context=["recording"])
    np.testing.assert_array_equal(as_voice[0], as_context[0])


def test_segment_that_was_cut_is_not_gone_on_from(bundle):
    """Speech that ran away is no example: the next sentence does not hear it."""
    edited(bundle, max_ratio=1.0, slack_s=0.0)
    try:
        with Engine(EngineConfig(bundle=str(bundle))) as hasty:
            limit = hasty._model.frame_limits(len(hasty._model.encode(FIRST, 0))).most
            cut = [text for text in (FIRST, SECOND) if len(speak(hasty, text)[0][0]) >= limit]
            _, session = speak(hasty, FIRST, SECOND)
            assert len(session.conversation()) == 2 - len(cut)
    finally:
        edited(bundle, max_ratio=2.5, slack_s=2.0)


def test_nothing_is_allocated_per_frame(bundle):
    """Also where earlier speech is heard and codes are kept: frames leave nothing behind and hold no array."""
    edited(bundle, min_ratio=1.0)
    tracemalloc.start()
    try:
        with Engine(EngineConfig(bundle=str(bundle))) as engine:
            for _ in range(2):
                session = engine.session(WholePieces(), context=[Turn(text=FIRST)])
                session.push_text(SECOND)
                session.flush()
                for _ in range(30):
                    session.next_audio_chunk()
                before = tracemalloc.get_traced_memory()[0]
                tracemalloc.reset_peak()
                for _ in range(15):
                    assert session.next_audio_chunk() is not None
                after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        edited(bundle, min_ratio=0.0)
    assert after - before < 1000
    assert peak - before < 1920 * 2
