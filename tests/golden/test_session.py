"""The engine as a whole, on the bundle that ships: what goes in decides what comes out, to the bit."""

import hashlib
import itertools
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.config_sections import EngineConfig
from daemon.engine.engine import Engine
from daemon.engine.session import default_seed
from daemon.errors import BadRequestError, EngineError
from daemon.synthesizer import Synthesizer

ROOT = Path(__file__).resolve().parents[2]
TEXT = "Dinner is ready. The front door is open, and it is cold outside. Good night."
RANDOM = {"temperature": 0.8, "depth_temperature": 0.8, "top_k": 50}

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def engine():
    """The starter voice, from the repository."""
    with Engine(EngineConfig(bundle=str(ROOT / "models" / "starter"))) as opened:
        yield opened


def speak(engine, pieces, **options):
    """The PCM of a text in pieces, and the chunks that made it."""
    session = engine.session(Synthesizer(engine, profile=False).segmenter(), **options)
    pcm, chunks = [], []
    for piece in [*pieces, None]:
        if piece is None:
            session.flush()
        else:
            session.push_text(piece)
        while (chunk := session.next_audio_chunk()) is not None:
            pcm.append(chunk.copy())
            chunks.append(session.chunk)
    assert session.finished
    return np.concatenate(pcm), chunks


def digest(pcm):
    """sha256 of int16 [S]."""
    return hashlib.sha256(pcm.tobytes()).hexdigest()


def test_the_same_text_gives_the_same_pcm(engine):
    """Also after another text, and with sampling that draws."""
    first = [digest(speak(engine, [TEXT])[0]), digest(speak(engine, [TEXT], sampling=engine.sampling(**RANDOM))[0])]
    speak(engine, ["Something else entirely."])
    again = [digest(speak(engine, [TEXT])[0]), digest(speak(engine, [TEXT], sampling=engine.sampling(**RANDOM))[0])]
    assert first == again
    assert first[0] != first[1]


def test_another_seed_gives_another_reading(engine):
    """A seed is heard where sampling draws, and only there."""
    random = engine.sampling(**RANDOM)
    assert digest(speak(engine, [TEXT], seed=1, sampling=random)[0]) != digest(
        speak(engine, [TEXT], seed=2, sampling=random)[0]
    )
    assert digest(speak(engine, [TEXT], seed=1)[0]) == digest(speak(engine, [TEXT], seed=2)[0])


def test_another_process_gives_the_same_pcm(engine, tmp_path):
    """crier render in a fresh process, twice, and the session here agree; the seed it reports reproduces it."""
    options = ["--temperature", "0.8", "--depth-temperature", "0.8", "--json"]
    command = [sys.executable, "-m", "daemon.client", "render", TEXT, "--out", str(tmp_path / "a.wav")]
    reports = []
    for extra in ([], ["--seed", None]):
        if extra:
            extra[1] = str(reports[0]["seed"])
        done = subprocess.run([*command, *options, *extra], cwd=ROOT, capture_output=True, text=True, check=True)
        reports.append(json.loads(done.stdout.splitlines()[-1]))
    sampling = engine.sampling(temperature=0.8, depth_temperature=0.8)
    here = digest(speak(engine, [TEXT], sampling=sampling)[0])
    assert [report["pcm_sha256"] for report in reports] == [here, here]
    assert reports[0]["seed"] == default_seed("dinner is ready.", "slt")


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, len(TEXT)), max_size=6))
def test_text_in_pieces_is_text_at_once(engine, cuts):
    """Wherever the text is cut, the same segments are spoken, with sampling that draws."""
    edges = [0, *sorted(cuts), len(TEXT)]
    pieces = [TEXT[a:b] for a, b in itertools.pairwise(edges)]
    random = engine.sampling(**RANDOM)
    assert digest(speak(engine, pieces, seed=5, sampling=random)[0]) == digest(
        speak(engine, [TEXT], seed=5, sampling=random)[0]
    )


def test_chunks_describe_themselves(engine):
    """Sample offsets add up, text offsets point at the sentences, frames count the frames."""
    pcm, chunks = speak(engine, [TEXT])
    assert [c.text_offset for c in chunks] == sorted(c.text_offset for c in chunks)
    offsets = sorted({c.text_offset for c in chunks})
    assert offsets == [0, TEXT.index("The front"), TEXT.index("Good night")]
    frames = sum(c.frames for c in chunks)
    assert len(pcm) == frames * 1920
    assert chunks[0].sample_offset == 0
    assert chunks[-1].sample_offset < len(pcm)
    assert not any(c.truncated for c in chunks)


