"""The owner of llama.cpp: positions, batches, rewinding, and the state of the KV cache."""

import threading
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from daemon.engine.llama import LlamaModel, system_info
from daemon.engine.native_time import NATIVE
from daemon.errors import EngineError, ModelError

BACKBONE = Path(__file__).resolve().parents[2] / "models" / "starter" / "backbone.gguf"

pytestmark = pytest.mark.engine


@pytest.fixture
def model():
    """The starter's backbone, exact."""
    with LlamaModel(BACKBONE, num_positions=64, max_batch=16, num_threads=1, exact=True) as opened:
        yield opened


@pytest.fixture
def embeddings(model):
    """30 positions, float32 [30, D]."""
    return np.random.default_rng(0).standard_normal((30, model.width)).astype(np.float32) * 0.3


def test_steps_and_batches_give_the_same_hidden_state(model, embeddings):
    """One by one, in batches smaller than the prompt, or all at once."""
    whole = model.prefill(embeddings).copy()
    assert model.positions[0] == 30
    model.rewind(0)
    for row in embeddings:
        stepped = model.step(row)
    np.testing.assert_allclose(stepped, whole, rtol=0, atol=1e-4)


def test_a_rewound_prefix_is_as_good_as_a_fresh_one(model, embeddings):
    """What came after the prefix leaves no trace."""
    model.prefill(embeddings[:10])
    first = model.prefill(embeddings[10:20]).copy()
    model.rewind(10)
    model.prefill(-embeddings[10:25])
    model.rewind(10)
    np.testing.assert_array_equal(model.prefill(embeddings[10:20]), first)


def test_text_read_in_both_directions_leaves_the_rest_causal(model, embeddings):
    """Every position counts for every other; a batch after it is what single steps are; again gives the same bits."""
    causal = model.prefill(embeddings[:10]).copy()
    runs = []
    for _ in range(2):
        model.rewind(0)
        model.prefill(-embeddings[:16])
        model.rewind(0)
        runs.append([model.prefill_bidirectional(embeddings[:10]).copy()])
        runs[-1] += [model.step(row).copy() for row in embeddings[10:14]]
    np.testing.assert_array_equal(*runs)
    assert np.abs(runs[0][0] - causal).max() > 1e-2
    model.rewind(10)
    np.testing.assert_allclose(model.prefill(embeddings[10:14]), runs[0][-1], rtol=0, atol=1e-4)
    model.rewind(0)
    np.testing.assert_array_equal(model.prefill(embeddings[:10]), causal)


def test_text_too_long_for_one_batch_is_an_error(model, embeddings):
    """llama.cpp would end the process; the model goes on."""
    with pytest.raises(EngineError, match="17 positions at once, expected 16 or less"):
        model.prefill_bidirectional(embeddings[:17])
    assert model.positions[0] == 0
    model.prefill_bidirectional(embeddings[:16])


def test_the_kv_cache_comes_back(model, embeddings):
    """Taken, forgotten, put back: the next step has the same bits. A state of another length is an error."""
    model.prefill(embeddings[:10])
    state = model.state()
    wanted = model.step(embeddings[10]).copy()
    model.rewind(0)
    model.prefill(-embeddings[:5])
    model.rewind(0)
    model.restore(state, 10)
    np.testing.assert_array_equal(model.step(embeddings[10]), wanted)
    with pytest.raises(EngineError, match="10 positions, expected 11"):
        model.restore(state, 11)


def test_a_full_cache_is_an_error(model, embeddings):
    """No position beyond the context; the model goes on after a rewind."""
    model.prefill(np.concatenate([embeddings, embeddings]))
    with pytest.raises(EngineError, match="no room for 16 more positions after 60"):
        model.prefill(embeddings)
    model.rewind(0)
    model.step(embeddings[0])


def test_what_is_no_model_is_refused(tmp_path):
    """One line that names the file."""
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF rubbish")
    with pytest.raises(ModelError, match=r"x\.gguf: llama\.cpp cannot load it"):
        LlamaModel(path, num_positions=64, max_batch=16, num_threads=1)


def test_the_build_tells_its_instruction_sets():
    """At least what every 64-bit machine has."""
    assert {"SSE3", "NEON"} & set(system_info().split())


@pytest.fixture
def three():
    """The starter's backbone, exact, with room for three sequences."""
    with LlamaModel(BACKBONE, num_positions=64, max_batch=16, num_threads=1, num_sequences=3, exact=True) as opened:
        yield opened


def test_sequences_side_by_side_are_each_as_alone(model, three, embeddings):
    """Of different lengths, two positions a call or one, and with one of them left out."""
    parts = [embeddings[:6], embeddings[10:13], -embeddings[20:25]]
    alone = []
    for part in parts:
        model.rewind(0)
        model.prefill(part)
        alone.append([model.step(row).copy() for row in embeddings[:4]])
    for sequence, part in enumerate(parts):
        three.prefill(part, sequence)
    three.inputs[:6] = np.tile(embeddings[:2], (3, 1))
    three.decode(2, range(3))
    np.testing.assert_allclose(three.hiddens, [steps[1] for steps in alone], rtol=0, atol=1e-4)
    three.inputs[:2] = embeddings[2]
    three.decode(1, (0, 1))
    three.inputs[:3] = [embeddings[3], embeddings[3], embeddings[2]]
    three.decode(1, range(3))
    np.testing.assert_allclose(three.hiddens, [alone[0][3], alone[1][3], alone[2][2]], rtol=0, atol=1e-4)
    assert three.positions == [10, 7, 8]


def test_a_copied_sequence_goes_on_as_its_source(three, embeddings):
    """What the target held before is gone; the source is as it was; both can be cut back."""
    three.prefill(embeddings[:12])
    three.prefill(-embeddings[:20], 2)
    three.copy(0, 2)
    assert three.positions == [12, 0, 12]
    np.testing.assert_array_equal(three.hiddens[2], three.hiddens[0])
    three.rewind(8, 2)
    three.rewind(8, 0)
    three.inputs[:1] = embeddings[20]
    three.decode(1, (0,))
    three.inputs[:1] = embeddings[20]
    three.decode(1, (2,))
    np.testing.assert_array_equal(three.hiddens[2], three.hiddens[0])


def test_sequences_are_as_many_as_memory_affords(monkeypatch):
    """A quarter of what is free, and one in any case."""
    options = {"num_positions": 64, "max_batch": 16, "num_threads": 1, "num_sequences": 3}
    with LlamaModel(BACKBONE, **options) as plenty:
        assert len(plenty.positions) == 3
    monkeypatch.setattr("daemon.engine.llama.available_memory", lambda: 1 << 20)
    with LlamaModel(BACKBONE, **options) as scarce:
        assert len(scarce.positions) == 1


def test_time_in_the_library_is_counted_for_the_thread_that_spent_it(model, embeddings):
    """No more than the time that passed, and none of it in another thread's count."""
    before, began = NATIVE.seconds, perf_counter()
    model.prefill(embeddings)
    assert 0 < NATIVE.seconds - before <= perf_counter() - began
    others = []
    thread = threading.Thread(target=lambda: others.append(NATIVE.seconds))
    thread.start()
    thread.join()
    assert others == [0.0]
