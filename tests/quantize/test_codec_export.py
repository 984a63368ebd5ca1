"""The streaming ONNX codec decoder against PyTorch, however the frames are grouped."""

import numpy as np
import onnx
import pytest
import torch
from bundle_stages import DELAY_SAMPLES_OF, open_onnx, relative_error
from hypothesis import given
from hypothesis import strategies as st
from reference_starter import SMALL, Reference, random_checkpoint, save_checkpoint

from quantize.codec_export import build_codec_decoder
from quantize.convert import read_checkpoint

FRAMES = 9
DELAY = DELAY_SAMPLES_OF[SMALL.fft_size]
CODES = torch.randint(SMALL.codebook_size, (FRAMES, SMALL.codebooks), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def tensors():
    """Random weights."""
    return random_checkpoint(SMALL, seed=7)


@pytest.fixture(scope="module")
def codec(tensors, tmp_path_factory):
    """The codec's weights as the converter reads them."""
    return read_checkpoint(save_checkpoint(tensors, tmp_path_factory.mktemp("checkpoint"))).codec


@pytest.fixture(scope="module")
def session(codec):
    """The exported decoder, float32."""
    return open_onnx(build_codec_decoder(codec, half=False).SerializeToString())


def decode_groups(session, groups):
    """PCM of CODES decoded in groups of these sizes, with the tail."""
    names = [entry.name for entry in session.get_outputs()]
    states = {entry.name: np.zeros(entry.shape, np.float32) for entry in session.get_inputs()[1:]}
    pieces, start = [], 0
    for size in groups:
        part = CODES[start : start + size].numpy().T[None]
        outputs = dict(zip(names, session.run(None, {"codes": part, **states}), strict=True))
        states = {name: outputs[f"{name}_next"] for name in states}
        assert outputs["pcm"].shape == (1, size * SMALL.steps * SMALL.fft_size // 4)
        pieces.append(outputs["pcm"][0])
        start += size
    return np.concatenate([*pieces, states["overlap"].reshape(-1)[:DELAY]])[DELAY:]


def test_whole_decode_equals_pytorch(session, tensors):
    """All frames at once, delay dropped and tail flushed, are PyTorch's samples."""
    expected = Reference(tensors, SMALL).decode(CODES).numpy()
    assert relative_error(decode_groups(session, [FRAMES]), expected) < 1e-5


@given(cuts=st.sets(st.integers(1, FRAMES - 1)))
def test_any_grouping_gives_the_same_samples(session, cuts):
    """Wherever the frames are cut, the samples are the same to one step of PCM16 at full scale."""
    edges = [0, *sorted(cuts), FRAMES]
    whole = decode_groups(session, [FRAMES])
    scale = 32767 / np.abs(whole).max()
    assert np.abs(decode_groups(session, np.diff(edges).tolist()) - whole).max() * scale < 1


def test_states_have_fixed_shapes_and_come_back(session):
    """Every state goes in with a fixed shape and comes out under NAME_next; only codes are free in length."""
    codes, *states = session.get_inputs()
    outputs = {entry.name: entry.shape for entry in session.get_outputs()}
    assert (codes.name, codes.shape) == ("codes", [1, SMALL.codebooks, "T"])
    assert outputs.keys() - {"pcm"} == {f"{state.name}_next" for state in states}
    for state in states:
        assert all(isinstance(size, int) for size in state.shape)
        assert outputs[f"{state.name}_next"] == state.shape


def test_float16_storage_halves_the_weights_and_keeps_the_sound(codec, session):
    """Matrices are stored as float16, computed as float32, within float16's precision."""
    half = build_codec_decoder(codec, half=True)
    stored = {onnx.helper.tensor_dtype_to_np_dtype(entry.data_type) for entry in half.graph.initializer}
    assert np.dtype(np.float16) in stored
    pcm = decode_groups(open_onnx(half.SerializeToString()), [FRAMES])
    assert relative_error(pcm, decode_groups(session, [FRAMES])) < 3e-3


def test_bins_that_cannot_sound_are_left_out(tensors, tmp_path):
    """A codec trained for less bandwidth gets smaller matrices, and PyTorch's samples all the same."""
    narrow = {name: value.clone() for name, value in tensors.items()}
    narrow["dec.o.weight"][30:49] = 0
    narrow["dec.o.bias"][30:49] = -20
    made = build_codec_decoder(read_checkpoint(save_checkpoint(narrow, tmp_path)).codec, half=False)
    shapes = {tuple(entry.dims) for entry in made.graph.initializer}
    assert {(60, SMALL.codec_width), (30, SMALL.fft_size // 2 + 1)} < shapes
    expected = Reference(narrow, SMALL).decode(CODES).numpy()
    assert relative_error(decode_groups(open_onnx(made.SerializeToString()), [FRAMES]), expected) < 1e-5


def test_magnitudes_are_clamped(tensors, tmp_path):
    """Wild log magnitudes cannot overflow: they are clamped as in PyTorch."""
    wild = tensors | {"dec.o.bias": tensors["dec.o.bias"] + 200}
    codec = read_checkpoint(save_checkpoint(wild, tmp_path)).codec
    pcm = decode_groups(open_onnx(build_codec_decoder(codec, half=False).SerializeToString()), [FRAMES])
    assert relative_error(pcm, Reference(wild, SMALL).decode(CODES).numpy()) < 1e-4
