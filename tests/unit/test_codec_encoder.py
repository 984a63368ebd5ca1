"""The codec's encoder: codes of a whole recording, and files that are no such encoder."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from voice_bundle import CODEBOOK_SIZE, FRAME, NUM_CODEBOOKS, STARTER, enlist, make_bundle, speech, write_encoder

from daemon.engine.bundle import load_bundle
from daemon.engine.codec_encoder import CodecEncoder
from daemon.errors import EngineError, ModelError


@pytest.fixture
def bundle(tmp_path):
    """A bundle with an encoder."""
    return make_bundle(tmp_path / "bundle")


def test_a_recording_becomes_whole_frames(bundle):
    """One row of codes for each frame begun; what is missing in the last is silence."""
    encoder = CodecEncoder(load_bundle(bundle))
    pcm = speech(1.0)
    codes = encoder.encode(pcm)
    assert (codes.dtype, codes.shape, codes.flags.c_contiguous) == (np.int32, (13, NUM_CODEBOOKS), True)
    padded = np.concatenate([pcm, np.zeros(13 * FRAME - len(pcm), np.float32)])
    np.testing.assert_array_equal(encoder.encode(padded), codes)
    np.testing.assert_array_equal(encoder.encode(pcm[: 12 * FRAME]), codes[:12])


def test_a_bundle_without_encoder_takes_no_voices():
    """The message says so."""
    with pytest.raises(ModelError, match="cannot take new voices: it has no codec encoder"):
        CodecEncoder(load_bundle(STARTER))


@pytest.mark.parametrize("wrong", ["codebooks", "codes", "frames", "decoder", "junk"])
def test_another_file_in_its_place_is_named(bundle, wrong):
    """Whatever it gives that is not the bundle's codes, the file and what was expected are in one line."""
    path = bundle / "codec_encoder.onnx"
    if wrong == "codebooks":
        write_encoder(path, num_codebooks=7)
    elif wrong == "codes":
        write_encoder(path, first_code=CODEBOOK_SIZE)
    elif wrong == "frames":
        write_constant(path, np.zeros((1, NUM_CODEBOOKS, 3), np.int64))
    elif wrong == "decoder":
        path.unlink()
        path.write_bytes((bundle / "codec_decoder.onnx").read_bytes())
    else:
        path.write_bytes(b"junk")
    enlist(bundle)
    with pytest.raises(ModelError, match=r"codec_encoder\.onnx: .*(expected|cannot load)") as caught:
        CodecEncoder(load_bundle(bundle)).encode(speech(1.0))
    assert "\n" not in str(caught.value)


def write_constant(path, codes):
    """An encoder that hears the same in everything."""
    shape = [1, NUM_CODEBOOKS, "T"]
    value = helper.make_tensor("value", TensorProto.INT64, codes.shape, codes.flatten())
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["codes"], value=value)],
        "constant",
        [helper.make_tensor_value_info("pcm", TensorProto.FLOAT, [1, "S"])],
        [helper.make_tensor_value_info("codes", TensorProto.INT64, shape)],
    )
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    )


def test_a_failed_run_is_an_engine_error(bundle):
    """What onnxruntime says is one line with the file's name."""
    encoder = CodecEncoder(load_bundle(bundle))
    with pytest.raises(EngineError, match=r"codec_encoder\.onnx: onnxruntime failed"):
        encoder._model.run({"pcm": np.zeros((1, 5), np.float32)})
