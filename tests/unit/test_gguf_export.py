"""Transformers as GGUF files: keys, types, and the order of q and k that llama.cpp expects."""

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from reference_starter import SMALL, random_checkpoint, save_checkpoint

from quantize.convert import read_checkpoint
from quantize.gguf_writer import QUANT_TYPES, interleave_heads, write_gguf


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A small random backbone."""
    return read_checkpoint(
        save_checkpoint(random_checkpoint(SMALL, seed=4), tmp_path_factory.mktemp("checkpoint"))
    ).backbone


def test_interleaving_puts_rotary_pairs_next_to_each_other():
    """Rows i and i + half of a head become rows 2i and 2i + 1 of the same head."""
    heads, head_dim = 3, 8
    rows = np.arange(heads * head_dim, dtype=np.float32)[:, None]
    mixed = interleave_heads(rows, heads)[:, 0].reshape(heads, head_dim // 2, 2)
    assert (mixed[..., 1] - mixed[..., 0] == head_dim // 2).all()
    assert (mixed[..., 0] == np.arange(heads)[:, None] * head_dim + np.arange(head_dim // 2)).all()


@pytest.mark.parametrize("quant", QUANT_TYPES)
def test_file_says_what_llama_cpp_needs(backbone, tmp_path, quant):
    """Keys, tensor types and values are there; norms are float32, matrices of the type that was asked for."""
    write_gguf(tmp_path / "backbone.gguf", backbone, name="test", quant=quant, context=77)
    reader = gguf.GGUFReader(tmp_path / "backbone.gguf")
    keys = {name: field.contents() for name, field in reader.fields.items()}
    assert keys["general.architecture"] == "llama"
    assert keys["tokenizer.ggml.model"] == "none"
    assert keys["llama.vocab_size"] == 8
    assert keys["llama.context_length"] == 77
    assert keys["llama.block_count"] == SMALL.layers
    assert keys["llama.rope.dimension_count"] == SMALL.width // keys["llama.attention.head_count"]
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert "output.weight" not in tensors
    for name, tensor in tensors.items():
        plain = name.endswith("norm.weight") or name == "token_embd.weight"
        assert tensor.tensor_type == (GGMLQuantizationType.F32 if plain else QUANT_TYPES[quant]), name
    value = gguf.dequantize(tensors["blk.1.ffn_up.weight"].data, QUANT_TYPES[quant])
    assert np.abs(value - backbone.layers[1].ffn_up).max() < np.abs(backbone.layers[1].ffn_up).max() / 7
