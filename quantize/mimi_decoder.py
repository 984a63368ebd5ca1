"""Mimi's decoder as a streaming ONNX model: what it must remember goes in and out as explicit states, zero at first.

A convolution is one matrix product over its K latest rows; a transposed one, whose kernel is twice its stride, is a
convolution over two rows that gives ``stride`` rows at once. So every state is the rows that a kernel looks back on.
"""

import numpy as np
import onnx
from onnx import TensorProto

from daemon.values import F32
from quantize.mimi_graph import States, TransformerGraph
from quantize.mimi_weights import MimiCodec, MimiConv, MimiResidual
from quantize.onnx_graph import END, GraphBuilder, model, tensor


def build_mimi_decoder(codec: MimiCodec, *, half: bool) -> onnx.ModelProto:
    """The model: ``codes`` int64 [1, Q, T] and states in, ``pcm`` float32 [1, T * samples] and next states out.

    Args:
        codec: the weights.
        half: store large weights as float16 (computed in float32 all the same).
    """
    return model(_Decoder(codec, half=half).build())


class _Decoder:
    """Builds the graph from codes to samples."""

    def __init__(self, codec: MimiCodec, *, half: bool) -> None:
        self._codec = codec
        self._graph = GraphBuilder("mimi_decoder", half=half)
        self._states = States()

    def build(self) -> onnx.GraphProto:
        codec, graph = self._codec, self._graph
        x = self._upsample(self._dequantize())
        x = TransformerGraph(graph, codec.decoder_transformer, self._states).add(x)
        x = self._conv(x, codec.decoder_input, "input_previous")
        for number, stage in enumerate(codec.decoder_stages):
            x = self._transposed(self._elu(x), stage.resample, f"stage{number}_previous")
            x = self._residual(x, stage.residual, f"residual{number}_previous")
        x = self._conv(self._elu(x), codec.decoder_output, "output_previous")
        graph.op("Reshape", x, graph.integers(1, -1), output="pcm")
        codes = tensor("codes", TensorProto.INT64, 1, codec.num_codebooks, "T", meaning="T frames, one code a codebook")
        pcm = tensor("pcm", TensorProto.FLOAT, 1, "S", meaning=f"24 kHz, {codec.samples_per_frame} samples a frame")
        return graph.graph([codes, *self._states.inputs], [pcm, *self._states.outputs])

    def _dequantize(self) -> str:
        """Codes [1, Q, T] -> [T, D]: rows of the codebooks summed within each branch, then projected."""
        graph, codec = self._graph, self._codec
        books = np.concatenate([codec.semantic.codebooks, codec.acoustic.codebooks])
        table = books.reshape(-1, books.shape[2])
        first_rows = np.arange(codec.num_codebooks, dtype=np.int64)[None, :, None] * codec.codebook_size
        rows = graph.op("Add", "codes", graph.constant(first_rows))
        vectors = graph.look_up(table, rows)
        split = len(codec.semantic.codebooks)
        branches = [graph.slice(vectors, 0, split, axis=1), graph.slice(vectors, split, END, axis=1)]
        sums = [graph.op("ReduceSum", branch, graph.integers(0, 1), keepdims=0) for branch in branches]
        output = np.concatenate([codec.semantic.output, codec.acoustic.output], axis=1)
        return graph.op("Gemm", graph.op("Concat", *sums, axis=1), graph.weight(output), transB=1)

    def _upsample(self, x: str) -> str:
        """Frames [T, D] -> steps [T * stride, D], every channel by itself."""
        graph, stride = self._graph, self._codec.upsample.stride
        weight = self._codec.upsample.weight[:, 0]
        x, rows = self._behind(x, "upsample_previous", 1, len(weight)), []
        for start, end, taps in ((1, END, weight[:, :stride]), (0, -1, weight[:, stride:])):
            row = graph.op("Unsqueeze", graph.slice(x, start, end, axis=0), graph.integers(1))
            rows.append(graph.op("Mul", row, graph.constant(taps.T)))
        return graph.op("Reshape", graph.op("Add", *rows), graph.integers(-1, len(weight)))

    def _conv(self, x: str, conv: MimiConv, state: str) -> str:
        """Causal convolution of [L, in] along L, to [L, out]."""
        return self._windows(x, conv.weight.transpose(0, 2, 1), conv.bias, state)

    def _transposed(self, x: str, conv: MimiConv, state: str) -> str:
        """Transposed convolution of [L, in] to [L * stride, out]: half of its kernel falls on the rows after."""
        inputs, outputs, _ = conv.weight.shape
        taps = conv.weight.reshape(inputs, outputs, 2, conv.stride)[:, :, ::-1]  # on the row before, on the row itself
        weight = taps.transpose(3, 1, 2, 0).reshape(-1, 2, inputs)
        y = self._windows(x, weight, None if conv.bias is None else np.tile(conv.bias, conv.stride), state)
        return self._graph.op("Reshape", y, self._graph.integers(-1, outputs))

    def _residual(self, x: str, residual: MimiResidual, state: str) -> str:
        graph = self._graph
        y = self._conv(self._elu(x), residual.conv, state)
        y = self._conv(self._elu(y), residual.output, "")  # a kernel of 1 has no state
        return graph.op("Add", x, y)

    def _windows(self, x: str, weight: F32, bias: F32 | None, state: str) -> str:
        """Product of any K rows in a row, of ``x`` [L, in] behind a state, with ``weight`` [out, K, in]."""
        graph = self._graph
        outputs, kernel, inputs = weight.shape
        if kernel > outputs:
            return self._window_sums(x, weight, bias, state)
        if kernel > 1:
            x = self._behind(x, state, kernel - 1, inputs)
            taps = [graph.slice(x, tap, tap - kernel + 1 or END, axis=0) for tap in range(kernel)]
            x = graph.op("Concat", *taps, axis=1)
        added = "" if bias is None else graph.constant(bias)
        return graph.op("Gemm", x, graph.weight(weight.reshape(outputs, -1)), added, transB=1)

    def _window_sums(self, x: str, weight: F32, bias: F32 | None, state: str) -> str:
        """The same for few outputs: every row times every tap, then sums along the diagonals, copies no window."""
        graph = self._graph
        outputs, kernel, inputs = weight.shape
        x = self._behind(x, state, kernel - 1, inputs)
        taps = weight.transpose(1, 0, 2).reshape(-1, inputs)
        products = graph.op("Gemm", x, graph.weight(taps), transB=1)  # [L + K - 1, K * out]
        parts = [
            graph.slice(
                graph.slice(products, tap * outputs, (tap + 1) * outputs, axis=1), tap, tap - kernel + 1 or END, axis=0
            )
            for tap in range(kernel)
        ]
        return graph.op("Sum", *parts, *([] if bias is None else [graph.constant(bias)]))

    def _elu(self, x: str) -> str:
        """ELU as max(x, exp(min(x, 0)) - 1): onnxruntime's own takes three times as long."""
        graph = self._graph
        zero, one = (graph.constant(np.array(value, np.float32)) for value in (0, 1))
        below = graph.op("Sub", graph.op("Exp", graph.op("Min", x, zero)), one)
        return graph.op("Max", x, below)

    def _behind(self, x: str, state: str, rows: int, width: int) -> str:
        """``x`` [L, width] behind the latest ``rows`` rows of earlier calls."""
        following = self._states.add(state, TensorProto.FLOAT, rows, width, meaning="the rows that came before")
        x = self._graph.op("Concat", state, x, axis=0)
        self._graph.slice(x, -rows, END, axis=0, output=following)
        return x
