"""What ships beside a codec's ONNX files tells the truth about them, and finds out when it no longer does."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from bundle_stages import open_onnx
from reference_mimi import random_codes, save_transformers, small_mimi, stream

from daemon.engine.bundle import Bundle
from daemon.errors import ModelError
from quantize import mimi
from quantize.checkpoint import Checkpoint
from quantize.codec_check import describe, run_test_vector, write_test_vector
from quantize.mimi_decoder import build_mimi_decoder
from quantize.mimi_encoder import build_mimi_encoder

FILES = {"codec_decoder": "codec_decoder.onnx", "codec_encoder": "codec_encoder.onnx", "codec_test": "codec_test.npz"}


def write_codec(folder, seed):
    """Decoder, encoder and test vector of a random codec."""
    model = small_mimi(seed)
    config = model.config.to_dict()
    codec = mimi.read(Checkpoint(save_transformers(model, folder / "mimi")), config=config)
    decoder, encoder, vector = (folder / name for name in FILES.values())
    decoder.write_bytes(build_mimi_decoder(codec, half=False).SerializeToString())
    encoder.write_bytes(build_mimi_encoder(codec, half=False).SerializeToString())
    write_test_vector(vector, decoder, encoder)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files."""
    folder = tmp_path_factory.mktemp("codec")
    write_codec(folder, seed=7)
    return folder


@pytest.fixture
def bundle(folder, tmp_path):
    """A bundle with copies of the files, that a test may damage."""
    for name in FILES.values():
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    files = {role: SimpleNamespace(path=name) for role, name in FILES.items()}
    return Bundle(tmp_path, SimpleNamespace(files=files))


def test_the_description_suffices_to_stream(folder):
    """A decoder run by nothing but the description gives the samples."""
    content = json.loads(describe(folder / FILES["codec_decoder"], folder / FILES["codec_encoder"]))
    decoder = content["decoder"]
    session = open_onnx(folder / decoder["file"])
    states = {s["name"]: np.full(s["shape"], s["start"], s["dtype"]) for s in decoder["states"]}
    (codes_input,), (pcm_output,) = decoder["inputs"], decoder["outputs"]
    assert codes_input["shape"] == [1, 8, "T"]
    codes = random_codes(small_mimi(), 5).astype(codes_input["dtype"])
    wanted = [pcm_output["name"], *(state["next"] for state in decoder["states"])]
    pieces = []
    for frame in range(5):
        pcm, *following = session.run(wanted, {codes_input["name"]: codes[..., frame : frame + 1], **states})
        states = dict(zip(states, following, strict=True))
        pieces.append(pcm[0])
    np.testing.assert_allclose(np.concatenate(pieces), stream(session, codes, [5]), atol=1e-6)


def test_the_description_says_what_everything_is(folder):
    """Both files are described in full, every value with its meaning; an encoder has no states."""
    content = json.loads(describe(folder / FILES["codec_decoder"], folder / FILES["codec_encoder"]))
    assert content["sample_rate"] == 24_000
    assert content["encoder"]["states"] == []
    assert content["encoder"]["inputs"] == [
        {"name": "pcm", "dtype": "float32", "shape": [1, "S"], "meaning": "24 kHz, -1..1, a multiple of 1920 samples"}
    ]
    for part in (content["decoder"], content["encoder"]):
        assert all(value["meaning"] for kind in ("inputs", "outputs", "states") for value in part[kind])


def test_a_whole_codec_passes_its_test_vector(bundle):
    """The decoder frame by frame and the encoder give what was noted."""
    errors = run_test_vector(bundle)
    assert errors["codes"] == 0
    assert errors["pcm"] < 1e-5


def test_a_test_vector_is_the_same_each_time(folder, tmp_path):
    """Made again from the same files, it is the same to the byte."""
    again = tmp_path / "again.npz"
    write_test_vector(again, folder / FILES["codec_decoder"], folder / FILES["codec_encoder"])
    assert again.read_bytes() == (folder / FILES["codec_test"]).read_bytes()


def test_another_codec_of_the_same_shape_fails_the_test_vector(bundle, tmp_path):
    """Files swapped for those of another model load, and are found out."""
    other = tmp_path / "other"
    other.mkdir()
    write_codec(other, seed=8)
    for role in ("codec_decoder", "codec_encoder"):
        (tmp_path / FILES[role]).write_bytes((other / FILES[role]).read_bytes())
    errors = run_test_vector(bundle)
    assert errors["codes"] > 0.5
    assert errors["pcm"] > 0.1


@pytest.mark.parametrize("role", FILES)
def test_a_damaged_file_is_named(bundle, tmp_path, role):
    """A truncated file is an error of one line that names it."""
    path = tmp_path / FILES[role]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match=FILES[role]) as caught:
        run_test_vector(bundle)
    assert "\n" not in str(caught.value)


def test_decoder_and_encoder_swapped_are_refused(bundle, tmp_path):
    """An encoder in the decoder's place is an error that says so."""
    decoder, encoder = (tmp_path / FILES[role] for role in ("codec_decoder", "codec_encoder"))
    content = decoder.read_bytes()
    decoder.write_bytes(encoder.read_bytes())
    encoder.write_bytes(content)
    with pytest.raises(ModelError, match="cannot run its test vector"):
        run_test_vector(bundle)


def test_a_missing_role_is_named(bundle):
    """A manifest without the encoder cannot be tested."""
    del bundle.manifest.files["codec_encoder"]
    with pytest.raises(ModelError, match="no codec_encoder in the manifest"):
        run_test_vector(bundle)


def test_what_is_no_model_cannot_be_described(tmp_path):
    """A file of another kind is named."""
    path = tmp_path / "codec_decoder.onnx"
    path.write_bytes(b"no model at all")
    with pytest.raises(ModelError, match="not a readable ONNX model"):
        describe(path, path)


def test_a_codec_that_decodes_to_nothing_finite_is_refused(tmp_path):
    """Weights that are finite and a sound that is not: no test vector of NaN."""
    model = small_mimi(9)
    for number in (0, -1):
        model.decoder.decoder_seanet.layers[number].conv.weight.data.mul_(1e30)
    codec = mimi.read(Checkpoint(save_transformers(model, tmp_path / "mimi")), config=model.config.to_dict())
    decoder, encoder = (tmp_path / FILES[role] for role in ("codec_decoder", "codec_encoder"))
    decoder.write_bytes(build_mimi_decoder(codec, half=False).SerializeToString())
    encoder.write_bytes(build_mimi_encoder(codec, half=False).SerializeToString())
    with pytest.raises(ModelError, match=r"codec_decoder\.onnx: a test sound's samples: expected finite numbers"):
        write_test_vector(tmp_path / "codec_test.npz", decoder, encoder)
    assert not (tmp_path / "codec_test.npz").exists()


@pytest.mark.parametrize("build", [build_mimi_decoder, build_mimi_encoder])
@pytest.mark.parametrize("part", ["codebooks", "matrix"])
def test_weights_too_large_for_float16_are_refused(tmp_path, build, part):
    """By graph and shape, without a warning of numpy's; as float32 they are stored."""
    model = small_mimi(9)
    codec = mimi.read(Checkpoint(save_transformers(model, tmp_path / "mimi")), config=model.config.to_dict())
    value = codec.acoustic.codebooks if part == "codebooks" else codec.acoustic.output
    value[...] = value * 1e7
    codec.acoustic.input[...] *= 1e7
    with pytest.raises(ModelError, match=r"^mimi_(de|en)coder: a weight \[.*\]: has numbers too large for float16"):
        build(codec, half=True)
    build(codec, half=False)
