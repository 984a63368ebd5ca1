"""A checkpoint becomes a bundle, one file after another; large ones stream: one layer at a time is in memory."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from daemon.engine.bundle import load_bundle
from daemon.errors import ModelError
from daemon.values import F32
from quantize import csm, starter
from quantize.bundle_writer import BundleWriter, Part
from quantize.checkpoint import Checkpoint
from quantize.codec_check import describe, write_test_vector
from quantize.codec_export import build_codec_decoder
from quantize.gguf_writer import gguf_bytes, write_gguf
from quantize.heads import build_heads
from quantize.mimi_decoder import build_mimi_decoder
from quantize.mimi_encoder import build_mimi_encoder
from quantize.mimi_weights import MimiCodec
from quantize.weights import Rows, SpeechModel

DEPTH_CONTEXT = 64
"""Positions of the depth decoder's cache: at least one a codebook."""
_ROWS_AT_ONCE = 4096
_DECODER, _ENCODER = "codec_decoder.onnx", "codec_encoder.onnx"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How each part of a bundle is stored."""

    backbone: str
    """A type of ``gguf_writer.QUANT_TYPES``."""
    depth_decoder: str
    """Likewise: unless asked for otherwise at least Q8_0, because it suffers most from fewer bits (models.md 1.6)."""
    head_bits: int
    half: bool
    """Tables and codec as float16."""


RECIPES = {
    "f32": Recipe("f32", "f32", 32, half=False),
    "f16": Recipe("f16", "f16", 32, half=True),
    "q8_0": Recipe("q8_0", "q8_0", 8, half=True),
    "q4_0": Recipe("q4_0", "q8_0", 8, half=True),
    "q4_k": Recipe("q4_k", "q8_0", 8, half=True),
}

Progress = Callable[[str, int, int], None]
"""Called with a part, how much of it is done, and how much there is of it."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What a bundle is made of where the checkpoint alone is not all."""

    codec: Path | None = None
    """Mimi's checkpoint."""
    tokenizer: Path | None = None
    """tokenizer.json."""


def read_checkpoint(source: Path, name: str = "voice", extra: Sources | None = None) -> SpeechModel:
    """Read a checkpoint of any layout that is known; large weights are read when they are used.

    Raises:
        ModelError: it is missing, damaged or of an unknown layout.
    """
    checkpoint = Checkpoint(source)
    if csm.recognises(checkpoint):
        extra = extra or Sources()
        return csm.read(checkpoint, name, codec=extra.codec, tokenizer=extra.tokenizer)
    if extra not in (None, Sources()):
        raise ModelError(f"{source}: not a checkpoint of CSM, which alone takes a codec and a tokenizer beside it")
    if starter.recognises(checkpoint):
        return starter.read(checkpoint)
    raise ModelError(
        f"{source}: its tensor names are of no layout that is known (CSM-1B of Sesame or transformers, starter)"
    )


def convert(
    source: Path,
    out: Path,
    quant: str,
    progress: Progress,
    *,
    depth_quant: str | None = None,
    extra: Sources | None = None,
    force: bool = False,
) -> bool:
    """Write the bundle ``out`` from the checkpoint ``source``.

    Returns:
        False if ``out`` is already what would be written.

    Raises:
        ModelError: the checkpoint is missing, damaged or of an unknown layout.
        BundleWriteError: ``out`` cannot be written.
    """
    progress("checkpoint", 0, 1)
    speech = read_checkpoint(source, out.absolute().name, extra)
    progress("checkpoint", 1, 1)
    return write_bundle(speech, out, quant, progress, depth_quant=depth_quant, force=force)


def write_bundle(
    speech: SpeechModel,
    out: Path,
    quant: str,
    progress: Progress,
    *,
    depth_quant: str | None = None,
    force: bool = False,
) -> bool:
    """Write the bundle ``out`` by the recipe ``quant``; what an interrupted run had finished is kept.

    Returns:
        False if ``out`` is already what would be written.

    Raises:
        BundleWriteError: ``out`` cannot be written.
        ModelError: weights turn out to be damaged.
    """
    recipe = RECIPES[quant]
    depth = depth_quant or recipe.depth_decoder
    manifest = {**speech.manifest, "recipe": quant} | ({"depth_recipe": depth} if depth != quant else {})
    if not force and _is_done(out, manifest, speech.tokenizer):
        return False
    key = hashlib.sha256(repr((manifest, speech.tokenizer)).encode()).hexdigest()
    parts = _parts(speech, recipe, depth)
    with BundleWriter(out, key) as bundle:
        bundle.reserve(sum(part.num_bytes for part in parts))
        for part in parts:
            bundle.add(part, partial(progress, part.role))
        bundle.finish(manifest)
    return True


