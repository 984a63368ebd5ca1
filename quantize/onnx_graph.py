"""A small builder of ONNX graphs: nodes get names by themselves, weights their storage type."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from quantize.half import stored

_OPSETS = (("", 21), ("com.microsoft", 1))
_IR_VERSION = 10  # the one of opset 21
END = 2**31
"""Where a slice ends that goes to the end."""


class GraphBuilder:
    """Collects the nodes and initializers of one graph (or subgraph).

    Args:
        name: unique within the model; every value's name begins with it.
        half: store ``weight`` arrays as float16; they are cast to float32 when the model is loaded.
    """

    def __init__(self, name: str, *, half: bool = False) -> None:
        self._name = name
        self._half = half
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        output = output or f"{self._name}_{kind}_{len(self._nodes)}"
        domain = "com.microsoft" if kind == "MatMulNBits" else ""
        self._nodes.append(helper.make_node(kind, inputs, [output], domain=domain, **attributes))
        return output

    def node(self, node: onnx.NodeProto) -> None:
        """Add a node that was made elsewhere."""
        self._nodes.append(node)

    def constant(self, value: NDArray[Any]) -> str:
        """Add an array as it is."""
        name = f"{self._name}_constant_{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def integers(self, *values: int) -> str:
        """Add an int64 vector."""
        return self.constant(np.array(values, np.int64))

    def weight(self, value: NDArray[np.float32]) -> str:
        """Add a large array in the storage type; the value named is float32.

        Raises:
            ModelError: it has numbers that the type cannot hold.
        """
        name = self._stored(value)
        return self.op("Cast", name, to=TensorProto.FLOAT) if self._half else name

    def look_up(self, table: NDArray[np.float32], rows: str) -> str:
        """Rows of a table that is added in the storage type; only those that are looked up become float32.

        Raises:
            ModelError: the table has numbers that the type cannot hold.
        """
        found = self.op("Gather", self._stored(table), rows)
        return self.op("Cast", found, to=TensorProto.FLOAT) if self._half else found

    def _stored(self, value: NDArray[np.float32]) -> str:
        return self.constant(stored(value, f"{self._name}: a weight {list(value.shape)}", half=self._half))

    def linear(self, x: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> str:
        """``x`` [L, in] times ``weight`` [out, in] transposed, plus ``bias`` [out]."""
        return self.op("Gemm", x, self.weight(weight), self.constant(bias), transB=1)

    def slice(self, x: str, start: int, end: int, *, axis: int, output: str | None = None) -> str:
        """``x[start:end]`` along an axis; an ``end`` of ``END`` is the end."""
        return self.op("Slice", x, self.integers(start), self.integers(end), self.integers(axis), output=output)

    def graph(self, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> onnx.GraphProto:
        """The graph; outputs name values that were added with ``op(..., output=NAME)``."""
        return helper.make_graph(self._nodes, self._name, inputs, outputs, self._initializers)


def tensor(name: str, dtype: int, *shape: int | str, meaning: str = "") -> onnx.ValueInfoProto:
    """An input or output; a string is a dynamic dimension; ``meaning`` says to a reader of the file what it is."""
    return helper.make_tensor_value_info(name, dtype, shape, doc_string=meaning)


def model(graph: onnx.GraphProto) -> onnx.ModelProto:
    """A checked model of a finished graph."""
    opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="crier")
    onnx.checker.check_model(made)
    return made
