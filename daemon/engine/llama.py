"""Owner of llama.cpp: one model and its context, fed with embeddings, answering with hidden states.

Source: the C API of llama.cpp (include/llama.h) as bound by llama-cpp-python 0.3.36.
"""

import ctypes
import logging
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from daemon.errors import EngineError, ModelError
from daemon.submodule import import_submodule
from daemon.values import F32

llama_cpp: Any = import_submodule("llama_cpp", "llama_cpp")  # the package imports jinja2 and more: 30 ms, 6 MB
logger = logging.getLogger(__name__)

_GGML_TYPE_F32, _GGML_TYPE_F16 = 0, 1
_FLASH_ATTENTION_OFF, _FLASH_ATTENTION_AUTO = 0, -1
_LOG_LEVELS = {3: logging.DEBUG, 4: logging.WARNING}  # ggml: 3 warning, 4 error; a model prints a thousand below that
_last_error = ""


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]  # ctypes
def _on_log(level: int, text: bytes, _user_data: int | None) -> None:
    """Pass llama.cpp's warnings and errors to logging; what it warns of at load is debug to a user of ours."""
    global _last_error  # noqa: PLW0603  # C gives the reason of a failed load only here
    line = text.decode("utf-8", "replace").strip()
    if level == 4:
        _last_error = line
    if line and level in _LOG_LEVELS:
        logger.log(_LOG_LEVELS[level], "llama.cpp: %s", line)