def _is_done(out: Path, manifest: dict[str, Any], tokenizer: str) -> bool:
    """Whether ``out`` is an intact bundle of the same checkpoint and recipe."""
    try:
        found = load_bundle(out, verify="size").manifest
    except ModelError:
        return False
    wanted = {"depth_recipe": "", **manifest}
    same = all(getattr(found, key) == wanted[key] for key in ("name", "source", "revision", "recipe", "depth_recipe"))
    return same and found.files["tokenizer"].sha256 == hashlib.sha256((tokenizer + "\n").encode()).hexdigest()


class _Projected:
    """The audio embeddings of codebooks 0 to Q - 2 as the depth decoder takes them, [(Q-1) * C, Dd]."""

    def __init__(self, speech: SpeechModel) -> None:
        num_codebooks = len(speech.depth_heads) + 1
        own = speech.depth_audio_embeddings
        self._table = speech.audio_embeddings if own is None else own
        self._projection = speech.projection.T
        self.shape = (len(self._table) // num_codebooks * (num_codebooks - 1), len(speech.projection))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> F32:
        start, end, _ = rows.indices(len(self))
        projected: F32 = self._table[start:end] @ self._projection
        return projected


def project_depth_embeddings(speech: SpeechModel) -> Rows:
    """Rows of codebooks 0 to Q - 2 as the depth decoder takes them, float32 [(Q-1) * C, Dd]."""
    return _Projected(speech)


def _parts(speech: SpeechModel, recipe: Recipe, depth: str) -> list[Part]:
    """Every file; each is computed when it is written."""
    name, context = speech.manifest["name"], speech.manifest["limits"]["context"]

    def gguf(role: str, quant: str, length: int) -> Part:
        model = getattr(speech, role)
        return Part(
            role,
            f"{role}.gguf",
            gguf_bytes(model, quant),
            lambda path, tick: write_gguf(path, model, name=f"{name} {role}", quant=quant, context=length, tick=tick),
        )

    tokenizer = speech.tokenizer + "\n"
    return [
        gguf("backbone", recipe.backbone, context),
        gguf("depth_decoder", depth, DEPTH_CONTEXT),
        _onnx_part(
            "heads",
            "heads.onnx",
            speech.depth_heads.size * recipe.head_bits // 7,
            lambda: build_heads(speech, bits=recipe.head_bits),
        ),
        _table_part("text_embeddings", speech.text_embeddings, half=recipe.half),
        _table_part("audio_embeddings", speech.audio_embeddings, half=recipe.half),
        _table_part("depth_embeddings", project_depth_embeddings(speech), half=recipe.half),
        *_codec_parts(speech, half=recipe.half),
        Part(
            "tokenizer",
            "tokenizer.json",
            len(tokenizer),
            lambda path, _tick: _write_text(path, tokenizer),
        ),
    ]


def _codec_parts(speech: SpeechModel, *, half: bool) -> list[Part]:
    """The decoder; with Mimi also the encoder, a description of both and a test vector."""
    codec = speech.codec
    num_bytes = _count(codec) * (2 if half else 4)
    if not isinstance(codec, MimiCodec):
        return [_onnx_part("codec_decoder", _DECODER, num_bytes, lambda: build_codec_decoder(codec, half=half))]
    return [
        _onnx_part("codec_decoder", _DECODER, num_bytes, lambda: build_mimi_decoder(codec, half=half)),
        _onnx_part("codec_encoder", _ENCODER, num_bytes, lambda: build_mimi_encoder(codec, half=half)),
        Part(
            "codec_description",
            "codec.json",
            0,
            lambda path, _tick: _write_text(path, describe(path.with_name(_DECODER), path.with_name(_ENCODER))),
        ),
        Part(
            "codec_test",
            "codec_test.npz",
            0,
            lambda path, _tick: write_test_vector(path, path.with_name(_DECODER), path.with_name(_ENCODER)),
        ),
    ]


def _count(part: Any) -> int:
    """How many numbers a tree of weights holds."""
    if isinstance(part, np.ndarray):
        return part.size
    if isinstance(part, list):
        return sum(map(_count, part))
    names = [field.name for field in fields(part)] if hasattr(part, "__dataclass_fields__") else []
    return sum(_count(getattr(part, name)) for name in names)


def _onnx_part(role: str, file_name: str, num_bytes: int, build: Callable[[], onnx.ModelProto]) -> Part:
    return Part(role, file_name, num_bytes, lambda path, _tick: onnx.save(build(), path))


def _table_part(role: str, rows: Rows, *, half: bool) -> Part:
    dtype = np.dtype(np.float16 if half else np.float32)

    def write(path: Path, tick: Callable[[int, int], None]) -> None:
        with path.open("wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(rows.shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                tick(start, len(rows))
                with np.errstate(over="ignore"):
                    stored = rows[start : start + _ROWS_AT_ONCE].astype(dtype)
                if not np.isfinite(stored).all():
                    raise ModelError(f"{role}: rows from {start} on do not fit float16; convert with --quant f32")
                file.write(np.ascontiguousarray(stored).data)
        tick(len(rows), len(rows))

    return Part(role, f"{role}.npy", rows.shape[0] * rows.shape[1] * dtype.itemsize, write)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
