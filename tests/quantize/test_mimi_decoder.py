"""Mimi's streaming ONNX decoder against transformers' one-shot decode, however the frames are grouped."""

import numpy as np
import onnx
import pytest
import torch
from bundle_stages import open_onnx, relative_error
from hypothesis import example, given
from hypothesis import strategies as st
from reference_mimi import FRAME, decode, mimi_model, random_codes, save_transformers, small_mimi, stream, zero_states
from transformers import MimiConfig

from quantize import mimi
from quantize.checkpoint import Checkpoint
from quantize.mimi_decoder import build_mimi_decoder

FRAMES = 26
"""Of two steps each: more than twice the small model's window of 20."""


@pytest.fixture(scope="module")
def model():
    """Random weights in transformers."""
    torch.set_num_threads(1)
    return small_mimi(seed=3)


@pytest.fixture(scope="module")
def codec(model, tmp_path_factory):
    """The same as the converter reads them."""
    folder = save_transformers(model, tmp_path_factory.mktemp("mimi"))
    return mimi.read(Checkpoint(folder), config=model.config.to_dict())


@pytest.fixture(scope="module")
def session(codec):
    """The exported decoder, float32."""
    return open_onnx(build_mimi_decoder(codec, half=False).SerializeToString())


@pytest.fixture(scope="module")
def codes(model):
    """Codes of speech longer than the window."""
    return random_codes(model, FRAMES)


@pytest.fixture(scope="module")
def truth(model, codes):
    """What transformers decodes from them."""
    return decode(model, codes)


def steps_of_pcm16(found, expected):
    """The largest difference in steps of PCM16."""
    return np.abs(found - expected).max() * 32767


@given(cuts=st.sets(st.integers(1, FRAMES - 1)))
@example(cuts=set())
@example(cuts=set(range(1, FRAMES)))
def test_any_grouping_equals_the_reference(session, codes, truth, cuts):
    """One at a time, in groups or all at once, beyond the window too: transformers' samples, to 1e-5 and 1 LSB."""
    groups = np.diff([0, *sorted(cuts), FRAMES]).tolist()
    found = stream(session, codes, groups)
    assert relative_error(found, truth) < 1e-5
    assert steps_of_pcm16(found, truth) < 1


def test_every_frame_gives_its_samples_at_once(session, codes, truth):
    """From the first frame on, a frame is 1920 samples and needs nothing that follows it."""
    assert stream(session, codes, [1] * FRAMES).shape == (FRAMES * FRAME,)
    assert relative_error(stream(session, codes[..., :1], [1]), truth[:FRAME]) < 1e-5


def test_an_hour_in_nothing_has_drifted(session, codes):
    """Speech that begins at step 90,000 is that which begins at step 0: only distances count."""
    states = zero_states(session)
    states["position"][:] = 90_000
    assert relative_error(stream(session, codes, [1] * FRAMES, states), stream(session, codes, [1] * FRAMES)) < 1e-5


def test_positions_and_cached_count_steps(session, codes):
    """The counters go on by the steps of a call, the number of cached keys up to the window less one."""
    names = [entry.name for entry in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, {"codes": codes[..., :7], **zero_states(session)}), strict=True))
    assert (outputs["position_next"].item(), outputs["cached_next"].item()) == (14, 14)
    outputs = dict(zip(names, session.run(None, {"codes": codes, **zero_states(session)}), strict=True))
    assert (outputs["position_next"].item(), outputs["cached_next"].item()) == (2 * FRAMES, 19)


