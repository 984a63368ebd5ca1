"""A transformer as a GGUF file of llama.cpp's ``llama`` architecture: embeddings in, hidden states out.

The file's plan is made from shapes alone; then every layer is read once, in order, and let go of.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType

from daemon.errors import ModelError
from daemon.values import F32
from quantize.ggml import quantize, row_bytes
from quantize.progress import Tick, no_tick
from quantize.weights import Shapes, Transformer

_VOCAB_SIZE = 8
"""llama.cpp wants a vocabulary; the smallest costs nothing and is never used."""
_F32 = GGMLQuantizationType.F32


def interleave_heads(weight: F32, heads: int) -> F32:
    """Reorder rows of q or k [heads * head_dim, in] from rotate-half pairs (i, i + half) to neighbours (2i, 2i + 1).

    Source: llama.cpp ``convert_hf_to_gguf.py``, ``LlamaModel.permute``.
    """
    half = len(weight) // heads // 2
    return weight.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(weight.shape)


def tensor_type(tensor: str, width: int, quant: str, *, layer: int, num_layers: int) -> GGMLQuantizationType:
    """How a tensor of a layer is stored: norms as float32; ``q4_k`` is the mixture that llama.cpp calls Q4_K_M.

    That one gives attn_v and ffn_down more bits in the first and last eighth of the layers and in every third between.
    Rows that the blocks of 256 do not divide are stored as Q8_0.

    Source: llama.cpp src/llama-quant.cpp, ``llama_tensor_get_type_impl``, ``use_more_bits``.
    """
    if tensor.endswith("_norm"):
        return _F32
    kind = GGMLQuantizationType[quant.upper()]
    if kind is not GGMLQuantizationType.Q4_K:
        return kind
    if width % gguf.QK_K:
        return GGMLQuantizationType.Q8_0
    eighth = num_layers // 8
    more_bits = layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2
    return GGMLQuantizationType.Q6_K if more_bits and tensor in {"attn_v", "ffn_down"} else kind


def write_gguf(path: Path, model: Transformer, *, name: str, quant: str, context: int, tick: Tick = no_tick) -> None:
    """Write one transformer; norms and the unused vocabulary stay float32. One layer at a time is in memory.

    Raises:
        ModelError: a tensor is not of the shape that the model's sizes say, or its rows or numbers do not fit
            ``quant``.
    """
    plan = _plan(model, quant)
    total, done = sum(_stored_bytes(shape, kind) for shape, kind in plan.values()), 0
    with closing(gguf.GGUFWriter(path, "llama")) as writer:
        _add_keys(writer, model, name, context)
        for tensor, (shape, kind) in plan.items():
            writer.add_tensor_info(tensor, shape, np.dtype(np.float32), _stored_bytes(shape, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor, value in _tensors(model):  # in the order of the plan, which is that of the file
            shape, kind = plan[tensor]
            if value.shape != shape:
                raise ModelError(f"tensor {tensor}: expected {list(shape)}, found {list(value.shape)}")
            try:
                stored = quantize(np.atleast_2d(_arranged(tensor, value, model)), kind)
            except ModelError as err:
                raise ModelError(f"{path.name}, tensor {tensor}: {err}") from err
            writer.write_tensor_data(stored)
            done += stored.nbytes
            tick(done, total)


def gguf_bytes(model: Transformer, quant: str) -> int:
    """How large ``write_gguf`` makes the file: at most some kilobytes less than this.

    Raises:
        ModelError: rows do not fit ``quant``.
    """
    tensors = _plan(model, quant).values()
    padded = sum(gguf.GGUFWriter.ggml_pad(_stored_bytes(*tensor), gguf.GGUF_DEFAULT_ALIGNMENT) for tensor in tensors)
    return padded + 128 * len(tensors) + 4096  # a line of the index each, and the keys


def _plan(model: Transformer, quant: str) -> dict[str, tuple[tuple[int, ...], GGMLQuantizationType]]:
    """Name -> shape and type of every tensor in the file, in order."""
    plan = {tensor: (shape, _F32) for tensor, shape in _outer_shapes(model).items()}
    num_layers = len(model.layers)
    for number in range(num_layers):
        for tensor, shape in model.layer_shapes().items():
            kind = tensor_type(tensor, shape[-1], quant, layer=number, num_layers=num_layers)
            plan[f"blk.{number}.{tensor}.weight"] = (shape, kind)
    for tensor, (shape, kind) in plan.items():
        try:
            row_bytes(shape[-1], kind)
        except ModelError as err:
            raise ModelError(f"tensor {tensor}: {err}") from err
    return plan


def _outer_shapes(model: Transformer) -> Shapes:
    shapes: Shapes = {"token_embd.weight": (_VOCAB_SIZE, model.width), "output_norm.weight": (model.width,)}
    if model.rope_scaling:
        shapes["rope_freqs.weight"] = (model.head_dim // 2,)
    return shapes


def _stored_bytes(shape: tuple[int, ...], kind: GGMLQuantizationType) -> int:
    rows = shape[0] if len(shape) > 1 else 1
    return rows * row_bytes(shape[-1], kind)


def _tensors(model: Transformer) -> Iterator[tuple[str, F32]]:
    """Every tensor of the file, in the order of ``_plan``."""
    yield "token_embd.weight", np.zeros((_VOCAB_SIZE, model.width), np.float32)
    yield "output_norm.weight", model.output_norm
    if model.rope_scaling:
        # No key of the file speaks of this scaling: without the tensor llama.cpp leaves it out.
        yield "rope_freqs.weight", model.rope_scaling.divisors(model.rope_base, model.head_dim)
    for number in range(len(model.layers)):
        layer = model.layers[number]
        for tensor in model.layer_shapes():
            yield f"blk.{number}.{tensor}.weight", getattr(layer, tensor)
        del layer  # before the next one is read


def _arranged(tensor: str, value: F32, model: Transformer) -> F32:
    """Rows of q and k in the order that llama.cpp rotates them in."""
    if model.rotate_half and tensor.endswith("attn_q.weight"):
        return interleave_heads(value, model.heads)
    if model.rotate_half and tensor.endswith("attn_k.weight"):
        return interleave_heads(value, model.kv_heads)
    return value


def _add_keys(writer: gguf.GGUFWriter, model: Transformer, name: str, context: int) -> None:
    writer.add_name(name)
    writer.add_block_count(len(model.layers))
    writer.add_context_length(context)
    writer.add_embedding_length(model.width)
    writer.add_feed_forward_length(model.ffn)
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.kv_heads)
    writer.add_key_length(model.head_dim)
    writer.add_value_length(model.head_dim)
    writer.add_rope_dimension_count(model.head_dim)
    writer.add_rope_freq_base(model.rope_base)
    writer.add_layer_norm_rms_eps(model.norm_eps)
    writer.add_vocab_size(_VOCAB_SIZE)
    writer.add_tokenizer_model("none")
