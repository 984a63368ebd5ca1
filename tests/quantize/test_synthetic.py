"""Models with random weights: true shapes, reproducible, lazy, and noise of a sane loudness."""

import math
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from tokenizers import Tokenizer

from daemon.config_sections import EngineConfig
from daemon.engine.bundle import Manifest, load_bundle
from daemon.engine.engine import Engine
from daemon.engine.llama import LlamaModel
from daemon.values import Segment
from quantize.convert import write_bundle
from quantize.gguf_writer import gguf_bytes, write_gguf
from quantize.mimi_decoder import build_mimi_decoder
from quantize.random_weights import Random
from quantize.synthetic import synthetic
from quantize.synthetic_shapes import SHAPES
from quantize.weights import Layer

FILE = {"path": "x", "bytes": 1, "sha256": "0" * 64}


@pytest.fixture(scope="module")
def small():
    """csm-small."""
    return synthetic("csm-small", "csm-small-noise")


def test_csm_1b_has_the_true_numbers_of_weights():
    """Part by part, as counted from Sesame's own code."""
    speech = synthetic("csm-1b", "noise")
    assert len(speech.backbone.layers) == 16
    assert len(speech.depth_decoder.layers) == 4
    assert gguf_bytes(speech.backbone, "f32") / 4 == pytest.approx(973.1e6, rel=1e-3)
    assert gguf_bytes(speech.depth_decoder, "f32") / 4 == pytest.approx(111.15e6, rel=1e-3)
    assert speech.text_embeddings.shape == (128_256, 2048)
    assert speech.audio_embeddings.shape == (32 * 2051, 2048)
    assert speech.depth_heads.shape == (31, 2051, 1024)
    assert speech.codebook0_head.shape == (2051, 2048)
    assert speech.projection.shape == (1024, 2048)
    assert speech.codec.num_codebooks == 32
    assert speech.codec.codebook_size == 2048
    assert speech.codec.samples_per_frame == 1920
    assert max(Tokenizer.from_str(speech.tokenizer).encode("a").ids) == 128_001


def test_weights_follow_from_the_seed(small):
    """The same again, whenever they are asked for; every layer, and every seed, has its own."""
    first, again, other = small.backbone.layers[3], small.backbone.layers[3], small.backbone.layers[2]
    for field in fields(Layer):
        value = getattr(first, field.name)
        np.testing.assert_array_equal(value, getattr(again, field.name))
        assert value.ndim == 1 or not np.array_equal(value, getattr(other, field.name))
    np.testing.assert_array_equal(small.projection, Random(0).matrix("projection", 256, 512))
    assert not np.array_equal(small.projection, Random(1).matrix("projection", 256, 512))


def test_rows_do_not_depend_on_how_the_table_is_cut(small):
    """Any slice is that of the whole; beyond the end there is nothing."""
    table = small.text_embeddings
    whole = table[: len(table)]
    assert whole.shape == table.shape == (2048, 512)
    for start, stop in ((0, 1), (255, 257), (300, 900), (2040, 3000), (5, 5), (4000, 5000)):
        np.testing.assert_array_equal(table[start:stop], whole[start:stop])
    assert whole.std() == pytest.approx(1, rel=0.01)


def test_tokenizer_gives_a_token_a_byte(small):
    """Between the tokens that begin and end a text, which no text can contain."""
    text = "[0]Grüße <|end_of_text|>\n"
    ids = Tokenizer.from_str(small.tokenizer).encode(text).ids
    begin = SHAPES["csm-small"].begin_of_text
    assert (ids[0], ids[-1]) == (begin, begin + 1)
    assert len(ids) == len(text.encode()) + 2
    assert max(ids[1:-1]) < 256


