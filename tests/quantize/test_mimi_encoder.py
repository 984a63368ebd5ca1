"""Mimi's ONNX encoder against transformers' encode: the same codes."""

import numpy as np
import onnx
import pytest
import torch
from bundle_stages import open_onnx
from reference_mimi import FRAME, encode, mimi_model, quantizers, random_sound, save_transformers, small_mimi
from transformers import MimiConfig

from quantize import mimi
from quantize.checkpoint import Checkpoint
from quantize.mimi_encoder import build_mimi_encoder


@pytest.fixture(scope="module")
def model():
    """Random weights in transformers, with the window of the real one."""
    torch.set_num_threads(1)
    return small_mimi(seed=4, window=250)


@pytest.fixture(scope="module")
def codec(model, tmp_path_factory):
    """The same as the converter reads them."""
    folder = save_transformers(model, tmp_path_factory.mktemp("mimi"))
    return mimi.read(Checkpoint(folder), config=model.config.to_dict())


def encode_onnx(codec, pcm, *, half=False):
    """Codes int64 [1, Q, T] of the exported encoder."""
    return open_onnx(build_mimi_encoder(codec, half=half).SerializeToString()).run(None, {"pcm": pcm})[0]


@pytest.mark.parametrize("num_frames", [1, 5, 150])
def test_codes_are_the_reference_s(model, codec, num_frames):
    """A frame, a few, and 12 s (longer than the window): every code is transformers'."""
    pcm = random_sound(num_frames)
    expected = encode(model, pcm)
    found = encode_onnx(codec, pcm)
    assert expected.shape == (1, 8, num_frames)
    assert found.dtype == np.int64
    assert num_frames == 1 or min(len(np.unique(row)) for row in expected[0]) > 2
    np.testing.assert_array_equal(found, expected)


def test_silence_is_encoded_as_the_reference_does(model, codec):
    """A recording of zeros is no special case."""
    pcm = np.zeros((1, 3 * FRAME), np.float32)
    np.testing.assert_array_equal(encode_onnx(codec, pcm), encode(model, pcm))


@pytest.mark.parametrize("window", [249, 251])
def test_a_window_off_by_one_changes_codes(model, tmp_path, window):
    """The comparison is sharp: with one step more or less in sight, codes differ once the window is full."""
    folder = save_transformers(model, tmp_path)
    wrong = mimi.read(Checkpoint(folder), config=model.config.to_dict() | {"sliding_window": window})
    pcm = random_sound(600)
    found, expected = encode_onnx(wrong, pcm), encode(model, pcm)
    np.testing.assert_array_equal(found[..., :120], expected[..., :120])
    assert (found != expected).any()


def test_float16_storage_halves_the_weights_and_keeps_most_codes(model, codec):
    """Codes change only where two vectors are about as near."""
    small, large = (build_mimi_encoder(codec, half=half) for half in (True, False))
    assert small.ByteSize() < 0.6 * large.ByteSize()
    pcm = random_sound(50)
    assert np.mean(encode_onnx(codec, pcm, half=True) != encode(model, pcm)) < 0.05


def test_the_model_passes_the_strict_checker(codec):
    """Shapes are inferred and agree with what the model declares."""
    onnx.checker.check_model(build_mimi_encoder(codec, half=True), full_check=True)


def distances(model, pcm, codes):
    """Squared distance float64 [Q, T] of what each codebook is given from the vector that ``codes`` names."""
    with torch.no_grad():
        latents = model.encoder(torch.from_numpy(pcm)[:, None]).latents[0].double()
        found, rows = [], iter(torch.from_numpy(codes[0]))
        for quantizer in quantizers(model):
            rest = quantizer.input_proj.weight[..., 0].double() @ latents
            for layer in quantizer.layers:
                rest = rest - layer.codebook.embed.double()[next(rows)].T
                found.append(rest.square().sum(dim=0))
        return torch.stack(found).numpy()


@pytest.mark.slow
def test_true_shape_gives_the_reference_s_codes(tmp_path):
    """4 s in kyutai/mimi's shape: where a frame's codes begin to differ, two vectors are equally near in float64."""
    model = mimi_model(MimiConfig(), seed=5)
    codec = mimi.read(Checkpoint(save_transformers(model, tmp_path)))
    pcm = random_sound(50)
    found, expected = encode_onnx(codec, pcm), encode(model, pcm)
    differs = found != expected
    assert differs.mean() < 0.005
    near, nearest = distances(model, pcm, found), distances(model, pcm, expected)
    for frame in np.flatnonzero(differs[0].any(axis=0)):
        book = np.argmax(differs[0, :, frame])
        assert near[book, frame] == pytest.approx(nearest[book, frame], rel=1e-6)
