"""The heads' ONNX file: the right head for every index, and nothing of the others."""

import numpy as np
import onnx
import pytest
from bundle_stages import open_onnx, relative_error
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reference_starter import SMALL, random_checkpoint, save_checkpoint

from quantize.convert import read_checkpoint
from quantize.heads import build_heads, quantize_blocks

RANDOM = np.random.default_rng(2)
BACKBONE_HIDDEN = RANDOM.standard_normal((1, SMALL.width), np.float32)
DEPTH_HIDDEN = RANDOM.standard_normal((1, SMALL.depth_width), np.float32)


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A small random model."""
    return read_checkpoint(save_checkpoint(random_checkpoint(SMALL, seed=9), tmp_path_factory.mktemp("checkpoint")))


def run(session, index):
    """Logits and depth input of one head."""
    feeds = {"backbone_hidden": BACKBONE_HIDDEN, "depth_hidden": DEPTH_HIDDEN, "index": np.array(index, np.int64)}
    return session.run(None, feeds)


@pytest.mark.parametrize(("bits", "bound"), [(32, 1e-6), (8, 2e-2)])
def test_every_index_runs_its_own_head(speech, bits, bound):
    """Index 0 is codebook 0's head and the projection; index k is codebook k's head and passes its input through."""
    session = open_onnx(build_heads(speech, bits=bits).SerializeToString())
    logits, depth_input = run(session, 0)
    assert relative_error(logits, BACKBONE_HIDDEN @ speech.codebook0_head.T) < 1e-6
    assert relative_error(depth_input, BACKBONE_HIDDEN @ speech.projection.T) < 1e-6
    for index in range(1, SMALL.codebooks):
        logits, depth_input = run(session, index)
        assert relative_error(logits[:, :-1], DEPTH_HIDDEN @ speech.depth_heads[index - 1].T) < bound
        assert logits[0, -1] == 0.0, "the padding"
        assert np.array_equal(depth_input, DEPTH_HIDDEN)


def test_choice_is_a_binary_tree_and_weights_stay_in_their_branch(speech):
    """The path to a head is logarithmic, and no weight lies where another head's call would touch it."""
    graph = build_heads(speech, bits=8).graph
    assert depth_of(graph) == int(np.ceil(np.log2(SMALL.codebooks)))
    assert max((np.prod(entry.dims) for entry in graph.initializer), default=1) == 1


def depth_of(graph: onnx.GraphProto) -> int:
    """How many choices lie above the deepest head."""
    branches = [branch.g for node in graph.node if node.op_type == "If" for branch in node.attribute]
    return 1 + max(depth_of(branch) for branch in branches) if branches else 0


@given(weight=arrays(np.float32, (3, 64), elements=st.integers(-128, 128).map(lambda n: n / 16)))
def test_quantized_blocks_are_within_half_a_step(weight):
    """Dequantised weights differ by half a step at most; blocks of zeros stay zeros."""
    packed, scales = quantize_blocks(weight)
    restored = ((packed.astype(np.float32) - 128) * scales[..., None]).reshape(weight.shape)
    assert (np.abs(restored - weight) <= np.repeat(scales, 32, axis=1) * 0.501).all()
