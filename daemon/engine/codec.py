"""The codec's decoder: the codes of a frame to its samples, streaming, with every state bound once."""

import math
from typing import Self

import numpy as np

from daemon.engine.bundle import Bundle
from daemon.engine.onnx import OnnxModel
from daemon.errors import EngineError, ModelError
from daemon.values import F32, I32, Array, Pcm16

_NEXT = "_next"


class CodecDecoder:
    """Turns codes into PCM16, one frame a call. Two bindings take turns: what one call writes the next one reads.

    Attributes:
        model: the file, which decoders share.
        samples_per_frame: 1920 at 12.5 frames a second.
        delay_samples: what is held back until ``flush``.

    Args:
        bundle: names the file.
        num_threads: of onnxruntime.
        beside: a decoder of the same bundle, to share the weights with.

    Raises:
        ModelError: the file's inputs and outputs are not a streaming decoder's of this shape.
    """

    def __init__(self, bundle: Bundle, *, num_threads: int = 1, beside: Self | None = None) -> None:
        path = bundle.path("codec_decoder")
        audio, codec = bundle.manifest.audio, bundle.manifest.codec
        self.model: OnnxModel = beside.model if beside else OnnxModel(path, num_threads=num_threads)
        model = self.model
        codes = model.inputs.get("codes", (None, ()))
        if codes[0] != np.int64 or codes[1][:2] != (1, audio.num_codebooks):
            raise ModelError(f"{path}: codes are {codes}, expected int64 [1, {audio.num_codebooks}, T]")
        self.samples_per_frame = audio.samples_per_frame
        pcm = model.outputs.get("pcm", (None, ()))
        if pcm[0] != np.float32 or len(pcm[1]) != 2:
            raise ModelError(f"{path}: pcm is {pcm}, expected float32 [1, samples]")
        self.delay_samples = codec.delay_samples
        self._codes = np.zeros((1, audio.num_codebooks, 1), np.int64)
        self._pcm = np.zeros((1, self.samples_per_frame), np.float32)
        self._states = [self._make_states(model, path.name) for _ in range(2)]
        self._runs = [
            model.bind(
                {"codes": self._codes, **self._states[i]},
                {"pcm": self._pcm, **{name + _NEXT: array for name, array in self._states[1 - i].items()}},
            )
            for i in range(2)
        ]
        self._turn = 0
        self._skip = self.delay_samples
        self._flush_state = codec.flush_state or ""
        if self.delay_samples:
            self._check_flush_state(path.name)

    @staticmethod
    def _make_states(model: OnnxModel, name: str) -> dict[str, Array]:
        states = {}
        for state, (dtype, shape) in model.inputs.items():
            if state == "codes":
                continue
            if dtype is None or not all(isinstance(size, int) for size in shape):
                raise ModelError(f"{name}: state {state} has no fixed shape: {shape}")
            if model.outputs.get(state + _NEXT) != (dtype, shape):
                raise ModelError(f"{name}: state {state} comes back as {model.outputs.get(state + _NEXT)}")
            states[state] = np.zeros(shape, dtype)
        return states

    def _check_flush_state(self, name: str) -> None:
        state = self._states[0].get(self._flush_state)
        if state is None or state.size < self.delay_samples or state.dtype != np.float32:
            raise ModelError(f"{name}: flush_state {self._flush_state!r} does not hold {self.delay_samples} samples")

    def reset(self) -> None:
        """Start a new stretch of speech: every state zero."""
        for array in self._states[self._turn].values():
            array.fill(0)
        self._skip = self.delay_samples

    def decode_frame(self, codes: I32, out: Pcm16) -> int:
        """Decode ``codes`` int32 [Q] into ``out`` int16 [>= samples_per_frame]; return how many samples came out.

        That is a frame's worth, less the delay at the start of a stretch.

        Raises:
            EngineError: onnxruntime failed.
        """
        self._codes[0, :, 0] = codes
        self._runs[self._turn]()
        self._turn = 1 - self._turn
        skip = min(self._skip, self.samples_per_frame)
        self._skip -= skip
        count = self.samples_per_frame - skip
        to_pcm16(self._pcm[0, skip:], out[:count])
        return count

    def flush(self, out: Pcm16) -> int:
        """Write what the decoder still holds back into ``out``; return how many samples that was."""
        count = self.delay_samples - self._skip
        if count:
            rest = self._states[self._turn][self._flush_state].reshape(-1)
            to_pcm16(rest[:count], out[:count])
        return count


def to_pcm16(samples: F32, out: Pcm16) -> None:
    """Round float32 [S], -1..1, to int16 in ``out``, saturating. ``samples`` is scratch afterwards.

    This is where float audio ends: nothing downstream converts again.

    Raises:
        EngineError: a sample is not a number; the model or its state is broken.
    """
    if not math.isfinite(float(np.dot(samples, samples))):
        raise EngineError("the codec gave samples that are not numbers")
    np.multiply(samples, np.float32(32767), out=samples)
    np.clip(samples, np.float32(-32768), np.float32(32767), out=samples)
    np.rint(samples, out=samples)
    np.copyto(out, samples, casting="unsafe")
