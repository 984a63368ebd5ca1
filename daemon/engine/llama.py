"""Owner of llama.cpp: one model and its context, fed with embeddings, answering with hidden states.

Source: the C API of llama.cpp (include/llama.h) as bound by llama-cpp-python 0.3.36.
"""

import ctypes
import logging
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import numpy as np

from daemon.engine.governor import StepKind, ThreadGovernor
from daemon.engine.native_time import NATIVE
from daemon.errors import EngineError, ModelError
from daemon.machine import available_memory
from daemon.submodule import import_submodule
from daemon.values import F32

llama_cpp: Any = import_submodule("llama_cpp", "llama_cpp")  # the package imports jinja2 and more: 30 ms, 6 MB
logger = logging.getLogger(__name__)

_GGML_TYPE_F32, _GGML_TYPE_F16 = 0, 1
_FLASH_ATTENTION_OFF, _FLASH_ATTENTION_AUTO = 0, -1
_POSITIONS_STEP = 256
"""llama.cpp rounds the room of a sequence up to a multiple of this."""
_SPLIT_POSITIONS = 256
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


def same_bits_with_flash_attention(num_positions: int, governor: ThreadGovernor | None) -> bool:
    """Whether flash attention gives the same bits whatever the governor decides; it is as fast with as without it.

    Beyond ``_SPLIT_POSITIONS`` it divides the KV cache between the threads: another number sums in another order.

    Source: llama.cpp ggml/src/ggml-cpu/ops.cpp ``use_split_kv_path``; the KV cache is padded to multiples of 256.
    """
    return governor is None or num_positions <= _SPLIT_POSITIONS


class PrefillStoppedError(Exception):
    """``LlamaModel.stop`` asked for it; the KV cache holds a part of what was to be read."""