def test_the_states_are_those_of_the_architecture(session):
    """Every state comes back as NAME_next, its type and shape fixed; there is one for each place that looks back."""
    outputs = {entry.name: (entry.type, entry.shape) for entry in session.get_outputs()}
    shapes = {entry.name: entry.shape for entry in session.get_inputs()}
    for entry in session.get_inputs()[1:]:
        assert outputs.pop(f"{entry.name}_next") == (entry.type, entry.shape)
    assert outputs == {"pcm": ("tensor(float)", [1, "S"])}
    assert shapes == {
        "codes": [1, 8, "T"],
        "upsample_previous": [1, 64],
        "position": [1],
        "cached": [1],
        **{f"layer{layer}_{part}": [4, 19, 16] for layer in range(2) for part in ("keys", "values")},
        "input_previous": [6, 64],
        **{f"stage{stage}_previous": [1, 64 >> stage] for stage in range(4)},
        **{f"residual{stage}_previous": [2, 32 >> stage] for stage in range(4)},
        "output_previous": [2, 4],
    }


STATES = [
    "upsample_previous",
    "layer0_keys",
    "layer1_values",
    "input_previous",
    *(f"{part}{stage}_previous" for stage in range(4) for part in ("stage", "residual")),
    "output_previous",
]


@pytest.mark.parametrize("state", STATES)
def test_a_forgotten_state_is_heard(session, codes, truth, state):
    """The comparison is sharp: a state set to zero between two groups of frames puts it out."""
    names = [entry.name for entry in session.get_outputs()]
    states = zero_states(session)
    first = dict(zip(names, session.run(None, {"codes": codes[..., :13], **states}), strict=True))
    carried = {name: first[f"{name}_next"] for name in states}
    exact = stream(session, codes[..., 13:], [13], carried)
    assert relative_error(exact, truth[13 * FRAME :]) < 1e-5
    carried[state] = np.zeros_like(carried[state])
    assert relative_error(stream(session, codes[..., 13:], [13], carried), truth[13 * FRAME :]) > 1e-4


@pytest.mark.parametrize("window", [19, 21])
def test_a_window_off_by_one_is_heard(model, tmp_path, codes, truth, window):
    """The comparison is sharp: with one step more or less in sight it fails, and only once the window is full."""
    folder = save_transformers(model, tmp_path)
    codec = mimi.read(Checkpoint(folder), config=model.config.to_dict() | {"sliding_window": window})
    found = stream(open_onnx(build_mimi_decoder(codec, half=False).SerializeToString()), codes, [1] * FRAMES)
    assert relative_error(found[: 9 * FRAME], truth[: 9 * FRAME]) < 1e-5
    assert relative_error(found, truth) > 1e-4


def test_float16_storage_halves_the_weights_and_keeps_the_sound(codec, session, codes, truth):
    """Large weights are stored as float16 and computed as float32, states stay float32, within float16's precision."""
    small, large = (build_mimi_decoder(codec, half=half) for half in (True, False))
    assert small.ByteSize() < 0.6 * large.ByteSize()
    assert [list(v.type.tensor_type.shape.dim) for v in small.graph.input] == [
        list(v.type.tensor_type.shape.dim) for v in large.graph.input
    ]
    found = stream(open_onnx(small.SerializeToString()), codes, [1] * FRAMES)
    assert 1e-6 < relative_error(found, truth) < 5e-3


def test_the_model_passes_the_strict_checker(codec):
    """Shapes are inferred and agree with what the model declares."""
    onnx.checker.check_model(build_mimi_decoder(codec, half=True), full_check=True)


@pytest.mark.slow
def test_true_shape_streams_as_the_reference_decodes(tmp_path):
    """150 frames (12 s, beyond the window of 10 s) of kyutai/mimi's shape, one at a time and all at once."""
    model = mimi_model(MimiConfig(), seed=5)
    codec = mimi.read(Checkpoint(save_transformers(model, tmp_path)))
    codes = random_codes(model, 150)
    truth = decode(model, codes)
    session = open_onnx(build_mimi_decoder(codec, half=False).SerializeToString())
    for groups in ([1] * 150, [40, 1, 109], [150]):
        found = stream(session, codes, groups)
        assert relative_error(found, truth) < 1e-4
        assert steps_of_pcm16(found, truth) < 1
    states = zero_states(session)
    states["position"][:] = 90_000
    assert relative_error(stream(session, codes, [1] * 150, states), found) < 1e-5
