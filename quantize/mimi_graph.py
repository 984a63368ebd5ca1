"""Mimi's transformer as ONNX: what its streaming decoder and its encoder share.

Everything is [L, D], a row for each step: with the few steps of a frame, matrix products over rows take half the time
of the same convolutions over columns.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from daemon.values import F32
from quantize.mimi_weights import MimiLayer, MimiTransformer
from quantize.onnx_graph import END, GraphBuilder, tensor


class States:
    """What a streaming graph remembers from call to call: inputs, and outputs NAME_next of the same fixed shape."""

    def __init__(self) -> None:
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def add(self, name: str, dtype: int, *shape: int, meaning: str) -> str:
        """Declare a state; returns the name that its next value must be given."""
        self.inputs.append(tensor(name, dtype, *shape, meaning=meaning))
        self.outputs.append(tensor(f"{name}_next", dtype, *shape, meaning=f"{name} for the next call"))
        return f"{name}_next"


@dataclass(frozen=True, slots=True)
class _Steps:
    """Names of what all layers need to know about the steps of a call."""

    cos: str
    """[L, head_dim]."""
    sin: str
    """[L, head_dim], its first half negated."""
    mask: str
    """[L, keys]: 0 where a step sees a key, else minus infinity."""


class TransformerGraph:
    """Adds a transformer to a graph.

    Args:
        graph: what is added to.
        transformer: the weights.
        states: where the streaming decoder's memory is declared; None sees a whole recording at once.
    """

    def __init__(self, graph: GraphBuilder, transformer: MimiTransformer, states: States | None) -> None:
        self._graph = graph
        self._transformer = transformer
        self._states = states
        self._heads = transformer.heads
        self._head_dim = len(transformer.layers[0].attn_q) // self._heads
        self._past = transformer.window - 1 if states else 0  # how many keys precede those of the call

    def add(self, x: str) -> str:
        """Steps [L, D] -> [L, D]."""
        steps = self._steps(x)
        for number, layer in enumerate(self._transformer.layers):
            x = self._attention(x, layer, steps, number)
            x = self._feed_forward(x, layer)
        return x

    def _steps(self, x: str) -> _Steps:
        graph = self._graph
        length = graph.op("Gather", graph.op("Shape", x), self._scalar(0))
        index = graph.op("Range", self._scalar(0), length, self._scalar(1))
        if not self._states:
            return _Steps(*self._rotation(index), self._mask(index, length))
        position_next = self._states.add("position", TensorProto.INT64, 1, meaning="steps decoded so far")
        graph.op("Add", "position", length, output=position_next)
        cached_next = self._states.add(
            "cached", TensorProto.INT64, 1, meaning="how many rows at the end of all keys and values are filled"
        )
        graph.op("Min", graph.op("Add", "cached", length), graph.integers(self._past), output=cached_next)
        return _Steps(*self._rotation(graph.op("Add", index, "position")), self._mask(index, length))

    def _rotation(self, position: str) -> tuple[str, str]:
        """Cosines and sines for positions int64 [L].

        Angles are float64 until they are less than a turn: float32 would be off by 0.004 an hour into speech.
        """
        graph, base = self._graph, self._transformer.rope_base
        frequency = base ** (-np.arange(0, self._head_dim, 2, dtype=np.float64) / self._head_dim)
        row = graph.op("Unsqueeze", graph.op("Cast", position, to=TensorProto.DOUBLE), graph.integers(1))
        turn = graph.constant(np.array(2 * np.pi))
        angle = graph.op("Mod", graph.op("Mul", row, graph.constant(frequency)), turn, fmod=1)
        angle = graph.op("Cast", angle, to=TensorProto.FLOAT)
        cos, sin = graph.op("Cos", angle), graph.op("Sin", angle)
        return graph.op("Concat", cos, cos, axis=1), graph.op("Concat", graph.op("Neg", sin), sin, axis=1)

    def _mask(self, index: str, length: str) -> str:
        """What each of the ``length`` steps sees of the keys: itself and the ``window - 1`` before it."""
        graph, past = self._graph, self._past
        key = graph.op("Range", self._scalar(0), graph.op("Add", length, self._scalar(past)), self._scalar(1))
        step = graph.op("Unsqueeze", graph.op("Add", index, graph.integers(past)), graph.integers(1))
        age = graph.op("Sub", step, key)  # [L, keys]
        causal = graph.op("GreaterOrEqual", age, self._scalar(0))
        seen = graph.op("And", causal, graph.op("Less", age, self._scalar(self._transformer.window)))
        if self._states:
            first = graph.op("Sub", graph.integers(past), "cached")
            seen = graph.op("And", seen, graph.op("GreaterOrEqual", key, first))
        return graph.op(
            "Where", seen, graph.constant(np.array(0, np.float32)), graph.constant(np.array(-np.inf, np.float32))
        )

    def _attention(self, x: str, layer: MimiLayer, steps: _Steps, number: int) -> str:
        graph, heads, head_dim = self._graph, self._heads, self._head_dim
        scale = np.float32(head_dim**-0.5)
        fused = np.concatenate([layer.attn_q * scale, layer.attn_k, layer.attn_v])
        qkv = self._product(self._norm(x, layer.norm1, layer.norm1_bias), fused)
        qkv = graph.op("Reshape", qkv, graph.integers(-1, 3, heads, head_dim))
        qkv = graph.op("Transpose", qkv, perm=[1, 2, 0, 3])
        rotated = self._rotate(graph.slice(qkv, 0, 2, axis=0), steps)
        query, key = (graph.op("Gather", rotated, self._scalar(part)) for part in (0, 1))
        keys = self._remember(f"layer{number}_keys", key)
        values = self._remember(f"layer{number}_values", graph.op("Gather", qkv, self._scalar(2)))
        scores = graph.op("MatMul", query, graph.op("Transpose", keys, perm=[0, 2, 1]))
        weights = graph.op("Softmax", graph.op("Add", scores, steps.mask), axis=-1)
        seen = graph.op("Transpose", graph.op("MatMul", weights, values), perm=[1, 0, 2])
        seen = graph.op("Reshape", seen, graph.integers(-1, heads * head_dim))
        return self._product(seen, layer.attn_output, add=x)

    def _rotate(self, x: str, steps: _Steps) -> str:
        """Rotate [..., L, head_dim], whose halves are the two coordinates."""
        graph, half = self._graph, self._head_dim // 2
        swapped = graph.op("Concat", graph.slice(x, half, END, axis=-1), graph.slice(x, 0, half, axis=-1), axis=-1)
        return graph.op("Add", graph.op("Mul", x, steps.cos), graph.op("Mul", swapped, steps.sin))

    def _remember(self, name: str, rows: str) -> str:
        """New keys or values [heads, L, head_dim] behind those of earlier calls."""
        if not self._states:
            return rows
        shape = (self._heads, self._past, self._head_dim)
        following = self._states.add(
            name, TensorProto.FLOAT, *shape, meaning="of the latest steps, the newest last; keys are rotated"
        )
        rows = self._graph.op("Concat", name, rows, axis=1)
        self._graph.slice(rows, -self._past, END, axis=1, output=following)
        return rows

    def _feed_forward(self, x: str, layer: MimiLayer) -> str:
        y = self._product(self._norm(x, layer.norm2, layer.norm2_bias), layer.expand)
        return self._product(self._graph.op("Gelu", y), layer.contract, add=x)

    def _norm(self, x: str, scale: F32, bias: F32) -> str:
        graph = self._graph
        epsilon = self._transformer.norm_eps
        return graph.op("LayerNormalization", x, graph.constant(scale), graph.constant(bias), epsilon=epsilon)

    def _product(self, x: str, weight: F32, *, add: str = "") -> str:
        """``x`` [L, in] times ``weight`` [out, in] transposed, plus ``add`` [L, out]."""
        return self._graph.op("Gemm", x, self._graph.weight(weight), add, transB=1)

    def _scalar(self, value: int) -> str:
        return self._graph.constant(np.array(value, np.int64))
