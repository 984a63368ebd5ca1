"""Mimi checkpoints of both publishers: read alike, and what is missing or misshapen is named."""

import re
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from reference_mimi import save_moshi, save_transformers, small_mimi
from safetensors.torch import load_file, save_file
from transformers import MimiConfig

from daemon.errors import ModelError
from quantize import mimi
from quantize.checkpoint import Checkpoint

NAME_OF = {"transformers": "model.safetensors", "moshi": "tokenizer-e351c8d8-checkpoint125.safetensors"}


@pytest.fixture(scope="module")
def model():
    """Random weights in transformers."""
    return small_mimi(seed=6)


@pytest.fixture(scope="module")
def folders(model, tmp_path_factory):
    """The same checkpoint by either publisher's names."""
    parent = tmp_path_factory.mktemp("mimi")
    save_transformers(model, parent / "transformers")
    (parent / "moshi").mkdir()
    save_moshi(model, parent / "moshi")
    return {name: parent / name / NAME_OF[name] for name in NAME_OF}


@pytest.fixture(scope="module")
def config(model):
    """The model's configuration."""
    return model.config.to_dict()


def arrays(part, path="codec"):
    """All arrays and numbers of a tree of weights with their paths."""
    if isinstance(part, list):
        for number, entry in enumerate(part):
            yield from arrays(entry, f"{path}.{number}")
    elif hasattr(part, "__dataclass_fields__"):
        for field in fields(part):
            yield from arrays(getattr(part, field.name), f"{path}.{field.name}")
    else:
        yield path, part


def assert_same(found, expected):
    """Every array and number is the same."""
    for (path, one), (other_path, other) in zip(arrays(found), arrays(expected), strict=True):
        assert path == other_path
        np.testing.assert_array_equal(one, other, err_msg=path)


def test_both_publishers_names_give_the_same_weights(folders, config):
    """Fused and interleaved q, k, v of moshi are transformers' own, to the bit."""
    assert_same(
        mimi.read(Checkpoint(folders["moshi"]), config=config),
        mimi.read(Checkpoint(folders["transformers"]), config=config),
    )


def test_a_prefix_gives_the_same_weights(folders, config, tmp_path):
    """The codec inside CSM's checkpoint is the codec alone."""
    state = load_file(folders["transformers"])
    path = tmp_path / "model.safetensors"
    save_file({f"codec_model.{name}": value for name, value in state.items()}, path)
    inside = Checkpoint(path)
    assert mimi.recognises(inside, "codec_model.")
    assert not mimi.recognises(inside)
    alone = mimi.read(Checkpoint(folders["transformers"]), config=config)
    assert_same(mimi.read(inside, "codec_model.", config), alone)


def test_codebooks_are_means_and_scales_are_folded(model, folders, config):
    """A codebook is its sums over their counts, of at least 1e-5; layer scales are within the matrices."""
    codec = mimi.read(Checkpoint(folders["transformers"]), config=config)
    book = model.quantizer.acoustic_residual_vector_quantizer.layers[2].codebook
    np.testing.assert_allclose(codec.acoustic.codebooks[2], book.embed.numpy(), rtol=1e-6)
    assert book.cluster_usage[3] < 1e-5
    layer = model.decoder.decoder_transformer.layers[1]
    expected = (layer.mlp_layer_scale.scale[:, None] * layer.mlp.fc2.weight).detach().numpy()
    np.testing.assert_array_equal(codec.decoder_transformer.layers[1].contract, expected)


def test_the_configuration_gives_what_shapes_do_not_tell(folders, config):
    """Heads, window, rotary base and strides are the configuration's."""
    codec = mimi.read(Checkpoint(folders["transformers"]), config=config)
    transformer = codec.encoder_transformer
    assert (transformer.heads, transformer.window, transformer.rope_base) == (4, 20, 10_000.0)
    assert [stage.resample.stride for stage in codec.encoder_stages] == [4, 5, 6, 8]
    assert (codec.num_codebooks, codec.codebook_size, codec.samples_per_frame) == (8, 64, 1920)
    other = config | {"rope_parameters": None, "rope_theta": 500.0, "norm_eps": 1e-6}
    transformer = mimi.read(Checkpoint(folders["transformers"]), config=other).decoder_transformer
    assert (transformer.rope_base, transformer.norm_eps) == (500.0, 1e-6)


def kinds(path):
    """One tensor's name of every kind: of numbered ones the last."""
    last = {re.sub(r"\d+", "N", name) + name[:8]: name for name in sorted(load_file(path))}
    return [name for name in last.values() if "initialized" not in name]


