"""Speech that goes on from earlier speech: a recorded voice, the sentences before, and what other requests said."""

import re
from dataclasses import replace

import numpy as np
import pytest
from reference_csm import save_hf, small_model, small_tokenizer

from daemon.config import EngineConfig
from daemon.engine.engine import Engine, Folders
from daemon.engine.voices import Voice, VoicePrompt
from daemon.values import Segment, Turn
from quantize.convert import convert

pytestmark = pytest.mark.engine

FIRST, SECOND = "The kettle has boiled.", "Tea is ready in the kitchen."


class WholePieces:
    """A segmenter that takes every push as one segment."""

    def __init__(self):
        self._offset = 0

    def push(self, text):
        segment = Segment(text, self._offset)
        self._offset += len(text)
        return [segment]

    def flush(self):
        return []


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A float32 bundle of a small random CSM, whose speech never ends by itself."""
    folder = tmp_path_factory.mktemp("csm")
    source = save_hf(small_model(seed=1), folder / "checkpoint")
    small_tokenizer(source)
    convert(source, folder / "never", "f32", lambda *_: None)
    return folder


def edited(bundle, **values):
    """Change keys of the manifest."""
    path = bundle / "manifest.toml"
    text = path.read_text(encoding="utf-8")
    for key, value in values.items():
        text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
        assert count == 1, key
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def bundle(converted):
    """The same with an end of speech: a first code that comes up after a few frames, as the starter voice has it."""
    folder = converted / "never"
    edited(folder, min_ratio=0.0, temperature=0.0, depth_temperature=0.0)
    with Engine(EngineConfig(bundle=str(folder))) as engine:
        codes = speak(engine, FIRST)[0][0]
    first_codes = codes[:, 0].tolist()
    frame = next(n for n in range(3, len(first_codes)) if first_codes[n] not in first_codes[:n])
    edited(folder, kind=f'"code"\ncode = {first_codes[frame]}')
    return folder


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


def test_earlier_speech_gives_way_where_the_context_is_full(engine):
    """Segments leave until the next text and its longest speech fit; nothing fails."""
    turn = Turn(text=" ".join([FIRST] * 8))
    codes, _ = speak(engine, SECOND, context=[turn] * 32)
    fitting = [n for n in range(33) if np.array_equal(codes[0], speak(engine, SECOND, context=[turn] * n)[0][0])]
    assert fitting[-1] == 32
    assert 0 < fitting[0] < 32
    assert fitting == list(range(fitting[0], 33))


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


def test_segment_that_was_cut_is_not_gone_on_from(converted, bundle, engine, tmp_path):
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