def test_manifest_says_that_it_is_noise(small):
    """It is valid, and nobody takes it for a voice."""
    manifest = Manifest.model_validate(
        {
            "format_version": 1,
            **small.manifest,
            "recipe": "q4_0",
            "files": dict.fromkeys(
                (
                    "backbone",
                    "depth_decoder",
                    "heads",
                    "text_embeddings",
                    "audio_embeddings",
                    "depth_embeddings",
                    "codec_decoder",
                    "tokenizer",
                ),
                FILE,
            ),
        }
    )
    assert manifest.name == "csm-small-noise"
    assert "noise" in manifest.description
    assert "random" in manifest.source
    assert manifest.licence == "none: random numbers"


def test_hidden_states_neither_vanish_nor_forget(small, tmp_path):
    """Through every layer: finite, of order 1, and other inputs give others."""
    write_gguf(tmp_path / "backbone.gguf", small.backbone, name="t", quant="q8_0", context=64)
    with LlamaModel(tmp_path / "backbone.gguf", num_positions=64, max_batch=16, num_threads=1) as model:
        hidden = []
        for start in (0, 16):
            model.rewind(0)
            hidden.append(model.prefill(small.text_embeddings[start : start + 16]).copy())
    norms = [float(np.linalg.norm(state)) for state in hidden]
    assert norms == pytest.approx([math.sqrt(512)] * 2, rel=0.1)
    assert abs(hidden[0] @ hidden[1]) < 0.5 * norms[0] * norms[1]


def test_codec_makes_noise_of_about_a_tenth(small):
    """Random codes become finite samples that neither clip nor are too faint to measure."""
    model = onnxruntime.InferenceSession(
        build_mimi_decoder(small.codec, half=True).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    inputs = {"codes": np.random.default_rng(0).integers(0, 2048, (1, 32, 12))}
    for value in model.get_inputs():
        if value.name != "codes":
            dtype = onnx.helper.tensor_dtype_to_np_dtype(
                onnx.TensorProto.INT64 if "int64" in value.type else onnx.TensorProto.FLOAT
            )
            inputs[value.name] = np.zeros(value.shape, dtype)
    pcm = model.run(["pcm"], inputs)[0]
    assert pcm.shape == (1, 12 * 1920)
    assert 0.05 < pcm.std() < 0.2
    assert np.abs(pcm).max() < 1


class OneSegment:
    """What is pushed is one segment."""

    def push(self, text):
        return [Segment(text, 0)]

    def flush(self):
        return []


def speak(folder, text):
    """PCM and whether it was cut."""
    with Engine(EngineConfig(bundle=str(folder), threads=1)) as engine:
        session = engine.session(OneSegment())
        session.push_text(text)
        session.flush()
        chunks = []
        while (chunk := session.next_audio_chunk()) is not None:
            chunks.append(chunk.copy())
        return np.concatenate(chunks), session.chunk.truncated


@pytest.mark.engine
def test_a_small_bundle_speaks_noise_as_long_as_speech_would_be(small, tmp_path):
    """0.06 s a byte of the prompt, brackets and ends included; noise does not end by itself."""
    folder = tmp_path / "csm-small-noise"
    write_bundle(small, folder, "q4_k", lambda *_: None)
    manifest = load_bundle(folder, verify="full").manifest
    assert (manifest.recipe, manifest.depth_recipe) == ("q4_k", "q8_0")
    pcm, truncated = speak(folder, "Hello")
    assert not truncated
    assert len(pcm) == 1920 * math.ceil((len("[0]Hello") + 2) * 0.06 * 12.5)
    assert 0.02 < pcm.std() / 32768 < 0.4


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.timeout(900)
@pytest.mark.parametrize("quant", ["q8_0", "q4_0", "q4_k"])
def test_csm_1b_is_made_within_4_gb(quant, tmp_path):
    """A bundle of the true shape, made in a process of its own, that speaks."""
    program = (
        "from pathlib import Path;"
        "from quantize.convert import write_bundle; from quantize.synthetic import synthetic;"
        f"write_bundle(synthetic('csm-1b', 'noise'), Path({str(tmp_path / 'noise')!r}), {quant!r}, lambda *_: None);"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) * 1024 < 4e9
    assert speak(tmp_path / "noise", "Hi")[0].any()
