"""Transformers as GGUF files: keys, types, the order of q and k that llama.cpp expects, a layer at a time."""

import tracemalloc
from dataclasses import fields, replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from reference_starter import SMALL, random_checkpoint, save_checkpoint

from daemon.engine.llama import LlamaModel
from daemon.errors import ModelError
from quantize import starter
from quantize.checkpoint import Checkpoint
from quantize.gguf_writer import gguf_bytes, interleave_heads, tensor_type, write_gguf
from quantize.recipes import QUANT_TYPES
from quantize.weights import Layer, Lazy, RopeScaling, Transformer

LLAMA3 = RopeScaling(factor=32, low_freq_factor=1, high_freq_factor=4, original_context=8192)
ERRORS = {"f32": 0, "f16": 3e-4, "q8_0": 0.006, "q4_0": 0.095, "q4_k": 0.08}
"""Bounds on a matrix's relative error; tests/unit/test_ggml.py says why."""
WIDTH, FFN, LAYERS = 256, 768, 9


def make_layer(number: int, *, width: int = WIDTH, ffn: int = FFN) -> Layer:
    """A layer that attends with 4 heads over 2, all of 64."""
    rng = np.random.default_rng(number)

    def matrix(rows, columns):
        return rng.standard_normal((rows, columns), dtype=np.float32) / np.float32(columns**0.5)

    return Layer(
        attn_norm=1 + 0.1 * rng.standard_normal(width, dtype=np.float32),
        attn_q=matrix(256, width),
        attn_k=matrix(128, width),
        attn_v=matrix(128, width),
        attn_output=matrix(width, 256),
        ffn_norm=1 + 0.1 * rng.standard_normal(width, dtype=np.float32),
        ffn_gate=matrix(ffn, width),
        ffn_up=matrix(ffn, width),
        ffn_down=matrix(width, ffn),
    )


def make_model(read=make_layer, *, width: int = WIDTH, ffn: int = FFN, layers: int = LAYERS) -> Transformer:
    """Layers are made when they are asked for."""
    return Transformer(
        layers=Lazy(layers, lambda number: read(number, width=width, ffn=ffn)),
        output_norm=np.linspace(0.5, 1.5, width, dtype=np.float32),
        heads=4,
        kv_heads=2,
        head_dim=64,
        ffn=ffn,
        norm_eps=1e-5,
        rope_base=500_000.0,
        rope_scaling=LLAMA3,
        rotate_half=False,
    )


def read_tensors(path):
    """Name -> tensor as gguf-py reads it."""
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def value_of(tensor):
    """Its numbers, float32."""
    return np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A small random backbone of the starter's kind."""
    folder = tmp_path_factory.mktemp("checkpoint")
    return starter.read(Checkpoint(save_checkpoint(random_checkpoint(SMALL, seed=4), folder))).backbone