def test_audio_comes_before_the_text_ends(engine):
    """The first sentence is spoken while the second is still awaited."""
    session = engine.session(Synthesizer(engine, profile=False).segmenter())
    session.push_text("Dinner is ready. The front")
    assert session.next_audio_chunk() is not None


def test_cancel_ends_the_session(engine):
    """Nothing comes after a cancel, and the next session is untouched by it."""
    whole = digest(speak(engine, [TEXT])[0])
    session = engine.session(Synthesizer(engine, profile=False).segmenter())
    session.push_text(TEXT)
    session.flush()
    session.next_audio_chunk()
    session.cancel()
    assert session.next_audio_chunk() is None
    assert session.finished
    assert digest(speak(engine, [TEXT])[0]) == whole


class OneSegment:
    """Everything pushed is a segment."""

    def push(self, text):
        from daemon.values import Segment

        return [Segment(text, 0)]

    def flush(self):
        return []


def one_segment(engine, text, **options):
    """A session with this one segment."""
    session = engine.session(OneSegment(), **options)
    session.push_text(text)
    session.flush()
    return session


def test_a_runaway_is_cut_faded_and_marked(engine, monkeypatch):
    """A segment that does not end by its limit is cut there; with another seed it is tried again from its start."""
    limits = engine.bundle.manifest.limits.model_copy(update={"max_ratio": 0.5, "slack_s": 0.0, "min_ratio": 0.0})
    manifest = engine.bundle.manifest.model_copy(update={"limits": limits})
    monkeypatch.setattr(engine._model, "_manifest", manifest)
    session = one_segment(engine, "dinner is ready.", sampling=engine.sampling(**RANDOM))
    chunks = []
    while (chunk := session.next_audio_chunk()) is not None:
        chunks.append(chunk.copy())
    assert session.chunk.truncated
    assert chunks[-1][-1] == 0
    length = session.num_samples
    session.retry_segment()
    assert session.num_samples == 0
    again = []
    while (chunk := session.next_audio_chunk()) is not None:
        again.append(chunk.copy())
    assert session.num_samples == length
    assert not np.array_equal(np.concatenate(chunks), np.concatenate(again))


def test_no_early_end(engine, monkeypatch):
    """Before the least number of frames the end of speech is not even a choice."""
    limits = engine.bundle.manifest.limits.model_copy(update={"min_ratio": 1.0, "seconds_per_token": 0.3})
    monkeypatch.setattr(engine._model, "_manifest", engine.bundle.manifest.model_copy(update={"limits": limits}))
    session = one_segment(engine, "yes.")
    while session.next_audio_chunk() is not None:
        pass
    assert session.num_samples / 24_000 >= 0.3 * engine.count_tokens("yes.") - 0.08


def test_a_segment_beyond_the_model_is_refused(engine):
    """A text that no segmenter has cut is a clear error, not a crash."""
    session = one_segment(engine, "a b " * 200)
    with pytest.raises(BadRequestError, match="this voice takes at most"):
        session.next_audio_chunk()


def test_the_hot_path_allocates_no_arrays(engine):
    """Once warm (onnxruntime's binding keeps a pool of its own), frames leave nothing behind and hold no array."""
    text = "the front door has been left open for ten minutes."
    tracemalloc.start()
    try:
        for _ in range(6):
            session = one_segment(engine, text)
            while session.next_audio_chunk() is not None:
                pass
        session = one_segment(engine, text)
        session.next_audio_chunk()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(15):
            session.next_audio_chunk()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1000
    assert peak - before < 1920 * 2


def test_a_failed_call_is_an_engine_error_and_the_engine_can_be_rebuilt(engine):
    """llama.cpp refusing a step fails the utterance; new contexts speak the same as before."""
    before = digest(speak(engine, [TEXT])[0])
    session = one_segment(engine, "dinner is ready.")
    session.next_audio_chunk()
    engine._model._backbone.model.num_positions = 1 << 20  # past the real cache: llama.cpp itself must refuse
    with pytest.raises(EngineError, match="llama_decode returned"):
        engine._model._backbone.model.prefill(np.zeros((1000, engine._model._backbone.model.width), np.float32))
    engine.rebuild()
    assert digest(speak(engine, [TEXT])[0]) == before


def test_unknown_voices_are_named(engine):
    """The message lists the voices there are."""
    with pytest.raises(BadRequestError, match="no voice 'bob'; there are: slt") as caught:
        engine.session(OneSegment(), voice="bob")
    assert caught.value.code == "unknown_voice"