class LlamaModel:
    """One GGUF model and one context of one or more sequences. One thread at a time.

    Attributes:
        inputs: float32 [max_batch, D], where the caller puts embeddings before ``decode``.
        hiddens: float32 [num_sequences, D], the output of each sequence's last position after the final norm;
            overwritten by every ``decode`` of that sequence.
        hidden: that of sequence 0.
        positions: how many positions the KV cache holds of each sequence.
        stop: called after every batch of a prefill, which can take seconds; True ends it.

    Args:
        path: the GGUF file.
        num_positions: the most positions the KV cache must hold of a sequence.
        max_batch: the most embeddings in one ``decode``.
        num_threads: llama.cpp threads.
        num_sequences: how many sequences may go on side by side, as far as their KV caches together take a quarter of
            the memory that is free. ``positions`` has one each.
        governor: decides how many of them each step gets.
        exact: float32 KV and no flash attention, for parity (models.md measured 2e-7 against 2.5e-4).

    Raises:
        ModelError: the file cannot be loaded.
    """

    def __init__(
        self,
        path: Path,
        *,
        num_positions: int,
        max_batch: int,
        num_threads: int,
        num_sequences: int = 1,
        governor: ThreadGovernor | None = None,
        exact: bool = False,
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
        num_sequences = self._affordable(num_sequences, num_positions, bytes_per_number=4 if exact else 2)
        context = self._context_params(num_positions, num_sequences, exact=exact)
        context.n_batch = context.n_ubatch = max_batch
        context.n_threads = context.n_threads_batch = num_threads
        flash = not exact and same_bits_with_flash_attention(num_positions, governor)
        context.flash_attn_type = _FLASH_ATTENTION_AUTO if flash else _FLASH_ATTENTION_OFF
        self._context = llama_cpp.llama_init_from_model(self._model, context)
        if not self._context:
            self.close()
            raise ModelError(f"{path}: llama.cpp cannot make a context of {num_positions} positions: {_last_error}")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(max_batch, self.width, 1)
        self.inputs: F32 = np.ctypeslib.as_array(self._batch.embd, shape=(max_batch, self.width))
        self.hiddens: F32 = np.zeros((num_sequences, self.width), np.float32)
        self.hidden: F32 = self.hiddens[0]
        self._addresses = [int(row.ctypes.data) for row in self.hiddens]
        for i in range(max_batch):
            self._batch.n_seq_id[i] = 1
            self._batch.logits[i] = 1  # embeddings=True makes every position an output anyway
        self.stop: Callable[[], bool] = _never
        self._governor = governor
        self._kinds: list[StepKind] = governor.kinds(max_batch) if governor else []
        self._threads = num_threads
        self.num_positions = num_positions
        self.max_batch = max_batch
        self.positions = [0] * num_sequences

    @staticmethod
    def _context_params(num_positions: int, num_sequences: int, *, exact: bool) -> Any:
        """llama.cpp's parameters for hidden states of so many sequences."""
        params = llama_cpp.llama_context_default_params()
        # Each sequence has its own part of the cache: in a shared one its sums would run in another order.
        params.n_ctx = -(-num_positions // _POSITIONS_STEP) * _POSITIONS_STEP * num_sequences
        params.n_seq_max = num_sequences
        params.embeddings = True
        params.no_perf = True
        params.type_k = params.type_v = _GGML_TYPE_F32 if exact else _GGML_TYPE_F16
        return params

    def _affordable(self, num_sequences: int, num_positions: int, *, bytes_per_number: int) -> int:
        """As many of so many sequences as there is memory for."""
        head = llama_cpp.llama_model_n_embd(self._model) // llama_cpp.llama_model_n_head(self._model)
        numbers = 2 * llama_cpp.llama_model_n_layer(self._model) * llama_cpp.llama_model_n_head_kv(self._model) * head
        available = available_memory()
        if available is None:
            return num_sequences
        room: int = available // 4 // (numbers * bytes_per_number * num_positions)
        return max(1, min(num_sequences, room))

    def decode(self, count: int, sequences: Sequence[int] = (0,)) -> None:
        """Append ``count`` positions to each of the sequences, in one reading of the weights.

        ``inputs`` holds the first sequence's positions, then the next one's; ``hiddens`` has then the output of the
        last position of each. Only sequences whose numbers follow one another are read at once; llama.cpp takes any
        others one after the other.

        Raises:
            EngineError: llama_decode failed, or the KV cache is full.
        """
        batch, positions = self._batch, self.positions
        row = 0
        for sequence in sequences:
            position = positions[sequence]
            if position + count > self.num_positions:
                raise EngineError(f"{self._path.name}: no room for {count} more positions after {position}")
            for i in range(count):
                batch.pos[row] = position + i
                batch.seq_id[row][0] = sequence
                row += 1
        batch.n_tokens = row
        if self._governor is not None:
            self._use_threads(self._governor.begin(self._kinds, row))
        began = perf_counter()
        status = llama_cpp.llama_decode(self._context, batch)
        NATIVE.seconds += perf_counter() - began
        if self._governor is not None:
            self._governor.end()
        row = -1
        for sequence in sequences:
            row += count
            output = llama_cpp.llama_get_embeddings_ith(self._context, row) if status == 0 else None
            if not output:
                reason = f" ({_last_error})" if _last_error else ""
                message = f"llama_decode returned {status} at position {positions[sequence]}{reason}"
                raise EngineError(f"{self._path.name}: {message}")
            positions[sequence] += count
            ctypes.memmove(self._addresses[sequence], output, self.hidden.nbytes)

    def _use_threads(self, num_threads: int) -> None:
        if num_threads != self._threads:
            llama_cpp.llama_set_n_threads(self._context, num_threads, num_threads)
            self._threads = num_threads

    def step(self, embedding: F32) -> F32:
        """Append one position; ``embedding`` is float [D]. Returns ``hidden`` (a view, overwritten by the next)."""
        self.inputs[0] = embedding
        self.decode(1)
        return self.hidden

    def prefill(self, embeddings: F32, sequence: int = 0) -> F32:
        """Append many positions, float [n, D], in batches. Returns the last one's output (a view).

        Raises:
            PrefillStoppedError: ``stop`` asked for it.
        """
        for start in range(0, len(embeddings), self.max_batch):
            part = embeddings[start : start + self.max_batch]
            self.inputs[: len(part)] = part
            self.decode(len(part), (sequence,))
            if self.stop():
                raise PrefillStoppedError
        last: F32 = self.hiddens[sequence]
        return last

    def prefill_bidirectional(self, embeddings: F32, sequence: int = 0) -> F32:
        """Append positions that see each other in both directions, float [n, D], in one batch.

        Returns the last one's output (a view). What comes after is causal again.

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
            return self.prefill(embeddings, sequence)
        finally:
            llama_cpp.llama_set_causal_attn(self._context, True)

    def clear(self) -> None:
        """Forget everything, of all sequences."""
        llama_cpp.llama_memory_clear(self._memory, False)
        for sequence in range(len(self.positions)):
            self.positions[sequence] = 0

    def rewind(self, position: int, sequence: int = 0) -> None:
        """Forget everything from ``position`` on."""
        if not llama_cpp.llama_memory_seq_rm(self._memory, sequence, position, -1):
            raise EngineError(f"{self._path.name}: cannot rewind to position {position}")
        self.positions[sequence] = position

    def copy(self, source: int, target: int) -> None:
        """Make sequence ``target`` what ``source`` is, its last output included.

        Source: llama.cpp src/llama-kv-cache.cpp ``seq_cp``: only whole sequences can be copied.
        """
        llama_cpp.llama_memory_seq_rm(self._memory, target, -1, -1)
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        self.positions[target] = self.positions[source]
        self.hiddens[target] = self.hiddens[source]

    def state(self) -> bytes:
        """The KV cache of sequence 0 as it is; ``restore`` brings it back to the bit.

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
        """Put back ``position`` positions of sequence 0 that ``state`` gave; llama.cpp does not survive any other.

        Raises:
            EngineError: it is of another model or context.
        """
        data = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        if llama_cpp.llama_state_seq_set_data(self._context, data, len(state), 0) != len(state):
            raise EngineError(f"{self._path.name}: the KV cache cannot be restored: {_last_error}")
        last = llama_cpp.llama_memory_seq_pos_max(self._memory, 0)
        if last != position - 1:
            raise EngineError(f"{self._path.name}: a KV cache of {last + 1} positions, expected {position}")
        self.positions[0] = position

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
