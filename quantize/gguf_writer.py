"""A transformer as a GGUF file of llama.cpp's ``llama`` architecture: embeddings in, hidden states out."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType

from daemon.values import F32
from quantize.weights import Layer, Transformer

_VOCAB_SIZE = 8
"""llama.cpp wants a vocabulary; the smallest costs nothing and is never used."""

QUANT_TYPES = {
    "f32": GGMLQuantizationType.F32,
    "f16": GGMLQuantizationType.F16,
    "q8_0": GGMLQuantizationType.Q8_0,
    "q4_0": GGMLQuantizationType.Q4_0,
}


def interleave_heads(weight: F32, heads: int) -> F32:
    """Reorder rows of q or k [heads * head_dim, in] from rotate-half pairs (i, i + half) to neighbours (2i, 2i + 1).

    Source: llama.cpp ``convert_hf_to_gguf.py``, ``LlamaModel.permute``.
    """
    half = len(weight) // heads // 2
    return weight.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path: Path, model: Transformer, *, name: str, quant: str, context: int) -> None:
    """Write one transformer; norms and the unused vocabulary stay float32."""
    with closing(gguf.GGUFWriter(path, "llama")) as writer:
        _add_keys(writer, model, name, context)
        writer.add_tensor("token_embd.weight", np.zeros((_VOCAB_SIZE, model.width), np.float32))
        writer.add_tensor("output_norm.weight", model.output_norm)
        for number, layer in enumerate(model.layers):
            for tensor, value in _tensors(layer, model):
                stored = GGMLQuantizationType.F32 if tensor.endswith("_norm") else QUANT_TYPES[quant]
                writer.add_tensor(f"blk.{number}.{tensor}.weight", gguf.quantize(value, stored), raw_dtype=stored)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


def _add_keys(writer: gguf.GGUFWriter, model: Transformer, name: str, context: int) -> None:
    first = model.layers[0]
    head_dim = len(first.attn_q) // model.heads
    writer.add_name(name)
    writer.add_block_count(len(model.layers))
    writer.add_context_length(context)
    writer.add_embedding_length(model.width)
    writer.add_feed_forward_length(len(first.ffn_gate))
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(model.rope_base)
    writer.add_layer_norm_rms_eps(model.norm_eps)
    writer.add_vocab_size(_VOCAB_SIZE)
    writer.add_tokenizer_model("none")


def _tensors(layer: Layer, model: Transformer) -> Iterator[tuple[str, F32]]:
    """The layer's tensors by llama.cpp's names, which the fields of ``Layer`` are."""
    for field in fields(layer):
        value = getattr(layer, field.name)
        if model.rotate_half and field.name == "attn_q":
            value = interleave_heads(value, model.heads)
        elif model.rotate_half and field.name == "attn_k":
            value = interleave_heads(value, model.kv_heads)
        yield field.name, value