def test_interleaving_puts_rotary_pairs_next_to_each_other():
    """Rows i and i + half of a head become rows 2i and 2i + 1 of the same head."""
    heads, head_dim = 3, 8
    rows = np.arange(heads * head_dim, dtype=np.float32)[:, None]
    mixed = interleave_heads(rows, heads)[:, 0].reshape(heads, head_dim // 2, 2)
    assert (mixed[..., 1] - mixed[..., 0] == head_dim // 2).all()
    assert (mixed[..., 0] == np.arange(heads)[:, None] * head_dim + np.arange(head_dim // 2)).all()


@pytest.mark.parametrize("quant", ["f32", "f16", "q8_0", "q4_0"])
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
    assert not {"output.weight", "rope_freqs.weight"} & tensors.keys()
    for name, tensor in tensors.items():
        plain = name.endswith("norm.weight") or name == "token_embd.weight"
        assert tensor.tensor_type == (Kind.F32 if plain else Kind[quant.upper()]), name
    value = value_of(tensors["blk.1.ffn_up.weight"])
    assert np.abs(value - backbone.layers[1].ffn_up).max() < np.abs(backbone.layers[1].ffn_up).max() / 7


def test_the_starter_that_ships_is_written_to_the_byte(tmp_path):
    """Its GGUF read back, then written as it is: the same file."""
    shipped = Path(__file__).resolve().parents[2] / "models" / "starter" / "depth_decoder.gguf"
    reader = gguf.GGUFReader(shipped)
    keys = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {tensor.name: value_of(tensor) for tensor in reader.tensors}
    names = [field.name for field in fields(Layer)]
    count = keys["llama.block_count"]
    model = Transformer(
        layers=[Layer(**{n: tensors[f"blk.{number}.{n}.weight"] for n in names}) for number in range(count)],
        output_norm=tensors["output_norm.weight"],
        heads=keys["llama.attention.head_count"],
        kv_heads=keys["llama.attention.head_count_kv"],
        head_dim=keys["llama.attention.key_length"],
        ffn=keys["llama.feed_forward_length"],
        norm_eps=keys["llama.attention.layer_norm_rms_epsilon"],
        rope_base=keys["llama.rope.freq_base"],
        rotate_half=False,
    )
    context = keys["llama.context_length"]
    write_gguf(tmp_path / "again.gguf", model, name=keys["general.name"], quant="q8_0", context=context)
    assert (tmp_path / "again.gguf").read_bytes() == shipped.read_bytes()


@pytest.mark.parametrize("quant", QUANT_TYPES)
def test_every_tensor_reads_back_and_llama_cpp_runs_it(tmp_path, quant):
    """Each is in its place with an error of its type, the size is foretold, and progress ends at the whole."""
    model, ticks = make_model(), []
    path = tmp_path / "model.gguf"
    write_gguf(path, model, name="t", quant=quant, context=64, tick=lambda *tick: ticks.append(tick))
    tensors = read_tensors(path)
    for number in range(LAYERS):
        layer = model.layers[number]
        for field in fields(Layer):
            tensor, wanted = tensors.pop(f"blk.{number}.{field.name}.weight"), getattr(layer, field.name)
            error = np.linalg.norm(value_of(tensor) - wanted) / np.linalg.norm(wanted)
            assert error <= (0 if wanted.ndim == 1 else ERRORS[quant]), tensor.name
    assert tensors.keys() == {"token_embd.weight", "output_norm.weight", "rope_freqs.weight"}
    assert 0 <= gguf_bytes(model, quant) - path.stat().st_size < 20_000
    assert ticks == sorted(ticks)
    assert ticks[-1][0] == ticks[-1][1]
    with LlamaModel(path, num_positions=64, max_batch=8, num_threads=1) as loaded:
        hidden = loaded.prefill(np.random.default_rng(1).standard_normal((8, WIDTH)).astype(np.float32))
        assert np.isfinite(hidden).all()
        assert hidden.any()


def test_q4_k_is_llama_cpps_mixture():
    """attn_v and ffn_down have more bits in the first and last eighth and in every third layer between."""
    kinds = [tensor_type("ffn_down", 8192, "q4_k", layer=n, num_layers=16) for n in range(16)]
    assert [n for n, kind in enumerate(kinds) if kind is Kind.Q6_K] == [0, 1, 4, 7, 10, 13, 14, 15]
    assert set(kinds) == {Kind.Q6_K, Kind.Q4_K}
    assert tensor_type("attn_v", 2048, "q4_k", layer=1, num_layers=16) is Kind.Q6_K
    assert tensor_type("attn_q", 2048, "q4_k", layer=1, num_layers=16) is Kind.Q4_K
    assert tensor_type("attn_norm", 2048, "q4_k", layer=1, num_layers=16) is Kind.F32
    assert tensor_type("ffn_up", 896, "q4_k", layer=0, num_layers=16) is Kind.Q8_0


@pytest.mark.parametrize(
    ("head_dim", "ones", "between"),
    [
        (64, 15, [1.651329, 3.292262, 9.666729]),
        (128, 29, [1.234937, 1.651329, 2.27666, 3.292262, 5.171596, 9.666729]),
    ],
)
def test_rope_freqs_are_llama_3s(tmp_path, head_dim, ones, between):
    """The numbers that llama.cpp divides the frequencies by, for CSM-1B's two sizes of heads."""
    heads = 256 // head_dim
    model = replace(make_model(layers=1), heads=heads, kv_heads=heads // 2, head_dim=head_dim)
    write_gguf(tmp_path / "model.gguf", model, name="t", quant="f32", context=64)
    found = read_tensors(tmp_path / "model.gguf")["rope_freqs.weight"]
    assert found.tensor_type == Kind.F32
    wanted = [1.0] * ones + between + [32.0] * (head_dim // 2 - ones - len(between))
    np.testing.assert_allclose(value_of(found), wanted, rtol=2e-6)


def test_rope_freqs_change_what_llama_cpp_computes(tmp_path):
    """They are not merely stored: without them distant positions come out otherwise."""
    embeddings = np.random.default_rng(1).standard_normal((64, WIDTH)).astype(np.float32)
    hidden = []
    for scaling in (LLAMA3, None):
        model = replace(make_model(layers=2), rope_scaling=scaling)
        write_gguf(tmp_path / "model.gguf", model, name="t", quant="f32", context=64)
        with LlamaModel(tmp_path / "model.gguf", num_positions=64, max_batch=64, num_threads=1, exact=True) as loaded:
            hidden.append(loaded.prefill(embeddings).copy())
    assert np.linalg.norm(hidden[0] - hidden[1]) > 1e-4 * np.linalg.norm(hidden[0])


@pytest.mark.parametrize("quant", ["q8_0", "q4_k"])
def test_layers_are_read_once_in_order_and_not_kept(tmp_path, quant):
    """Memory stays near one layer, however many there are."""
    read = []

    def note(number, **sizes):
        read.append(number)
        return make_layer(number, **sizes)

    layer_bytes = sum(getattr(make_layer(0, width=512, ffn=2048), field.name).nbytes for field in fields(Layer))
    tracemalloc.start()
    try:
        write_gguf(
            tmp_path / "model.gguf", make_model(note, width=512, ffn=2048, layers=6), name="t", quant=quant, context=64
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read == list(range(6))
    assert peak < 2 * layer_bytes


def test_a_tensor_of_another_shape_is_named(tmp_path):
    """Tensor, expected, found; also q, whose rows would have been moved first."""
    model = replace(make_model(), ffn=512)
    with pytest.raises(ModelError, match=r"blk\.0\.ffn_gate\.weight: expected \[512, 256\], found \[768, 256\]"):
        write_gguf(tmp_path / "model.gguf", model, name="t", quant="f32", context=64)
    model = replace(make_model(), heads=3, rotate_half=True)
    with pytest.raises(ModelError, match=r"blk\.0\.attn_q\.weight: expected \[192, 256\], found \[256, 256\]"):
        write_gguf(tmp_path / "model.gguf", model, name="t", quant="f32", context=64)


def test_rows_that_no_block_divides_are_refused_before_anything_is_written(tmp_path):
    """Q8_0 needs multiples of 32: the tensor is named, and there is no file."""
    with pytest.raises(ModelError, match=r"blk\.0\.ffn_down\.weight: .*multiple of 32 for Q8_0, found 500"):
        write_gguf(tmp_path / "model.gguf", make_model(ffn=500), name="t", quant="q8_0", context=64)
    assert not (tmp_path / "model.gguf").exists()
