"""Owner of onnxruntime: one session whose inputs and outputs are bound once to numpy arrays."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime

from daemon.engine.native_time import NATIVE
from daemon.errors import EngineError, ModelError
from daemon.values import Array

Spec = tuple[np.dtype[Any] | None, tuple[Any, ...]]
"""dtype (None: one we do not use) and shape of an input or output; a free size is a str or None."""

_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
}


def runtime() -> str:
    """What else than the model decides the bits of a result: onnxruntime's version."""
    return f"onnxruntime {onnxruntime.__version__}"


class OnnxModel:
    """An ONNX file ready to run on the CPU without spinning threads.

    Args:
        path: the model.
        num_threads: threads inside one operator.

    Attributes:
        inputs: name -> its Spec.
        outputs: likewise.

    Raises:
        ModelError: onnxruntime cannot load the file.
    """

    def __init__(self, path: Path, *, num_threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        self._path = path
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as err:  # onnxruntime raises types of its own that have no common base
            raise ModelError(f"{path}: onnxruntime cannot load it: {_first_line(err)}") from err
        self.inputs: dict[str, Spec] = _specs(self._session.get_inputs())
        self.outputs: dict[str, Spec] = _specs(self._session.get_outputs())

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> "BoundRun":
        """Tie every input and output to an array for good; the arrays are read and written in place."""
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        return BoundRun(self._session, binding, self._path, [*inputs.values(), *outputs.values()])

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once on arrays of any size that fits, into new arrays.

        Raises:
            EngineError: onnxruntime failed.
        """
        try:
            results = self._session.run(list(self.outputs), dict(inputs))
        except Exception as err:  # see above
            raise EngineError(f"{self._path.name}: onnxruntime failed: {_first_line(err)}") from err
        return dict(zip(self.outputs, results, strict=True))


class BoundRun:
    """A session with its arrays; calling it runs the model once. Keeps the arrays alive."""

    def __init__(self, session: Any, binding: Any, path: Path, arrays: list[Array]) -> None:
        self._run = session.run_with_iobinding
        self._binding = binding
        self._path = path
        self._arrays = arrays

    def __call__(self) -> None:
        """Run once.

        Raises:
            EngineError: onnxruntime failed.
        """
        began = perf_counter()
        try:
            self._run(self._binding)
        except Exception as err:  # see OnnxModel
            raise EngineError(f"{self._path.name}: onnxruntime failed: {_first_line(err)}") from err
        NATIVE.seconds += perf_counter() - began


def _specs(args: Sequence[Any]) -> dict[str, Spec]:
    return {arg.name: (_DTYPES.get(arg.type), tuple(arg.shape)) for arg in args}


def _first_line(err: Exception) -> str:
    return (str(err).splitlines() or [type(err).__name__])[0][:300]
