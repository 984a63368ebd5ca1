"""A checkpoint becomes a bundle, one file after another."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from daemon.errors import ModelError
from daemon.values import F32
from quantize import starter
from quantize.bundle_writer import BundleWriter
from quantize.checkpoint import Checkpoint
from quantize.codec_export import build_codec_decoder
from quantize.gguf_writer import write_gguf
from quantize.heads import build_heads
from quantize.weights import SpeechModel

DEPTH_CONTEXT = 64
"""Positions of the depth decoder's cache: at least one a codebook."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How each part of a bundle is stored."""

    transformers: str
    """A type of ``gguf_writer.QUANT_TYPES``."""
    head_bits: int
    half: bool
    """Tables and codec as float16."""


RECIPES = {
    "f32": Recipe("f32", 32, half=False),
    "f16": Recipe("f16", 32, half=True),
    "q8_0": Recipe("q8_0", 8, half=True),
    "q4_0": Recipe("q4_0", 8, half=True),
}

Progress = Callable[[str, int, int], None]
"""Called with the part that begins, how many are done, and how many there are."""


def read_checkpoint(source: Path) -> SpeechModel:
    """Read a checkpoint of any layout that is known.

    Raises:
        ModelError: it is missing, damaged or of an unknown layout.
    """
    checkpoint = Checkpoint(source)
    if starter.recognises(checkpoint):
        return starter.read(checkpoint)
    raise ModelError(f"{source}: its tensor names are of no layout that is known (starter)")


def convert(source: Path, out: Path, quant: str, progress: Progress) -> None:
    """Write the bundle ``out`` from the checkpoint ``source``.

    Raises:
        ModelError: the checkpoint is missing, damaged or of an unknown layout.
        BundleWriteError: ``out`` cannot be written.
    """
    progress("checkpoint", 0, 1)
    write_bundle(read_checkpoint(source), out, quant, progress)


def write_bundle(speech: SpeechModel, out: Path, quant: str, progress: Progress) -> None:
    """Write the bundle ``out`` by the recipe ``quant``.

    Raises:
        BundleWriteError: ``out`` cannot be written.
    """
    parts = _parts(speech, RECIPES[quant])
    with BundleWriter(out) as bundle:
        for done, (role, file_name, write) in enumerate(parts):
            progress(role, done, len(parts))
            bundle.add(role, file_name, write)
        bundle.finish({**speech.manifest, "recipe": quant})
    progress("done", len(parts), len(parts))


def project_depth_embeddings(speech: SpeechModel) -> F32:
    """Rows of codebooks 0 to Q - 2 as the depth decoder takes them, float32 [(Q-1) * C, Dd]."""
    num_codebooks = len(speech.depth_heads) + 1
    rows = len(speech.audio_embeddings) // num_codebooks * (num_codebooks - 1)
    projected: F32 = speech.audio_embeddings[:rows] @ speech.projection.T
    return projected


def _parts(speech: SpeechModel, recipe: Recipe) -> list[tuple[str, str, Callable[[Path], None]]]:
    """Role, file name and writer of every file; each is computed when it is written."""
    name, context = speech.manifest["name"], speech.manifest["limits"]["context"]

    def table(value: F32) -> Callable[[Path], None]:
        return lambda path: np.save(path, value.astype(np.float16 if recipe.half else np.float32))

    def gguf(part: str, length: int) -> Callable[[Path], None]:
        return lambda path: write_gguf(
            path,
            getattr(speech, part),
            name=f"{name} {part}",
            quant=recipe.transformers,
            context=length,
        )

    def model(build: Callable[[], onnx.ModelProto]) -> Callable[[Path], None]:
        return lambda path: onnx.save(build(), path)

    return [
        ("backbone", "backbone.gguf", gguf("backbone", context)),
        ("depth_decoder", "depth_decoder.gguf", gguf("depth_decoder", DEPTH_CONTEXT)),
        ("heads", "heads.onnx", model(lambda: build_heads(speech, bits=recipe.head_bits))),
        ("text_embeddings", "text_embeddings.npy", table(speech.text_embeddings)),
        ("audio_embeddings", "audio_embeddings.npy", table(speech.audio_embeddings)),
        ("depth_embeddings", "depth_embeddings.npy", table(project_depth_embeddings(speech))),
        ("codec_decoder", "codec_decoder.onnx", model(lambda: build_codec_decoder(speech.codec, half=recipe.half))),
        ("tokenizer", "tokenizer.json", lambda path: _write_text(path, speech.tokenizer)),
    ]


def _write_text(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")
