"""A voice that reads its text in both directions, from the text to the codes, against PyTorch."""

import numpy as np
import pytest
import torch
from reference_starter import CONFIG, SMALL, Reference, random_checkpoint, save_checkpoint, text_ids

from daemon.config_sections import EngineConfig
from daemon.engine.engine import Engine
from daemon.errors import BadRequestError
from daemon.values import Segment, Turn
from quantize.convert import convert

pytestmark = pytest.mark.engine

TEXTS = ("the kettle has boiled.", "yes.", "dinner is ready, and the lights in the hall are off.")
FRAMES = 12


class OneSegment:
    """Everything pushed is a segment."""

    def push(self, text):
        return [Segment(text, 0)]

    def flush(self):
        return []


@pytest.fixture(scope="module")
def tensors():
    """Random weights that never end speech by themselves."""
    made = random_checkpoint(SMALL, seed=8)
    made["h0.weight"][SMALL.codebook_size] = 0
    return made


@pytest.fixture(scope="module")
def engine(tensors, tmp_path_factory):
    """The engine with their float32 bundle."""
    folder = tmp_path_factory.mktemp("prefix")
    convert(save_checkpoint(tensors, folder / "checkpoint"), folder / "voice", "f32", lambda *_: None)
    with Engine(EngineConfig(bundle=str(folder / "voice"))) as opened:
        yield opened


def begin(engine, text, voice="first"):
    """A session that says this one segment."""
    session = engine.session(OneSegment(), voice=voice)
    session.push_text(text)
    session.flush()
    return session


def spoken(engine, text, voice="first"):
    """The first codes [FRAMES, Q] of a text."""
    session = begin(engine, text, voice)
    codes = []
    while len(codes) < FRAMES and session.next_audio_chunk() is not None:
        codes.append(session.codes.copy())
    return np.array(codes)


def greedy(reference, ids, num_frames):
    """What PyTorch says after a prompt: codes [T, Q]."""
    codes = torch.zeros(0, SMALL.codebooks, dtype=torch.long)
    for _ in range(num_frames):
        inputs = torch.cat([reference.text_embeddings(ids), reference.frame_embeddings(codes)])
        hidden = reference.backbone(inputs, len(ids))[-1]
        frame = torch.zeros(SMALL.codebooks, dtype=torch.long)
        frame[0] = reference.codebook0_logits(hidden)[: SMALL.codebook_size].argmax()
        for book in range(1, SMALL.codebooks):
            states = reference.depth_decoder(reference.depth_inputs(hidden, frame))
            frame[book] = reference.depth_logits(states)[book - 1].argmax()
        codes = torch.cat([codes, frame[None]])
    return codes.numpy()


@pytest.mark.parametrize("speaker", [0, 1])
def test_the_engine_says_what_pytorch_says(engine, tensors, speaker):
    """Text after text, in either voice, code by code: the prompt, its speaker, the prefix and the frames are right."""
    voice = CONFIG["speakers"][speaker]["name"]
    for text in TEXTS:
        codes = spoken(engine, text, voice)
        assert len(codes)
        expected = greedy(Reference(tensors, SMALL), text_ids(text, speaker), len(codes))
        np.testing.assert_array_equal(codes, expected)


def test_a_text_that_is_cut_off_leaves_no_trace(engine):
    """The same codes after another utterance, another voice, and one that was given up in its middle."""
    first = spoken(engine, TEXTS[0])
    spoken(engine, TEXTS[2], "second")
    begin(engine, TEXTS[1]).next_audio_chunk()
    np.testing.assert_array_equal(spoken(engine, TEXTS[0]), first)


def test_voices_differ(engine):
    """The speaker's mark reaches the model."""
    assert not np.array_equal(spoken(engine, TEXTS[0], "first"), spoken(engine, TEXTS[0], "second"))


def test_the_mark_of_a_speaker_in_a_text_is_not_one(engine):
    """What a user types never changes the voice."""
    np.testing.assert_array_equal(spoken(engine, "[1]" + TEXTS[0]), spoken(engine, TEXTS[0]))


def test_the_longest_text_fits_and_a_longer_one_is_refused(engine):
    """Whole texts up to max_text_tokens are read at once; one more is an error, and the engine speaks on."""
    longest = CONFIG["limits"]["max_text_tokens"] - len(text_ids(""))
    before = spoken(engine, "a" * longest)
    assert len(before)
    with pytest.raises(BadRequestError, match="a segment of 88 tokens; this voice takes at most 87"):
        begin(engine, "a" * (longest + 1)).next_audio_chunk()
    np.testing.assert_array_equal(spoken(engine, "a" * longest), before)


def test_an_earlier_turn_that_is_too_long_is_refused(tensors, tmp_path):
    """Where the model goes on from earlier speech, its texts are read whole too: an error, and no abort."""
    limits = CONFIG["limits"] | {"context_s": 60.0, "context": 1024}
    source = save_checkpoint(tensors, tmp_path / "checkpoint", limits=limits)
    convert(source, tmp_path / "voice", "f32", lambda *_: None)
    with Engine(EngineConfig(bundle=str(tmp_path / "voice"))) as engine:
        session = engine.session(OneSegment(), context=[Turn(text="a" * 100, speaker=0)])
        session.push_text("a.")
        with pytest.raises(BadRequestError, match="a text of 103 tokens; this voice takes at most 87"):
            session.next_audio_chunk()
        assert len(spoken(engine, TEXTS[0]))
