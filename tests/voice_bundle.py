"""A bundle that takes new voices (the starter voice with an encoder that means nothing), and recordings for it."""

import hashlib
import os
import re
import tomllib
from pathlib import Path

import numpy as np
import soundfile
from onnx import TensorProto

from quantize.onnx_graph import GraphBuilder, model, tensor

STARTER = Path(__file__).resolve().parents[1] / "models" / "starter"
NAME = "test-voice"
_AUDIO = tomllib.loads((STARTER / "manifest.toml").read_text())["audio"]
NUM_CODEBOOKS, CODEBOOK_SIZE, FRAME = _AUDIO["num_codebooks"], _AUDIO["codebook_size"], 1920
CLASSES = 16


def write_encoder(path, *, num_codebooks=NUM_CODEBOOKS, first_code=0):
    """An encoder whose codes say which of a few random shapes a frame is most like."""
    graph = GraphBuilder("encoder")
    shapes = np.random.default_rng(0).normal(size=(FRAME, num_codebooks * CLASSES)).astype(np.float32)
    frames = graph.op("Reshape", "pcm", graph.integers(1, -1, FRAME))
    scores = graph.op("MatMul", frames, graph.constant(shapes))
    scores = graph.op("Reshape", scores, graph.integers(1, -1, num_codebooks, CLASSES))
    best = graph.op("Add", graph.op("ArgMax", scores, axis=3, keepdims=0), graph.integers(first_code))
    graph.op("Transpose", best, output="codes", perm=[0, 2, 1])
    made = model(
        graph.graph(
            [tensor("pcm", TensorProto.FLOAT, 1, "S")], [tensor("codes", TensorProto.INT64, 1, num_codebooks, "T")]
        )
    )
    Path(path).write_bytes(made.SerializeToString())


def make_bundle(folder):
    """The starter bundle's files by link, a name of its own, its voice slt alone, and an encoder."""
    folder.mkdir(parents=True)
    for path in STARTER.iterdir():
        if path.name != "manifest.toml":
            (folder / path.name).symlink_to(path)
    write_encoder(folder / "codec_encoder.onnx")
    manifest = (STARTER / "manifest.toml").read_text().replace('name = "starter"', f'name = "{NAME}"', 1)
    (folder / "manifest.toml").write_text(re.sub(r"(?ms)^\[voices\.(?!slt\]).*?(?=^\[)", "", manifest))
    enlist(folder)
    return folder


def enlist(folder):
    """Put the encoder that is there now into the manifest."""
    data = (folder / "codec_encoder.onnx").read_bytes()
    manifest = (folder / "manifest.toml").read_text().partition("\n[files.codec_encoder]")[0]
    entry = f'path = "codec_encoder.onnx"\nbytes = {len(data)}\nsha256 = "{hashlib.sha256(data).hexdigest()}"\n'
    (folder / "manifest.toml").write_text(f"{manifest}\n[files.codec_encoder]\n{entry}")


def speech(seconds, rate=24_000, *, amplitude=0.3):
    """Something with a voice's harmonics and syllables, float32 [S]; its fundamental is 150 Hz."""
    time = np.arange(round(seconds * rate)) / rate
    voiced = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 10))
    syllables = 0.6 + 0.4 * np.sin(2 * np.pi * 4 * time)
    return (amplitude * voiced * syllables / 2).astype(np.float32)


def silence(seconds, rate=24_000):
    """Float32 [S]."""
    return np.zeros(round(seconds * rate), np.float32)


def write_recording(path, samples=None, rate=24_000, **options):
    """An audio file of ``samples``, or of 2 s of speech; returns its path."""
    soundfile.write(path, speech(2.0, rate) if samples is None else samples, rate, **options)
    return Path(path)


def in_folder(folder):
    """Every path below a folder, relative to it, but not what links lead to."""
    return sorted(
        str(Path(root, name).relative_to(folder)) for root, dirs, files in os.walk(folder) for name in dirs + files
    )