llama_cpp.llama_log_set(_on_log, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


def system_info() -> str:
    """The instruction sets that this build of llama.cpp uses on this machine."""
    line: str = llama_cpp.llama_print_system_info().decode()
    used = [item.split("=")[0].strip() for item in line.partition(":")[2].split("|") if item.strip().endswith("= 1")]
    return " ".join(used)


def _never() -> bool:
    return False


def runtime() -> str:
    """What else than the model decides the bits of a KV cache: llama.cpp's version and the instruction sets it uses."""
    return f"llama-cpp-python {version('llama-cpp-python')} {system_info()}"


class PrefillStoppedError(Exception):
    """``LlamaModel.stop`` asked for it; the KV cache holds a part of what was to be read."""


class LlamaModel:
    """One GGUF model and one context of one sequence. One thread at a time.

    Attributes:
        inputs: float32 [max_batch, D], where the caller puts embeddings before ``decode``.
        hidden: float32 [D], the last position's output after the final norm; overwritten by every ``decode``.
        position: how many positions the KV cache holds.
        stop: called after every batch of a prefill, which can take seconds; True ends it.

    Args:
        path: the GGUF file.
        num_positions: the most positions the KV cache must hold.
        max_batch: the most embeddings in one ``decode``.
        num_threads: llama.cpp threads.
        exact: float32 KV and no flash attention, for parity (models.md measured 2e-7 against 2.5e-4).

    Raises:
        ModelError: the file cannot be loaded.
    """

    def __init__(
        self, path: Path, *, num_positions: int, max_batch: int, num_threads: int, exact: bool = False
    ) -> None:
        self._path = path
        self._model: Any = None
        self._context: Any = None
        self._batch: Any = None
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise ModelError(f"{path}: llama.cpp cannot load it: {_last_error or 'no reason given'}")
        self.width: int = llama_cpp.llama_model_n_embd(self._model)
        context = llama_cpp.llama_context_default_params()
        context.n_ctx = num_positions
        context.n_batch = context.n_ubatch = max_batch
        context.n_threads = context.n_threads_batch = num_threads
        context.embeddings = True
        context.no_perf = True
        context.flash_attn_type = _FLASH_ATTENTION_OFF if exact else _FLASH_ATTENTION_AUTO
        context.type_k = context.type_v = _GGML_TYPE_F32 if exact else _GGML_TYPE_F16
        self._context = llama_cpp.llama_init_from_model(self._model, context)
        if not self._context:
            self.close()
            raise ModelError(f"{path}: llama.cpp cannot make a context of {num_positions} positions: {_last_error}")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(max_batch, self.width, 1)
        self.inputs: F32 = np.ctypeslib.as_array(self._batch.embd, shape=(max_batch, self.width))
        self.hidden: F32 = np.zeros(self.width, np.float32)
        self._hidden_address = self.hidden.ctypes.data
        for i in range(max_batch):
            self._batch.n_seq_id[i] = 1
            self._batch.seq_id[i][0] = 0
            self._batch.logits[i] = 1  # embeddings=True makes every position an output anyway
        self.stop: Callable[[], bool] = _never
        self.num_positions = num_positions
        self.max_batch = max_batch
        self.position = 0

    def decode(self, count: int) -> None:
        """Append ``inputs[:count]`` to the sequence; ``hidden`` is then the last one's output.

        Raises:
            EngineError: llama_decode failed, or the KV cache is full.
        """
        batch = self._batch
        position = self.position
        if position + count > self.num_positions:
            raise EngineError(f"{self._path.name}: no room for {count} more positions after {position}")
        batch.n_tokens = count
        for i in range(count):
            batch.pos[i] = position + i
        status = llama_cpp.llama_decode(self._context, batch)
        output = llama_cpp.llama_get_embeddings_ith(self._context, -1) if status == 0 else None
        if not output:
            reason = f" ({_last_error})" if _last_error else ""
            raise EngineError(f"{self._path.name}: llama_decode returned {status} at position {position}{reason}")
        self.position = position + count
        ctypes.memmove(self._hidden_address, output, self.hidden.nbytes)

    def step(self, embedding: F32) -> F32:
        """Append one position; ``embedding`` is float [D]. Returns ``hidden`` (a view, overwritten by the next)."""
        self.inputs[0] = embedding
        self.decode(1)
        return self.hidden

    def prefill(self, embeddings: F32) -> F32:
        """Append many positions, float [n, D], in batches. Returns ``hidden`` of the last (a view).

        Raises:
            PrefillStoppedError: ``stop`` asked for it.
        """
        for start in range(0, len(embeddings), self.max_batch):
            part = embeddings[start : start + self.max_batch]
            self.inputs[: len(part)] = part
            self.decode(len(part))
            if self.stop():
                raise PrefillStoppedError
        return self.hidden

    def prefill_bidirectional(self, embeddings: F32) -> F32:
        """Append positions that see each other in both directions, float [n, D], in one batch.

        Returns ``hidden`` of the last (a view). What comes after is causal again.

        Raises:
            EngineError: more than ``max_batch`` positions: llama.cpp would end the process.
            PrefillStoppedError: ``stop`` asked for it.

        Source: llama.cpp src/llama-context.cpp ``decode``: without the causal mask a batch is never split.
        """
        if len(embeddings) > self.max_batch:
            raise EngineError(
                f"{self._path.name}: {len(embeddings)} positions at once, expected {self.max_batch} or less"
            )
        llama_cpp.llama_set_causal_attn(self._context, False)
        try:
            return self.prefill(embeddings)
        finally:
            llama_cpp.llama_set_causal_attn(self._context, True)

    def rewind(self, position: int) -> None:
        """Forget everything from ``position`` on."""
        if position == 0:
            llama_cpp.llama_memory_clear(self._memory, False)
        elif not llama_cpp.llama_memory_seq_rm(self._memory, 0, position, -1):
            raise EngineError(f"{self._path.name}: cannot rewind to position {position}")
        self.position = position

    def state(self) -> bytes:
        """The KV cache as it is; ``restore`` brings it back to the bit.

        Raises:
            EngineError: llama.cpp failed.
        """
        size = llama_cpp.llama_state_seq_get_size(self._context, 0)
        data = (ctypes.c_uint8 * size)()
        written = llama_cpp.llama_state_seq_get_data(self._context, data, size, 0)
        if written != size:
            raise EngineError(f"{self._path.name}: the KV cache cannot be read: {_last_error}")
        return bytes(data)

    def restore(self, state: bytes | memoryview, position: int) -> None:
        """Put back a KV cache of ``position`` positions that ``state`` gave; llama.cpp does not survive any other.

        Raises:
            EngineError: it is of another model or context.
        """
        data = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        if llama_cpp.llama_state_seq_set_data(self._context, data, len(state), 0) != len(state):
            raise EngineError(f"{self._path.name}: the KV cache cannot be restored: {_last_error}")
        last = llama_cpp.llama_memory_seq_pos_max(self._memory, 0)
        if last != position - 1:
            raise EngineError(f"{self._path.name}: a KV cache of {last + 1} positions, expected {position}")
        self.position = position

    def close(self) -> None:
        """Free the context, then the model."""
        if self._batch is not None:
            llama_cpp.llama_batch_free(self._batch)
            self._batch = None
        if self._context:
            llama_cpp.llama_free(self._context)
            self._context = None
        if self._model:
            llama_cpp.llama_model_free(self._model)
            self._model = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
