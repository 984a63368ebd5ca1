"""The codec decoder as a streaming ONNX model: what it must remember goes in and out as explicit states.

States are the left context of every convolution and the tail of the overlapping windows, so that frames decoded one
at a time, in groups or all at once give the same samples.
"""

import numpy as np
import onnx
from onnx import TensorProto

from daemon.values import F32
from quantize.onnx_graph import END, GraphBuilder, model, tensor
from quantize.weights import Codec, ConvNextBlock

_NORM_EPS = 1e-5
_SILENT = -15.0
"""A bin whose log magnitude is always below: all of them together are a thousandth of a step of PCM16."""


def build_codec_decoder(codec: Codec, *, half: bool) -> onnx.ModelProto:
    """The model: ``codes`` int64 [1, Q, T] and states in, ``pcm`` float32 [1, T * samples] and next states out.

    Args:
        codec: the weights.
        half: store the matrices as float16 (computed in float32 all the same).
    """
    return model(_Decoder(codec, half=half).build())


class _Decoder:
    """Builds the graph from codes to samples, noting the states on the way."""

    def __init__(self, codec: Codec, *, half: bool) -> None:
        self._codec = codec
        self._graph = GraphBuilder("codec", half=half)
        self._states: list[tuple[str, tuple[int, ...]]] = []
        self._bins = _audible_bins(codec)

    def build(self) -> onnx.GraphProto:
        codec, graph = self._codec, self._graph
        num_codebooks = len(codec.codebooks)
        x = graph.linear(self._dequantize(), codec.input, codec.input_bias)
        for number, block in enumerate(codec.frame_blocks):
            x = self._block(x, block, f"frame_context{number}")
        x = graph.linear(x, codec.upsample, codec.upsample_bias)
        x = graph.op("Reshape", x, graph.integers(-1, len(codec.input)))
        for number, block in enumerate(codec.step_blocks):
            x = self._block(x, block, f"step_context{number}")
        x = self._norm(x, codec.norm, codec.norm_bias)
        self._overlap_add(self._windows(x))
        inputs = [tensor("codes", TensorProto.INT64, 1, num_codebooks, "T")]
        outputs = [tensor("pcm", TensorProto.FLOAT, 1, "S")]
        for name, shape in self._states:
            inputs.append(tensor(name, TensorProto.FLOAT, *shape))
            outputs.append(tensor(f"{name}_next", TensorProto.FLOAT, *shape))
        return graph.graph(inputs, outputs)

    def _dequantize(self) -> str:
        """Codes [1, Q, T] -> sums of codebook rows [T, E]."""
        graph = self._graph
        num_codebooks, codebook_size, width = self._codec.codebooks.shape
        table = self._codec.codebooks.reshape(-1, width)
        first_rows = graph.constant(np.arange(num_codebooks, dtype=np.int64)[None, :, None] * codebook_size)
        rows = graph.op("Add", "codes", first_rows)
        vectors = graph.look_up(table, rows)
        return graph.op("ReduceSum", vectors, graph.integers(0, 1), keepdims=0)

    def _block(self, x: str, block: ConvNextBlock, state: str) -> str:
        graph = self._graph
        y = self._causal_conv(x, block, state)
        y = self._norm(y, block.norm, block.norm_bias)
        y = graph.op("Gelu", graph.linear(y, block.expand, block.expand_bias), approximate="tanh")
        return graph.op("Add", x, graph.linear(y, block.contract, block.contract_bias))

    def _causal_conv(self, x: str, block: ConvNextBlock, state: str) -> str:
        """Depthwise convolution of [L, D] over L; the state is the last K - 1 rows of what came before.

        It is a convolution of an image L high and 1 wide: of those onnxruntime has a fast kernel that also takes the
        transposition, of one-dimensional ones it has not (five times the time, and more for what is around it).
        """
        graph = self._graph
        width, kernel = block.conv.shape
        self._states.append((state, (kernel - 1, width)))
        x = graph.op("Concat", state, x, axis=0)
        graph.slice(x, 1 - kernel, END, axis=0, output=f"{state}_next")
        image = graph.op("Reshape", x, graph.integers(1, -1, 1, width))
        weight, bias = graph.weight(block.conv[:, None, :, None]), graph.constant(block.conv_bias)
        y = graph.op("Conv", graph.op("Transpose", image, perm=[0, 3, 1, 2]), weight, bias, group=width)
        return graph.op("Reshape", graph.op("Transpose", y, perm=[0, 2, 3, 1]), graph.integers(-1, width))

    def _norm(self, x: str, scale: F32, bias: F32) -> str:
        graph = self._graph
        return graph.op("LayerNormalization", x, graph.constant(scale), graph.constant(bias), epsilon=_NORM_EPS)

    def _windows(self, x: str) -> str:
        """Normalised steps [L, D] -> windowed pieces of signal [L, fft_size], by log magnitudes and phases.

        The inverse real Fourier transform is a product with cosines and one with sines, which hold the Hann window and
        all scales. Sample n - k is that of k with the sines taken off: half of each basis is enough.
        """
        graph, codec, bins = self._graph, self._codec, self._bins
        half = codec.fft_size // 2
        rows = np.r_[:bins, half + 1 : half + 1 + bins]  # magnitudes, then phases
        x = graph.linear(x, codec.output[rows], codec.output_bias[rows])
        log_magnitude = graph.slice(x, 0, bins, axis=1)
        phase = graph.slice(x, bins, 2 * bins, axis=1)
        log_magnitude = graph.op("Min", log_magnitude, graph.constant(np.full(1, codec.max_log_magnitude, np.float32)))
        magnitude = graph.op("Exp", log_magnitude)
        cosines, sines = self._inverse_fourier_basis()
        even = graph.op("MatMul", graph.op("Mul", magnitude, graph.op("Cos", phase)), cosines)
        odd = graph.op("MatMul", graph.op("Mul", magnitude, graph.op("Sin", phase)), sines)
        backwards = [graph.integers(value) for value in (half - 1, 0, 1, -1)]  # samples n / 2 + 1 to n - 1
        mirrored = graph.op("Slice", graph.op("Sub", even, odd), *backwards)
        return graph.op("Concat", graph.op("Add", even, odd), mirrored, axis=1)

    def _inverse_fourier_basis(self) -> tuple[str, str]:
        """Cosines and sines [bins, fft_size / 2 + 1] of the samples up to the middle."""
        codec, n = self._codec, self._codec.fft_size
        sample = np.arange(n // 2 + 1)
        window = (0.5 - 0.5 * np.cos(2 * np.pi * sample / n)) * (np.exp(codec.log_magnitude_shift) / codec.overlap_gain)
        frequency = np.arange(self._bins)[:, None]
        angle = 2 * np.pi / n * (frequency * sample % n)
        scale = np.where((frequency == 0) | (frequency == n // 2), 1, 2) / n * window  # the other bins are conjugates
        cosines, sines = scale * np.cos(angle), -scale * np.sin(angle)
        return self._graph.constant(cosines.astype(np.float32)), self._graph.constant(sines.astype(np.float32))

    def _overlap_add(self, windows: str) -> None:
        """Add windows [L, 4 * hop] at every hop to the tail left by the last call; keep the new tail of 3 hops."""
        graph, hop = self._graph, self._codec.hop
        self._states.append(("overlap", (3, hop)))
        shifted = []
        for q in range(4):
            around = [graph.constant(np.zeros((rows, hop), np.float32)) if rows else None for rows in (q, 3 - q)]
            rows = [around[0], graph.slice(windows, q * hop, (q + 1) * hop, axis=1), around[1]]
            shifted.append(graph.op("Concat", *(row for row in rows if row), axis=0))
        total = graph.op("Sum", *shifted)  # [L + 3, hop]
        start = graph.op("Add", graph.slice(total, 0, 3, axis=0), "overlap")
        whole = graph.op("Concat", start, graph.slice(total, 3, -3, axis=0), axis=0)
        graph.op("Reshape", whole, graph.integers(1, -1), output="pcm")
        graph.slice(total, -3, END, axis=0, output="overlap_next")


def _audible_bins(codec: Codec) -> int:
    """How many bins can sound, from the lowest on: a codec trained for less than half the sample rate has fewer.

    The others would cost a tenth of the time and of the file.
    """
    bins = codec.fft_size // 2 + 1
    audible = codec.output[:bins].any(axis=1) | (codec.output_bias[:bins] > _SILENT)
    return 1 + int(np.flatnonzero(audible).max(initial=0))