@pytest.mark.parametrize("layout", NAME_OF)
def test_what_is_missing_or_misshapen_is_named(folders, config, tmp_path, layout):
    """Without any one tensor, or with one of it too large, the codec is refused and the tensor named."""
    state, path = load_file(folders[layout]), tmp_path / "model.safetensors"
    names = kinds(folders[layout])
    assert len(names) > 30
    for name in names:
        rest = {other: value for other, value in state.items() if other != name}
        save_file(rest, path)
        with pytest.raises(ModelError, match=rf"^tensor {re.escape(name)}: expected \[.*\], found no such tensor"):
            mimi.read(Checkpoint(path), config=config)
        save_file(rest | {name: torch.zeros([*state[name].shape, 1])}, path)
        with pytest.raises(ModelError, match=rf"^tensor {re.escape(name)}: expected \[.*\], found \["):
            mimi.read(Checkpoint(path), config=config)


def test_a_reduced_model_without_its_configuration_is_refused(folders):
    """The published model's constants are assumed, and what does not fit them is named."""
    with pytest.raises(ModelError, match=r"quantizer\.acoustic.*layers\.7.*found no such tensor"):
        mimi.read(Checkpoint(folders["transformers"]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_attention_heads": 0}, "num_attention_heads: expected a positive number, found 0"),
        ({"sliding_window": "250"}, "sliding_window: expected a positive number, found '250'"),
        ({"norm_eps": float("nan")}, "norm_eps: expected a positive number, found nan"),
        ({"head_dim": 16.5}, "head_dim: expected a whole number, found 16.5"),
        ({"upsampling_ratios": 8}, "upsampling_ratios: expected a list of strides, found 8"),
        ({"upsampling_ratios": [8, -6]}, "upsampling_ratios: expected a positive number, found -6"),
        ({"rope_parameters": 3}, "rope_parameters: expected a table, found 3"),
        ({"num_semantic_quantizers": 8}, "num_semantic_quantizers: expected below 8, found 8"),
        ({"upsampling_ratios": [8, 6, 5, 3]}, r"tensor decoder.layers.11.conv.weight: expected \[8, any, 6\], found"),
        ({"num_hidden_layers": 3}, "tensor .*_transformer.layers.2.* found no such tensor"),
        (
            {"num_hidden_layers": 1},
            r"num_hidden_layers: expected 2 by the tensors decoder_transformer\.layers\.N, found 1",
        ),
        ({"hidden_act": "silu"}, "hidden_act: expected 'gelu', found 'silu'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type: expected 'default', found 'yarn'"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "type: expected 'default', found 'linear'"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(folders, config, change, said):
    """What was edited by hand is named with what it should be."""
    with pytest.raises(ModelError, match=said):
        mimi.read(Checkpoint(folders["transformers"]), config=config | change)


def test_null_is_as_good_as_nothing(folders, config):
    """A configuration that says null leaves the published model's constants."""
    other = config | {"sliding_window": None, "norm_eps": None}
    transformer = mimi.read(Checkpoint(folders["transformers"]), config=other).decoder_transformer
    assert (transformer.window, transformer.norm_eps) == (250, 1e-5)


@pytest.mark.parametrize(
    ("layout", "changes"),
    [
        (
            "transformers",
            ("quantizer.acoustic_residual_vector_quantizer.layers.0.codebook", "embed_sum", "cluster_usage"),
        ),
        ("moshi", ("quantizer.rvq_rest.vq.layers.0._codebook", "embedding_sum", "cluster_usage")),
        ("transformers", ("decoder_transformer.layers.0", "self_attn_layer_scale.scale", "self_attn.o_proj.weight")),
        ("moshi", ("decoder_transformer.transformer.layers.0", "layer_scale_1.scale", "self_attn.out_proj.weight")),
    ],
)
def test_overflow_by_what_is_divided_or_scaled_is_refused(folders, config, tmp_path, layout, changes):
    """A count of zero under a sum that is not, or too large a scale: the tensor is named, and numpy is silent."""
    prefix, large, other = changes
    state = load_file(folders[layout])
    state[f"{prefix}.{large}"][3] = 1e38
    state[f"{prefix}.{other}"][3] = 0 if "usage" in other else 1e3
    save_file(state, tmp_path / "model.safetensors")
    said = rf"^tensor {re.escape(prefix)}\.{re.escape(large)}, .*: expected finite numbers, found NaN or infinity"
    with pytest.raises(ModelError, match=said):
        mimi.read(Checkpoint(tmp_path), config=config)


def test_only_mimi_is_recognised(folders, tmp_path):
    """Either layout is, also with a tensor missing; anything else is not."""
    state = load_file(folders["moshi"])
    state.pop("downsample.conv.conv.conv.weight")
    save_file(state, tmp_path / "model.safetensors")
    assert mimi.recognises(Checkpoint(folders["transformers"]))
    assert mimi.recognises(Checkpoint(tmp_path))
    save_file({"decoder.layers.0.conv.weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    assert not mimi.recognises(Checkpoint(tmp_path))


def test_the_published_configuration_is_the_default():
    """transformers' own defaults are kyutai/mimi: what is assumed where there is no configuration."""
    published = MimiConfig().to_dict()
    assert mimi._constants(published) == replace(mimi._constants({}), head_dim=64)
    assert published["hidden_size"] // published["num_attention_heads"] == 64
