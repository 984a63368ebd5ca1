"""Mimi's encoder as an ONNX model: a whole recording to its codes, without states.

Over the many samples of a recording convolutions are left to onnxruntime, which works on them piece by piece.
"""

import numpy as np
import onnx
from onnx import TensorProto

from quantize.mimi_graph import TransformerGraph
from quantize.mimi_weights import MimiCodec, MimiConv, MimiQuantizer, MimiResidual
from quantize.onnx_graph import GraphBuilder, model, tensor


def build_mimi_encoder(codec: MimiCodec, *, half: bool) -> onnx.ModelProto:
    """The model: ``pcm`` float32 [1, S], S a multiple of a frame's samples, in; ``codes`` int64 [1, Q, T] out.

    Args:
        codec: the weights.
        half: store large weights as float16 (computed in float32 all the same).
    """
    return model(_Encoder(codec, half=half).build())


class _Encoder:
    """Builds the graph from samples to codes."""

    def __init__(self, codec: MimiCodec, *, half: bool) -> None:
        self._codec = codec
        self._graph = GraphBuilder("mimi_encoder", half=half)
        self._stored = np.float16 if half else np.float32

    def build(self) -> onnx.GraphProto:
        codec, graph = self._codec, self._graph
        x = self._conv(graph.op("Unsqueeze", "pcm", graph.integers(1)), codec.encoder_input)
        for stage in codec.encoder_stages:
            x = self._residual(x, stage.residual)
            x = self._conv(graph.op("Elu", x), stage.resample)
        x = self._rows(self._conv(graph.op("Elu", x), codec.encoder_output))
        x = TransformerGraph(graph, codec.encoder_transformer, None).add(x)
        x = self._downsample(graph.op("Unsqueeze", graph.op("Transpose", x, perm=[1, 0]), graph.integers(0)))
        codes = [code for branch in (codec.semantic, codec.acoustic) for code in self._quantize(x, branch)]
        graph.op("Unsqueeze", graph.op("Concat", *codes, axis=0), graph.integers(0), output="codes")
        frame = codec.samples_per_frame
        pcm = tensor("pcm", TensorProto.FLOAT, 1, "S", meaning=f"24 kHz, -1..1, a multiple of {frame} samples")
        out = tensor("codes", TensorProto.INT64, 1, codec.num_codebooks, "T", meaning="one code a codebook and frame")
        return graph.graph([pcm], [out])

    def _conv(self, x: str, conv: MimiConv) -> str:
        """Causal convolution of [1, in, L] along L, which is zero before its beginning."""
        graph = self._graph
        inputs = [x, graph.weight(conv.weight)] + ([] if conv.bias is None else [graph.constant(conv.bias)])
        before = conv.weight.shape[2] - conv.stride
        return graph.op("Conv", *inputs, strides=[conv.stride], pads=[before, 0])

    def _residual(self, x: str, residual: MimiResidual) -> str:
        graph = self._graph
        y = self._conv(graph.op("Elu", x), residual.conv)
        return graph.op("Add", x, self._conv(graph.op("Elu", y), residual.output))

    def _downsample(self, x: str) -> str:
        """Steps [1, D, L], before which the first goes on for ever, to frames [T, D]."""
        graph, conv = self._graph, self._codec.downsample
        before = conv.weight.shape[2] - conv.stride
        x = graph.op("Pad", x, graph.integers(0, 0, before, 0, 0, 0), mode="edge")
        return self._rows(graph.op("Conv", x, graph.weight(conv.weight), strides=[conv.stride]))

    def _rows(self, x: str) -> str:
        """[1, D, L] -> [L, D]."""
        graph = self._graph
        return graph.op("Transpose", graph.op("Squeeze", x, graph.integers(0)), perm=[1, 0])

    def _quantize(self, x: str, quantizer: MimiQuantizer) -> list[str]:
        """Frames [T, D] -> [1, T] codes of each codebook: the nearest row to what the codebooks before left over.

        Nearest is the largest ``x . e - |e|^2 / 2``: the same order as the distance's, without its cancellation.
        """
        graph = self._graph
        rest = graph.op("Gemm", x, graph.weight(quantizer.input), transB=1)
        codes = []
        for book in quantizer.codebooks:
            rows = graph.weight(book)
            lengths = np.square(book.astype(self._stored), dtype=np.float64).sum(axis=1)
            offset = graph.constant((-lengths / 2).astype(np.float32))
            closeness = graph.op("Gemm", rest, rows, offset, transB=1)
            code = graph.op("ArgMax", closeness, axis=1, keepdims=0)
            rest = graph.op("Sub", rest, graph.op("Gather", rows, code))
            codes.append(graph.op("Unsqueeze", code, graph.integers(0)))
        return codes
