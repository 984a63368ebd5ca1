"""All heads in one ONNX file: a binary tree of ``If`` on the codebook's index, so that a call touches one head only.

Measured against the alternatives: one session a head costs as much time and far more memory; one graph with all
outputs computes them all; weights as inputs lose onnxruntime's packing.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from daemon.errors import ModelError
from daemon.values import F32
from quantize.onnx_graph import GraphBuilder, model, tensor
from quantize.weights import SpeechModel

_BLOCK = 32


def build_heads(speech: SpeechModel, *, bits: int) -> onnx.ModelProto:
    """The heads' model; ``bits`` is 32 (float32) or 8 (codebook 0 and the projection stay float32).

    Inputs: backbone_hidden float32 [1, D], depth_hidden float32 [1, Dd], index int64 [].
    Outputs: logits float32 [1, V], zero beyond a head's own rows, and depth_input float32 [1, Dd]: for index 0 the
    projected backbone_hidden, else depth_hidden unchanged.
    """
    return model(_HeadTree(speech, bits).build())


def heads_bytes(speech: SpeechModel, *, bits: int) -> int:
    """About how large the file becomes.

    Raises:
        ModelError: the heads' rows do not divide into blocks.
    """
    width = speech.depth_heads.shape[2]
    if bits != 32 and width % _BLOCK:  # bits of a float32
        raise ModelError(f"depth heads: expected a width that {_BLOCK} divides, to store them in 8 bits, found {width}")
    return 4 * (speech.codebook0_head.size + speech.projection.size) + speech.depth_heads.size * bits // 7


class _HeadTree:
    """Builds the tree from its root; every subgraph's outputs carry its name."""

    def __init__(self, speech: SpeechModel, bits: int) -> None:
        self._speech = speech
        self._bits = bits
        self._num_classes = max(len(speech.codebook0_head), speech.depth_heads.shape[1])

    def build(self) -> onnx.GraphProto:
        depth_width, width = self._speech.projection.shape
        root = GraphBuilder("heads")
        self._add_choice(root, 0, 1 + len(self._speech.depth_heads), "")
        inputs = [
            tensor("backbone_hidden", TensorProto.FLOAT, 1, width),
            tensor("depth_hidden", TensorProto.FLOAT, 1, depth_width),
            tensor("index", TensorProto.INT64),
        ]
        return root.graph(inputs, self._outputs(""))

    def _outputs(self, prefix: str) -> list[onnx.ValueInfoProto]:
        return [
            tensor(f"{prefix}logits", TensorProto.FLOAT, 1, self._num_classes),
            tensor(f"{prefix}depth_input", TensorProto.FLOAT, 1, len(self._speech.projection)),
        ]

    def _add_choice(self, graph: GraphBuilder, first: int, end: int, prefix: str) -> None:
        """Add the choice among the heads ``first`` to ``end - 1`` with outputs named with ``prefix``."""
        middle = (first + end) // 2
        condition = graph.op("Less", "index", graph.constant(np.array(middle, np.int64)))
        names = [value.name for value in self._outputs(prefix)]
        branches = {"then_branch": self._branch(first, middle), "else_branch": self._branch(middle, end)}
        graph.node(helper.make_node("If", [condition], names, **branches))

    def _branch(self, first: int, end: int) -> onnx.GraphProto:
        name = f"head{first}" if end - first == 1 else f"heads{first}to{end - 1}"
        prefix = f"{name}_"
        graph = GraphBuilder(name)
        if end - first > 1:
            self._add_choice(graph, first, end, prefix)
        elif first == 0:
            head = graph.constant(self._padded(self._speech.codebook0_head).T)
            graph.op("MatMul", "backbone_hidden", head, output=f"{prefix}logits")
            projection = graph.constant(self._speech.projection.T)
            graph.op("MatMul", "backbone_hidden", projection, output=f"{prefix}depth_input")
        else:
            self._add_depth_head(graph, self._padded(self._speech.depth_heads[first - 1]), f"{prefix}logits")
            graph.op("Identity", "depth_hidden", output=f"{prefix}depth_input")
        return graph.graph([], self._outputs(prefix))

    def _add_depth_head(self, graph: GraphBuilder, head: F32, output: str) -> None:
        if self._bits == 32:
            graph.op("MatMul", "depth_hidden", graph.constant(head.T), output=output)
            return
        packed, scales = quantize_blocks(head)
        graph.op(
            "MatMulNBits",
            "depth_hidden",
            graph.constant(packed),
            graph.constant(scales),
            output=output,
            N=head.shape[0],
            K=head.shape[1],
            bits=8,
            block_size=_BLOCK,
            accuracy_level=4,  # 8-bit activations; any other level is a hundred times slower
        )

    def _padded(self, head: F32) -> F32:
        return np.pad(head, ((0, self._num_classes - len(head)), (0, 0)))


def quantize_blocks(weight: F32) -> tuple[NDArray[np.uint8], F32]:
    """Quantize [N, K] for MatMulNBits: uint8 [N, K/32, 32] around 128 and one float32 scale a block [N, K/32].

    Source: onnxruntime, docs/ContribOperators.md, com.microsoft.MatMulNBits.
    """
    blocks = weight.reshape(len(weight), -1, _BLOCK)
    scales = np.abs(blocks).max(axis=2) / 127
    steps = np.divide(blocks, scales[..., None], out=np.zeros_like(blocks), where=scales[..., None] > 0)
    return (np.rint(steps) + 128).astype(np.uint8), scales.astype(np.float32)
