"""The files of a bundle one by one: how large each will be, and how it is computed when it is written."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from quantize.bundle_writer import Part
from quantize.codec_check import describe, write_test_vector
from quantize.codec_export import build_codec_decoder
from quantize.gguf_writer import gguf_bytes, write_gguf
from quantize.half import stored
from quantize.heads import build_heads, heads_bytes
from quantize.mimi_decoder import build_mimi_decoder
from quantize.mimi_encoder import build_mimi_encoder
from quantize.mimi_weights import MimiCodec
from quantize.progress import Tick
from quantize.weights import Codec, Rows, SpeechModel, Transformer

_ROWS_AT_ONCE = 4096
_DECODER, _ENCODER = "codec_decoder.onnx", "codec_encoder.onnx"


def gguf_part(role: str, model: Transformer, name: str, *, quant: str, context: int) -> Part:
    """A transformer.

    Raises:
        ModelError: its rows do not fit ``quant``.
    """
    return Part(
        role,
        f"{role}.gguf",
        gguf_bytes(model, quant),
        lambda path, tick: write_gguf(path, model, name=f"{name} {role}", quant=quant, context=context, tick=tick),
    )


def heads_part(speech: SpeechModel, *, bits: int) -> Part:
    """All heads.

    Raises:
        ModelError: their rows do not divide into blocks.
    """
    return _onnx_part("heads", "heads.onnx", heads_bytes(speech, bits=bits), lambda: build_heads(speech, bits=bits))


def table_part(role: str, rows: Rows, *, half: bool) -> Part:
    """A table of embeddings, written some rows at a time."""
    dtype = np.dtype(np.float16 if half else np.float32)

    def write(path: Path, tick: Tick) -> None:
        with path.open("wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(rows.shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                tick(start, len(rows))
                some = stored(rows[start : start + _ROWS_AT_ONCE], f"{role}, rows from {start} on", half=half)
                file.write(np.ascontiguousarray(some).data)
        tick(len(rows), len(rows))

    return Part(role, f"{role}.npy", rows.shape[0] * rows.shape[1] * dtype.itemsize, write)


def text_part(role: str, file_name: str, text: str) -> Part:
    """A text."""
    return Part(role, file_name, len(text), lambda path, _tick: _write_text(path, text))


def codec_parts(codec: Codec | MimiCodec, *, half: bool) -> list[Part]:
    """The decoder; with Mimi also the encoder, a description of both and a test vector."""
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


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
