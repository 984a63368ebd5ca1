"""The codec's encoder: a recording to the codes that the model hears it as. Only for adding voices."""

import numpy as np

from daemon.engine.bundle import Bundle
from daemon.engine.onnx import OnnxModel
from daemon.errors import ModelError
from daemon.values import F32, I32


class CodecEncoder:
    """Turns PCM into codes, a whole recording a call.

    Raises:
        ModelError: the bundle has no encoder, or its file is not one of this shape.
    """

    def __init__(self, bundle: Bundle, *, num_threads: int = 1) -> None:
        if "codec_encoder" not in bundle.manifest.files:
            reason = "it has no codec encoder; name another with --bundle"
            raise ModelError(f"{bundle.folder}: this bundle cannot take new voices: {reason}")
        self._audio = bundle.manifest.audio
        self._path = bundle.path("codec_encoder")
        self._model = OnnxModel(self._path, num_threads=num_threads)
        inputs, outputs = self._model.inputs, self._model.outputs
        dtype, shape = inputs.get("pcm", (None, ()))
        if list(inputs) != ["pcm"] or dtype != np.float32 or len(shape) != 2:
            raise ModelError(f"{self._path}: inputs are {inputs}, expected pcm float32 [1, samples] alone")
        dtype, shape = outputs.get("codes", (None, ()))
        if dtype != np.int64 or shape[:2] != (1, self._audio.num_codebooks) or len(shape) != 3:
            expected = f"int64 [1, {self._audio.num_codebooks}, T]"
            raise ModelError(f"{self._path}: codes are {dtype} {list(shape)}, expected {expected}")

    def encode(self, pcm: F32) -> I32:
        """The codes int32 [T, Q] of ``pcm`` float32 [S], 24 kHz, -1..1; the last frame is filled up with silence.

        Raises:
            EngineError: onnxruntime failed.
            ModelError: what comes out are no codes of this bundle.
        """
        num_frames = -(-len(pcm) // self._audio.samples_per_frame)
        padded = np.zeros((1, num_frames * self._audio.samples_per_frame), np.float32)
        padded[0, : len(pcm)] = pcm
        codes = self._model.run({"pcm": padded})["codes"]
        expected = (1, self._audio.num_codebooks, num_frames)
        if codes.shape != expected:
            raise ModelError(f"{self._path}: gave codes {list(codes.shape)}, expected {list(expected)}")
        size = self._audio.codebook_size
        if codes.min() < 0 or codes.max() >= size:
            raise ModelError(f"{self._path}: gave codes {codes.min()}..{codes.max()}, expected 0..{size - 1}")
        return np.ascontiguousarray(codes[0].T, np.int32)
