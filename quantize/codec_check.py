"""What ships with a codec's ONNX files: a description of what goes in and out, and a test vector to try them with."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from daemon.engine.bundle import Bundle
from daemon.engine.onnx import OnnxModel
from daemon.errors import EngineError, ModelError
from daemon.values import F32, SAMPLE_RATE, Array
from quantize.half import check_finite

_FRAMES = 6
_NEXT = "_next"


def describe(decoder: Path, encoder: Path) -> str:
    """JSON for whoever wants to run the files: names, types and shapes, and what each state is.

    A dimension given as a string is free; every state is all zero at the start of speech, and what comes out under its
    ``next`` name goes in the next time.

    Raises:
        ModelError: a file is not an ONNX model.
    """
    content = {"sample_rate": SAMPLE_RATE, "decoder": _describe(decoder), "encoder": _describe(encoder)}
    return json.dumps(content, indent=2) + "\n"


def _describe(path: Path) -> dict[str, Any]:
    try:
        graph = onnx.load(path).graph
    except Exception as err:  # protobuf raises its own
        raise ModelError(f"{path}: not a readable ONNX model: {err}") from err
    returned = {value.name for value in graph.output}
    states = [value for value in graph.input if value.name + _NEXT in returned]
    names = {name for value in states for name in (value.name, value.name + _NEXT)}
    return {
        "file": path.name,
        "inputs": [_describe_value(value) for value in graph.input if value.name not in names],
        "outputs": [_describe_value(value) for value in graph.output if value.name not in names],
        "states": [{**_describe_value(value), "next": value.name + _NEXT, "start": 0} for value in states],
    }


def _describe_value(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    return {
        "name": value.name,
        "dtype": onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name,
        "shape": [size.dim_param or size.dim_value for size in tensor.shape.dim],
        "meaning": value.doc_string,
    }


def write_test_vector(path: Path, decoder: Path, encoder: Path) -> None:
    """Write a short sound float32 [1, S], its codes int64 [1, Q, T] and what these decode to, float32 [1, S], as .npz.

    Raises:
        ModelError: onnxruntime cannot load a file, or decodes to NaN or infinity.
        EngineError: onnxruntime cannot run it.
        OSError: the file cannot be written.
    """
    decode = OnnxModel(decoder, num_threads=1)
    (_, (_, num_codebooks, _)) = decode.inputs["codes"]
    one_frame, _ = decode_frames(decode, np.zeros((1, num_codebooks, 1), np.int64), 1)
    sound = _sound(_FRAMES * one_frame.shape[1])
    codes = OnnxModel(encoder, num_threads=1).run({"pcm": sound})["codes"]
    pcm, _ = decode_frames(decode, codes, codes.shape[2])
    check_finite(pcm, f"{decoder.name}: a test sound's samples")
    np.savez(path, audio=sound, codes=codes, pcm=pcm)


def run_test_vector(bundle: Bundle) -> dict[str, float]:
    """Run a bundle's codec on its test vector, the decoder frame by frame.

    Returns:
        ``codes``: which part of the codes is not the vector's; ``pcm``: the relative error of the sound decoded from
        the vector's codes.

    Raises:
        ModelError: the vector or a file of the codec is missing, damaged or of another codec.
    """
    paths = {}
    for role in ("codec_test", "codec_decoder", "codec_encoder"):
        if role not in bundle.manifest.files:
            raise ModelError(f"{bundle.folder}: no {role} in the manifest")
        paths[role] = bundle.path(role)
    sound, codes, pcm = _load(paths["codec_test"])
    try:
        found_codes = OnnxModel(paths["codec_encoder"], num_threads=1).run({"pcm": sound})["codes"]
        found_pcm, _ = decode_frames(OnnxModel(paths["codec_decoder"], num_threads=1), codes, 1)
    except (EngineError, KeyError) as err:
        raise ModelError(f"{bundle.folder}: the codec cannot run its test vector: {err}") from err
    for name, found, expected in (("codes", found_codes, codes), ("pcm", found_pcm, pcm)):
        if found.shape != expected.shape:
            raise ModelError(f"{bundle.folder}: {name}: expected {list(expected.shape)}, found {list(found.shape)}")
    error = np.linalg.norm(found_pcm - pcm) / np.linalg.norm(pcm)
    return {"codes": float(np.mean(found_codes != codes)), "pcm": float(error)}


def _load(path: Path) -> tuple[F32, Array, F32]:
    """Sound, codes and decoded sound of a test vector."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return arrays["audio"], arrays["codes"], arrays["pcm"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as err:
        raise ModelError(f"{path}: not a readable test vector: {err}") from err


def _sound(num_samples: int) -> F32:
    """A falling tone in noise, float32 [1, S]: the same wherever it is made."""
    time = np.arange(num_samples) / SAMPLE_RATE
    noise = np.random.default_rng(0).standard_normal(num_samples)
    return (0.2 * np.sin(2 * np.pi * 600 * np.sqrt(1 + time)) + 0.05 * noise)[None].astype(np.float32)


def decode_frames(decoder: OnnxModel, codes: Array, group: int) -> tuple[F32, dict[str, Array]]:
    """Decode codes int64 [1, Q, T] from the start of speech, ``group`` frames a call; returns samples and last states.

    Raises:
        EngineError: onnxruntime cannot run it.
    """
    states: dict[str, Array] = {
        name: np.zeros(shape, dtype) for name, (dtype, shape) in decoder.inputs.items() if name != "codes"
    }
    pieces = []
    for start in range(0, codes.shape[2], group):
        part = np.ascontiguousarray(codes[..., start : start + group])
        outputs = decoder.run({"codes": part, **states})
        states = {name: outputs[name + _NEXT] for name in states}
        pieces.append(outputs["pcm"])
    return np.concatenate(pieces, axis=1), states
